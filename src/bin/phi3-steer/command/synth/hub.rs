//! BF16 safetensors in shards, as on the Hub.

use phi3_steer::checkpoint::Encoding;
use serde_json::{Map, json};

use super::super::Failure;
use super::source::Source;
use crate::header::{Entry, header};
use crate::layout::{Shape, Tensor};
use crate::output::{FolderOutput, note};

/// The most bytes of a shard: that of `transformers`.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Writes the tensors to `model.safetensors`, or to shards with an index.
pub async fn write(
    tensors: &[Tensor],
    source: &mut Source<'_>,
    out: &mut FolderOutput,
) -> Result<(), Failure> {
    let mut shards: Vec<Vec<&Tensor>> = vec![Vec::new()];
    let (mut used, mut total) = (0, 0);
    for tensor in tensors {
        let bytes = bytes(tensor);
        if used > 0 && used + bytes > SHARD_BYTES {
            shards.push(Vec::new());
            used = 0;
        }
        used += bytes;
        total += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    let mut map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let mut file = out.file(&name)?;
        file.add(&header(shard.iter().map(|tensor| entry(tensor))))?;
        for tensor in shard {
            source.write(tensor, Encoding::BF16, &mut file).await?;
            map.insert(tensor.name.clone(), name.clone().into());
        }
        file.finish()?;
        note(&name);
    }
    if shards.len() > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        out.write("model.safetensors.index.json", index.to_string().as_bytes())?;
    }
    Ok(())
}

/// A tensor's entry.
fn entry(tensor: &Tensor) -> Entry {
    Entry {
        name: tensor.name.clone(),
        dtype: "BF16",
        shape: match tensor.shape {
            Shape::Vector(len) => vec![len],
            Shape::Matrix(shape) => shape.into(),
        },
        bytes: bytes(tensor),
    }
}

/// Bytes of a tensor in BF16.
fn bytes(tensor: &Tensor) -> u64 {
    2 * tensor.shape.numbers() as u64
}
