//! Random TopK dictionaries, and steering by its definition, in f64.

use std::collections::BTreeMap;

use phi3_steer::steering::{Intervention, Operator, Positions};
use rand::rngs::StdRng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::coefficient::coefficient;
use super::numbers;

/// A dictionary of random weights.
pub struct RandomDictionary {
    pub width: usize,
    pub latents: usize,
    pub k: usize,
    /// `[latents, width]`
    pub encoder: Vec<f32>,
    /// `[latents]`
    pub bias: Vec<f32>,
    /// `[latents, width]`
    pub decoder: Vec<f32>,
    /// `[width]`
    pub b_dec: Vec<f32>,
}

/// What a token is to an intervention.
#[derive(Clone, Copy)]
pub struct Kind {
    pub bos: bool,
    pub generated: bool,
}

impl RandomDictionary {
    pub fn new(rng: &mut StdRng, width: usize, latents: usize, k: usize) -> Self {
        let size = (3.0 / width as f32).sqrt();
        Self {
            width,
            latents,
            k,
            encoder: numbers(rng, latents * width, size),
            bias: numbers(rng, latents, 0.3),
            decoder: numbers(rng, latents * width, size),
            b_dec: numbers(rng, width, 0.3),
        }
    }

    /// `cfg.json` and `sae.safetensors`, each with `path` in front of its name.
    pub fn files(&self, path: &str) -> Vec<(String, Vec<u8>)> {
        let cfg = json!({
            "activation": "topk", "expansion_factor": 8, "normalize_decoder": true,
            "num_latents": self.latents, "k": self.k, "multi_topk": false,
            "skip_connection": false, "transcode": false, "d_in": self.width
        });
        let (f, d) = (self.latents, self.width);
        let parts = [
            ("encoder.weight", vec![f, d], &self.encoder),
            ("encoder.bias", vec![f], &self.bias),
            ("W_dec", vec![f, d], &self.decoder),
            ("b_dec", vec![d], &self.b_dec),
        ];
        let bytes = parts.map(|(name, shape, values)| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, shape, bytes)
        });
        let views = bytes.iter().map(|(name, shape, data)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), data);
            (*name, view.expect("shape and bytes agree"))
        });
        let tensors = safetensors::serialize(views, None).expect("a file");
        vec![
            (format!("{path}cfg.json"), cfg.to_string().into_bytes()),
            (format!("{path}sae.safetensors"), tensors),
        ]
    }

    /// All positive pre-activations of h, largest first.
    fn ranked(&self, h: &[f64]) -> Vec<(usize, f64)> {
        let rows = self.encoder.chunks(self.width).zip(&self.bias).enumerate();
        let mut all: Vec<(usize, f64)> = rows
            .map(|(latent, (row, bias))| {
                let products = row.iter().zip(h).zip(&self.b_dec);
                let sum: f64 = products
                    .map(|((w, h), b)| f64::from(*w) * (h - f64::from(*b)))
                    .sum();
                (latent, sum + f64::from(*bias))
            })
            .filter(|(_, v)| *v > 0.0)
            .collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }

    /// The active latents of h.
    pub fn code(&self, h: &[f64]) -> BTreeMap<usize, f64> {
        self.ranked(h).into_iter().take(self.k).collect()
    }

    /// How far h is from having another set of active latents: what the last one in is above the first
    /// one out.
    pub fn margin(&self, h: &[f64]) -> f64 {
        let ranked = self.ranked(h);
        let at = |i: usize| ranked.get(i).map_or(0.0, |(_, v)| *v);
        match ranked.len() < self.k {
            // Then the nearest to zero decides, which is not known here: no margin.
            true => 0.0,
            false => at(self.k - 1) - at(self.k),
        }
    }

    /// A latent's row of the decoder, `[width]`.
    pub fn direction(&self, latent: usize) -> Vec<f64> {
        let row = &self.decoder[latent * self.width..][..self.width];
        row.iter().map(|v| f64::from(*v)).collect()
    }

    /// What `list` makes of h.
    pub fn steer(&self, h: &mut Vec<f64>, list: &[Intervention], kind: Kind) {
        let code = self.code(h);
        let f = |i: &Intervention| code.get(&latent(i)).copied().unwrap_or(0.0);
        let applies = |i: &&Intervention| {
            let here = match i.positions {
                Positions::All => true,
                Positions::Prompt => !kind.generated,
                Positions::Generated => kind.generated,
            };
            here && (i.include_bos || !kind.bos) && (!i.only_if_active || f(i) > 0.0)
        };
        let drops = |i: &Intervention| i.op.row().reconstruction;
        let list: Vec<&Intervention> = list.iter().filter(applies).collect();
        if list.iter().any(|i| drops(i)) {
            let mut code = code.clone();
            for i in list.iter().filter(|i| i.op == Operator::ClampReplace) {
                code.insert(latent(i), value(i));
            }
            *h = self.b_dec.iter().map(|v| f64::from(*v)).collect();
            for (latent, activation) in code {
                add(h, activation, &self.direction(latent));
            }
        }
        for i in list.into_iter().filter(|i| !drops(i)) {
            let d = self.direction(latent(i));
            let along: f64 = h.iter().zip(&d).map(|(h, d)| h * d).sum();
            let squares: f64 = d.iter().map(|d| d * d).sum();
            let value = i.value.map_or(0.0, f64::from);
            let by = coefficient(i.op.name(), value, Some(f(i)), along, squares);
            add(h, by, &d);
        }
    }
}

/// The latent that an intervention is about; of one that is about none, whichever.
fn latent(i: &Intervention) -> usize {
    i.feature().unwrap_or(0) as usize
}

fn value(i: &Intervention) -> f64 {
    f64::from(i.value.expect("a value"))
}

fn add(h: &mut [f64], by: f64, d: &[f64]) {
    h.iter_mut().zip(d).for_each(|(h, d)| *h += by * d);
}
