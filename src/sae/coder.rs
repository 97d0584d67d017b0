//! Encoding and reconstruction on the GPU.

use super::{Dictionary, SaeError};
use crate::gpu::{Access, Gpu, Kernel, KernelDescriptor, Step, shaders};
use crate::matrix::{Format, Operands, Product, ProductShape, ProductSpec, ProductStep, Prologue};

/// Bytes of a `Rows` uniform: a count in 16 bytes, then 256 rows of 16.
const ROWS_BYTES: u64 = 16 + 256 * 16;
/// Rows that [`encode_all`] encodes at a time.
const ENCODE_ROWS: usize = 256;

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
    k: u32,
    first: u32,
    count: u32,
}

/// The kernels that encode vectors by a dictionary and rebuild them, with the buffers between.
pub struct Coder {
    product: Product,
    topk: Kernel,
    decode: Kernel,
    /// `[rows, latents]`
    pre: wgpu::Buffer,
    /// `[rows, k]` of [`Activation`]
    features: wgpu::Buffer,
    /// `[rows, width]`
    rebuilt: wgpu::Buffer,
}

/// A coder bound to the vectors that it encodes.
pub struct CoderStep {
    encode: Vec<ProductStep>,
    topk: Step,
    decode: Vec<Step>,
    width: u32,
}

impl Coder {
    /// Compiles the kernels for passes of at most `rows` rows, and for decode passes of `few_rows`.
    pub async fn new(
        gpu: &Gpu,
        dictionary: &Dictionary,
        rows: usize,
        few_rows: usize,
    ) -> Result<Self, SaeError> {
        let product = Product::new(
            gpu,
            &ProductSpec {
                label: "project_latents",
                kernel: shaders::PROJECT_LATENTS,
                parts: &[],
                prologue: Prologue::Subtract,
                format: Format::F32,
                cols: dictionary.width(),
                bindings: &[(6, Access::Read), (7, Access::Write)],
                few_rows,
            },
        )
        .await?;
        let topk = gpu
            .kernel(&KernelDescriptor {
                label: "topk",
                parts: &[shaders::ROWS, shaders::TOPK],
                constants: &[],
                bindings: &[
                    (0, Access::Read),
                    (1, Access::Write),
                    (3, Access::Uniform),
                    (5, Access::Uniform),
                ],
            })
            .await?;
        let decode = gpu
            .kernel(&KernelDescriptor {
                label: "decode_latents",
                parts: &[shaders::ROWS, shaders::DECODE_LATENTS],
                constants: &[],
                bindings: &[
                    (0, Access::Read),
                    (1, Access::Read),
                    (3, Access::Uniform),
                    (4, Access::Read),
                    (5, Access::Uniform),
                    (6, Access::Write),
                ],
            })
            .await?;
        let floats = |columns: usize| (rows * columns * 4) as u64;
        Ok(Self {
            product,
            topk,
            decode,
            pre: gpu
                .storage("pre-activations", floats(dictionary.latents()))
                .await?,
            features: gpu
                .storage("active features", floats(2 * dictionary.k()))
                .await?,
            rebuilt: gpu
                .storage("reconstructions", floats(dictionary.width()))
                .await?,
        })
    }

    /// Binds the coder to `vectors` `[rows, width]` and a `Rows` uniform, for passes of many rows or of
    /// few.
    pub fn bind(
        &self,
        gpu: &Gpu,
        dictionary: &Dictionary,
        vectors: &wgpu::Buffer,
        rows: &wgpu::Buffer,
        many: bool,
    ) -> CoderStep {
        let latents = dictionary.latents() as u32;
        let k = dictionary.k() as u32;
        let encode = dictionary.parts.iter().map(|part| {
            let shape = ProductShape {
                inner: latents,
                first: part.first as u32,
                ..ProductShape::of(&part.encoder)
            };
            let operands = Operands {
                matrix: &part.encoder,
                shape: &shape,
                x: vectors,
                pre: &dictionary.b_dec,
                rows,
                own: &[(6, &part.bias), (7, &self.pre)],
            };
            self.product.bind(gpu, many, &operands)
        });
        let shape = TopkShape {
            latents,
            k,
            unused: [0; 2],
        };
        let shape = gpu.uniform("topk shape", &shape);
        let topk = self.topk.bind(
            gpu,
            &[(0, &self.pre), (1, &self.features), (3, &shape), (5, rows)],
        );
        let decode = dictionary.parts.iter().map(|part| {
            let shape = DecodeShape {
                hidden4: dictionary.width() as u32 / 4,
                k,
                first: part.first as u32,
                count: part.encoder.rows() as u32,
            };
            let shape = gpu.uniform("decode shape", &shape);
            self.decode.bind(
                gpu,
                &[
                    (0, &self.features),
                    (1, &part.decoder),
                    (3, &shape),
                    (4, &dictionary.b_dec),
                    (5, rows),
                    (6, &self.rebuilt),
                ],
            )
        });
        CoderStep {
            encode: encode.collect(),
            topk,
            decode: decode.collect(),
            width: dictionary.width() as u32,
        }
    }

    /// The last pass's active latents, `[rows, k]` of [`Activation`], largest first.
    pub fn features(&self) -> &wgpu::Buffer {
        &self.features
    }

    /// The last pass's reconstructions, `[rows, width]` f32.
    pub fn rebuilt(&self) -> &wgpu::Buffer {
        &self.rebuilt
    }
}

impl CoderStep {
    /// Records the encoding of the first `rows` vectors into [`Coder::features`].
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        for step in &self.encode {
            step.dispatch(pass, rows);
        }
        self.topk.dispatch(pass, [1, rows, 1]);
    }

    /// Records the reconstruction of what was encoded into [`Coder::rebuilt`].
    pub fn rebuild(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        for step in &self.decode {
            step.dispatch(pass, [self.width.div_ceil(4 * 64), rows, 1]);
        }
    }
}

/// Vectors as a dictionary sees them.
pub struct Encoded {
    /// Activations `[n, latents]`, mostly zero.
    pub acts: Vec<f32>,
    /// Reconstructions `[n, width]`.
    pub recon: Vec<f32>,
}

/// Encodes `x` `[n, width]` and rebuilds it.
pub async fn encode_all(
    gpu: &Gpu,
    dictionary: &Dictionary,
    x: &[f32],
) -> Result<Encoded, SaeError> {
    let (width, latents, k) = (dictionary.width(), dictionary.latents(), dictionary.k());
    if !x.len().is_multiple_of(width) {
        return Err(SaeError::NotWholeRows {
            count: x.len(),
            width,
        });
    }
    let n = x.len() / width;
    let most = n.clamp(1, ENCODE_ROWS);
    let coder = Coder::new(gpu, dictionary, most, 1).await?;
    let vectors = gpu
        .storage("vectors to encode", (most * width * 4) as u64)
        .await?;
    let rows = gpu
        .buffer("rows to encode", ROWS_BYTES, wgpu::BufferUsages::UNIFORM)
        .await?;
    let step = coder.bind(gpu, dictionary, &vectors, &rows, true);
    let mut acts = vec![0.0; n * latents];
    let mut recon = Vec::with_capacity(x.len());
    for (chunk, out) in x.chunks(most * width).zip(acts.chunks_mut(most * latents)) {
        let count = chunk.len() / width;
        gpu.write(&vectors, 0, chunk);
        gpu.write(&rows, 0, &[count as u32, 0, 0, 0]);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        step.encode(&mut pass, count as u32);
        step.rebuild(&mut pass, count as u32);
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
        let slots: Vec<Activation> = gpu.read_vec(coder.features(), 0, count * k).await?;
        for (slots, row) in slots.chunks(k).zip(out.chunks_mut(latents)) {
            for a in live(slots) {
                if let Some(at) = row.get_mut(a.feature as usize) {
                    *at = a.value;
                }
            }
        }
        recon.extend(
            gpu.read_vec::<f32>(coder.rebuilt(), 0, count * width)
                .await?,
        );
    }
    Ok(Encoded { acts, recon })
}
