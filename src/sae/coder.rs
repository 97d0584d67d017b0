//! Encoding and reconstruction on the GPU.

use super::rule::{Activations, Normalization};
use super::{Dictionary, SaeError};
use crate::gpu::{Access, Buffer, Gpu, Kernel, KernelDescriptor, Step, shaders};
use crate::matrix::{
    Operands, Product, ProductShape, ProductStep, Prologue, weights_bindings, weights_part,
};
use crate::quant;

/// A latent and its activation, as the GPU lists them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Activation {
    /// The latent; `u32::MAX` in an empty slot.
    pub feature: u32,
    /// Its activation, > 0; 0 in an empty slot.
    pub value: f32,
}

/// The activations of one token's list of `k` slots that are not empty, largest first.
pub fn live(slots: &[Activation]) -> &[Activation] {
    let count = slots.iter().take_while(|a| a.feature != u32::MAX).count();
    &slots[..count]
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct TopkShape {
    latents: u32,
    k: u32,
    unused: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct DecodeShape {
    hidden4: u32,
    groups: u32,
    inputs: u32,
    first: u32,
    count: u32,
    last: u32,
    unused: [u32; 2],
}

/// The kernels that encode vectors by a dictionary and rebuild them, with the buffers between.
pub struct Coder {
    normalize: Option<Kernel>,
    product: Product,
    group_max: Option<Kernel>,
    topk: Kernel,
    /// `[latents]` their numbers in the dictionary, where only some are loaded.
    names: Option<Buffer>,
    decode: Kernel,
    /// `[rows, width]`, where vectors are normalised.
    normalized: Option<Buffer>,
    /// `[rows]` (factor, offset) from the dictionary's units to the residual's.
    units: Buffer,
    /// `[rows, latents]`; for TopK before the largest are taken.
    acts: Buffer,
    /// `[rows, k]` of [`Activation`]
    features: Buffer,
    /// `[rows, width]`
    rebuilt: Buffer,
}

/// A coder bound to the vectors that it encodes.
pub struct CoderStep {
    normalize: Option<Step>,
    encode: Vec<ProductStep>,
    /// With its workgroups a row.
    group_max: Option<(Step, u32)>,
    topk: Step,
    decode: Vec<Step>,
    width: u32,
}

impl Coder {
    /// Starts to compile the kernels for passes of at most `rows` rows, and for decode passes of `few_rows`.
    pub fn new(
        gpu: &Gpu,
        dictionary: &Dictionary,
        rows: usize,
        few_rows: usize,
    ) -> Result<Self, SaeError> {
        let rule = dictionary.rule();
        let prologue = match rule.subtract_bias {
            true => Prologue::Subtract,
            false => Prologue::None,
        };
        let product = Product {
            label: "project_latents",
            kernel: shaders::PROJECT_LATENTS,
            parts: Vec::new(),
            prologue,
            bindings: &[(6, Access::Read), (7, Access::Write)],
            few_rows,
            half: false,
        };
        let names = match dictionary.chosen() {
            Some(chosen) => {
                let names = gpu.storage("latents", chosen.len() as u64 * 4)?;
                gpu.write(&names, 0, chosen);
                Some(names)
            }
            None => None,
        };
        let topk = gpu.kernel(&KernelDescriptor {
            label: "topk",
            parts: &[shaders::ROWS, shaders::TOPK],
            constants: &[
                ("RENAMED", f64::from(u8::from(names.is_some()))),
                ("ROOM", dictionary.k().max(1) as f64),
            ],
            bindings: &[
                (0, Access::Read),
                (1, Access::Write),
                (2, Access::Read),
                (3, Access::Uniform),
                (5, Access::Uniform),
            ],
        });
        let grouped = matches!(rule.activations, Activations::GroupMax { .. });
        let group_max = grouped.then(|| {
            gpu.kernel(&KernelDescriptor {
                label: "group_max",
                parts: &[shaders::ROWS, shaders::GROUP_MAX],
                constants: &[],
                bindings: &[
                    (0, Access::Write),
                    (3, Access::Uniform),
                    (5, Access::Uniform),
                ],
            })
        });
        let floats = |columns: usize| (rows * columns * 4) as u64;
        let units = gpu.storage("units", floats(2))?;
        gpu.write(&units, 0, &vec![[1.0f32, 0.0]; rows]);
        let mut normalized = None;
        if dictionary.normalizes() {
            let bytes = floats(dictionary.width());
            normalized = Some(gpu.storage("normalised vectors", bytes)?);
        }
        Ok(Self {
            normalize: normalize_kernel(gpu, rule.normalization),
            product,
            group_max,
            topk,
            names,
            decode: decode_kernel(gpu, dictionary),
            normalized,
            units,
            acts: gpu.storage("activations", floats(dictionary.loaded()))?,
            features: gpu.storage("active features", floats(2 * dictionary.k()))?,
            rebuilt: gpu.storage("reconstructions", floats(dictionary.width()))?,
        })
    }

    /// Binds the coder to `vectors` `[rows, width]` and a `Rows` uniform, for passes of many rows or of
    /// few.
    pub fn bind(
        &self,
        gpu: &Gpu,
        dictionary: &Dictionary,
        vectors: &Buffer,
        rows: &Buffer,
        many: bool,
    ) -> CoderStep {
        let latents = dictionary.loaded() as u32;
        let k = dictionary.k() as u32;
        let width = dictionary.width();
        let hidden4 = width as u32 / 4;
        let normalize = self.normalize.as_ref().zip(self.normalized.as_ref());
        let normalize = normalize.map(|(kernel, normalized)| {
            let shape = gpu.uniform("normalize shape", &[hidden4, 0, 0, 0]);
            let buffers = [
                (0, vectors),
                (3, &shape),
                (5, rows),
                (6, normalized),
                (7, &self.units),
            ];
            kernel.bind(gpu, &buffers)
        });
        let encode = dictionary.parts.iter().map(|part| {
            let shape = ProductShape {
                inner: latents,
                first: part.first as u32,
                ..ProductShape::of(&part.encoder)
            };
            let operands = Operands {
                matrix: &part.encoder,
                shape: &shape,
                x: self.normalized.as_ref().unwrap_or(vectors),
                pre: &dictionary.input_bias,
                rows,
                own: &[(6, &part.params), (7, &self.acts)],
            };
            self.product.bind(gpu, many, &operands)
        });
        let group_max = self.group_max.as_ref().map(|kernel| {
            let shape = gpu.uniform("group max shape", &[latents, k, 0, 0]);
            let step = kernel.bind(gpu, &[(0, &self.acts), (3, &shape), (5, rows)]);
            (step, k.div_ceil(64))
        });
        let shape = TopkShape {
            latents,
            k,
            unused: [0; 2],
        };
        let shape = gpu.uniform("topk shape", &shape);
        let topk = self.topk.bind(
            gpu,
            &[
                (0, &self.acts),
                (1, &self.features),
                (2, self.names.as_ref().unwrap_or(&self.acts)),
                (3, &shape),
                (5, rows),
            ],
        );
        let (inputs, source) = match dictionary.rule().is_local() {
            true => (latents, &self.acts),
            false => (k, &self.features),
        };
        let last = dictionary.parts.len() - 1;
        let decode = dictionary.parts.iter().enumerate().map(|(i, part)| {
            let shape = DecodeShape {
                hidden4,
                groups: quant::groups(width) as u32,
                inputs,
                first: part.first as u32,
                count: part.decoder.rows() as u32,
                last: u32::from(i == last),
                unused: [0; 2],
            };
            let shape = gpu.uniform("decode shape", &shape);
            let mut buffers = part.decoder.buffers();
            buffers.extend([
                (0, source),
                (3, &shape),
                (4, &dictionary.output_bias),
                (5, rows),
                (6, &self.rebuilt),
                (7, &self.units),
            ]);
            self.decode.bind(gpu, &buffers)
        });
        CoderStep {
            normalize,
            encode: encode.collect(),
            group_max,
            topk,
            decode: decode.collect(),
            width: width as u32,
        }
    }

    /// The last pass's active latents, `[rows, k]` of [`Activation`], largest first.
    pub fn features(&self) -> &Buffer {
        &self.features
    }

    /// The last pass's activations of all loaded latents, `[rows, latents]` f32; not for TopK, where what is
    /// listed alone is active.
    pub fn activations(&self) -> &Buffer {
        &self.acts
    }

    /// The last pass's reconstructions, `[rows, width]` f32.
    pub fn rebuilt(&self) -> &Buffer {
        &self.rebuilt
    }

    /// What brings the last pass's vectors from the dictionary's units to the residual's, `[rows]` of a
    /// factor and an offset; 1 and 0 where nothing is normalised.
    pub fn units(&self) -> &Buffer {
        &self.units
    }
}

/// Invocations that normalise a vector.
const NORMALIZE_INVOCATIONS: u32 = 64;

fn normalize_kernel(gpu: &Gpu, how: Normalization) -> Option<Kernel> {
    if how == Normalization::None {
        return None;
    }
    let layer_norm = f64::from(u8::from(how == Normalization::LayerNorm));
    Some(gpu.kernel(&KernelDescriptor {
        label: "normalize_vectors",
        parts: &[
            shaders::ROWS,
            gpu.reduction_part(),
            shaders::NORMALIZE_VECTORS,
        ],
        constants: &[
            ("WG", NORMALIZE_INVOCATIONS.into()),
            ("LAYER_NORM", layer_norm),
        ],
        bindings: &[
            (0, Access::Read),
            (3, Access::Uniform),
            (5, Access::Uniform),
            (6, Access::Write),
            (7, Access::Write),
        ],
    }))
}

fn decode_kernel(gpu: &Gpu, dictionary: &Dictionary) -> Kernel {
    let (label, text) = match dictionary.rule().is_local() {
        true => ("decode_dense", shaders::DECODE_DENSE),
        false => ("decode_latents", shaders::DECODE_LATENTS),
    };
    let format = dictionary.format();
    let mut bindings = vec![
        (0, Access::Read),
        (3, Access::Uniform),
        (4, Access::Read),
        (5, Access::Uniform),
        (6, Access::Write),
        (7, Access::Read),
    ];
    bindings.extend_from_slice(weights_bindings(format));
    gpu.kernel(&KernelDescriptor {
        label,
        parts: &[
            shaders::ROWS,
            weights_part(format),
            shaders::DECODER_ROW,
            shaders::DECODER_SUM,
            text,
        ],
        constants: &[],
        bindings: &bindings,
    })
}

impl CoderStep {
    /// Records the encoding of the first `rows` vectors into [`Coder::features`] and
    /// [`Coder::activations`], and their units.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        self.measure(pass, rows);
        for step in &self.encode {
            step.dispatch(pass, rows);
        }
        if let Some((step, groups)) = &self.group_max {
            step.dispatch(pass, [*groups, rows, 1]);
        }
        self.topk.dispatch(pass, [1, rows, 1]);
    }

    /// Records the part of [`CoderStep::encode`] that fills [`Coder::units`].
    pub fn measure(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        if let Some(step) = &self.normalize {
            step.dispatch(pass, [1, rows, 1]);
        }
    }

    /// Records the reconstruction of what was encoded into [`Coder::rebuilt`].
    pub fn rebuild(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        for step in &self.decode {
            step.dispatch(pass, [self.width.div_ceil(4 * 64), rows, 1]);
        }
    }
}
