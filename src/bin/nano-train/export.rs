//! Checkpoints, and the shipped files in the layouts of Hugging Face and of EleutherAI's sparsify.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use half::bf16;
use phi3_steer::tokens::{Message, Role};
use rand::{SeedableRng, rngs::StdRng};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde_json::{Value, json};

use crate::Result;
use crate::corpus::Tables;
use crate::model::{Config, Model};
use crate::optim::Optimizer;
use crate::tokenizer::ChatTokenizer;

fn bytes(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// A tensor of a safetensors file to be written.
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Entry {
    /// An `f32` tensor.
    pub fn f32(name: impl Into<String>, shape: &[usize], values: &[f32]) -> Self {
        Self {
            name: name.into(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes: bytes(values),
        }
    }
}

/// Writes a safetensors file by way of a temporary one, so that a reader never sees half of it.
pub fn write_safetensors(
    path: &Path,
    entries: Vec<Entry>,
    note: Option<(&str, String)>,
) -> Result<()> {
    let views = entries
        .iter()
        .map(|e| {
            Ok((
                e.name.clone(),
                TensorView::new(e.dtype, e.shape.clone(), &e.bytes)?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    metadata.extend(note.map(|(k, v)| (k.to_string(), v)));
    let temporary = path.with_extension("partial");
    serialize_to_file(views, Some(metadata), &temporary)?;
    Ok(fs::rename(temporary, path)?)
}

/// Writes indented JSON with a final newline.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    Ok(fs::write(
        path,
        serde_json::to_string_pretty(value)? + "\n",
    )?)
}

/// Dialogues that a dictionary is trained on.
const CHATS: usize = 12_000;

/// Writes fresh training dialogues, a list of messages a line.
pub fn write_chats(path: &Path, tables: &Tables, seed: u64) -> Result<()> {
    // Other dialogues than the model's own.
    let mut rng = StdRng::seed_from_u64(seed ^ 0xc4a7);
    let mut lines = String::new();
    for _ in 0..CHATS {
        let dialogue = tables.dialogue(&mut rng);
        let message = |role, content| Message { role, content };
        let system = dialogue.system.map(|text| message(Role::System, text));
        let mut messages = Vec::from_iter(system);
        for (user, assistant) in dialogue.turns {
            messages.push(message(Role::User, user));
            messages.push(message(Role::Assistant, assistant));
        }
        lines += &(serde_json::to_string(&messages)? + "\n");
    }
    Ok(fs::write(path, lines)?)
}

/// Writes parameters and optimiser state.
pub fn write_checkpoint(path: &Path, model: &Model, optimizer: &Optimizer) -> Result<()> {
    let mut entries = Vec::new();
    for (name, var) in model.named() {
        entries.push(Entry::f32(
            name,
            var.dims(),
            &var.flatten_all()?.to_vec1::<f32>()?,
        ));
    }
    let (step, state) = optimizer.state();
    entries.extend(
        state
            .into_iter()
            .map(|(name, values)| Entry::f32(name, &[values.len()], values)),
    );
    write_safetensors(path, entries, Some(("step", step.to_string())))
}

/// Reads what [`write_checkpoint`] wrote; the number of steps done.
pub fn read_checkpoint(path: &Path, model: &Model, optimizer: &mut Optimizer) -> Result<usize> {
    let file = fs::read(path)?;
    let find = read_parameters(&file, model)?;
    let (_, header) = SafeTensors::read_metadata(&file)?;
    let step = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get("step"))
        .ok_or("the checkpoint has no step")?;
    let step: i32 = step.parse()?;
    optimizer.restore(step, |name| floats(&find, name))?;
    Ok(step as usize)
}

/// A tensor of a file as `f32`.
pub fn floats(file: &SafeTensors, name: &str) -> Result<Vec<f32>> {
    let t = file.tensor(name)?;
    Ok(match t.dtype() {
        Dtype::F32 => bytemuck::pod_collect_to_vec(t.data()),
        Dtype::BF16 => bytemuck::pod_collect_to_vec::<u8, bf16>(t.data())
            .iter()
            .map(|v| v.to_f32())
            .collect(),
        other => return Err(format!("{name} is {other:?}, not F32 or BF16").into()),
    })
}

/// Reads a model's parameters from a checkpoint or a shipped `model.safetensors`.
pub fn read_parameters<'a>(file: &'a [u8], model: &Model) -> Result<SafeTensors<'a>> {
    let parsed = SafeTensors::deserialize(file)?;
    for (name, var) in model.named() {
        var.set(&Tensor::from_vec(
            floats(&parsed, &name)?,
            var.dims(),
            &Device::Cpu,
        )?)?;
    }
    Ok(parsed)
}

/// Writes `config.json` and `model.safetensors` in bf16.
pub fn write_model(out: &Path, model: &Model, tokenizer: &ChatTokenizer) -> Result<()> {
    let mut entries = Vec::new();
    for (name, var) in model.named() {
        let values: Vec<bf16> = var
            .flatten_all()?
            .to_vec1::<f32>()?
            .into_iter()
            .map(bf16::from_f32)
            .collect();
        let bytes = bytemuck::cast_slice(&values).to_vec();
        entries.push(Entry {
            name,
            dtype: Dtype::BF16,
            shape: var.dims().to_vec(),
            bytes,
        });
    }
    write_safetensors(&out.join("model.safetensors"), entries, None)?;
    write_json(&out.join("config.json"), &config(&model.config, tokenizer))
}

fn config(c: &Config, tokenizer: &ChatTokenizer) -> Value {
    json!({
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.bos,
        "dtype": "bfloat16",
        "embd_pdrop": 0.0,
        "eos_token_id": [tokenizer.end, tokenizer.endoftext],
        "hidden_act": "silu",
        "hidden_size": c.hidden,
        "initializer_range": 0.02,
        "intermediate_size": c.inner,
        "max_position_embeddings": c.positions,
        "model_type": "phi3",
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.heads,
        "original_max_position_embeddings": c.positions,
        "pad_token_id": tokenizer.endoftext,
        // One request less for who opens it at an address.
        "phi3_steer": { "no_generation_config": true, "quantization": "q4" },
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-5,
        "rope_scaling": null,
        "rope_theta": c.theta,
        "sliding_window": null,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "use_cache": true,
        "vocab_size": c.vocab,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use phi3_steer::checkpoint::Folder;
    use phi3_steer::generate::{TraceRequest, Traced, bare_prompt, trace};
    use phi3_steer::gpu::{Gpu, GpuOptions};
    use phi3_steer::matrix::Format;
    use phi3_steer::phi3::{self, CacheFormat, MAX_ROWS, ModelFiles, ModelOptions, Precision};
    use phi3_steer::steering::Steering;
    use rand::Rng;

    use super::*;
    use crate::model::{NANO, normal};
    use crate::ops::with_slice;

    /// What is trained is what the engine computes: one file, both forward passes.
    #[test]
    fn the_engine_computes_what_was_trained() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let rng = &mut StdRng::seed_from_u64(seed);
        let config = Config {
            hidden: 64,
            heads: 2,
            head_dim: 32,
            layers: 3,
            inner: 96,
            ..NANO
        };
        let model = Model::new(config, seed).unwrap();
        for (_, var) in model.named() {
            // As they are written, and large enough to differ.
            let scale = if var.dims().len() == 1 { 1.0 } else { 0.3 };
            let values: Vec<f32> = (0..var.elem_count())
                .map(|_| bf16::from_f32(scale * normal(rng)).to_f32())
                .collect();
            var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap())
                .unwrap();
        }
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano/tokenizer.json");
        let folder = tempfile::tempdir().unwrap();
        write_model(folder.path(), &model, &ChatTokenizer::load(&nano).unwrap()).unwrap();

        let ids: Vec<u32> = (0..23).map(|_| rng.random_range(0..3072)).collect();
        let wanted = model.forward(&ids, 1, ids.len(), &[]).unwrap();
        let wanted = with_slice(&wanted, |logits| logits.to_vec()).unwrap();
        let found = pollster::block_on(logits(folder.path(), ids));
        assert_eq!(found.len(), wanted.len());
        let largest = wanted
            .iter()
            .fold(0.0, |most: f32, logit| most.max(logit.abs()));
        assert!(largest > 1.0, "{largest}");
        for (index, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            let error = (found - wanted).abs();
            assert!(error < 1e-3 * largest, "{index}: {found}, not {wanted}");
        }
    }

    /// The engine's logits, `[ids, vocab]`.
    async fn logits(folder: &Path, ids: Vec<u32>) -> Vec<f32> {
        let gpu = Rc::new(Gpu::open(&GpuOptions::default()).await.unwrap());
        let ModelFiles {
            config, checkpoint, ..
        } = &ModelFiles::open(&Folder::directory(folder)).await.unwrap();
        let options = ModelOptions {
            precision: Precision::All(Format::F32),
            cache: CacheFormat::F32,
            ..ModelOptions::default()
        };
        let mut model = phi3::Model::from_checkpoint(gpu, config.clone(), checkpoint, options)
            .await
            .unwrap();
        let request = TraceRequest {
            prompts: &[bare_prompt(ids, None)],
            logits: &|_, _| true,
            residual: &[],
            chunk: MAX_ROWS,
            cancel: &Cell::new(false),
        };
        let mut all = Vec::new();
        let mut take = |traced: Traced<'_>| {
            if let Traced::Logits { logits, .. } = traced {
                all.extend_from_slice(logits);
            }
        };
        let steering = Steering::new(&model, Vec::new()).await.unwrap();
        trace(&mut model, &steering, &request, &mut take)
            .await
            .unwrap();
        all
    }
}
