//! What crosses the border to JavaScript; the TypeScript side is [`TYPES`].

use serde::Serialize;
use wasm_bindgen::prelude::*;

use super::error::WebError;
use crate::generate::{DoneReason, Stats};

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.d.ts");

#[wasm_bindgen]
extern "C" {
    /// `LoadOptions`
    #[wasm_bindgen(typescript_type = "LoadOptions")]
    pub type LoadOptions;
    /// `ChatOptions`
    #[wasm_bindgen(typescript_type = "ChatOptions")]
    pub type ChatOptions;
    /// `Intervention[]`
    #[wasm_bindgen(typescript_type = "Intervention[]")]
    pub type Interventions;
    /// `OperatorInfo[]`
    #[wasm_bindgen(typescript_type = "OperatorInfo[]")]
    pub type OperatorInfos;
    /// `Gate | null`
    #[wasm_bindgen(typescript_type = "Gate | null")]
    pub type GateOrNone;
    /// `Info`
    #[wasm_bindgen(typescript_type = "Info")]
    pub type InfoObject;
    /// `ReadableStream<ChatEvent>`
    #[wasm_bindgen(typescript_type = "ReadableStream<ChatEvent>")]
    pub type ChatEvents;
    /// `TokenFeatures`
    #[wasm_bindgen(typescript_type = "TokenFeatures")]
    pub type TokenFeaturesObject;
    /// `SelfTest`
    #[wasm_bindgen(typescript_type = "SelfTest")]
    pub type SelfTestObject;
    /// `LabOptions`
    #[wasm_bindgen(typescript_type = "LabOptions")]
    pub type LabOptions;
    /// `LabResult`
    #[wasm_bindgen(typescript_type = "LabResult")]
    pub type LabResultObject;
    /// `LabPlot[]`
    #[wasm_bindgen(typescript_type = "LabPlot[]")]
    pub type LabPlotObjects;
    /// `SpeedOptions`
    #[wasm_bindgen(typescript_type = "SpeedOptions")]
    pub type SpeedOptions;
    /// `TrainOptions`
    #[wasm_bindgen(typescript_type = "TrainOptions")]
    pub type TrainOptions;
    /// `TrainedDictionary`
    #[wasm_bindgen(typescript_type = "TrainedDictionary")]
    pub type TrainedObject;
    /// `Memory`
    #[wasm_bindgen(typescript_type = "Memory")]
    pub type MemoryObject;
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelInfo {
    pub name: String,
    pub layers: usize,
    pub hidden: usize,
    pub vocab: usize,
    pub context: usize,
    pub quant: Vec<&'static str>,
    pub parameters: f64,
    pub gpu_bytes: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdapterInfo {
    pub name: String,
    pub backend: String,
    pub f16: bool,
    pub subgroups: bool,
    pub cpu: bool,
    /// What came out wrong on it and is done in another way, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<&'static str>,
}

#[derive(Serialize)]
pub struct SaeInfo {
    pub hook: String,
    pub features: usize,
    pub k: usize,
    pub kind: &'static str,
    pub activations: &'static str,
    pub stored: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    pub model: ModelInfo,
    pub adapter: AdapterInfo,
    /// Conversations that it can answer at once.
    pub lanes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sae: Option<SaeInfo>,
    pub heap_bytes: f64,
}

/// What the engine takes of the machine's memory.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    pub gpu_bytes: f64,
    pub heap_bytes: f64,
}

/// A token with what was asked for about its features.
#[derive(Serialize)]
pub struct TokenInfo {
    pub id: u32,
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<(u32, f32)>>,
}

/// A token with the log of its probability.
#[derive(Serialize)]
pub struct TokenLogprob {
    pub id: u32,
    pub text: String,
    pub bytes: Vec<u8>,
    pub logprob: f64,
}

/// How likely a token was, and what else was likely in its place.
#[derive(Serialize)]
pub struct TokenLogprobs {
    #[serde(flatten)]
    pub token: TokenLogprob,
    pub top: Vec<TokenLogprob>,
}

#[derive(Serialize)]
pub struct TokenFeatures {
    pub tokens: Vec<TokenInfo>,
}

#[derive(Serialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum ChatEvent {
    Gate {
        lane: usize,
        score: f32,
        threshold: f32,
        steered: bool,
    },
    Prompt {
        lane: usize,
        /// Where `tokens` begin in the prompt.
        first: usize,
        /// Tokens of the whole prompt.
        length: usize,
        tokens: Vec<TokenInfo>,
        reused: usize,
    },
    Token {
        lane: usize,
        #[serde(flatten)]
        token: TokenInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<TokenLogprobs>,
        steered: bool,
        setting: f64,
    },
    Done {
        lane: usize,
        reason: &'static str,
        /// The last characters, where the tokens broke off inside one.
        text: String,
        tokens: usize,
    },
    Stats {
        prompt_tokens: usize,
        prefill_ms: f64,
        generated_tokens: usize,
        decode_ms: f64,
        tokens_per_second: f64,
    },
}

impl ChatEvent {
    /// The counts and times of an answer.
    pub fn stats(stats: &Stats) -> Self {
        ChatEvent::Stats {
            prompt_tokens: stats.prefilled + stats.reused,
            prefill_ms: stats.prefill.as_secs_f64() * 1e3,
            generated_tokens: stats.generated,
            decode_ms: stats.decode.as_secs_f64() * 1e3,
            tokens_per_second: stats.generated as f64 / stats.decode.as_secs_f64().max(1e-3),
        }
    }
}

#[derive(Serialize)]
pub struct Progress<'a> {
    pub stage: &'static str,
    pub loaded: f64,
    pub total: f64,
    pub file: &'a str,
}

/// The reason's name in events.
pub fn reason(r: DoneReason) -> &'static str {
    match r {
        DoneReason::Stop => "stop",
        DoneReason::Length => "length",
        DoneReason::Cancelled => "cancelled",
        DoneReason::Context => "context",
    }
}

/// A value as plain JavaScript data.
pub fn to_js<T: Serialize>(value: &T) -> Result<JsValue, WebError> {
    value
        .serialize(&serde_wasm_bindgen::Serializer::json_compatible())
        .map_err(|e| {
            WebError::new(
                "crashed",
                format!("an answer could not be handed over: {e}"),
            )
        })
}
