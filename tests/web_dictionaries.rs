//! The kernels that dictionaries of other formats than sparsify's need, in a browser's WebGPU, whose
//! compiler is not the native one: normalisation, JumpReLU and gated latents, 8-bit storage of a transposed
//! encoder, the reconstruction from all latents; against f64.
#![cfg(target_arch = "wasm32")]

mod support;

use phi3_steer::checkpoint::Folder;
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::matrix::Format;
use phi3_steer::sae::{Dictionary, Wanted, encode_all};
use rand::Rng;
use rand::rngs::StdRng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use support::fresh_rng;
use wasm_bindgen_test::*;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

const WIDTH: usize = 72;
const LATENTS: usize = 2203;
const ROWS: usize = 5;

fn numbers(rng: &mut StdRng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn wide(values: &[f32]) -> impl Iterator<Item = f64> + '_ {
    values.iter().map(|v| f64::from(*v))
}

/// A SAELens dictionary, and what it makes of a vector.
struct Lens {
    gated: bool,
    layer_norm: bool,
    /// `[WIDTH, LATENTS]`
    encoder: Vec<f32>,
    /// `[LATENTS, WIDTH]`
    decoder: Vec<f32>,
    b_dec: Vec<f32>,
    /// b_enc and threshold, or b_gate, b_mag and r_mag.
    vectors: [Vec<f32>; 3],
}

impl Lens {
    fn random(rng: &mut StdRng, gated: bool, layer_norm: bool) -> Self {
        Self {
            gated,
            layer_norm,
            encoder: numbers(rng, WIDTH * LATENTS),
            decoder: numbers(rng, WIDTH * LATENTS),
            b_dec: numbers(rng, WIDTH),
            vectors: [0; 3].map(|_| numbers(rng, LATENTS)),
        }
    }

    fn folder(&self) -> Folder {
        let mode = ["constant_norm_rescale", "layer_norm"][usize::from(self.layer_norm)];
        let config = json!({
            "d_in": WIDTH, "d_sae": LATENTS, "apply_b_dec_to_input": true,
            "normalize_activations": mode,
            "architecture": if self.gated { "gated" } else { "jumprelu" },
            "metadata": {"sae_lens_version": "6.0.0", "hook_name": "blocks.3.hook_resid_post"}
        });
        let names: &[&str] = match self.gated {
            true => &["b_gate", "b_mag", "r_mag"],
            false => &["b_enc", "threshold"],
        };
        let mut tensors = vec![
            ("W_enc", vec![WIDTH, LATENTS], &self.encoder),
            ("W_dec", vec![LATENTS, WIDTH], &self.decoder),
            ("b_dec", vec![WIDTH], &self.b_dec),
        ];
        let vectors = names.iter().zip(&self.vectors);
        tensors.extend(vectors.map(|(name, values)| (*name, vec![LATENTS], values)));
        let views = tensors.iter().map(|(name, shape, values)| {
            let bytes = bytemuck::cast_slice(values);
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (*name, view.expect("a tensor"))
        });
        let bytes = safetensors::serialize(views, None).expect("a file");
        let files = vec![
            ("cfg.json".into(), config.to_string().into_bytes()),
            ("sae_weights.safetensors".into(), bytes),
        ];
        Folder::memory("saelens", files)
    }

    /// The normalised vector, and the factor and offset of the way back.
    fn normalized(&self, h: &[f32]) -> (Vec<f64>, f64, f64) {
        let n = WIDTH as f64;
        if self.layer_norm {
            let mean = wide(h).sum::<f64>() / n;
            let std = (wide(h).map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            let u = wide(h).map(|v| (v - mean) / (std + 1e-5)).collect();
            return (u, std, mean);
        }
        let back = (wide(h).map(|v| v * v).sum::<f64>() / n).sqrt();
        (wide(h).map(|v| v / back).collect(), back, 0.0)
    }

    /// Activations with the distance of each decision from the other.
    fn encode(&self, h: &[f32]) -> Vec<(f64, f64)> {
        let (u, ..) = self.normalized(h);
        let mut q = vec![0.0; LATENTS];
        for ((u, b), row) in u
            .iter()
            .zip(wide(&self.b_dec))
            .zip(self.encoder.chunks(LATENTS))
        {
            q.iter_mut()
                .zip(wide(row))
                .for_each(|(q, w)| *q += (u - b) * w);
        }
        let at = |vector: usize, i: usize| f64::from(self.vectors[vector][i]);
        let latent = |(i, q): (usize, &f64)| {
            let p = q + at(0, i);
            if self.gated {
                let m = q * at(2, i).exp() + at(1, i);
                let f = if p > 0.0 { m.max(0.0) } else { 0.0 };
                (f, p.abs().min(m.abs()))
            } else {
                let f = if p > at(1, i) { p.max(0.0) } else { 0.0 };
                (f, (p - at(1, i)).abs().min(p.abs()))
            }
        };
        q.iter().enumerate().map(latent).collect()
    }
}

/// The root mean square of what is off, over that of what is expected.
fn relative(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let off: f64 = wide(got).zip(expected).map(|(g, e)| (g - e).powi(2)).sum();
    let size: f64 = expected.iter().map(|e| e * e).sum();
    (off / size).sqrt()
}

#[wasm_bindgen_test]
async fn dictionaries_of_other_formats_agree_with_f64() {
    let mut rng = fresh_rng();
    let gpu = Gpu::open(&GpuOptions::default()).await.expect("a device");
    for (gated, layer_norm) in [(false, true), (true, false)] {
        let lens = Lens::random(&mut rng, gated, layer_norm);
        let x = numbers(&mut rng, ROWS * WIDTH);
        for format in [Format::F32, Format::Q8] {
            let wanted = Wanted {
                format: Some(format),
                ..Wanted::default()
            };
            let found = Dictionary::find(&gpu, &lens.folder(), wanted).await;
            let dictionary = found.expect("a dictionary");
            let encoded = encode_all(&gpu, &dictionary, &x)
                .await
                .expect("activations");
            for (r, h) in x.chunks(WIDTH).enumerate() {
                let acts = &encoded.acts[r * LATENTS..][..LATENTS];
                let expected = lens.encode(h);
                let what = format!("gated {gated}, {format:?}, row {r}");
                if format == Format::F32 {
                    for (got, (f, margin)) in acts.iter().zip(&expected) {
                        let near = (f64::from(*got) - f).abs() < 1e-4 * f.max(1.0);
                        assert!(near || *margin < 1e-4, "{what}: {got}, not {f}");
                    }
                } else {
                    let f: Vec<f64> = expected.iter().map(|(f, _)| *f).collect();
                    let off = relative(acts, &f);
                    assert!(off > 1e-4 && off < 0.05, "{what}: {off}");
                }
                // The reconstruction from the activations found.
                let (_, factor, offset) = lens.normalized(h);
                let mut y: Vec<f64> = wide(&lens.b_dec).collect();
                for (f, row) in wide(acts).zip(lens.decoder.chunks(WIDTH)) {
                    y.iter_mut().zip(wide(row)).for_each(|(y, w)| *y += f * w);
                }
                let y: Vec<f64> = y.iter().map(|y| y * factor + offset).collect();
                let off = relative(&encoded.recon[r * WIDTH..][..WIDTH], &y);
                let most = if format == Format::F32 { 1e-5 } else { 0.02 };
                assert!(off < most, "{what}: the reconstruction is off by {off}");
            }
        }
    }
}
