//! The TopK dictionary: encoding, decoding, edits of the residual, and its files in the layout of
//! EleutherAI's sparsify.

use std::fs;
use std::path::Path;

use safetensors::tensor::SafeTensors;
use serde_json::json;

use crate::Result;
use crate::export::{Entry, floats, write_json, write_safetensors};
use crate::linalg::{Mat, axpy, dot, product};

/// `f = topk(relu(W_enc (x - b_dec) + b_enc))`, `x ~ f W_dec + b_dec`.
#[derive(Clone)]
pub struct Sae {
    pub hidden: usize,
    pub features: usize,
    pub k: usize,
    /// `[features, hidden]`
    pub encoder: Vec<f32>,
    /// `[features]`
    pub bias: Vec<f32>,
    /// `[features, hidden]`
    pub decoder: Vec<f32>,
    /// `[hidden]`
    pub b_dec: Vec<f32>,
}

/// The active features of some rows, at most `k` each.
pub struct Codes {
    k: usize,
    /// `[rows, k]`, unused places with the activation 0.
    entries: Vec<(u32, f32)>,
}

impl Codes {
    /// The active features of row `i` with their activations.
    pub fn row(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.entries[i * self.k..][..self.k]
            .iter()
            .filter(|(_, v)| *v > 0.0)
            .map(|(j, v)| (*j as usize, *v))
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.entries.len() / self.k
    }

    /// Feature `j`'s activation at row `i`.
    pub fn activation(&self, i: usize, j: usize) -> f32 {
        self.row(i)
            .find_map(|(f, v)| (f == j).then_some(v))
            .unwrap_or(0.0)
    }
}

/// The `k` largest positive values of each row of `pre` (`[rows, features]`), ties to the lower
/// index.
pub fn topk(pre: &[f32], features: usize, k: usize) -> Codes {
    let mut entries = Vec::with_capacity(pre.len() / features * k);
    let mut row_entries: Vec<(u32, f32)> = Vec::new();
    for row in pre.chunks_exact(features) {
        row_entries.clear();
        row_entries.extend(
            row.iter()
                .enumerate()
                .filter(|(_, v)| **v > 0.0)
                .map(|(j, v)| (j as u32, *v)),
        );
        if row_entries.len() > k {
            row_entries
                .select_nth_unstable_by(k - 1, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        }
        row_entries.resize(k, (0, 0.0));
        entries.extend_from_slice(&row_entries);
    }
    Codes { k, entries }
}

impl Sae {
    /// The activations before TopK of `x` (`[rows, hidden]`), `[rows, features]`.
    pub fn preactivations(&self, x: &[f32]) -> Vec<f32> {
        let (d, f) = (self.hidden, self.features);
        let mut pre = product(
            Mat::new(x, x.len() / d, d),
            Mat::new(&self.encoder, f, d).t(),
        );
        let offset: Vec<f32> = self
            .encoder
            .chunks_exact(d)
            .zip(&self.bias)
            .map(|(row, b)| b - dot(row, &self.b_dec))
            .collect();
        for row in pre.chunks_exact_mut(f) {
            axpy(row, 1.0, &offset);
        }
        pre
    }

    /// The codes of `x` (`[rows, hidden]`).
    pub fn encode(&self, x: &[f32]) -> Codes {
        topk(&self.preactivations(x), self.features, self.k)
    }

    /// Feature `j`'s decoder row, `[hidden]`.
    pub fn direction(&self, j: usize) -> &[f32] {
        &self.decoder[j * self.hidden..][..self.hidden]
    }

    /// The reconstruction from `codes`, `[rows, hidden]`.
    pub fn decode(&self, codes: &Codes) -> Vec<f32> {
        let mut out = Vec::with_capacity(codes.rows() * self.hidden);
        for i in 0..codes.rows() {
            let from = out.len();
            out.extend_from_slice(&self.b_dec);
            for (j, v) in codes.row(i) {
                axpy(&mut out[from..], v, self.direction(j));
            }
        }
        out
    }

    /// Multiplies the units of the residual by `scale`, activations unchanged: a dictionary of
    /// normalised inputs becomes one of the model's own.
    pub fn fold(&mut self, scale: f32) {
        self.encoder.iter_mut().for_each(|w| *w /= scale);
        self.decoder.iter_mut().for_each(|w| *w *= scale);
        self.b_dec.iter_mut().for_each(|w| *w *= scale);
    }

    /// Writes `cfg.json` and `sae.safetensors` into `folder`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (d, f) = (self.hidden, self.features);
        fs::create_dir_all(folder)?;
        write_json(
            &folder.join("cfg.json"),
            &json!({
                "activation": "topk",
                "expansion_factor": f / d,
                "normalize_decoder": true,
                "num_latents": f,
                "k": self.k,
                "multi_topk": false,
                "skip_connection": false,
                "transcode": false,
                "d_in": d,
            }),
        )?;
        write_safetensors(
            &folder.join("sae.safetensors"),
            vec![
                Entry::f32("W_dec", &[f, d], &self.decoder),
                Entry::f32("b_dec", &[d], &self.b_dec),
                Entry::f32("encoder.bias", &[f], &self.bias),
                Entry::f32("encoder.weight", &[f, d], &self.encoder),
            ],
            None,
        )
    }

    /// Reads what [`Sae::write`] wrote.
    pub fn read(folder: &Path) -> Result<Self> {
        let cfg: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("cfg.json"))?)?;
        let file = fs::read(folder.join("sae.safetensors"))?;
        let tensors = SafeTensors::deserialize(&file)?;
        let k = cfg["k"].as_u64().ok_or("cfg.json has no k")? as usize;
        let sae = Self {
            hidden: tensors.tensor("b_dec")?.shape().iter().product(),
            features: tensors.tensor("encoder.bias")?.shape().iter().product(),
            k,
            encoder: floats(&tensors, "encoder.weight")?,
            bias: floats(&tensors, "encoder.bias")?,
            decoder: floats(&tensors, "W_dec")?,
            b_dec: floats(&tensors, "b_dec")?,
        };
        Ok(sae)
    }
}

/// A change of the residual at the output of a block.
pub enum Edit<'a> {
    /// The feature at a constant, the reconstruction error kept: `x + (value - f) d`.
    Clamp {
        sae: &'a Sae,
        feature: usize,
        value: f32,
    },
    /// The feature at a constant, the error dropped: `decode(f with value)`.
    ClampReplace {
        sae: &'a Sae,
        feature: usize,
        value: f32,
    },
    /// The reconstruction: `decode(f)`.
    Reconstruct { sae: &'a Sae },
    /// A constant offset, `[hidden]`.
    Add { offset: Vec<f32> },
}

impl Edit<'_> {
    /// Edits `x` (`[rows, hidden]`), whose codes may be at hand.
    pub fn apply(&self, x: &mut [f32], codes: Option<&Codes>) {
        let fresh;
        let (sae, target) = match *self {
            Edit::Add { ref offset } => {
                x.chunks_exact_mut(offset.len())
                    .for_each(|row| axpy(row, 1.0, offset));
                return;
            }
            Edit::Clamp {
                sae,
                feature,
                value,
            }
            | Edit::ClampReplace {
                sae,
                feature,
                value,
            } => (sae, Some((feature, value))),
            Edit::Reconstruct { sae } => (sae, None),
        };
        let codes = match codes {
            Some(codes) => codes,
            None => {
                fresh = sae.encode(x);
                &fresh
            }
        };
        if !matches!(self, Edit::Clamp { .. }) {
            x.copy_from_slice(&sae.decode(codes));
        }
        if let Some((feature, value)) = target {
            for (i, row) in x.chunks_exact_mut(sae.hidden).enumerate() {
                let change = value - codes.activation(i, feature);
                axpy(row, change, sae.direction(feature));
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::model::normal;

    /// A dictionary of random numbers.
    pub fn random(seed: u64, hidden: usize, features: usize, k: usize) -> Sae {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| normal(&mut rng)).collect() };
        Sae {
            hidden,
            features,
            k,
            encoder: draw(features * hidden),
            bias: draw(features),
            decoder: draw(features * hidden),
            b_dec: draw(hidden),
        }
    }

    /// One row's activations in `f64`, written from the definition, `[features]`.
    fn reference(sae: &Sae, x: &[f32]) -> Vec<f64> {
        let mut pre: Vec<f64> = (0..sae.features)
            .map(|j| {
                let row = &sae.encoder[j * sae.hidden..][..sae.hidden];
                let sum: f64 = (0..sae.hidden)
                    .map(|i| row[i] as f64 * (x[i] as f64 - sae.b_dec[i] as f64))
                    .sum();
                (sum + sae.bias[j] as f64).max(0.0)
            })
            .collect();
        let mut sorted = pre.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let least = sorted[sae.k - 1];
        pre.iter_mut()
            .filter(|v| **v < least)
            .for_each(|v| *v = 0.0);
        pre
    }

    fn decoded(sae: &Sae, acts: &[f64]) -> Vec<f64> {
        (0..sae.hidden)
            .map(|i| {
                let sum: f64 = (0..sae.features)
                    .map(|j| acts[j] * sae.decoder[j * sae.hidden + i] as f64)
                    .sum();
                sum + sae.b_dec[i] as f64
            })
            .collect()
    }

    #[test]
    fn codes_and_edits_follow_their_definitions() {
        let seed = rand::rng().random();
        println!("seed {seed}");
        let mut sae = random(seed, 13, 57, 5);
        sae.fold(1.7);
        let mut rng = StdRng::seed_from_u64(seed ^ 1);
        let x: Vec<f32> = (0..7 * sae.hidden)
            .map(|_| 3.0 * normal(&mut rng))
            .collect();
        let codes = sae.encode(&x);
        let (feature, value) = (rng.random_range(0..57), 4.5f32);
        let offset: Vec<f32> = (0..sae.hidden).map(|_| normal(&mut rng)).collect();
        let edits = [
            Edit::Clamp {
                sae: &sae,
                feature,
                value,
            },
            Edit::ClampReplace {
                sae: &sae,
                feature,
                value,
            },
            Edit::Reconstruct { sae: &sae },
            Edit::Add {
                offset: offset.clone(),
            },
        ];
        for (i, row) in x.chunks_exact(sae.hidden).enumerate() {
            let acts = reference(&sae, row);
            for (j, want) in acts.iter().enumerate() {
                let got = codes.activation(i, j) as f64;
                assert!(
                    (got - want).abs() < 1e-4,
                    "row {i} feature {j}: {got}, not {want}"
                );
            }
            let mut clamped = acts.clone();
            clamped[feature] = value as f64;
            let (plain, replaced) = (decoded(&sae, &acts), decoded(&sae, &clamped));
            for (n, edit) in edits.iter().enumerate() {
                for codes in [None, Some(&codes)] {
                    let mut got = x.clone();
                    edit.apply(&mut got, codes);
                    for c in 0..sae.hidden {
                        let want = match n {
                            0 => row[c] as f64 + replaced[c] - plain[c],
                            1 => replaced[c],
                            2 => plain[c],
                            _ => row[c] as f64 + offset[c] as f64,
                        };
                        let got = got[i * sae.hidden + c] as f64;
                        assert!(
                            (got - want).abs() < 1e-3,
                            "edit {n} row {i}: {got}, not {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn files_are_read_back() {
        let sae = random(3, 6, 12, 4);
        let folder = std::env::temp_dir().join(format!("nano-sae-{}", std::process::id()));
        sae.write(&folder).unwrap();
        let read = Sae::read(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((read.hidden, read.features, read.k), (6, 12, 4));
        assert_eq!(read.encoder, sae.encoder);
        assert_eq!(read.bias, sae.bias);
        assert_eq!(read.decoder, sae.decoder);
        assert_eq!(read.b_dec, sae.b_dec);
    }
}
