//! What can go wrong with the GPU.

/// An error of the GPU or its driver, as a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The browser has no WebGPU.
    #[error(
        "this browser has no WebGPU: use a current Chrome, Edge, Firefox or Safari, over https or localhost"
    )]
    NoWebGpu,
    /// No adapter answers.
    #[error(
        "no GPU adapter is available ({reason}): check the graphics driver and that the browser may use the \
         GPU; after its graphics process has crashed several times, a browser gives out no adapter until it \
         is restarted"
    )]
    NoAdapter {
        /// The driver's words.
        reason: String,
    },
    /// The adapter refused a device.
    #[error("the GPU refused to open a device: {0}")]
    Device(String),
    /// An option asks for what the adapter does not have.
    #[error("the adapter has no {0}, which the options ask for: leave the choice to the engine")]
    Unsupported(&'static str),
    /// The device was lost: the driver restarted, the GPU was removed, or the device was destroyed.
    #[error("the GPU device was lost ({0}): load the model again to go on")]
    Lost(String),
    /// An allocation failed.
    #[error(
        "the GPU has no memory for {what} ({bytes} bytes): close other tabs or programs, or choose a smaller model or context"
    )]
    OutOfMemory {
        /// What was being allocated.
        what: String,
        /// Its size.
        bytes: u64,
    },
    /// A buffer exceeds the device's limits.
    #[error("{what} needs {bytes} bytes in one buffer, and this GPU allows {limit}")]
    TooLarge {
        /// What was being allocated.
        what: String,
        /// Its size.
        bytes: u64,
        /// The device's limit.
        limit: u64,
    },
    /// The GPU rejected a shader or a command: a bug, ours or the driver's.
    #[error("the GPU rejected a command: {0}")]
    Validation(String),
    /// Products came out wrong, plain ones too.
    #[error("{name} computes wrong results: update the graphics driver, or take another adapter")]
    WrongResults {
        /// The adapter's name.
        name: String,
    },
    /// Results could not be read back.
    #[error("reading results back from the GPU failed: {0}")]
    Readback(String),
}
