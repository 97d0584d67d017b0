//! Conversations from files and stdin.

use std::path::Path;

use phi3_steer::tokens::{self, Message, Role};

use super::Failure;
use super::common::read_file;

/// A conversation as a JSON list of messages; `place` names it in errors.
pub fn parse_messages(json: &[u8], place: &str) -> Result<Vec<Message>, Failure> {
    let messages: Vec<Message> = serde_json::from_slice(json).map_err(|e| {
        format!(
            "{place} is no list of messages ({e}): \
             [{{\"role\": \"user\", \"content\": \"Hello\"}}] is one"
        )
    })?;
    if messages.is_empty() {
        return Err(format!("{place} holds no message").into());
    }
    Ok(messages)
}

/// What the user says first.
pub fn says(content: &str) -> Vec<Message> {
    vec![Message {
        role: Role::User,
        content: content.into(),
    }]
}

/// The conversations of a file, one a line: the user's message as it is, or, of a file called .jsonl, JSON.
pub fn read_prompts(path: &Path) -> Result<Vec<Vec<Message>>, Failure> {
    let place = path.display().to_string();
    let text = String::from_utf8(read_file(path)?)
        .map_err(|e| format!("{place} cannot be read as text: {e}"))?;
    Ok(tokens::read_prompts(&place, &text)?)
}
