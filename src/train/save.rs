//! What a run of training is when it is interrupted, and the files of a dictionary.

use std::collections::HashMap;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Scale, Settings, TrainError, Weights};

/// A tensor to write: its name, type, shape and bytes.
type Named = (String, Dtype, Vec<usize>, Vec<u8>);

fn file(tensors: &[Named], about: Option<HashMap<String, String>>) -> Vec<u8> {
    let views = tensors.iter().filter_map(|(name, dtype, shape, bytes)| {
        // Bytes are made for their shape, so that there is always a view.
        let view = TensorView::new(*dtype, shape.clone(), bytes).ok()?;
        Some((name.as_str(), view))
    });
    serialize(views, about).unwrap_or_default()
}

fn floats(name: &str, shape: &[usize], values: &[f32]) -> Named {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    (name.into(), Dtype::F32, shape.into(), bytes)
}

fn halves(name: &str, shape: &[usize], values: &[f32]) -> Named {
    let bytes = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes());
    (name.into(), Dtype::F16, shape.into(), bytes.collect())
}

impl Weights {
    /// The tensors with names that begin with `key`.
    fn named(&self, key: &str) -> Vec<Named> {
        let (d, f) = (self.width, self.latents);
        vec![
            floats(&format!("{key}encoder.weight"), &[f, d], &self.encoder),
            floats(&format!("{key}encoder.bias"), &[f], &self.bias),
            floats(&format!("{key}W_dec"), &[f, d], &self.decoder),
            floats(&format!("{key}b_dec"), &[d], &self.b_dec),
        ]
    }

    /// `cfg.json` of a TopK dictionary with `k` active latents, as sparsify writes it; `unit_rows`: whether the
    /// decoder's rows have the norm 1.
    pub fn config(&self, k: usize, unit_rows: bool) -> String {
        let config = json!({
            "activation": "topk",
            "expansion_factor": self.latents / self.width.max(1),
            "normalize_decoder": unit_rows,
            "num_latents": self.latents,
            "k": k,
            "multi_topk": false,
            "skip_connection": false,
            "transcode": false,
            "d_in": self.width,
        });
        format!("{config:#}\n")
    }

    /// `cfg.json` of a JumpReLU dictionary of the output of block `layer`, as SAELens writes it.
    pub fn jump_relu_config(&self, layer: usize) -> String {
        let config = json!({
            "architecture": "jumprelu",
            "d_in": self.width,
            "d_sae": self.latents,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": true,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {"hook_name": format!("blocks.{layer}.hook_resid_post")},
        });
        format!("{config:#}\n")
    }

    /// `sae_weights.safetensors` as SAELens writes it, with one threshold for all latents; the matrices in f16 if they
    /// are to be `small`.
    pub fn jump_relu_tensors(&self, threshold: f32, small: bool) -> Vec<u8> {
        let (d, f) = (self.width, self.latents);
        let columns = (0..d).flat_map(|i| (0..f).map(move |j| self.encoder[j * d + i]));
        let encoder: Vec<f32> = columns.collect();
        let matrix = if small { halves } else { floats };
        let all = [
            matrix("W_enc", &[d, f], &encoder),
            matrix("W_dec", &[f, d], &self.decoder),
            floats("b_enc", &[f], &self.bias),
            floats("b_dec", &[d], &self.b_dec),
            floats("threshold", &[f], &vec![threshold; f]),
        ];
        file(&all, None)
    }

    /// `sae.safetensors` as sparsify writes it, the matrices in f16 if they are to be `small`.
    pub fn tensors(&self, small: bool) -> Vec<u8> {
        let mut all = self.named("");
        if small {
            let shape = [self.latents, self.width];
            all[0] = halves("encoder.weight", &shape, &self.encoder);
            all[2] = halves("W_dec", &shape, &self.decoder);
        }
        file(&all, None)
    }
}

/// A run of training between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// How it is trained.
    pub settings: Settings,
    /// Vectors that came into the ring.
    pub came: u64,
    /// Sequences that were read.
    pub read: usize,
    /// The dictionary, once the first vectors were there.
    pub trained: Option<Trained>,
}

/// A dictionary under training.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// Steps taken.
    pub taken: usize,
    /// Steps since each latent was active, `[latents]`.
    pub silent: Vec<u32>,
    /// The smallest activation that counts, see [`Trainer::threshold`](super::Trainer::threshold).
    pub threshold: f32,
    /// What vectors are divided by.
    pub scale: Scale,
    /// The dictionary.
    pub weights: Weights,
    /// Adam's moments: means and squares.
    pub moments: [Weights; 2],
}

/// The part of a state that is kept as JSON.
#[derive(Serialize, Deserialize)]
struct About {
    settings: Settings,
    came: u64,
    read: usize,
    width: usize,
    taken: Option<usize>,
    unit: f32,
    variance: f32,
    threshold: f32,
}

const ABOUT: &str = "phi3-steer training";

impl State {
    /// As a safetensors file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let trained = self.trained.as_ref();
        let about = About {
            settings: self.settings.clone(),
            came: self.came,
            read: self.read,
            width: trained.map_or(0, |t| t.weights.width),
            taken: trained.map(|t| t.taken),
            unit: trained.map_or(0.0, |t| t.scale.unit),
            variance: trained.map_or(0.0, |t| t.scale.variance),
            threshold: trained.map_or(0.0, |t| t.threshold),
        };
        let mut tensors = Vec::new();
        if let Some(t) = trained {
            let silent = t.silent.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push(("silent".into(), Dtype::U32, vec![t.silent.len()], silent));
            tensors.push(floats("mean", &[t.scale.mean.len()], &t.scale.mean));
            tensors.extend(t.weights.named("weights."));
            tensors.extend(t.moments[0].named("means."));
            tensors.extend(t.moments[1].named("squares."));
        }
        let about = serde_json::to_string(&about).unwrap_or_default();
        file(&tensors, Some(HashMap::from([(ABOUT.to_string(), about)])))
    }

    /// From the file called `place`.
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self, TrainError> {
        Self::read_bytes(bytes).map_err(|why| TrainError::Disk {
            place: place.into(),
            what: format!("is no state of training ({why}): begin again in another folder"),
        })
    }

    fn read_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let own = header.metadata().as_ref().and_then(|m| m.get(ABOUT));
        let about: About = serde_json::from_str(own.ok_or("it does not say what it is")?)
            .map_err(|e| e.to_string())?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let (d, f) = (about.width, about.settings.latents);
        let words = |name: &str, n: usize| {
            let tensor = tensors.tensor(name).map_err(|e| e.to_string())?;
            match tensor.data().len() == 4 * n {
                true => Ok(tensor.data().chunks_exact(4)),
                false => Err(format!("{name} has the wrong size")),
            }
        };
        let numbers = |name: &str, n: usize| {
            let all = words(name, n)?.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Ok::<Vec<f32>, String>(all.collect())
        };
        let weights = |key: &str| {
            Ok::<_, String>(Weights {
                width: d,
                latents: f,
                encoder: numbers(&format!("{key}encoder.weight"), f * d)?,
                bias: numbers(&format!("{key}encoder.bias"), f)?,
                decoder: numbers(&format!("{key}W_dec"), f * d)?,
                b_dec: numbers(&format!("{key}b_dec"), d)?,
            })
        };
        let trained = match about.taken {
            None => None,
            Some(taken) => Some(Trained {
                taken,
                silent: words("silent", f)?
                    .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                    .collect(),
                threshold: about.threshold,
                scale: Scale {
                    unit: about.unit,
                    variance: about.variance,
                    mean: numbers("mean", d)?,
                },
                weights: weights("weights.")?,
                moments: [weights("means.")?, weights("squares.")?],
            }),
        };
        Ok(Self {
            settings: about.settings,
            came: about.came,
            read: about.read,
            trained,
        })
    }
}
