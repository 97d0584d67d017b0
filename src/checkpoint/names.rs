//! The tensors of a GGUF file under Hugging Face's names.
//!
//! llama.cpp's names of the `phi3` architecture, whose `ffn_up` is the fused gate and up
//! projection; a file that keeps `attn_q`, `attn_k`, `attn_v` or `ffn_gate` apart has the parts of
//! the same matrices:
//! <https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py>.

/// Where a GGUF tensor belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Hugging Face's name.
    pub name: String,
    /// Its place among the parts of a fused matrix, counted in rows' order.
    pub part: usize,
}

/// The Hugging Face name of the GGUF tensor `name`; its own name where there is none.
pub(super) fn target(name: &str) -> Target {
    let whole = |name: &str| Target {
        name: name.into(),
        part: 0,
    };
    match name {
        "token_embd.weight" => return whole("model.embed_tokens.weight"),
        "output_norm.weight" => return whole("model.norm.weight"),
        "output.weight" => return whole("lm_head.weight"),
        _ => {}
    }
    let Some((layer, kind)) = name.strip_prefix("blk.").and_then(|n| n.split_once('.')) else {
        return whole(name);
    };
    let (own, part) = match kind {
        "attn_norm.weight" => ("input_layernorm", 0),
        "attn_qkv.weight" | "attn_q.weight" => ("self_attn.qkv_proj", 0),
        "attn_k.weight" => ("self_attn.qkv_proj", 1),
        "attn_v.weight" => ("self_attn.qkv_proj", 2),
        "attn_output.weight" => ("self_attn.o_proj", 0),
        "ffn_norm.weight" => ("post_attention_layernorm", 0),
        "ffn_gate.weight" => ("mlp.gate_up_proj", 0),
        "ffn_up.weight" => ("mlp.gate_up_proj", 1),
        "ffn_down.weight" => ("mlp.down_proj", 0),
        _ => return whole(name),
    };
    Target {
        name: format!("model.layers.{layer}.{own}.weight"),
        part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_hugging_face() {
        for (gguf, name, part) in [
            ("token_embd.weight", "model.embed_tokens.weight", 0),
            (
                "blk.31.attn_v.weight",
                "model.layers.31.self_attn.qkv_proj.weight",
                2,
            ),
            (
                "blk.0.ffn_up.weight",
                "model.layers.0.mlp.gate_up_proj.weight",
                1,
            ),
            ("rope_factors_long.weight", "rope_factors_long.weight", 0),
            ("blk.0.attn_rot_embd", "blk.0.attn_rot_embd", 0),
        ] {
            let name = name.into();
            assert_eq!(target(gguf), Target { name, part });
        }
    }
}
