//! What `tokenizer.json` asks for: added tokens in text as the `tokenizers` crate finds them, and rules
//! that are refused before the crate sees them.

use rand::seq::IndexedRandom;
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::tests::{NANO, NANO_CONFIG, byte_level, changed, random_text, seeded};
use super::*;

/// Adds tokens that are text to a file.
fn with_tokens(file: &[u8], tokens: &[Value]) -> Vec<u8> {
    let mut file: Value = serde_json::from_slice(file).expect("is JSON");
    let vocab = file["model"]["vocab"].clone();
    let list = file["added_tokens"].as_array_mut().expect("a list");
    let first = list.iter().filter_map(|t| t["id"].as_u64()).max();
    let first = first.expect("some") + 1;
    let mut next = first;
    for token in tokens {
        let mut token = token.clone();
        // A word of the vocabulary keeps its number.
        let word = token["content"].as_str().and_then(|word| vocab.get(word));
        token["id"] = word.cloned().unwrap_or(json!(next));
        next += u64::from(word.is_none());
        list.push(token);
    }
    file.to_string().into_bytes()
}

fn token(rng: &mut StdRng, content: &str) -> Value {
    json!({"content": content, "single_word": rng.random_bool(0.3), "lstrip": rng.random_bool(0.4),
           "rstrip": rng.random_bool(0.4), "normalized": rng.random_bool(0.5), "special": false})
}

/// Some of these, which begin, hold and end each other.
fn random_tokens(rng: &mut StdRng) -> Vec<Value> {
    const CONTENTS: [&str; 12] = [
        "[TOOL]", "[TOO", "OL]", "tool", "to", "kill a", "é", "世", "_x_", "<<", "1 2", "Tool",
    ];
    let some: Vec<&&str> = CONTENTS.choose_multiple(rng, 5).collect();
    let mut tokens: Vec<Value> = some.into_iter().map(|c| token(rng, c)).collect();
    // Of two that are one text in small letters the crate finds now the one, now the other.
    if tokens.iter().any(|one| one["content"] == "Tool") {
        tokens.retain(|one| one["content"] != "tool");
    }
    tokens
}

fn text_with(rng: &mut StdRng, tokens: &[Value]) -> String {
    let mut text = String::new();
    for _ in 0..rng.random_range(0..8) {
        match rng.random_range(0..4) {
            0 => text += &random_text(rng),
            1 => {
                text += [" ", "  ", "\n", "a", "_", "-", "TOOL]"]
                    .choose(rng)
                    .expect("some")
            }
            _ => {
                text += tokens.choose(rng).expect("some")["content"]
                    .as_str()
                    .expect("a text")
            }
        }
    }
    text
}

#[test]
fn added_tokens_in_text_are_those_that_the_crate_finds() {
    let mut rng = seeded("added tokens");
    let mut found = 0;
    for round in 0..60 {
        let file = match round % 3 {
            0 => NANO.to_vec(),
            1 => byte_level(),
            _ => changed(|file| file["normalizer"] = json!({"type": "Lowercase"})),
        };
        let tokens = random_tokens(&mut rng);
        let file = with_tokens(&file, &tokens);
        let ours = ChatTokenizer::from_json(&file, Some(NANO_CONFIG)).expect("is read");
        let mut theirs = Tokenizer::from_bytes(&file).expect("is read");
        let ids: Vec<u32> = tokens
            .iter()
            .filter_map(|t| theirs.token_to_id(t["content"].as_str()?))
            .collect();
        assert_eq!(ids.len(), tokens.len());
        for _ in 0..60 {
            let text = text_with(&mut rng, &tokens);
            let expected = theirs.encode(text.clone(), false).expect("encodes");
            let expected = expected.get_ids();
            assert_eq!(
                ours.encode(&text).expect("encodes"),
                expected,
                "{text:?} {tokens:?}"
            );
            found += expected.iter().filter(|id| ids.contains(id)).count();
            let marked = format!("<s>{text}<|end|> {text}<|user|>");
            theirs.set_encode_special_tokens(false);
            let expected = theirs.encode(marked.clone(), false).expect("encodes");
            let encoded = ours.encode_markup(&marked).expect("encodes");
            assert_eq!(encoded, expected.get_ids(), "{marked:?} {tokens:?}");
        }
        let shown = tokens.iter().zip(&ids).all(|(token, id)| {
            let text = ours.decode(&[*id]);
            token["content"] == text.as_str()
        });
        assert!(shown, "{tokens:?}");
    }
    assert!(found > 1000, "{found}");
}

#[test]
fn conversations_hold_added_tokens_too() {
    let mut rng = seeded("added tokens in conversations");
    for round in 0..40 {
        let file = if round % 2 == 0 {
            NANO.to_vec()
        } else {
            byte_level()
        };
        let tokens = random_tokens(&mut rng);
        let file = with_tokens(&file, &tokens);
        let ours = ChatTokenizer::from_json(&file, None).expect("is read");
        let theirs = Tokenizer::from_bytes(&file).expect("is read");
        for _ in 0..30 {
            let texts = [text_with(&mut rng, &tokens), text_with(&mut rng, &tokens)];
            let rendered = format!(
                "<|user|>\n{}<|end|>\n<|assistant|>\n{}<|end|>\n<|assistant|>\n",
                texts[0], texts[1]
            );
            let roles = [Role::User, Role::Assistant];
            let messages: Vec<Message> = roles
                .into_iter()
                .zip(texts)
                .map(|(role, content)| Message { role, content })
                .collect();
            let prompt = ours.chat(&messages, true).expect("encodes");
            let expected = theirs.encode(rendered.clone(), false).expect("encodes");
            assert_eq!(prompt.ids, expected.get_ids(), "{rendered:?} {tokens:?}");
            assert_eq!(prompt.roles.len(), prompt.ids.len());
        }
    }
}

#[test]
fn the_templates_own_tokens_are_marks_whatever_the_file_calls_them() {
    let marks = [
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|end|>",
        "<|endoftext|>",
    ];
    for file in [NANO.to_vec(), byte_level()] {
        let mut file: Value = serde_json::from_slice(&file).expect("is JSON");
        for token in file["added_tokens"].as_array_mut().expect("a list") {
            token["special"] = false.into();
        }
        // One that is no added token at all, but a word.
        let list = file["added_tokens"].as_array_mut().expect("a list");
        let at = list
            .iter()
            .position(|t| t["content"] == "<|assistant|>")
            .expect("is there");
        let word = list.remove(at);
        file["model"]["vocab"]["<|assistant|>"] = word["id"].clone();
        let tokenizer =
            ChatTokenizer::from_json(file.to_string().as_bytes(), None).expect("is read");
        for mark in marks {
            let ids = tokenizer.encode_markup(mark).expect("encodes");
            assert_eq!(ids.len(), 1, "{mark}");
            assert_eq!(tokenizer.decode(&ids), "", "{mark}");
            assert_eq!(tokenizer.token_text(ids[0]), mark);
            assert!(
                !tokenizer.encode(mark).expect("encodes").contains(&ids[0]),
                "{mark}"
            );
            assert!(tokenizer.stop_tokens().contains(&ids[0]), "{mark}");
        }
    }
    // Where the words themselves lead to a mark, a message could forge a turn.
    let mut file: Value = serde_json::from_slice(&byte_level()).expect("is JSON");
    let list = file["added_tokens"].as_array_mut().expect("a list");
    let at = list
        .iter()
        .position(|t| t["content"] == "<|end|>")
        .expect("is there");
    let id = list.remove(at)["id"].clone();
    file["pre_tokenizer"] =
        json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
    file["model"]["vocab"]["<|end|>"] = id;
    file["model"]["ignore_merges"] = true.into();
    let error = refused(file.to_string().as_bytes());
    assert!(
        error.contains("<|end|>") && error.contains("message"),
        "{error}"
    );
}

fn refused(file: &[u8]) -> String {
    match ChatTokenizer::from_json(file, None) {
        Ok(_) => panic!("was accepted: {}", String::from_utf8_lossy(&file[..300])),
        Err(error) => error.to_string(),
    }
}

/// Rules that make the crate panic, fill the memory or take for ever, and their siblings.
#[test]
fn rules_that_are_not_known_or_not_sane_are_refused() {
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let sequence = |rules: Vec<Value>| json!({"type": "Sequence", "normalizers": rules});
    let words = |rules: Vec<Value>| json!({"type": "Sequence", "pretokenizers": rules});
    let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    let mut deep = json!({"type": "NFC"});
    for _ in 0..40 {
        deep = sequence(vec![deep]);
    }
    let long = "x".repeat(60_000);
    let cases = [
        (
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": ""}),
            "Precompiled",
        ),
        (
            "normalizer",
            json!({"type": "BertNormalizer", "lowercase": true}),
            "BertNormalizer",
        ),
        (
            "normalizer",
            json!({"type": long.clone()}),
            "unknown variant",
        ),
        (
            "normalizer",
            json!({"type": "Prepend", "prepend": long.clone()}),
            "60000 bytes",
        ),
        ("normalizer", replace("", "x"), "empty"),
        ("normalizer", replace("a", &long), "60000 bytes"),
        ("normalizer", replace(&long, "a"), "60000 bytes"),
        (
            "normalizer",
            json!({"type": "Replace", "pattern": {"Regex": "a*"}, "content": ""}),
            "expression",
        ),
        (
            "normalizer",
            sequence(vec![replace("a", "aaaaaaaaaaaaaaaaaaaa"); 6]),
            "as long",
        ),
        (
            "normalizer",
            sequence(vec![json!({"type": "ByteLevel"}); 3]),
            "twice",
        ),
        (
            "normalizer",
            sequence(vec![json!({"type": "Lowercase"}); 200]),
            "in a row",
        ),
        (
            "normalizer",
            sequence(vec![sequence(vec![]); 200]),
            "in a row",
        ),
        ("normalizer", deep, "in a row"),
        (
            "pre_tokenizer",
            json!({"type": "FixedLength", "length": 0}),
            "FixedLength",
        ),
        (
            "pre_tokenizer",
            json!({"type": "CharDelimiterSplit", "delimiter": " "}),
            "CharDelimiterSplit",
        ),
        (
            "pre_tokenizer",
            json!({"type": "UnicodeScripts"}),
            "UnicodeScripts",
        ),
        ("pre_tokenizer", words(vec![level.clone(); 200]), "in a row"),
        ("pre_tokenizer", words(vec![level.clone(); 2]), "twice"),
        ("pre_tokenizer", words(vec![words(vec![]); 200]), "in a row"),
        ("pre_tokenizer", split(&"(a|b)".repeat(300)), "bytes"),
        ("pre_tokenizer", split("(a+)+b"), "repeated groups"),
        ("pre_tokenizer", split("(?:a|a)*b"), "repeated groups"),
        ("pre_tokenizer", split(r"(.)\1"), "references"),
        ("pre_tokenizer", split(r"\p{L}{1000}"), "high counts"),
        ("pre_tokenizer", split("a{4}{4}{4}{4}"), "high counts"),
        ("pre_tokenizer", split("(?<=a)b"), "groups of this kind"),
        ("pre_tokenizer", split("((((a))))"), "groups in groups"),
        ("pre_tokenizer", split(&r"\p{L}".repeat(100)), "classes"),
        ("pre_tokenizer", split("a("), "parenthesis"),
        (
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated"}),
            "empty",
        ),
        (
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"String": long.clone()}, "behavior": "Isolated"}),
            "60000",
        ),
        (
            "pre_tokenizer",
            json!({"type": "Metaspace", "replacement": "ab"}),
            "character",
        ),
    ];
    for (section, rule, says) in cases {
        let error = refused(&changed(|file| file[section] = rule.clone()));
        assert!(
            error.contains(says) && error.len() < 1000,
            "{says}: {error}"
        );
    }
}

#[test]
fn models_that_are_not_known_or_not_sane_are_refused() {
    let long = "x".repeat(60_000);
    let cases = [
        ("dropout", json!(0.1), "dropout is 0.1"),
        ("dropout", json!("NaN"), "invalid type"),
        ("type", json!("WordPiece"), "\"WordPiece\""),
        ("type", json!("Unigram"), "\"Unigram\""),
        (
            "continuing_subword_prefix",
            json!("##"),
            "continuing_subword_prefix",
        ),
        (
            "continuing_subword_prefix",
            json!(long.clone()),
            "continuing_subword_prefix",
        ),
        ("end_of_word_suffix", json!("</w>"), "end_of_word_suffix"),
        ("unk_token", json!("<nothing>"), "unk_token"),
        ("vocab", json!([["a", -1.0], ["b", -2.0]]), "no vocabulary"),
        ("vocab", json!({"a": -1}), "-1"),
        // Longer than any token when they are put together.
        (
            "merges",
            json!([["the", "the"], ["thethe", "thethe"]]),
            "which is no token",
        ),
        ("merges", json!(["a b c"]), "not two words"),
        ("merges", json!([["a"]]), "cannot be read"),
    ];
    for (key, value, says) in cases {
        let error = refused(&changed(|file| file["model"][key] = value.clone()));
        assert!(error.contains(says) && error.len() < 1000, "{key}: {error}");
    }
    let one = |word: &str, id: u64| changed(|file| file["model"]["vocab"][word] = id.into());
    for (file, says) in [
        (one(&long, 3000), "60000 bytes"),
        (one("a", 4_000_000_000), "4000000000"),
        (one("new", 1_000_000), "1000000"),
        (one("new", 5), "both token 5"),
    ] {
        let error = refused(&file);
        assert!(
            error.contains(says) && error.len() < 1000,
            "{says}: {error}"
        );
    }
    let added = |token: Value| {
        changed(|file| {
            let list = file["added_tokens"].as_array_mut().expect("a list");
            list.push(token);
        })
    };
    let plain = |id: u64, content: &str| json!({"id": id, "content": content});
    for (file, says) in [
        (added(plain(4000, &long)), "60000 bytes"),
        (added(plain(2_000_000, "x!x")), "2000000"),
        (added(plain(3071, "x!x")), "3071"),
        (added(plain(300, "x!x")), "300"),
        (added(plain(4000, "<|end|>")), "<|end|>"),
        (
            with_tokens(
                NANO,
                &(0..20_000)
                    .map(|i| json!({"content": format!("t{i}")}))
                    .collect::<Vec<_>>(),
            ),
            "20008 added tokens",
        ),
    ] {
        let error = refused(&file);
        assert!(
            error.contains(says) && error.len() < 1000,
            "{says}: {error}"
        );
    }
}

/// What is odd and does no harm.
#[test]
fn what_does_no_harm_is_read() {
    let mut rng = seeded("harmless");
    let plain = ChatTokenizer::from_json(NANO, None).expect("is read");
    let parts = |file: &mut Value| {
        let merges = file["model"]["merges"].as_array_mut().expect("a list");
        for merge in merges.iter_mut() {
            let joined = format!(
                "{} {}",
                merge[0].as_str().unwrap(),
                merge[1].as_str().unwrap()
            );
            *merge = joined.into();
        }
        merges.insert(0, "#version: 0.2".into());
    };
    let token = |token: Value| {
        move |file: &mut Value| {
            file["added_tokens"]
                .as_array_mut()
                .expect("a list")
                .push(token)
        }
    };
    let mut files = vec![
        changed(|file| file["truncation"] = json!({"max_length": 0, "stride": 1e300})),
        changed(|file| file["padding"] = json!({"strategy": {"Fixed": 4_000_000_000u32}})),
        changed(|file| file["something"] = json!({"new": [1, 2, 3]})),
        changed(|file| file["model"]["dropout"] = json!(0.0)),
        changed(|file| file["model"]["end_of_word_suffix"] = json!("")),
        changed(|file| {
            file["model"]
                .as_object_mut()
                .expect("an object")
                .remove("type");
        }),
        changed(token(json!({"id": 77, "content": ""}))),
        changed(parts),
    ];
    let again = changed(|file| {
        let list = file["added_tokens"].as_array_mut().expect("a list");
        list.push(list[7].clone());
    });
    files.push(again);
    files.push(["\u{FEFF}".as_bytes(), NANO].concat());
    let text = String::from_utf8(NANO.to_vec()).expect("is UTF-8");
    files.push(
        text.replacen('{', "{\"score\": -Infinity, \"other\": NaN,", 1)
            .into_bytes(),
    );
    for (i, file) in files.iter().enumerate() {
        let odd = ChatTokenizer::from_json(file, None).unwrap_or_else(|e| panic!("{i}: {e}"));
        assert_eq!(odd.vocab_size(), plain.vocab_size(), "{i}");
        for _ in 0..20 {
            let text = random_text(&mut rng);
            let ids = odd.encode(&text).expect("encodes");
            assert_eq!(ids, plain.encode(&text).expect("encodes"), "{i}: {text:?}");
            assert_eq!(odd.decode(&ids), plain.decode(&ids));
        }
    }
}

/// The expressions of the tokenizers of this family, as their makers write them.
#[test]
fn known_ways_to_cut_text_are_read_as_the_crate_reads_them() {
    let mut rng = seeded("words");
    let expressions = [
        // Phi-4.
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        // The same with possessive counts.
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
        super::gguf::GPT_4O,
    ];
    for expression in expressions {
        let mut file: Value = serde_json::from_slice(&byte_level()).expect("is JSON");
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false},
            {"type": "Digits", "individual_digits": true},
            level,
        ]});
        file["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip", "strip_left": true, "strip_right": false}]});
        let file = file.to_string().into_bytes();
        let ours = ChatTokenizer::from_json(&file, None).expect("is read");
        let theirs = Tokenizer::from_bytes(&file).expect("is read");
        for _ in 0..100 {
            let text = random_text(&mut rng);
            let expected = theirs.encode(text.clone(), false).expect("encodes");
            assert_eq!(
                ours.encode(&text).expect("encodes"),
                expected.get_ids(),
                "{text:?}"
            );
        }
    }
}
