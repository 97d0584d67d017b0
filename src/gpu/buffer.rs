//! Buffers: one rule for making, counting and freeing them.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use super::{Gpu, GpuError};

/// A buffer on the GPU. Its memory is freed when the last clone goes (browsers alone would free it when
/// they collect their garbage, which may be never): commands that use it must be submitted by then. A
/// [`super::Step`] holds the buffers that it is bound to.
#[derive(Clone)]
pub struct Buffer(Rc<Owned>);

struct Owned {
    buffer: wgpu::Buffer,
    live: Rc<Cell<u64>>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.buffer.destroy();
        self.live.set(self.live.get() - self.buffer.size());
    }
}

impl Deref for Buffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.0.buffer
    }
}

/// Bytes written to the queue before the GPU is given the time to take them.
const WAITING_BYTES: u64 = 64 << 20;

impl Gpu {
    /// Bytes of a storage buffer at most: 128 MiB where the adapter offers no more than WebGPU promises.
    pub fn storage_limit(&self) -> u64 {
        let limits = self.device.limits();
        limits
            .max_buffer_size
            .min(limits.max_storage_buffer_binding_size)
    }

    /// Bytes of all buffers there are.
    pub fn live_bytes(&self) -> u64 {
        self.live.get()
    }

    /// A zeroed storage buffer of `bytes` (rounded up to whole 16 bytes) that can be copied from and to.
    /// An error if it exceeds the device's limits; whether there was memory for it, [`Gpu::settle`] says.
    pub fn storage(&self, what: &str, bytes: u64) -> Result<Buffer, GpuError> {
        self.buffer(what, bytes, wgpu::BufferUsages::STORAGE)
    }

    /// A zeroed buffer for `usage`, copied from and to; see [`Gpu::storage`].
    pub fn buffer(
        &self,
        what: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<Buffer, GpuError> {
        let limit = if usage.contains(wgpu::BufferUsages::STORAGE) {
            self.storage_limit()
        } else {
            self.device.limits().max_buffer_size
        };
        if bytes > limit {
            return Err(GpuError::TooLarge {
                what: what.into(),
                bytes,
                limit,
            });
        }
        let copied = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        Ok(self.make(what, bytes, usage | copied))
    }

    /// A uniform buffer with contents that can be written again.
    pub fn uniform<T: bytemuck::Pod>(&self, what: &str, value: &T) -> Buffer {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.make(what, size_of::<T>() as u64, usage);
        self.write(&buffer, 0, std::slice::from_ref(value));
        buffer
    }

    /// Makes every buffer. It is never mapped as it is made: browsers throw where that fails.
    pub(super) fn make(&self, what: &str, bytes: u64, usage: wgpu::BufferUsages) -> Buffer {
        let size = bytes.max(16).next_multiple_of(16);
        let live = self.live.get() + size;
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size,
            usage,
            mapped_at_creation: false,
        });
        let failed = memory.pop();
        let over = self.memory_limit.is_some_and(|limit| live > limit);
        let error = GpuError::OutOfMemory {
            what: what.into(),
            bytes: size,
        };
        self.ask(async move { (failed.await.is_some() || over).then_some(error) });
        self.live.set(live);
        Buffer(Rc::new(Owned {
            buffer,
            live: self.live.clone(),
        }))
    }

    /// Writes `data` at byte `offset` of `buffer`, ordered before the next submission. Who writes much
    /// calls [`Gpu::pace`] in between.
    pub fn write<T: bytemuck::Pod>(&self, buffer: &Buffer, offset: u64, data: &[T]) {
        self.queue
            .write_buffer(buffer, offset, bytemuck::cast_slice(data));
        let waiting = self.waiting.get() + size_of_val(data) as u64;
        self.waiting.set(waiting);
    }

    /// Bytes that were written and that the GPU may not have taken yet; they take that much memory beside
    /// the buffers.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting.get()
    }

    /// Waits for the GPU if much was written that it may not have taken yet, so that at most 64 MiB and
    /// one write are on the way.
    pub async fn pace(&self) -> Result<(), GpuError> {
        match self.waiting.get() > WAITING_BYTES {
            true => self.finish().await,
            false => Ok(()),
        }
    }

    /// Waits until everything submitted and written so far is done.
    pub async fn finish(&self) -> Result<(), GpuError> {
        let waiting = self.waiting.get();
        let (sender, done) = futures_channel::oneshot::channel();
        // The receiver is gone when the caller no longer waits.
        #[cfg_attr(target_arch = "wasm32", allow(unused_variables))]
        let submission = self.queue.submit([]);
        self.queue.on_submitted_work_done(move || {
            let _ = sender.send(());
        });
        #[cfg(not(target_arch = "wasm32"))]
        self.wait_for(submission)?;
        if done.await.is_err() {
            return Err(GpuError::Lost("it went away".into()));
        }
        self.waiting.set(self.waiting.get().saturating_sub(waiting));
        self.settle().await
    }
}
