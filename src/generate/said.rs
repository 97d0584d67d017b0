//! What was said, in tokens: a conversation goes on with the very tokens of its answers, whose text may
//! well be cut into other tokens.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::tokens::{ChatTokenizer, Message, Prompt, Role, TokenError, TokenRole};

/// Tokens that are remembered at most, over all answers.
const MOST_TOKENS: usize = 1 << 16;
/// What an answer counts beside its tokens.
const ANSWER: usize = 16;

/// One answer.
struct Answer {
    lane: usize,
    /// Of the prompt's tokens.
    prompt: u64,
    text: String,
    tokens: Vec<u32>,
}

/// The last answers.
#[derive(Default)]
pub(super) struct Said {
    answers: VecDeque<Answer>,
    size: usize,
}

fn digest(tokens: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    hasher.finish()
}

impl Said {
    /// A lane has answered the prompt `prompt` by `tokens`, which read `text`.
    pub fn remember(&mut self, lane: usize, prompt: &[u32], text: String, tokens: Vec<u32>) {
        if tokens.is_empty() || tokens.len() + ANSWER > MOST_TOKENS {
            return;
        }
        let prompt = digest(prompt);
        let same = |a: &Answer| a.lane == lane && a.prompt == prompt && a.text == text;
        if let Some(at) = self.answers.iter().position(same) {
            self.forget(at);
        }
        self.size += tokens.len() + ANSWER;
        self.answers.push_back(Answer {
            lane,
            prompt,
            text,
            tokens,
        });
        while self.size > MOST_TOKENS {
            self.forget(0);
        }
    }

    fn forget(&mut self, at: usize) {
        if let Some(answer) = self.answers.remove(at) {
            self.size -= answer.tokens.len() + ANSWER;
        }
    }

    /// The tokens of the answer `text` to the prompt `prompt`: those of `lane`, else of another.
    fn tokens(&self, lane: usize, prompt: &[u32], text: &str) -> Option<&[u32]> {
        let prompt = digest(prompt);
        let said = |a: &&Answer| a.prompt == prompt && a.text == text;
        let mut own = self.answers.iter().rev().filter(|a| a.lane == lane);
        let answer = own.find(said);
        let answer = answer.or_else(|| self.answers.iter().rev().find(said));
        answer.map(|a| &a.tokens[..])
    }

    /// The tokens of a conversation in `lane`, ready for an answer. An assistant's message that was said
    /// here, in answer to the same tokens, is in the tokens that were said; all else is encoded.
    pub fn prompt(
        &self,
        tokenizer: &ChatTokenizer,
        lane: usize,
        messages: &[Message],
    ) -> Result<Prompt, TokenError> {
        let mut whole = Prompt::default();
        // Messages that `whole` has, the last of them without its end.
        let mut taken = 0;
        for (i, message) in messages.iter().enumerate() {
            let heard = |a: &Answer| a.text == message.content;
            if message.role != Role::Assistant || !self.answers.iter().any(heard) {
                continue;
            }
            let mut before = whole.clone();
            extend(tokenizer, &mut before, &messages[taken..i])?;
            if let Some(tokens) = self.tokens(lane, &before.ids, &message.content) {
                before.ids.extend(tokens);
                before.roles.resize(before.ids.len(), TokenRole::Generated);
                (whole, taken) = (before, i + 1);
            }
        }
        extend(tokenizer, &mut whole, &messages[taken..])?;
        Ok(whole)
    }
}

/// Adds messages to a prompt that is empty, or ends with what an assistant said.
fn extend(
    tokenizer: &ChatTokenizer,
    prompt: &mut Prompt,
    messages: &[Message],
) -> Result<(), TokenError> {
    if prompt.ids.is_empty() {
        *prompt = tokenizer.chat(messages, true)?;
        return Ok(());
    }
    // What follows an assistant's message begins with its end, whatever it said.
    let rest = tokenizer.chat_after_answer(messages, true)?;
    prompt.ids.extend(&rest.ids);
    prompt.roles.extend(&rest.roles);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENIZER: &[u8] = include_bytes!("../../models/nano/tokenizer.json");

    fn message(role: Role, content: &str) -> Message {
        Message {
            role,
            content: content.into(),
        }
    }

    /// The nano model's tokenizer, a conversation of two turns, and the tokens of its first prompt.
    fn conversation() -> (ChatTokenizer, Vec<Message>, Vec<u32>) {
        let tokenizer = ChatTokenizer::from_json(TOKENIZER, None).unwrap();
        let messages = vec![
            message(Role::System, "Be brief."),
            message(Role::User, "Name a colour."),
            message(Role::Assistant, "blue green"),
            message(Role::User, "Another one?"),
        ];
        let first = tokenizer.chat(&messages[..2], true).unwrap();
        (tokenizer, messages, first.ids)
    }

    /// A text letter by letter, as a model may say it and no tokenizer would cut it.
    fn spelt(tokenizer: &ChatTokenizer, text: &str) -> Vec<u32> {
        let letter = |c: char| tokenizer.encode(&c.to_string()).unwrap();
        let tokens: Vec<u32> = text.chars().flat_map(letter).collect();
        assert_ne!(tokens, tokenizer.encode(text).unwrap());
        tokens
    }

    #[test]
    fn an_answer_keeps_the_tokens_that_were_said() {
        let (tokenizer, messages, first) = conversation();
        let mut said = Said::default();
        let plain = said.prompt(&tokenizer, 0, &messages).unwrap();
        assert_eq!(plain, tokenizer.chat(&messages, true).unwrap());
        let (own, other) = (spelt(&tokenizer, "blue green"), vec![400, 401]);
        said.remember(0, &first, "blue green".into(), own.clone());
        said.remember(1, &first, "blue green".into(), other.clone());
        for (lane, tokens) in [(0, &own), (1, &other), (2, &other)] {
            let prompt = said.prompt(&tokenizer, lane, &messages).unwrap();
            let after = first.len() + tokens.len();
            assert_eq!(prompt.ids[..first.len()], first);
            assert_eq!(&prompt.ids[first.len()..after], tokens);
            // The rest is as ever, and so are the roles of the tokens around.
            let tail = plain.ids.iter().rposition(|t| *t == tokenizer.end());
            let mut before = plain.ids[..tail.unwrap()].iter();
            let tail = before.rposition(|t| *t == tokenizer.end()).unwrap();
            assert_eq!(prompt.ids[after..], plain.ids[tail..]);
            assert_eq!(prompt.roles[after..], plain.roles[tail..]);
            assert_eq!(prompt.roles.len(), prompt.ids.len());
            let generated = &prompt.roles[first.len()..=after];
            assert!(generated.iter().all(|r| *r == TokenRole::Generated));
        }
    }

    #[test]
    fn another_text_or_another_question_is_encoded() {
        let (tokenizer, messages, first) = conversation();
        let mut said = Said::default();
        let tokens = spelt(&tokenizer, "blue green");
        said.remember(0, &first, "blue green".into(), tokens);
        let mut edited = messages.clone();
        edited[2].content = "blue".into();
        let mut asked = messages.clone();
        asked[1].content = "Name two colours.".into();
        let mut swapped = messages;
        swapped[2].role = Role::User;
        for messages in [edited, asked, swapped] {
            let prompt = said.prompt(&tokenizer, 0, &messages).unwrap();
            assert_eq!(prompt, tokenizer.chat(&messages, true).unwrap());
        }
    }

    #[test]
    fn a_long_conversation_keeps_every_answer() {
        let (tokenizer, ..) = conversation();
        let mut said = Said::default();
        let mut messages = Vec::new();
        let mut expected = Vec::new();
        for turn in 0..5 {
            messages.push(message(Role::User, &format!("question {turn}")));
            let prompt = said.prompt(&tokenizer, 0, &messages).unwrap();
            for tokens in &expected {
                let has = |tokens: &Vec<u32>| prompt.ids.windows(tokens.len()).any(|w| w == tokens);
                assert!(has(tokens), "turn {turn}");
            }
            let tokens: Vec<u32> = (0..4).map(|i| 500 + 10 * turn + i).collect();
            // Even where two answers read alike.
            said.remember(0, &prompt.ids, "well".into(), tokens.clone());
            messages.push(message(Role::Assistant, "well"));
            expected.push(tokens);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut said = Said::default();
        for i in 0..3000 {
            said.remember(0, &[i], "x".repeat(40), vec![i; 40]);
            assert!(said.size <= MOST_TOKENS);
        }
        let size = |a: &Answer| a.tokens.len() + ANSWER;
        assert_eq!(said.answers.iter().map(size).sum::<usize>(), said.size);
        assert!(said.tokens(0, &[2999], &"x".repeat(40)).is_some());
        assert!(said.tokens(0, &[0], &"x".repeat(40)).is_none());
        // The same answer again takes no more room.
        let before = said.size;
        said.remember(0, &[2999], "x".repeat(40), vec![2999; 40]);
        assert_eq!(said.size, before);
        said.remember(0, &[1], "y".into(), vec![1; MOST_TOKENS]);
        assert_eq!(said.size, before);
    }
}
