//! Phi-3's chat format.

use serde::{Deserialize, Serialize};

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
    /// A token that the model said: the content of an assistant's message and its `<|end|>`.
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

/// The tokens that the template writes: who says what follows, and the end of it.
pub(super) const TURNS: [&str; 4] = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"];

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

/// The special tokens of the chat format.
pub(super) struct ChatTokens {
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

impl ChatTokens {
    /// Phi-3's template:
    /// `<|user|>\n` content `<|end|>\n` … `<|assistant|>\n`.
    pub(super) fn layout(&self, messages: &[Message], add_generation_prompt: bool) -> Layout {
        let mut layout = Layout::default();
        if let Some(bos) = &self.bos {
            layout.push_special(bos, TokenRole::Bos);
        }
        for message in messages {
            let (token, role) = match message.role {
                Role::System => (&self.system, TokenRole::Prompt),
                Role::User => (&self.user, TokenRole::Prompt),
                Role::Assistant => (&self.assistant, TokenRole::Generated),
            };
            layout.push_special(token, TokenRole::Prompt);
            layout.push_text("\n", TokenRole::Prompt);
            layout.push_text(&message.content, role);
            layout.push_special(&self.end, role);
            layout.push_text("\n", TokenRole::Prompt);
        }
        if add_generation_prompt {
            layout.push_special(&self.assistant, TokenRole::Prompt);
            layout.push_text("\n", TokenRole::Prompt);
        } else if let Some(eos) = &self.eos {
            layout.push_special(eos, TokenRole::Prompt);
        }
        layout
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
