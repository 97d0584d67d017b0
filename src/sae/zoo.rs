//! Dictionaries of every format with random numbers, and what each computes by its format's own formulas,
//! in f64: what the readers and kernels are compared with.

use rand::Rng;
use rand::rngs::StdRng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::reference::numbers;
use crate::checkpoint::Folder;

/// One dictionary and its formulas.
pub(crate) struct Specimen {
    pub name: &'static str,
    pub width: usize,
    pub latents: usize,
    /// Files by path.
    pub files: Vec<(String, Vec<u8>)>,
    /// The block whose output it is of, by its files.
    pub layer: Option<usize>,
    pub encode: Encode,
    pub decode: Decode,
}

/// Activations of a vector, and for each how far its decision (active or not) is from the other one.
type Encode = Box<dyn Fn(&[f64]) -> Vec<(f64, f64)>>;
/// The reconstruction of a vector from activations.
type Decode = Box<dyn Fn(&[f64], &[f64]) -> Vec<f64>>;

impl Specimen {
    /// The dictionary's own folder, with its name.
    pub fn folder(&self) -> Folder {
        let paths: Vec<&str> = self.files.iter().map(|(p, _)| p.as_str()).collect();
        let root = paths[0].split_once('/').map_or("", |(root, _)| root);
        let shared = paths.iter().all(|p| p.starts_with(&format!("{root}/")));
        if root.is_empty() || !shared {
            return Folder::memory("zoo", self.files.clone());
        }
        let inside = |(p, b): &(String, Vec<u8>)| (p[root.len() + 1..].to_string(), b.clone());
        let files = self.files.iter().map(inside).collect();
        Folder::memory(&format!("zoo/{root}"), files)
    }

    pub fn encode(&self, h: &[f32]) -> Vec<(f64, f64)> {
        (self.encode)(&wide(h))
    }

    pub fn decode(&self, h: &[f32], f: &[f64]) -> Vec<f64> {
        (self.decode)(&wide(h), f)
    }

    /// How the reconstruction of `h` changes with the latent's activation: its direction in the residual's
    /// units.
    pub fn direction(&self, h: &[f32], latent: usize) -> Vec<f64> {
        let mut f = vec![0.0; self.latents];
        let base = self.decode(h, &f);
        f[latent] = 1.0;
        let moved = self.decode(h, &f);
        moved.iter().zip(base).map(|(a, b)| a - b).collect()
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// The raw numbers of a dictionary.
#[derive(Clone)]
struct Raw {
    d: usize,
    f: usize,
    /// `[d, f]`
    w_enc: Vec<f32>,
    /// `[f, d]`
    w_dec: Vec<f32>,
    b_enc: Vec<f32>,
    b_dec: Vec<f32>,
    /// Three more vectors `[f]`.
    more: [Vec<f32>; 3],
}

impl Raw {
    fn new(rng: &mut StdRng, d: usize, f: usize) -> Self {
        Self {
            d,
            f,
            w_enc: numbers(rng, d * f),
            w_dec: numbers(rng, d * f),
            b_enc: numbers(rng, f),
            b_dec: numbers(rng, d),
            more: [numbers(rng, f), numbers(rng, f), numbers(rng, f)],
        }
    }

    /// x W_enc.
    fn products(&self, x: &[f64]) -> Vec<f64> {
        let mut q = vec![0.0; self.f];
        for (x, row) in x.iter().zip(self.w_enc.chunks(self.f)) {
            for (q, w) in q.iter_mut().zip(row) {
                *q += x * f64::from(*w);
            }
        }
        q
    }

    /// f W_dec + b_dec.
    fn rebuild(&self, f: &[f64]) -> Vec<f64> {
        let mut y = wide(&self.b_dec);
        for (f, row) in f.iter().zip(self.w_dec.chunks(self.d)) {
            for (y, w) in y.iter_mut().zip(row) {
                *y += f * f64::from(*w);
            }
        }
        y
    }

    fn minus_b_dec(&self, x: &[f64]) -> Vec<f64> {
        x.iter()
            .zip(&self.b_dec)
            .map(|(x, b)| x - f64::from(*b))
            .collect()
    }

    fn norms(&self) -> Vec<f64> {
        let rows = self.w_dec.chunks(self.d);
        rows.map(|r| r.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt())
            .collect()
    }
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for r in 0..rows {
        for c in 0..columns {
            out[c * rows + r] = values[r * columns + c];
        }
    }
    out
}

fn safetensors(tensors: &[(&str, Vec<usize>, &[f32])]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, shape, values)| {
        let bytes = bytemuck::cast_slice(values);
        (
            *name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize(views, None).unwrap()
}

fn relu(p: f64) -> (f64, f64) {
    (p.max(0.0), p.abs())
}

fn largest(p: &[f64], k: usize) -> Vec<(f64, f64)> {
    let mut sorted = p.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let (last, next) = (sorted[k - 1], sorted.get(k).copied().unwrap_or(-1e9));
    p.iter()
        .map(|p| {
            let active = *p >= last && *p > 0.0;
            let margin = if *p >= last { p - next } else { last - p };
            (if active { *p } else { 0.0 }, margin.min(p.abs()))
        })
        .collect()
}

/// A `.npz` archive of f32 or f16 arrays as NumPy writes it.
pub(crate) fn npz(arrays: &[(&str, Vec<usize>, &[f32])], deflate: bool, half: bool) -> Vec<u8> {
    use rawzip::{CompressionMethod, ZipArchiveWriter};
    use std::io::Write;
    let mut out = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut out);
    for (name, shape, values) in arrays {
        let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
        let comma = if shape.len() == 1 { "," } else { "" };
        let descr = if half { "<f2" } else { "<f4" };
        let mut header = format!(
            "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}",
            dims.join(", ")
        );
        while (header.len() + 11) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        if half {
            bytes.extend(
                values
                    .iter()
                    .flat_map(|v| half::f16::from_f32(*v).to_le_bytes()),
            );
        } else {
            bytes.extend_from_slice(bytemuck::cast_slice(values));
        }
        let method = match deflate {
            true => CompressionMethod::DEFLATE,
            false => CompressionMethod::STORE,
        };
        let file = format!("{name}.npy");
        let (mut entry, config) = archive
            .new_file(&file)
            .compression_method(method)
            .start()
            .unwrap();
        // The checksum is of the plain bytes, the entry holds the packed ones.
        let mut plain = config.wrap(std::io::sink());
        plain.write_all(&bytes).unwrap();
        let (_, descriptor) = plain.finish().unwrap();
        match deflate {
            true => entry
                .write_all(&miniz_oxide::deflate::compress_to_vec(&bytes, 6))
                .unwrap(),
            false => entry.write_all(&bytes).unwrap(),
        }
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    out
}

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
struct Lens {
    name: &'static str,
    architecture: &'static str,
    mode: &'static str,
    subtract: bool,
    k: usize,
    rescale: bool,
    /// Both matrices are stored the other way round.
    swapped: bool,
}

fn saelens(rng: &mut StdRng, d: usize, f: usize, lens: Lens) -> Specimen {
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

/// sparsify's TopK.
fn sparsify(rng: &mut StdRng, d: usize, f: usize, k: usize) -> Specimen {
    let raw = Raw::new(rng, d, f);
    let cfg = json!({"activation": "topk", "expansion_factor": 32, "normalize_decoder": true,
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
        largest(&p, k)
    };
    Specimen {
        name: "sparsify",
        width: d,
        latents: f,
        files,
        layer: Some(6),
        encode: Box::new(encode),
        decode: Box::new(move |_, f| r.rebuild(f)),
    }
}

/// A SAELens file before version 6: TopK by its activation function, the hook point's old name, an average
/// that was not folded.
fn saelens_old(rng: &mut StdRng, d: usize, f: usize, k: Option<usize>) -> Specimen {
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

/// saex, with gates or without, with a mean norm or without.
fn saex(rng: &mut StdRng, d: usize, f: usize, gated: bool, norms: Option<(f32, f32)>) -> Specimen {
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
enum Gemma {
    Stored,
    DeflatedHalf,
    Two,
}

fn gemma(rng: &mut StdRng, d: usize, f: usize, kind: Gemma) -> Specimen {
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

fn llama(rng: &mut StdRng, d: usize, f: usize) -> Specimen {
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

/// One of every kind, with `d` elements and `f` latents.
pub(crate) fn zoo(rng: &mut StdRng, d: usize, f: usize) -> Vec<Specimen> {
    let k = rng.random_range(1..f.min(40));
    let plain = |name, architecture| Lens {
        name,
        architecture,
        mode: "none",
        subtract: true,
        k,
        rescale: false,
        swapped: false,
    };
    let lenses = [
        plain("SAELens standard", "standard"),
        Lens {
            subtract: false,
            swapped: true,
            ..plain("SAELens standard, other way round", "standard")
        },
        plain("SAELens topk", "topk"),
        Lens {
            rescale: true,
            ..plain("SAELens topk, rescaled", "topk")
        },
        Lens {
            rescale: true,
            swapped: true,
            ..plain("SAELens topk, rescaled, other way round", "topk")
        },
        plain("SAELens jumprelu", "jumprelu"),
        plain("SAELens gated", "gated"),
        Lens {
            mode: "layer_norm",
            ..plain("SAELens standard, layer_norm", "standard")
        },
        Lens {
            mode: "layer_norm",
            ..plain("SAELens topk, layer_norm", "topk")
        },
        Lens {
            mode: "constant_norm_rescale",
            subtract: false,
            ..plain("SAELens jumprelu, constant norm", "jumprelu")
        },
    ];
    let mut all: Vec<Specimen> = lenses.into_iter().map(|l| saelens(rng, d, f, l)).collect();
    all.push(sparsify(rng, d, f, k));
    all.push(saelens_old(rng, d, f, Some(k)));
    all.push(saelens_old(rng, d, f, None));
    all.push(saex(rng, d, f, false, None));
    all.push(saex(rng, d, f, true, None));
    all.push(saex(rng, d, f, false, Some((7.5, 3.25))));
    all.push(gemma(rng, d, f, Gemma::Stored));
    all.push(gemma(rng, d, f, Gemma::DeflatedHalf));
    all.push(gemma(rng, d, f, Gemma::Two));
    all.push(llama(rng, d, f));
    all
}
