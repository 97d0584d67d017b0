//! The tensors of published files under the names that the model has for them: Hugging Face's of the
//! architecture `phi3`, in which query, key and value projection are one matrix, and gate and up
//! projection another.
//!
//! Files that keep them apart have the parts of the same matrices: those of the architecture `llama`,
//! and GGUF files of either. llama.cpp's names:
//! <https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py>.

use super::{CheckpointError, Metadata};

/// What the names of a block's tensors begin with, before its number: Hugging Face's, which are the model's
/// own, and llama.cpp's.
const BLOCKS: [&str; 2] = ["model.layers.", "blk."];

/// The block that a tensor is of by its name, and its name there.
pub fn block_of(name: &str) -> Option<(usize, &str)> {
    let rest = BLOCKS.iter().find_map(|start| name.strip_prefix(start))?;
    let (block, own) = rest.split_once('.')?;
    Some((block.parse().ok()?, own))
}

/// The order of a matrix's rows in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// That of the model.
    AsRead,
    /// In each head of `head` rows the two halves, which the rotary embedding turns together, take
    /// turns: row 2 j + i of a head is row i * head / 2 + j of the model's.
    Interleaved {
        /// Rows of a head, an even number.
        head: usize,
    },
}

/// Where a tensor belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The model's name.
    pub name: String,
    /// Its place among the parts of a fused matrix, counted in rows' order.
    pub part: usize,
    /// Whether its rows are those of heads that the rotary embedding turns.
    pub rotary: bool,
}

impl Target {
    fn whole(name: &str) -> Self {
        Self {
            name: name.into(),
            part: 0,
            rotary: false,
        }
    }
}

/// The order of the query's and the key's rows in a GGUF file: llama.cpp has turned those of the
/// architecture `llama` (`LlamaModel.permute` of its converter), since its kernels turn neighbours.
pub(super) fn turned(metadata: &Metadata) -> Result<Rows, CheckpointError> {
    const ARCHITECTURE: &str = "llama";
    if metadata.text("general.architecture")? != Some(ARCHITECTURE) {
        return Ok(Rows::AsRead);
    }
    let number = |key: &str| metadata.unsigned(&format!("{ARCHITECTURE}.{key}"));
    let width = match number("attention.key_length")? {
        Some(width) => Some(width),
        None => match (number("embedding_length")?, number("attention.head_count")?) {
            (Some(hidden), Some(heads)) => hidden.checked_div(heads),
            _ => None,
        },
    };
    let even = width.and_then(|w| usize::try_from(w).ok());
    match even.filter(|w| *w > 0 && w.is_multiple_of(2)) {
        Some(head) => Ok(Rows::Interleaved { head }),
        // The configuration says what is wrong with these.
        None => Ok(Rows::AsRead),
    }
}

/// Where the tensor `name` of a safetensors file belongs.
pub(super) fn of_safetensors(name: &str) -> Target {
    let kind = name.strip_suffix(".weight").and_then(|stem| {
        let (block, kind) = stem.strip_prefix(BLOCKS[0])?.split_once('.')?;
        let (own, part) = match kind {
            "self_attn.q_proj" => ("self_attn.qkv_proj", 0),
            "self_attn.k_proj" => ("self_attn.qkv_proj", 1),
            "self_attn.v_proj" => ("self_attn.qkv_proj", 2),
            "mlp.gate_proj" => ("mlp.gate_up_proj", 0),
            "mlp.up_proj" => ("mlp.gate_up_proj", 1),
            _ => return None,
        };
        Some(Target {
            name: format!("model.layers.{block}.{own}.weight"),
            part,
            rotary: kind.ends_with("q_proj") || kind.ends_with("k_proj"),
        })
    });
    kind.unwrap_or_else(|| Target::whole(name))
}

/// Where the tensor `name` of a GGUF file belongs.
pub(super) fn of_gguf(name: &str) -> Target {
    match name {
        "token_embd.weight" => return Target::whole("model.embed_tokens.weight"),
        "output_norm.weight" => return Target::whole("model.norm.weight"),
        "output.weight" => return Target::whole("lm_head.weight"),
        _ => {}
    }
    let inside = name.strip_prefix(BLOCKS[1]);
    let Some((layer, kind)) = inside.and_then(|rest| rest.split_once('.')) else {
        return Target::whole(name);
    };
    let (own, part) = match kind {
        "attn_norm.weight" => ("input_layernorm", 0),
        "attn_qkv.weight" | "attn_q.weight" => ("self_attn.qkv_proj", 0),
        "attn_k.weight" => ("self_attn.qkv_proj", 1),
        "attn_v.weight" => ("self_attn.qkv_proj", 2),
        "attn_output.weight" => ("self_attn.o_proj", 0),
        "ffn_norm.weight" => ("post_attention_layernorm", 0),
        // Alone it is both.
        "ffn_gate.weight" => ("mlp.gate_up_proj", 0),
        "ffn_up.weight" => ("mlp.gate_up_proj", 1),
        "ffn_down.weight" => ("mlp.down_proj", 0),
        _ => return Target::whole(name),
    };
    Target {
        name: format!("model.layers.{layer}.{own}.weight"),
        part,
        rotary: matches!(kind, "attn_q.weight" | "attn_k.weight"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_model() {
        for (gguf, name, part, rotary) in [
            ("token_embd.weight", "model.embed_tokens.weight", 0, false),
            (
                "blk.31.attn_v.weight",
                "model.layers.31.self_attn.qkv_proj.weight",
                2,
                false,
            ),
            (
                "blk.3.attn_k.weight",
                "model.layers.3.self_attn.qkv_proj.weight",
                1,
                true,
            ),
            (
                "blk.0.ffn_up.weight",
                "model.layers.0.mlp.gate_up_proj.weight",
                1,
                false,
            ),
            (
                "rope_factors_long.weight",
                "rope_factors_long.weight",
                0,
                false,
            ),
            ("blk.0.attn_rot_embd", "blk.0.attn_rot_embd", 0, false),
        ] {
            let name = name.into();
            assert_eq!(of_gguf(gguf), Target { name, part, rotary });
        }
        for (file, name, part, rotary) in [
            (
                "model.layers.12.self_attn.q_proj.weight",
                "model.layers.12.self_attn.qkv_proj.weight",
                0,
                true,
            ),
            (
                "model.layers.2.mlp.up_proj.weight",
                "model.layers.2.mlp.gate_up_proj.weight",
                1,
                false,
            ),
            (
                "model.layers.2.mlp.gate_up_proj.weight",
                "model.layers.2.mlp.gate_up_proj.weight",
                0,
                false,
            ),
            (
                "model.layers.2.self_attn.q_proj.bias",
                "model.layers.2.self_attn.q_proj.bias",
                0,
                false,
            ),
            ("b_dec", "b_dec", 0, false),
        ] {
            let name = name.into();
            assert_eq!(of_safetensors(file), Target { name, part, rotary });
        }
    }
}
