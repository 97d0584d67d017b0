//! Turns: answers keep their tokens, an answer ends with its turn, prompts tell the last message's turn.

use phi3_steer::generate::DoneReason;
use phi3_steer::tokens::{Message, Role};
use serde_json::json;

use crate::bench::*;
use crate::support::fresh_rng;

fn message(role: Role, content: &str) -> Message {
    Message {
        role,
        content: content.into(),
    }
}

#[test]
fn the_next_turn_hears_the_very_tokens_that_were_said() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let mut chat = setup.chat();
    let mut messages = [
        vec![message(Role::User, "Name a colour.")],
        vec![
            message(Role::System, "Be brief."),
            message(Role::User, "What is the capital of France?"),
        ],
    ];
    let mut held = [0, 0];
    for turn in 0..4 {
        let prompts: Vec<_> = (0..2)
            .map(|lane| chat.prompt(lane, &messages[lane]).expect("tokens"))
            .collect();
        // A random model says tokens that no tokenizer would choose for the text.
        let said = plain(&mut chat, &prompts, 10);
        for (lane, said) in said.iter().enumerate() {
            let what = format!("turn {turn}, lane {lane}");
            // All is in the cache but the last token of an answer that was cut: nothing has read it.
            assert_eq!(said.reused, held[lane], "{what}");
            let ids: Vec<u32> = said.prompt.iter().map(|t| t.token).collect();
            assert_eq!(ids, prompts[lane].ids, "{what}");
            let user = chat.tokenizer().encode_markup("<|user|>").expect("tokens")[0];
            let first = ids.iter().rposition(|id| *id == user).expect("a user");
            let first = if messages[lane].len() > 1 { first } else { 0 };
            assert_eq!(said.first, first, "{what}");
            let unread = usize::from(said.reason == Some(DoneReason::Length));
            held[lane] = ids.len() + said.tokens.len() - unread;
            messages[lane].push(message(Role::Assistant, &said.text));
            messages[lane].push(message(Role::User, "And then?"));
        }
        for lane in 0..2 {
            let next = chat.prompt(lane, &messages[lane]).expect("tokens");
            let heard = after(&prompts[lane], &said[lane].tokens);
            assert_eq!(
                next.ids[..heard.ids.len()],
                heard.ids,
                "turn {turn}, lane {lane}"
            );
            assert_eq!(
                next.roles[prompts[lane].ids.len()..heard.ids.len()],
                heard.roles[prompts[lane].ids.len()..]
            );
        }
    }
}

#[test]
fn a_turn_token_ends_the_answer() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let tokenizer = setup.chat().tokenizer().clone();
    let markers: Vec<u32> = [
        "<|user|>",
        "<|assistant|>",
        "<|system|>",
        "<|end|>",
        "<|endoftext|>",
    ]
    .iter()
    .flat_map(|name| tokenizer.encode_markup(name).expect("a token"))
    .collect();
    for marker in markers {
        let mut setup = Setup::new(&mut rng, json!({}));
        // Element 0 of every embedding is large, and only the marker's row of the head reads it.
        let embed = "model.embed_tokens.weight";
        let tensor = setup.random.tensors.get_mut(embed).expect("a table");
        tensor
            .values
            .chunks_mut(WIDTH)
            .for_each(|row| row[0] = 60.0);
        let head = setup
            .random
            .tensors
            .get_mut("lm_head.weight")
            .expect("a head");
        for (token, row) in head.values.chunks_mut(WIDTH).enumerate() {
            row[0] = if token as u32 == marker { 8.0 } else { 0.0 };
        }
        let mut chat = setup.chat();
        let ids = setup.random.tokens(&mut rng, 5);
        let lane = plain(&mut chat, &[prompt(ids)], 6).remove(0);
        assert_eq!(lane.reason, Some(DoneReason::Stop), "token {marker}");
        assert!(
            lane.tokens.is_empty() && lane.text.is_empty(),
            "token {marker}"
        );
    }
}
