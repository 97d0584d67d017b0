//! Where the weights of a synthetic file come from.

use phi3_steer::checkpoint::{BLOCK_BYTES, Checkpoint, Encoding};
use rand::rngs::StdRng;

use super::super::Failure;
use super::blocks;
use crate::layout::{Shape, Tensor};
use crate::output::Output;

/// Weights.
pub enum Source<'a> {
    /// Random ones that keep the size of what passes through them.
    Random(&'a mut StdRng),
    /// Those of a model.
    Model(&'a Checkpoint),
}

impl Source<'_> {
    /// Writes a tensor in an encoding that its rows are whole blocks of.
    pub async fn write(
        &mut self,
        tensor: &Tensor,
        encoding: Encoding,
        out: &mut Output,
    ) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        match self {
            Self::Random(rng) => match tensor.shape {
                Shape::Vector(len) => {
                    blocks::encode(encoding, &blocks::norm(rng, len), &mut bytes);
                    out.add(&bytes)?;
                }
                Shape::Matrix([_, columns]) => {
                    let spread = 1.0 / (columns.max(1) as f32).sqrt();
                    let total = encoding.bytes(tensor.shape.numbers() as u64).unwrap_or(0);
                    let block = encoding.block_bytes() as u64;
                    let most = BLOCK_BYTES as u64 / block * block;
                    let mut left = total;
                    while left > 0 {
                        let n = left.min(most);
                        bytes.resize(n as usize, 0);
                        blocks::random(encoding, rng, spread, &mut bytes);
                        out.add(&bytes)?;
                        left -= n;
                    }
                }
            },
            Self::Model(checkpoint) => {
                let shape: &[usize] = match &tensor.shape {
                    Shape::Vector(len) => std::slice::from_ref(len),
                    Shape::Matrix(shape) => shape,
                };
                let mut reader = checkpoint.reader(&tensor.name, shape, BLOCK_BYTES)?;
                while let Some((_, values)) = reader.next().await? {
                    bytes.clear();
                    blocks::encode(encoding, values, &mut bytes);
                    out.add(&bytes)?;
                }
            }
        }
        Ok(())
    }
}
