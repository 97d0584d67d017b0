//! What a GGUF file says of its tokens and positions: types that are not to be trusted, the tokens that
//! end an answer, texts that are empty or there twice, and settings that would change the numbers.

use crate::file::{File, Stored};
use crate::vocabulary::Vocabulary;
use phi3_steer::checkpoint::{Gguf, MemorySource};
use phi3_steer::phi3::Config;
use phi3_steer::tokens::{ChatTokenizer, Message, Role, TokenError};
use pollster::block_on;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};

const MARKS: [&str; 6] = [
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "</s>",
];

fn seeded(test: &str) -> StdRng {
    let seed = rand::rng().random();
    println!("{test}: seed {seed}");
    StdRng::seed_from_u64(seed)
}

fn open(file: &File) -> Gguf {
    let source = MemorySource::new("model.gguf", file.bytes());
    block_on(Gguf::open(source.into())).expect("is a GGUF file")
}

fn read(file: &File) -> Result<ChatTokenizer, TokenError> {
    ChatTokenizer::from_gguf(open(file).metadata())
}

fn pieces() -> Vec<&'static str> {
    vec!["\u{2581}", "a", "b", "\u{2581}a", "ab", "<", "|", ">", "<|"]
}

#[test]
fn the_templates_tokens_are_marks_whatever_their_type() {
    let mut rng = seeded("types");
    for _ in 0..30 {
        let plain = read(&Vocabulary::of(&pieces()).file()).unwrap();
        let mut vocabulary = Vocabulary::of(&pieces());
        for mark in MARKS {
            let id = vocabulary.id(mark);
            vocabulary.retype(id, *[1, 3, 4].choose(&mut rng).unwrap());
        }
        let tokenizer = read(&vocabulary.file()).unwrap();
        for mark in MARKS {
            let id = vocabulary.id(mark) as u32;
            assert_eq!(tokenizer.decode(&[id]), "", "{mark}");
            assert_eq!(tokenizer.token_text(id), mark);
            assert!(
                !tokenizer
                    .encode(&format!("a{mark}b"))
                    .unwrap()
                    .contains(&id)
            );
            assert_eq!(tokenizer.encode_markup(mark).unwrap(), [id]);
        }
        assert_eq!(tokenizer.stop_tokens(), plain.stop_tokens());
        let said = Message {
            role: Role::User,
            content: "a<|end|> b</s>".into(),
        };
        let said = [said];
        assert_eq!(
            tokenizer.chat(&said, true).unwrap(),
            plain.chat(&said, true).unwrap()
        );
    }
}

#[test]
fn answers_end_at_all_tokens_that_the_keys_name() {
    let mut rng = seeded("ends");
    let mut vocabulary = Vocabulary::of(&pieces());
    for name in ["<|eot|>", "<|eom|>", "<|tool|>"] {
        // One that the file calls a word.
        vocabulary.push(name, 0.0, *[1, 3, 4].choose(&mut rng).unwrap());
    }
    let mut own: Vec<u32> = MARKS.map(|mark| vocabulary.id(mark) as u32).into();
    own.sort_unstable();
    for keys in 0..8 {
        let mut file = vocabulary.file();
        let mut expected = own.clone();
        for (bit, (key, name)) in [("eot", "<|eot|>"), ("eom", "<|eom|>"), ("eos", "<|tool|>")]
            .into_iter()
            .enumerate()
        {
            if keys >> bit & 1 == 0 {
                continue;
            }
            let key = format!("tokenizer.ggml.{key}_token_id");
            file.keys.retain(|(other, _)| *other != key);
            let id = vocabulary.id(name) as u32;
            file.key(&key, Stored::u32(id));
            expected.push(id);
        }
        expected.sort_unstable();
        let tokenizer = read(&file).unwrap();
        assert_eq!(tokenizer.stop_tokens(), expected, "{keys}");
        let hidden = expected
            .iter()
            .all(|id| tokenizer.decode(&[*id]).is_empty());
        assert!(hidden, "{keys}");
    }
    // A number of no token is no reason to refuse a file.
    let mut file = vocabulary.file();
    file.key("tokenizer.ggml.eot_token_id", Stored::u32(u32::MAX));
    assert_eq!(read(&file).unwrap().stop_tokens(), own);
}

#[test]
fn tokens_that_users_defined_are_found_in_text() {
    let mut vocabulary = Vocabulary::of(&pieces());
    vocabulary.push("[TOOL]", 0.0, 4);
    vocabulary.push("ab ab", 0.0, 4);
    let (tool, abab) = (
        vocabulary.id("[TOOL]") as u32,
        vocabulary.id("ab ab") as u32,
    );
    let tokenizer = read(&vocabulary.file()).unwrap();
    let word = |text: &str| vocabulary.sentence_piece(text);
    for (text, expected) in [
        ("a[TOOL]b", [word("a"), vec![tool], word("b")].concat()),
        ("[TOOL] b", [vec![tool], word(" b")].concat()),
        ("[TOOL][TOOL]", vec![tool, tool]),
        ("bab abb", [word("b"), vec![abab], word("b")].concat()),
        ("[TOOL", word("[TOOL")),
    ] {
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text}");
        assert_eq!(tokenizer.encode_markup(text).unwrap(), expected, "{text}");
    }
    assert_eq!(tokenizer.decode(&[tool, abab]), "[TOOL]ab ab");
    let said = |content: &str| Message {
        role: Role::User,
        content: content.into(),
    };
    let prompt = tokenizer.chat(&[said("[TOOL]")], true).unwrap();
    assert!(prompt.ids.contains(&tool));
}

#[test]
fn empty_and_repeated_tokens_do_no_harm() {
    let mut rng = seeded("empty and repeated");
    for _ in 0..50 {
        let mut vocabulary = Vocabulary::of(&pieces());
        let first = vocabulary.len() as u32;
        let mut added = Vec::new();
        for _ in 0..rng.random_range(1..6) {
            let text = *["", "a", "ab", "\u{2581}a", "<", ""]
                .choose(&mut rng)
                .unwrap();
            vocabulary.push(text, -rng.random_range(0.0f32..9.0), 1);
            added.push(text);
        }
        let tokenizer = read(&vocabulary.file()).unwrap();
        for _ in 0..40 {
            let text = (0..rng.random_range(0..20)).map(|_| ["a", "b", " ", "<"].choose(&mut rng));
            let text: String = text.flatten().copied().collect();
            // The last of those with one text is the token of that text.
            let ids = tokenizer.encode(&text).unwrap();
            assert_eq!(ids, vocabulary.sentence_piece(&text), "{text:?} {added:?}");
            assert_eq!(tokenizer.decode(&ids), text);
        }
        // A model may still say each of them.
        for (id, text) in (first..).zip(&added) {
            let said = tokenizer.decode(&[vocabulary.id("b") as u32, id]);
            assert_eq!(
                said,
                format!("b{}", text.replace('\u{2581}', " ")),
                "{added:?}"
            );
        }
        for (id, text) in ["a", "ab"].map(|text| (vocabulary.id(text) as u32, text)) {
            assert_eq!(tokenizer.decode(&[id]), text);
        }
    }
    // A mark that is there again as a word stays one.
    let mut vocabulary = Vocabulary::of(&pieces());
    let end = vocabulary.id("<|end|>") as u32;
    vocabulary.push("<unk>", 0.0, 1);
    let tokenizer = read(&vocabulary.file()).unwrap();
    assert_eq!(tokenizer.end(), end);
    assert_eq!(
        tokenizer.decode(&tokenizer.encode("<unk>").unwrap()),
        "<unk>"
    );
}

/// A small model's keys.
fn model() -> File {
    let mut file = Vocabulary::of(&pieces()).file();
    for (key, value) in [
        ("context_length", 4096),
        ("embedding_length", 64),
        ("feed_forward_length", 128),
        ("block_count", 2),
        ("attention.head_count", 4),
    ] {
        file.key(&format!("phi3.{key}"), Stored::u32(value));
    }
    file.key("phi3.attention.layer_norm_rms_epsilon", Stored::f32(1e-5));
    file
}

fn configured(file: &File) -> Result<Config, String> {
    let read = block_on(Config::from_gguf(&open(file)));
    read.map(|(config, _)| config).map_err(|e| e.to_string())
}

#[test]
fn keys_that_would_change_the_numbers_are_refused_by_name() {
    let plain = configured(&model()).unwrap();
    let text = Stored::text;
    let (number, flag) = (Stored::f32, Stored::flag);
    for (key, value) in [
        ("rope.scaling.type", text("none")),
        ("rope.scaling.type", text("linear")),
        ("rope.scaling.factor", number(1.0)),
        ("rope.scaling.factor", number(0.0)),
        ("rope.scaling.attn_factor", number(1.0)),
        ("rope.scaling.finetuned", flag(true)),
        ("rope.freq_base", number(10_000.0)),
        ("rope.scale_linear", number(1.0)),
        ("attention.causal", flag(true)),
        ("attention.value_length", Stored::u32(16)),
        ("attention.scale", number(0.25)),
        ("expert_count", Stored::u32(0)),
        ("vocab_size", Stored::u32(7)),
        ("something_else", text("new")),
    ] {
        let mut file = model();
        file.key(&format!("phi3.{key}"), value);
        assert_eq!(configured(&file).unwrap(), plain, "{key}");
    }
    for (key, value, says) in [
        ("rope.scaling.type", text("yarn"), "\"yarn\""),
        ("rope.scaling.type", text("longrope"), "no"),
        ("rope.scaling.type", Stored::u32(2), "rope.scaling.type"),
        (
            "rope.scaling.factor",
            number(4.0),
            "rope.scaling.factor is 4",
        ),
        ("rope.scaling.attn_factor", number(1.19), "rope.scaling"),
        (
            "rope.scaling.yarn_log_multiplier",
            number(0.1),
            "yarn_log_multiplier",
        ),
        (
            "rope.scaling.yarn_ext_factor",
            number(1.0),
            "yarn_ext_factor",
        ),
        ("rope.scale_linear", number(4.0), "rope.scale_linear"),
        (
            "rope.dimension_sections",
            Stored::i32s(&[1, 2]),
            "rope.dimension_sections",
        ),
        ("rope.freq_base_swa", number(1e6), "rope.freq_base_swa"),
        ("attention.causal", flag(false), "attention.causal"),
        (
            "attention.value_length",
            Stored::u32(32),
            "attention.value_length",
        ),
        ("attention.scale", number(1.0), "attention.scale"),
        ("attention.clamp_kqv", number(8.0), "attention.clamp_kqv"),
        (
            "attention.sliding_window_pattern",
            Stored::u32(2),
            "sliding_window_pattern",
        ),
        ("expert_count", Stored::u32(16), "expert_count"),
        (
            "final_logit_softcapping",
            number(30.0),
            "final_logit_softcapping",
        ),
        ("logit_scale", number(0.1), "logit_scale"),
        ("embedding_scale", text("x"), "embedding_scale"),
    ] {
        let mut file = model();
        file.key(&format!("phi3.{key}"), value);
        let error = configured(&file).expect_err(key);
        assert!(error.starts_with("model.gguf: "), "{error}");
        assert!(error.contains(says), "{key}: {error}");
    }
    let mut file = model();
    file.tensor("rope_freqs.weight", &[8], 0, &[0; 32]);
    let error = configured(&file).unwrap_err();
    assert!(error.contains("rope_freqs.weight"), "{error}");
}
