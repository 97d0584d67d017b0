//! A known answer, asked of a device before it is trusted: drivers differ in how invocations lie in subgroups, in what
//! they say of their sizes, and in matrix units.

use super::{Format, Matrix, Operands, Product, ProductShape, Prologue};
use crate::gpu::{Access, Capabilities, Gpu, GpuError, GpuOptions, MatmulKind, Reduction, shaders};
use crate::quant;

/// Rows and columns of the matrix: an odd unit, several steps of a team, a part of a group.
const SIZE: [usize; 2] = [83, 1100];
/// Activation rows: more than a tile of few.
const ROWS: usize = 5;
/// The largest error, over the largest of the right results: f16 stays below half of it, wrong lanes do not.
const ALLOWED: f64 = 4e-3;

/// A device with the fastest products that give the right answer on it, and what had to be left out, in words:
/// first products in f16 or on matrix units, then those with subgroups.
///
/// Errors as [`Gpu::open`], or what plain products fail with; [`GpuError::WrongResults`] if they are wrong too.
pub async fn open_checked(options: &GpuOptions) -> Result<(Gpu, Option<&'static str>), GpuError> {
    let mut gpu = Gpu::open(options).await?;
    let Capabilities {
        cpu,
        few_rows,
        reduction,
        half_products,
        ..
    } = *gpu.capabilities();
    if few_rows == MatmulKind::Thread {
        return Ok((gpu, None));
    }
    let [few, many] = match cpu {
        true => [MatmulKind::Thread, MatmulKind::Block],
        false => [MatmulKind::Split, MatmulKind::Tile],
    };
    let single = GpuOptions {
        half_products: Some(false),
        many_rows: Some(many),
        ..options.clone()
    };
    let plain = GpuOptions {
        reduction: Some(Reduction::Shared),
        few_rows: Some(few),
        ..single.clone()
    };
    let subgroups = reduction == Reduction::Subgroup || few_rows == MatmulKind::Broadcast;
    let safer = [
        (half_products, single, NO_HALF),
        (subgroups, plain, NO_SUBGROUPS),
    ];
    let mut safer = safer.into_iter().filter(|(differs, ..)| *differs);
    let mut left_out = None;
    loop {
        // What does not compile there is no better than what is wrong.
        let held = products_hold(&gpu).await;
        if matches!(held, Ok(true)) {
            return Ok((gpu, left_out));
        }
        gpu.destroy();
        let Some((_, options, sentence)) = safer.next() else {
            let name = gpu.capabilities().name.clone();
            return Err(held.err().unwrap_or(GpuError::WrongResults { name }));
        };
        gpu = Gpu::open(&options).await?;
        left_out = Some(sentence);
    }
}

/// What is said where products in f16 were left out.
const NO_HALF: &str =
    "products in f16 came out wrong on this adapter: they are computed in f32, which is slower";
/// What is said where those with subgroups were left out, and in f16 too.
const NO_SUBGROUPS: &str =
    "products with subgroups came out wrong on this adapter: plain ones are used, which is slower";

/// Whether the device's products for few and for many rows of activations give the right answer.
pub async fn products_hold(gpu: &Gpu) -> Result<bool, GpuError> {
    let [rows, cols] = SIZE;
    let matrix = Matrix::zeros(gpu, "known weights", SIZE, Format::Q4)?;
    let values = numbers(1, rows * cols);
    matrix.write_rows(gpu, 0, &values);
    let weights = quant::dequantize(&quant::quantize(&values, cols, Format::Q4), cols);
    let activations = numbers(2, ROWS * cols);
    let norm = numbers(3, cols);
    let wanted = products(&weights, &normalised(&activations, &norm), cols);
    let x = gpu.storage("known activations", (ROWS * cols * 4) as u64)?;
    gpu.write(&x, 0, &activations);
    let pre = gpu.storage("known norm", (cols * 4) as u64)?;
    gpu.write(&pre, 0, &norm);
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::STORAGE;
    let pass_rows = gpu.buffer("known rows", PASS_BYTES, usage)?;
    gpu.write(&pass_rows, 0, &[ROWS as u32]);
    for (few_rows, many) in [(1, false), (ROWS, false), (1, true)] {
        let product = Product {
            label: "known answer",
            kernel: shaders::PROJECT_RESIDUAL,
            parts: Vec::new(),
            prologue: Prologue::Norm,
            bindings: &[(6, Access::Write)],
            few_rows,
            half: true,
        };
        // It is added to.
        let out = gpu.storage("known answers", (ROWS * rows * 4) as u64)?;
        let shape = ProductShape {
            epsilon: EPSILON,
            ..ProductShape::of(&matrix)
        };
        let operands = Operands {
            matrix: &matrix,
            shape: &shape,
            x: &x,
            pre: &pre,
            rows: &pass_rows,
            own: &[(6, &out)],
        };
        let step = product.bind(gpu, many, &operands);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        step.dispatch(&mut pass, ROWS as u32);
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
        let got: Vec<f32> = gpu.read_vec(&out, 0, ROWS * rows).await?;
        if !close(&got, &wanted) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// RMSNorm's.
const EPSILON: f32 = 1e-5;
/// A count and 256 rows of four words each (`prelude/rows.wgsl`).
const PASS_BYTES: u64 = 16 + 256 * 16;

/// Numbers between -1 and 1, the same everywhere: a linear congruential sequence.
fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// RMSNorm in f64 of activations `[rows, cols]`.
fn normalised(x: &[f32], norm: &[f32]) -> Vec<f64> {
    let rows = x.chunks_exact(norm.len());
    let each = rows.flat_map(|row| {
        let squares: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
        let scale = (squares / row.len() as f64 + f64::from(EPSILON))
            .sqrt()
            .recip();
        let pairs = row.iter().zip(norm);
        pairs.map(move |(v, n)| f64::from(*v) * f64::from(*n) * scale)
    });
    each.collect()
}

/// Activations `[rows, cols]` times weights `[matrix rows, cols]`: `[rows, matrix rows]`.
fn products(weights: &[f32], x: &[f64], cols: usize) -> Vec<f64> {
    let rows = x.chunks_exact(cols);
    let each = rows.flat_map(|row| {
        let of = move |w: &[f32]| {
            w.iter()
                .zip(row)
                .map(|(w, v)| f64::from(*w) * v)
                .sum::<f64>()
        };
        weights.chunks_exact(cols).map(of)
    });
    each.collect()
}

/// Whether all results are right, within what f16 allows.
fn close(got: &[f32], wanted: &[f64]) -> bool {
    let scale = wanted.iter().fold(0.0f64, |most, w| most.max(w.abs()));
    let mut pairs = got.iter().zip(wanted);
    got.len() == wanted.len() && pairs.all(|(g, w)| (f64::from(*g) - w).abs() <= ALLOWED * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_answers_are_told_from_right_ones() {
        let [rows, cols] = [6, 64];
        let (weights, x) = (numbers(4, rows * cols), numbers(5, 3 * cols));
        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
        let wanted = products(&weights, &x, cols);
        let right: Vec<f32> = wanted.iter().map(|w| *w as f32).collect();
        assert!(close(&right, &wanted));
        // Two results in each other's place, one that lacks a product, one that is no number, one too few.
        let mut swapped = right.clone();
        swapped.swap(0, 1);
        let mut lacking = right.clone();
        lacking[7] -= weights[cols] * x[cols] as f32;
        let mut none = right.clone();
        none[2] = f32::NAN;
        for wrong in [&swapped, &lacking, &none, &right[1..].to_vec()] {
            assert!(!close(wrong, &wanted));
        }
    }
}
