//! Vocabularies with scores: as GGUF files, and as SentencePiece would use them.
// Every test file uses its own part.
#![allow(dead_code)]

use std::collections::HashMap;

use serde_json::Value;

use crate::file::{File, Stored};

pub const NANO: &[u8] = include_bytes!("../../models/nano/tokenizer.json");
pub const NANO_CONFIG: &[u8] = include_bytes!("../../models/nano/tokenizer_config.json");

/// The types of tokens in a GGUF file.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// A SentencePiece vocabulary with Phi-3's chat tokens.
#[derive(Default)]
pub struct Vocabulary {
    tokens: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<i32>,
    template: Option<String>,
}

impl Vocabulary {
    /// Adds a token.
    pub fn push(&mut self, token: &str, score: f32, kind: i32) {
        self.tokens.push(token.into());
        self.scores.push(score);
        self.kinds.push(kind);
    }

    /// `<unk>`, `<s>`, `</s>` and the bytes.
    fn start() -> Self {
        let mut new = Self::default();
        for token in ["<unk>", "<s>", "</s>"] {
            new.push(token, -1000.0, CONTROL);
        }
        for byte in 0..256 {
            new.push(&format!("<0x{byte:02X}>"), 0.0, BYTE);
        }
        new
    }

    /// Pieces, the best score first, and the chat tokens.
    pub fn of<T: AsRef<str>>(pieces: &[T]) -> Self {
        let mut new = Self::start();
        for (i, piece) in pieces.iter().enumerate() {
            // Runs of spaces share a score, as in Phi-3's vocabulary.
            let spaces = piece.as_ref().chars().all(|c| c == '\u{2581}');
            let score = if spaces { -1e9 } else { -(i as f32) };
            new.push(piece.as_ref(), score, NORMAL);
        }
        for token in [
            "<|endoftext|>",
            "<|system|>",
            "<|user|>",
            "<|assistant|>",
            "<|end|>",
        ] {
            new.push(token, -1000.0, CONTROL);
        }
        new
    }

    /// The nano model's: a piece's score is the place of its merge.
    pub fn nano() -> Self {
        let json: Value = serde_json::from_slice(NANO).unwrap();
        let config: Value = serde_json::from_slice(NANO_CONFIG).unwrap();
        let mut ranks = HashMap::new();
        for (rank, merge) in json["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
        {
            let part = |i: usize| merge[i].as_str().unwrap();
            ranks
                .entry(format!("{}{}", part(0), part(1)))
                .or_insert(rank);
        }
        let vocab = json["model"]["vocab"].as_object().unwrap();
        let mut tokens: Vec<(u64, &str)> = vocab
            .iter()
            .map(|(token, id)| (id.as_u64().unwrap(), token.as_str()))
            .collect();
        let added = json["added_tokens"].as_array().unwrap().iter();
        let added: HashMap<u64, &str> = added
            .map(|t| (t["id"].as_u64().unwrap(), t["content"].as_str().unwrap()))
            .collect();
        tokens.extend(added.iter().map(|(id, token)| (*id, *token)));
        tokens.sort_unstable();
        tokens.dedup();
        let mut new = Self {
            template: config["chat_template"].as_str().map(String::from),
            ..Self::default()
        };
        for (id, token) in tokens {
            let (score, kind) = match ranks.get(token) {
                _ if added.contains_key(&id) => (-1000.0, CONTROL),
                Some(rank) => (-(*rank as f32), NORMAL),
                None if token.starts_with("<0x") => (0.0, BYTE),
                None => (-1e9, NORMAL),
            };
            assert_eq!(new.len() as u64, id);
            new.push(token, score, kind);
        }
        new
    }

    /// The number of a token.
    pub fn id(&self, token: &str) -> usize {
        self.tokens.iter().position(|t| t == token).unwrap()
    }

    /// Gives a token another type.
    pub fn retype(&mut self, id: usize, kind: i32) {
        self.kinds[id] = kind;
    }

    /// Adds a row that fills up the embedding, of this type.
    pub fn pad(&mut self, kind: i32) {
        self.push(&format!("[PAD{}]", self.len()), -10_000.0, kind);
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The pieces of text.
    pub fn pieces(&self) -> impl Iterator<Item = &str> {
        let pairs = self.tokens.iter().zip(&self.kinds);
        pairs
            .filter(|(_, kind)| **kind == NORMAL)
            .map(|(token, _)| token.as_str())
    }

    /// Adds the keys of the vocabulary to a file.
    pub fn write(&self, file: &mut File) {
        file.key("tokenizer.ggml.model", Stored::text("llama"));
        file.key("tokenizer.ggml.pre", Stored::text("default"));
        file.key("tokenizer.ggml.tokens", Stored::texts(&self.tokens));
        file.key("tokenizer.ggml.scores", Stored::f32s(&self.scores));
        file.key("tokenizer.ggml.token_type", Stored::i32s(&self.kinds));
        let id = |name: &str| {
            let at = self.tokens.iter().position(|t| t == name);
            Stored::u32(at.unwrap() as u32)
        };
        file.key("tokenizer.ggml.bos_token_id", id("<s>"));
        file.key("tokenizer.ggml.eos_token_id", id("<|end|>"));
        file.key("tokenizer.ggml.unknown_token_id", id("<unk>"));
        file.key("tokenizer.ggml.add_bos_token", Stored::flag(true));
        if let Some(template) = &self.template {
            file.key("tokenizer.chat_template", Stored::text(template));
        }
    }

    /// A file of the vocabulary alone.
    pub fn file(&self) -> File {
        let mut file = File::default();
        file.key("general.architecture", Stored::text("phi3"));
        self.write(&mut file);
        file
    }

    /// SentencePiece's rule, word for word: as long as two neighbours are a piece together, join
    /// those with the best score, the leftmost of equal ones; what is no piece is spelled in bytes.
    pub fn sentence_piece(&self, text: &str) -> Vec<u32> {
        if text.is_empty() {
            return Vec::new();
        }
        let ids: HashMap<&str, usize> = (0..self.len())
            .filter(|&id| self.kinds[id] == NORMAL)
            .map(|id| (self.tokens[id].as_str(), id))
            .collect();
        let text = format!("\u{2581}{}", text.replace(' ', "\u{2581}"));
        let mut symbols: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let mut best: Option<(f32, usize)> = None;
            for at in 0..symbols.len().saturating_sub(1) {
                let pair = format!("{}{}", symbols[at], symbols[at + 1]);
                if let Some(&id) = ids.get(pair.as_str())
                    && best.is_none_or(|(score, _)| self.scores[id] > score)
                {
                    best = Some((self.scores[id], at));
                }
            }
            let Some((_, at)) = best else { break };
            let right = symbols.remove(at + 1);
            symbols[at] += &right;
        }
        let spell = |symbol: &String| match ids.get(symbol.as_str()) {
            Some(&id) => vec![id as u32],
            None => symbol.bytes().map(|byte| u32::from(byte) + 3).collect(),
        };
        symbols.iter().flat_map(spell).collect()
    }
}
