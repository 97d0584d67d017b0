//! Which option of JavaScript's an error is about.

use crate::checkpoint::{CheckpointError, SourceError};
use crate::generate::GenerateError;
use crate::gpu::GpuError;
use crate::phi3::ModelError;
use crate::sae::SaeError;
use crate::steering::SteeringError;
use crate::tokens::TokenError;

/// An error that may be about an option.
pub trait Field {
    /// The option's name.
    fn field(&self) -> Option<String> {
        None
    }
}

impl Field for SourceError {}
impl Field for CheckpointError {}
impl Field for GpuError {}
impl Field for ModelError {}
impl Field for TokenError {}
impl Field for SaeError {}

impl Field for SteeringError {
    fn field(&self) -> Option<String> {
        let field = match self {
            SteeringError::UnknownLane { .. } => "lane",
            SteeringError::UnknownHook { .. } => "hook",
            SteeringError::UnknownFeature { .. } | SteeringError::NotLoaded { .. } => "feature",
            SteeringError::MissingValue { .. } | SteeringError::NotFinite { .. } => "value",
            SteeringError::NothingActive => "onlyIfActive",
            SteeringError::UnknownDirection { .. }
            | SteeringError::NotAlong { .. }
            | SteeringError::TwoTargets { .. } => "direction",
            SteeringError::NoTarget { .. } => "feature",
            SteeringError::BadGate { field, .. } => *field,
            SteeringError::BadName { .. } => "name",
            SteeringError::BadDirection { .. } => "values",
            SteeringError::Model(ModelError::NoBlock { .. }) => "hook",
            _ => return None,
        };
        Some(field.into())
    }
}

impl Field for GenerateError {
    fn field(&self) -> Option<String> {
        match self {
            // Of a request, what it tracks is checked against the dictionaries.
            GenerateError::Steering(e) => e.field().map(|field| format!("track.{field}")),
            GenerateError::TooManyLanes { .. } => Some("lanes".into()),
            GenerateError::BadSampling { field, .. } => Some(format!("sampling.{field}")),
            _ => None,
        }
    }
}
