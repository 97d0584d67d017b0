//! The GPU: adapter and device, capabilities, typed errors, buffers, kernels, readback.

#[cfg(target_arch = "wasm32")]
mod browser;
mod buffer;
mod capabilities;
mod error;
mod kernel;
mod outcome;
mod readback;
pub mod shaders;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

pub use buffer::Buffer;
pub use capabilities::{Capabilities, MatmulKind, Reduction};
pub use error::GpuError;
use kernel::Made;
pub use kernel::{Access, Grid, Kernel, KernelDescriptor, Step};
use outcome::{Caught, Outcome};
pub use readback::Staging;

/// How to open the GPU; what is `None` follows the adapter.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Take a software adapter (tests, machines without a GPU).
    pub cpu_adapter: bool,
    /// Whether to use `shader-f16`; asking for it where the adapter lacks it is an error.
    pub f16: Option<bool>,
    /// Whether products of few activation rows with 4-bit weights compute in f16, which asks for `f16`.
    pub half_products: Option<bool>,
    /// How workgroups reduce; asking for subgroups where the adapter lacks them is an error.
    pub reduction: Option<Reduction>,
    /// The skeleton of matrix products with few activation rows.
    pub few_rows: Option<MatmulKind>,
    /// The skeleton of matrix products with many activation rows.
    pub many_rows: Option<MatmulKind>,
    /// Bytes of a buffer at most, where the adapter allows more.
    pub buffer_bytes: Option<u64>,
    /// Bytes of all buffers at most: more is as if the GPU had no memory.
    pub memory_bytes: Option<u64>,
}

/// An open device with its queue.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: Capabilities,
    caught: Arc<Mutex<Caught>>,
    /// What was asked for and is not answered, in order.
    asked: RefCell<VecDeque<Outcome>>,
    /// What was compiled, by what it was compiled from.
    kernels: RefCell<HashMap<Made, Kernel>>,
    memory_limit: Option<u64>,
    /// Bytes of all buffers there are.
    live: Rc<Cell<u64>>,
    /// Bytes that were written and may not have been taken yet.
    waiting: Cell<u64>,
    dispatches: Rc<Cell<u64>>,
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
        let experimental = match capabilities.many_rows {
            // SAFETY: of what is experimental only cooperative matrices are used, in one kernel, on workgroup memory of
            // constant size (`matmul/matrices.wgsl`).
            MatmulKind::Matrices => unsafe { wgpu::ExperimentalFeatures::enabled() },
            _ => wgpu::ExperimentalFeatures::disabled(),
        };
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("phi3-steer"),
                required_features: capabilities.features(),
                required_limits: limits,
                experimental_features: experimental,
                ..Default::default()
            })
            .await
            .map_err(|e| GpuError::Device(e.to_string()))?;
        Ok(Self {
            caught: outcome::watch(&device),
            device,
            queue,
            capabilities,
            asked: RefCell::default(),
            kernels: RefCell::default(),
            memory_limit: options.memory_bytes,
            live: Rc::default(),
            waiting: Cell::default(),
            dispatches: Rc::default(),
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

    /// How many dispatches have been recorded: for measurements.
    pub fn dispatches(&self) -> u64 {
        self.dispatches.get()
    }

    /// Destroys the device, which frees its memory; everything made from it is lost.
    pub fn destroy(&self) {
        self.device.destroy();
    }
}
