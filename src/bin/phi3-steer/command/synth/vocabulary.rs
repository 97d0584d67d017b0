//! A SentencePiece vocabulary for a GGUF file: that of a `tokenizer.json`, or a random one.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::Rng;
use rand::rngs::StdRng;
use serde::Deserialize;

use super::gguf::Value;

/// Phi-3's chat template.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{% if message['role'] == 'system' %}\
{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}\
{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}\
{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}";

/// Phi-3's special tokens after the pieces.
const SPECIAL: [&str; 11] = [
    "<|endoftext|>",
    "<|assistant|>",
    "<|placeholder1|>",
    "<|placeholder2|>",
    "<|placeholder3|>",
    "<|placeholder4|>",
    "<|system|>",
    "<|end|>",
    "<|placeholder5|>",
    "<|placeholder6|>",
    "<|user|>",
];

/// Rows of the embedding after the pieces, special tokens among them.
const TAIL: usize = 64;

/// The types of tokens in a GGUF file.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Tokens by id.
pub struct Vocabulary {
    tokens: Vec<String>,
    scores: Vec<f32>,
    types: Vec<i32>,
    template: String,
    special: Vec<(&'static str, u32)>,
}

impl Vocabulary {
    /// The metadata of a GGUF file.
    pub fn keys(&self) -> Vec<(String, Value)> {
        let mut keys = vec![
            ("model", Value::Text("llama".into())),
            ("pre", Value::Text("default".into())),
            ("tokens", Value::Texts(self.tokens.clone())),
            ("scores", Value::F32s(self.scores.clone())),
            ("token_type", Value::I32s(self.types.clone())),
            ("add_bos_token", Value::Flag(true)),
            ("add_eos_token", Value::Flag(false)),
        ];
        for (key, id) in &self.special {
            keys.push((key, Value::U32(*id)));
        }
        let keys = keys
            .into_iter()
            .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value));
        let template = Value::Text(self.template.clone());
        keys.chain([("tokenizer.chat_template".into(), template)])
            .collect()
    }

    /// `count` tokens: Phi-3's special ones, bytes, characters, and pieces that random pairs of others
    /// make up.
    pub fn random(rng: &mut StdRng, count: usize) -> Result<Self, String> {
        let mut made = Self {
            tokens: Vec::with_capacity(count),
            scores: Vec::with_capacity(count),
            types: Vec::with_capacity(count),
            template: CHAT_TEMPLATE.into(),
            special: Vec::new(),
        };
        made.add("<unk>", 0.0, UNKNOWN);
        made.add("<s>", 0.0, CONTROL);
        made.add("</s>", 0.0, CONTROL);
        for byte in 0..=255u8 {
            made.add(&format!("<0x{byte:02X}>"), 0.0, BYTE);
        }
        let characters = (33..127u8).map(|byte| char::from(byte).to_string());
        let mut pieces: Vec<String> = characters.chain(["\u{2581}".into()]).collect();
        let mut known: HashSet<String> = pieces.iter().cloned().collect();
        let wanted = count.saturating_sub(TAIL + made.tokens.len());
        if wanted < pieces.len() {
            return Err(format!(
                "a vocabulary of {count} tokens has no room for characters"
            ));
        }
        while pieces.len() < wanted {
            let [left, right] = [(); 2].map(|()| &pieces[rng.random_range(0..pieces.len())]);
            let piece = format!("{left}{right}");
            if piece.len() <= 16 && known.insert(piece.clone()) {
                pieces.push(piece);
            }
        }
        for (rank, piece) in pieces.iter().enumerate() {
            made.add(piece, -(rank as f32), NORMAL);
        }
        let end = made.tokens.len() as u32;
        SPECIAL
            .iter()
            .for_each(|token| made.add(token, 0.0, CONTROL));
        made.special = vec![
            ("bos_token_id", 1),
            ("eos_token_id", end),
            ("unknown_token_id", 0),
            ("padding_token_id", end),
        ];
        made.fill(count);
        Ok(made)
    }

    /// The vocabulary of a `tokenizer.json` and its `tokenizer_config.json`, filled up to `count`.
    pub fn from_json(json: &[u8], config: &[u8], count: usize) -> Result<Self, String> {
        let fail = |e: serde_json::Error| format!("the tokenizer cannot be read: {e}");
        let tokenizer: Tokenizer = serde_json::from_slice(json).map_err(fail)?;
        let config: Config = serde_json::from_slice(config).map_err(fail)?;
        let Tokenizer {
            model,
            added_tokens,
        } = tokenizer;
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (rank, (left, right)) in model.merges.iter().enumerate() {
            ranks.entry(format!("{left}{right}")).or_insert(rank);
        }
        let mut by_id: BTreeMap<usize, (String, i32)> = BTreeMap::new();
        for (text, id) in model.vocab {
            let byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            by_id.insert(id, (text, if byte { BYTE } else { NORMAL }));
        }
        for added in added_tokens {
            let kind = match (&config.unk_token, added.special) {
                (Some(unknown), _) if *unknown == added.content => UNKNOWN,
                (_, true) => CONTROL,
                (_, false) => USER_DEFINED,
            };
            by_id.insert(added.id, (added.content, kind));
        }
        let named = [
            ("bos_token_id", config.bos_token),
            ("eos_token_id", config.eos_token),
            ("unknown_token_id", config.unk_token),
            ("padding_token_id", config.pad_token),
        ];
        let special = named.into_iter().filter_map(|(key, token)| {
            let found = by_id
                .iter()
                .find(|(_, (text, _))| Some(text) == token.as_ref());
            found.map(|(id, _)| (key, *id as u32))
        });
        let mut made = Self {
            special: special.collect(),
            tokens: Vec::new(),
            scores: Vec::new(),
            types: Vec::new(),
            template: config.chat_template.unwrap_or_else(|| CHAT_TEMPLATE.into()),
        };
        for (id, (text, kind)) in by_id {
            if id >= count {
                return Err(format!("token {id} is beyond the model's {count}"));
            }
            made.fill(id);
            // What no merge makes never competes with another merge.
            let rank = ranks.get(&text).copied().unwrap_or(0);
            made.add(&text, -(rank as f32), kind);
        }
        made.fill(count);
        Ok(made)
    }

    fn add(&mut self, token: &str, score: f32, kind: i32) {
        self.tokens.push(token.into());
        self.scores.push(score);
        self.types.push(kind);
    }

    /// Adds tokens that stand for nothing until there are `count`.
    fn fill(&mut self, count: usize) {
        for id in self.tokens.len()..count {
            self.add(&format!("[PAD{id}]"), 0.0, UNUSED);
        }
    }
}

/// What matters of `tokenizer.json`.
#[derive(Deserialize)]
struct Tokenizer {
    model: Model,
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, usize>,
    merges: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Added {
    id: usize,
    content: String,
    special: bool,
}

/// What matters of `tokenizer_config.json`.
#[derive(Deserialize)]
struct Config {
    bos_token: Option<String>,
    eos_token: Option<String>,
    unk_token: Option<String>,
    pad_token: Option<String>,
    chat_template: Option<String>,
}
