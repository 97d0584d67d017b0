//! SAELens's files and formulas.

use rand::rngs::StdRng;
use serde_json::json;

use super::{Raw, Specimen, largest, relu, safetensors, transposed};

/// What SAELens's normalisations do: the input, and the way back.
fn normalized(mode: &str, x: &[f64]) -> (Vec<f64>, f64, f64) {
    let n = x.len() as f64;
    match mode {
        "layer_norm" => {
            let mean = x.iter().sum::<f64>() / n;
            let std = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            let u = x.iter().map(|x| (x - mean) / (std + 1e-5)).collect();
            (u, std, mean)
        }
        "constant_norm_rescale" => {
            let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let c = n.sqrt() / norm;
            (x.iter().map(|x| x * c).collect(), 1.0 / c, 0.0)
        }
        _ => (x.to_vec(), 1.0, 0.0),
    }
}

/// How a SAELens file is made.
pub(super) struct Lens {
    pub name: &'static str,
    pub architecture: &'static str,
    pub mode: &'static str,
    pub subtract: bool,
    pub k: usize,
    pub rescale: bool,
    /// Both matrices are stored the other way round.
    pub swapped: bool,
}

pub(super) fn saelens(rng: &mut StdRng, d: usize, f: usize, lens: Lens) -> Specimen {
    let mut raw = Raw::new(rng, d, f);
    // Thresholds that matter.
    raw.more[0].iter_mut().for_each(|t| *t *= 2.0);
    let cfg = json!({
        "d_in": d, "d_sae": f, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": lens.subtract, "normalize_activations": lens.mode,
        "reshape_activations": "none", "architecture": lens.architecture, "k": lens.k,
        "rescale_acts_by_decoder_norm": lens.rescale,
        "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.3.hook_resid_pre"}
    });
    let (enc, dec, enc_shape, dec_shape) = if lens.swapped {
        (
            transposed(&raw.w_enc, d, f),
            transposed(&raw.w_dec, f, d),
            vec![f, d],
            vec![d, f],
        )
    } else {
        (raw.w_enc.clone(), raw.w_dec.clone(), vec![d, f], vec![f, d])
    };
    let mut tensors = vec![
        ("W_enc", enc_shape, &enc[..]),
        ("W_dec", dec_shape, &dec[..]),
        ("b_dec", vec![d], &raw.b_dec[..]),
    ];
    let extra: &[(&str, &Vec<f32>)] = match lens.architecture {
        "gated" => &[
            ("b_gate", &raw.b_enc),
            ("b_mag", &raw.more[1]),
            ("r_mag", &raw.more[2]),
        ],
        "jumprelu" => &[("b_enc", &raw.b_enc), ("threshold", &raw.more[0])],
        _ => &[("b_enc", &raw.b_enc)],
    };
    tensors.extend(extra.iter().map(|(n, v)| (*n, vec![f], &v[..])));
    let files = vec![
        ("cfg.json".into(), cfg.to_string().into_bytes()),
        ("sae_weights.safetensors".into(), safetensors(&tensors)),
    ];
    let (r, mode, rescale) = (raw.clone(), lens.mode, lens.rescale);
    let architecture = lens.architecture;
    let encode = move |h: &[f64]| {
        let (x, ..) = normalized(mode, h);
        let u = if lens.subtract {
            raw.minus_b_dec(&x)
        } else {
            x
        };
        let q = raw.products(&u);
        let p = q.iter().zip(&raw.b_enc).map(|(q, b)| q + f64::from(*b));
        let norms = raw.norms();
        let p: Vec<f64> = match lens.rescale {
            true => p.zip(&norms).map(|(p, n)| p * n).collect(),
            false => p.collect(),
        };
        match architecture {
            "topk" => largest(&p, lens.k),
            "jumprelu" => {
                let pairs = p.iter().zip(&raw.more[0]);
                pairs
                    .map(|(p, t)| {
                        let t = f64::from(*t);
                        let on = f64::from(u8::from(*p > t));
                        (p.max(0.0) * on, (p - t).abs().min(p.abs()))
                    })
                    .collect()
            }
            "gated" => (0..raw.f)
                .map(|i| {
                    let gate = q[i] + f64::from(raw.b_enc[i]);
                    let m = q[i] * f64::from(raw.more[2][i]).exp() + f64::from(raw.more[1][i]);
                    let on = f64::from(u8::from(gate > 0.0));
                    (on * m.max(0.0), gate.abs().min(m.abs()))
                })
                .collect(),
            _ => p.iter().map(|p| relu(*p)).collect(),
        }
    };
    let decode = move |h: &[f64], f: &[f64]| {
        let (_, factor, offset) = normalized(mode, h);
        let norms = r.norms();
        let f: Vec<f64> = match rescale {
            true => f.iter().zip(norms).map(|(f, n)| f / n).collect(),
            false => f.to_vec(),
        };
        r.rebuild(&f).iter().map(|y| y * factor + offset).collect()
    };
    Specimen {
        name: lens.name,
        width: d,
        latents: f,
        files,
        layer: Some(2),
        encode: Box::new(encode),
        decode: Box::new(decode),
    }
}

/// A SAELens file before version 6: TopK by its activation function, the hook point's old name, an average
/// that was not folded.
pub(super) fn saelens_old(rng: &mut StdRng, d: usize, f: usize, k: Option<usize>) -> Specimen {
    let mut raw = Raw::new(rng, d, f);
    let s = 0.4f64;
    let mut cfg = json!({
        "d_in": d, "d_sae": f, "hook_point": "blocks.3.hook_resid_pre",
        "normalize_activations": true, "norm_scaling_factor": s,
    });
    if let Some(k) = k {
        cfg["activation_fn_str"] = json!("topk");
        cfg["activation_fn_kwargs"] = json!({"k": k});
    } else {
        cfg["finetuning_scaling_factor"] = json!(true);
    }
    let tuned = match k {
        Some(_) => vec![1.0; f],
        None => raw.more[0].clone(),
    };
    raw.more[0] = tuned;
    let tensors = [
        ("W_enc", vec![d, f], &raw.w_enc[..]),
        ("W_dec", vec![f, d], &raw.w_dec[..]),
        ("b_enc", vec![f], &raw.b_enc[..]),
        ("b_dec", vec![d], &raw.b_dec[..]),
        ("scaling_factor", vec![f], &raw.more[0][..]),
    ];
    let files = vec![
        ("cfg.json".into(), cfg.to_string().into_bytes()),
        ("sae_weights.safetensors".into(), safetensors(&tensors)),
    ];
    let r = raw.clone();
    let encode = move |h: &[f64]| {
        let x: Vec<f64> = h.iter().map(|x| x * f64::from(s as f32)).collect();
        let q = raw.products(&raw.minus_b_dec(&x));
        let p: Vec<f64> = q
            .iter()
            .zip(&raw.b_enc)
            .map(|(q, b)| q + f64::from(*b))
            .collect();
        match k {
            Some(k) => largest(&p, k),
            None => p.iter().map(|p| relu(*p)).collect(),
        }
    };
    let decode = move |_: &[f64], f: &[f64]| {
        let f: Vec<f64> = f
            .iter()
            .zip(&r.more[0])
            .map(|(f, g)| f * f64::from(*g))
            .collect();
        r.rebuild(&f)
            .iter()
            .map(|y| y / f64::from(s as f32))
            .collect()
    };
    Specimen {
        name: if k.is_some() {
            "SAELens 3 topk"
        } else {
            "SAELens 3 fine-tuned"
        },
        width: d,
        latents: f,
        files,
        layer: Some(2),
        encode: Box::new(encode),
        decode: Box::new(decode),
    }
}
