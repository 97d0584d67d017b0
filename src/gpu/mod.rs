//! The GPU: adapter and device, capabilities, typed errors, buffers, kernels, readback.

#[cfg(target_arch = "wasm32")]
mod browser;
mod capabilities;
mod error;
mod kernel;
mod pace;
mod readback;
pub mod shaders;

use std::sync::{Arc, Mutex};

pub use capabilities::{Capabilities, MatmulKind, Reduction};
pub use error::GpuError;
pub use kernel::{Access, Grid, Kernel, KernelDescriptor, Step, dispatches};
pub use pace::Pace;
pub use readback::Staging;
use wgpu::util::DeviceExt;

/// How to open the GPU; what is `None` follows the adapter.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Take a software adapter (tests, machines without a GPU).
    pub cpu_adapter: bool,
    /// Whether to use `shader-f16`; asking for it where the adapter lacks it is an error.
    pub f16: Option<bool>,
    /// How workgroups reduce; asking for subgroups where the adapter lacks them is an error.
    pub reduction: Option<Reduction>,
    /// The skeleton of matrix products with few activation rows.
    pub few_rows: Option<MatmulKind>,
    /// The skeleton of matrix products with many activation rows.
    pub many_rows: Option<MatmulKind>,
    /// Bytes of a buffer at most, where the adapter allows more.
    pub buffer_bytes: Option<u64>,
}

/// What the device's handlers have caught.
#[derive(Default)]
struct Caught {
    lost: Option<String>,
    error: Option<String>,
    out_of_memory: bool,
}

/// An open device with its queue.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: Capabilities,
    caught: Arc<Mutex<Caught>>,
}

impl Gpu {
    /// Opens the adapter that `options` ask for, with the largest limits it offers.
    pub async fn open(options: &GpuOptions) -> Result<Self, GpuError> {
        #[cfg(target_arch = "wasm32")]
        {
            if !browser::has_webgpu() {
                return Err(GpuError::NoWebGpu);
            }
            browser::watch_adapter();
        }
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::all(),
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let adapter = Self::adapter(&instance, options).await?;
        let mut capabilities = Capabilities::of(&adapter);
        capabilities.choose(options)?;
        #[cfg(target_arch = "wasm32")]
        if capabilities.reduction == Reduction::Subgroup {
            browser::request_subgroups();
        }
        let mut limits = adapter.limits();
        if let Some(most) = options.buffer_bytes {
            limits.max_buffer_size = limits.max_buffer_size.min(most);
            limits.max_storage_buffer_binding_size =
                limits.max_storage_buffer_binding_size.min(most);
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("phi3-steer"),
                required_features: capabilities.features(),
                required_limits: limits,
                ..Default::default()
            })
            .await
            .map_err(|e| GpuError::Device(e.to_string()))?;
        let caught = Arc::new(Mutex::new(Caught::default()));
        let at = caught.clone();
        device.set_device_lost_callback(move |reason, message| {
            if let Ok(mut caught) = at.lock() {
                caught.lost.get_or_insert(format!("{reason:?}: {message}"));
            }
        });
        let at = caught.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            if let Ok(mut caught) = at.lock() {
                caught.out_of_memory |= matches!(error, wgpu::Error::OutOfMemory { .. });
                caught.error.get_or_insert(error.to_string());
            }
        }));
        Ok(Self {
            device,
            queue,
            capabilities,
            caught,
        })
    }

    async fn adapter(
        instance: &wgpu::Instance,
        options: &GpuOptions,
    ) -> Result<wgpu::Adapter, GpuError> {
        #[cfg(not(target_arch = "wasm32"))]
        if options.cpu_adapter {
            let all = instance.enumerate_adapters(wgpu::Backends::all()).await;
            return all
                .into_iter()
                .find(|a| a.get_info().device_type == wgpu::DeviceType::Cpu)
                .ok_or(GpuError::NoAdapter {
                    reason: "no software adapter is installed".into(),
                });
        }
        instance
            .request_adapter(&wgpu::RequestAdapterOptions {
                power_preference: wgpu::PowerPreference::HighPerformance,
                force_fallback_adapter: options.cpu_adapter,
                ..Default::default()
            })
            .await
            .map_err(|e| GpuError::NoAdapter {
                reason: e.to_string(),
            })
    }

    /// What the device can do and which variants are in use.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// An error if the device was lost or has reported one outside of a scope.
    pub fn check(&self) -> Result<(), GpuError> {
        let Ok(caught) = self.caught.lock() else {
            return Err(GpuError::Lost("an error handler stopped".into()));
        };
        if let Some(reason) = &caught.lost {
            return Err(GpuError::Lost(reason.clone()));
        }
        match &caught.error {
            Some(_) if caught.out_of_memory => Err(GpuError::OutOfMemory {
                what: "a computation".into(),
                bytes: 0,
            }),
            Some(e) => Err(GpuError::Validation(e.clone())),
            None => Ok(()),
        }
    }

    /// Destroys the device, which frees its memory; everything made from it is lost.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// Bytes of a storage buffer at most: 128 MiB where the adapter offers no more than WebGPU promises.
    pub fn storage_limit(&self) -> u64 {
        let limits = self.device.limits();
        limits
            .max_buffer_size
            .min(limits.max_storage_buffer_binding_size)
    }

    /// A zeroed storage buffer of `bytes` (rounded up to whole 16 bytes) that can be copied from and
    /// to. Fails when it exceeds the device's limits or memory.
    pub async fn storage(&self, what: &str, bytes: u64) -> Result<wgpu::Buffer, GpuError> {
        self.buffer(what, bytes, wgpu::BufferUsages::STORAGE).await
    }

    /// A zeroed buffer for `usage`, copied from and to.
    pub async fn buffer(
        &self,
        what: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, GpuError> {
        let size = bytes.max(16).next_multiple_of(16);
        let limit = if usage.contains(wgpu::BufferUsages::STORAGE) {
            self.storage_limit()
        } else {
            self.device.limits().max_buffer_size
        };
        if size > limit {
            return Err(GpuError::TooLarge {
                what: what.into(),
                bytes: size,
                limit,
            });
        }
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size,
            usage: usage | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        match memory.pop().await {
            Some(_) => Err(GpuError::OutOfMemory {
                what: what.into(),
                bytes: size,
            }),
            None => Ok(buffer),
        }
    }

    /// A uniform buffer with contents that can be written again.
    pub fn uniform<T: bytemuck::Pod>(&self, what: &str, value: &T) -> wgpu::Buffer {
        self.device
            .create_buffer_init(&wgpu::util::BufferInitDescriptor {
                label: Some(what),
                contents: bytemuck::bytes_of(value),
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            })
    }

    /// Writes `data` at byte `offset` of `buffer`, ordered before the next submission.
    pub fn write<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, offset: u64, data: &[T]) {
        self.queue
            .write_buffer(buffer, offset, bytemuck::cast_slice(data));
    }
}
