//! Writing much to the GPU without piling it up on the way.

use super::{Gpu, GpuError};

/// Bytes written to the queue before the GPU is given the time to take them.
const WAITING_BYTES: u64 = 64 << 20;

/// Counts what is written to the queue, and waits where it is much.
pub struct Pace<'a> {
    gpu: &'a Gpu,
    waiting: u64,
}

impl<'a> Pace<'a> {
    /// Nothing is written yet.
    pub fn new(gpu: &'a Gpu) -> Self {
        Self { gpu, waiting: 0 }
    }

    /// `bytes` were written; waits for the GPU if that makes it many.
    pub async fn wrote(&mut self, bytes: u64) -> Result<(), GpuError> {
        self.waiting += bytes;
        if self.waiting > WAITING_BYTES {
            self.finish().await?;
        }
        Ok(())
    }

    /// Waits until the GPU has taken all that was written.
    pub async fn finish(&mut self) -> Result<(), GpuError> {
        self.waiting = 0;
        self.gpu.finish().await
    }
}
