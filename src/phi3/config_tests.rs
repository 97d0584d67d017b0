//! What `config.json` says in all the places where it has been said, and what is refused.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Map, Value, json};

use super::*;

fn seeded(test: &str) -> StdRng {
    let seed = rand::rng().random();
    println!("{test}: seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// A number of a few digits, which is the same number after a way through a text.
fn decimal(rng: &mut StdRng, from: u32, to: u32) -> f64 {
    f64::from(rng.random_range(from * 64..to * 64)) / 64.0
}

fn base() -> Value {
    json!({
        "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "vocab_size": 100,
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    })
}

/// The base with these entries.
fn with(entries: &Value) -> Value {
    let mut config = base();
    for (key, value) in entries.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

fn read(entries: &Value) -> Result<Config, String> {
    let text = with(entries).to_string();
    Config::from_json(text.as_bytes()).map_err(|e| e.to_string())
}

/// What cannot be used must be refused with a sentence that has `says`.
fn refused(entries: &Value, says: &str) {
    let error = read(entries).expect_err(&format!("{entries} was accepted"));
    assert!(error.starts_with("config.json: "), "{error}");
    assert!(error.contains(says) && error.len() < 600, "{says}: {error}");
}

/// The same settings of the rotary embedding, wherever they stand, make the same model.
#[test]
fn rotary_settings_hold_wherever_they_stand() {
    let mut rng = seeded("rotary settings");
    for _ in 0..300 {
        let theta = decimal(&mut rng, 2, 10_000_000);
        let partial = *[0.25, 0.5, 0.75, 1.0].choose(&mut rng).unwrap();
        let half = (16.0 * partial) as usize / 2;
        let long = rng.random_bool(0.6);
        let original = rng.random_range(2..4096);
        let mut draw = || -> Vec<f64> { (0..half).map(|_| decimal(&mut rng, 1, 60)).collect() };
        let (short_factors, long_factors) = (draw(), draw());
        let given = rng.random_bool(0.3).then(|| decimal(&mut rng, 1, 3));
        let ratio = 4096.0 / original as f64;

        // Each setting stands at the top, in the block, or at both places; the block has either name.
        let (mut config, mut block) = (Map::new(), Map::new());
        let mut put = |key: &str, value: Value| {
            let place = rng.random_range(0..3);
            if place != 1 {
                config.insert(key.into(), value.clone());
            }
            if place != 0 {
                block.insert(key.into(), value);
            }
        };
        put("rope_theta", json!(theta));
        put("partial_rotary_factor", json!(partial));
        if long {
            put("original_max_position_embeddings", json!(original));
            block.insert("short_factor".into(), json!(short_factors));
            block.insert("long_factor".into(), json!(long_factors));
            if let Some(factor) = given {
                block.insert("attention_factor".into(), json!(factor));
            }
            if rng.random() {
                block.insert("factor".into(), json!(ratio));
            }
        }
        let kinds: &[&str] = if long {
            &["longrope", "su", "yarn"]
        } else {
            &["default", "none"]
        };
        for key in ["type", "rope_type"] {
            // Without factors no type is needed.
            if rng.random() || (long && key == "rope_type" && !block.contains_key("type")) {
                block.insert(key.into(), json!(kinds.choose(&mut rng)));
            }
        }
        let names = ["rope_scaling", "rope_parameters"];
        let mut block = Value::Object(block);
        if rng.random_bool(0.2) {
            block = json!({"full_attention": block, "sliding_attention": block});
        }
        if rng.random_bool(0.2) {
            config.insert(names[0].into(), block.clone());
            config.insert(names[1].into(), block);
        } else {
            config.insert(names.choose(&mut rng).unwrap().to_string(), block);
        }
        let said = Value::Object(config);
        let config = read(&said).unwrap_or_else(|e| panic!("{said}: {e}"));
        assert_eq!(
            (config.rope_theta, config.rotary_dim),
            (theta, 2 * half),
            "{said}"
        );
        let expected = long.then(|| LongRope {
            short: short_factors,
            long: long_factors,
            original_max_position_embeddings: original,
            attention_factor: given
                .unwrap_or_else(|| (1.0 + ratio.ln() / (original as f64).ln()).sqrt()),
        });
        match (&config.rope_scaling, &expected) {
            (Some(a), Some(b)) => {
                assert!((a.attention_factor - b.attention_factor).abs() < 1e-12);
                assert_eq!((&a.short, &a.long), (&b.short, &b.long), "{said}");
                assert_eq!(
                    a.original_max_position_embeddings,
                    b.original_max_position_embeddings
                );
            }
            (a, b) => assert_eq!(a, b, "{said}"),
        }
    }
}

#[test]
fn rotary_settings_that_are_not_understood_are_refused() {
    let long = json!({"type": "longrope", "short_factor": vec![1.0; 8], "long_factor": vec![2.0; 8],
                      "original_max_position_embeddings": 1024});
    let changed = |key: &str, value: Value| {
        let mut block = long.clone();
        block[key] = value;
        json!({"rope_scaling": block})
    };
    assert!(read(&json!({"rope_scaling": long.clone()})).is_ok());
    for (key, value, says) in [
        ("type", json!("yarn2"), "yarn2"),
        ("type", json!("llama3"), "llama3"),
        ("type", json!("dynamic"), "dynamic"),
        ("type", json!("default"), "no scaling"),
        ("type", Value::Null, "no type"),
        ("type", json!(3), "a text is needed"),
        ("rope_type", json!("default"), "differ"),
        ("short_factor", json!(vec![1.0; 7]), "short_factor has 7"),
        ("short_factor", Value::Null, "short_factor is missing"),
        ("long_factor", json!(vec![0.0; 8]), "long_factor holds 0"),
        ("long_factor", json!(["NaN"]), "long_factor holds \"NaN\""),
        ("long_factor", json!("x"), "long_factor holds"),
        (
            "original_max_position_embeddings",
            Value::Null,
            "original_max_position_embeddings",
        ),
        ("attention_factor", json!(-1.0), "attention_factor"),
        ("attention_factor", json!("x"), "attention_factor"),
        ("factor", json!(8.0), "factor is 8"),
        ("short_mscale", json!(1.1), "short_mscale is 1.1"),
        ("mrope_section", json!([1, 2]), "mrope_section"),
        ("beta_fast", json!(32), "beta_fast"),
    ] {
        refused(&changed(key, value), says);
    }
    for (entries, says) in [
        (
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}),
            "yarn",
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
            "linear",
        ),
        (json!({"rope_scaling": {"factor": 2.0}}), "no type"),
        (
            json!({"rope_parameters": {"rope_type": "default", "factor": 2.0}}),
            "no scaling",
        ),
        (
            json!({"rope_scaling": "longrope"}),
            "rope_scaling is \"longrope\"",
        ),
        (json!({"rope_scaling": [1]}), "rope_scaling is [1]"),
        (
            json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}),
            "rope_theta",
        ),
        (
            json!({"partial_rotary_factor": 0.5, "rope_parameters": {"partial_rotary_factor": 1.0}}),
            "partial_rotary_factor",
        ),
        (
            json!({"original_max_position_embeddings": 2048, "rope_scaling": long}),
            "original_max_position_embeddings",
        ),
        (
            json!({"rope_scaling": long, "rope_parameters": {"rope_type": "default"}}),
            "type",
        ),
        (
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e6}}}),
            "kind of layer",
        ),
        (json!({"rope_theta": "NaN"}), "rope_theta is \"NaN\""),
        (json!({"rope_theta": 0.5}), "rope_theta"),
        (
            json!({"partial_rotary_factor": 1.5}),
            "partial_rotary_factor",
        ),
    ] {
        refused(&entries, says);
    }
    // What changes nothing is no reason.
    for entries in [
        json!({"rope_scaling": {}}),
        json!({"rope_scaling": {"type": "linear", "factor": 1.0}}),
        json!({"rope_parameters": {"rope_type": "default", "rope_theta": 10000, "beta_fast": null}}),
        json!({"rope_theta": 10000, "rope_parameters": {"rope_theta": 10000.0}}),
        json!({"original_max_position_embeddings": 4096}),
    ] {
        assert_eq!(
            read(&entries).unwrap(),
            read(&json!({})).unwrap(),
            "{entries}"
        );
    }
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() {
    for (entries, says) in [
        (json!({"attention_bias": true}), "attention_bias is true"),
        (json!({"mlp_bias": true}), "mlp_bias"),
        (json!({"lm_head_bias": true}), "lm_head_bias"),
        (
            json!({"attention_bias": "yes"}),
            "attention_bias is \"yes\"",
        ),
        (json!({"qk_layernorm": true}), "qk_layernorm"),
        (json!({"hidden_act": "gelu"}), "gelu"),
        (json!({"hidden_act": 4}), "hidden_act"),
        (json!({"hidden_activation": "gelu_new"}), "gelu_new"),
        (json!({"full_attn_mod": 2}), "full_attn_mod is 2"),
        (
            json!({"embedding_multiplier": 12.0}),
            "embedding_multiplier",
        ),
        (
            json!({"final_logit_softcapping": 30.0}),
            "final_logit_softcapping",
        ),
        (json!({"num_local_experts": 16}), "num_local_experts"),
        (
            json!({"query_pre_attn_scalar": 256}),
            "query_pre_attn_scalar",
        ),
        (json!({"clip_qkv": 8.0}), "clip_qkv"),
        (json!({"sliding_window": -1}), "sliding_window is -1"),
        (
            json!({"sliding_window": "2047"}),
            "sliding_window is \"2047\"",
        ),
        (
            json!({"sliding_window": 2047, "use_sliding_window": false}),
            "use_sliding_window",
        ),
        (
            json!({"sliding_window": 2047, "max_window_layers": 2}),
            "max_window_layers",
        ),
        (
            json!({"layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"]}),
            "layer_types",
        ),
        (
            json!({"layer_types": vec!["full_attention"; 3]}),
            "layer_types",
        ),
        (
            json!({"sliding_window": 9, "layer_types": vec!["full_attention"; 4]}),
            "layer_types",
        ),
        (json!({"rms_norm_eps": "NaN"}), "rms_norm_eps is \"NaN\""),
        (json!({"rms_norm_eps": 0}), "rms_norm_eps"),
        (json!({"tie_word_embeddings": "no"}), "tie_word_embeddings"),
        (json!({"vocab_size": 1u64 << 40}), "vocab_size"),
        (json!({"vocab_size": null}), "has no vocab_size"),
        (json!({"hidden_size": 0}), "hidden_size is 0"),
        (json!({"hidden_size": 32.5}), "hidden_size is 32.5"),
        (json!({"num_key_value_heads": 5}), "evenly"),
    ] {
        refused(&entries, says);
    }
}

#[test]
fn what_changes_nothing_is_read() {
    let plain = read(&json!({})).unwrap();
    for entries in [
        json!({"attention_dropout": 0.1, "resid_pdrop": 0.5, "embd_pdrop": 1.0}),
        json!({"attention_bias": false, "mlp_bias": null, "lm_head_bias": false}),
        json!({"full_attn_mod": 1, "interpolate_factor": 1, "embedding_multiplier": 1.0}),
        json!({"final_logit_softcapping": 0.0, "num_local_experts": 0, "clip_qkv": null}),
        json!({"hidden_act": "swish"}),
        json!({"hidden_act": null, "head_dim": null, "num_key_value_heads": null}),
        json!({"sliding_window": 0}),
        json!({"sliding_window": null, "use_sliding_window": true, "max_window_layers": 2}),
        json!({"layer_types": vec!["full_attention"; 4]}),
        json!({"hidden_size": 32.0, "max_position_embeddings": 4096.0}),
        json!({"quantization_config": null, "quantization": {}}),
        json!({"architectures": ["Phi3Custom", "Phi3ForCausalLM"]}),
        json!({"architectures": null, "model_type": null}),
        json!({"torch_dtype": "bfloat16", "use_cache": true, "auto_map": {"AutoConfig": "x"}, "other": [1]}),
        json!({"rope_theta": null, "rms_norm_eps": null}),
    ] {
        let config = read(&entries).unwrap_or_else(|e| panic!("{entries}: {e}"));
        assert_eq!(config, plain, "{entries}");
    }
    let windowed = read(&json!({"sliding_window": 2047})).unwrap();
    for more in [
        json!({"sliding_window": 2047.0}),
        json!({"sliding_window": 2047, "use_sliding_window": true, "max_window_layers": 0}),
        json!({"sliding_window": 2047, "layer_types": vec!["sliding_attention"; 4]}),
    ] {
        assert_eq!(read(&more).unwrap(), windowed, "{more}");
    }
    // As Python writes it, and as an editor saves it.
    let text = base().to_string();
    let python = text.replacen(
        '{',
        "\u{FEFF}{\"initializer_range\": NaN, \"max\": -Infinity,",
        1,
    );
    assert_eq!(Config::from_json(python.as_bytes()).unwrap(), plain);
}

#[test]
fn what_is_no_phi3_text_model_is_named_for_what_it_is() {
    for (entries, says) in [
        (
            json!({"model_type": "mistral"}),
            "model_type is \"mistral\"",
        ),
        (json!({"model_type": "phi"}), "Phi-2"),
        (json!({"model_type": "phimoe"}), "Phi-3.5-MoE"),
        (json!({"model_type": "phi3small"}), "Phi-3-small"),
        (
            json!({"model_type": "phi3_v", "img_processor": {}}),
            "Phi-3-vision",
        ),
        (json!({"model_type": "phi4mm"}), "Phi-4-multimodal"),
        (
            json!({"model_type": "x".repeat(100_000)}),
            "model_type is \"xxx",
        ),
        (
            json!({"model_type": "llava", "text_config": {"model_type": "phi3"}}),
            "llava",
        ),
        (json!({"text_config": {"hidden_size": 8}}), "text_config"),
        (json!({"vision_config": {}}), "images or sound"),
        (
            json!({"embd_layer": {"image_embd_layer": {}}}),
            "embd_layer",
        ),
        (
            json!({"architectures": ["LlamaForCausalLM"]}),
            "LlamaForCausalLM",
        ),
        (
            json!({"architectures": ["Phi3ForSequenceClassification"]}),
            "Phi3ForSequenceClassification",
        ),
        (
            json!({"quantization_config": {"quant_method": "awq", "bits": 4}}),
            "by awq",
        ),
        (
            json!({"quantization_config": {"quant_method": "gptq"}}),
            "by gptq",
        ),
        (
            json!({"quantization_config": {"_load_in_4bit": true, "load_in_4bit": true}}),
            "bitsandbytes",
        ),
        (
            json!({"quantization_config": {"quant_method": "bitsandbytes"}}),
            "bitsandbytes",
        ),
        (
            json!({"quantization_config": {"bits": 8}}),
            "an unnamed method",
        ),
        (
            json!({"quantization": {"group_size": 64, "bits": 4}}),
            "MLX",
        ),
        (
            json!({"compression_config": {"format": "int"}}),
            "compression_config",
        ),
        (
            json!({"peft_type": "LORA", "base_model_name_or_path": "microsoft/Phi-3"}),
            "\"microsoft/Phi-3\"",
        ),
        (json!({"lora_alpha": 16}), "merge_and_unload"),
        (
            json!({"model_type": "phi3", "model_config": {}, "quantization": "q4f16_1"}),
            "MLC",
        ),
        (json!({"_class_name": "UNet"}), "diffusion"),
    ] {
        refused(&entries, says);
    }
    for (text, says) in [
        ("{\"model\": {\"type\": \"phi3\"}, \"search\": {}}", "ONNX"),
        ("{\"peft_type\": \"LORA\"}", "adapter"),
        ("{\"tie_word_embeddings\": false}", "model_type"),
        ("{}", "model_type"),
        ("[]", "no JSON object"),
        ("7", "no JSON object"),
        ("{", "EOF"),
        ("<html>", "web page"),
        ("", "empty"),
    ] {
        let error = Config::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("config.json: "), "{error}");
        assert!(error.contains(says), "{says}: {error}");
    }
}
