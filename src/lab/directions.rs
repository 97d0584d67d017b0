//! Random directions to compare a feature with.

use std::ops::Range;

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

use super::LabError;
use super::random::Random;
use crate::checkpoint::{BLOCK_BYTES, Checkpoint, CheckpointError, Folder, MAX_JSON};
use crate::sae::{HookPoint, SaeError};

/// A dictionary with random directions as further latents.
pub struct WithDirections {
    /// Its files, in memory.
    pub folder: Folder,
    /// The latents that are random directions; they are never active, so that adding them is all that
    /// can be done with them.
    pub directions: Range<u32>,
}

/// The bias of a latent that never fires.
const NEVER: f32 = -1e30;

/// The dictionary of `hook` in `folder` with `count` directions, drawn uniformly from `seed`, of the
/// norm of `feature`'s decoder row: what is added of one is as long as what is added of the feature.
///
/// The whole dictionary is in memory meanwhile.
pub async fn with_directions(
    folder: &Folder,
    hook: HookPoint,
    feature: u32,
    count: usize,
    seed: u64,
) -> Result<WithDirections, LabError> {
    // A folder of one dictionary, or of several.
    let (json, path) = match folder.bytes("cfg.json", MAX_JSON).await? {
        Some(json) => (json, String::new()),
        None => {
            let path = format!("{hook}/");
            let name = format!("{path}cfg.json");
            let json = folder.bytes(&name, MAX_JSON).await?;
            let missing = || SaeError::NotFound {
                folder: folder.label().into(),
                wanted: hook.to_string(),
            };
            (json.ok_or_else(missing)?, path)
        }
    };
    let fail = |reason: String| SaeError::Config {
        file: format!("{path}cfg.json"),
        reason,
    };
    let mut config: Value =
        serde_json::from_slice(&json).map_err(|e| fail(format!("it cannot be read: {e}")))?;
    let checkpoint = Checkpoint::open(folder, &format!("{path}sae")).await?;
    let shape = checkpoint.info("W_dec").map(|info| info.shape.clone());
    let Some([latents, width]) = shape.as_deref() else {
        return Err(fail("its weights have no decoder W_dec of latents by width".into()).into());
    };
    let (latents, width) = (*latents, *width);
    if feature as usize >= latents {
        return Err(fail(format!(
            "feature {feature} is not among its {latents} latents"
        ))
        .into());
    }
    let mut encoder = matrix(&checkpoint, "encoder.weight", [latents, width]).await?;
    let mut decoder = matrix(&checkpoint, "W_dec", [latents, width]).await?;
    let mut bias = checkpoint.vector("encoder.bias", latents).await?;
    let b_dec = checkpoint.vector("b_dec", width).await?;
    let row = &decoder[feature as usize * width..][..width];
    let norm = row
        .iter()
        .map(|v| f64::from(*v).powi(2))
        .sum::<f64>()
        .sqrt();
    let mut random = Random::new(seed);
    for _ in 0..count {
        decoder.extend(random.direction(width, norm));
    }
    encoder.resize((latents + count) * width, 0.0);
    bias.resize(latents + count, NEVER);

    config["num_latents"] = json!(latents + count);
    let all = latents + count;
    let tensors = [
        ("encoder.weight", vec![all, width], &encoder),
        ("W_dec", vec![all, width], &decoder),
        ("encoder.bias", vec![all], &bias),
        ("b_dec", vec![width], &b_dec),
    ];
    let views = tensors
        .iter()
        .map(|(name, shape, values)| {
            let bytes = bytemuck::cast_slice(values);
            Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let bytes = views
        .and_then(|views| serialize(views, None))
        .map_err(|e| fail(e.to_string()))?;
    let files = vec![
        (format!("{hook}/cfg.json"), config.to_string().into_bytes()),
        (format!("{hook}/sae.safetensors"), bytes),
    ];
    Ok(WithDirections {
        folder: Folder::memory(folder.label(), files),
        directions: latents as u32..(latents + count) as u32,
    })
}

async fn matrix(
    checkpoint: &Checkpoint,
    name: &str,
    shape: [usize; 2],
) -> Result<Vec<f32>, CheckpointError> {
    let mut all = Vec::with_capacity(shape[0] * shape[1]);
    checkpoint
        .rows(name, &shape, BLOCK_BYTES, |_, rows| {
            all.extend_from_slice(rows);
            Ok::<_, CheckpointError>(())
        })
        .await?;
    Ok(all)
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn dictionary(seed: u64, latents: usize, width: usize) -> Folder {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut draw =
            |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let tensors = [
            ("encoder.weight", vec![latents, width]),
            ("W_dec", vec![latents, width]),
            ("encoder.bias", vec![latents]),
            ("b_dec", vec![width]),
        ]
        .map(|(name, shape)| (name, draw(shape.iter().product()), shape));
        let views = tensors.iter().map(|(name, values, shape)| {
            let bytes = bytemuck::cast_slice(values);
            (
                *name,
                TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        });
        let config = json!({"d_in": width, "k": 3, "expansion_factor": 2, "num_latents": latents});
        Folder::memory(
            "test",
            vec![
                ("layers.1/cfg.json".into(), config.to_string().into_bytes()),
                (
                    "layers.1/sae.safetensors".into(),
                    serialize(views, None).unwrap(),
                ),
            ],
        )
    }

    #[test]
    fn directions_follow_the_latents_with_the_features_norm() {
        let seed = rand::random();
        println!("seed {seed}");
        let folder = dictionary(seed, 9, 8);
        let hook = HookPoint::block(1);
        pollster::block_on(async {
            let made = with_directions(&folder, hook, 4, 3, seed).await.unwrap();
            assert_eq!(made.directions, 9..12);
            let before = Checkpoint::open(&folder, "layers.1/sae").await.unwrap();
            let after = Checkpoint::open(&made.folder, "layers.1/sae")
                .await
                .unwrap();
            let old = matrix(&before, "W_dec", [9, 8]).await.unwrap();
            let new = matrix(&after, "W_dec", [12, 8]).await.unwrap();
            assert_eq!(new[..72], old[..]);
            let norm = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
            for row in new[72..].chunks(8) {
                assert!((norm(row) - norm(&old[32..40])).abs() < 1e-5);
            }
            assert_ne!(new[72..80], new[80..88]);
            let bias = after.vector("encoder.bias", 12).await.unwrap();
            assert!(bias[9..].iter().all(|b| *b < -1e20));
            assert!(bias[..9].iter().all(|b| b.abs() < 1.0));
            let again = with_directions(&folder, hook, 4, 3, seed).await.unwrap();
            let again = Checkpoint::open(&again.folder, "layers.1/sae")
                .await
                .unwrap();
            assert_eq!(matrix(&again, "W_dec", [12, 8]).await.unwrap(), new);
            let missing = with_directions(&folder, HookPoint::block(2), 4, 3, seed).await;
            assert!(missing.err().unwrap().to_string().contains("layers.2"));
            let wrong = with_directions(&folder, hook, 9, 3, seed).await;
            assert!(wrong.err().unwrap().to_string().contains("feature 9"));
        });
    }
}
