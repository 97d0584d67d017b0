//! Encoding of vectors from the host.

use super::coder::{Activation, Coder, CoderStep, live};
use super::{Dictionary, SaeError};
use crate::gpu::{Buffer, Gpu};

/// Bytes of a `Rows` uniform: a count in 16 bytes, then 256 rows of 16.
const ROWS_BYTES: u64 = 16 + 256 * 16;
/// Vectors that are encoded at a time, at most.
const MOST_ROWS: usize = 256;
/// Bytes of activations that are read back at a time, at most.
const ACTIVATION_BYTES: usize = 16 << 20;

/// Vectors as a dictionary sees them.
pub struct Encoded {
    /// Activations `[n, latents]`, mostly zero.
    pub acts: Vec<f32>,
    /// Reconstructions `[n, width]`.
    pub recon: Vec<f32>,
}

/// Encodes vectors from the host, some at a time.
pub struct Encoder<'a> {
    gpu: &'a Gpu,
    dictionary: &'a Dictionary,
    coder: Coder,
    step: CoderStep,
    vectors: Buffer,
    rows: Buffer,
    most: usize,
}

impl<'a> Encoder<'a> {
    /// An encoder by `dictionary`, which must be whole, of at most `most` vectors at a time.
    pub async fn new(
        gpu: &'a Gpu,
        dictionary: &'a Dictionary,
        most: usize,
    ) -> Result<Self, SaeError> {
        if !dictionary.is_whole() {
            return Err(SaeError::NotWhole {
                folder: dictionary.label().into(),
            });
        }
        let fits = ACTIVATION_BYTES / (4 * dictionary.latents());
        let most = most.min(fits).clamp(1, MOST_ROWS);
        let coder = Coder::new(gpu, dictionary, most, 1)?;
        let bytes = (most * dictionary.width() * 4) as u64;
        let vectors = gpu.storage("vectors to encode", bytes)?;
        let uniform = wgpu::BufferUsages::UNIFORM;
        let rows = gpu.buffer("rows to encode", ROWS_BYTES, uniform)?;
        let step = coder.bind(gpu, dictionary, &vectors, &rows, true);
        gpu.settle().await?;
        Ok(Self {
            gpu,
            dictionary,
            coder,
            step,
            vectors,
            rows,
            most,
        })
    }

    /// The dictionary.
    pub fn dictionary(&self) -> &Dictionary {
        self.dictionary
    }

    /// Vectors that are encoded at a time.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Encodes and rebuilds up to [`Encoder::most`] vectors, `[n, width]`.
    pub async fn run(&self, x: &[f32]) -> Result<Encoded, SaeError> {
        let (width, latents, k) = (
            self.dictionary.width(),
            self.dictionary.latents(),
            self.dictionary.k(),
        );
        let count = x.len() / width;
        if !x.len().is_multiple_of(width) || count > self.most {
            return Err(SaeError::NotWholeRows {
                count: x.len(),
                width,
            });
        }
        let gpu = self.gpu;
        gpu.write(&self.vectors, 0, x);
        gpu.write(&self.rows, 0, &[count as u32, 0, 0, 0]);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.step.encode(&mut pass, count as u32);
        self.step.rebuild(&mut pass, count as u32);
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
        let acts = if self.dictionary.rule().is_local() {
            gpu.read_vec(self.coder.activations(), 0, count * latents)
                .await?
        } else {
            let slots: Vec<Activation> = gpu.read_vec(self.coder.features(), 0, count * k).await?;
            let mut acts = vec![0.0; count * latents];
            for (slots, row) in slots.chunks(k).zip(acts.chunks_mut(latents)) {
                for a in live(slots) {
                    if let Some(at) = row.get_mut(a.feature as usize) {
                        *at = a.value;
                    }
                }
            }
            acts
        };
        let recon = gpu.read_vec(self.coder.rebuilt(), 0, count * width).await?;
        Ok(Encoded { acts, recon })
    }
}

/// Encodes `x` `[n, width]` and rebuilds it.
pub async fn encode_all(
    gpu: &Gpu,
    dictionary: &Dictionary,
    x: &[f32],
) -> Result<Encoded, SaeError> {
    let width = dictionary.width();
    if !x.len().is_multiple_of(width) {
        return Err(SaeError::NotWholeRows {
            count: x.len(),
            width,
        });
    }
    let n = x.len() / width;
    let encoder = Encoder::new(gpu, dictionary, n.max(1)).await?;
    let mut all = Encoded {
        acts: Vec::with_capacity(n * dictionary.latents()),
        recon: Vec::with_capacity(x.len()),
    };
    for chunk in x.chunks(encoder.most() * width) {
        let some = encoder.run(chunk).await?;
        all.acts.extend(some.acts);
        all.recon.extend(some.recon);
    }
    Ok(all)
}
