//! Prompts and what the model makes of them, step by step.

mod contrast;
mod replies;
mod residuals;
mod trials;

use std::cell::Cell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::openings::{Openings, first_said};
use super::verdicts::Label;
use super::{EvalFile, Item, Kind, LabError, Scope, SetsWish, digest};
use crate::generate::{Chat, ChatRequest, FeatureWish, Sampling};
use crate::steering::Intervention;
use crate::tokens::{Message, Prompt, Role};
pub(in crate::lab) use contrast::{difference, null_space};
pub(in crate::lab) use trials::Trials;

/// Tokens of a small-talk reply at most.
pub(in crate::lab) const TALK_TOKENS: usize = 32;
/// Harmless prompts whose replies the KL divergence is measured on.
const KL_PROMPTS: usize = 24;
/// Conversations of a step that holds their logits.
const KL_BATCH: usize = 4;
/// Nats in place of infinitely many.
const WORST: f64 = 1e30;
/// Digits of a digest in a step's key.
const KEY: usize = 16;

/// A prompt.
pub(in crate::lab) struct Entry {
    /// "set/number in its file's set as cut".
    pub id: String,
    /// Its set.
    pub set: usize,
    pub kind: Kind,
    pub item: Item,
    prompt: Prompt,
}

/// A set's name and kind.
pub(in crate::lab) struct SetInfo {
    pub name: String,
    pub kind: Kind,
}

/// Loss of a reply's tokens, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::lab) struct Loss {
    pub sum: f64,
    pub tokens: usize,
}

impl Loss {
    /// Nats a token; none for an empty reply.
    pub fn mean(self) -> Option<f64> {
        (self.tokens > 0).then(|| self.sum / self.tokens as f64)
    }

    /// A model that no longer gives numbers is as wrong as can be written down.
    fn bound(&mut self) {
        if !self.sum.is_finite() {
            self.sum = WORST;
        }
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            sum: self.sum + other.sum,
            tokens: self.tokens + other.tokens,
        }
    }
}

/// What was said to a prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::lab) struct Reply {
    pub tokens: Vec<u32>,
    pub text: String,
    /// Whether it ended by itself.
    pub stopped: bool,
    /// Log-odds that the reply begins as a refusal does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odds: Option<f64>,
    /// Log-probabilities of the letters A to D (choice).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letters: Option<Vec<f64>>,
}

/// How the lanes are set.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(in crate::lab) struct Setting {
    pub interventions: Vec<Intervention>,
    pub system: Option<&'static str>,
}

impl Setting {
    /// What a step's key says of it.
    fn key(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        digest(text.as_bytes())[..KEY].into()
    }
}

/// How often a feature is active.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::lab) struct Live {
    /// Harmful prompts.
    pub harmful: usize,
    /// Harmless prompts.
    pub harmless: usize,
}

/// A chat with prompts to measure it on: greedy, as many prompts at once as it has lanes.
pub(in crate::lab) struct Bench<'a> {
    chat: &'a mut Chat,
    openings: Openings,
    letters: Vec<u32>,
    /// Tokens of a reply.
    pub tokens: usize,
    split: String,
    pub sets: Vec<SetInfo>,
    pub entries: Vec<Entry>,
}

/// Prompts of a difference of means: name, whether harmful, tokens.
pub(in crate::lab) type Contrast = Vec<(String, bool, Prompt)>;

/// What an arm's replies on prompts are asked for.
type Jobs = Vec<(usize, Vec<usize>)>;

impl<'a> Bench<'a> {
    /// Encodes the prompts of a split, replies having `tokens` tokens at most.
    pub fn new(
        chat: &'a mut Chat,
        file: &EvalFile,
        wish: &SetsWish,
        split: &str,
        tokens: usize,
    ) -> Result<Self, LabError> {
        let openings = Openings::new(chat.tokenizer())?;
        let letters = ["A", "B", "C", "D"].map(|l| first_said(chat.tokenizer(), l));
        let letters = letters.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (mut sets, mut entries) = (Vec::new(), Vec::new());
        let all = file.sets(split, wish.limit)?;
        for name in &wish.only {
            if !all.iter().any(|set| set.name == *name) {
                let names: Vec<&str> = all.iter().map(|s| &s.name[..]).collect();
                return Err(LabError::Sets(format!(
                    "there is no set \"{name}\" in {split}, but {}",
                    names.join(", ")
                )));
            }
        }
        for set in all {
            if !wish.only.is_empty() && !wish.only.contains(&set.name) {
                continue;
            }
            for (i, item) in set.items.into_iter().enumerate() {
                let messages = asked(&item, set.kind, None);
                entries.push(Entry {
                    id: format!("{}/{i}", set.name),
                    set: sets.len(),
                    kind: set.kind,
                    prompt: chat.tokenizer().chat(&messages, true)?,
                    item,
                });
            }
            sets.push(SetInfo {
                name: set.name,
                kind: set.kind,
            });
        }
        Ok(Self {
            chat,
            openings,
            letters,
            tokens,
            split: split.into(),
            sets,
            entries,
        })
    }

    /// The chat.
    pub fn chat(&self) -> &Chat {
        self.chat
    }

    /// What the prompts are.
    pub fn labels(&self) -> Vec<Label> {
        let label = |entry: &Entry| Label {
            set: self.sets[entry.set].name.clone(),
            kind: entry.kind,
            category: entry.item.category.clone(),
            template: entry.item.template.clone(),
            likeness: entry.item.likeness.clone(),
        };
        self.entries.iter().map(label).collect()
    }

    /// Whether an arm of `scope` is measured on the set.
    pub fn in_scope(&self, set: usize, scope: Scope) -> bool {
        let SetInfo { name, kind } = &self.sets[set];
        let named = |s: &SetInfo| s.kind == Kind::Benign && s.name == "benign";
        match scope {
            Scope::All => true,
            Scope::Answers => !matches!(kind, Kind::Smalltalk | Kind::Perplexity),
            Scope::Refusals => match kind {
                Kind::Refuse | Kind::MultiTurn => true,
                Kind::Jailbreak => trained(name),
                Kind::Benign => name == "benign" || !self.sets.iter().any(named),
                _ => false,
            },
        }
    }

    /// The prompt of an entry under a setting.
    fn prompt(&self, entry: usize, setting: &Setting) -> Result<Prompt, LabError> {
        let Entry {
            prompt, item, kind, ..
        } = &self.entries[entry];
        match setting.system {
            None => Ok(prompt.clone()),
            Some(_) => Ok(self
                .chat
                .tokenizer()
                .chat(&asked(item, *kind, setting.system), true)?),
        }
    }

    /// Prompts that are answered together, with the tokens of a reply.
    pub fn reply_batches(&self, scope: Scope) -> Jobs {
        let mut jobs: Vec<(usize, usize)> = Vec::new();
        for (i, entry) in self.entries.iter().enumerate() {
            let tokens = match entry.kind {
                Kind::Perplexity => continue,
                Kind::Choice => 0,
                Kind::Smalltalk => TALK_TOKENS,
                _ => self.tokens,
            };
            if self.in_scope(entry.set, scope) {
                jobs.push((tokens, i));
            }
        }
        // Prompts of like length together, so that lanes wait little for one another.
        jobs.sort_by_key(|&(tokens, i)| (tokens, self.entries[i].prompt.ids.len()));
        let lanes = self.chat.model().lanes();
        jobs.chunk_by(|a, b| a.0 == b.0)
            .flat_map(|same| same.chunks(lanes))
            .map(|batch| (batch[0].0, batch.iter().map(|job| job.1).collect()))
            .collect()
    }

    /// Entries of a kind, in batches.
    pub fn batches_of(&self, kind: Kind) -> Vec<Vec<usize>> {
        let all = (0..self.entries.len()).filter(|&i| self.entries[i].kind == kind);
        self.batches(all.collect(), self.chat.model().lanes())
    }

    /// All entries that are asked something, in batches.
    pub fn asked_batches(&self) -> Vec<Vec<usize>> {
        let all = (0..self.entries.len()).filter(|&i| self.entries[i].kind != Kind::Perplexity);
        self.batches(all.collect(), self.chat.model().lanes())
    }

    /// The harmless prompts on whose replies the KL divergence is measured, in batches.
    pub fn kl_batches(&self) -> Vec<Vec<usize>> {
        let harmless = |i: &usize| matches!(self.entries[*i].kind, Kind::Benign | Kind::Smalltalk);
        let all: Vec<usize> = (0..self.entries.len()).filter(harmless).collect();
        let kept = KL_PROMPTS.min(all.len());
        let spread = (0..kept).map(|i| all[i * all.len() / kept]);
        self.batches(spread.collect(), KL_BATCH.min(self.chat.model().lanes()))
    }

    fn batches(&self, mut all: Vec<usize>, size: usize) -> Vec<Vec<usize>> {
        all.sort_by_key(|&i| self.entries[i].prompt.ids.len());
        all.chunks(size).map(<[usize]>::to_vec).collect()
    }

    /// The key of a step on `batch`.
    fn key(&self, what: &str, setting: &Setting, more: usize, batch: &[usize]) -> String {
        let ids: Vec<&str> = batch.iter().map(|&i| &self.entries[i].id[..]).collect();
        let batch = digest(format!("{more} {}", ids.join(" ")).as_bytes());
        format!("{what}/{}/{}", setting.key(), &batch[..KEY])
    }

    /// Steers every lane alike.
    fn steer(&self, interventions: &[Intervention]) -> Result<(), LabError> {
        for lane in 0..self.chat.model().lanes() {
            self.chat.steering().set(lane, interventions)?;
        }
        Ok(())
    }
}

/// Whether a jailbreak's family is one that training had.
pub(in crate::lab) fn trained(set: &str) -> bool {
    !set.starts_with("jbx_")
}

/// Whether refusals are the question of a set.
pub(in crate::lab) fn refusals_matter(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Refuse | Kind::Jailbreak | Kind::MultiTurn | Kind::Benign
    )
}

/// The messages of an item, four options written out, after a system message.
fn asked(item: &Item, kind: Kind, system: Option<&str>) -> Vec<Message> {
    let mut messages = item.messages.clone();
    if let (Kind::Choice, Some(options), Some(last)) = (kind, &item.options, messages.last_mut()) {
        for (letter, option) in ["A", "B", "C", "D"].iter().zip(options) {
            last.content += &format!("\n{letter}. {option}");
        }
        last.content += "\nAnswer with the letter only.";
    }
    if let Some(system) = system {
        match messages.first_mut() {
            Some(first) if first.role == Role::System => {
                first.content = format!("{system}\n{}", first.content);
            }
            _ => messages.insert(
                0,
                Message {
                    role: Role::System,
                    content: system.into(),
                },
            ),
        }
    }
    messages
}

/// A step's values, one for each prompt of its batch.
fn of_length<T>(values: Vec<T>, length: usize, key: &str) -> Result<Vec<T>, LabError> {
    if values.len() == length {
        return Ok(values);
    }
    Err(LabError::Journal(format!(
        "the step {key} holds {} values in place of {length}: begin a new journal",
        values.len()
    )))
}

pub(in crate::lab) fn request(
    prompts: &[Prompt],
    max_tokens: usize,
    features: Option<FeatureWish>,
) -> ChatRequest<'_> {
    ChatRequest {
        prompts,
        max_tokens,
        sampling: Sampling::default(),
        features,
        logprobs: None,
        cancel: Rc::new(Cell::new(false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_written_out_and_a_system_message_goes_first() {
        let item = Item {
            messages: vec![Message {
                role: Role::User,
                content: "Which?".into(),
            }],
            options: Some(["a", "b", "c", "d"].map(String::from).to_vec()),
            ..Item::default()
        };
        let told = asked(&item, Kind::Choice, Some("Be safe."));
        assert_eq!(
            (told[0].role, &told[0].content[..]),
            (Role::System, "Be safe.")
        );
        assert_eq!(
            told[1].content,
            "Which?\nA. a\nB. b\nC. c\nD. d\nAnswer with the letter only."
        );
        let mut own = item;
        own.messages.insert(
            0,
            Message {
                role: Role::System,
                content: "Be brief.".into(),
            },
        );
        let told = asked(&own, Kind::Fact, Some("Be safe."));
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].content, "Be safe.\nBe brief.");
        assert_eq!(told[1].content, "Which?");
    }
}
