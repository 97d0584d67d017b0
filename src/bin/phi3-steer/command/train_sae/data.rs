//! The text that a dictionary is trained on.

use std::path::{Path, PathBuf};

use phi3_steer::generate::Sampling;
use phi3_steer::train::{Reading, Sources, Writing};

use crate::command::Failure;
use crate::command::common::read_file;
use crate::command::conversations::read_prompts;

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

    /// What is in them.
    pub fn sources(&self) -> Result<Sources, Failure> {
        let mut openings = vec![String::new(); self.replies];
        if let Some(path) = &self.openings {
            let text = text(path)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            openings.extend(lines.map(String::from));
        }
        let prompts = |path: &PathBuf| Ok((super::name(path), read_prompts(path)?));
        Ok(Sources {
            texts: self
                .text
                .iter()
                .map(|path| Ok((super::name(path), text(path)?)))
                .collect::<Result<_, Failure>>()?,
            chats: self
                .chats
                .iter()
                .map(prompts)
                .collect::<Result<_, Failure>>()?,
            prompts: self
                .prompts
                .iter()
                .map(prompts)
                .collect::<Result<_, Failure>>()?,
            openings,
        })
    }

    /// How they become sequences.
    pub fn reading(&self, seed: u64) -> Reading {
        Reading {
            length: self.length,
            most: self.tokens,
            writing: Writing {
                tokens: self.reply_tokens,
                sampling: Sampling {
                    temperature: self.temperature,
                    ..Sampling::default()
                },
            },
            seed,
        }
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    let text = String::from_utf8(read_file(path)?);
    Ok(text.map_err(|e| format!("{} cannot be read as text: {e}", path.display()))?)
}
