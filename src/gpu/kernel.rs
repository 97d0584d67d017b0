//! Compute kernels: a pipeline with an explicit layout, and prepared dispatches.

use std::cell::Cell;
use std::rc::Rc;

use super::{Buffer, Gpu, GpuError, MatmulKind, Reduction};

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Uniform buffer.
    Uniform,
    /// Storage buffer, read.
    Read,
    /// Storage buffer, read and written.
    Write,
}

/// What a kernel is made of.
pub struct KernelDescriptor<'a> {
    /// Its name, for error messages and captures.
    pub label: &'a str,
    /// WGSL texts in order, after the capability prelude.
    pub parts: &'a [&'a str],
    /// Override constants; every name must be declared in the text.
    pub constants: &'a [(&'a str, f64)],
    /// Bindings of group 0.
    pub bindings: &'a [(u32, Access)],
}

/// What a kernel was compiled from: its text, its constants (their bits) and its bindings.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Made {
    source: String,
    constants: Vec<(String, u64)>,
    bindings: Vec<(u32, Access)>,
}

/// A compiled kernel.
#[derive(Clone)]
pub struct Kernel {
    label: Rc<str>,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// Workgroups in x, y and z.
pub type Grid = [u32; 3];

/// A kernel with its buffers, ready to dispatch. It must live until what it has recorded is submitted.
pub struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    /// Holds them for as long as they may be used.
    _buffers: Vec<Buffer>,
    dispatches: Rc<Cell<u64>>,
}

impl Gpu {
    /// Compiles a kernel, unless the same was compiled before. It is usable at once; whether there is a fault
    /// in its text or layout, [`Gpu::settle`] says, in the compiler's words.
    pub fn kernel(&self, desc: &KernelDescriptor<'_>) -> Kernel {
        let made = Made {
            source: self.assemble(desc.parts),
            constants: desc
                .constants
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_bits()))
                .collect(),
            bindings: desc.bindings.to_vec(),
        };
        if let Some(kernel) = self.kernels.borrow().get(&made) {
            return kernel.clone();
        }
        let kernel = self.compile(desc, &made.source);
        self.kernels.borrow_mut().insert(made, kernel.clone());
        kernel
    }

    fn compile(&self, desc: &KernelDescriptor<'_>, source: &str) -> Kernel {
        let scope = self
            .device()
            .push_error_scope(wgpu::ErrorFilter::Validation);
        let text = wgpu::ShaderModuleDescriptor {
            label: Some(desc.label),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        };
        let checks = wgpu::ShaderRuntimeChecks {
            // Vulkan's drivers check what is read of buffers.
            bounds_checks: self.capabilities().backend != "Vulkan",
            ..wgpu::ShaderRuntimeChecks::unchecked()
        };
        // SAFETY: the texts are this crate's own: their loops end, they divide by nothing that can be zero, their
        // places in workgroup memory follow from constants and the invocation's number, and they use nothing else
        // that goes unchecked. Accesses to buffers are checked. Browsers check everything all the same.
        let module = unsafe { self.device().create_shader_module_trusted(text, checks) };
        let entries: Vec<_> = desc
            .bindings
            .iter()
            .map(|&(binding, access)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match access {
                        Access::Uniform => wgpu::BufferBindingType::Uniform,
                        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Access::Write => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = self
            .device()
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(desc.label),
                entries: &entries,
            });
        let pipeline_layout =
            self.device()
                .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: Some(desc.label),
                    bind_group_layouts: &[Some(&layout)],
                    immediate_size: 0,
                });
        let pipeline = self
            .device()
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(desc.label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: desc.constants,
                    // Kernels write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            });
        let (label, fault): (Rc<str>, _) = (desc.label.into(), scope.pop());
        let name = label.clone();
        self.ask(async move {
            let error = fault.await?;
            Some(GpuError::Validation(format!("kernel {name}: {error}")))
        });
        Kernel {
            label,
            pipeline,
            layout,
        }
    }

    /// The preludes and `parts` as one WGSL text.
    fn assemble(&self, parts: &[&str]) -> String {
        let mut source = String::new();
        // Browsers require the directive, naga rejects it.
        if cfg!(target_arch = "wasm32") && self.capabilities().reduction == Reduction::Subgroup {
            source.push_str("enable subgroups;\n");
        }
        if self.capabilities().many_rows == MatmulKind::Matrices {
            source.push_str("enable wgpu_cooperative_matrix;\n");
        }
        source.push_str(if self.capabilities().f16 {
            super::shaders::PRELUDE_F16
        } else {
            super::shaders::PRELUDE_F32
        });
        if self.capabilities().half_products {
            source.push_str(if cfg!(target_arch = "wasm32") {
                super::shaders::PRELUDE_HALF_WEB
            } else {
                super::shaders::PRELUDE_HALF_NATIVE
            });
        }
        source.push_str(super::shaders::FINITE);
        for part in parts {
            source.push('\n');
            source.push_str(part);
        }
        source
    }

    /// The reduction twin of the device's choice.
    pub fn reduction_part(&self) -> &'static str {
        match self.capabilities().reduction {
            Reduction::Subgroup => super::shaders::REDUCE_SUBGROUP,
            Reduction::Shared => super::shaders::REDUCE_SHARED,
        }
    }

    /// The twin that sums over teams of `team` invocations, by the device's choice, with the size of its subgroups
    /// where it takes several.
    pub fn team_part(&self, team: u32) -> (&'static str, Option<u32>) {
        let capabilities = self.capabilities();
        match (capabilities.reduction, capabilities.subgroup_size) {
            (Reduction::Subgroup, Some(size)) if size >= team => {
                (super::shaders::REDUCE_TEAM_IN_SUBGROUP, None)
            }
            (Reduction::Subgroup, Some(size)) => (super::shaders::REDUCE_TEAM_SUBGROUP, Some(size)),
            _ => (super::shaders::REDUCE_TEAM_SHARED, None),
        }
    }
}

impl Kernel {
    /// Binds `buffers` (binding, buffer), one for each binding of the layout.
    pub fn bind(&self, gpu: &Gpu, buffers: &[(u32, &Buffer)]) -> Step {
        let entries: Vec<_> = buffers
            .iter()
            .map(|&(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let bind_group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&self.label),
            layout: &self.layout,
            entries: &entries,
        });
        Step {
            pipeline: self.pipeline.clone(),
            bind_group,
            _buffers: buffers.iter().map(|&(_, b)| b.clone()).collect(),
            dispatches: gpu.dispatches.clone(),
        }
    }
}

impl Step {
    /// Records a dispatch of `grid` workgroups.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, grid: Grid) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        self.dispatches.set(self.dispatches.get() + 1);
    }
}
