//! Conversations from files and stdin.

use std::path::Path;

use phi3_steer::tokens::{Message, Role};
use serde::Deserialize;

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

/// A line of a .jsonl file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Prompt(String),
    Messages(Vec<Message>),
    Named { prompt: String },
    Conversation { messages: Vec<Message> },
}

/// The conversations of a file, one a line: the user's message as it is, or, of a file called .jsonl, JSON.
pub fn read_prompts(path: &Path) -> Result<Vec<Vec<Message>>, Failure> {
    let place = path.display();
    let text = String::from_utf8(read_file(path)?)
        .map_err(|e| format!("{place} cannot be read as text: {e}"))?;
    let json = path.extension().is_some_and(|e| e == "jsonl");
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let all = lines.map(|(at, line)| {
        if !json {
            return Ok(says(line));
        }
        let line = serde_json::from_str(line).map_err(|_| {
            format!(
                "{place}, line {}: neither \"a prompt\" nor {{\"prompt\": \"…\"}} nor a list of messages",
                at + 1
            )
        })?;
        Ok(match line {
            Line::Prompt(prompt) | Line::Named { prompt } => says(&prompt),
            Line::Messages(messages) | Line::Conversation { messages } => messages,
        })
    });
    let all = all.collect::<Result<Vec<_>, String>>()?;
    if all.is_empty() {
        return Err(format!("{place} holds no prompt").into());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(name: &str, text: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let all = read_prompts(&path).map_err(|e| e.to_string())?;
        let last = |messages: &Vec<Message>| messages.last().unwrap().content.clone();
        Ok(all.iter().map(last).collect())
    }

    #[test]
    fn a_line_is_a_prompt() {
        let read = prompts("a.txt", "\u{feff}One\r\n\n  \n\"Two\" [3]\n");
        assert_eq!(read.unwrap(), ["One", "\"Two\" [3]"]);
        let lines = [
            r#""One\nline""#,
            r#"{"prompt": "Two", "id": 7}"#,
            r#"[{"role": "user", "content": "Three"}]"#,
            r#"{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "Four"}]}"#,
        ];
        let read = prompts("a.jsonl", &lines.join("\n")).unwrap();
        assert_eq!(read, ["One\nline", "Two", "Three", "Four"]);
        let wrong = prompts("a.jsonl", "\"One\"\nTwo").unwrap_err();
        assert!(wrong.contains("a.jsonl, line 2: neither"), "{wrong}");
        assert!(prompts("a.txt", " \n").unwrap_err().contains("no prompt"));
    }
}
