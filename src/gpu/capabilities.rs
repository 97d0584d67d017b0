//! What the adapter can do, and which kernel variants follow from it.

use super::{GpuError, GpuOptions};

/// How a workgroup adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Through subgroup operations.
    Subgroup,
    /// Through workgroup memory.
    Shared,
}

/// The skeleton of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatmulKind {
    /// One invocation a pair of matrix rows, no barriers: for CPU adapters.
    Thread,
    /// A team of invocations one or two pairs of matrix rows.
    Split,
    /// Tiles in workgroup memory, for many activation rows.
    Tile,
    /// Tiles on the adapter's matrix units, in f16, for many activation rows: native only.
    Matrices,
    /// An invocation for four units and eight activation rows, without barriers, for many activation rows
    /// on CPU adapters.
    Block,
    /// An invocation for four units and up to eight activation rows, without barriers, which a subgroup loads
    /// together: for CPU adapters with subgroups of 4 or 8, natively.
    Broadcast,
}

/// What the adapter offers, and the variants chosen.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// The adapter's name.
    pub name: String,
    /// The graphics API behind it.
    pub backend: String,
    /// Whether it computes on the CPU.
    pub cpu: bool,
    /// Whether it offers `shader-f16`.
    pub has_f16: bool,
    /// Whether it offers subgroup operations.
    pub has_subgroups: bool,
    /// Whether it offers products of 16 x 16 matrices of f16 with sums in f32, to subgroups of 32.
    pub has_matrices: bool,
    /// Whether kernels use f16.
    pub f16: bool,
    /// Whether products may compute in f16: those of few activation rows with 4-bit weights, and those on matrix units.
    pub half_products: bool,
    /// How workgroups reduce.
    pub reduction: Reduction,
    /// Invocations of a subgroup, where the adapter has subgroups of one size alone.
    pub subgroup_size: Option<u32>,
    /// The skeleton for few activation rows (decode).
    pub few_rows: MatmulKind,
    /// The skeleton for many activation rows (prefill).
    pub many_rows: MatmulKind,
}

impl Capabilities {
    /// What `adapter` offers, with the variants that suit it.
    pub fn of(adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        let features = adapter.features();
        #[cfg(target_arch = "wasm32")]
        let said_name = super::browser::adapter_name();
        #[cfg(not(target_arch = "wasm32"))]
        let said_name = info.name;
        // Browsers report no device type; their software adapter goes by this name.
        let software = ["swiftshader", "llvmpipe", "lavapipe", "basic render"];
        let said = format!("{said_name} {}", info.driver).to_lowercase();
        let cpu = info.device_type == wgpu::DeviceType::Cpu
            || software.iter().any(|name| said.contains(name));
        #[cfg(target_arch = "wasm32")]
        let (has_subgroups, cpu, sizes) = (
            super::browser::adapter_has("subgroups"),
            cpu || super::browser::adapter_is_fallback(),
            super::browser::adapter_subgroups(),
        );
        #[cfg(not(target_arch = "wasm32"))]
        let (has_subgroups, sizes) = (
            features.contains(wgpu::Features::SUBGROUP),
            [info.subgroup_min_size, info.subgroup_max_size],
        );
        let one_size = sizes[0] == sizes[1] && sizes[0].is_power_of_two();
        let has_f16 = features.contains(wgpu::Features::SHADER_F16);
        #[cfg(target_arch = "wasm32")]
        let has_matrices = false;
        #[cfg(not(target_arch = "wasm32"))]
        let has_matrices = has_f16
            && has_subgroups
            && sizes == [32, 32]
            && features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
            && adapter.cooperative_matrix_properties().iter().any(|m| {
                let size = [m.m_size, m.n_size, m.k_size];
                let types = (m.ab_type, m.cr_type);
                use wgpu::CooperativeScalarType::{F16, F32};
                size == [16; 3] && types == (F16, F32)
            });
        let name = [said_name.as_str(), info.driver.as_str()]
            .into_iter()
            .find(|s| !s.trim().is_empty())
            .unwrap_or("unnamed adapter")
            .to_string();
        let subgroup_size = (has_subgroups && one_size).then_some(sizes[0]);
        // SwiftShader, which browsers have, takes longer with it (BENCHMARKS.md).
        let broadcast = cpu && can_broadcast(subgroup_size) && cfg!(not(target_arch = "wasm32"));
        Self {
            name,
            backend: format!("{:?}", info.backend),
            cpu,
            has_f16,
            has_subgroups,
            has_matrices,
            f16: has_f16,
            half_products: has_f16 && !cpu,
            subgroup_size,
            reduction: if has_subgroups && !cpu {
                Reduction::Subgroup
            } else {
                Reduction::Shared
            },
            few_rows: if broadcast {
                MatmulKind::Broadcast
            } else if cpu {
                MatmulKind::Thread
            } else {
                MatmulKind::Split
            },
            many_rows: if broadcast {
                MatmulKind::Broadcast
            } else if cpu {
                MatmulKind::Block
            } else if has_matrices {
                MatmulKind::Matrices
            } else {
                MatmulKind::Tile
            },
        }
    }

    /// Whether few activation rows are best computed without barriers, as CPU adapters do.
    pub fn without_barriers(&self) -> bool {
        matches!(self.few_rows, MatmulKind::Thread | MatmulKind::Broadcast)
    }

    /// Takes what `options` ask for, if the adapter has it.
    pub(super) fn choose(&mut self, options: &GpuOptions) -> Result<(), GpuError> {
        if let Some(f16) = options.f16 {
            if f16 && !self.has_f16 {
                return Err(GpuError::Unsupported("shader-f16"));
            }
            self.f16 = f16;
        }
        self.half_products &= self.f16;
        if let Some(half) = options.half_products {
            if half && !self.f16 {
                return Err(GpuError::Unsupported("shader-f16"));
            }
            self.half_products = half;
        }
        if let Some(reduction) = options.reduction {
            if reduction == Reduction::Subgroup && !self.has_subgroups {
                return Err(GpuError::Unsupported("subgroups"));
            }
            self.reduction = reduction;
        }
        if !self.half_products && self.many_rows == MatmulKind::Matrices {
            self.many_rows = MatmulKind::Tile;
        }
        if options.many_rows == Some(MatmulKind::Matrices) && !(self.has_matrices && self.f16) {
            return Err(GpuError::Unsupported(
                "matrix units for 16 x 16 matrices of f16",
            ));
        }
        let broadcast = Some(MatmulKind::Broadcast);
        if (options.few_rows == broadcast || options.many_rows == broadcast)
            && !can_broadcast(self.subgroup_size)
        {
            return Err(GpuError::Unsupported("subgroups of 4 or 8"));
        }
        self.few_rows = options.few_rows.unwrap_or(self.few_rows);
        self.many_rows = options.many_rows.unwrap_or(self.many_rows);
        Ok(())
    }

    /// The device features that the chosen variants need.
    pub(super) fn features(&self) -> wgpu::Features {
        let mut features = wgpu::Features::empty();
        if self.f16 {
            features |= wgpu::Features::SHADER_F16;
        }
        if self.many_rows == MatmulKind::Matrices {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        // Browsers are asked by way of `browser::request_subgroups`.
        let broadcast = [self.few_rows, self.many_rows].contains(&MatmulKind::Broadcast);
        if cfg!(not(target_arch = "wasm32")) && (self.reduction == Reduction::Subgroup || broadcast)
        {
            features |= wgpu::Features::SUBGROUP;
        }
        features
    }
}

/// Whether the subgroups of a size, where they have one alone, share the columns of a group of weights
/// (`matmul/broadcast.wgsl`).
fn can_broadcast(subgroup_size: Option<u32>) -> bool {
    matches!(subgroup_size, Some(4 | 8))
}
