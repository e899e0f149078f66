//! What a transform asks the source for at every block, so that views which do not depend on one another's answers need
//! not wait for one another: with the first of them the others are asked as well.
//!
//! It makes no difference to a result, since an answer depends on the question and the height alone.

use std::sync::{Mutex, PoisonError};

use crate::block::Height;
use crate::view::Question;

/// The most questions of a block that are remembered, and the most bytes of one.
const MOST_QUESTIONS: usize = 16;
const MOST_BYTES: usize = 1 << 10;

/// The first questions of a block, each once.
#[derive(Debug, Default)]
pub(super) struct Asked(Vec<Question>);

impl Asked {
    pub(super) fn note(&mut self, question: &Question) {
        let bytes = question.view.len() + question.input.len();
        if self.0.len() < MOST_QUESTIONS && bytes <= MOST_BYTES && !self.0.contains(question) {
            self.0.push(question.clone());
        }
    }
}

/// What two blocks have asked in a row.
#[derive(Default)]
pub(super) struct Habit(Mutex<Learned>);

#[derive(Default)]
struct Learned {
    last: Option<(Height, Asked)>,
    habit: Vec<Question>,
}

impl Habit {
    /// What else will most likely be asked, when this is asked.
    pub(super) fn beside(&self, question: &Question) -> Vec<Question> {
        let learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !learned.habit.contains(question) {
            return Vec::new();
        }
        learned.habit.iter().filter(|other| *other != question).cloned().collect()
    }

    /// What a block has asked. What one alone asks is its own matter, however often it is evaluated.
    pub(super) fn learn(&self, height: Height, asked: Asked) {
        let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Learned { last, habit } = &mut *learned;
        match last {
            Some((before, _)) if *before == height => return,
            Some((_, before)) => {
                *habit = asked.0.iter().filter(|question| before.0.contains(question)).cloned().collect();
            }
            None => {}
        }
        *last = Some((height, asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str) -> Question {
        Question { view: name.to_owned(), input: vec![1] }
    }

    fn learn(habit: &Habit, height: u32, names: &[&str]) {
        let mut asked = Asked::default();
        names.iter().for_each(|name| asked.note(&question(name)));
        habit.learn(Height::new(height).unwrap(), asked);
    }

    #[test]
    fn what_two_blocks_asked_is_expected_together_and_nothing_else() {
        let habit = Habit::default();
        learn(&habit, 1, &["a", "b", "1"]);
        assert!(habit.beside(&question("a")).is_empty(), "one block makes no habit");
        learn(&habit, 2, &["a", "b", "2"]);
        assert_eq!(habit.beside(&question("a")), [question("b")]);
        assert!(habit.beside(&question("c")).is_empty(), "this block asks for something else");
        learn(&habit, 3, &["a"]);
        learn(&habit, 4, &["a", "b"]);
        assert!(habit.beside(&question("a")).is_empty(), "every second block is no habit");
    }

    #[test]
    fn a_block_that_is_evaluated_again_makes_no_habit() {
        let habit = Habit::default();
        (0..3).for_each(|_| learn(&habit, 1, &["a", "1"]));
        learn(&habit, 2, &["a", "2"]);
        assert!(habit.beside(&question("a")).is_empty());
    }

    #[test]
    fn little_is_remembered() {
        let mut asked = Asked::default();
        asked.note(&Question { view: "long".to_owned(), input: vec![0; MOST_BYTES] });
        (0..100).for_each(|number| asked.note(&question(&number.to_string())));
        asked.note(&question("0"));
        assert_eq!(asked.0.len(), MOST_QUESTIONS);
        assert_eq!(asked.0[0], question("0"));
    }
}
