//! A sparsify dictionary in memory.

use std::path::Path;

use phi3_steer::checkpoint::{BLOCK_BYTES, Checkpoint, CheckpointError, Folder, MAX_JSON};
use serde_json::Value;

use super::Failure;
use super::formats::Sizes;

/// The numbers of a sparsify dictionary.
pub struct Given {
    pub sizes: Sizes,
    /// `[latents, width]`
    pub encoder: Vec<f32>,
    /// `[latents]`
    pub bias: Vec<f32>,
    /// `[latents, width]`
    pub decoder: Vec<f32>,
    /// `[width]`
    pub b_dec: Vec<f32>,
}

impl Given {
    /// Reads the dictionary in `folder`.
    pub async fn read(folder: &Path) -> Result<Self, Failure> {
        let place = folder.display();
        let folder = Folder::directory(folder);
        let json = folder.require_bytes("cfg.json", MAX_JSON).await?;
        let config: Value = serde_json::from_slice(&json)?;
        let file = Checkpoint::open(&folder, "sae").await?;
        let shape = file.info("W_dec").map(|info| info.shape.clone());
        let (Some([latents, width]), Some(k)) = (shape.as_deref(), config["k"].as_u64()) else {
            return Err(format!("{place} holds no sparsify dictionary (k and W_dec)").into());
        };
        let (latents, width) = (*latents, *width);
        let matrix = async |name| {
            let mut all = Vec::with_capacity(latents * width);
            let mut take = |_, rows: &[f32]| {
                all.extend_from_slice(rows);
                Ok::<_, CheckpointError>(())
            };
            file.rows(name, &[latents, width], BLOCK_BYTES, &mut take)
                .await?;
            Ok::<_, CheckpointError>(all)
        };
        Ok(Self {
            sizes: Sizes {
                width,
                latents,
                k: k as usize,
            },
            encoder: matrix("encoder.weight").await?,
            bias: file.vector("encoder.bias", latents).await?,
            decoder: matrix("W_dec").await?,
            b_dec: file.vector("b_dec", width).await?,
        })
    }

    /// The encoder's bias for formats that do not subtract b_dec from the input: bias - encoder b_dec.
    pub fn folded_bias(&self) -> Vec<f32> {
        let rows = self.encoder.chunks(self.sizes.width).zip(&self.bias);
        rows.map(|(row, bias)| {
            let products = row.iter().zip(&self.b_dec);
            let sum: f64 = products.map(|(w, b)| f64::from(*w) * f64::from(*b)).sum();
            (f64::from(*bias) - sum) as f32
        })
        .collect()
    }
}
