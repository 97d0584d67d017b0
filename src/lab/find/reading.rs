//! What a model says to prompts, and what its dictionary reads on the way.

use std::cell::Cell;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::{LabError, Run};
use super::asks::Ask;
use crate::generate::{
    Chat, ChatRequest, DoneReason, Event, Sampling, TraceRequest, Traced, trace,
};
use crate::phi3::MAX_ROWS;
use crate::sae::{Encoder, HookPoint};
use crate::steering::{Hook, Intervention, SteeringError};
use crate::tokens::{Prompt, TokenRole};

/// A reply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Its tokens, the stop token left out.
    pub tokens: Vec<u32>,
    /// Its text.
    pub text: String,
    /// Whether it ended by itself.
    pub stopped: bool,
}

/// A prompt to answer, steered in a way of its own.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// What its lane does.
    pub steering: Vec<Intervention>,
}

/// The order in which jobs go into batches, so that lanes wait little for one another.
pub fn batches(lengths: &[usize], lanes: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| lengths[i]);
    order.chunks(lanes.max(1)).map(<[usize]>::to_vec).collect()
}

/// Greedy replies of at most `tokens` tokens to `jobs`, in steps whose keys begin with `key`.
pub async fn replies(
    chat: &mut Chat,
    run: &mut Run<'_>,
    key: &str,
    jobs: &[Job<'_>],
    tokens: usize,
) -> Result<Vec<Reply>, LabError> {
    let lengths: Vec<usize> = jobs.iter().map(|job| job.prompt.ids.len()).collect();
    let mut all = vec![Reply::default(); jobs.len()];
    for (number, batch) in batches(&lengths, chat.model().lanes()).iter().enumerate() {
        let key = format!("{key}/{number}");
        let some: Vec<&Job<'_>> = batch.iter().map(|&i| &jobs[i]).collect();
        let said = run.step(&key, say(chat, &some, tokens)).await?;
        for (&i, reply) in batch.iter().zip(said) {
            all[i] = reply;
        }
    }
    Ok(all)
}

/// One batch of [`replies`].
async fn say(
    chat: &mut Chat,
    jobs: &[&Job<'_>],
    max_tokens: usize,
) -> Result<Vec<Reply>, LabError> {
    steer(chat, jobs)?;
    let prompts: Vec<Prompt> = jobs.iter().map(|job| job.prompt.clone()).collect();
    let mut all = vec![Reply::default(); jobs.len()];
    chat.run(&request(&prompts, max_tokens), &mut |event| match event {
        Event::Token {
            lane, token, text, ..
        } => {
            all[lane].tokens.push(token);
            all[lane].text += &text;
        }
        Event::Done {
            lane, reason, text, ..
        } => {
            all[lane].text += &text;
            all[lane].stopped = reason == DoneReason::Stop;
        }
        _ => {}
    })
    .await?;
    Ok(all)
}

/// Sets the steering of each job's lane, lanes without a job left alone.
pub fn steer(chat: &Chat, jobs: &[&Job<'_>]) -> Result<(), LabError> {
    for (lane, job) in jobs.iter().enumerate() {
        chat.steering().set(lane, &job.steering)?;
    }
    Ok(())
}

/// Leaves every lane alone.
pub fn unsteer(chat: &Chat) -> Result<(), LabError> {
    for lane in 0..chat.model().lanes() {
        chat.steering().set(lane, &[])?;
    }
    Ok(())
}

/// A greedy request.
pub fn request(prompts: &[Prompt], max_tokens: usize) -> ChatRequest<'_> {
    ChatRequest {
        prompts,
        max_tokens,
        sampling: Sampling::default(),
        features: None,
        logprobs: None,
        cancel: Rc::new(Cell::new(false)),
    }
}

/// What a dictionary reads at a token: the active latents and their activations.
pub type Code = Vec<(u32, f32)>;

/// What was read of a prompt and its reply, without steering.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reading {
    /// The code at each token of the prompt, the beginning of the sequence left empty.
    pub prompt: Vec<Code>,
    /// The code at each token of the reply.
    pub reply: Vec<Code>,
    /// The residual at the prompt's last token, `[hidden]`.
    #[serde(with = "packed")]
    pub last: Vec<f32>,
    /// The mean residual over the reply, `[hidden]`; zeros if it is empty.
    #[serde(with = "packed")]
    pub mean: Vec<f32>,
}

impl Reading {
    /// The code at the prompt's last token.
    pub fn last_code(&self) -> &[(u32, f32)] {
        self.prompt.last().map_or(&[], Vec::as_slice)
    }
}

/// Numbers as base64 of their bytes, little-endian.
pub mod packed {
    use super::{Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    /// The text.
    pub fn text(values: &[f32]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        STANDARD.encode(bytes)
    }

    pub fn serialize<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(values))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        let numbers = bytes.chunks_exact(4);
        Ok(numbers
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    }
}

/// The hook at `point`, whose dictionary can encode.
pub fn hook_at(chat: &Chat, point: HookPoint) -> Result<&Hook, LabError> {
    let steering = chat.steering();
    let hook = steering
        .hook(point)
        .ok_or_else(|| SteeringError::UnknownHook {
            hook: point,
            loaded: steering.loaded(),
        })?;
    if !hook.dictionary().is_whole() {
        return Err(SteeringError::NotMeasured { hook: point }.into());
    }
    Ok(hook)
}

/// The prompts with their replies.
pub fn with_replies(asks: &[Ask], replies: &[Reply]) -> Vec<Prompt> {
    let pairs = asks.iter().zip(replies);
    let each = pairs.map(|(ask, reply)| {
        let mut whole = ask.prompt.clone();
        whole.ids.extend(&reply.tokens);
        whole.roles.resize(whole.ids.len(), TokenRole::Generated);
        whole
    });
    each.collect()
}

/// Reads prompts with their replies at the hook point, in steps whose keys begin with `key`.
pub async fn read(
    chat: &mut Chat,
    run: &mut Run<'_>,
    key: &str,
    point: HookPoint,
    asks: &[Ask],
    replies: &[Reply],
) -> Result<Vec<Reading>, LabError> {
    let whole = with_replies(asks, replies);
    let froms: Vec<usize> = asks.iter().map(|ask| ask.prompt.ids.len()).collect();
    let lengths: Vec<usize> = whole.iter().map(|p| p.ids.len()).collect();
    let mut all = vec![Reading::default(); asks.len()];
    let dictionary = hook_at(chat, point)?.dictionary().clone();
    let gpu = chat.model().gpu().clone();
    let encoder = Encoder::new(&gpu, &dictionary, MAX_ROWS).await?;
    for (number, batch) in batches(&lengths, chat.model().lanes()).iter().enumerate() {
        let key = format!("{key}/{number}");
        let prompts: Vec<Prompt> = batch.iter().map(|&i| whole[i].clone()).collect();
        let froms: Vec<usize> = batch.iter().map(|&i| froms[i]).collect();
        let read = run
            .step(&key, read_some(chat, &encoder, point, &prompts, &froms))
            .await?;
        for (&i, reading) in batch.iter().zip(read) {
            all[i] = reading;
        }
    }
    Ok(all)
}

/// One batch of [`read`]; the replies begin at `froms`.
pub async fn read_some(
    chat: &mut Chat,
    encoder: &Encoder<'_>,
    point: HookPoint,
    prompts: &[Prompt],
    froms: &[usize],
) -> Result<Vec<Reading>, LabError> {
    unsteer(chat)?;
    let hidden = chat.model().config().hidden_size;
    let residuals = residuals(chat, point.layer, prompts).await?;
    let mut all = Vec::with_capacity(prompts.len());
    for ((prompt, residual), &from) in prompts.iter().zip(&residuals).zip(froms) {
        let mut codes = Vec::with_capacity(prompt.ids.len());
        for some in residual.chunks(encoder.most() * hidden) {
            let encoded = encoder.run(some).await?;
            codes.extend(
                encoded
                    .acts
                    .chunks(encoder.dictionary().latents())
                    .map(active),
            );
        }
        for (code, role) in codes.iter_mut().zip(&prompt.roles) {
            if *role == TokenRole::Bos {
                code.clear();
            }
        }
        let reply = codes.split_off(from.min(codes.len()));
        let mut mean = vec![0.0; hidden];
        for row in residual.chunks(hidden).skip(from) {
            let share = 1.0 / reply.len() as f32;
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v * share);
        }
        let last = residual.chunks(hidden).nth(from.saturating_sub(1));
        all.push(Reading {
            prompt: codes,
            reply,
            last: last.unwrap_or_default().to_vec(),
            mean,
        });
    }
    Ok(all)
}

/// The residual streams of prompts at the output of block `layer`, each `[tokens, hidden]`.
pub async fn residuals(
    chat: &mut Chat,
    layer: usize,
    prompts: &[Prompt],
) -> Result<Vec<Vec<f32>>, LabError> {
    let mut all: Vec<Vec<f32>> = vec![Vec::new(); prompts.len()];
    let (model, steering) = chat.model_and_steering();
    let cancel = Cell::new(false);
    let request = TraceRequest {
        prompts,
        logits: &|_, _| false,
        residual: &[layer],
        chunk: MAX_ROWS,
        cancel: &cancel,
    };
    let mut hear = |traced: Traced<'_>| {
        if let Traced::Residual { lane, residual, .. } = traced {
            all[lane].extend(residual);
        }
    };
    trace(model, &steering, &request, &mut hear).await?;
    Ok(all)
}

/// The residual streams at the prompts' last tokens, without steering, at the outputs of several blocks, one
/// after another: `[layers * hidden]` for each prompt.
pub async fn last_residuals(
    chat: &mut Chat,
    layers: &[usize],
    prompts: &[Prompt],
) -> Result<Vec<Vec<f32>>, LabError> {
    unsteer(chat)?;
    let hidden = chat.model().config().hidden_size;
    let mut all = vec![vec![0.0; layers.len() * hidden]; prompts.len()];
    let (model, steering) = chat.model_and_steering();
    let cancel = Cell::new(false);
    let request = TraceRequest {
        prompts,
        logits: &|_, _| false,
        residual: layers,
        chunk: MAX_ROWS,
        cancel: &cancel,
    };
    let mut hear = |traced: Traced<'_>| {
        if let Traced::Residual {
            lane,
            layer,
            position,
            residual,
        } = traced
            && position + 1 == prompts[lane].ids.len()
            && let Some(place) = layers.iter().position(|l| *l == layer)
        {
            all[lane][place * hidden..][..hidden].copy_from_slice(residual);
        }
    };
    trace(model, &steering, &request, &mut hear).await?;
    Ok(all)
}

/// The latents above zero.
pub fn active(row: &[f32]) -> Code {
    let all = row.iter().enumerate().filter(|(_, v)| **v > 0.0);
    all.map(|(latent, value)| (latent as u32, *value)).collect()
}
