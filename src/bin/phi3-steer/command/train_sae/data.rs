//! The text that a dictionary is trained on.

use std::path::{Path, PathBuf};

use phi3_steer::generate::{Chat, Sampling};
use phi3_steer::tokens::{ChatTokenizer, Message, Prompt, TokenRole};
use phi3_steer::train::{Ask, Writing, write_replies};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use super::work::Work;
use crate::command::Failure;
use crate::command::common::read_file;
use crate::command::conversations::read_prompts;
use crate::output::note;

/// Where the text comes from.
#[derive(clap::Args)]
pub struct DataArguments {
    /// A file of plain text; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub text: Vec<PathBuf>,
    /// A file of conversations with their replies, a JSON list of messages a line; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub chats: Vec<PathBuf>,
    /// A file of prompts that the model itself replies to; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub prompts: Vec<PathBuf>,
    /// A file of beginnings, one a line: each prompt is also replied to from each of them on.
    #[arg(long, value_name = "FILE", requires = "prompts")]
    pub openings: Option<PathBuf>,
    /// Tokens of a reply at most, after its beginning.
    #[arg(long, value_name = "N", default_value_t = 48)]
    pub reply_tokens: usize,
    /// Replies to a prompt that begin as the model likes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub replies: usize,
    /// What logits are divided by when replies are written; 0 takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub temperature: f32,
    /// Tokens of a sequence: text is cut to it, conversations are cut off.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub length: usize,
    /// Tokens at most, of a random choice of sequences.
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,
}

impl DataArguments {
    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let lists = [&self.text, &self.chats, &self.prompts];
        let all = lists.into_iter().flatten().chain(&self.openings);
        all.map(PathBuf::as_path)
    }
}

/// One of how many sequences is held out, to measure the fit on, and how many at most.
const HELD_OUT: usize = 20;
const MOST_HELD: usize = 128;

/// Tokens to train on, and tokens held out.
pub struct Data {
    /// In random order.
    pub sequences: Vec<Prompt>,
    /// Not trained on.
    pub held: Vec<Prompt>,
    /// Where tokens come from: in words, with their number.
    pub sources: Vec<(String, u64)>,
}

impl Data {
    /// Reads the files and has the model write its replies.
    pub async fn gather(
        arguments: &DataArguments,
        chat: &mut Chat,
        work: &Work,
        seed: u64,
    ) -> Result<Self, Failure> {
        let most = chat.model().context();
        if !(2..=most).contains(&arguments.length) {
            let length = arguments.length;
            return Err(format!("--length {length} is not possible: 2 to {most} is").into());
        }
        let tokenizer = chat.tokenizer().clone();
        let mut all = Vec::new();
        let mut sources = Vec::new();
        let mut add = |what: String, some: Vec<Prompt>, all: &mut Vec<Prompt>| {
            let tokens = some.iter().map(|s| s.ids.len() as u64).sum();
            sources.push((what, tokens));
            all.extend(some);
        };
        for path in &arguments.text {
            let text = String::from_utf8(read_file(path)?)
                .map_err(|e| format!("{} cannot be read as text: {e}", path.display()))?;
            let some = windows(&tokenizer, &text, arguments.length)?;
            add(format!("text: {}", super::name(path)), some, &mut all);
        }
        for path in &arguments.chats {
            let some = conversations(&tokenizer, &read_prompts(path)?, arguments.length)?;
            add(format!("chats: {}", super::name(path)), some, &mut all);
        }
        if !arguments.prompts.is_empty() {
            let asks = asks(arguments)?;
            let written = write(arguments, chat, work, &asks, seed).await?;
            let some = conversations(&tokenizer, &written, arguments.length)?;
            let names: Vec<String> = arguments.prompts.iter().map(|p| super::name(p)).collect();
            let what = format!(
                "{} replies of the model's to {}",
                asks.len(),
                names.join(", ")
            );
            add(what, some, &mut all);
        }
        all.retain(|s| s.ids.len() > 1);
        all.shuffle(&mut StdRng::seed_from_u64(seed));
        let held = all.len().div_ceil(HELD_OUT).min(MOST_HELD);
        let sequences = all.split_off(held.min(all.len()));
        let mut data = Self {
            sequences,
            held: all,
            sources,
        };
        if let Some(most) = arguments.tokens {
            let mut tokens = 0;
            data.sequences.retain(|s| {
                tokens += s.ids.len() as u64;
                tokens <= most
            });
        }
        if data.sequences.is_empty() {
            return Err(
                "the text is too short: two sequences are needed, one to train on and one to \
                        measure the fit on"
                    .into(),
            );
        }
        Ok(data)
    }

    /// The SHA-256 of all tokens, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for sequence in self.sequences.iter().chain(&self.held) {
            hash.update((sequence.ids.len() as u64).to_le_bytes());
            sequence
                .ids
                .iter()
                .for_each(|id| hash.update(id.to_le_bytes()));
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// The tokens of a text, in pieces of at most `length` that begin as the model's sequences do.
fn windows(tokenizer: &ChatTokenizer, text: &str, length: usize) -> Result<Vec<Prompt>, Failure> {
    let bos = tokenizer.bos();
    let ids = tokenizer.encode(text)?;
    let pieces = ids.chunks(length - usize::from(bos.is_some()));
    let pieces = pieces.map(|piece| {
        let ids: Vec<u32> = bos.into_iter().chain(piece.iter().copied()).collect();
        let roles = vec![TokenRole::Prompt; ids.len()];
        Prompt { ids, roles }
    });
    Ok(pieces.collect())
}

/// The tokens of conversations, cut off after `length`.
fn conversations(
    tokenizer: &ChatTokenizer,
    all: &[Vec<Message>],
    length: usize,
) -> Result<Vec<Prompt>, Failure> {
    let mut out = Vec::with_capacity(all.len());
    for messages in all {
        let mut prompt = tokenizer.chat(messages, false)?;
        prompt.ids.truncate(length);
        prompt.roles.truncate(length);
        out.push(prompt);
    }
    Ok(out)
}

/// What the model is to reply to.
fn asks(arguments: &DataArguments) -> Result<Vec<Ask>, Failure> {
    let mut openings = vec![String::new(); arguments.replies];
    if let Some(path) = &arguments.openings {
        let text = String::from_utf8(read_file(path)?)
            .map_err(|e| format!("{} cannot be read as text: {e}", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        openings.extend(lines.map(String::from));
    }
    if openings.is_empty() {
        return Err("there is nothing to reply with: give --replies 1 or --openings FILE".into());
    }
    let mut all = Vec::new();
    for path in &arguments.prompts {
        for messages in read_prompts(path)? {
            all.extend(openings.iter().map(|opening| Ask {
                messages: messages.clone(),
                opening: opening.clone(),
            }));
        }
    }
    Ok(all)
}

/// The conversations of `asks` with the model's replies, those from before as they are.
async fn write(
    arguments: &DataArguments,
    chat: &mut Chat,
    work: &Work,
    asks: &[Ask],
    seed: u64,
) -> Result<Vec<Vec<Message>>, Failure> {
    let mut written = work.written()?;
    let same = written.len() <= asks.len()
        && written.iter().zip(asks).all(|(messages, ask)| {
            messages.split_last().is_some_and(|(reply, before)| {
                before == ask.messages && reply.content.starts_with(&ask.opening)
            })
        });
    if !same {
        return Err(
            "the replies in the work folder are to other prompts: remove it, or choose another \
                    with --work"
                .into(),
        );
    }
    let lanes = chat.model().lanes();
    // A batch is written as a whole.
    written.truncate(match written.len() == asks.len() {
        true => written.len(),
        false => written.len() / lanes * lanes,
    });
    let how = |batch: usize| Writing {
        tokens: arguments.reply_tokens,
        sampling: Sampling {
            temperature: arguments.temperature,
            seed: (seed as u32).wrapping_add(batch as u32),
            ..Sampling::default()
        },
    };
    while written.len() < asks.len() {
        let from = written.len();
        let some = &asks[from..(from + lanes).min(asks.len())];
        written.extend(write_replies(chat, some, &how(from / lanes)).await?);
        work.keep_written(&written)?;
        note(&format!(
            "wrote {} of {} replies",
            written.len(),
            asks.len()
        ));
    }
    Ok(written)
}
