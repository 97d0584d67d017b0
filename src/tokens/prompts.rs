//! Files of prompts.

use serde::Deserialize;

use super::{Message, Role};

/// Why a file of prompts cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptsError {
    /// A line is none of the forms.
    #[error(
        "{place}, line {line}: neither \"a prompt\" nor {{\"prompt\": \"…\"}} nor a list of messages"
    )]
    Line {
        /// The file.
        place: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// All lines are empty.
    #[error("{place} holds no prompt")]
    Empty {
        /// The file.
        place: String,
    },
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

/// The conversations of the text of a file, one a line: the user's message as it is, or, of a file called .jsonl,
/// JSON: `"a prompt"`, `{"prompt": "…"}`, a list of messages, or `{"messages": […]}`.
pub fn read_prompts(place: &str, text: &str) -> Result<Vec<Vec<Message>>, PromptsError> {
    let json = place.to_ascii_lowercase().ends_with(".jsonl");
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let says = |content: &str| {
        vec![Message {
            role: Role::User,
            content: content.into(),
        }]
    };
    let all = lines.map(|(at, line)| {
        if !json {
            return Ok(says(line));
        }
        let line = serde_json::from_str(line).map_err(|_| PromptsError::Line {
            place: place.into(),
            line: at + 1,
        })?;
        Ok(match line {
            Line::Prompt(prompt) | Line::Named { prompt } => says(&prompt),
            Line::Messages(messages) | Line::Conversation { messages } => messages,
        })
    });
    let all = all.collect::<Result<Vec<_>, PromptsError>>()?;
    match all.is_empty() {
        true => Err(PromptsError::Empty {
            place: place.into(),
        }),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(name: &str, text: &str) -> Result<Vec<String>, String> {
        let all = read_prompts(name, text).map_err(|e| e.to_string())?;
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
