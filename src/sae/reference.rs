//! A dictionary in f64 on the CPU: what the GPU's results are compared with.

use std::collections::BTreeMap;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};

use super::Activation;
use crate::checkpoint::Folder;
use crate::gpu::{Gpu, GpuOptions, Reduction};

/// A fresh generator whose seed is printed when the test fails.
pub(crate) fn fresh_rng() -> StdRng {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// `n` numbers in -1..1.
pub(crate) fn numbers(rng: &mut StdRng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// The software adapter in one of its variants.
pub(crate) fn software_gpu(options: GpuOptions) -> Rc<Gpu> {
    let options = GpuOptions {
        cpu_adapter: true,
        ..options
    };
    Rc::new(pollster::block_on(Gpu::open(&options)).expect("tests need a software Vulkan adapter"))
}

/// The software adapter in all variants that a kernel without weights can have.
pub(crate) fn software_gpus() -> Vec<Rc<Gpu>> {
    let both = [Reduction::Shared, Reduction::Subgroup];
    let variants = both.into_iter().flat_map(|r| [(r, false), (r, true)]);
    variants
        .map(|(reduction, f16)| {
            software_gpu(GpuOptions {
                f16: Some(f16),
                reduction: Some(reduction),
                ..GpuOptions::default()
            })
        })
        .collect()
}

pub(crate) struct Reference {
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

impl Reference {
    pub fn random(rng: &mut StdRng, width: usize, latents: usize, k: usize) -> Self {
        Self {
            width,
            latents,
            k,
            encoder: numbers(rng, latents * width),
            bias: numbers(rng, latents),
            decoder: numbers(rng, latents * width),
            b_dec: numbers(rng, width),
        }
    }

    /// `cfg.json` as sparsify writes it.
    pub fn cfg(&self) -> serde_json::Value {
        serde_json::json!({
            "activation": "topk", "expansion_factor": 8, "normalize_decoder": true,
            "num_latents": self.latents, "k": self.k, "multi_topk": false,
            "skip_connection": false, "transcode": false, "d_in": self.width
        })
    }

    /// `sae.safetensors` in f32.
    pub fn tensors(&self) -> Vec<u8> {
        let (f, d) = (self.latents, self.width);
        let of = |shape: Vec<usize>, values: &'_ [f32]| {
            TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values))
                .map(|view| (view.shape().to_vec(), view.data().to_vec()))
                .unwrap()
        };
        let parts = [
            ("encoder.weight", of(vec![f, d], &self.encoder)),
            ("encoder.bias", of(vec![f], &self.bias)),
            ("W_dec", of(vec![f, d], &self.decoder)),
            ("b_dec", of(vec![d], &self.b_dec)),
        ];
        let views = parts.iter().map(|(name, (shape, data))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), data).unwrap();
            (*name, view)
        });
        safetensors::serialize(views, None).unwrap()
    }

    /// The dictionary's files at `path` in a folder.
    pub fn files(&self, path: &str) -> Vec<(String, Vec<u8>)> {
        vec![
            (format!("{path}cfg.json"), self.cfg().to_string().into()),
            (format!("{path}sae.safetensors"), self.tensors()),
        ]
    }

    /// A folder that holds the dictionary at `layers.{layer}`.
    pub fn folder(&self, layer: usize) -> Folder {
        Folder::memory("memory", self.files(&format!("layers.{layer}/")))
    }

    /// The decoder row of `latent`.
    pub fn direction(&self, latent: usize) -> Vec<f64> {
        let row = &self.decoder[latent * self.width..][..self.width];
        row.iter().map(|v| f64::from(*v)).collect()
    }

    /// Pre-activations `[latents]` of a vector.
    pub fn pre(&self, h: &[f32]) -> Vec<f64> {
        let weights = self.encoder.chunks(self.width).zip(&self.bias);
        weights
            .map(|(row, bias)| {
                let products = row.iter().zip(h).zip(&self.b_dec);
                let sum: f64 = products
                    .map(|((w, x), b)| f64::from(*w) * (f64::from(*x) - f64::from(*b)))
                    .sum();
                sum + f64::from(*bias)
            })
            .collect()
    }

    /// The reconstruction from a code.
    pub fn decode(&self, code: &BTreeMap<usize, f64>) -> Vec<f64> {
        let mut out: Vec<f64> = self.b_dec.iter().map(|v| f64::from(*v)).collect();
        for (&latent, f) in code {
            for (o, d) in out.iter_mut().zip(self.direction(latent)) {
                *o += f * d;
            }
        }
        out
    }

    /// Checks a GPU's list of active latents of `h` and returns it with the activations in f64. A latent
    /// that rounding may put on either side of the cut may be on either.
    pub fn checked_code(&self, h: &[f32], slots: &[Activation]) -> BTreeMap<usize, f64> {
        assert_eq!(slots.len(), self.k);
        let pre = self.pre(h);
        let near = 1e-5 * (self.width as f64);
        let listed = super::live(slots);
        let mut code = BTreeMap::new();
        for pair in listed.windows(2) {
            assert!(pair[0].value >= pair[1].value, "not sorted: {listed:?}");
        }
        for a in listed {
            let exact = pre[a.feature as usize];
            assert!(a.value > 0.0);
            assert!(
                (f64::from(a.value) - exact).abs() < near,
                "latent {} has {}, not {exact}",
                a.feature,
                a.value
            );
            assert!(code.insert(a.feature as usize, exact).is_none(), "twice");
        }
        let full = listed.len() == self.k;
        let cut = listed.last().filter(|_| full);
        let cut = cut.map_or(0.0, |a| f64::from(a.value));
        for (latent, value) in pre.iter().enumerate() {
            assert!(
                code.contains_key(&latent) || *value < cut + near,
                "latent {latent} with {value} is not listed, the cut is {cut}"
            );
        }
        for empty in &slots[listed.len()..] {
            assert_eq!((empty.feature, empty.value), (u32::MAX, 0.0));
        }
        code
    }
}

/// Checks `got` against the reference within `tolerance` of its largest element.
pub(crate) fn assert_near(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(*g) - e).abs() <= tolerance * scale,
            "{what}: element {i} is {g}, not {e}"
        );
    }
}
