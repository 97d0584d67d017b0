//! From the GPU back to the host.

use std::ops::Range;

use futures_channel::oneshot;

use super::{Gpu, GpuError};

/// A mappable buffer that results are copied into and read from, without holding up what is
/// submitted after.
pub struct Staging {
    buffer: wgpu::Buffer,
}

/// A read under way.
pub struct Pending<'a> {
    gpu: &'a Gpu,
    buffer: wgpu::Buffer,
    bytes: u64,
    done: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
    #[cfg_attr(target_arch = "wasm32", allow(dead_code))]
    submission: wgpu::SubmissionIndex,
}

impl Staging {
    /// A staging buffer of `bytes`.
    pub fn new(gpu: &Gpu, what: &str, bytes: u64) -> Self {
        let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes.max(16).next_multiple_of(16),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self { buffer }
    }

    /// Where to copy results.
    pub fn buffer(&self) -> &wgpu::Buffer {
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
        self.gpu
            .device()
            .poll(wgpu::PollType::Wait {
                submission_index: Some(self.submission),
                timeout: None,
            })
            .map_err(|e| GpuError::Readback(e.to_string()))?;
        let mapped = self.done.await;
        self.gpu.check()?;
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
    /// Waits until everything submitted so far is done.
    pub async fn finish(&self) -> Result<(), GpuError> {
        let marker = Staging::new(self, "marker", 16);
        let submission = self.queue().submit([]);
        marker.read(self, 16, submission).wait().await?;
        Ok(())
    }

    /// Reads a range of bytes of `buffer` (both ends multiples of 4).
    pub async fn read(
        &self,
        buffer: &wgpu::Buffer,
        range: Range<u64>,
    ) -> Result<Vec<u8>, GpuError> {
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
        buffer: &wgpu::Buffer,
        first: usize,
        count: usize,
    ) -> Result<Vec<T>, GpuError> {
        let size = size_of::<T>() as u64;
        let from = first as u64 * size;
        let bytes = self.read(buffer, from..from + count as u64 * size).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}
