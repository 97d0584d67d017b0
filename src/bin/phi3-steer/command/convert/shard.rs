//! The bytes of one file.

use phi3_steer::checkpoint::{Checkpoint, CheckpointError};
use phi3_steer::phi3::PlainFormats;

use super::plan::{Part, Shard};
use crate::header::header;

/// Makes `file` the safetensors file of a shard; weights that are not quantised yet become what `plain` says.
pub async fn fill(
    checkpoint: &Checkpoint,
    shard: &Shard,
    plain: PlainFormats,
    file: &mut Vec<u8>,
) -> Result<(), CheckpointError> {
    file.clear();
    file.extend(header(shard.parts.iter().flat_map(Part::entries)));
    for part in &shard.parts {
        match part {
            Part::Vector { name, len } => {
                let values = checkpoint.vector(name, *len).await?;
                file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            }
            Part::Planes {
                name, shape, rows, ..
            } => {
                let [side, words] = [0, 1].map(|at| part.entries()[at].bytes as usize);
                let mut side_at = file.len();
                file.resize(side_at + side, 0);
                file.reserve(words);
                let reader = checkpoint.planes(name, *shape, plain.of(name))?;
                let mut reader = reader.only(rows.clone());
                while let Some((_, planes)) = reader.next().await? {
                    let side = file[side_at..].chunks_exact_mut(4);
                    for (place, word) in side.zip(&planes.side) {
                        place.copy_from_slice(&word.to_le_bytes());
                    }
                    side_at += 4 * planes.side.len();
                    file.extend(planes.words.iter().flat_map(|w| w.to_le_bytes()));
                }
            }
        }
    }
    Ok(())
}
