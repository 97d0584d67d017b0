//! The bytes of one file.

use phi3_steer::checkpoint::{Checkpoint, CheckpointError};
use phi3_steer::quant::Format;
use serde_json::{Map, json};

use super::plan::{Part, Shard};

/// Makes `file` the safetensors file of a shard; weights that are not quantised yet become `format`.
pub async fn fill(
    checkpoint: &Checkpoint,
    shard: &Shard,
    format: Format,
    file: &mut Vec<u8>,
) -> Result<(), CheckpointError> {
    file.clear();
    file.extend(header(shard));
    for part in &shard.parts {
        match part {
            Part::Vector { name, len } => {
                let values = checkpoint.vector(name, *len).await?;
                file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            }
            Part::Planes {
                name, shape, rows, ..
            } => {
                let [side, words] = [0, 1].map(|at| part.entries()[at].bytes);
                let mut side_at = file.len();
                file.resize(side_at + side, 0);
                file.reserve(words);
                let reader = checkpoint.planes(name, *shape, format)?;
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

/// A file's length of header and header.
fn header(shard: &Shard) -> Vec<u8> {
    let mut entries = Map::new();
    let mut at = 0;
    for entry in shard.parts.iter().flat_map(Part::entries) {
        let to = at + entry.bytes;
        let value = json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [at, to]});
        entries.insert(entry.name, value);
        at = to;
    }
    let mut json = serde_json::Value::from(entries).to_string().into_bytes();
    // Data begins at a multiple of 8 bytes.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header
}
