//! `phi3-steer tokenize`

use std::path::PathBuf;

use super::Failure;
use super::common::{load_tokenizer, read_stdin};
use super::conversations::parse_messages;
use crate::output::print_line;

const EXAMPLES: &str = "Examples:
  echo -n \"Hello, world\" | phi3-steer tokenize --model models/nano
  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | phi3-steer tokenize --model models/nano --chat";

/// Text on stdin to token ids, a JSON array on stdout.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model: a .gguf file, which may hold a vocabulary only, or a folder with one or with
    /// tokenizer.json.
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// Stdin is a JSON list of messages; the chat template is applied, ready for an answer.
    #[arg(long)]
    chat: bool,
}

pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let tokenizer = load_tokenizer(&arguments.model).await?;
    let text = read_stdin()?;
    let ids = if arguments.chat {
        let messages = parse_messages(text.as_bytes(), "stdin")?;
        tokenizer.chat(&messages, true)?.ids
    } else {
        tokenizer.encode(&text)?
    };
    print_line(&serde_json::to_string(&ids)?)
}
