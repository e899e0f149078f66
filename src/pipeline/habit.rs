//! What a transform usually asks the source for, so that views which do not depend on one another's answers need not
//! wait for one another: with the first of them, the others that the last block asked for are asked as well.
//!
//! It makes no difference to a result, since an answer depends on the question and the height alone.

use std::sync::{Mutex, PoisonError};

/// A view and its input.
pub(super) type Question = (String, Vec<u8>);

/// The most questions that are remembered, and the most bytes of one.
const MOST_QUESTIONS: usize = 16;
const MOST_BYTES: usize = 1 << 10;

/// The questions of the block that was evaluated last.
#[derive(Default)]
pub(super) struct Habit(Mutex<Vec<Question>>);

impl Habit {
    /// What else will most likely be asked, when this is asked.
    pub(super) fn beside(&self, question: &Question) -> Vec<Question> {
        let questions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !questions.contains(question) {
            return Vec::new();
        }
        questions.iter().filter(|other| *other != question).cloned().collect()
    }

    /// What a block has asked, each question once.
    pub(super) fn learn(&self, asked: impl Iterator<Item = Question>) {
        let short = asked.filter(|(name, input)| name.len() + input.len() <= MOST_BYTES);
        let asked = short.take(MOST_QUESTIONS).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = asked;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str) -> Question {
        (name.to_owned(), vec![1])
    }

    #[test]
    fn what_the_last_block_asked_is_expected_together_and_nothing_else() {
        let habit = Habit::default();
        assert!(habit.beside(&question("a")).is_empty());
        habit.learn([question("a"), question("b")].into_iter());
        assert_eq!(habit.beside(&question("a")), [question("b")]);
        assert!(habit.beside(&question("c")).is_empty(), "this block asks for something else");
        habit.learn([question("b")].into_iter());
        assert!(habit.beside(&question("b")).is_empty());
    }

    #[test]
    fn little_is_remembered() {
        let habit = Habit::default();
        let long = ("long".to_owned(), vec![0; MOST_BYTES]);
        habit.learn((0..100).map(|number| question(&number.to_string())).chain([long]));
        assert_eq!(habit.beside(&question("0")).len(), MOST_QUESTIONS - 1);
    }
}
