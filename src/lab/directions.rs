//! Random directions to compare a feature with.

use std::ops::Range;

use super::LabError;
use super::random::Random;
use crate::gpu::Gpu;
use crate::sae::Dictionary;

/// Adds to `dictionary` `count` latents that are never active, with random directions in place of decoder
/// rows: drawn uniformly from `seed`, of the norm of `feature`'s row, so that what is added of one is as
/// long as what is added of the feature. Adding them is all that can be done with them. Returns their
/// numbers.
pub async fn add_directions(
    gpu: &Gpu,
    dictionary: &mut Dictionary,
    feature: u32,
    count: usize,
    seed: u64,
) -> Result<Range<u32>, LabError> {
    let row = dictionary.decoder_row(gpu, feature).await?;
    let squares: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
    let mut random = Random::new(seed);
    let directions: Vec<f32> = (0..count)
        .flat_map(|_| random.direction(row.len(), squares.sqrt()))
        .collect();
    Ok(dictionary.append(gpu, &directions).await?)
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::gpu::GpuOptions;
    use crate::matrix::Format;
    use crate::sae::reference::{fresh_rng, numbers, software_gpu};
    use crate::sae::zoo::zoo;
    use crate::sae::{Wanted, encode_all};

    #[test]
    fn directions_follow_the_latents_with_the_features_norm() {
        let mut rng = fresh_rng();
        let gpu = software_gpu(GpuOptions::default());
        let (d, f) = (40, 91);
        for specimen in zoo(&mut rng, d, f) {
            for format in [Format::F32, Format::Q8] {
                let name = specimen.name;
                let wanted = Wanted {
                    format: Some(format),
                    ..Wanted::default()
                };
                let load = || {
                    let folder = specimen.folder();
                    block_on(Dictionary::find(&gpu, &folder, wanted)).unwrap()
                };
                let plain = load();
                let made = |seed| {
                    let mut all = load();
                    let range = block_on(add_directions(&gpu, &mut all, 4, 3, seed));
                    assert_eq!(range.unwrap(), 91..94, "{name}");
                    all
                };
                let all = made(7);
                let row = |from: &Dictionary, latent: u32| {
                    block_on(from.decoder_row(&gpu, latent)).unwrap()
                };
                let norm = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
                let own = norm(&row(&all, 4));
                for latent in 91..94 {
                    let length = norm(&row(&all, latent));
                    assert!(
                        (length - own).abs() < 0.01 * own,
                        "{name}: {length}, not {own}"
                    );
                }
                assert_ne!(row(&all, 91), row(&all, 92));
                assert_eq!(row(&all, 93), row(&made(7), 93));
                assert_ne!(row(&all, 93), row(&made(8), 93));
                assert_eq!(row(&all, 90), row(&plain, 90));
                // They are never active, and nothing else changes.
                let x: Vec<f32> = numbers(&mut rng, 3 * d).iter().map(|v| 50.0 * v).collect();
                let before = block_on(encode_all(&gpu, &plain, &x)).unwrap();
                let after = block_on(encode_all(&gpu, &all, &x)).unwrap();
                for (old, new) in before.acts.chunks(f).zip(after.acts.chunks(f + 3)) {
                    assert_eq!(old, &new[..f], "{name}");
                    assert_eq!(new[f..], [0.0; 3], "{name}");
                }
                assert_eq!(before.recon, after.recon, "{name}");
                let mut some = made(7);
                let missing = block_on(add_directions(&gpu, &mut some, 94, 1, 7));
                assert!(missing.unwrap_err().to_string().contains("0 to 93"));
            }
        }
    }
}
