//! The skeletons of matrix products: every format, prologue and number of rows, at odd sizes.

use half::f16;
use phi3_steer::gpu::{Access, Gpu, MatmulKind, shaders};
use phi3_steer::matrix::{
    Format, Matrix, Operands, Product, ProductShape, Prologue, products_hold,
};
use phi3_steer::phi3::Row;
use phi3_steer::quant::{self, Planes};
use rand::Rng;
use rand::rngs::StdRng;

use crate::reference::{after, effective, product};
use crate::support::*;

/// What f32 sums over a few hundred products come to.
pub const TOLERANCE: f64 = 3e-5;

/// A matrix `[n, k]` on the GPU and the weights in f64 that it stands for.
pub fn matrix(
    gpu: &Gpu,
    rng: &mut StdRng,
    [n, k]: [usize; 2],
    format: Format,
) -> (Matrix, Vec<f64>) {
    let size = (k as f32).sqrt().recip();
    let matrix = Matrix::zeros(gpu, "matrix", [n, k], format).unwrap();
    if matches!(format, Format::Q4M | Format::Q5 | Format::Q6) {
        let planes = random_planes(rng, n, k, format, size);
        matrix.write_planes(gpu, 0, &planes);
        let weights = quant::dequantize(&planes, k);
        return (matrix, weights.into_iter().map(f64::from).collect());
    }
    let weights = normal(rng, n * k, size);
    // In two blocks, as a loader would.
    let cut = n / 3;
    matrix.write_rows(gpu, 0, &weights[..cut * k]);
    matrix.write_rows(gpu, cut, &weights[cut * k..]);
    (matrix, effective(&weights, k, format))
}

/// Any bits, with scales and minima that give weights of about `size`: for the formats that only files
/// bring.
fn random_planes(rng: &mut StdRng, n: usize, k: usize, format: Format, size: f32) -> Planes {
    let pair = |rng: &mut StdRng| {
        let half = |v: f32| u32::from(f16::from_f32(v).to_bits());
        half(size * rng.random_range(-0.1f32..0.1))
            | half(size * rng.random_range(-1.0f32..1.0)) << 16
    };
    let side = |rng: &mut StdRng, at: usize| match format {
        Format::Q5 if at % 2 == 1 => rng.random(),
        Format::Q6 if !at.is_multiple_of(3) => rng.random(),
        _ => pair(rng),
    };
    Planes {
        format,
        words: (0..n * format.row_words(k)).map(|_| rng.random()).collect(),
        side: (0..n * format.row_side(k))
            .map(|at| side(rng, at))
            .collect(),
    }
}

/// Rows of activations of very different sizes, as a residual stream has.
pub fn activations(rng: &mut StdRng, rows: usize, k: usize) -> Vec<f32> {
    let mut x = normal(rng, rows * k, 1.0);
    for (i, row) in x.chunks_exact_mut(k).enumerate() {
        let size = [1.0, 30.0, 0.05][i % 3];
        row.iter_mut().for_each(|v| *v *= size);
    }
    x
}

/// `rows` rows of lane 0.
pub fn plain_rows(rows: usize) -> Vec<Row> {
    (0..rows as u32)
        .map(|position| Row {
            position,
            ..Row::default()
        })
        .collect()
}

/// What products in f16 come to: activations have 11 bits, and four products are added in f16.
const HALF_TOLERANCE: f64 = 2e-3;

/// Rows of a pass.
const COUNTS: [usize; 5] = [1, 2, 3, 5, 33];

/// residual += w x' for one matrix and several numbers of rows.
fn residual(
    gpu: &Gpu,
    name: &str,
    rng: &mut StdRng,
    [n, k]: [usize; 2],
    (format, prologue): (Format, Prologue),
    lanes: usize,
    counts: &[usize],
) -> f64 {
    let kernel = Product {
        label: "residual",
        kernel: shaders::PROJECT_RESIDUAL,
        parts: Vec::new(),
        prologue,
        bindings: &[(6, Access::Write)],
        few_rows: lanes,
        half: true,
    };
    let (w, reference) = matrix(gpu, rng, [n, k], format);
    let pre = normal(rng, k, 1.0);
    let pre_buffer = put(gpu, &pre);
    let epsilon = 1e-5f32;
    let has = gpu.capabilities();
    let half_few = has.half_products && format == Format::Q4;
    let half_many = has.many_rows == MatmulKind::Matrices && format != Format::F32;
    let mut worst = 0.0f64;
    for &rows in counts {
        let x = activations(rng, rows, k);
        let before = normal(rng, rows * n, 1.0);
        let x_buffer = put(gpu, &x);
        let rows_buffer = put_rows(gpu, &plain_rows(rows));
        let sums = product(
            &reference,
            &after(prologue, &x, &pre, f64::from(epsilon)),
            k,
        );
        let wanted: Vec<f64> = before
            .iter()
            .zip(&sums)
            .map(|(b, s)| f64::from(*b) + s)
            .collect();
        for many in [false, true] {
            let tolerance = match if many { half_many } else { half_few } {
                true => HALF_TOLERANCE,
                false => TOLERANCE,
            };
            // Four more rows than the pass has: they must stay as they are.
            let out = poisoned(gpu, (rows + 4) * n);
            gpu.write(&out, 0, &before);
            let step = kernel.bind(
                gpu,
                many,
                &Operands {
                    matrix: &w,
                    shape: &ProductShape {
                        epsilon,
                        ..ProductShape::of(&w)
                    },
                    x: &x_buffer,
                    pre: &pre_buffer,
                    rows: &rows_buffer,
                    own: &[(6, &out)],
                },
            );
            run(gpu, |pass| step.dispatch(pass, rows as u32));
            let what = format!(
                "{name}, {format:?}, {prologue:?}, [{n}, {k}] times {rows} rows, {lanes} lanes, many {many}"
            );
            let got: Vec<u32> = get(gpu, &out, (rows + 4) * n);
            assert_untouched(&what, &got[rows * n..]);
            let got: Vec<f32> = get(gpu, &out, rows * n);
            // Row by row, since their scales differ.
            for (got, wanted) in got.chunks_exact(n).zip(wanted.chunks_exact(n)) {
                worst = worst.max(assert_close(&what, got, wanted, tolerance));
            }
        }
    }
    worst
}

#[test]
fn every_format_prologue_and_skeleton() {
    let mut rng = seeded("matmul");
    let mut worst = 0.0f64;
    for (name, gpu) in variants() {
        // Widths with and without a partial group, an odd and an even number of groups; lanes for each
        // width of the decode skeletons.
        for (format, shape, prologue, lanes) in [
            (Format::F32, [37, 100], Prologue::None, 1),
            (Format::Q4, [64, 64], Prologue::None, 5),
            (Format::Q4, [34, 36], Prologue::Norm, 2),
            (Format::F32, [70, 96], Prologue::Norm, 3),
            (Format::Q4, [33, 4], Prologue::Norm, 1),
            (Format::F32, [31, 68], Prologue::Subtract, 2),
            (Format::Q4, [7, 160], Prologue::Subtract, 4),
            (Format::Q4M, [33, 96], Prologue::None, 1),
            (Format::Q4M, [7, 128], Prologue::Norm, 5),
            (Format::Q5, [34, 64], Prologue::Norm, 2),
            (Format::Q6, [31, 160], Prologue::Subtract, 4),
            (Format::Q6, [64, 96], Prologue::Norm, 1),
            (Format::Q8, [35, 100], Prologue::Norm, 3),
            (Format::Q8, [37, 64], Prologue::None, 1),
        ] {
            let error = residual(
                &gpu,
                name,
                &mut rng,
                shape,
                (format, prologue),
                lanes,
                &COUNTS,
            );
            worst = worst.max(error);
        }
    }
    println!("matmul: off by at most {worst:.1e} of the scale");
}

#[test]
fn sums_over_many_columns_stay_exact_enough() {
    let mut rng = seeded("long sums");
    for (name, gpu) in variants() {
        let shape = [6, 8192 + 12];
        residual(
            &gpu,
            name,
            &mut rng,
            shape,
            (Format::Q4, Prologue::Norm),
            1,
            &[1, 5],
        );
    }
}

#[test]
fn four_bits_in_f16_are_as_close_as_f16_is() {
    let mut rng = seeded("f16 products");
    let mut worst = 0.0f64;
    for (name, gpu) in half_variants() {
        for (shape, prologue, lanes) in [
            ([37, 100], Prologue::None, 1),
            ([34, 36], Prologue::Norm, 2),
            ([64, 3072], Prologue::Norm, 1),
            ([66, 8192], Prologue::None, 4),
            ([7, 1056], Prologue::Subtract, 3),
            ([2 * 8192 + 3, 64], Prologue::Norm, 1),
            ([2 * 8192 + 2, 40], Prologue::None, 5),
        ] {
            let kind = (Format::Q4, prologue);
            let error = residual(&gpu, name, &mut rng, shape, kind, lanes, &COUNTS);
            worst = worst.max(error);
        }
        // On matrix units, where there are some.
        for format in [Format::Q8, Format::Q6, Format::Q4M, Format::F32] {
            let kind = (format, Prologue::Norm);
            let error = residual(&gpu, name, &mut rng, [150, 96], kind, 2, &[1, 70]);
            worst = worst.max(error);
        }
    }
    println!("f16 products: off by at most {worst:.1e} of the scale");
}

#[test]
fn known_answers_come_out_right() {
    for (name, gpu) in variants().into_iter().chain(half_variants()) {
        let right = pollster::block_on(products_hold(&gpu)).unwrap();
        assert!(right, "{name}");
    }
}

#[test]
fn teams_of_two_units() {
    let mut rng = seeded("two units");
    for (name, gpu) in variants() {
        for (format, lanes) in [(Format::Q4, 1), (Format::Q8, 4)] {
            let kind = (format, Prologue::Norm);
            residual(
                &gpu,
                name,
                &mut rng,
                [2 * 8192 + 3, 72],
                kind,
                lanes,
                &[1, 5],
            );
        }
    }
}

#[test]
fn more_units_than_a_grid_has_columns() {
    let mut rng = seeded("many units");
    for (name, gpu) in variants() {
        let shape = [2 * 32_768 + 5, 8];
        residual(
            &gpu,
            name,
            &mut rng,
            shape,
            (Format::F32, Prologue::None),
            1,
            &[1],
        );
    }
}
