//! The families of models that run here, and whose configuration a `config.json` is: what is of none of
//! them is named for what it is, and what would change the numbers and is not computed here is refused.

use serde_json::{Value, json};

use super::ModelError;
use super::fields::Fields;
use crate::checkpoint::shown;

/// A family of models of one graph: how its files say what they are.
pub(super) struct Architecture {
    /// `model_type` of `config.json`, and `general.architecture` of GGUF files, whose keys begin with it.
    pub name: &'static str,
    /// The class in `architectures` of `config.json`.
    pub class: &'static str,
    /// What its models are called.
    pub words: &'static str,
    /// RMSNorm's epsilon where `config.json` does not say it.
    pub epsilon: f64,
    /// The kinds of rotary scaling that its models have.
    pub scalings: &'static [&'static str],
    /// The sliding window of GGUF files that do not say it, by their blocks and positions.
    pub window: fn(layers: u64, context: u64) -> Option<u64>,
}

impl Architecture {
    /// The kinds of rotary scaling that its models have, for messages: `"llama3" or "linear" or none`.
    pub fn scalings(&self) -> String {
        let kinds = self.scalings.iter().map(|kind| format!("\"{kind}\" or "));
        format!("{}none", kinds.collect::<String>())
    }
}

/// All of them, that of a configuration that names none first. Their tensors have the same names (`checkpoint`'s puts together what is published apart).
pub(super) const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        name: "phi3",
        class: "Phi3ForCausalLM",
        words: "Phi-3",
        epsilon: 1e-5,
        scalings: &["longrope"],
        // Files converted before the key existed, Microsoft's own among them: the window of
        // Phi-3-mini-4k and Phi-3-medium-4k, as llama.cpp has it.
        window: |layers, context| (context == 4096 && matches!(layers, 32 | 40)).then_some(2047),
    },
    Architecture {
        name: "llama",
        class: "LlamaForCausalLM",
        words: "Llama",
        epsilon: 1e-6,
        scalings: &["llama3", "linear", "longrope"],
        window: |_, _| None,
    },
];

/// What runs here, for messages.
pub(super) const RUNS: &str = "this engine runs \"phi3\" (the text models Phi-3, Phi-3.5, Phi-4 and \
                               Phi-4-mini) and \"llama\" (Llama, SmolLM2, TinyLlama and others of its kind)";

/// What other values of `model_type` of the same family are.
const RELATIVES: [(&str, &str); 8] = [
    ("phi", "Phi-1, Phi-1.5 or Phi-2"),
    ("phi-msft", "Phi-1.5 or Phi-2"),
    ("phi3small", "Phi-3-small"),
    ("phi3_v", "Phi-3-vision"),
    ("phimoe", "Phi-3.5-MoE"),
    ("phi4mm", "Phi-4-multimodal"),
    ("phi4_multimodal", "Phi-4-multimodal"),
    ("phi4flash", "Phi-4-mini-flash"),
];

/// The family of a configuration. Refuses what is no text model of plain weights of one of them, or does
/// not say that it is.
pub(super) fn of(config: &Fields<'_>) -> Result<&'static Architecture, ModelError> {
    other_software(config)?;
    let kind = config.text("model_type")?;
    let relative = RELATIVES
        .iter()
        .find(|(name, _)| Some(*name) == kind)
        .map(|(_, what)| format!(", {what}"))
        .unwrap_or_default();
    let by_kind = kind.map(|kind| ARCHITECTURES.iter().find(|own| own.name == kind));
    if let (Some(kind), Some(None)) = (kind, by_kind) {
        let kind = shown(kind);
        return Err(config.fail(format!("model_type is \"{kind}\"{relative}; {RUNS}")));
    }
    nested(config)?;
    let classes = config.get("architectures").and_then(Value::as_array);
    let classes = classes.into_iter().flatten().filter_map(Value::as_str);
    let classes: Vec<&str> = classes.collect();
    let of_class = |own: &&Architecture| classes.contains(&own.class);
    let by_class = ARCHITECTURES.iter().find(of_class);
    let own = match (by_kind.flatten(), by_class, &classes[..]) {
        (Some(own), _, []) => own,
        (Some(own), ..) if of_class(&own) => own,
        (None, Some(own), _) => own,
        (_, _, [class, ..]) => {
            let classes = ARCHITECTURES.map(|own| format!("\"{}\"", own.class));
            return Err(config.fail(format!(
                "architectures has \"{}\"; {RUNS}, and they are {}",
                shown(class),
                classes.join(" and ")
            )));
        }
        (None, None, []) if config.get("hidden_size").is_none() => {
            return Err(config.fail(format!(
                "it does not say what kind of model it is of (model_type); {RUNS}"
            )));
        }
        (None, None, []) => &ARCHITECTURES[0],
    };
    quantised(config)?;
    neutral(config, own)?;
    Ok(own)
}

/// Refuses what was made for other software.
fn other_software(config: &Fields<'_>) -> Result<(), ModelError> {
    let has = |keys: &[&str]| keys.iter().any(|key| config.get(key).is_some());
    let reason = if has(&["peft_type", "lora_alpha"]) {
        let base = config
            .get("base_model_name_or_path")
            .and_then(Value::as_str);
        let base = base.map_or("its model".into(), |base| format!("\"{}\"", shown(base)));
        format!(
            "it is of an adapter (LoRA or another of PEFT), which is no model by itself: merge it \
             into {base} first (in Python: merge_and_unload, then save_pretrained)"
        )
    } else if has(&["model_lib", "conv_template"])
        || config.get("model_config").is_some_and(Value::is_object)
    {
        "it is of a model compiled for MLC and WebLLM, whose weights only they read: get the \
         model as .safetensors or .gguf"
            .into()
    } else if config.get("model").is_some_and(Value::is_object) {
        "it is of a model for ONNX Runtime: get the model as .safetensors or .gguf".into()
    } else if has(&["_class_name", "_diffusers_version"]) {
        "it is of a diffusion model; this engine runs language models".into()
    } else {
        return Ok(());
    };
    Err(config.fail(reason))
}

/// Refuses models of more than text, whose language model has a configuration of its own inside.
fn nested(config: &Fields<'_>) -> Result<(), ModelError> {
    const PARTS: [&str; 9] = [
        "text_config",
        "llm_config",
        "language_config",
        "vision_config",
        "audio_config",
        "img_processor",
        "audio_processor",
        "embd_layer",
        "thinker_config",
    ];
    let part = PARTS.iter().find(|part| config.get(part).is_some());
    part.map_or(Ok(()), |part| {
        Err(config.fail(format!(
            "it has {part}: it is of a model of more than text (images or sound), whose language \
             model is a part of it; text models run here"
        )))
    })
}

/// Refuses weights that are packed in ways that are not read.
fn quantised(config: &Fields<'_>) -> Result<(), ModelError> {
    for key in [
        "quantization_config",
        "quantization",
        "compression_config",
        "quantization_info",
    ] {
        let Some(value) = config.get(key) else {
            continue;
        };
        if value.as_object().is_some_and(|map| map.is_empty()) {
            continue;
        }
        let on = |name: &str| value[name] == true;
        let method = match value["quant_method"].as_str().or(value.as_str()) {
            Some(method) => shown(method),
            None if on("load_in_4bit") || on("load_in_8bit") => "bitsandbytes".into(),
            // MLX writes the same entry twice, and no method.
            None if value["group_size"].is_number() => "MLX".into(),
            None => "an unnamed method".into(),
        };
        return Err(config.fail(format!(
            "{key}: its weights are quantised by {method}, which is not read here: get the model \
             as .gguf, or its own .safetensors in bf16, f16 or f32 (quantised while they load)"
        )));
    }
    Ok(())
}

/// Refuses settings of other models that change the numbers, unless their value changes nothing.
fn neutral(config: &Fields<'_>, own: &Architecture) -> Result<(), ModelError> {
    const FALSE: [&str; 19] = [
        "attention_bias",
        "mlp_bias",
        "lm_head_bias",
        "qkv_bias",
        "use_bias",
        "bias",
        "use_qkv_bias",
        "qk_norm",
        "use_qk_norm",
        "qk_layernorm",
        "parallel_attn",
        "use_parallel_residual",
        "alibi",
        "use_mup",
        "rope_interleave",
        "rope_interleaved",
        "add_cross_attention",
        "is_encoder_decoder",
        "rms_norm_add_unit_offset",
    ];
    const ONE: [&str; 11] = [
        "full_attn_mod",
        "interpolate_factor",
        "embedding_multiplier",
        "residual_multiplier",
        "logits_scaling",
        "logit_scale",
        "lm_head_multiplier",
        "scale_emb",
        "embedding_scale",
        "residual_scale",
        "rotary_pct",
    ];
    const ZERO: [&str; 9] = [
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "logit_softcap",
        "clip_qkv",
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "attention_chunk_size",
        "max_alibi_bias",
    ];
    const NONE: [&str; 5] = [
        "attention_multiplier",
        "query_pre_attn_scalar",
        "no_rope_layers",
        "sliding_window_pattern",
        "dual_chunk_attention_config",
    ];
    let off = [
        (&FALSE[..], json!(false)),
        (&ONE, json!(1)),
        (&ZERO, json!(0)),
        (&NONE, Value::Null),
    ];
    for (keys, neutral) in off {
        for key in keys {
            let Some(value) = config.get(key) else {
                continue;
            };
            if !same(value, &neutral) {
                let value = shown(&value.to_string());
                return Err(config.fail(format!(
                    "{key} is {value}, which is not a part of {} and would change what the model \
                     computes; {neutral} is understood",
                    own.words
                )));
            }
        }
    }
    for key in ["hidden_act", "hidden_activation", "activation_function"] {
        // Two names of one function.
        if let Some(act) = config
            .text(key)?
            .filter(|a| !matches!(*a, "silu" | "swish"))
        {
            let act = shown(act);
            return Err(config.fail(format!("{key} is \"{act}\"; {} uses \"silu\"", own.words)));
        }
    }
    Ok(())
}

/// Whether two values are equal: 1 and 1.0 are.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_the_store_of_the_page_name_the_same_families() {
        let names = ARCHITECTURES.map(|own| format!("\"{}\"", own.name));
        for name in &names {
            assert!(RUNS.contains(name), "{name}: {RUNS}");
        }
        let store = std::fs::read_to_string("www/store/content.js").unwrap();
        let list = format!("const ARCHITECTURES = [{}];", names.join(", "));
        assert!(store.contains(&list), "{list}");
    }
}
