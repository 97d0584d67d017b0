//! Dictionaries of every format with random numbers, and what each computes by its format's own formulas,
//! in f64: what the readers and kernels are compared with.

mod others;
mod saelens;

use others::{Gemma, gemma, llama, saex, sparsify};
use rand::Rng;
use rand::rngs::StdRng;
use saelens::{Lens, saelens, saelens_old};
use safetensors::tensor::{Dtype, TensorView};

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

/// The largest of each of `k` groups.
fn largest_of_groups(p: &[f64], k: usize) -> Vec<(f64, f64)> {
    let groups = p.chunks(p.len() / k);
    groups.flat_map(|group| largest(group, 1)).collect()
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
    all.push(sparsify(rng, d, f, k, false));
    all.push(sparsify(rng, d, f, k, true));
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
