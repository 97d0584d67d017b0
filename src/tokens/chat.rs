//! Chat formats: what stands between the messages of a conversation.

use serde::{Deserialize, Serialize};

use super::TokenError;
use super::template::Seams;

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The visitor.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// Its text.
    pub content: String,
}

/// The part a token plays in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// The token in front of everything.
    Bos,
    /// A token that the model is given.
    Prompt,
    /// A token that the model said: the content of an assistant's message and the token that ends it.
    Generated,
}

/// A conversation in tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Prompt {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The part that each of them plays.
    pub roles: Vec<TokenRole>,
}

/// The tokens that Phi-3's template writes: who says what follows, and the end of it.
pub(super) const TURNS: [&str; 4] = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"];

/// What stands before a place between messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Start,
    System,
    User,
    Assistant,
}

impl Before {
    pub(super) const COUNT: usize = 4;

    pub(super) fn of(role: Role) -> Self {
        match role {
            Role::System => Self::System,
            Role::User => Self::User,
            Role::Assistant => Self::Assistant,
        }
    }
}

/// What stands after a place between messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    System,
    User,
    Assistant,
    /// An answer, which the model is asked for.
    Answer,
    /// Nothing.
    End,
}

impl After {
    pub(super) const COUNT: usize = 5;

    pub(super) fn of(role: Role) -> Self {
        match role {
            Role::System => Self::System,
            Role::User => Self::User,
            Role::Assistant => Self::Assistant,
        }
    }
}

/// A special token of the chat format.
#[derive(Debug, Clone)]
pub(super) struct Special {
    pub(super) id: u32,
    pub(super) text: String,
    /// Whether it swallows the white space before it.
    pub(super) lstrip: bool,
    /// Whether it swallows the white space after it.
    pub(super) rstrip: bool,
}

/// A part of what stands between messages.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Special(Special),
    Text(String),
}

/// A chat format.
pub(super) struct ChatFormat {
    /// What stands between two messages, before the first and after the last; `None` where the format
    /// has no such place.
    between: [[Option<Vec<Part>>; After::COUNT]; Before::COUNT],
    /// The token that begins a conversation, as such or as the mark of its first turn.
    pub(super) bos: Option<u32>,
    /// The token that ends an answer.
    pub(super) end: u32,
    /// Whether white space around a message's text is dropped.
    trims: bool,
}

/// The special tokens of Phi-3's chat format.
pub(super) struct Phi3Tokens {
    /// Put in front of a conversation, if the model wants it.
    pub(super) bos: Option<Special>,
    pub(super) system: Special,
    pub(super) user: Special,
    pub(super) assistant: Special,
    pub(super) end: Special,
    /// Put after a conversation that no answer is asked to, if the model's template has it.
    pub(super) eos: Option<Special>,
}

/// A stretch of the conversation as text.
pub(super) struct Stretch {
    /// Its bytes in [`Layout::text`].
    pub(super) range: std::ops::Range<usize>,
    /// The special token it is, if it is one (with the white space that it swallowed).
    pub(super) special: Option<u32>,
    /// The byte from which on it plays `role`; before, it is `Prompt`.
    pub(super) from: usize,
    pub(super) role: TokenRole,
}

/// A conversation as text, cut into special tokens and what is between them.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) text: String,
    pub(super) stretches: Vec<Stretch>,
    /// Whether white space that comes next belongs to the special token before it.
    swallow: bool,
}

impl ChatFormat {
    /// Phi-3's: `<|user|>\n` content `<|end|>\n` … `<|assistant|>\n`.
    pub(super) fn phi3(tokens: &Phi3Tokens) -> Self {
        let line = || Part::Text("\n".into());
        let start = tokens.bos.clone().map(Part::Special);
        let end = [Part::Special(tokens.end.clone()), line()];
        let opening = |token: &Special| vec![Part::Special(token.clone()), line()];
        let after = [
            opening(&tokens.system),
            opening(&tokens.user),
            opening(&tokens.assistant),
            opening(&tokens.assistant),
            tokens.eos.clone().map(Part::Special).into_iter().collect(),
        ];
        let before = [
            start.into_iter().collect(),
            end.to_vec(),
            end.to_vec(),
            end.to_vec(),
        ];
        Self {
            between: before.map(|before: Vec<Part>| {
                after
                    .clone()
                    .map(|after| Some([before.clone(), after].concat()))
            }),
            bos: tokens.bos.as_ref().map(|token| token.id),
            end: tokens.end.id,
            trims: false,
        }
    }

    /// That of a template, in whose text `find` finds the special tokens. `bos` begins a conversation: it
    /// is put in front of what does not begin with it if `adds_bos`. `None` if no special token ends what
    /// the assistant says.
    pub(super) fn of_seams(
        seams: &Seams,
        bos: Option<&Special>,
        adds_bos: bool,
        find: impl Fn(&str) -> Vec<Part>,
    ) -> Option<Self> {
        const BEFORE: [Before; Before::COUNT] = [
            Before::Start,
            Before::System,
            Before::User,
            Before::Assistant,
        ];
        const AFTER: [After; After::COUNT] = [
            After::System,
            After::User,
            After::Assistant,
            After::Answer,
            After::End,
        ];
        let between = BEFORE.map(|before| {
            AFTER.map(|after| {
                let mut parts = find(seams.between(before, after)?);
                let begins = |bos: &&Special| {
                    matches!(parts.first(), Some(Part::Special(own)) if own.id == bos.id)
                };
                if adds_bos
                    && before == Before::Start
                    && let Some(bos) = bos.filter(|bos| !begins(bos))
                {
                    parts.insert(0, Part::Special(bos.clone()));
                }
                Some(parts)
            })
        });
        let mut format = Self {
            between,
            bos: bos.map(|token| token.id),
            end: 0,
            trims: seams.trims,
        };
        let end = format.marks(Before::Assistant, After::User).next();
        format.end = end?;
        Some(format)
    }

    /// The special tokens between the two, in order.
    fn marks(&self, before: Before, after: After) -> impl Iterator<Item = u32> {
        let parts = self.between[before as usize][after as usize]
            .iter()
            .flatten();
        parts.filter_map(|part| match part {
            Part::Special(token) => Some(token.id),
            Part::Text(_) => None,
        })
    }

    /// All special tokens of the format, in no order and more than once.
    pub(super) fn all_marks(&self) -> impl Iterator<Item = u32> {
        let parts = self.between.iter().flatten().flatten().flatten();
        parts.filter_map(|part| match part {
            Part::Special(token) => Some(token.id),
            Part::Text(_) => None,
        })
    }

    /// The tokens after which an answer is over: the end of it, and the beginning of a turn, which is not
    /// the model's to write.
    pub(super) fn stops(&self) -> Vec<u32> {
        let ends = self.marks(Before::Assistant, After::User).take(2);
        ends.collect()
    }

    /// Where the last turn of a conversation that is ready for an answer begins; 0 if it is the first.
    pub(super) fn last_turn(&self, prompt: &Prompt) -> usize {
        let own = self
            .marks(Before::User, After::Answer)
            .filter(|id| *id == self.end)
            .count();
        let mut ends = prompt.ids.iter().enumerate().rev();
        let end = ends.by_ref().filter(|(_, id)| **id == self.end).nth(own);
        let Some((end, _)) = end else {
            return 0;
        };
        let marks: Vec<u32> = self.marks(Before::Assistant, After::User).skip(1).collect();
        let opening = prompt.ids[end..].iter().position(|id| marks.contains(id));
        opening.map_or(end + 1, |at| end + at)
    }

    /// The conversation `messages`, which follows `before`.
    pub(super) fn layout(
        &self,
        mut before: Before,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Layout, TokenError> {
        let mut layout = Layout::default();
        for message in messages {
            self.push_between(&mut layout, before, After::of(message.role))?;
            before = Before::of(message.role);
            let role = match message.role {
                Role::System | Role::User => TokenRole::Prompt,
                Role::Assistant => TokenRole::Generated,
            };
            let text = match self.trims {
                true => message.content.trim(),
                false => &message.content,
            };
            layout.push_text(text, role);
        }
        let after = match add_generation_prompt {
            true => After::Answer,
            false => After::End,
        };
        self.push_between(&mut layout, before, after)?;
        Ok(layout)
    }

    fn push_between(
        &self,
        layout: &mut Layout,
        before: Before,
        after: After,
    ) -> Result<(), TokenError> {
        let Some(parts) = &self.between[before as usize][after as usize] else {
            return Err(TokenError::NoPlace {
                what: match after {
                    After::System => "a system message",
                    After::User => "a message of the user's",
                    After::Assistant | After::Answer => "a message of the assistant's",
                    After::End => "an end",
                },
                place: match before {
                    Before::Start => "at the beginning",
                    Before::System => "after the system message",
                    Before::User => "after a message of the user's",
                    Before::Assistant => "after a message of the assistant's",
                },
            });
        };
        let mut ended = before != Before::Assistant;
        for (i, part) in parts.iter().enumerate() {
            match part {
                Part::Text(text) => layout.push_text(text, TokenRole::Prompt),
                Part::Special(token) => {
                    let first = before == Before::Start && i == 0 && self.bos == Some(token.id);
                    let role = match (first, ended) {
                        (true, _) => TokenRole::Bos,
                        // The model says the end of its message itself.
                        (false, false) => TokenRole::Generated,
                        (false, true) => TokenRole::Prompt,
                    };
                    ended = true;
                    layout.push_special(token, role);
                }
            }
        }
        Ok(())
    }
}

impl Layout {
    fn push_special(&mut self, token: &Special, role: TokenRole) {
        let mut start = self.text.len();
        if token.lstrip
            && let Some(last) = self.stretches.last_mut()
            && last.special.is_none()
        {
            let kept = self.text[last.range.clone()].trim_end().len();
            start = last.range.start + kept;
            last.range.end = start;
        }
        self.text.push_str(&token.text);
        self.stretches.push(Stretch {
            range: start..self.text.len(),
            special: Some(token.id),
            from: start,
            role,
        });
        self.swallow = token.rstrip;
    }

    pub(super) fn push_text(&mut self, text: &str, role: TokenRole) {
        let mut start = self.text.len();
        self.text.push_str(text);
        if self.swallow {
            start = self.text.len() - text.trim_start().len();
            if let Some(last) = self.stretches.last_mut() {
                last.range.end = start;
            }
        }
        let end = self.text.len();
        if start == end {
            return;
        }
        self.swallow = false;
        match self.stretches.last_mut() {
            // Text on text is one stretch: tokens may lie across the seam.
            Some(last) if last.special.is_none() => {
                last.range.end = end;
                (last.from, last.role) = (start, role);
            }
            _ => self.stretches.push(Stretch {
                range: start..end,
                special: None,
                from: start,
                role,
            }),
        }
    }
}
