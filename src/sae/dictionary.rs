//! A dictionary on the GPU, found in a folder and streamed from it.

use super::config::DictionaryConfig;
use super::{HookPoint, SaeError};
use crate::checkpoint::{BLOCK_BYTES, Checkpoint, Folder, MAX_JSON};
use crate::gpu::Gpu;
use crate::matrix::{Format, Matrix};
use crate::quant;

/// Bytes written to the queue before the GPU is given the time to take them.
const UPLOAD_BYTES: u64 = 64 << 20;
/// Blocks looked through for a dictionary when the model's are not known.
const BLOCKS: usize = 128;

/// Which dictionary is wanted; what is `None` is taken from the folder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The hook point.
    pub hook: Option<HookPoint>,
    /// The width of the model's residual stream.
    pub width: Option<usize>,
    /// The model's blocks.
    pub layers: Option<usize>,
}

/// Some consecutive latents, as many as a buffer may hold.
pub(super) struct Part {
    /// The first latent.
    pub first: usize,
    /// `[count, width]`
    pub encoder: Matrix,
    /// `[count]`
    pub bias: wgpu::Buffer,
    /// `[count, width]`, f32
    pub decoder: wgpu::Buffer,
}

/// A TopK dictionary on the GPU.
pub struct Dictionary {
    hook: Option<HookPoint>,
    label: String,
    config: DictionaryConfig,
    pub(super) parts: Vec<Part>,
    /// `[width]`
    pub(super) b_dec: wgpu::Buffer,
}

impl Dictionary {
    /// Finds the dictionary that is `wanted` in `folder` and loads it.
    ///
    /// The folder holds `cfg.json` and `sae.safetensors`, or sub-folders `layers.N` that do. The hook
    /// point is the one wanted, or else the folder's name; a folder of another name is loaded without
    /// one, for encoding alone. Where sub-folders are there for several hook points, one must be wanted.
    /// Over the network, naming the hook point saves asking for each block.
    pub async fn find(gpu: &Gpu, folder: &Folder, wanted: Wanted) -> Result<Self, SaeError> {
        Self::find_in_parts(gpu, folder, wanted, part_bytes(gpu)).await
    }

    /// As [`Dictionary::find`], with at most `bytes` in a buffer.
    pub(super) async fn find_in_parts(
        gpu: &Gpu,
        folder: &Folder,
        wanted: Wanted,
        bytes: u64,
    ) -> Result<Self, SaeError> {
        if let (Some(hook), Some(layers)) = (wanted.hook, wanted.layers) {
            check_block(hook, layers)?;
        }
        let named = name_of(folder.label()).and_then(|name| name.parse::<HookPoint>().ok());
        if let Some(json) = folder.bytes("cfg.json", MAX_JSON).await? {
            if let (Some(found), Some(asked)) = (named, wanted.hook)
                && found != asked
            {
                return Err(SaeError::OtherHook {
                    folder: folder.label().into(),
                    found,
                    asked,
                });
            }
            let hook = wanted.hook.or(named);
            return Self::load(gpu, folder, "", &json, hook, wanted, bytes).await;
        }
        let candidates = match wanted.hook {
            Some(hook) => vec![hook],
            None => (0..wanted.layers.unwrap_or(BLOCKS))
                .map(HookPoint::block)
                .collect(),
        };
        let mut found = Vec::new();
        for hook in candidates {
            if let Some(json) = folder.bytes(&format!("{hook}/cfg.json"), MAX_JSON).await? {
                found.push((hook, json));
            }
        }
        match found.as_slice() {
            [] => Err(SaeError::NotFound {
                folder: folder.label().into(),
                wanted: wanted
                    .hook
                    .map_or("layers.N".into(), |hook| hook.to_string()),
            }),
            [(hook, json)] => {
                let path = format!("{hook}/");
                Self::load(gpu, folder, &path, json, Some(*hook), wanted, bytes).await
            }
            several => Err(SaeError::Several {
                folder: folder.label().into(),
                found: several
                    .iter()
                    .map(|(hook, _)| hook.to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// Loads the dictionary whose files are at `path` in `folder`.
    async fn load(
        gpu: &Gpu,
        folder: &Folder,
        path: &str,
        json: &[u8],
        hook: Option<HookPoint>,
        wanted: Wanted,
        bytes: u64,
    ) -> Result<Self, SaeError> {
        let file = format!("{path}cfg.json");
        let config = DictionaryConfig::from_json(&file, json)?;
        if let Some(model) = wanted.width.filter(|w| *w != config.width) {
            return Err(SaeError::WrongWidth {
                file,
                dictionary: config.width,
                model,
            });
        }
        if let (Some(hook), Some(layers)) = (hook, wanted.layers) {
            check_block(hook, layers)?;
        }
        let checkpoint = Checkpoint::open(folder, &format!("{path}sae")).await?;
        if checkpoint.info("W_skip").is_some() {
            return Err(SaeError::Unsupported {
                file: format!("{path}sae.safetensors"),
                what: "it has a skip connection (the tensor W_skip)".into(),
            });
        }
        let DictionaryConfig { width, latents, .. } = config;
        let b_dec = checkpoint.vector("b_dec", width).await?;
        let bias = checkpoint.vector("encoder.bias", latents).await?;

        // An even number of latents, so that pairs of latents do not straddle parts.
        let row_bytes = (quant::groups(width) * quant::GROUP * 4) as u64;
        let per_part = (bytes / row_bytes / 2 * 2).max(2) as usize;
        let mut parts = Vec::new();
        for first in (0..latents).step_by(per_part) {
            let count = per_part.min(latents - first);
            let part = Part {
                first,
                encoder: Matrix::zeros(gpu, "encoder", [count, width], Format::F32).await?,
                bias: gpu.storage("encoder bias", count as u64 * 4).await?,
                decoder: gpu.storage("decoder", (count * width * 4) as u64).await?,
            };
            gpu.write(&part.bias, 0, &bias[first..first + count]);
            parts.push(part);
        }
        let b_dec_buffer = gpu.storage("decoder bias", width as u64 * 4).await?;
        gpu.write(&b_dec_buffer, 0, &b_dec);

        let mut waiting = 0;
        for tensor in ["encoder.weight", "W_dec"] {
            let mut reader = checkpoint.reader(tensor, &[latents, width], BLOCK_BYTES)?;
            while let Some((mut first, mut rows)) = reader.next().await? {
                waiting += size_of_val(rows) as u64;
                // A block may end one part and begin the next.
                while !rows.is_empty() {
                    let part = &parts[first / per_part];
                    let local = first - part.first;
                    let count = (part.encoder.rows() - local).min(rows.len() / width);
                    let (now, later) = rows.split_at(count * width);
                    if tensor == "W_dec" {
                        gpu.write(&part.decoder, (local * width * 4) as u64, now);
                    } else {
                        part.encoder.write_rows(gpu, local, now);
                    }
                    first += count;
                    rows = later;
                }
                if waiting > UPLOAD_BYTES {
                    gpu.finish().await?;
                    waiting = 0;
                }
            }
        }
        gpu.finish().await?;
        Ok(Self {
            hook,
            label: folder.label().into(),
            config,
            parts,
            b_dec: b_dec_buffer,
        })
    }

    /// The block whose output the dictionary was trained on, if its folder or its user said.
    pub fn hook(&self) -> Option<HookPoint> {
        self.hook
    }

    /// The folder that it came from.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Elements of the vectors that it reads.
    pub fn width(&self) -> usize {
        self.config.width
    }

    /// Latents.
    pub fn latents(&self) -> usize {
        self.config.latents
    }

    /// Active latents of a token at most.
    pub fn k(&self) -> usize {
        self.config.k
    }

    /// Bytes on the GPU.
    pub fn gpu_bytes(&self) -> u64 {
        let parts = self
            .parts
            .iter()
            .map(|p| p.encoder.gpu_bytes() + p.bias.size() + p.decoder.size());
        parts.sum::<u64>() + self.b_dec.size()
    }

    /// Where the decoder row of `latent` is: a buffer, and the byte that it starts at.
    pub fn decoder_row(&self, latent: usize) -> Option<(&wgpu::Buffer, u64)> {
        let part = self
            .parts
            .iter()
            .find(|p| (p.first..p.first + p.encoder.rows()).contains(&latent))?;
        let at = (latent - part.first) * self.config.width * 4;
        Some((&part.decoder, at as u64))
    }
}

/// The most bytes that a buffer bound to a kernel may have.
fn part_bytes(gpu: &Gpu) -> u64 {
    let limits = gpu.device().limits();
    limits
        .max_buffer_size
        .min(limits.max_storage_buffer_binding_size)
}

fn check_block(hook: HookPoint, layers: usize) -> Result<(), SaeError> {
    if hook.layer >= layers {
        return Err(SaeError::NoSuchBlock { hook, layers });
    }
    Ok(())
}

/// The last component of a path or address.
fn name_of(label: &str) -> Option<&str> {
    label
        .split(['?', '#'])
        .next()?
        .trim_end_matches(['/', '\\'])
        .rsplit(['/', '\\'])
        .next()
}
