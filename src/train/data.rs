//! The text that a dictionary is trained on.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use super::{Ask, Control, TrainError, Writing, write_replies};
use crate::generate::{Chat, Sampling};
use crate::tokens::{ChatTokenizer, Message, Prompt, TokenRole};

/// One of how many sequences is held out, to measure the fit on, and how many at most.
const HELD_OUT: usize = 20;
const MOST_HELD: usize = 128;

/// Where the text comes from; a list's name is told in the card.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// Plain texts.
    pub texts: Vec<(String, String)>,
    /// Conversations with their replies.
    pub chats: Vec<(String, Vec<Vec<Message>>)>,
    /// Prompts that the model itself replies to.
    pub prompts: Vec<(String, Vec<Vec<Message>>)>,
    /// Each prompt is replied to once from each of these beginnings on; an empty one lets the model begin.
    pub openings: Vec<String>,
}

impl Sources {
    /// What the model is to reply to.
    fn asks(&self) -> Vec<Ask> {
        let all = self.prompts.iter().flat_map(|(_, all)| all);
        let asks = all.flat_map(|messages| {
            self.openings.iter().map(|opening| Ask {
                messages: messages.clone(),
                opening: opening.clone(),
            })
        });
        asks.collect()
    }
}

/// How sources become sequences.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Tokens of a sequence: text is cut to it, conversations are cut off.
    pub length: usize,
    /// Tokens to train on at most, of a random choice of sequences.
    pub most: Option<u64>,
    /// How the model writes its replies; the seed is [`Reading::seed`].
    pub writing: Writing,
    /// What all random choices come from.
    pub seed: u64,
}

/// Is given all conversations so far, and how many there will be.
pub type KeepWritten<'a> = dyn FnMut(&[Vec<Message>], usize) -> Result<(), TrainError> + 'a;

/// The replies that the model writes.
pub struct Written<'a> {
    /// Those of an earlier run, which are not written again.
    pub before: Vec<Vec<Message>>,
    /// Is called after each batch.
    pub keep: &'a mut KeepWritten<'a>,
}

/// Tokens to train on, and tokens held out.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// In random order.
    pub sequences: Vec<Prompt>,
    /// Not trained on.
    pub held: Vec<Prompt>,
    /// Where tokens come from: in words, with their number.
    pub sources: Vec<(String, u64)>,
}

impl Data {
    /// Cuts the sources to sequences; the model writes its replies.
    pub async fn gather(
        sources: &Sources,
        how: &Reading,
        chat: &mut Chat,
        written: Written<'_>,
        control: &Control,
    ) -> Result<Self, TrainError> {
        let (length, most) = (how.length, chat.model().context());
        if !(2..=most).contains(&length) {
            return Err(TrainError::Setting {
                name: "length",
                value: length.to_string(),
                rule: format!("2 to {most} is possible"),
            });
        }
        let tokenizer = chat.tokenizer().clone();
        let mut all = Vec::new();
        let mut told = Vec::new();
        let mut add = |what: String, some: Vec<Prompt>| {
            let tokens = some.iter().map(|s| s.ids.len() as u64).sum();
            told.push((what, tokens));
            all.extend(some);
        };
        for (name, text) in &sources.texts {
            add(format!("text: {name}"), windows(&tokenizer, text, length)?);
        }
        for (name, chats) in &sources.chats {
            let some = conversations(&tokenizer, chats, length)?;
            add(format!("chats: {name}"), some);
        }
        if !sources.prompts.is_empty() {
            let asks = sources.asks();
            if asks.is_empty() {
                return Err(TrainError::NoOpening);
            }
            let replies = write(&asks, how, chat, written, control).await?;
            let some = conversations(&tokenizer, &replies, length)?;
            let names: Vec<&str> = sources.prompts.iter().map(|(n, _)| n.as_str()).collect();
            let names = names.join(", ");
            add(
                format!("{} replies of the model's to {names}", asks.len()),
                some,
            );
        }
        all.retain(|s| s.ids.len() > 1);
        all.shuffle(&mut StdRng::seed_from_u64(how.seed));
        let held = all.len().div_ceil(HELD_OUT).min(MOST_HELD);
        let sequences = all.split_off(held.min(all.len()));
        let mut data = Self {
            sequences,
            held: all,
            sources: told,
        };
        if let Some(most) = how.most {
            let mut tokens = 0;
            data.sequences.retain(|s| {
                tokens += s.ids.len() as u64;
                tokens <= most
            });
        }
        match data.sequences.is_empty() {
            true => Err(TrainError::TooShort),
            false => Ok(data),
        }
    }

    /// Vectors that the sequences give: the first token of each does not count.
    pub fn vectors(&self) -> u64 {
        self.sequences.iter().map(|s| s.ids.len() as u64 - 1).sum()
    }

    /// The SHA-256 of all tokens, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for sequence in self.sequences.iter().chain(&self.held) {
            hash.update((sequence.ids.len() as u64).to_le_bytes());
            let ids = sequence.ids.iter();
            ids.for_each(|id| hash.update(id.to_le_bytes()));
        }
        let bytes = hash.finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The tokens of a text, in pieces of at most `length` that begin as the model's sequences do.
fn windows(
    tokenizer: &ChatTokenizer,
    text: &str,
    length: usize,
) -> Result<Vec<Prompt>, TrainError> {
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
) -> Result<Vec<Prompt>, TrainError> {
    let mut out = Vec::with_capacity(all.len());
    for messages in all {
        let mut prompt = tokenizer.chat(messages, false)?;
        prompt.ids.truncate(length);
        prompt.roles.truncate(length);
        out.push(prompt);
    }
    Ok(out)
}

/// The conversations of `asks` with the model's replies, those from before as they are.
async fn write(
    asks: &[Ask],
    how: &Reading,
    chat: &mut Chat,
    Written { before, keep }: Written<'_>,
    control: &Control,
) -> Result<Vec<Vec<Message>>, TrainError> {
    let mut written = before;
    let same = written.len() <= asks.len()
        && written.iter().zip(asks).all(|(messages, ask)| {
            messages.split_last().is_some_and(|(reply, before)| {
                before == ask.messages && reply.content.starts_with(&ask.opening)
            })
        });
    if !same {
        return Err(TrainError::OtherPrompts);
    }
    let lanes = chat.model().lanes();
    // A batch is written as a whole.
    written.truncate(match written.len() == asks.len() {
        true => written.len(),
        false => written.len() / lanes * lanes,
    });
    while written.len() < asks.len() {
        let from = written.len();
        let some = &asks[from..(from + lanes).min(asks.len())];
        let writing = Writing {
            sampling: Sampling {
                seed: (how.seed as u32).wrapping_add((from / lanes) as u32),
                ..how.writing.sampling
            },
            ..how.writing
        };
        let turn = control.turns.take().await;
        written.extend(write_replies(chat, some, &writing, &control.cancel).await?);
        drop(turn);
        keep(&written, asks.len())?;
    }
    Ok(written)
}
