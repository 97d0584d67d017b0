//! How often a model and its dictionary are asked for: files are read in one go each, from front to back.

use std::collections::BTreeMap;
use std::path::Path;

use half::bf16;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::dist;
use crate::file::{File, Stored};
use crate::server::Server;
use crate::vocabulary::Vocabulary;

/// Loads a model with the page's own engine, and answers.
const LOAD: &str = "
    const { Engine } = await import(new URL('www/engine-client.js', location).href);
    const engine = await Engine.load(given[0]);
    const messages = [{ role: 'user', content: 'What is the capital of France?' }];
    let text = '';
    for await (const event of engine.chat({ lanes: [{ messages }], maxTokens: 8 })) {
        if (event.type === 'token') text += event.text;
    }
    await engine.dispose();
    return text;";

/// Loads a model that cannot be loaded, and says why.
const FAILS: &str = "
    const { Engine } = await import(new URL('www/engine-client.js', location).href);
    const engine = await Engine.load(given[0]).catch((error) => error);
    if (engine instanceof Error) return engine.message;
    await engine.dispose();
    return 'it was loaded';";

/// The nano model as one GGUF file, its weights as they are.
fn gguf(nano: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(nano.join("model.safetensors"))?;
    let weights = SafeTensors::deserialize(&bytes)?;
    let config: Value = serde_json::from_slice(&std::fs::read(nano.join("config.json"))?)?;
    let number = |name: &str| config[name].as_u64().unwrap_or(0) as u32;
    let mut file = File::default();
    file.key("general.architecture", Stored::text("phi3"));
    for (key, name) in [
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("block_count", "num_hidden_layers"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
    ] {
        file.key(&format!("phi3.{key}"), Stored::u32(number(name)));
    }
    file.key("phi3.attention.layer_norm_rms_epsilon", Stored::f32(1e-5));
    Vocabulary::nano().write(&mut file);
    let kinds = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("self_attn.qkv_proj", "attn_qkv"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    for (name, tensor) in weights.tensors() {
        let own = kinds
            .iter()
            .fold(name, |n, (long, short)| n.replace(long, short));
        let (kind, data) = match tensor.shape() {
            [_] => {
                let halves = tensor.data().chunks_exact(2);
                let values = halves.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32());
                (0, values.flat_map(f32::to_le_bytes).collect())
            }
            _ => (30, tensor.data().to_vec()),
        };
        file.tensor(&own, tensor.shape(), kind, &data);
    }
    Ok(file.bytes())
}

/// How often each file under `folder` was asked for, of the requests from `from` on.
fn asked(server: &Server, from: usize, folder: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for path in &server.seen()[from..] {
        if let Some(name) = path.strip_prefix(folder) {
            *counts.entry(name.to_string()).or_default() += 1;
        }
    }
    counts
}

/// Every file once.
#[tokio::test]
async fn built_page_reads_files_in_one_go() -> Result {
    let dist = dist()?;
    let nano = dist.join("models/nano");
    let front = tempfile::tempdir()?;
    std::fs::write(
        front.path().join("plain.html"),
        "<!doctype html><title>plain</title>",
    )?;
    std::fs::write(front.path().join("nano.gguf"), gguf(&nano)?)?;
    let server = Server::start_with(&dist, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    browser
        .client
        .goto(&format!("{}plain.html", server.url()))
        .await?;
    let load = async |options: Value| -> Result<(String, usize)> {
        let from = server.seen().len();
        let text = browser.run(LOAD, vec![options]).await?;
        Ok((text.as_str().unwrap_or_default().into(), from))
    };

    // A folder: what a model is described by, and its weights, in at most four requests.
    let url = |path: &str| format!("{}{path}", server.url());
    let (folder_said, from) = load(json!({ "model": url("models/nano/") })).await?;
    let counts = asked(&server, from, "models/nano/");
    println!("{counts:?}");
    let described = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let once = described.map(|file| (file.to_string(), 1));
    assert_eq!(counts, BTreeMap::from(once));

    // A folder whose configuration does not say that it says all, or no longer: what is beside it counts.
    for (folder, change) in [
        ("plain", json!({ "phi3_steer": null })),
        (
            "less",
            json!({ "phi3_steer": { "no_generation_config": 1 } }),
        ),
        ("saved", json!({ "transformers_version": "4.57.1" })),
    ] {
        let place = front.path().join(folder);
        std::fs::create_dir(&place)?;
        for file in [
            "tokenizer.json",
            "tokenizer_config.json",
            "model.safetensors",
        ] {
            std::fs::copy(nano.join(file), place.join(file))?;
        }
        let config = std::fs::read(nano.join("config.json"))?;
        let mut config: BTreeMap<String, Value> = serde_json::from_slice(&config)?;
        config.extend(change.as_object().cloned().unwrap_or_default());
        std::fs::write(place.join("config.json"), serde_json::to_vec(&config)?)?;
        let broken = br#"{ "eos_token_id": "<|end|>" }"#;
        std::fs::write(place.join("generation_config.json"), broken)?;
        let from = server.seen().len();
        let options = json!({ "model": url(&format!("{folder}/")) });
        let said = browser.run(FAILS, vec![options]).await?;
        let said = said.as_str().unwrap_or_default();
        assert!(said.contains("generation_config.json"), "{folder}: {said}");
        let counts = asked(&server, from, &format!("{folder}/"));
        assert_eq!(counts.get("generation_config.json"), Some(&1), "{folder}");
    }

    // One file.
    let (gguf_said, from) = load(json!({ "model": url("nano.gguf") })).await?;
    assert_eq!(
        server.seen()[from..]
            .iter()
            .filter(|p| p.contains("nano.gguf"))
            .count(),
        1
    );
    assert_eq!(gguf_said, folder_said);

    // A dictionary, by its folder: its configuration, and its tensors in at most three runs.
    let both = json!({ "model": url("nano.gguf"), "sae": url("models/nano/sae/layers.3/") });
    let (_, from) = load(both).await?;
    let counts = asked(&server, from, "models/nano/sae/layers.3/");
    println!("{counts:?}");
    assert_eq!(counts.get("cfg.json"), Some(&1), "{counts:?}");
    assert!(counts["sae.safetensors"] <= 3, "{counts:?}");
    assert_eq!(counts.len(), 2, "{counts:?}");
    browser.close().await
}
