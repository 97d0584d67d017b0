//! From typed errors to JavaScript `Error` objects with a code to branch on.

use wasm_bindgen::JsValue;

use super::field::Field;
use crate::checkpoint::{CheckpointError, SourceError};
use crate::generate::GenerateError;
use crate::gpu::GpuError;
use crate::lab::LabError;
use crate::phi3::ModelError;
use crate::sae::SaeError;
use crate::steering::SteeringError;
use crate::tokens::TokenError;
use crate::train::TrainError;

/// An error with its code, and the option that it is about, if it is about one.
pub struct WebError {
    code: &'static str,
    message: String,
    field: Option<String>,
}

impl WebError {
    /// An error of the API itself.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
        }
    }

    /// An error about a gate.
    pub fn of_gate(e: SteeringError) -> Self {
        let field = e.field().filter(|field| field != "lane");
        let error = Self::from(e);
        match field {
            Some(field) => error.at(format!("gate.{field}")),
            None => error,
        }
    }

    /// The error, about the option `field`.
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl From<WebError> for JsValue {
    fn from(e: WebError) -> Self {
        let error = js_sys::Error::new(&e.message);
        // Setting a property of a fresh object cannot fail.
        let _ = js_sys::Reflect::set(&error, &"code".into(), &e.code.into());
        if let Some(field) = e.field {
            let _ = js_sys::Reflect::set(&error, &"field".into(), &field.into());
        }
        error.into()
    }
}

/// The code of an error, which the page branches on.
trait Code {
    fn code(&self) -> &'static str;
}

impl Code for SourceError {
    fn code(&self) -> &'static str {
        match self {
            SourceError::NotFound { .. } | SourceError::NoFolder { .. } => "not-found",
            SourceError::Status { status, .. } => SourceError::code_of_status(*status),
            SourceError::Network { begun: true, .. } => "network",
            SourceError::Network { begun: false, .. } => "unreachable",
            SourceError::BadAnswer { .. } => "bad-answer",
            SourceError::Cancelled { .. } => "cancelled",
            SourceError::Short { .. }
            | SourceError::OutOfRange { .. }
            | SourceError::TooLarge { .. }
            | SourceError::Unreadable { .. } => "bad-checkpoint",
        }
    }
}

impl Code for CheckpointError {
    fn code(&self) -> &'static str {
        match self {
            CheckpointError::Source(e) => e.code(),
            CheckpointError::NoWeights { .. } | CheckpointError::MissingPart { .. } => "not-found",
            CheckpointError::MissingTensor { .. } => "missing-tensor",
            CheckpointError::WrongShape { .. } => "wrong-shape",
            CheckpointError::NotFinite { .. } => "not-finite",
            CheckpointError::Header { .. }
            | CheckpointError::Entry { .. }
            | CheckpointError::Gguf { .. }
            | CheckpointError::Key { .. }
            | CheckpointError::SeveralModels { .. }
            | CheckpointError::Tensor { .. }
            | CheckpointError::Index { .. }
            | CheckpointError::Npz { .. }
            | CheckpointError::WrongType { .. } => "bad-checkpoint",
        }
    }
}

impl Code for GpuError {
    fn code(&self) -> &'static str {
        match self {
            GpuError::NoWebGpu => "no-webgpu",
            GpuError::NoAdapter { .. } | GpuError::Device(_) | GpuError::Unsupported(_) => {
                "no-adapter"
            }
            GpuError::Lost(_) => "device-lost",
            GpuError::OutOfMemory { .. } | GpuError::TooLarge { .. } => "out-of-memory",
            GpuError::WrongResults { .. } => "wrong-results",
            GpuError::Validation(_) | GpuError::Readback(_) => "gpu-error",
        }
    }
}

impl Code for ModelError {
    fn code(&self) -> &'static str {
        match self {
            ModelError::Config(_)
            | ModelError::Metadata { .. }
            | ModelError::ForeignTensor { .. } => "bad-config",
            ModelError::NoModel { .. } => "not-found",
            ModelError::NoBlock { .. } => "bad-steering",
            ModelError::OtherForm { .. } => "bad-checkpoint",
            ModelError::Token(e) => e.code(),
            ModelError::Checkpoint(e) => e.code(),
            ModelError::Source(e) => e.code(),
            ModelError::Gpu(e) => e.code(),
            ModelError::ContextFull { .. } => "context-full",
            ModelError::CacheFull { .. } => "context",
        }
    }
}

impl Code for TokenError {
    fn code(&self) -> &'static str {
        match self {
            TokenError::Source(e) => e.code(),
            TokenError::Checkpoint(e) => e.code(),
            TokenError::NoTokenizer { .. } => "not-found",
            _ => "bad-tokenizer",
        }
    }
}

impl Code for SaeError {
    fn code(&self) -> &'static str {
        match self {
            SaeError::Source(e) => e.code(),
            SaeError::Checkpoint(e) => e.code(),
            SaeError::Gpu(e) => e.code(),
            SaeError::NotFound { .. } => "not-found",
            SaeError::WrongWidth { .. } => "wrong-dictionary",
            SaeError::NoSuchLatent { .. } => "bad-steering",
            SaeError::Several { .. } | SaeError::HookUnknown { .. } => "no-hook",
            SaeError::BadHook(_)
            | SaeError::OtherSite { .. }
            | SaeError::Hook { .. }
            | SaeError::Embedding(_)
            | SaeError::NoSuchBlock { .. }
            | SaeError::OtherHook { .. } => "bad-hook",
            _ => "bad-dictionary",
        }
    }
}

impl Code for SteeringError {
    fn code(&self) -> &'static str {
        match self {
            SteeringError::Dictionary(e) => e.code(),
            SteeringError::Gpu(e) => e.code(),
            SteeringError::Model(e) => e.code(),
            _ => "bad-steering",
        }
    }
}

impl Code for GenerateError {
    fn code(&self) -> &'static str {
        match self {
            GenerateError::Gpu(e) => e.code(),
            GenerateError::Model(e) => e.code(),
            GenerateError::Token(e) => e.code(),
            GenerateError::Sae(e) => e.code(),
            GenerateError::Steering(e) => e.code(),
            GenerateError::Cancelled => "cancelled",
            GenerateError::EmptyPrompt { .. } => "empty-prompt",
            GenerateError::NotFinite { .. } => "overflow",
            GenerateError::ForeignToken { .. } => "bad-tokenizer",
            GenerateError::TooManyLanes { .. }
            | GenerateError::BadSampling { .. }
            | GenerateError::OtherResidual { .. }
            | GenerateError::NotComputed { .. } => "bad-request",
        }
    }
}

impl Code for LabError {
    fn code(&self) -> &'static str {
        match self {
            LabError::Sets(_) => "bad-sets",
            LabError::Journal(_) => "bad-journal",
            LabError::Recipe(_) => "bad-recipe",
            LabError::Result(_) => "bad-result",
            LabError::Cancelled => "cancelled",
            LabError::Generate(e) => e.code(),
            LabError::Steering(e) => e.code(),
            LabError::Sae(e) => e.code(),
            LabError::Token(e) => e.code(),
            LabError::Gpu(e) => e.code(),
            LabError::Source(e) => e.code(),
            LabError::Checkpoint(e) => e.code(),
        }
    }
}

impl Code for TrainError {
    fn code(&self) -> &'static str {
        match self {
            TrainError::Setting { .. } | TrainError::NoOpening => "bad-request",
            TrainError::TooFewRows { .. } | TrainError::TooShort => "too-short",
            TrainError::Diverged { .. } => "diverged",
            TrainError::Stopped { .. } => "cancelled",
            TrainError::Disk { .. } | TrainError::OtherPrompts => "bad-journal",
            TrainError::Gpu(e) => e.code(),
            TrainError::Generate(e) => e.code(),
            TrainError::Token(e) => e.code(),
        }
    }
}

impl From<TrainError> for WebError {
    fn from(e: TrainError) -> Self {
        Self::new(e.code(), e.to_string())
    }
}

impl From<LabError> for WebError {
    fn from(e: LabError) -> Self {
        Self::new(e.code(), e.to_string())
    }
}

macro_rules! with_code {
    ($($error:ty),*) => {
        $(impl From<$error> for WebError {
            fn from(e: $error) -> Self {
                let error = Self::new(e.code(), e.to_string());
                match e.field() {
                    Some(field) => error.at(field),
                    None => error,
                }
            }
        })*
    };
}

with_code!(
    SourceError,
    CheckpointError,
    GpuError,
    ModelError,
    TokenError,
    SaeError,
    SteeringError,
    GenerateError
);
