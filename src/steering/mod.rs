//! Steering: edits of the residual stream along a dictionary's features, per lane, changed at any time.
//!
//! An [`Intervention`] names a hook point, a feature or a direction, an [`Operator`] and the positions;
//! [`Steering`] holds those of all lanes in small GPU buffers, which is all that a change writes, and records
//! the work of each place in a pass of the model: nothing where no lane is steered and nobody looks at
//! the features, no encoding where no intervention depends on it. A [`Hook`] is a dictionary at its place;
//! directions need none. A [`Gate`] decides at every turn whether a lane's interventions hold.
//!
//! # Order
//!
//! 1. The activations f are measured once, on h as the block left it.
//! 2. Where a `clamp_replace` or `reconstruct` applies to a token, h becomes the dictionary's
//!    reconstruction with every replaced activation at its value.
//! 3. The other interventions follow in the order given; `clamp`, `add` and `scale` add to h what they
//!    add alone, whatever came before; `project_out`, `cap`, `amplify` and a direction's `clamp` work on h as it is
//!    by then.
//!
//! One feature may not be given two activations at one position, nor one direction two components.

#[cfg(all(test, not(target_arch = "wasm32")))]
#[path = "../../tests/support/coefficient.rs"]
mod coefficient;
mod direction;
mod error;
mod gate;
mod hook;
mod intervention;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod model_tests;
mod operators;
mod place;
mod set;
mod table;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
mod watch;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod zoo_tests;

pub use error::SteeringError;
pub use gate::{Gate, GateKind};
pub use hook::Hook;
pub use intervention::{Intervention, Positions, Target};
pub use operators::{Operator, OperatorInfo};
pub use set::Steering;
pub use table::SLOTS;
pub use watch::{TokenFeatures, Watch};
