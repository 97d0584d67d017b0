//! A dictionary's numbers on the host.

use super::TrainError;
use crate::random::Random;

/// A dictionary's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// Elements of the vectors.
    pub width: usize,
    /// Latents.
    pub latents: usize,
    /// `[latents, width]`
    pub encoder: Vec<f32>,
    /// `[latents]`
    pub bias: Vec<f32>,
    /// `[latents, width]`, rows of norm 1 while it is trained
    pub decoder: Vec<f32>,
    /// `[width]`
    pub b_dec: Vec<f32>,
}

/// What the vectors are divided by while a dictionary is trained, and what its errors are compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// The mean norm over the root of the width.
    pub unit: f32,
    /// The mean squared distance from the mean vector, in squared units.
    pub variance: f32,
    /// The mean vector, in units, `[width]`.
    pub mean: Vec<f32>,
}

impl Scale {
    /// Measures `rows` `[n, width]`.
    pub fn of(rows: &[f32], width: usize) -> Result<Self, TrainError> {
        let n = (rows.len() / width).max(1) as f64;
        let mut mean = vec![0.0f64; width];
        let mut norms = 0.0;
        for row in rows.chunks_exact(width) {
            let mut squares = 0.0;
            for (sum, v) in mean.iter_mut().zip(row) {
                *sum += f64::from(*v) / n;
                squares += f64::from(*v).powi(2);
            }
            norms += squares.sqrt();
        }
        let unit = norms / n / (width as f64).sqrt();
        let distances = rows.chunks_exact(width).flat_map(|row| {
            let pairs = row.iter().zip(&mean);
            pairs.map(|(v, m)| (f64::from(*v) - m).powi(2))
        });
        let variance = distances.sum::<f64>() / n / (unit * unit);
        let usable = |v: f64| v.is_finite() && v > 0.0;
        if !usable(unit) || !usable(variance) {
            return Err(TrainError::Setting {
                name: "the vectors' variance",
                value: variance.to_string(),
                rule: "vectors that differ and are finite can be trained on: choose another block or text"
                    .into(),
            });
        }
        Ok(Self {
            unit: unit as f32,
            variance: variance as f32,
            mean: mean.iter().map(|m| (m / unit) as f32).collect(),
        })
    }
}

impl Weights {
    /// A dictionary to begin with, for inputs in units of `scale`: decoder rows in random directions, the
    /// encoder the same, `b_dec` the mean.
    pub fn fresh(latents: usize, scale: &Scale, seed: u64) -> Self {
        let width = scale.mean.len();
        let mut random = Random::new(seed);
        let rows = (0..latents).flat_map(|_| random.direction(width, 1.0));
        let decoder: Vec<f32> = rows.collect();
        Self {
            width,
            latents,
            encoder: decoder.clone(),
            bias: vec![0.0; latents],
            decoder,
            b_dec: scale.mean.clone(),
        }
    }

    /// The dictionary of the vectors as they are, of one that was trained in units of `unit`: activations
    /// grow by it, decoder rows keep their norm.
    pub fn in_residual_units(mut self, unit: f32) -> Self {
        self.bias.iter_mut().for_each(|v| *v *= unit);
        self.b_dec.iter_mut().for_each(|v| *v *= unit);
        self
    }

    /// The same with activations as they were in training: of a like size in every model. Decoder rows have
    /// the norm `unit`.
    pub fn in_relative_units(mut self, unit: f32) -> Self {
        self.encoder.iter_mut().for_each(|v| *v /= unit);
        self.decoder.iter_mut().for_each(|v| *v *= unit);
        self.b_dec.iter_mut().for_each(|v| *v *= unit);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_rebuilds_the_same_in_all_units() {
        let rows: Vec<f32> = (0..60)
            .map(|i| ((i * 37) % 19) as f32 * 5.0 - 30.0)
            .collect();
        let scale = Scale::of(&rows, 6).unwrap();
        let mut trained = Weights::fresh(4, &scale, 3);
        trained.bias = vec![0.25, -0.5, 0.0, 1.0];
        // Every positive latent, of one vector.
        let rebuild = |w: &Weights, x: &[f32]| -> (Vec<f32>, Vec<f32>) {
            let dot = |row: &[f32]| -> f32 {
                let pairs = row.iter().zip(x).zip(&w.b_dec);
                pairs.map(|((w, x), b)| w * (x - b)).sum()
            };
            let codes = w.encoder.chunks(6).zip(&w.bias);
            let codes: Vec<f32> = codes.map(|(row, b)| (dot(row) + b).max(0.0)).collect();
            let mut out = w.b_dec.clone();
            for (code, row) in codes.iter().zip(w.decoder.chunks(6)) {
                out.iter_mut().zip(row).for_each(|(o, d)| *o += code * d);
            }
            (codes, out)
        };
        let unit = scale.unit;
        let own: Vec<f32> = rows[..6].iter().map(|v| v / unit).collect();
        let (codes, rebuilt) = rebuild(&trained, &own);
        assert!(codes.iter().any(|c| *c > 0.0), "nothing is active");
        let raw = rebuild(&trained.clone().in_residual_units(unit), &rows[..6]);
        let relative = rebuild(&trained.in_relative_units(unit), &rows[..6]);
        for (own, found, factor) in [
            (&codes, &raw.0, unit),
            (&codes, &relative.0, 1.0),
            (&rebuilt, &raw.1, unit),
            (&rebuilt, &relative.1, unit),
        ] {
            for (own, found) in own.iter().zip(found) {
                assert!((own * factor - found).abs() < 1e-4 * unit, "{own} {found}");
            }
        }
    }
}
