//! Whole answers: prefill and decode.

use std::cell::Cell;
use std::rc::Rc;

use phi3_steer::generate::{Chat, ChatRequest, FeatureWish, Sampling, Stats};
use phi3_steer::steering::{Intervention, Operator, Steering};
use phi3_steer::tokens::{Prompt, TokenRole};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::{Arguments, Failure, Report, Subject, left_out, median};

/// Times that each figure is measured; the median counts.
const REPEATS: usize = 3;

/// What is asked of the steering.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Off,
    Clamp,
    Watched,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Clamp => "clamp in every lane",
            Mode::Watched => "features watched",
        }
    }
}

pub async fn measure(
    subject: &Subject,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut alone = None;
    for &lanes in &arguments.lanes {
        let model = subject.model.fork(lanes).await?;
        let steering = Steering::new(&model, subject.dictionaries().await?).await?;
        let mut chat = Chat::new(model, subject.tokenizer.clone(), steering).await?;
        let modes: &[Mode] = match subject.dictionary {
            Some(_) => &[Mode::Off, Mode::Clamp, Mode::Watched],
            None => &[Mode::Off],
        };
        for &positions in &arguments.context {
            if positions + arguments.tokens > chat.model().context() {
                left_out(&format!("{positions} positions: the model holds fewer"));
                continue;
            }
            for &mode in modes {
                let Some(line) = line(&mut chat, mode, positions, arguments).await? else {
                    left_out(&format!(
                        "{lanes} lanes at {positions} positions take too long"
                    ));
                    continue;
                };
                let base = *alone.get_or_insert(line.pass);
                report.add(
                    &format!(
                        "{lanes} lanes at {positions} positions, steering {}: prefill {:.0} tokens/s, decode {:.1} tokens/s \
                         a lane ({:.3} ms a pass, {:.2} of the first), {:.1} tokens/s in all, {} dispatches, {:.1} MB, \
                         {:.1} GB/s",
                        mode.name(),
                        line.prefill,
                        1.0 / line.pass,
                        line.pass * 1e3,
                        line.pass / base,
                        lanes as f64 / line.pass,
                        line.dispatches,
                        line.bytes as f64 / 1e6,
                        line.bytes as f64 / line.pass / 1e9,
                    ),
                    json!({
                        "lanes": lanes, "positions": positions, "steering": mode.name(),
                        "prefillTokensASecond": line.prefill, "passSeconds": line.pass,
                        "dispatches": line.dispatches, "bytes": line.bytes,
                    }),
                )?;
            }
        }
    }
    Ok(())
}

struct Line {
    /// Prompt tokens a second, over all lanes.
    prefill: f64,
    /// Seconds of a decode pass.
    pass: f64,
    dispatches: u64,
    /// Bytes of weights and cache that a pass reads.
    bytes: u64,
}

/// One figure, unless a run of it takes longer than the user has patience.
async fn line(
    chat: &mut Chat,
    mode: Mode,
    positions: usize,
    arguments: &Arguments,
) -> Result<Option<Line>, Failure> {
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
    let first = run(chat, mode, positions, 2).await?;
    let passes = first.decode.as_secs_f64() / first.passes.max(1) as f64 * arguments.tokens as f64;
    if first.prefill.as_secs_f64() + passes > arguments.patience {
        return Ok(None);
    }
    let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        chat.reset();
        let read = run(chat, mode, positions, 0).await?;
        prefills.push(read.prefilled as f64 / read.prefill.as_secs_f64());
        let whole = run(chat, mode, positions, arguments.tokens).await?;
        decodes.push(whole.decode.as_secs_f64() / whole.passes.max(1) as f64);
    }
    // A longer answer has only more passes; the first step of an answer needs none.
    let mut recorded = Vec::new();
    for tokens in [2, 3] {
        let before = chat.model().gpu().dispatches();
        run(chat, mode, positions, tokens).await?;
        recorded.push(chat.model().gpu().dispatches() - before);
    }
    Ok(Some(Line {
        prefill: median(&mut prefills),
        pass: median(&mut decodes),
        dispatches: recorded[1] - recorded[0],
        bytes: chat.model().decode_bytes(positions + arguments.tokens / 2),
    }))
}

/// Answers random prompts, another in each lane.
async fn run(
    chat: &mut Chat,
    mode: Mode,
    positions: usize,
    max_tokens: usize,
) -> Result<Stats, Failure> {
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
        cancel: Rc::new(Cell::new(false)),
    };
    Ok(chat.run(&request, &mut |_| {}).await?)
}
