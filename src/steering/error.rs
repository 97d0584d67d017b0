//! What can be wrong with an intervention.

use super::{Operator, SLOTS, Target};
use crate::gpu::GpuError;
use crate::phi3::ModelError;
use crate::sae::{HookPoint, SaeError};

/// An error of setting up or changing the steering.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The written form of an intervention is not understood.
    #[error(
        "\"{text}\": {reason}; an intervention is written HOOK:FEATURE:OPERATOR:VALUE and options, as in layers.3:1415:clamp:10:generated:+bos:if-active, with @NAME for FEATURE to name a direction"
    )]
    Syntax {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No dictionary is loaded for the hook point.
    #[error("{hook} cannot be steered: {loaded}")]
    UnknownHook {
        /// The hook point asked for.
        hook: HookPoint,
        /// What is loaded, in words.
        loaded: String,
    },
    /// The feature is not in the dictionary.
    #[error(
        "feature {feature} is not in the dictionary of {hook}, which has {latents}: 0 to {}",
        latents - 1
    )]
    UnknownFeature {
        /// The hook point.
        hook: HookPoint,
        /// The feature asked for.
        feature: u32,
        /// The dictionary's latents.
        latents: usize,
    },
    /// The feature is not among those that were loaded.
    #[error(
        "feature {feature} of the dictionary of {hook} was not loaded: load it too, or the whole dictionary"
    )]
    NotLoaded {
        /// The hook point.
        hook: HookPoint,
        /// The feature asked for.
        feature: u32,
    },
    /// The feature's activation cannot be computed from what was loaded.
    #[error(
        "{op} of feature {feature} needs its activation, which some rows of the dictionary do not tell (TopK's depends on all latents, or the encoder could not be read by rows): load the whole dictionary, or use {}",
        Operator::unmeasured()
    )]
    NeedsActivation {
        /// The operator.
        op: Operator,
        /// The feature.
        feature: u32,
    },
    /// Activations cannot be shown.
    #[error(
        "the features at {hook} cannot be shown: only some latents of the dictionary are loaded, which do not tell their activations: load the whole dictionary"
    )]
    NotMeasured {
        /// The hook point.
        hook: HookPoint,
    },
    /// A reconstruction cannot be computed from what was loaded.
    #[error("{op} needs all latents of the dictionary: load the whole of it")]
    NeedsAllLatents {
        /// The operator.
        op: Operator,
    },
    /// The lane is not there.
    #[error("there is no lane {lane}: the model was loaded with {lanes}, counted from 0")]
    UnknownLane {
        /// The lane asked for.
        lane: usize,
        /// The model's lanes.
        lanes: usize,
    },
    /// The operator needs a value.
    #[error("{op} of {target} needs a value")]
    MissingValue {
        /// The operator.
        op: Operator,
        /// What it is about.
        target: Target,
    },
    /// The value is NaN or infinite.
    #[error("{op} of {target} has the value {value}: a finite number is needed")]
    NotFinite {
        /// The operator.
        op: Operator,
        /// What it is about.
        target: Target,
        /// The value.
        value: f32,
    },
    /// Two interventions give one feature two activations at the same positions, or one direction two
    /// components.
    #[error("{target} is set twice at the same positions: keep one of the two")]
    Conflict {
        /// What they are about.
        target: Target,
    },
    /// Neither a feature nor a direction is named.
    #[error("{op} needs a feature's number or a direction's name")]
    NoTarget {
        /// The operator.
        op: Operator,
    },
    /// A feature and a direction are named.
    #[error("{op} is given a feature and a direction: it works on one of the two")]
    TwoTargets {
        /// The operator.
        op: Operator,
    },
    /// There is no feature to be active.
    #[error(
        "an intervention that concerns no feature cannot depend on one being active: leave out only-if-active"
    )]
    NothingActive,
    /// No direction of that name is known at the hook point.
    #[error("{hook} has no direction \"{name}\": {known}")]
    UnknownDirection {
        /// The hook point.
        hook: HookPoint,
        /// The name asked for.
        name: String,
        /// Those there are, in words.
        known: String,
    },
    /// The operator works on features alone.
    #[error(
        "{op} works on a dictionary's features alone, not on a direction: use {}",
        Operator::along()
    )]
    NotAlong {
        /// The operator.
        op: Operator,
    },
    /// The numbers are no direction of the model.
    #[error("the direction \"{name}\" at {hook} cannot be used: {reason}")]
    BadDirection {
        /// The hook point.
        hook: HookPoint,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A direction cannot be called so.
    #[error(
        "a direction cannot be called \"{name}\": 1 to 64 letters, digits, blanks inside, and _ - . + are possible"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The gate cannot decide.
    #[error("the gate's {field}: {reason}")]
    BadGate {
        /// The part of it that is wrong.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The model has no such place.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A lane has more interventions than fit.
    #[error("{count} interventions at {hook} in one lane: at most {SLOTS} are possible")]
    TooMany {
        /// The hook point.
        hook: HookPoint,
        /// How many there are.
        count: usize,
    },
    /// Two dictionaries for one hook point.
    #[error("two dictionaries are loaded for {0}: keep one of them")]
    TwoDictionaries(HookPoint),
    /// The dictionary cannot be used.
    #[error(transparent)]
    Dictionary(#[from] SaeError),
    /// The GPU failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}
