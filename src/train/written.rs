//! Text that the model writes itself.

use std::cell::Cell;
use std::rc::Rc;

use super::TrainError;
use crate::generate::{Chat, ChatRequest, Event, Sampling};
use crate::tokens::{ChatTokenizer, Message, Prompt, Role, TokenRole};

/// What to reply to, and how the reply begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The conversation.
    pub messages: Vec<Message>,
    /// The reply's first words, which the model goes on from; empty to let it begin.
    pub opening: String,
}

/// How the model writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Writing {
    /// Tokens of a reply at most, after its opening.
    pub tokens: usize,
    /// How they are chosen.
    pub sampling: Sampling,
}

/// The conversations of `asks`, at most one a lane, with the model's replies. Set `cancel` to stop it with
/// [`TrainError::Stopped`].
pub async fn write_replies(
    chat: &mut Chat,
    asks: &[Ask],
    how: &Writing,
    cancel: &Rc<Cell<bool>>,
) -> Result<Vec<Vec<Message>>, TrainError> {
    let prompts = asks.iter().map(|ask| begun(chat.tokenizer(), ask));
    let prompts = prompts.collect::<Result<Vec<_>, TrainError>>()?;
    let mut said: Vec<String> = asks.iter().map(|ask| ask.opening.clone()).collect();
    let request = ChatRequest {
        prompts: &prompts,
        max_tokens: how.tokens,
        sampling: how.sampling,
        features: None,
        logprobs: None,
        cancel: cancel.clone(),
    };
    let mut hear = |event: Event| match event {
        Event::Token { lane, text, .. } | Event::Done { lane, text, .. } => said[lane] += &text,
        _ => {}
    };
    chat.run(&request, &mut hear).await?;
    if cancel.get() {
        return Err(TrainError::Stopped { step: 0 });
    }
    let whole = asks.iter().zip(said).map(|(ask, content)| {
        let mut messages = ask.messages.clone();
        messages.push(Message {
            role: Role::Assistant,
            content,
        });
        messages
    });
    Ok(whole.collect())
}

/// The tokens of a conversation and of the beginning of its reply.
fn begun(tokenizer: &ChatTokenizer, ask: &Ask) -> Result<Prompt, TrainError> {
    let asked = tokenizer.chat(&ask.messages, true)?;
    if ask.opening.is_empty() {
        return Ok(asked);
    }
    let mut messages = ask.messages.clone();
    messages.push(Message {
        role: Role::Assistant,
        content: ask.opening.clone(),
    });
    let mut whole = tokenizer.chat(&messages, false)?;
    // What ends the reply, and what may follow, is not begun with.
    let from = asked.ids.len().min(whole.ids.len());
    let end = whole.ids[from..]
        .iter()
        .position(|id| *id == tokenizer.end());
    whole
        .ids
        .truncate(end.map_or(whole.ids.len(), |end| from + end));
    whole.roles.resize(whole.ids.len(), TokenRole::Generated);
    Ok(whole)
}
