//! The tokenizer of a GGUF file: the tokens of the `tokenizer.json` it was made of, and those of
//! SentencePiece's own rule.

use crate::file::{File, Stored};
use crate::vocabulary::{NANO, NANO_CONFIG, Vocabulary};
use phi3_steer::checkpoint::{Gguf, MemorySource};
use phi3_steer::tokens::{ChatTokenizer, Message, Role, TokenError};
use pollster::block_on;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;

fn seeded(test: &str) -> StdRng {
    let seed = rand::rng().random();
    println!("{test}: seed {seed}");
    StdRng::seed_from_u64(seed)
}

fn read(file: &File) -> Result<ChatTokenizer, TokenError> {
    let gguf = block_on(Gguf::open(
        MemorySource::new("model.gguf", file.bytes()).into(),
    ));
    ChatTokenizer::from_gguf(gguf.expect("is a GGUF file").metadata())
}

/// Text of the vocabulary's pieces, of words, spaces and any characters.
fn random_text(rng: &mut StdRng, pieces: &[&str]) -> String {
    let mut text = String::new();
    for _ in 0..rng.random_range(0..30) {
        match rng.random_range(0..7) {
            0..=2 => text += &pieces.choose(rng).unwrap().replace('\u{2581}', " "),
            3 => text.extend((0..rng.random_range(1..40)).map(|_| ' ')),
            4 => {
                let c = *[' ', '=', 'a', '.', '\u{2581}', '\n', '0']
                    .choose(rng)
                    .unwrap();
                text.extend((0..rng.random_range(1..20)).map(|_| c));
            }
            5 => text.push(rng.random()),
            _ => text.push(rng.random_range(' '..'\u{17F}')),
        }
    }
    text
}

#[test]
fn the_pieces_with_the_best_scores_are_merged_first() {
    let mut rng = seeded("merges");
    let vocabulary = Vocabulary::nano();
    let tokenizer = read(&vocabulary.file()).unwrap();
    let pieces: Vec<&str> = vocabulary.pieces().collect();
    let mut bytes = 0;
    for _ in 0..3000 {
        let text = random_text(&mut rng, &pieces);
        let expected = vocabulary.sentence_piece(&text);
        assert_eq!(tokenizer.encode(&text).unwrap(), expected, "{text:?}");
        bytes += expected.iter().filter(|id| (3..259).contains(*id)).count();
    }
    assert!(bytes > 1000, "characters without a piece were hardly tried");
}

#[test]
fn equal_scores_and_other_ways_to_split_are_told_apart() {
    let mut rng = seeded("random vocabularies");
    for _ in 0..300 {
        // Few letters, so that pieces overlap in every way.
        let letters = ["a", "b", "\u{2581}"];
        let mut pieces: Vec<String> = letters.map(String::from).into();
        while pieces.len() < 25 {
            let left = pieces.choose(&mut rng).unwrap();
            let piece = format!("{left}{}", pieces.choose(&mut rng).unwrap());
            if piece.chars().count() <= 8 && !pieces.contains(&piece) {
                pieces.push(piece);
            }
        }
        let vocabulary = Vocabulary::of(&pieces);
        let tokenizer = read(&vocabulary.file()).unwrap();
        for _ in 0..20 {
            let text = (0..rng.random_range(0..40)).map(|_| ["a", "b", " "].choose(&mut rng));
            let text: String = text.flatten().copied().collect();
            let expected = vocabulary.sentence_piece(&text);
            assert_eq!(tokenizer.encode(&text).unwrap(), expected, "{text:?}");
        }
    }
}

#[test]
fn the_nano_models_two_vocabularies_are_one() {
    let mut rng = seeded("nano");
    let (json, gguf) = (
        ChatTokenizer::from_json(NANO, Some(NANO_CONFIG)).unwrap(),
        read(&Vocabulary::nano().file()).unwrap(),
    );
    assert_eq!(gguf.vocab_size(), json.vocab_size());
    assert_eq!((gguf.bos(), gguf.end()), (json.bos(), json.end()));
    assert_eq!(gguf.stop_tokens(), json.stop_tokens());
    let eval: Value =
        serde_json::from_slice(include_bytes!("../../models/nano/eval.json")).unwrap();
    let mut texts = Vec::new();
    collect(&eval, &mut texts);
    assert!(texts.len() > 1000);
    for text in &texts {
        let ids = json.encode(text).unwrap();
        assert_eq!(gguf.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(gguf.decode(&ids), json.decode(&ids));
    }
    for _ in 0..500 {
        let messages: Vec<Message> = (0..rng.random_range(1..5))
            .map(|_| Message {
                role: *[Role::System, Role::User, Role::Assistant]
                    .choose(&mut rng)
                    .unwrap(),
                content: texts.choose(&mut rng).unwrap().to_string(),
            })
            .collect();
        let prompt = rng.random();
        let (a, b) = (json.chat(&messages, prompt), gguf.chat(&messages, prompt));
        assert_eq!(a.unwrap(), b.unwrap());
        let markup = format!(
            "<|user|>\n {}<|end|> \n<|assistant|> <|endoftext|> x<s> y</s>\n z",
            messages[0].content
        );
        let (a, b) = (json.encode_markup(&markup), gguf.encode_markup(&markup));
        assert_eq!(a.unwrap(), b.unwrap());
    }
    for id in 0..json.vocab_size() as u32 + 3 {
        assert_eq!(gguf.token_text(id), json.token_text(id), "{id}");
    }
}

#[test]
fn types_of_tokens_are_those_of_phi_3() {
    // As in Phi-3's own file: `</s>` is no special token but one that is found in text, and the rows
    // that fill up the embedding are of the unknown token's type, or unused.
    let mut vocabulary = Vocabulary::of(&["\u{2581}", "a", "[", "P", "A", "PA", "[PA"]);
    vocabulary.retype(2, 4);
    let before = vocabulary.len();
    vocabulary.pad(2);
    vocabulary.pad(5);
    let tokenizer = read(&vocabulary.file()).unwrap();
    assert_eq!(tokenizer.vocab_size(), before);
    let texts = |text: &str| -> Vec<String> {
        let ids = tokenizer.encode_markup(text).unwrap();
        ids.iter().map(|id| tokenizer.token_text(*id)).collect()
    };
    assert_eq!(texts("a</s> \n a"), [" ", "a", "</s>", " ", "a"]);
    assert_eq!(texts("[PAa"), [" ", "[PA", "a"]);
    let pad = tokenizer.encode_markup(&format!("[PAD{before}]")).unwrap();
    assert!(pad.iter().all(|id| (*id as usize) < before), "{pad:?}");
    assert_eq!(tokenizer.token_text(before as u32), "");
}

/// All texts in a JSON value.
fn collect<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(values) => values.iter().for_each(|v| collect(v, texts)),
        Value::Object(values) => values.values().for_each(|v| collect(v, texts)),
        _ => {}
    }
}

/// A byte-level vocabulary with some merges.
fn byte_level(pre: &str) -> File {
    let itself = |b: u32| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut shifted = 0x100;
    let mut tokens: Vec<String> = (0..256)
        .map(|byte| {
            let code = if itself(byte) { byte } else { shifted };
            shifted += u32::from(!itself(byte));
            char::from_u32(code).unwrap().to_string()
        })
        .collect();
    let merges = [
        "Ġ w", "o r", "Ġw or", "Ġwor d", "1 2", "12 3", "123 4", "a '", "' l", "'l l",
    ];
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let normal = tokens.len();
    tokens.extend(
        [
            "<|endoftext|>",
            "<|assistant|>",
            "<|end|>",
            "<|user|>",
            "<|system|>",
        ]
        .map(String::from),
    );
    let special = tokens.len();
    tokens.extend((0..7).map(|i| format!("[PAD{i}]")));
    let kinds: Vec<i32> = (0..tokens.len())
        .map(|id| match id {
            id if id < normal => 1,
            id if id < special => 3,
            _ => 5,
        })
        .collect();
    let mut file = File::default();
    file.key("tokenizer.ggml.model", Stored::text("gpt2"));
    file.key("tokenizer.ggml.pre", Stored::text(pre));
    file.key("tokenizer.ggml.tokens", Stored::texts(&tokens));
    file.key("tokenizer.ggml.token_type", Stored::i32s(&kinds));
    file.key("tokenizer.ggml.merges", Stored::texts(&merges));
    file.key("tokenizer.ggml.eos_token_id", Stored::u32(normal as u32));
    file
}

#[test]
fn byte_level_vocabularies_are_read() {
    let gguf = read(&byte_level("gpt-4o")).unwrap();
    assert_eq!(gguf.bos(), None);
    let texts = |text: &str| -> Vec<String> {
        let ids = gguf.encode(text).unwrap();
        assert_eq!(gguf.decode(&ids), text);
        ids.iter().map(|id| gguf.token_text(*id)).collect()
    };
    // Words with their space, digits by three, contractions with their word.
    assert_eq!(texts(" word"), [" word"]);
    assert_eq!(texts("1234"), ["123", "4"]);
    assert_eq!(texts("a'll"), ["a'", "l", "l"]);
    let gpt2 = read(&byte_level("gpt-2")).unwrap();
    let ids = gpt2.encode("1234 a'll").unwrap();
    let texts: Vec<String> = ids.iter().map(|id| gpt2.token_text(*id)).collect();
    assert_eq!(texts, ["1234", " ", "a", "'ll"]);
    // The white space after a special token is its own: the template without line breaks.
    let hi = Message {
        role: Role::User,
        content: " word".into(),
    };
    let ids = gguf.chat(&[hi], true).unwrap().ids;
    let texts: Vec<String> = ids.iter().map(|id| gguf.token_text(*id)).collect();
    assert_eq!(
        texts,
        ["<|user|>", "w", "or", "d", "<|end|>", "<|assistant|>"]
    );
    assert_eq!(gguf.stop_tokens(), [266, 267, 268, 269, 270]);
}

#[test]
fn vocabularies_that_cannot_be_used_are_refused() {
    let mut whole = Vocabulary::nano().file();
    let tokens = Vocabulary::nano().len();
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let mut refused_with = |name: &str, value: Option<Stored>| {
        let at = whole
            .keys
            .iter()
            .position(|(k, _)| *k == key(name))
            .unwrap();
        let mut changed = whole.clone();
        match value {
            Some(value) => changed.keys[at].1 = value,
            None => drop(changed.keys.remove(at)),
        }
        whole.version = 3;
        match read(&changed) {
            Ok(_) => panic!("{name} was accepted"),
            Err(error) => error.to_string(),
        }
    };
    for (name, value, says) in [
        ("model", None, "no vocabulary"),
        ("model", Some(Stored::text("bert")), "\"bert\""),
        ("model", Some(Stored::u32(3)), "is an integer, not a text"),
        ("tokens", None, "no tokens"),
        (
            "tokens",
            Some(Stored::texts(&vec!["a"; tokens])),
            "no special token ends",
        ),
        (
            "tokens",
            Some(Stored::texts(&["a", "b"])),
            "no special token ends",
        ),
        ("scores", None, "no scores"),
        (
            "scores",
            Some(Stored::f32s(&[0.0; 300])),
            "token 300 has no score",
        ),
        (
            "scores",
            Some(Stored::f32s(&vec![f32::NAN; tokens])),
            "is no number",
        ),
        (
            "token_type",
            Some(Stored::i32s(&[1; 300])),
            "types for 300 of them only",
        ),
        (
            "token_type",
            Some(Stored::i32s(&vec![9; tokens])),
            "unknown type 9",
        ),
        (
            "token_type",
            Some(Stored::i32s(&vec![5; tokens])),
            "no special token ends",
        ),
    ] {
        let error = refused_with(name, value);
        assert!(error.starts_with("model.gguf: "), "{error}");
        assert!(error.contains(says), "{name}: {error}");
    }
    for (pre, merges, says) in [
        ("starcoder", vec!["a b"], "\"starcoder\""),
        ("gpt-4o", vec!["ab"], "\"ab\" has no space"),
        ("gpt-4o", vec!["x nothing"], "nothing"),
    ] {
        let mut file = byte_level(pre);
        let at = file
            .keys
            .iter()
            .position(|(k, _)| *k == key("merges"))
            .unwrap();
        file.keys[at].1 = Stored::texts(&merges);
        let error = read(&file).err().expect("was accepted").to_string();
        assert!(error.contains(says), "{error}");
    }
    // A piece as long as a page would take forever to split.
    let error = read(&Vocabulary::of(&["a".repeat(300)]).file());
    let error = error.err().expect("was accepted").to_string();
    assert!(error.contains("300 bytes"), "{error}");
}
