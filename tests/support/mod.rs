//! What several test files share: random checkpoints and dictionaries, and both in f64 on the CPU.
// Every test file uses its own part.
#![allow(dead_code)]

pub mod checkpoint;
pub mod coefficient;
pub mod dictionary;
#[cfg(target_arch = "wasm32")]
pub mod engine;
pub mod reference;
#[cfg(target_arch = "wasm32")]
pub mod small;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A fresh generator whose seed is said when the test fails; building with `SEED=n` in the environment
/// repeats one.
pub fn fresh_rng() -> StdRng {
    let seed: u64 = match option_env!("SEED") {
        Some(text) => text.parse().expect("SEED is a number"),
        None => rand::rng().random(),
    };
    say(&format!("seed {seed}"));
    StdRng::seed_from_u64(seed)
}

/// Prints a line that is shown when the test fails.
pub fn say(line: &str) {
    #[cfg(target_arch = "wasm32")]
    wasm_bindgen_test::console_log!("{line}");
    #[cfg(not(target_arch = "wasm32"))]
    println!("{line}");
}

/// `n` numbers within `most` of zero.
pub fn numbers(rng: &mut StdRng, n: usize, most: f32) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-most..most)).collect()
}

/// Checks `got` against the reference, within `tolerance` of its largest element.
#[track_caller]
pub fn assert_near(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: how many");
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    let mut worst = (0.0, 0);
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let off = (f64::from(*g) - e).abs() / scale;
        // What is not a number is never near.
        if off.is_nan() || off > worst.0 {
            worst = (if off.is_nan() { f64::INFINITY } else { off }, i);
        }
    }
    let (off, i) = worst;
    assert!(
        off <= tolerance,
        "{what}: element {i} is {}, not {}: {off:.2e} of the largest, {scale}",
        got[i],
        expected[i]
    );
}
