//! Files and formulas of sparsify, saex, Gemma Scope and Llama Scope.

use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::{Raw, Specimen, largest, largest_of_groups, npz, safetensors, transposed};

/// sparsify's TopK or, `grouped`, its GroupMax.
pub(super) fn sparsify(rng: &mut StdRng, d: usize, f: usize, k: usize, grouped: bool) -> Specimen {
    let raw = Raw::new(rng, d, f);
    // As many groups as there can be of one size.
    let k = if grouped {
        (1..=k).rev().find(|k| f.is_multiple_of(*k)).unwrap_or(1)
    } else {
        k
    };
    let activation = if grouped { "groupmax" } else { "topk" };
    let cfg = json!({"activation": activation, "expansion_factor": 32, "normalize_decoder": true,
        "num_latents": f, "k": k, "multi_topk": false, "skip_connection": false,
        "transcode": false, "d_in": d});
    let weight = transposed(&raw.w_enc, d, f);
    let tensors = [
        ("encoder.weight", vec![f, d], &weight[..]),
        ("encoder.bias", vec![f], &raw.b_enc[..]),
        ("W_dec", vec![f, d], &raw.w_dec[..]),
        ("b_dec", vec![d], &raw.b_dec[..]),
    ];
    let files = vec![
        ("layers.6/cfg.json".into(), cfg.to_string().into_bytes()),
        ("layers.6/sae.safetensors".into(), safetensors(&tensors)),
    ];
    let r = raw.clone();
    let encode = move |h: &[f64]| {
        let q = raw.products(&raw.minus_b_dec(h));
        let p: Vec<f64> = q
            .iter()
            .zip(&raw.b_enc)
            .map(|(q, b)| q + f64::from(*b))
            .collect();
        match grouped {
            true => largest_of_groups(&p, k),
            false => largest(&p, k),
        }
    };
    Specimen {
        name: if grouped {
            "sparsify, GroupMax"
        } else {
            "sparsify"
        },
        width: d,
        latents: f,
        files,
        layer: Some(6),
        encode: Box::new(encode),
        decode: Box::new(move |_, f| r.rebuild(f)),
    }
}

/// saex, with gates or without, with a mean norm or without.
pub(super) fn saex(
    rng: &mut StdRng,
    d: usize,
    f: usize,
    gated: bool,
    norms: Option<(f32, f32)>,
) -> Specimen {
    let mut raw = Raw::new(rng, d, f);
    // A factor that training keeps above zero, mostly.
    raw.more[0].iter_mut().for_each(|s| *s += 0.9);
    if !gated {
        raw.more[1].fill(0.0);
        raw.more[2].fill(0.0);
    }
    let cfg = json!({"d_in": d, "dtype": "float32", "expansion_factor": 16, "l1_coefficient": 1e-06,
        "train_batch_size": 2048, "dead_feature_window": 10000, "use_ghost_grads": true, "d_sae": f});
    let scalars = norms.map(|(mean, target)| [vec![mean], vec![target]]);
    let mut tensors = vec![
        ("W_enc", vec![d, f], &raw.w_enc[..]),
        ("W_dec", vec![f, d], &raw.w_dec[..]),
        ("b_enc", vec![f], &raw.b_enc[..]),
        ("b_dec", vec![d], &raw.b_dec[..]),
        ("scaling_factor", vec![f], &raw.more[0][..]),
        ("s_gate", vec![f], &raw.more[1][..]),
        ("b_gate", vec![f], &raw.more[2][..]),
    ];
    if let Some([mean, target]) = &scalars {
        tensors.push(("mean_norm", vec![], &mean[..]));
        tensors.push(("tgt_mean_norm", vec![], &target[..]));
    }
    let files = vec![
        (
            "l7-test-run-6-1e-06/cfg.json".into(),
            cfg.to_string().into_bytes(),
        ),
        (
            "l7-test-run-6-1e-06/sae_weights.safetensors".into(),
            safetensors(&tensors),
        ),
    ];
    let r = raw.clone();
    let root = (d as f64).sqrt();
    let encode = move |h: &[f64]| {
        let scale = norms.map_or(1.0, |(mean, _)| root / f64::from(mean));
        let x: Vec<f64> = h.iter().map(|x| x * scale).collect();
        let q = raw.products(&x);
        (0..raw.f)
            .map(|i| {
                let p = q[i] + f64::from(raw.b_enc[i]);
                let s = f64::from(raw.more[0][i]);
                if gated {
                    let slope = (1.0 + f64::from(raw.more[1][i]).exp()).ln();
                    let m = q[i] * slope * s + f64::from(raw.more[2][i]);
                    (
                        f64::from(u8::from(p > 0.0)) * m.max(0.0),
                        p.abs().min(m.abs()),
                    )
                } else {
                    (p.max(0.0) * s, p.abs())
                }
            })
            .collect()
    };
    let decode = move |_: &[f64], f: &[f64]| {
        let scale = norms.map_or(1.0, |(_, target)| f64::from(target) / root);
        r.rebuild(f).iter().map(|y| y * scale).collect()
    };
    Specimen {
        name: match (gated, norms.is_some()) {
            (true, _) => "saex gated",
            (false, true) => "saex with norms",
            (false, false) => "saex",
        },
        width: d,
        latents: f,
        files,
        layer: Some(6),
        encode: Box::new(encode),
        decode: Box::new(decode),
    }
}

/// Gemma Scope's kinds of files.
pub(super) enum Gemma {
    Stored,
    DeflatedHalf,
    Two,
}

pub(super) fn gemma(rng: &mut StdRng, d: usize, f: usize, kind: Gemma) -> Specimen {
    let mut raw = Raw::new(rng, d, f);
    if let Gemma::DeflatedHalf = kind {
        let all = [
            &mut raw.w_enc,
            &mut raw.w_dec,
            &mut raw.b_enc,
            &mut raw.b_dec,
        ];
        for values in all.into_iter().chain(&mut raw.more) {
            for v in values {
                *v = half::f16::from_f32(*v).to_f32();
            }
        }
    }
    let names = match kind {
        Gemma::Stored => ["W_enc", "W_dec"],
        _ => ["w_enc", "w_dec"],
    };
    let tensors = [
        (names[0], vec![d, f], &raw.w_enc[..]),
        (names[1], vec![f, d], &raw.w_dec[..]),
        ("b_enc", vec![f], &raw.b_enc[..]),
        ("b_dec", vec![d], &raw.b_dec[..]),
        ("threshold", vec![f], &raw.more[0][..]),
    ];
    let files: Vec<(String, Vec<u8>)> = match kind {
        Gemma::Stored => vec![("params.npz".into(), npz(&tensors, false, false))],
        Gemma::DeflatedHalf => vec![("params.npz".into(), npz(&tensors, true, true))],
        Gemma::Two => vec![
            (
                "config.json".into(),
                json!({"architecture": "jump_relu", "type": "sae", "width": f,
                    "hf_hook_point_in": "model.layers.9.output"})
                .to_string()
                .into(),
            ),
            ("params.safetensors".into(), safetensors(&tensors)),
        ],
    };
    let r = raw.clone();
    let encode = move |h: &[f64]| {
        let q = raw.products(h);
        (0..raw.f)
            .map(|i| {
                let p = q[i] + f64::from(raw.b_enc[i]);
                let t = f64::from(raw.more[0][i]);
                let on = f64::from(u8::from(p > t));
                (p.max(0.0) * on, (p - t).abs().min(p.abs()))
            })
            .collect()
    };
    Specimen {
        name: match kind {
            Gemma::Stored => "Gemma Scope",
            Gemma::DeflatedHalf => "Gemma Scope, deflated f16",
            Gemma::Two => "Gemma Scope 2",
        },
        width: d,
        latents: f,
        files,
        layer: matches!(kind, Gemma::Two).then_some(9),
        encode: Box::new(encode),
        decode: Box::new(move |_, f| r.rebuild(f)),
    }
}

pub(super) fn llama(rng: &mut StdRng, d: usize, f: usize) -> Specimen {
    let raw = Raw::new(rng, d, f);
    let (threshold, norm) = (0.7f32, 5.5f32);
    let json: Value = json!({
        "d_model": d, "d_sae": f, "act_fn": "jumprelu", "jump_relu_threshold": threshold,
        "hook_point_in": "blocks.4.hook_resid_post", "hook_point_out": "blocks.4.hook_resid_post",
        "dataset_average_activation_norm": {"in": norm, "out": norm}
    });
    let enc = transposed(&raw.w_enc, d, f);
    let dec = transposed(&raw.w_dec, f, d);
    let tensors = [
        ("encoder.weight", vec![f, d], &enc[..]),
        ("encoder.bias", vec![f], &raw.b_enc[..]),
        ("decoder.weight", vec![d, f], &dec[..]),
        ("decoder.bias", vec![d], &raw.b_dec[..]),
    ];
    let files = vec![
        ("hyperparams.json".into(), json.to_string().into()),
        (
            "checkpoints/final.safetensors".into(),
            safetensors(&tensors),
        ),
    ];
    let s = (d as f64).sqrt() / f64::from(norm);
    let r = raw.clone();
    let encode = move |h: &[f64]| {
        let x: Vec<f64> = h.iter().map(|x| x * s).collect();
        let q = raw.products(&x);
        let t = f64::from(threshold) * s;
        (0..raw.f)
            .map(|i| {
                let p = q[i] + f64::from(raw.b_enc[i]);
                let on = f64::from(u8::from(p > t));
                (p.max(0.0) * on, (p - t).abs().min(p.abs()))
            })
            .collect()
    };
    Specimen {
        name: "Llama Scope",
        width: d,
        latents: f,
        files,
        layer: Some(4),
        encode: Box::new(encode),
        decode: Box::new(move |_, f| r.rebuild(f).iter().map(|y| y / s).collect()),
    }
}
