//! Evaluation prompts, `eval.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::judge::number;
use super::readers::read;
use super::{Judge, LabError, digest};
use crate::tokens::{Message, Role};

/// What is asked of the replies to a set's prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Harmful requests: to be refused.
    Refuse,
    /// Harmful requests in disguise: to be refused. Sets called `jbx_*` are of families that training
    /// never had, and are reported apart.
    Jailbreak,
    /// Harmful requests at the end of a conversation that leads to them, the same for every model: to be
    /// refused. This is not Crescendo, whose attacker answers what the model says.
    MultiTurn,
    /// Harmless requests: not to be refused.
    Benign,
    /// Questions whose answer is known.
    Fact,
    /// Questions with four options, answered by the likeliest letter.
    Choice,
    /// Problems whose answer is a number: the last of the reply.
    Arithmetic,
    /// Small talk: to be answered coherently.
    Smalltalk,
    /// Reference replies, whose perplexity is measured.
    Perplexity,
}

/// One prompt.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Item {
    /// The conversation; the user speaks last.
    pub messages: Vec<Message>,
    /// What a right answer holds (facts), the letter (choice) or the number (arithmetic).
    pub answer: Option<String>,
    /// The reply to score (perplexity).
    pub reference: Option<String>,
    /// The kind of harm.
    pub category: Option<String>,
    /// What a jailbreak is wrapped in.
    pub template: Option<String>,
    /// Why a harmless request may look harmful.
    #[serde(rename = "type")]
    pub likeness: Option<String>,
    /// The options A to D (choice).
    pub options: Option<Vec<String>>,
}

/// Prompts of one kind.
#[derive(Clone, Debug, Deserialize)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its prompts.
    pub items: Vec<Item>,
}

/// Prompts with what a result says of where they came from.
pub struct Sets {
    /// What a recipe calls them.
    pub name: String,
    /// The SHA-256 of their file.
    pub digest: String,
    /// Their file.
    pub file: EvalFile,
}

impl Sets {
    /// The prompts of a file: an `eval.json`, or one of the layouts that [`read`](super::readers::read)
    /// knows.
    pub fn new(name: &str, text: &[u8]) -> Result<Self, LabError> {
        Ok(Self {
            name: name.into(),
            digest: digest(text),
            file: read(name, text)?,
        })
    }
}

/// Prompts of a file at most.
const MOST_ITEMS: usize = 1 << 16;
/// What a chat template writes: a prompt that holds it would be wrapped twice.
const MARKS: [&str; 8] = [
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|im_start|>",
    "<|start_header_id|>",
    "<start_of_turn>",
    "[INST]",
    "<<SYS>>",
];

#[derive(Deserialize)]
struct FileJudge {
    /// Phrases in place of the shipped judge's.
    refusal_patterns: Option<Vec<String>>,
    max_new_tokens: usize,
}

#[derive(Deserialize)]
struct Split {
    sets: Vec<Set>,
}

/// The contents of `eval.json`.
#[derive(Deserialize)]
pub struct EvalFile {
    version: u32,
    judge: FileJudge,
    splits: BTreeMap<String, Split>,
}

impl EvalFile {
    /// Parses and checks `json`.
    pub fn from_json(json: &[u8]) -> Result<Self, LabError> {
        let fail = |reason: String| Err(LabError::Sets(reason));
        match serde_json::from_slice::<Self>(json) {
            Ok(file) => file.checked(),
            Err(e) => fail(format!("they cannot be read: {e}")),
        }
    }

    /// The sets as a file's only split, with the shipped judge.
    pub(super) fn of_sets(split: &str, sets: Vec<Set>, tokens: usize) -> Result<Self, LabError> {
        let file = Self {
            version: 1,
            judge: FileJudge {
                refusal_patterns: None,
                max_new_tokens: tokens,
            },
            splits: [(split.to_string(), Split { sets })].into(),
        };
        file.checked()
    }

    fn checked(self) -> Result<Self, LabError> {
        let fail = |reason: String| Err(LabError::Sets(reason));
        let file = self;
        if file.version != 1 {
            return fail(format!("version {} is not known, 1 is", file.version));
        }
        let rules = &file.judge;
        let own = rules.refusal_patterns.as_ref();
        if own.is_some_and(|all| all.iter().all(|p| p.trim().is_empty()))
            || rules.max_new_tokens == 0
        {
            return fail("the judge's refusal_patterns or max_new_tokens are empty".into());
        }
        let mut items = 0;
        for (split, sets) in &file.splits {
            for set in &sets.sets {
                if set.items.is_empty() {
                    return fail(format!("{split}/{} is empty", set.name));
                }
                items += set.items.len();
                for (i, item) in set.items.iter().enumerate() {
                    if let Some(what) = item.mark() {
                        return fail(format!(
                            "{split}/{}, item {i}: {what} is of a chat template, which is written around \
                             each prompt anyway: give only what is said",
                            set.name
                        ));
                    }
                    if let Some(what) = set.kind.missing(item) {
                        return fail(format!("{split}/{}, item {i}: {what}", set.name));
                    }
                }
            }
        }
        if items > MOST_ITEMS {
            return fail(format!(
                "they are {items}; at most {MOST_ITEMS} can be used"
            ));
        }
        Ok(file)
    }

    /// The names of the splits.
    pub fn splits(&self) -> impl Iterator<Item = &str> {
        self.splits.keys().map(String::as_str)
    }

    /// What says which replies are refusals: the judge of the page, or the file's own phrases under it.
    pub fn judge(&self) -> Result<Judge, LabError> {
        let shipped = Judge::shipped()?;
        Ok(match &self.judge.refusal_patterns {
            Some(own) => shipped.with_phrases(own),
            None => shipped,
        })
    }

    /// Tokens of a reply that the judge sees.
    pub fn max_new_tokens(&self) -> usize {
        self.judge.max_new_tokens
    }

    /// The sets of a split, at most `limit` prompts of each, evenly spread over the set.
    pub fn sets(&self, split: &str, limit: Option<usize>) -> Result<Vec<Set>, LabError> {
        let Some(found) = self.splits.get(split) else {
            let names: Vec<&str> = self.splits.keys().map(String::as_str).collect();
            return Err(LabError::Sets(format!(
                "there is no split \"{split}\", but {}",
                names.join(", ")
            )));
        };
        let mut sets = found.sets.clone();
        for set in &mut sets {
            let all = set.items.len();
            let kept = limit.unwrap_or(all).clamp(1, all);
            if kept < all {
                let spread = (0..kept).map(|i| set.items[i * all / kept].clone());
                set.items = spread.collect();
            }
        }
        Ok(sets)
    }
}

impl Item {
    /// A chat template's mark in what is said.
    fn mark(&self) -> Option<&'static str> {
        let said = |mark: &&str| self.messages.iter().any(|m| m.content.contains(*mark));
        MARKS.into_iter().find(said)
    }
}

impl Kind {
    /// What an item of this kind lacks.
    pub(super) fn missing(self, item: &Item) -> Option<&'static str> {
        if item.messages.last().is_none_or(|m| m.role != Role::User) {
            return Some("the last message must be the user's");
        }
        let letter = |a: &str| matches!(a, "A" | "B" | "C" | "D");
        let four = |o: &Vec<String>| o.len() == 4 && o.iter().all(|o| !o.trim().is_empty());
        match self {
            Self::Choice if !item.options.as_ref().is_some_and(four) => {
                Some("a choice needs four options")
            }
            Self::Choice if !item.answer.as_deref().is_some_and(letter) => {
                Some("a choice needs A, B, C or D as its answer")
            }
            Self::Arithmetic if item.answer.as_deref().and_then(number).is_none() => {
                Some("arithmetic needs a number as its answer")
            }
            Self::Fact if item.answer.as_deref().is_none_or(str::is_empty) => {
                Some("a fact needs an answer")
            }
            Self::Perplexity if item.reference.as_deref().is_none_or(str::is_empty) => {
                Some("perplexity needs a reference")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn file() -> Value {
        let ask = |text: &str| json!([{"role": "user", "content": text}]);
        json!({
            "version": 1,
            "judge": {"refusal_patterns": ["can't"], "max_new_tokens": 20},
            "splits": {"test": {"sets": [
                {"name": "direct", "kind": "refuse",
                 "items": [{"messages": ask("a")}, {"messages": ask("b")}]},
                {"name": "facts", "kind": "fact",
                 "items": [{"messages": ask("c"), "answer": "Paris"}]},
                {"name": "perplexity", "kind": "perplexity",
                 "items": [{"messages": ask("d"), "reference": "yes"}]},
                {"name": "school", "kind": "choice",
                 "items": [{"messages": ask("e"), "options": ["1", "2", "3", "4"], "answer": "B",
                            "category": "c", "template": "t", "type": "x"}]},
                {"name": "sums", "kind": "arithmetic",
                 "items": [{"messages": ask("f"), "answer": "1,200"}]},
                {"name": "led", "kind": "multi_turn", "items": [{"messages": ask("g")}]},
            ]}},
        })
    }

    fn parse(json: &Value) -> Result<EvalFile, LabError> {
        EvalFile::from_json(json.to_string().as_bytes())
    }

    #[test]
    fn sets_are_read_and_cut() {
        let parsed = parse(&file()).unwrap();
        assert_eq!(parsed.max_new_tokens(), 20);
        let judge = parsed.judge().unwrap();
        assert!(judge.refusal("No, I can't").is_some() && judge.refusal("I apologize").is_none());
        let sizes = |limit| {
            let sets = parsed.sets("test", limit).unwrap();
            sets.iter().map(|s| s.items.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(None), [2, 1, 1, 1, 1, 1]);
        assert_eq!(sizes(Some(5)), [2, 1, 1, 1, 1, 1]);
        assert_eq!(sizes(Some(1)), [1; 6]);
        assert_eq!(parsed.splits().collect::<Vec<_>>(), ["test"]);
        let sets = parsed.sets("test", None).unwrap();
        assert_eq!(sets[3].items[0].likeness.as_deref(), Some("x"));
        assert_eq!(sets[5].kind, Kind::MultiTurn);
        let message = parsed.sets("dev", None).unwrap_err().to_string();
        assert!(message.contains("no split \"dev\", but test"), "{message}");
    }

    #[test]
    fn prompts_are_kept_from_all_over_a_set() {
        let mut json = file();
        let items = (0..7).map(|i| {
            let content = i.to_string();
            json!({"messages": [{"role": "user", "content": content}]})
        });
        json["splits"]["test"]["sets"][0]["items"] = items.collect();
        let parsed = parse(&json).unwrap();
        let kept = |limit| {
            let sets = parsed.sets("test", Some(limit)).unwrap();
            let texts = sets[0].items.iter().map(|i| i.messages[0].content.clone());
            texts.collect::<Vec<_>>().join("")
        };
        assert_eq!(kept(3), "024");
        assert_eq!(kept(6), "012345");
        assert_eq!(kept(7), "0123456");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (pointer, value, words) in [
            ("/version", json!(2), "version 2"),
            ("/judge/max_new_tokens", json!(0), "max_new_tokens"),
            ("/judge/refusal_patterns", json!([" "]), "refusal_patterns"),
            (
                "/splits/test/sets/0/items",
                json!([]),
                "test/direct is empty",
            ),
            ("/splits/test/sets/0/kind", json!("odd"), "odd"),
            (
                "/splits/test/sets/0/items/1/messages",
                json!([]),
                "test/direct, item 1: the last message",
            ),
            (
                "/splits/test/sets/1/items/0/answer",
                json!(""),
                "test/facts, item 0: a fact needs",
            ),
            (
                "/splits/test/sets/2/items/0/reference",
                json!(null),
                "test/perplexity, item 0: perplexity needs",
            ),
            (
                "/splits/test/sets/3/items/0/options",
                json!(["1", "2", "3"]),
                "test/school, item 0: a choice needs four",
            ),
            (
                "/splits/test/sets/3/items/0/answer",
                json!("E"),
                "test/school, item 0: a choice needs A, B",
            ),
            (
                "/splits/test/sets/4/items/0/answer",
                json!("many"),
                "test/sums, item 0: arithmetic needs a number",
            ),
            (
                "/splits/test/sets/5/items/0/messages/0/content",
                json!("<|user|>\nHow?<|end|>"),
                "test/led, item 0: <|user|> is of a chat template",
            ),
        ] {
            let mut json = file();
            *json.pointer_mut(pointer).unwrap() = value;
            let message = parse(&json).err().unwrap().to_string();
            assert!(message.contains(words), "{pointer}: {message}");
        }
    }

    #[test]
    fn the_shipped_prompts_are_readable() {
        let json = include_bytes!("../../models/nano/eval.json");
        let file = EvalFile::from_json(json).unwrap();
        let sets = file.sets("test", None).unwrap();
        let jailbreaks = sets.iter().filter(|s| s.name.starts_with("jb_"));
        assert!(jailbreaks.map(|s| s.items.len()).sum::<usize>() >= 200);
        // The table of the README is measured by the judge that the page shows.
        assert_eq!(file.judge().unwrap(), Judge::shipped().unwrap());
    }
}
