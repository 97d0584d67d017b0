//! How long work on a dictionary is ended, and who else uses the GPU meanwhile.

use std::cell::Cell;
use std::rc::Rc;

use crate::turns::Turns;

/// How a run is told to end, and in which turns it uses the GPU.
#[derive(Clone, Default)]
pub struct Control {
    /// Set to end it after the step or batch under way, with [`TrainError::Stopped`](super::TrainError::Stopped).
    pub cancel: Rc<Cell<bool>>,
    /// Set to take no more steps: the dictionary is what the steps so far have made it.
    pub finish: Rc<Cell<bool>>,
    /// Each batch and each step waits for its turn.
    pub turns: Turns,
}
