//! The tensors of a model, under Hugging Face's names, in the order in which they are loaded.

use phi3_steer::phi3::Config;
use phi3_steer::tokens::TokenizerFiles;

/// Whether a file is part of a model, which goes when another takes its place.
pub fn is_of_model(name: &str) -> bool {
    let others = [
        "manifest.json",
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
    ];
    others.contains(&name)
        || TokenizerFiles::NAMES.contains(&name)
        || (name.starts_with("model-") && name.ends_with(".safetensors"))
}

/// One tensor.
pub struct Tensor {
    pub name: String,
    pub shape: Shape,
}

/// Its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A norm's weights.
    Vector(usize),
    /// `[rows, columns]`
    Matrix([usize; 2]),
}

impl Shape {
    /// Numbers in the tensor.
    pub fn numbers(self) -> usize {
        match self {
            Self::Vector(len) => len,
            Self::Matrix([rows, columns]) => rows * columns,
        }
    }
}

/// The tensors of a model.
pub fn tensors(config: &Config) -> Vec<Tensor> {
    let c = config;
    let (d, inner) = (c.hidden_size, c.intermediate_size);
    let mut all = Vec::with_capacity(6 * c.num_hidden_layers + 3);
    let mut add = |name: String, shape| all.push(Tensor { name, shape });
    let ends = Shape::Matrix([c.vocab_size, d]);
    add("model.embed_tokens.weight".into(), ends);
    for layer in 0..c.num_hidden_layers {
        let name = |own: &str| format!("model.layers.{layer}.{own}.weight");
        let (qkv, width) = (c.qkv_rows(), c.attention_width());
        add(name("input_layernorm"), Shape::Vector(d));
        add(name("self_attn.qkv_proj"), Shape::Matrix([qkv, d]));
        add(name("self_attn.o_proj"), Shape::Matrix([d, width]));
        add(name("post_attention_layernorm"), Shape::Vector(d));
        add(name("mlp.gate_up_proj"), Shape::Matrix([2 * inner, d]));
        add(name("mlp.down_proj"), Shape::Matrix([d, inner]));
    }
    add("model.norm.weight".into(), Shape::Vector(d));
    if !c.tie_word_embeddings {
        add("lm_head.weight".into(), ends);
    }
    all
}
