//! What the engine says in 20 chats with SmolLM2-135M-Instruct, against what Hugging Face's Llama says in
//! float32 of the same file's numbers, as `scripts/huggingface-values.py` has recorded it.

use std::rc::Rc;

use phi3_steer::generate::{Chat, ChatRequest, Event, Sampling};
use phi3_steer::matrix::Format;
use phi3_steer::phi3::ModelFiles;
use phi3_steer::steering::Steering;
use phi3_steer::tokens::{Message, Prompt};
use pollster::block_on;
use rand::seq::IndexedRandom;
use serde::Deserialize;

use super::small_model::{TIE, file, folder};
use super::support::{assert_near, fresh_rng};
use super::{load_lanes, logits};

#[derive(Deserialize)]
struct Recorded {
    /// The tokens whose logits are recorded, `[48]`.
    probes: Vec<u32>,
    chats: Vec<Recording>,
}

#[derive(Deserialize)]
struct Recording {
    messages: Vec<Message>,
    /// The prompt's tokens.
    ids: Vec<u32>,
    /// The likeliest tokens, one after the other, `[40]`.
    said: Vec<u32>,
    /// By how much each leads the next, in logits, `[40]`.
    leads: Vec<f32>,
    /// After the prompt, `[48]`.
    logits: Vec<f64>,
}

/// Tokens of a lane: the longest prompt and 40 more.
const CONTEXT: usize = 192;

#[test]
fn twenty_chats_are_those_that_hugging_face_recorded() {
    let Some(path) = file() else { return };
    let recorded: Recorded =
        serde_json::from_str(include_str!("huggingface.json")).expect("the recorded values");
    assert_eq!(recorded.chats.len(), 20);
    let mut rng = fresh_rng();
    let files = block_on(ModelFiles::open(&folder(&path))).expect("a model");
    let tokenizer = Rc::new(block_on(files.tokenizer()).expect("a tokenizer"));
    let lanes = recorded.chats.len();
    let mut model = load_lanes(&folder(&path), Format::Q8, lanes, Some(CONTEXT));

    let prompt = |chat: &Recording| tokenizer.chat(&chat.messages, true).expect("tokens");
    let prompts: Vec<Prompt> = recorded.chats.iter().map(prompt).collect();
    for (prompt, chat) in prompts.iter().zip(&recorded.chats) {
        assert_eq!(prompt.ids, chat.ids, "{:?}", chat.messages);
    }
    for chat in recorded.chats.choose_multiple(&mut rng, 4) {
        let ours = logits(&mut model, &chat.ids);
        let last = &ours[chat.ids.len() - 1];
        let ours: Vec<f32> = recorded
            .probes
            .iter()
            .map(|id| last[*id as usize])
            .collect();
        assert_near(&ours, &chat.logits, 2e-5, "after the prompt");
    }

    let steering = block_on(Steering::new(&model, Vec::new())).expect("no dictionary");
    let mut chat = block_on(Chat::new(model, tokenizer.clone(), steering)).expect("a chat");
    let mut said = vec![Vec::new(); lanes];
    let request = ChatRequest {
        prompts: &prompts,
        max_tokens: recorded.chats[0].said.len(),
        sampling: Sampling::default(),
        features: None,
        logprobs: None,
        cancel: Rc::default(),
    };
    let mut hear = |event| {
        if let Event::Token { lane, token, .. } = event {
            said[lane].push(token);
        }
    };
    block_on(chat.run(&request, &mut hear)).expect("answers");
    let mut equal = 0;
    for (ours, chat) in said.iter().zip(&recorded.chats) {
        assert!(!ours.is_empty(), "nothing is said");
        let differs = ours.iter().zip(&chat.said).position(|(a, b)| a != b);
        equal += differs.unwrap_or(ours.len());
        // After a tie both go their own ways.
        if let Some(at) = differs {
            let lead = chat.leads[at];
            assert!(lead < TIE, "token {at} of {:?} leads by {lead}", chat.said);
        } else if ours.len() < chat.said.len() {
            let stop = chat.said[ours.len()];
            assert!(
                tokenizer.stop_tokens().contains(&stop),
                "after {} tokens Hugging Face goes on with {stop}",
                ours.len()
            );
        }
    }
    println!("{equal} tokens are equal");
    assert!(equal > 300, "only {equal} tokens were compared");
}
