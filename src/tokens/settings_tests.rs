//! What the files beside `tokenizer.json` say.

use pollster::block_on;
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::tests::{NANO, changed, seeded};
use super::*;
use crate::checkpoint::Folder;

/// The tokens of the nano model that end an answer whatever is said beside: those of text and turns.
const OWN: [u32; 6] = [2, 3067, 3068, 3069, 3070, 3071];

fn open(files: &[(&str, Vec<u8>)]) -> Result<ChatTokenizer, TokenError> {
    let mut all = vec![("tokenizer.json".to_string(), NANO.to_vec())];
    all.extend(
        files
            .iter()
            .map(|(name, bytes)| (name.to_string(), bytes.clone())),
    );
    block_on(ChatTokenizer::open(&Folder::memory("memory", all)))
}

fn json(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn stops(files: &[(&str, Vec<u8>)]) -> Vec<u32> {
    open(files).expect("is read").stop_tokens()
}

#[test]
fn answers_end_at_all_tokens_that_the_files_name() {
    let mut rng = seeded("stops");
    assert_eq!(stops(&[]), OWN);
    for _ in 0..50 {
        // Any tokens of the vocabulary, as a number, a list, or nothing, in either file or both.
        let (mut files, mut expected) = (Vec::new(), OWN.to_vec());
        for file in ["config.json", "generation_config.json"] {
            let ids: Vec<u32> = (0..rng.random_range(0..4))
                .map(|_| rng.random_range(0..3072))
                .collect();
            let value = match (&ids[..], rng.random_range(0..3)) {
                (_, 0) => continue,
                ([one], 1) => json!(one),
                ([], 1) => Value::Null,
                _ => json!(ids),
            };
            expected.extend(&ids);
            files.push((file, json(json!({"eos_token_id": value, "other": 1}))));
        }
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(stops(&files), expected, "{files:?}");
    }
    // By name, in the tokenizer's own files.
    let named = |name: Value| json(json!({"eos_token": name}));
    let plain = named("<unk>".into());
    let full = named(json!({"__type": "AddedToken", "content": "<unk>", "lstrip": false}));
    let with_unk = [&[0], &OWN[..]].concat();
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        assert_eq!(stops(&[(name, plain.clone())]), with_unk, "{name}");
        assert_eq!(stops(&[(name, full.clone())]), with_unk, "{name}");
    }
    // No token of the vocabulary, or none: nothing.
    for ids in [
        json!(3072),
        json!([1u64 << 40, -1]),
        json!([]),
        Value::Null,
        json!(-1),
    ] {
        assert_eq!(
            stops(&[("generation_config.json", json(json!({"eos_token_id": ids})))]),
            OWN
        );
    }
    // A server's front page in place of what it does not have, or an empty object.
    let page = b"<!DOCTYPE html><html></html>".to_vec();
    assert_eq!(
        stops(&[
            ("generation_config.json", page.clone()),
            ("special_tokens_map.json", page.clone()),
            ("chat_template.jinja", page.clone()),
            ("chat_template.json", page)
        ]),
        OWN
    );
    let python =
        b"\xEF\xBB\xBF{\"eos_token_id\": [0], \"temperature\": NaN, \"max_time\": Infinity}"
            .to_vec();
    assert_eq!(stops(&[("generation_config.json", python)]), with_unk);
}

/// A configuration that says that it says all spares a request, and only that: what can be listed is read.
#[test]
fn what_lies_beside_is_read_whatever_the_configuration_says() {
    let nano = include_bytes!("../../models/nano/config.json").to_vec();
    let more = json(json!({"eos_token_id": [5]}));
    let files = [
        ("config.json", nano.clone()),
        ("generation_config.json", more),
    ];
    assert_eq!(stops(&files[..1]), OWN);
    assert_eq!(stops(&files), [&OWN[..1], &[5], &OWN[1..]].concat());
    let says_all = |change: Value| {
        let mut config: Value = serde_json::from_slice(&nano).expect("is JSON");
        let keys = change.as_object().expect("is an object").clone();
        config.as_object_mut().expect("is an object").extend(keys);
        let model: super::settings::Model = serde_json::from_value(config).expect("is read");
        model.says_all()
    };
    assert!(says_all(json!({})));
    for change in [
        json!({"phi3_steer": null}),
        json!({"phi3_steer": "no_generation_config"}),
        json!({"phi3_steer": {"no_generation_config": false}}),
        json!({"phi3_steer": [{"no_generation_config": true}]}),
        json!({"transformers_version": "4.57.1"}),
    ] {
        assert!(!says_all(change.clone()), "{change}");
    }
    // Every reader of Hugging Face's files finds in it what ends an answer.
    let config: Value = serde_json::from_slice(&nano).expect("is JSON");
    assert_eq!(config["eos_token_id"], json!([3071, 3067]));
}

#[test]
fn an_ordinary_word_that_ends_answers_stays_a_word() {
    let tokenizer = open(&[("config.json", json(json!({"eos_token_id": 1000})))]).expect("is read");
    let plain = open(&[]).expect("is read");
    assert_eq!(tokenizer.token_text(1000), plain.token_text(1000));
    let text = plain.decode(&[1000, 1000]);
    assert_eq!(
        tokenizer.encode(&text).expect("encodes"),
        plain.encode(&text).expect("encodes")
    );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    for (file, bytes, says) in [
        (
            "generation_config.json",
            json(json!({"eos_token_id": "<|end|>"})),
            "eos_token_id is \"<|end|>\"",
        ),
        (
            "generation_config.json",
            json(json!({"eos_token_id": [1, [2]]})),
            "eos_token_id is [2]",
        ),
        (
            "config.json",
            json(json!({"eos_token_id": 1.5})),
            "eos_token_id is 1.5",
        ),
        ("config.json", b"\xFF\xFE{\0}\0".to_vec(), "UTF-16"),
        (
            "config.json",
            b"{\"eos_token_id\": NaN}".to_vec(),
            "eos_token_id is \"NaN\"",
        ),
        (
            "tokenizer_config.json",
            json(json!({"bos_token": 7})),
            "cannot be read",
        ),
        ("tokenizer_config.json", b"<html>".to_vec(), "web page"),
        ("chat_template.jinja", b"\xFF".to_vec(), "UTF-8"),
        ("chat_template.jinja", vec![b' '; 2 << 20], "bytes"),
    ] {
        let error = open(&[(file, bytes)])
            .err()
            .expect("was accepted")
            .to_string();
        assert!(error.contains(says), "{file}: {error}");
        assert!(error.starts_with(file), "{error}");
    }
}

#[test]
fn the_template_and_the_first_token_are_found_in_all_their_places() {
    let with = "{{ bos_token }}{% for message in messages %}{% endfor %}";
    let without = "{% for message in messages %}{% endfor %}";
    let config = |template: Value| {
        (
            "tokenizer_config.json",
            json(json!({"chat_template": template})),
        )
    };
    let jinja = |text: &str| ("chat_template.jinja", text.as_bytes().to_vec());
    let processor = |text: &str| ("chat_template.json", json(json!({"chat_template": text})));
    let bos = |files: &[(&str, Vec<u8>)]| open(files).expect("is read").bos();
    assert_eq!(bos(&[]), None);
    assert_eq!(bos(&[config(with.into())]), Some(1));
    assert_eq!(bos(&[jinja(with)]), Some(1));
    assert_eq!(bos(&[jinja(without)]), None);
    assert_eq!(bos(&[processor(with)]), Some(1));
    assert_eq!(
        bos(&[jinja(
            "{{ '<s>' }}{% for message in messages %}{% endfor %}"
        )]),
        Some(1)
    );
    assert_eq!(
        bos(&[jinja(
            "{% for message in messages %}{{ '<s>' }}{% endfor %}"
        )]),
        None
    );
    // Of several by name, the default one.
    let named = |default: &str, other: &str| json!([{"name": "tool_use", "template": other}, {"name": "default", "template": default}]);
    assert_eq!(bos(&[config(named(with, without))]), Some(1));
    assert_eq!(bos(&[config(named(without, with))]), None);
    // The token's name, in older files and in newer ones.
    let map = |name: &str| {
        (
            "special_tokens_map.json",
            json(json!({"bos_token": {"content": name}})),
        )
    };
    assert_eq!(bos(&[jinja(with), map("<|endoftext|>")]), Some(3067));
    let both = (
        "tokenizer_config.json",
        json(json!({"bos_token": "<unk>", "chat_template": with})),
    );
    assert_eq!(bos(&[both, map("<|endoftext|>")]), Some(0));
    let missing = open(&[jinja(with), map("<|nothing|>")])
        .err()
        .expect("was accepted");
    assert!(missing.to_string().contains("<|nothing|>"), "{missing}");
    // The template's end.
    let ends = jinja("{% for message in messages %}{% endfor %}{{ eos_token }}");
    let eos = (
        "special_tokens_map.json",
        json(json!({"eos_token": "<|endoftext|>"})),
    );
    let tokenizer = open(&[ends, eos]).expect("is read");
    let said = Message {
        role: Role::Assistant,
        content: String::new(),
    };
    assert_eq!(
        tokenizer.chat(&[said], false).expect("encodes").ids,
        [3070, 3071, 3067]
    );
}

/// The order in which files are looked for follows what the first one says.
#[test]
fn files_are_found_whatever_is_beside_them() {
    let mut rng = seeded("files");
    for _ in 0..40 {
        let with = "{{ bos_token }}";
        let place = *[
            "tokenizer_config.json",
            "chat_template.jinja",
            "chat_template.json",
        ]
        .choose(&mut rng)
        .expect("some");
        let mut config = json!({"tokenizer_class": "LlamaTokenizer"});
        let mut files = Vec::new();
        match place {
            "tokenizer_config.json" => config["chat_template"] = with.into(),
            "chat_template.jinja" => files.push((place, with.as_bytes().to_vec())),
            _ => files.push((place, json(json!({"chat_template": with})))),
        }
        if rng.random() {
            config["eos_token"] = "<|end|>".into();
        }
        if rng.random() || place == "tokenizer_config.json" {
            files.push(("tokenizer_config.json", json(config)));
        }
        if rng.random() {
            files.push((
                "special_tokens_map.json",
                json(json!({"eos_token": "<unk>"})),
            ));
        }
        assert_eq!(open(&files).expect("is read").bos(), Some(1), "{files:?}");
    }
    // Without tokenizer.json they are nothing.
    let alone = Folder::memory("memory", vec![("chat_template.jinja".into(), Vec::new())]);
    assert!(
        block_on(TokenizerFiles::open(&alone))
            .expect("is read")
            .is_none()
    );
    // What is converted takes them along, but for the model's own.
    let whole = Folder::memory(
        "memory",
        vec![
            ("tokenizer.json".into(), changed(|_| ())),
            ("config.json".into(), b"{}".to_vec()),
            ("generation_config.json".into(), b"{}".to_vec()),
            ("chat_template.jinja".into(), Vec::new()),
        ],
    );
    let files = block_on(TokenizerFiles::open(&whole))
        .expect("is read")
        .expect("is there");
    let mut names: Vec<&str> = files.into_files().iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "chat_template.jinja",
            "generation_config.json",
            "tokenizer.json"
        ]
    );
}
