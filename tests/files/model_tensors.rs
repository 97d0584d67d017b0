//! Tensors that a model's file has beside those of Phi-3.

use phi3_steer::checkpoint::Folder;
use phi3_steer::phi3::ModelFiles;
use pollster::block_on;
use serde_json::{Value, json};

const NANO: &[u8] = include_bytes!("../../models/nano/model.safetensors");
const CONFIG: &[u8] = include_bytes!("../../models/nano/config.json");

/// The nano model with one more tensor.
fn with(name: &str) -> Result<ModelFiles, String> {
    let (length, rest) = NANO.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let end = data.len();
    header[name] = json!({"dtype": "F32", "shape": [4], "data_offsets": [end, end + 16]});
    let mut header = header.to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let length = (header.len() as u64).to_le_bytes();
    let file = [&length, header.as_bytes(), data, &[0; 16]].concat();
    let files = vec![
        ("config.json".into(), CONFIG.to_vec()),
        ("model.safetensors".into(), file),
    ];
    block_on(ModelFiles::open(&Folder::memory("memory", files))).map_err(|e| e.to_string())
}

#[test]
fn a_tensor_that_would_change_the_numbers_is_refused_by_name() {
    for name in [
        "model.layers.0.self_attn.qkv_proj.bias",
        "model.layers.5.self_attn.q_norm.weight",
        "model.layers.2.mlp.down_proj.lora_A.weight",
        "model.layers.3.mlp.gate_up_proj.qweight",
        "lm_head.bias",
        "base_model.model.lora_B.weight",
    ] {
        let error = with(name).err().expect(name);
        assert!(error.contains(&format!("\"{name}\"")), "{error}");
    }
}

#[test]
fn a_tensor_that_changes_nothing_is_left_alone() {
    for name in [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        // Of a block that the configuration has not.
        "model.layers.6.self_attn.o_proj.weight",
        "optimizer.step",
    ] {
        with(name)
            .map(|_| ())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
