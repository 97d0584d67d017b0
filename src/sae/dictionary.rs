//! A dictionary on the GPU.

use super::examples::{self, Examples, Extent};
use super::find::{Located, Wanted, find};
use super::formats::Described;
use super::rule::{Activations, Normalization, Rule};
use super::upload::{Target, Upload};
use super::{HookPoint, MAX_K, SaeError};
use crate::checkpoint::Folder;
use crate::gpu::{Buffer, Gpu};
use crate::matrix::{Format, Matrix, rows_that_fit};
use crate::quant::{self, Planes};

/// Some consecutive latents, as many as a buffer may hold.
pub(super) struct Part {
    /// The first latent.
    pub first: usize,
    /// `[count, width]`
    pub encoder: Matrix,
    /// `[count]` of [`super::rule::Latent`]
    pub params: Buffer,
    /// `[count, width]`
    pub decoder: Matrix,
}

/// A dictionary on the GPU: all of it, or the latents that were asked for.
pub struct Dictionary {
    hook: Option<HookPoint>,
    /// The folder and the file in it that may hold published examples of the latents.
    examples: Option<(Folder, String)>,
    label: String,
    kind: &'static str,
    width: usize,
    latents: usize,
    rule: Rule,
    format: Format,
    /// The latents that are loaded, ascending, if not all are.
    chosen: Option<Vec<u32>>,
    encodes: bool,
    pub(super) parts: Vec<Part>,
    /// What is subtracted from the input, `[width]`.
    pub(super) input_bias: Buffer,
    /// What a reconstruction begins with, `[width]`.
    pub(super) output_bias: Buffer,
}

impl Dictionary {
    /// Finds the dictionary that is `wanted` in `folder` and loads it, whatever its format.
    ///
    /// The folder holds the files of one dictionary, or sub-folders `layers.N` that do. The hook point is
    /// what the files say, or else the folder's name, or else the one wanted; without any the dictionary
    /// can encode but not steer. Where sub-folders are there for several hook points, one must be wanted.
    /// Over the network, naming the hook point saves asking for each block.
    pub async fn find(gpu: &Gpu, folder: &Folder, wanted: Wanted) -> Result<Self, SaeError> {
        Self::find_in_parts(gpu, folder, wanted, gpu.storage_limit()).await
    }

    /// As [`Dictionary::find`], with at most `bytes` in a buffer.
    pub(super) async fn find_in_parts(
        gpu: &Gpu,
        folder: &Folder,
        wanted: Wanted,
        bytes: u64,
    ) -> Result<Self, SaeError> {
        let located = find(folder, &wanted).await?;
        let described = &located.described;
        let format = wanted
            .format
            .unwrap_or_else(|| default_format(described.width, described.latents));
        let mut dictionary = Self::empty(gpu, folder, &located, format, None, bytes)?;
        dictionary.fill(gpu, described).await?;
        Ok(dictionary)
    }

    /// Finds the dictionary that is `wanted` in `folder` and loads the rows of `latents` alone: enough to
    /// steer with them. Only those rows are read, where the file has them in one piece; of an encoder that
    /// is stored by columns, local files are read in many small pieces, and others not at all.
    ///
    /// What needs activations works where a latent's own row decides (ReLU, JumpReLU, gated) and is
    /// refused for TopK, whose cut depends on all latents, and where the encoder could not be read:
    /// see [`Dictionary::encodes`].
    pub async fn find_latents(
        gpu: &Gpu,
        folder: &Folder,
        wanted: Wanted,
        latents: &[u32],
    ) -> Result<Self, SaeError> {
        let located = find(folder, &wanted).await?;
        let described = &located.described;
        let mut chosen = latents.to_vec();
        chosen.sort_unstable();
        chosen.dedup();
        if let Some(&latent) = chosen.iter().find(|l| **l as usize >= described.latents) {
            return Err(SaeError::NoSuchLatent {
                latent,
                latents: described.latents,
            });
        }
        if chosen.is_empty() {
            return Err(SaeError::NoLatents);
        }
        let format = wanted.format.unwrap_or(Format::F32);
        let bytes = gpu.storage_limit();
        let mut dictionary = Self::empty(gpu, folder, &located, format, Some(chosen), bytes)?;
        dictionary.fill_chosen(gpu, described).await?;
        Ok(dictionary)
    }

    /// A dictionary whose matrices are zeros.
    fn empty(
        gpu: &Gpu,
        folder: &Folder,
        located: &Located,
        format: Format,
        chosen: Option<Vec<u32>>,
        bytes: u64,
    ) -> Result<Self, SaeError> {
        let described = &located.described;
        let width = described.width;
        let count = chosen.as_ref().map_or(described.latents, Vec::len);
        let per_part = rows_that_fit(format, width, bytes);
        let mut parts = Vec::new();
        for first in (0..count).step_by(per_part) {
            let shape = [per_part.min(count - first), width];
            parts.push(Part {
                first,
                encoder: Matrix::zeros(gpu, "encoder", shape, format)?,
                params: gpu.storage("latents", shape[0] as u64 * 16)?,
                decoder: Matrix::zeros(gpu, "decoder", shape, format)?,
            });
        }
        let rule = described.rule;
        let vector = |what, scale: f32| {
            let values: Vec<f32> = described.b_dec.iter().map(|b| b * scale).collect();
            let buffer = gpu.storage(what, width as u64 * 4)?;
            gpu.write(&buffer, 0, &values);
            Ok::<_, SaeError>(buffer)
        };
        // What is read later is no part of loading it.
        let beside = |name: &String| (folder.clone().on_progress(|_| {}), name.clone());
        Ok(Self {
            hook: located.hook,
            examples: located.examples.as_ref().map(beside),
            label: folder.label().into(),
            kind: described.format,
            width,
            latents: described.latents,
            rule,
            format,
            encodes: chosen.is_none(),
            chosen,
            parts,
            input_bias: vector("input bias", 1.0 / rule.input_scale)?,
            output_bias: vector("output bias", rule.output_scale)?,
        })
    }

    /// Loads all latents.
    async fn fill(&mut self, gpu: &Gpu, described: &Described) -> Result<(), SaeError> {
        let mut up = Upload::new(gpu, self.format)?;
        let mut gains = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let count = part.encoder.rows();
            let buffer = gpu.storage("gains", count as u64 * 4)?;
            gpu.write(&buffer, 0, &vec![1.0f32; count]);
            gains.push(buffer);
        }
        let targets = |decoder: bool| {
            let mut targets = Vec::with_capacity(gains.len());
            for (part, gains) in self.parts.iter().zip(&gains) {
                targets.push(Target {
                    first: part.first,
                    matrix: if decoder {
                        &part.decoder
                    } else {
                        &part.encoder
                    },
                    gains,
                });
            }
            targets
        };
        up.matrix(
            described,
            &described.encoder,
            &targets(false),
            self.rule.input_scale,
            None,
        )
        .await?;
        if let Some(all) = &described.gains {
            for (part, gains) in self.parts.iter().zip(&gains) {
                gpu.write(gains, 0, &all[part.first..part.first + part.encoder.rows()]);
            }
        }
        let mut norms = described.unit_decoder.then(|| vec![0.0; described.latents]);
        up.matrix(
            described,
            &described.decoder,
            &targets(true),
            self.rule.output_scale,
            norms.as_deref_mut(),
        )
        .await?;
        let mut params = described.params.clone();
        for (latent, norm) in params.iter_mut().zip(norms.iter().flatten()) {
            latent[2] = *norm;
        }
        for part in &self.parts {
            let own = &params[part.first..part.first + part.encoder.rows()];
            gpu.write(&part.params, 0, own);
        }
        Ok(())
    }

    /// Loads the chosen latents.
    async fn fill_chosen(&mut self, gpu: &Gpu, described: &Described) -> Result<(), SaeError> {
        let (width, latents) = (described.width, described.latents);
        let mut up = Upload::new(gpu, self.format)?;
        let ones = gpu.storage("gains", self.loaded() as u64 * 4)?;
        gpu.write(&ones, 0, &vec![1.0f32; self.loaded()]);
        let chosen = self.chosen.clone().unwrap_or_default();
        let mut encodes = self.rule.is_local();
        for part in &self.parts {
            let own = &chosen[part.first..part.first + part.encoder.rows()];
            for (row, &latent) in own.iter().enumerate() {
                let latent = latent as usize;
                let decoder = Target {
                    first: part.first,
                    matrix: &part.decoder,
                    gains: &ones,
                };
                let weights = &described.decoder;
                let shape = weights.shape(width, latents);
                let values = described
                    .tensors
                    .one(weights.name, shape, weights.transposed, latent)
                    .await?
                    .ok_or_else(|| SaeError::Scattered {
                        folder: self.label.clone(),
                        tensor: weights.name.into(),
                    })?;
                let mut scale = self.rule.output_scale;
                if let Some(gains) = &described.gains {
                    scale *= gains[latent];
                }
                let mut params = described.params[latent];
                if described.unit_decoder {
                    let norm = super::upload::norm_of(&values);
                    params[2] = norm;
                    scale *= if norm > 0.0 { 1.0 / norm } else { 0.0 };
                }
                up.row(&values, &decoder, row, scale).await?;
                gpu.write(&part.params, row as u64 * 16, &[params]);
                if !encodes {
                    continue;
                }
                let encoder = Target {
                    matrix: &part.encoder,
                    ..decoder
                };
                let weights = &described.encoder;
                let shape = weights.shape(width, latents);
                let values = described
                    .tensors
                    .one(weights.name, shape, weights.transposed, latent)
                    .await?;
                match values {
                    Some(values) => {
                        up.row(&values, &encoder, row, self.rule.input_scale)
                            .await?
                    }
                    None => encodes = false,
                }
            }
        }
        self.encodes = encodes;
        Ok(())
    }

    /// The block whose output the dictionary was trained on, if its files, its folder or its user said.
    pub fn hook(&self) -> Option<HookPoint> {
        self.hook
    }

    /// The folder that it came from.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What was published of a latent beside the dictionary (Gemma Scope 2); `None` where nothing was.
    ///
    /// # Errors
    ///
    /// For a latent that is not there, for a file that cannot be read, and for one that is of another dictionary.
    pub async fn examples(
        &self,
        latent: u32,
        extent: Extent,
    ) -> Result<Option<Examples>, SaeError> {
        let latents = self.latents;
        let at = latent as usize;
        if at >= latents {
            return Err(SaeError::NoSuchLatent { latent, latents });
        }
        match &self.examples {
            Some((folder, name)) => examples::read(folder, name, latents, at, extent).await,
            None => Ok(None),
        }
    }

    /// Its files' format, for people.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What it computes.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// How its matrices are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Elements of the vectors that it reads.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Latents, loaded or not.
    pub fn latents(&self) -> usize {
        self.latents
    }

    /// Latents that are listed for a token at most: TopK's or GroupMax's k, else at most [`MAX_K`].
    pub fn k(&self) -> usize {
        match self.rule.activations {
            Activations::TopK { k } | Activations::GroupMax { k } if self.chosen.is_none() => k,
            _ => MAX_K.min(self.loaded()),
        }
    }

    /// Whether activations can be computed; always, unless only some latents are loaded.
    pub fn encodes(&self) -> bool {
        self.encodes
    }

    /// Whether all latents are loaded, so that reconstructions can be computed.
    pub fn is_whole(&self) -> bool {
        self.chosen.is_none()
    }

    /// The latents that are on the GPU, ascending, if not all are.
    pub fn chosen(&self) -> Option<&[u32]> {
        self.chosen.as_deref()
    }

    /// Latents that are on the GPU.
    pub(crate) fn loaded(&self) -> usize {
        self.parts.iter().map(|p| p.encoder.rows()).sum()
    }

    /// The row of a latent in the matrices on the GPU; none if it is not there.
    pub fn row_of(&self, latent: u32) -> Option<u32> {
        match &self.chosen {
            None => ((latent as usize) < self.latents).then_some(latent),
            Some(chosen) => chosen.binary_search(&latent).ok().map(|row| row as u32),
        }
    }

    /// Whether vectors are normalised before they are encoded.
    pub(super) fn normalizes(&self) -> bool {
        self.rule.normalization != Normalization::None
    }

    /// Bytes on the GPU.
    pub fn gpu_bytes(&self) -> u64 {
        let parts = self
            .parts
            .iter()
            .map(|p| p.encoder.gpu_bytes() + p.params.size() + p.decoder.gpu_bytes());
        parts.sum::<u64>() + self.input_bias.size() + self.output_bias.size()
    }

    /// The decoder that holds a row of the matrices, and the row's place in it.
    pub(crate) fn decoder_of(&self, row: u32) -> Option<(&Matrix, u32)> {
        let row = row as usize;
        let part = self
            .parts
            .iter()
            .find(|p| (p.first..p.first + p.decoder.rows()).contains(&row))?;
        Some((&part.decoder, (row - part.first) as u32))
    }
}

impl Dictionary {
    /// A latent's decoder row as it is stored, `[width]`.
    pub async fn decoder_row(&self, gpu: &Gpu, latent: u32) -> Result<Vec<f32>, SaeError> {
        let found = self
            .row_of(latent)
            .filter(|row| self.decoder_of(*row).is_some());
        let Some(row) = found else {
            return Err(SaeError::NoSuchLatent {
                latent,
                latents: self.latents,
            });
        };
        self.decoder_rows(gpu, row, 1).await
    }

    /// The decoder rows as they are stored, of the loaded latents from the row `first` on, as many of
    /// `count` as one buffer holds, `[n, width]`; empty past the end.
    pub async fn decoder_rows(
        &self,
        gpu: &Gpu,
        first: u32,
        count: usize,
    ) -> Result<Vec<f32>, SaeError> {
        let Some((decoder, row)) = self.decoder_of(first) else {
            return Ok(Vec::new());
        };
        let count = count.min(decoder.rows() - row as usize);
        let mut planes = Planes {
            format: self.format,
            words: Vec::new(),
            side: Vec::new(),
        };
        for (binding, buffer) in decoder.buffers() {
            let (plane, each) = match binding {
                1 => (&mut planes.words, self.format.row_words(self.width)),
                _ => (&mut planes.side, self.format.row_side(self.width)),
            };
            *plane = gpu
                .read_vec(buffer, row as usize * each, count * each)
                .await?;
        }
        Ok(quant::dequantize(&planes, self.width))
    }
}

/// Bytes of both matrices in f32 up to which they are stored so.
const F32_BYTES: usize = 64 << 20;

/// How a dictionary's matrices are stored where nothing else is asked for: in f32 up to 64 MiB, else in 8
/// bits, a quarter of the memory and of what an encoding reads.
///
/// On the nano model's dictionary 8 bits move activations by at most 0.25 % of the largest, as ReLU; under
/// TopK one in fifty of the active latents is another, near the cut. The variance unexplained stays within
/// 0.001 (0.2618 in f32, 0.2616 in 8 bits).
pub fn default_format(width: usize, latents: usize) -> Format {
    match 2 * 4 * width * latents <= F32_BYTES {
        true => Format::F32,
        false => Format::Q8,
    }
}
