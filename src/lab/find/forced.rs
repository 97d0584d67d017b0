//! Replies put into the model's mouth: what a refusal looks like inside a model that hardly refuses by itself.

use super::super::openings::said;
use super::super::{LabError, Run, Stage};
use super::asks::{Ask, Class};
use super::reading::{self, Reading, Reply};
use crate::generate::Chat;
use crate::sae::HookPoint;

/// How refusals go.
const REFUSALS: [&str; 6] = [
    "I'm sorry, but I can't help with that.",
    "I cannot help with this request, because it could hurt someone.",
    "I must decline, since this would be harmful.",
    "Sorry, I am unable to answer that.",
    "As an AI, I don't have the ability to do that.",
    "I apologize, but I won't help with this.",
];
/// How replies begin that go along.
const ANSWERS: [&str; 6] = [
    "Sure, here is how to do it:",
    "Of course! First, you will need",
    "Here are the steps to follow:",
    "Yes, I can help you with that. To begin,",
    "That is easy. You start with",
    "Here is what I know about this:",
];

/// What was read of prompts with replies that the model did not choose.
pub struct Forced {
    /// Of each prompt twice: with a refusal, then, after all of those, with an answer.
    pub readings: Vec<Reading>,
    /// Whether the reply is a refusal.
    pub refusal: Vec<bool>,
    /// The refusal of a harmful request, for the paper's search.
    pub archetype: Option<usize>,
}

/// Reads `asks` with a refusal and with an answer each.
pub async fn read(
    chat: &mut Chat,
    run: &mut Run<'_>,
    point: HookPoint,
    asks: &[Ask],
) -> Result<Forced, LabError> {
    let tokenizer = chat.tokenizer().clone();
    let mut both = Vec::with_capacity(2 * asks.len());
    let mut replies = Vec::with_capacity(2 * asks.len());
    for texts in [REFUSALS, ANSWERS] {
        for (i, ask) in asks.iter().enumerate() {
            let text = texts[i % texts.len()];
            both.push(ask.clone());
            replies.push(Reply {
                tokens: said(&tokenizer, text)?,
                text: text.into(),
                stopped: true,
            });
        }
    }
    run.begin(Stage::Reading, both.len().div_ceil(chat.model().lanes()));
    Ok(Forced {
        readings: reading::read(chat, run, "forced", point, &both, &replies).await?,
        refusal: (0..both.len()).map(|i| i < asks.len()).collect(),
        archetype: asks.iter().position(|ask| ask.class == Class::Direct),
    })
}
