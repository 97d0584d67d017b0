//! Whole answers: prefill and decode.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::{Plan, alive, lanes_of, median};
use crate::generate::{Chat, ChatRequest, FeatureWish, GenerateError, Sampling, Stats};
use crate::steering::{Intervention, Operator};
use crate::tokens::{Prompt, TokenRole};

/// Times that each figure is measured; the median counts.
const REPEATS: usize = 3;

/// What is asked of the steering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Mode {
    /// Nothing.
    #[serde(rename = "off")]
    Off,
    /// A clamp in every lane.
    #[serde(rename = "clamp in every lane")]
    Clamp,
    /// The features of every token.
    #[serde(rename = "features watched")]
    Watched,
}

impl Mode {
    /// Those that a chat can be measured in.
    pub(super) fn of(chat: &Chat) -> &'static [Self] {
        match chat.steering().points().is_empty() {
            true => &[Mode::Off],
            false => &[Mode::Off, Mode::Clamp, Mode::Watched],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Clamp => "clamp in every lane",
            Mode::Watched => "features watched",
        }
    }
}

/// Prefill and decode passes of all lanes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pass {
    /// Lanes.
    pub lanes: usize,
    /// Positions that each holds before it decodes.
    pub positions: usize,
    /// What is asked of the steering.
    #[serde(rename = "steering")]
    pub mode: Mode,
    /// Prompt tokens a second, over all lanes.
    pub prefill_tokens_a_second: f64,
    /// Seconds of a decode pass.
    pub pass_seconds: f64,
    /// Those over the seconds of the first that was measured.
    pub of_first: f64,
    /// Dispatches of a pass, its sampler's included.
    pub dispatches: u64,
    /// Bytes of weights and cache that a pass reads.
    pub bytes: u64,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pass = self.pass_seconds;
        write!(
            f,
            "{} at {} positions, steering {}: prefill {:.0} tokens/s, decode {:.1} tokens/s a lane ({:.3} ms a \
             pass, {:.2} of the first), {:.1} tokens/s in all, {} dispatches, {:.1} MB, {:.1} GB/s",
            lanes_of(self.lanes),
            self.positions,
            self.mode.name(),
            self.prefill_tokens_a_second,
            1.0 / pass,
            pass * 1e3,
            self.of_first,
            self.lanes as f64 / pass,
            self.dispatches,
            self.bytes as f64 / 1e6,
            self.bytes as f64 / pass / 1e9,
        )
    }
}

impl Pass {
    /// One figure, unless a run of it takes longer than `plan` has patience.
    pub(super) async fn measure(
        chat: &mut Chat,
        mode: Mode,
        positions: usize,
        plan: &Plan,
        cancel: &Rc<Cell<bool>>,
    ) -> Result<Option<Self>, GenerateError> {
        let lanes = chat.model().lanes();
        if let Some(&point) = chat.steering().points().first() {
            let clamp = Intervention::new(point, 0, Operator::Clamp, Some(0.5));
            let list = if mode == Mode::Clamp {
                vec![clamp]
            } else {
                Vec::new()
            };
            for lane in 0..lanes {
                chat.steering().set(lane, &list)?;
            }
        }
        chat.reset();
        let first = run(chat, mode, positions, 2, cancel).await?;
        let passes = first.decode.as_secs_f64() / first.passes.max(1) as f64 * plan.tokens as f64;
        if first.prefill.as_secs_f64() + passes > plan.patience {
            return Ok(None);
        }
        let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            chat.reset();
            let read = run(chat, mode, positions, 0, cancel).await?;
            prefills.push(read.prefilled as f64 / read.prefill.as_secs_f64());
            let whole = run(chat, mode, positions, plan.tokens, cancel).await?;
            decodes.push(whole.decode.as_secs_f64() / whole.passes.max(1) as f64);
        }
        // A longer answer has only more passes; the first step of an answer needs none.
        let mut recorded = Vec::new();
        for tokens in [2, 3] {
            let before = chat.model().gpu().dispatches();
            run(chat, mode, positions, tokens, cancel).await?;
            recorded.push(chat.model().gpu().dispatches() - before);
        }
        Ok(Some(Self {
            lanes,
            positions,
            mode,
            prefill_tokens_a_second: median(&mut prefills),
            pass_seconds: median(&mut decodes),
            of_first: 1.0,
            dispatches: recorded[1] - recorded[0],
            bytes: chat.model().decode_bytes(positions + plan.tokens / 2),
        }))
    }
}

/// Answers random prompts, another in each lane.
async fn run(
    chat: &mut Chat,
    mode: Mode,
    positions: usize,
    max_tokens: usize,
    cancel: &Rc<Cell<bool>>,
) -> Result<Stats, GenerateError> {
    let vocab = chat.model().config().vocab_size as u32;
    let rng = &mut StdRng::seed_from_u64(2);
    let prompts: Vec<Prompt> = (0..chat.model().lanes())
        .map(|_| Prompt {
            ids: (0..positions).map(|_| rng.random_range(0..vocab)).collect(),
            roles: vec![TokenRole::Prompt; positions],
        })
        .collect();
    let hook = chat.steering().points().first().copied();
    let request = ChatRequest {
        prompts: &prompts,
        max_tokens,
        sampling: Sampling::default(),
        features: hook
            .filter(|_| mode == Mode::Watched)
            .map(|hook| FeatureWish { hook, track: None }),
        logprobs: None,
        cancel: cancel.clone(),
    };
    let stats = chat.run(&request, &mut |_| {}).await?;
    alive(cancel)?;
    Ok(stats)
}
