//! Random small checkpoints in the layouts of published files, against candle's Llama and against the same
//! numbers in the model's own layout.

use std::collections::HashMap;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use candle_transformers::models::llama;
use half::{bf16, f16};
use phi3_steer::checkpoint::{Checkpoint, Folder, Gguf, MemorySource};
use phi3_steer::matrix::Format;
use phi3_steer::phi3::Config;
use phi3_steer::quant::Planes;
use pollster::block_on;
use rand::Rng;
use rand::rngs::StdRng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::gguf::{File, Stored};
use super::support::checkpoint::{RandomModel, Tensor, config};
use super::support::{assert_near, fresh_rng};
use super::{load, logits};

/// Matrices that files of Llama have in parts: name, parts.
const FUSED: [(&str, &[&str]); 2] = [
    (
        "self_attn.qkv_proj",
        &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ),
    ("mlp.gate_up_proj", &["mlp.gate_proj", "mlp.up_proj"]),
];

/// `config.json` of a small model; `change` replaces entries.
fn llama(change: Value) -> Value {
    let mut all = config(json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-6,
    }));
    if let (Some(all), Value::Object(change)) = (all.as_object_mut(), change) {
        all.extend(change);
    }
    all
}

/// Sizes that are odd ones: shared keys, a tied head, widths that no block of 256 divides.
fn cases() -> [Value; 3] {
    [
        llama(
            json!({"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2,
                     "head_dim": 16, "intermediate_size": 132, "tie_word_embeddings": true}),
        ),
        llama(
            json!({"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1,
                     "head_dim": 64, "rope_theta": 500_000.0, "max_position_embeddings": 4096,
                     "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
        ),
        llama(
            json!({"hidden_size": 144, "num_attention_heads": 3, "num_key_value_heads": 3,
                     "head_dim": 48, "intermediate_size": 96, "num_hidden_layers": 3}),
        ),
    ]
}

/// Rows of a block's query, key, value, gate and up projection.
fn part_rows(c: &Config, part: &str) -> usize {
    match part {
        "self_attn.q_proj" => c.num_attention_heads * c.head_dim,
        "self_attn.k_proj" | "self_attn.v_proj" => c.num_key_value_heads * c.head_dim,
        _ => c.intermediate_size,
    }
}

/// The tensors as a file of Llama has them.
fn unfused(model: &RandomModel) -> HashMap<String, Tensor> {
    let mut all = HashMap::new();
    for (name, tensor) in &model.tensors {
        let Some((fused, parts)) = FUSED.iter().find(|(fused, _)| name.contains(fused)) else {
            all.insert(name.clone(), tensor.clone());
            continue;
        };
        let (columns, mut from) = (tensor.shape[1], 0);
        for part in *parts {
            let rows = part_rows(&model.config, part);
            let values = tensor.values[from * columns..(from + rows) * columns].to_vec();
            from += rows;
            let shape = vec![rows, columns];
            all.insert(name.replace(fused, part), Tensor { shape, values });
        }
    }
    all
}

/// A safetensors file with these tensors, in f32 but for those that `half` chooses, which are in bf16.
fn safetensors(tensors: &HashMap<String, Tensor>, half: impl Fn(&str) -> bool) -> Vec<u8> {
    let stored = |name: &str, tensor: &Tensor| match half(name) {
        true => {
            let halves = tensor.values.iter();
            let halves = halves.flat_map(|v| bf16::from_f32(*v).to_le_bytes());
            (Dtype::BF16, halves.collect::<Vec<u8>>())
        }
        false => {
            let bytes = tensor.values.iter().flat_map(|v| v.to_le_bytes());
            (Dtype::F32, bytes.collect())
        }
    };
    let all: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name, &tensor.shape, stored(name, tensor)))
        .collect();
    let views = all.iter().map(|(name, shape, (dtype, bytes))| {
        let view = TensorView::new(*dtype, shape.to_vec(), bytes);
        (*name, view.expect("shape and bytes agree"))
    });
    safetensors::serialize(views, None).expect("a file")
}

fn folder(json: &Value, weights: Vec<u8>) -> Folder {
    Folder::memory(
        "a random model",
        vec![
            ("config.json".into(), json.to_string().into_bytes()),
            ("model.safetensors".into(), weights),
        ],
    )
}

/// A matrix as it lies on the GPU.
fn planes(checkpoint: &Checkpoint, name: &str, shape: [usize; 2], format: Format) -> Planes {
    let mut reader = checkpoint.planes(name, shape, format).expect("is there");
    let mut all = Planes::new(reader.format());
    while let Some((_, planes)) = block_on(reader.next()).expect("is read") {
        all.words.extend(&planes.words);
        all.side.extend(&planes.side);
    }
    all
}

#[test]
fn parts_in_a_file_make_the_matrices_of_the_model() {
    let mut rng = fresh_rng();
    for json in cases() {
        let model = RandomModel::new(&mut rng, json.clone());
        let open = |bytes| {
            block_on(Checkpoint::from_source(
                MemorySource::new("m", bytes).into(),
            ))
        };
        let fused = open(model.safetensors()).expect("a file");
        // Some parts in another type, which holds their numbers as they are.
        let halves = |name: &str| name.contains("k_proj") || name.contains("gate_proj");
        let parts = open(safetensors(&unfused(&model), halves)).expect("a file");
        assert!(parts.names().eq(fused.names()));
        for (name, tensor) in &model.tensors {
            let [rows, columns] = tensor.shape[..] else {
                continue;
            };
            for format in [Format::F32, Format::Q4, Format::Q8] {
                let shape = [rows, columns];
                assert_eq!(
                    planes(&parts, name, shape, format),
                    planes(&fused, name, shape, format),
                    "{name} {format:?}"
                );
            }
        }
    }
}

/// candle's logits after every token.
fn candle(model: &RandomModel, json: &Value, ids: &[u32]) -> Vec<Vec<f64>> {
    let c = &model.config;
    assert_eq!(
        c.head_dim,
        c.hidden_size / c.num_attention_heads,
        "candle's"
    );
    let scaling = &json["rope_scaling"];
    let number = |key: &str| scaling[key].as_f64().expect("a number") as f32;
    let config = llama::Config {
        hidden_size: c.hidden_size,
        intermediate_size: c.intermediate_size,
        vocab_size: c.vocab_size,
        num_hidden_layers: c.num_hidden_layers,
        num_attention_heads: c.num_attention_heads,
        num_key_value_heads: c.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: c.rms_norm_eps,
        rope_theta: c.rope_theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: scaling.is_object().then(|| llama::Llama3RopeConfig {
            factor: number("factor"),
            low_freq_factor: number("low_freq_factor"),
            high_freq_factor: number("high_freq_factor"),
            original_max_position_embeddings: number("original_max_position_embeddings") as usize,
            rope_type: llama::Llama3RopeType::Llama3,
        }),
        max_position_embeddings: c.max_position_embeddings,
        tie_word_embeddings: c.tie_word_embeddings,
    };
    let tensors = unfused(model).into_iter().map(|(name, tensor)| {
        let Tensor { shape, values } = tensor;
        let tensor = candle_core::Tensor::from_vec(values, &shape[..], &Device::Cpu);
        (name, tensor.expect("a tensor"))
    });
    let weights = VarBuilder::from_tensors(tensors.collect(), DType::F32, &Device::Cpu);
    let candle = llama::Llama::load(weights, &config).expect("a model");
    let cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu);
    let mut cache = cache.expect("a cache");
    let step = |(at, id): (usize, &u32)| {
        let input = candle_core::Tensor::new(&[[*id]], &Device::Cpu).expect("a token");
        let logits = candle.forward(&input, at, &mut cache).expect("runs");
        let logits: Vec<f32> = logits
            .flatten_all()
            .and_then(|l| l.to_vec1())
            .expect("logits");
        logits.into_iter().map(f64::from).collect()
    };
    ids.iter().enumerate().map(step).collect()
}

#[test]
fn logits_are_those_of_candles_llama() {
    let mut rng = fresh_rng();
    for json in cases() {
        let model = RandomModel::new(&mut rng, json.clone());
        let ids = model.tokens(&mut rng, 90);
        let weights = safetensors(&unfused(&model), |_| false);
        let ours = logits(&mut load(&folder(&json, weights), Format::F32), &ids);
        for (at, (ours, theirs)) in ours.iter().zip(candle(&model, &json, &ids)).enumerate() {
            assert_near(ours, &theirs, 5e-5, &format!("token {at} of {json}"));
        }
    }
}

/// Blocks of 32 random weights of a GGUF encoding, and the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blocks {
    Q4_0,
    Q4_1,
    Q8_0,
    F16,
}

impl Blocks {
    /// The number of the encoding in files.
    fn code(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 8,
        }
    }

    /// A row of `columns` weights of about the size `most`.
    fn row(self, rng: &mut StdRng, columns: usize, most: f32) -> (Vec<u8>, Vec<f32>) {
        let (mut bytes, mut weights) = (Vec::new(), Vec::new());
        if self == Self::F16 {
            for _ in 0..columns {
                let weight = f16::from_f32(rng.random_range(-most..most));
                bytes.extend(weight.to_le_bytes());
                weights.push(weight.to_f32());
            }
            return (bytes, weights);
        }
        for _ in 0..columns / 32 {
            let size = if self == Self::Q8_0 {
                most / 127.0
            } else {
                most / 8.0
            };
            let scale = f16::from_f32(size * rng.random_range(0.5..1.0f32));
            bytes.extend(scale.to_le_bytes());
            let minimum = f16::from_f32(-8.0 * size * rng.random_range(0.5..1.0f32));
            if self == Self::Q4_1 {
                bytes.extend(minimum.to_le_bytes());
            }
            if self == Self::Q8_0 {
                let levels: Vec<i8> = (0..32).map(|_| rng.random_range(-127..=127)).collect();
                bytes.extend(levels.iter().map(|level| *level as u8));
                weights.extend(levels.iter().map(|l| scale.to_f32() * f32::from(*l)));
                continue;
            }
            let levels: Vec<u8> = (0..32).map(|_| rng.random_range(0..16)).collect();
            bytes.extend((0..16).map(|i| levels[i] | levels[i + 16] << 4));
            weights.extend(levels.iter().map(|level| match self {
                Self::Q4_1 => scale.to_f32() * f32::from(*level) + minimum.to_f32(),
                _ => scale.to_f32() * (f32::from(*level) - 8.0),
            }));
        }
        (bytes, weights)
    }
}

/// llama.cpp's order of the rows of a query or key: `weights.reshape(heads, 2, head / 2,
/// ...).swapaxes(1, 2)`; the row of the model that stands at each place.
fn turned(rows: usize, head: usize) -> Vec<usize> {
    let place = |row: usize| {
        let (own, within) = (row / head, row % head);
        let (pair, half) = (within / 2, within % 2);
        own * head + half * (head / 2) + pair
    };
    (0..rows).map(place).collect()
}

#[test]
fn gguf_files_have_turned_rows_and_parts_stored_differently() {
    use Blocks::{F16, Q4_0, Q4_1, Q8_0};
    let mut rng = fresh_rng();
    // Query, key, value, gate, up, down: alike, as mixes have them, and at odds.
    for (mix, tied) in [
        ([Q4_1; 6], true),
        ([Q4_0, Q4_0, Q8_0, Q4_1, Q4_1, Q8_0], false),
        ([Q4_0, Q4_1, Q8_0, Q4_0, Q8_0, Q4_1], true),
        ([F16, F16, F16, F16, F16, Q4_0], false),
        ([Q8_0, Q4_1, F16, Q4_0, Q4_1, Q4_0], false),
    ] {
        let json = llama(json!({
            "hidden_size": 160, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 32,
            "intermediate_size": 96, "tie_word_embeddings": tied, "vocab_size": 75, "rope_theta": 100_000.0,
            "rms_norm_eps": 1e-5,
        }));
        let mut model = RandomModel::new(&mut rng, json.clone());
        let c = model.config.clone();
        let mut file = File::default();
        file.key("general.architecture", Stored::text("llama"));
        for (key, value) in [
            ("context_length", c.max_position_embeddings),
            ("embedding_length", c.hidden_size),
            ("feed_forward_length", c.intermediate_size),
            ("block_count", c.num_hidden_layers),
            ("attention.head_count", c.num_attention_heads),
            ("attention.head_count_kv", c.num_key_value_heads),
            ("rope.dimension_count", c.head_dim),
            ("vocab_size", c.vocab_size),
        ] {
            file.key(&format!("llama.{key}"), Stored::u32(value as u32));
        }
        file.key("llama.attention.layer_norm_rms_epsilon", Stored::f32(1e-5));
        file.key("llama.rope.freq_base", Stored::f32(100_000.0));
        let mut matrix = |name: String, rows: usize, columns: usize, blocks: Blocks, turn: bool| {
            let order: Vec<usize> = match turn {
                true => turned(rows, c.head_dim),
                false => (0..rows).collect(),
            };
            let most = (3.0 / columns as f32).sqrt();
            let made: Vec<_> = (0..rows)
                .map(|_| blocks.row(&mut rng, columns, most))
                .collect();
            let bytes: Vec<u8> = order.iter().flat_map(|row| made[*row].0.clone()).collect();
            file.tensor(&name, &[rows, columns], blocks.code(), &bytes);
            made.into_iter()
                .flat_map(|(_, weights)| weights)
                .collect::<Vec<f32>>()
        };
        let (d, width) = (c.hidden_size, c.attention_width());
        let kv = c.num_key_value_heads * c.head_dim;
        let mut set = |name: &str, values: Vec<f32>| {
            let tensor = model.tensors.get_mut(name).expect("a tensor");
            assert_eq!(tensor.values.len(), values.len(), "{name}");
            tensor.values = values;
        };
        let embed = matrix("token_embd.weight".into(), c.vocab_size, d, Q8_0, false);
        set("model.embed_tokens.weight", embed);
        if !tied {
            let head = matrix("output.weight".into(), c.vocab_size, d, Q8_0, false);
            set("lm_head.weight", head);
        }
        let inner = c.intermediate_size;
        for i in 0..c.num_hidden_layers {
            let own = |name: &str| format!("blk.{i}.{name}.weight");
            let all = |name: &str| format!("model.layers.{i}.{name}.weight");
            let qkv = [
                matrix(own("attn_q"), width, d, mix[0], true),
                matrix(own("attn_k"), kv, d, mix[1], true),
                matrix(own("attn_v"), kv, d, mix[2], false),
            ];
            set(&all("self_attn.qkv_proj"), qkv.concat());
            let gate = matrix(own("ffn_gate"), inner, d, mix[3], false);
            let up = matrix(own("ffn_up"), inner, d, mix[4], false);
            set(&all("mlp.gate_up_proj"), [gate, up].concat());
            let down = matrix(own("ffn_down"), d, inner, mix[5], false);
            set(&all("mlp.down_proj"), down);
            let o = matrix(own("attn_output"), d, width, Q4_0, false);
            set(&all("self_attn.o_proj"), o);
        }
        for (name, own) in [("model.norm", "output_norm".to_string())]
            .into_iter()
            .map(|(n, o)| (n.to_string(), o))
            .chain((0..c.num_hidden_layers).flat_map(|i| {
                [
                    (
                        format!("model.layers.{i}.input_layernorm"),
                        format!("blk.{i}.attn_norm"),
                    ),
                    (
                        format!("model.layers.{i}.post_attention_layernorm"),
                        format!("blk.{i}.ffn_norm"),
                    ),
                ]
            }))
        {
            let values = model.tensor(&format!("{name}.weight"));
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            file.tensor(&format!("{own}.weight"), &[d], 0, &bytes);
        }
        let bytes = file.bytes();
        let gguf = block_on(Gguf::open(
            MemorySource::new("m.gguf", bytes.clone()).into(),
        ));
        let (from_file, _) = block_on(Config::from_gguf(&gguf.expect("a file"))).expect("a model");
        assert_eq!(from_file, c);
        let ids = model.tokens(&mut rng, 24);
        // What the file has in f16 stays as it is.
        let files = Folder::memory("a file", vec![("m.gguf".into(), bytes)]);
        let ours = logits(&mut load(&files, Format::F32), &ids);
        let reference = candle(&model, &json, &ids);
        // Gate and up that no format keeps together, each within half a step of 8 bits.
        let exact = mix[3..5] != [Q4_1, Q8_0] && mix[3..5] != [Q4_0, Q8_0];
        let tolerance = if exact || mix[3] == Q4_0 { 5e-5 } else { 2e-2 };
        for (at, (ours, theirs)) in ours.iter().zip(reference).enumerate() {
            assert_near(ours, &theirs, tolerance, &format!("token {at} of {mix:?}"));
        }
    }
}

#[test]
fn what_changes_the_numbers_is_refused_by_name() {
    let mut rng = fresh_rng();
    for (change, words) in [
        (json!({"attention_bias": true}), "attention_bias"),
        (json!({"hidden_act": "gelu"}), "Llama uses \"silu\""),
        (
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
            "\"yarn\"",
        ),
        (
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}),
            "low_freq_factor is missing",
        ),
        (
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
            "above that",
        ),
        (
            json!({"architectures": ["MistralForCausalLM"]}),
            "MistralForCausalLM",
        ),
    ] {
        let json = llama(change);
        let error = Config::from_json(json.to_string().as_bytes()).expect_err("is refused");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    // Phi-3 has no such scaling.
    let phi3 = config(
        json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
    );
    let error = Config::from_json(phi3.to_string().as_bytes()).expect_err("is refused");
    assert!(error.to_string().contains("\"llama3\""), "{error}");
    // Parts with a bias, and one part twice.
    let json = llama(json!({}));
    let model = RandomModel::new(&mut rng, json.clone());
    let mut tensors = unfused(&model);
    let bias = Tensor {
        shape: vec![96],
        values: vec![0.0; 96],
    };
    tensors.insert("model.layers.0.self_attn.q_proj.bias".into(), bias);
    let files = folder(&json, safetensors(&tensors, |_| false));
    let error = block_on(phi3_steer::phi3::ModelFiles::open(&files)).err();
    let error = error.expect("is refused").to_string();
    assert!(error.contains("q_proj.bias"), "{error}");
    let mut tensors = unfused(&model);
    let name = "model.layers.1.self_attn.qkv_proj.weight";
    tensors.insert(name.into(), model.tensors[name].clone());
    let files = folder(&json, safetensors(&tensors, |_| false));
    let error = block_on(phi3_steer::phi3::ModelFiles::open(&files)).err();
    let error = error.expect("is refused").to_string();
    assert!(error.contains("the same matrix"), "{error}");
}
