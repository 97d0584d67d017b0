//! Long work in steps that can be broken off and taken up again.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use web_time::Instant;

use super::LabError;
use crate::turns::Turns;

/// What heads a journal.
const SCHEMA: &str = "phi3-steer.journal/1";

/// What a part of the work is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Prompts are read, and the residual and the features at them.
    Reading,
    /// Candidates are looked for.
    Search,
    /// Candidates are tried out.
    Confirm,
    /// The strength is looked for.
    Strength,
    /// The gate is fitted.
    Gate,
    /// A feature's card is made.
    Card,
    /// Arms are measured.
    Measure,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is done now.
    pub stage: Stage,
    /// Steps of it that are done.
    pub done: usize,
    /// Steps that it has.
    pub total: usize,
    /// Time that the rest of it should take; none before a step was timed.
    pub seconds_left: Option<f64>,
}

/// Results so far, by the key of their step.
///
/// A journal is lines of JSON: `{"schema":…, "recipe":…}`, the recipe as its SHA-256, then
/// `{"key":…, "value":…}` for each step.
pub struct Journal {
    values: HashMap<String, Value>,
    kept: usize,
    sink: Box<dyn FnMut(&str)>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    schema: String,
    recipe: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    value: Value,
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    let bytes = Sha256::digest(bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Journal {
    /// An empty journal of what `recipe` says in full: the recipe, and whatever else the results depend on.
    /// `sink` takes each line, without its end, as soon as there is something to write.
    pub fn new(recipe: &str, mut sink: Box<dyn FnMut(&str)>) -> Self {
        let head = Head {
            schema: SCHEMA.into(),
            recipe: digest(recipe.as_bytes()),
        };
        // A map of two strings always becomes text.
        sink(&serde_json::to_string(&head).unwrap_or_default());
        Self {
            values: HashMap::new(),
            kept: 0,
            sink,
        }
    }

    /// The journal with `lines`, which is a journal's text so far; without a whole line, a new one. What
    /// follows the last line's end was torn off while it was written: it is dropped.
    ///
    /// # Errors
    /// [`LabError::Journal`] if it is another recipe's, or no journal.
    pub fn resume(recipe: &str, lines: &str, sink: Box<dyn FnMut(&str)>) -> Result<Self, LabError> {
        let kept = lines.rfind('\n').map_or(0, |end| end + 1);
        let mut all = lines[..kept].lines().enumerate();
        let fail =
            |number: usize, what: &str| LabError::Journal(format!("line {}: {what}", number + 1));
        let Some((_, head)) = all.next() else {
            return Ok(Self::new(recipe, sink));
        };
        let head: Head = serde_json::from_str(head)
            .map_err(|_| fail(0, "this is not the beginning of a journal of the lab"))?;
        if head.schema != SCHEMA {
            return Err(fail(
                0,
                &format!("{} is not known, {SCHEMA} is", head.schema),
            ));
        }
        if head.recipe != digest(recipe.as_bytes()) {
            return Err(LabError::Journal(
                "it belongs to another recipe, model, dictionary or set of prompts: take up that one, \
                 or begin a new journal"
                    .into(),
            ));
        }
        let mut values = HashMap::new();
        for (number, line) in all.filter(|(_, line)| !line.is_empty()) {
            let line: Line = serde_json::from_str(line)
                .map_err(|e| fail(number, &format!("it cannot be read: {e}")))?;
            values.insert(line.key, line.value);
        }
        Ok(Self { values, kept, sink })
    }

    /// Steps that it holds.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it holds no step.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes of the text taken up that are whole lines: what new lines have to follow.
    pub fn kept(&self) -> usize {
        self.kept
    }

    fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LabError> {
        let value = self.values.get(key).map(T::deserialize);
        value
            .transpose()
            .map_err(|e| LabError::Journal(format!("the step {key} cannot be read: {e}")))
    }

    fn write(&mut self, key: &str, value: &impl Serialize) -> Result<(), LabError> {
        let fail = |e| LabError::Journal(format!("the step {key} cannot be written down: {e}"));
        let line = Line {
            key: key.into(),
            value: serde_json::to_value(value).map_err(fail)?,
        };
        let text = serde_json::to_string(&line).map_err(fail)?;
        (self.sink)(&text);
        // As it will be read again, to the last bit of every number.
        let line: Line = serde_json::from_str(&text).map_err(fail)?;
        self.values.insert(line.key, line.value);
        Ok(())
    }
}

/// Work under way.
pub struct Run<'a> {
    /// The results so far.
    pub journal: &'a mut Journal,
    /// Set to end before the next step.
    pub cancel: &'a Cell<bool>,
    /// Hears how far it is.
    pub tell: &'a mut dyn FnMut(Progress),
    /// Whom it takes turns with, step by step.
    pub turns: Turns,
    stage: Stage,
    done: usize,
    total: usize,
    /// Steps of this stage that were made and not found in the journal, and the seconds they took.
    made: usize,
    seconds: f64,
}

impl<'a> Run<'a> {
    /// A run that shares the GPU with nobody.
    pub fn new(
        journal: &'a mut Journal,
        cancel: &'a Cell<bool>,
        tell: &'a mut dyn FnMut(Progress),
    ) -> Self {
        Self {
            journal,
            cancel,
            tell,
            turns: Turns::default(),
            stage: Stage::Reading,
            done: 0,
            total: 0,
            made: 0,
            seconds: 0.0,
        }
    }

    /// This run in turns with others that use `turns`.
    pub fn in_turns(self, turns: Turns) -> Self {
        Self { turns, ..self }
    }

    /// Begins a stage of `total` steps.
    pub fn begin(&mut self, stage: Stage, total: usize) {
        self.stage = stage;
        self.total = total;
        (self.done, self.made, self.seconds) = (0, 0, 0.0);
        self.report();
    }

    /// The journal's value of `key`, or what `make` gives, which is written down. Both are the value as it
    /// is read from JSON, so that a run that was broken off ends with the results of one that was not;
    /// numbers must be finite.
    ///
    /// # Errors
    /// [`LabError::Cancelled`] when cancel is set, even where the journal has the value.
    pub async fn step<T: Serialize + DeserializeOwned>(
        &mut self,
        key: &str,
        make: impl Future<Output = Result<T, LabError>>,
    ) -> Result<T, LabError> {
        if self.cancel.get() {
            return Err(LabError::Cancelled);
        }
        if let Some(value) = self.journal.read(key)? {
            self.done += 1;
            self.report();
            return Ok(value);
        }
        let turn = self.turns.take().await;
        if self.cancel.get() {
            return Err(LabError::Cancelled);
        }
        let started = Instant::now();
        let made = make.await?;
        drop(turn);
        self.journal.write(key, &made)?;
        let Some(value) = self.journal.read(key)? else {
            return Err(LabError::Journal(format!("the step {key} was lost")));
        };
        self.done += 1;
        self.made += 1;
        self.seconds += started.elapsed().as_secs_f64();
        self.report();
        Ok(value)
    }

    fn report(&mut self) {
        let left = self.total.saturating_sub(self.done) as f64;
        let seconds_left = (self.made > 0).then(|| self.seconds / self.made as f64 * left);
        (self.tell)(Progress {
            stage: self.stage,
            done: self.done,
            total: self.total,
            seconds_left,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

    type Lines = Rc<RefCell<String>>;

    fn sink(lines: &Lines) -> Box<dyn FnMut(&str)> {
        let lines = lines.clone();
        Box::new(move |line| *lines.borrow_mut() += &format!("{line}\n"))
    }

    /// Nothing here waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("a step waits"),
        }
    }

    /// Sums numbers of f32 and f64, breaking off before step `until`; the sum, and the steps it made.
    fn work(
        journal: &mut Journal,
        numbers: &[(f32, f64)],
        until: usize,
    ) -> (Result<f64, LabError>, usize) {
        let cancel = Cell::new(false);
        let mut told = Vec::new();
        let mut tell = |p| told.push(p);
        let mut run = Run::new(journal, &cancel, &mut tell);
        run.begin(Stage::Measure, numbers.len());
        let (mut sum, mut made) = (0.0, 0);
        for (i, pair) in numbers.iter().enumerate() {
            cancel.set(i == until);
            let key = format!("sum/{i}");
            let step = run.step(&key, async {
                made += 1;
                Ok(*pair)
            });
            match now(step) {
                Ok((a, b)) => sum = (sum + f64::from(a)) * b,
                Err(e) => return (Err(e), made),
            }
        }
        let last = told.last().unwrap();
        assert_eq!((last.done, last.total), (numbers.len(), numbers.len()));
        (Ok(sum), made)
    }

    #[test]
    fn a_run_that_is_broken_off_ends_as_one_that_is_not() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let drawn = random.direction(60, 3.7);
        let numbers: Vec<(f32, f64)> = drawn
            .chunks(2)
            .map(|p| (p[0], f64::from(p[1]).exp() / 3.0))
            .collect();
        let whole = Lines::default();
        let mut journal = Journal::new("r", sink(&whole));
        let (expected, made) = work(&mut journal, &numbers, usize::MAX);
        assert_eq!(made, 30);
        let lines = Lines::default();
        let mut journal = Journal::new("r", sink(&lines));
        let mut all = 0;
        let mut until = 0;
        let sum = loop {
            let (sum, made) = work(&mut journal, &numbers, until);
            all += made;
            match sum {
                Ok(sum) => break sum,
                Err(e) => assert!(matches!(e, LabError::Cancelled), "{e}"),
            }
            until += 1 + random.below(7);
            // The process is killed while it writes: the last line is torn, or all lines are whole.
            let mut text = lines.borrow().clone();
            let tail = r#"{"key":"sum/2"#;
            text += &tail[..random.below(tail.len() + 1)];
            journal = Journal::resume("r", &text, sink(&lines)).unwrap();
            assert_eq!(journal.kept(), lines.borrow().len());
            assert_eq!(journal.len(), all);
            assert_eq!(journal.is_empty(), all == 0);
        };
        assert_eq!(sum.to_bits(), expected.unwrap().to_bits());
        assert_eq!(all, 30);
        assert_eq!(*lines.borrow(), *whole.borrow());
    }

    #[test]
    fn a_journal_of_something_else_is_refused() {
        let lines = Lines::default();
        Journal::new("one", sink(&lines));
        let text = lines.borrow().clone();
        let resume = |recipe: &str, text: &str| {
            let journal = Journal::resume(recipe, text, Box::new(|_| {}));
            journal.err().map(|e| e.to_string())
        };
        assert_eq!(resume("one", &text), None);
        for (recipe, text, words) in [
            ("two", text.clone(), "another recipe"),
            ("one", "key,value\n".into(), "line 1: this is not"),
            (
                "one",
                text.replace("/1", "/9"),
                "line 1: phi3-steer.journal/9",
            ),
            ("one", format!("{text}{{\n"), "line 2: it cannot be read"),
        ] {
            let message = resume(recipe, &text).unwrap();
            assert!(message.contains(words), "{message}");
        }
        // Nothing was written, or not even the first line whole: the head is told again.
        for torn in ["", &text[..text.len() - 1]] {
            let again = Lines::default();
            let journal = Journal::resume("one", torn, sink(&again)).unwrap();
            assert_eq!((journal.kept(), &*again.borrow()), (0, &text));
        }
    }

    #[test]
    fn what_json_cannot_hold_is_an_error() {
        let mut journal = Journal::new("r", Box::new(|_| {}));
        let cancel = Cell::new(false);
        let mut tell = |_| {};
        let mut run = Run::new(&mut journal, &cancel, &mut tell);
        let step = now(run.step("odd", async { Ok(f64::NAN) }));
        assert!(step.unwrap_err().to_string().contains("odd"));
        let failed = now(run.step::<u8>("bad", async { Err(LabError::Sets("x".into())) }));
        assert!(matches!(failed, Err(LabError::Sets(_))));
        // A step that failed is made again.
        assert_eq!(now(run.step("bad", async { Ok(7u8) })).unwrap(), 7);
    }

    #[test]
    fn steps_wait_for_their_turn_and_end_when_cancelled_meanwhile() {
        let turns = Turns::default();
        let other = now(turns.take());
        let mut journal = Journal::new("r", Box::new(|_| {}));
        let cancel = Cell::new(false);
        let mut tell = |_| {};
        let mut run = Run::new(&mut journal, &cancel, &mut tell).in_turns(turns.clone());
        let mut step = Box::pin(run.step("a", async { Ok(1u8) }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(step.as_mut().poll(&mut context).is_pending());
        cancel.set(true);
        drop(other);
        let ended = step.as_mut().poll(&mut context);
        assert!(matches!(ended, Poll::Ready(Err(LabError::Cancelled))));
        drop(step);
        // Nobody is held up after.
        now(turns.take());
    }
}
