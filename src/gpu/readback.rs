//! From the GPU back to the host.

use std::ops::Range;

use futures_channel::oneshot;

use super::{Buffer, Gpu, GpuError};

/// A mappable buffer that results are copied into and read from, without holding up what is
/// submitted after.
pub struct Staging {
    buffer: Buffer,
}

/// A read under way.
pub struct Pending<'a> {
    gpu: &'a Gpu,
    buffer: Buffer,
    bytes: u64,
    done: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
    #[cfg_attr(target_arch = "wasm32", allow(dead_code))]
    submission: wgpu::SubmissionIndex,
}

impl Staging {
    /// A staging buffer of `bytes`.
    pub fn new(gpu: &Gpu, what: &str, bytes: u64) -> Self {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.make(what, bytes, usage);
        Self { buffer }
    }

    /// Where to copy results.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Starts to read the first `bytes` once `submission` is done.
    pub fn read<'a>(
        &self,
        gpu: &'a Gpu,
        bytes: u64,
        submission: wgpu::SubmissionIndex,
    ) -> Pending<'a> {
        let (sender, done) = oneshot::channel();
        let bytes = bytes.next_multiple_of(8);
        self.buffer
            .map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
                // The receiver is gone when the reader was dropped, for instance on cancel.
                let _ = sender.send(result);
            });
        Pending {
            gpu,
            buffer: self.buffer.clone(),
            bytes,
            done,
            submission,
        }
    }
}

impl Pending<'_> {
    /// Waits for the results.
    pub async fn wait(self) -> Result<Vec<u8>, GpuError> {
        #[cfg(not(target_arch = "wasm32"))]
        self.gpu.wait_for(self.submission)?;
        let mapped = self.done.await;
        self.gpu.settle().await?;
        match mapped {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(GpuError::Readback(e.to_string())),
            Err(_) => return Err(GpuError::Readback("the device went away".into())),
        }
        let view = self
            .buffer
            .get_mapped_range(0..self.bytes)
            .map_err(|e| GpuError::Readback(e.to_string()))?;
        let bytes = view.to_vec();
        drop(view);
        self.buffer.unmap();
        Ok(bytes)
    }
}

impl Gpu {
    /// Waits for `submission`.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<(), GpuError> {
        self.device()
            .poll(wgpu::PollType::Wait {
                submission_index: Some(submission),
                timeout: None,
            })
            .map_err(|e| GpuError::Readback(e.to_string()))?;
        Ok(())
    }

    /// Reads a range of bytes of `buffer` (both ends multiples of 4).
    pub async fn read(&self, buffer: &Buffer, range: Range<u64>) -> Result<Vec<u8>, GpuError> {
        let bytes = range.end - range.start;
        let staging = Staging::new(self, "readback", bytes);
        let mut encoder = self.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, range.start, staging.buffer(), 0, bytes);
        let submission = self.queue().submit([encoder.finish()]);
        let mut read = staging.read(self, bytes, submission).wait().await?;
        read.truncate(bytes as usize);
        Ok(read)
    }

    /// Reads `count` elements of `buffer` from the element `first` on.
    pub async fn read_vec<T: bytemuck::Pod>(
        &self,
        buffer: &Buffer,
        first: usize,
        count: usize,
    ) -> Result<Vec<T>, GpuError> {
        let size = size_of::<T>() as u64;
        let from = first as u64 * size;
        let bytes = self.read(buffer, from..from + count as u64 * size).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}
