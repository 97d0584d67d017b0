//! The token embedding.

use phi3_steer::gpu::{Access, KernelDescriptor, shaders};
use phi3_steer::matrix::{Format, weights_bindings, weights_part};
use phi3_steer::phi3::Row;
use rand::Rng;

use crate::matmul::matrix;
use crate::support::*;

#[test]
fn rows_take_their_tokens_embedding() {
    let mut rng = seeded("embed");
    for (name, gpu) in variants() {
        for format in Format::ALL {
            let mut bindings = vec![
                (3, Access::Uniform),
                (5, Access::Uniform),
                (6, Access::Write),
            ];
            bindings.extend_from_slice(weights_bindings(format));
            let kernel = gpu.kernel(&KernelDescriptor {
                label: "embed",
                parts: &[shaders::ROWS, weights_part(format), shaders::EMBED],
                constants: &[],
                bindings: &bindings,
            });
            for hidden in [4usize, 36, 96, 100, 544] {
                let vocab = 97;
                let groups = hidden.div_ceil(32) as u32;
                let (embedding, reference) = matrix(&gpu, &mut rng, [vocab, hidden], format);
                let shape = gpu.uniform("shape", &[hidden as u32 / 4, groups, 0, vocab as u32]);
                for rows in [1, 2, 5, 33] {
                    let mut tokens: Vec<u32> = (0..rows)
                        .map(|_| rng.random_range(0..vocab as u32))
                        .collect();
                    tokens[0] = vocab as u32 - 1;
                    let of_pass: Vec<Row> = tokens
                        .iter()
                        .map(|&token| Row {
                            token,
                            ..Row::default()
                        })
                        .collect();
                    let out = poisoned(&gpu, (rows + 3) * hidden);
                    let rows_buffer = put_rows(&gpu, &of_pass);
                    let mut buffers = embedding.buffers();
                    buffers.extend([(3, &shape), (5, &rows_buffer), (6, &out)]);
                    let step = kernel.bind(&gpu, &buffers);
                    // More rows in the grid than in the pass.
                    run(&gpu, |pass| {
                        step.dispatch(pass, [(groups * 4).div_ceil(64), rows as u32 + 2, 1])
                    });
                    let what = format!("{name}, {format:?}, hidden {hidden}, {rows} rows");
                    let got: Vec<u32> = get(&gpu, &out, (rows + 3) * hidden);
                    assert_untouched(&what, &got[rows * hidden..]);
                    let wanted: Vec<f64> = tokens
                        .iter()
                        .flat_map(|&t| &reference[t as usize * hidden..][..hidden])
                        .copied()
                        .collect();
                    // A scale times an integer, rounded once.
                    let got: Vec<f32> = get(&gpu, &out, rows * hidden);
                    assert_close(&what, &got, &wanted, 1e-7);
                }
            }
        }
    }
}
