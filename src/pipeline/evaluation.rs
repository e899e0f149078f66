//! One block's evaluation: runs the transform, answers what it asks for, and remembers what it was answered.
//!
//! A block may be evaluated before those below it are: what it then read of the state may turn out to be another
//! value. [`Evaluation::holds`] tells, and [`Evaluation::again`] runs the transform once more with the views'
//! answers at hand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span};

use super::cache::{Found, StateCache};
use super::habit::{Asked, Habit};
use super::window::Cost;
use super::{Pipeline, PipelineError};
use crate::block::{BlockRef, Height, StateRoot};
use crate::failure::Kind;
use crate::runtime::{Answer, LogLine, Output, Request, RuntimeError, Step};
use crate::source::{Claim, Digest, Reading, SourceError};
use crate::table::{ChangeSet, StateWrite, TableError, Tables, state};
use crate::view::{self, Question};

/// What evaluations of one reading share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) reading: Arc<Reading>,
    pub(super) cache: Arc<StateCache>,
    tables: Arc<Tables>,
    /// Cancelled when nobody waits for results any more.
    pub(super) given_up: CancellationToken,
    habit: Arc<Habit>,
}

/// What came of a block.
pub(super) struct Outcome {
    /// Folded, with keys in their one form; or what is wrong with them.
    pub(super) changes: Result<ChangeSet, TableError>,
    pub(super) state: Vec<StateWrite>,
    pub(super) log: Vec<LogLine>,
    pub(super) fuel_used: u64,
    /// How much the transform handed over.
    pub(super) bytes: usize,
    memory_bytes: usize,
}

/// Why nothing came of it.
pub(super) enum Failed {
    Transform(RuntimeError),
    Other(Box<PipelineError>),
}

/// What the transform was answered.
#[derive(Default)]
struct Answers {
    views: HashMap<Question, view::Answer>,
    asked: Asked,
    /// On their way, and not asked for by the transform so far.
    begun: HashMap<Question, AbortOnDropHandle<Begun>>,
    state: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

/// How long a view took, and what it answered.
type Begun = (Duration, Result<view::Answer, SourceError>);

async fn begin(reading: Arc<Reading>, question: Question, height: Height) -> Begun {
    let asked = Instant::now();
    let answer = reading.view(&question, height).await;
    (asked.elapsed(), answer)
}

impl Answers {
    fn bytes(&self) -> usize {
        let views = self.views.iter().map(|(question, answer)| {
            question.view.len() + question.input.len() + answer.as_ref().map_or(0, Vec::len)
        });
        let state = self.state.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
        views.chain(state).sum()
    }
}

/// A block that was evaluated.
pub(super) struct Evaluation {
    pub(super) at: BlockRef,
    pub(super) result: Result<Outcome, Failed>,
    /// What the source said of its state there, where it keeps roots.
    pub(super) state_root: Option<StateRoot>,
    /// What it asked of views, where other servers are to agree.
    views: Vec<(Question, Digest)>,
    answers: Answers,
    /// When the state was read, as [`StateCache::generation`] counts.
    generation: u64,
    pub(super) cost: Cost,
    /// Whether the transform was told that a view had failed.
    pub(super) view_failed: bool,
}

impl Context {
    pub(super) fn new(
        pipeline: &Arc<Pipeline>,
        reading: Arc<Reading>,
        tables: &Arc<Tables>,
        cache: &Arc<StateCache>,
        habit: &Arc<Habit>,
    ) -> Context {
        let (pipeline, tables) = (Arc::clone(pipeline), Arc::clone(tables));
        let (cache, habit) = (Arc::clone(cache), Arc::clone(habit));
        Context { pipeline, reading, cache, tables, habit, given_up: CancellationToken::new() }
    }

    /// Evaluates the block at a height; `None` when the source has no hash for it any more.
    pub(super) async fn evaluate(&self, height: Height) -> Result<Option<Evaluation>, PipelineError> {
        let asked = Instant::now();
        let Some(hash) = self.reading.hash(height).await? else { return Ok(None) };
        let took = asked.elapsed();
        // Beside it, so that nothing waits for the root.
        let (mut evaluation, state_root) = tokio::join!(
            self.run(BlockRef { height, hash }, Answers::default()),
            self.reading.state_root(height)
        );
        evaluation.state_root = state_root?;
        if evaluation.result.is_ok() {
            self.habit.learn(height, std::mem::take(&mut evaluation.answers.asked));
        }
        // A hash may be known already, so it is a measure for want of a better one only.
        evaluation.cost.source.times += 1;
        evaluation.cost.source.quickest.get_or_insert(took);
        Ok(Some(evaluation))
    }

    /// Runs the transform on a thread that may block: it computes for long, and waits there for what it asks for.
    async fn run(&self, at: BlockRef, mut answers: Answers) -> Evaluation {
        let generation = self.cache.generation();
        let (context, runtime, span) = (self.clone(), Handle::current(), Span::current());
        let run = move || {
            let _in_span = span.entered();
            let mut cost = Cost::default();
            let output = context.steps(at, &mut answers, &runtime, &mut cost);
            let result = output.and_then(|output| context.outcome(at, output, &runtime, &mut cost));
            // Nobody waits for them any more.
            answers.begun.clear();
            cost.bytes =
                answers.bytes() + result.as_ref().map_or(0, |outcome| outcome.bytes + outcome.memory_bytes);
            let view_failed = answers.views.values().any(Result::is_err);
            let views = match context.pipeline.source.quorum() {
                0 | 1 => Vec::new(),
                _ => {
                    answers.views.iter().map(|(asked, answer)| (asked.clone(), Digest::of(answer))).collect()
                }
            };
            if answers.state.is_empty() {
                // Nothing that the blocks below do changes its result.
                answers.views = HashMap::new();
            }
            Evaluation { at, result, state_root: None, views, answers, generation, cost, view_failed }
        };
        tokio::task::spawn_blocking(run).await.unwrap_or_else(|_| {
            let error = PipelineError::CutOff { height: at.height };
            let result = Err(Failed::Other(Box::new(error)));
            let (answers, cost) = (Answers::default(), Cost::default());
            let (state_root, views, view_failed) = (None, Vec::new(), false);
            Evaluation { at, result, state_root, views, answers, generation, cost, view_failed }
        })
    }

    fn steps(
        &self,
        at: BlockRef,
        answers: &mut Answers,
        runtime: &Handle,
        cost: &mut Cost,
    ) -> Result<Output, Failed> {
        let mut began = Instant::now();
        let mut step = self.pipeline.transform.begin(at).map_err(Failed::Transform)?;
        loop {
            cost.computed += began.elapsed();
            match step {
                Step::Done(output) => return Ok(output),
                Step::Ask(request, suspended) => {
                    let answer = self.answer(at.height, answers, request, cost);
                    let answer = runtime.block_on(self.unless_given_up(at.height, answer));
                    let answer = answer.map_err(|error| Failed::Other(Box::new(error)))?;
                    began = Instant::now();
                    step = suspended.resume(answer).map_err(Failed::Transform)?;
                }
            }
        }
    }

    /// Finds the rows that the changes are about, and folds them.
    fn outcome(
        &self,
        at: BlockRef,
        output: Output,
        runtime: &Handle,
        cost: &mut Cost,
    ) -> Result<Outcome, Failed> {
        let Output { changes, state, log, fuel_used, bytes, memory_bytes } = output;
        let began = Instant::now();
        let changes = match self.tables.resolve(changes, state.clone()) {
            Ok(resolved) => {
                let fold = async { Ok(resolved.fold(&self.tables, &self.pipeline.db).await) };
                let folded = runtime.block_on(self.unless_given_up(at.height, fold));
                folded.map_err(|error| Failed::Other(Box::new(error)))?
            }
            Err(error) => Err(error),
        };
        cost.computed += began.elapsed();
        match changes {
            // Asked again, PostgreSQL may answer.
            Err(error) if error.kind() == Kind::Transient => Err(Failed::Other(Box::new(error.into()))),
            changes => Ok(Outcome { changes, state, log, fuel_used, bytes, memory_bytes }),
        }
    }

    async fn unless_given_up<T>(
        &self,
        height: Height,
        work: impl Future<Output = Result<T, PipelineError>>,
    ) -> Result<T, PipelineError> {
        tokio::select! {
            biased;
            () = self.given_up.cancelled() => Err(PipelineError::CutOff { height }),
            done = work => done,
        }
    }

    async fn answer(
        &self,
        height: Height,
        answers: &mut Answers,
        request: Request,
        cost: &mut Cost,
    ) -> Result<Answer, PipelineError> {
        match request {
            Request::View { name, input } => {
                let question = Question { view: name, input };
                if !answers.views.contains_key(&question) {
                    self.ask(height, answers, &question, cost).await?;
                }
                let answer = answers.views[&question].clone();
                answers.asked.note(&question);
                Ok(Answer::View(answer))
            }
            Request::State { key } => {
                if let Some(known) = answers.state.get(&key) {
                    return Ok(Answer::State(known.clone()));
                }
                let value = self.state(&key, cost).await?;
                answers.state.insert(key, value.clone());
                Ok(Answer::State(value))
            }
        }
    }

    /// Asks this, and begins to ask what the transform will most likely ask besides; nothing waits for that until it
    /// does. How it fails does not count: what is wanted then is asked as if nothing had been.
    async fn ask(
        &self,
        height: Height,
        answers: &mut Answers,
        question: &Question,
        cost: &mut Cost,
    ) -> Result<(), PipelineError> {
        let asked = Instant::now();
        cost.views += 1;
        if let Some(begun) = answers.begun.remove(question)
            && let Ok((took, Ok(Ok(answer)))) = begun.await
        {
            cost.waited += asked.elapsed();
            cost.source.answered(took);
            answers.views.insert(question.clone(), Ok(answer));
            return Ok(());
        }
        for other in self.habit.beside(question) {
            if !answers.views.contains_key(&other) && !answers.begun.contains_key(&other) {
                let begun = begin(Arc::clone(&self.reading), other.clone(), height).in_current_span();
                let begun = tokio::spawn(begun);
                answers.begun.insert(other, AbortOnDropHandle::new(begun));
            }
        }
        let asked = Instant::now();
        let answer = self.reading.view(question, height).await?;
        cost.source.answered(asked.elapsed());
        cost.waited += asked.elapsed();
        answers.views.insert(question.clone(), answer);
        Ok(())
    }

    async fn state(&self, key: &[u8], cost: &mut Cost) -> Result<Option<Vec<u8>>, PipelineError> {
        let generation = match self.cache.look(key) {
            Found::Value(value) => return Ok(value),
            Found::Unknown { generation } => generation,
        };
        let asked = Instant::now();
        let client = self.pipeline.db.client().await?;
        let value = state::read(&client, &self.pipeline.name, key).await?;
        cost.database.answered(asked.elapsed());
        self.cache.read(key, value.as_ref(), generation);
        Ok(value)
    }
}

impl Evaluation {
    /// What it was made from, for other servers to agree on; takes the views.
    pub(super) fn claim(&mut self) -> Claim {
        Claim { block: self.at, state_root: self.state_root, views: std::mem::take(&mut self.views) }
    }

    /// Whether what it read of the state is what the blocks below it have left there. To be asked when all of
    /// them are known.
    pub(super) fn holds(&self, cache: &StateCache) -> bool {
        cache.holds(&self.answers.state, self.generation)
    }

    /// The same block once more, from the state as it is now.
    pub(super) async fn again(self, context: &Context) -> Evaluation {
        let answers = Answers { views: self.answers.views, ..Answers::default() };
        let mut again = context.run(self.at, answers).await;
        again.state_root = self.state_root;
        again.cost.views += self.cost.views;
        again.cost.waited += self.cost.waited;
        again.cost.computed += self.cost.computed;
        again
    }
}
