//! The tokenizer: BPE with byte fallback in the form of Phi-3's (a Llama tokenizer with chat
//! tokens), trained on the corpus.

use std::collections::HashMap;
use std::path::Path;

use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{SplitDelimiterBehavior, Tokenizer, TokenizerBuilder};

use crate::Result;
use crate::corpus::{Dialogue, Tables};
use crate::infer::Scored;

const SPECIALS: [&str; 5] = [
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
];
/// `<unk>`, `<s>`, `</s>` and the 256 bytes come before the pieces.
const BEFORE_PIECES: usize = 259;
/// The low line that stands for a space.
const SPACE: &str = "\u{2581}";

/// Phi-3's chat template.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}";

/// A tokenizer with the ids of the chat tokens at hand.
pub struct ChatTokenizer {
    inner: Tokenizer,
    pub bos: u32,
    pub system: u32,
    pub user: u32,
    pub assistant: u32,
    pub end: u32,
    pub endoftext: u32,
}

/// A dialogue in tokens, with the weight of each token in the loss.
pub struct Encoded {
    pub ids: Vec<u32>,
    pub weights: Vec<f32>,
}

/// The weight of a user's token in the loss; an assistant's counts 1.
const USER_WEIGHT: f32 = 0.2;

/// Trains a vocabulary of `vocab` tokens on `dialogues` dialogues; the contents of `tokenizer.json`.
pub fn train(tables: &Tables, vocab: usize, dialogues: usize, seed: u64) -> Result<Value> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut texts = Vec::new();
    for _ in 0..dialogues {
        let d = tables.dialogue(&mut rng);
        texts.extend(d.system);
        texts.extend(d.turns.into_iter().flat_map(|(u, a)| [u, a]));
    }
    let pieces = vocab - BEFORE_PIECES - SPECIALS.len();
    let alphabet = (33u8..127).map(char::from).chain(SPACE.chars()).collect();
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(pieces)
        .min_frequency(2)
        .initial_alphabet(alphabet)
        .show_progress(false)
        .build();
    let mut raw = TokenizerBuilder::<
        BPE,
        tokenizers::NormalizerWrapper,
        tokenizers::PreTokenizerWrapper,
        tokenizers::PostProcessorWrapper,
        tokenizers::DecoderWrapper,
    >::new()
    .with_model(BPE::default())
    .with_normalizer(None)
    .with_pre_tokenizer(Some(tokenizers::PreTokenizerWrapper::Sequence(
        Sequence::new(vec![
            Metaspace::new('\u{2581}', PrependScheme::Always, true).into(),
            Punctuation::new(SplitDelimiterBehavior::Isolated).into(),
        ]),
    )))
    .with_post_processor(None)
    .with_decoder(None)
    .build()?;
    raw.train(&mut trainer, texts.into_iter())?;
    let trained: Value = serde_json::from_str(&raw.to_string(false)?)?;
    let learnt: HashMap<String, u64> = serde_json::from_value(trained["model"]["vocab"].clone())?;
    let mut learnt: Vec<_> = learnt.into_iter().collect();
    learnt.sort_by_key(|(_, id)| *id);
    if learnt.len() != pieces {
        return Err(format!(
            "the corpus gave {} pieces, not {pieces}: train on more dialogues",
            learnt.len()
        )
        .into());
    }
    let mut table = serde_json::Map::new();
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let first = ["<unk>", "<s>", "</s>"]
        .map(String::from)
        .into_iter()
        .chain(bytes);
    for piece in first.chain(learnt.into_iter().map(|(p, _)| p)) {
        let id = table.len();
        table.insert(piece, json!(id));
    }
    let special = |(id, content): (usize, &str)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": !["<s>", "<|endoftext|>"].contains(&content), "normalized": false, "special": true,
        })
    };
    let added: Vec<Value> = ["<unk>", "<s>", "</s>"]
        .into_iter()
        .enumerate()
        .chain(
            SPECIALS
                .into_iter()
                .enumerate()
                .map(|(i, s)| (vocab - SPECIALS.len() + i, s)),
        )
        .map(special)
        .collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": table, "merges": trained["model"]["merges"],
        },
    }))
}

/// The contents of `tokenizer_config.json`.
pub fn config(positions: usize) -> Value {
    json!({
        "add_bos_token": true,
        "add_eos_token": false,
        "bos_token": "<s>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|end|>",
        "legacy": false,
        "model_max_length": positions,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": false,
    })
}

impl ChatTokenizer {
    /// Loads `tokenizer.json`.
    pub fn load(path: &Path) -> Result<Self> {
        let inner = Tokenizer::from_file(path)?;
        let id = |s: &str| {
            inner
                .token_to_id(s)
                .ok_or_else(|| format!("{} has no token {s}", path.display()))
        };
        let (bos, end, endoftext) = (id("<s>")?, id("<|end|>")?, id("<|endoftext|>")?);
        let (system, user, assistant) = (id("<|system|>")?, id("<|user|>")?, id("<|assistant|>")?);
        Ok(Self {
            inner,
            bos,
            system,
            user,
            assistant,
            end,
            endoftext,
        })
    }

    fn text(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode(text, false)?.get_ids().to_vec())
    }

    /// The text of generated tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true)
    }

    /// A training dialogue, cut at `limit` tokens.
    pub fn dialogue(&self, d: &Dialogue, limit: usize) -> Result<Encoded> {
        let (mut ids, mut weights) = (vec![self.bos], vec![0.0]);
        let mut add = |role: u32, text: &str, weight: f32| -> Result<()> {
            let body = self.text(text)?;
            ids.push(role);
            weights.push(0.0);
            weights.extend(std::iter::repeat_n(weight, body.len() + 1));
            ids.extend(body);
            ids.push(self.end);
            Ok(())
        };
        if let Some(s) = &d.system {
            add(self.system, s, USER_WEIGHT)?;
        }
        for (user, assistant) in &d.turns {
            add(self.user, user, USER_WEIGHT)?;
            add(self.assistant, assistant, 1.0)?;
        }
        ids.truncate(limit);
        weights.truncate(limit);
        Ok(Encoded { ids, weights })
    }

    /// The prompt after which the reply to the last message begins: alternating user and assistant
    /// messages, the last the user's.
    pub fn prompt(&self, messages: &[String]) -> Result<Vec<u32>> {
        let mut ids = vec![self.bos];
        for (i, text) in messages.iter().enumerate() {
            ids.push(if i % 2 == 0 {
                self.user
            } else {
                self.assistant
            });
            ids.extend(self.text(text)?);
            ids.push(self.end);
        }
        ids.push(self.assistant);
        Ok(ids)
    }

    /// A prompt with the reply to be scored, its closing token with it.
    pub fn scored(&self, prompt: &[u32], reply: &str) -> Result<Scored> {
        let mut ids = prompt.to_vec();
        ids.extend(self.text(reply)?);
        ids.push(self.end);
        Ok(Scored {
            ids,
            from: prompt.len(),
        })
    }
}
