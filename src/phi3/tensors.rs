//! The tensors that a model's file has beside those that are read.

use super::{Config, ModelError};
use crate::checkpoint::{Checkpoint, block_of, shown};

/// A block's tensors.
const OF_BLOCK: [&str; 6] = [
    "input_layernorm.weight",
    "self_attn.qkv_proj.weight",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_up_proj.weight",
    "mlp.down_proj.weight",
];

/// Parts of names of tensors that follow from the configuration.
const DERIVED: [&str; 4] = ["rotary_emb", "rope_factors", "rope_freqs", "attn_rot_embd"];

/// Refuses a model that has a tensor which is not a part of the architecture: without it, it computes something
/// else than what it was trained to. Asked as soon as the names are known, and by whoever loads the weights.
pub(super) fn check(checkpoint: &Checkpoint, config: &Config) -> Result<(), ModelError> {
    let foreign = checkpoint.names().find(|name| is_foreign(name, config));
    match foreign {
        Some(name) => Err(ModelError::ForeignTensor {
            tensor: shown(name),
        }),
        None => Ok(()),
    }
}

/// Whether a tensor is one of the blocks that run but of none that is known, or a bias or an adapter of
/// anything.
fn is_foreign(name: &str, config: &Config) -> bool {
    if DERIVED.iter().any(|part| name.contains(part)) {
        return false;
    }
    match block_of(name) {
        Some((block, own)) => block < config.num_hidden_layers && !OF_BLOCK.contains(&own),
        None => name.ends_with(".bias") || name.contains("lora_"),
    }
}
