//! What the JavaScript API refuses, each with its code and a sentence: files, options, requests.
#![cfg(target_arch = "wasm32")]

mod support;

use rand::Rng;
use serde_json::{Value, json};
use support::checkpoint::RandomModel;
use support::engine::*;
use support::fresh_rng;
use support::small::*;
use wasm_bindgen_test::*;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

#[wasm_bindgen_test]
async fn requests_that_cannot_be_answered() {
    let engine = engine().await;
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let lanes = |messages: &[Value]| json!({"lanes": [{"messages": messages}], "maxTokens": 3});
    let long = "word ".repeat(CONTEXT);
    let cases = [
        (lanes(&[]), "empty-prompt"),
        (lanes(&[message("user", " \n ")]), "empty-prompt"),
        (
            lanes(&[message("user", "Hello"), message("assistant", "Hi")]),
            "empty-prompt",
        ),
        (lanes(&[message("user", &long)]), "context-full"),
        (lanes(&[message("robot", "Hello")]), "bad-request"),
        (json!({"lanes": "all"}), "bad-request"),
        (
            json!({"lanes": [{"messages": [message("user", "Hello")]}], "sampling": {"temperature": -1}}),
            "bad-request",
        ),
        (
            json!({"lanes": vec![json!({"messages": [message("user", "Hello")]}); 3]}),
            "bad-request",
        ),
        (
            json!({"lanes": [{"messages": [message("user", "Hello")]}],
                "track": {"hook": "layers.1", "feature": 0}}),
            "bad-steering",
        ),
        (
            json!({"lanes": [{"messages": [message("user", "Hello")]}], "logprobs": 21}),
            "bad-request",
        ),
    ];
    for (ask, code) in cases {
        let refused = chat(&engine, &ask).await.expect_err("a refusal");
        assert_eq!(refused.code, code, "{ask}: {}", refused.message);
    }

    let answer = start(&engine, &question("Hello", 5)).expect("an answer");
    let refused = start(&engine, &question("Hello", 5)).err().expect("busy");
    assert_eq!(refused.code, "busy");
    let features = engine
        .top_features("Hello".into(), HOOK.into(), 1.into())
        .await;
    assert_eq!(Refusal::of(features.err().expect("busy")).code, "busy");
    check_order(&answer.rest().await.expect("undisturbed"), 5);
    check_order(
        &chat(&engine, &question("Hello", 5))
            .await
            .expect("an answer"),
        5,
    );
}

#[wasm_bindgen_test]
async fn bad_files_are_refused() {
    let mut rng = fresh_rng();
    let random = random_model(&mut rng);
    let good = model_files(&random);
    let weights = random.safetensors();
    let with_weights = |bytes: Vec<u8>| replace(&good, "model.safetensors", bytes);
    let changed = |change: &mut dyn FnMut(&mut RandomModel)| {
        let mut other = random.clone();
        change(&mut other);
        with_weights(other.safetensors())
    };
    let config_with = |name: &str, value: Value| {
        let mut json = random.json.clone();
        json[name] = value;
        replace(&good, "config.json", json.to_string().into_bytes())
    };
    let norm = "model.norm.weight";
    let cut = rng.random_range(9..weights.len());
    let mut absurd = weights.clone();
    absurd[..8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    let mut corrupt = weights.clone();
    corrupt[8..40].fill(b'#');
    let cases = [
        (
            "cut short",
            with_weights(weights[..cut].to_vec()),
            "bad-checkpoint",
            "model.safetensors",
        ),
        (
            "cut to nothing",
            with_weights(Vec::new()),
            "bad-checkpoint",
            "model.safetensors",
        ),
        (
            "an absurd header",
            with_weights(absurd),
            "bad-checkpoint",
            "header",
        ),
        (
            "a corrupt header",
            with_weights(corrupt),
            "bad-checkpoint",
            "header",
        ),
        (
            "a missing tensor",
            changed(&mut |m| drop(m.tensors.remove(norm))),
            "missing-tensor",
            norm,
        ),
        (
            "another shape",
            changed(&mut |m| {
                let tensor = m.tensors.get_mut(norm).expect("a norm");
                tensor.shape = vec![WIDTH + 1];
                tensor.values.push(1.0);
            }),
            "wrong-shape",
            norm,
        ),
        (
            "a weight that is no number",
            changed(&mut |m| m.tensors.get_mut(norm).expect("a norm").values[5] = f32::NAN),
            "not-finite",
            norm,
        ),
        (
            "an infinite weight",
            changed(&mut |m| {
                let name = "model.layers.1.mlp.down_proj.weight";
                m.tensors.get_mut(name).expect("a matrix").values[97] = f32::INFINITY;
            }),
            "not-finite",
            "row 1, column 1",
        ),
        (
            "no weights",
            without(&good, "model.safetensors"),
            "not-found",
            "model.safetensors",
        ),
        (
            "no configuration",
            without(&good, "config.json"),
            "not-found",
            "config.json",
        ),
        (
            "another architecture",
            config_with("model_type", json!("gemma2")),
            "bad-config",
            "gemma2",
        ),
        (
            "an absurd size",
            config_with("hidden_size", json!(1 << 20)),
            "bad-config",
            "hidden_size",
        ),
        (
            "another size",
            config_with("hidden_size", json!(WIDTH * 2)),
            "wrong-shape",
            "shape",
        ),
        (
            "half a configuration",
            replace(&good, "config.json", b"{\"vocab_size\":".to_vec()),
            "bad-config",
            "config.json",
        ),
        (
            "no tokenizer",
            without(&good, "tokenizer.json"),
            "not-found",
            "tokenizer.json",
        ),
        (
            "half a tokenizer",
            replace(
                &good,
                "tokenizer.json",
                TOKENIZER[..TOKENIZER.len() / 2].to_vec(),
            ),
            "bad-tokenizer",
            "tokenizer",
        ),
        (
            "a tokenizer that is none",
            replace(&good, "tokenizer.json", b"[]".to_vec()),
            "bad-tokenizer",
            "tokenizer",
        ),
    ];
    for (what, files, code, word) in cases {
        let refused = load(&options(&files, None)).await;
        let refused = refused.err().unwrap_or_else(|| panic!("{what}: loaded"));
        assert_eq!(refused.code, code, "{what}: {}", refused.message);
        assert!(
            refused.message.contains(word),
            "{what}: {}",
            refused.message
        );
    }
    for (what, sae, code) in [
        (
            "a dictionary of another width",
            dictionary(&mut rng, WIDTH * 2).files(""),
            "wrong-dictionary",
        ),
        (
            "a dictionary without weights",
            without(&dictionary(&mut rng, WIDTH).files(""), "sae.safetensors"),
            "not-found",
        ),
        (
            "no dictionary",
            vec![("notes.txt".into(), b"none".to_vec())],
            "not-found",
        ),
        (
            "a dictionary of another kind",
            replace(
                &dictionary(&mut rng, WIDTH).files(""),
                "cfg.json",
                json!({"d_in": WIDTH, "k": 6, "num_latents": 100, "activation": "batchtopk"})
                    .to_string()
                    .into_bytes(),
            ),
            "bad-dictionary",
        ),
    ] {
        let refused = load(&options(&good, Some(&sae))).await;
        let refused = refused.err().unwrap_or_else(|| panic!("{what}: loaded"));
        assert_eq!(refused.code, code, "{what}: {}", refused.message);
    }
    let sae = dictionary(&mut rng, WIDTH).files("");
    for hook in ["layers.99", "somewhere", "blocks.0.hook_resid_pre"] {
        let options = options(&good, Some(&sae));
        set(&options, "saeHook", &js(&json!(hook)));
        let refused = load(&options).await;
        let refused = refused.err().unwrap_or_else(|| panic!("{hook}: loaded"));
        assert_eq!(refused.code, "bad-hook", "{hook}: {}", refused.message);
    }
    for (name, value) in [
        ("quant", json!("q3")),
        ("model", json!([])),
        ("model", json!(7)),
        ("lanes", json!("two")),
    ] {
        let options = options(&good, None);
        set(&options, name, &js(&value));
        let refused = load(&options).await.err().expect("a refusal");
        assert_eq!(
            refused.code, "bad-request",
            "{name} {value}: {}",
            refused.message
        );
    }
    let engine = load(&options(&good, None))
        .await
        .expect("an engine after all that");
    check_order(
        &chat(&engine, &question("Hello", 3))
            .await
            .expect("an answer"),
        3,
    );
    engine.dispose();
}
