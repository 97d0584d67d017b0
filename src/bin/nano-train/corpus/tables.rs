//! The word lists and templates of `../data`, parsed.

use std::collections::HashMap;

use super::facts::{FactKind, parse_facts};
use super::topics::{Topic, parse_topics};
use super::{Split, hash};

/// A harm category's reasons, alternative and harmless opening exchange.
pub struct Category {
    pub adjective: String,
    pub why: String,
    pub alternative: String,
    pub opener: (String, String),
}

/// A jailbreak template.
#[derive(Clone)]
pub struct Template {
    pub family: String,
    pub split: Split,
    pub text: String,
}

/// A definition or a harmless question about a crime.
pub struct Definition {
    pub kind: String,
    pub noun: String,
    pub meaning: String,
}

/// User lines and replies of one kind of small talk.
pub struct SmallTalk {
    pub user: Vec<String>,
    pub replies: Vec<String>,
}

/// Everything the grammars draw from.
pub struct Tables {
    pub categories: HashMap<String, Category>,
    pub harms: Vec<Topic>,
    pub lookalikes: Vec<Topic>,
    pub howtos: Vec<Topic>,
    pub steps: HashMap<String, Vec<String>>,
    pub frames: Vec<(Split, String)>,
    pub jailbreaks: Vec<Template>,
    pub facts: Vec<FactKind>,
    pub smalltalk: Vec<SmallTalk>,
    pub definitions: Vec<Definition>,
    words: HashMap<String, Vec<String>>,
}

fn split_list(text: &str, separator: char) -> Vec<String> {
    text.split(separator)
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(String::from)
        .collect()
}

/// The data lines of a table, cut at `|`.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.lines()
        .filter(|l| !l.starts_with('#') && !l.trim().is_empty())
        .map(|l| split_list(l, '|'))
}

fn split_named(name: &str) -> Split {
    match name {
        "validation" => Split::Validation,
        "test" => Split::Test,
        _ => Split::Train,
    }
}

impl Tables {
    /// Parses the lists that are compiled into this program.
    pub fn load() -> Self {
        let categories = rows(include_str!("../data/categories.txt"))
            .map(|r| {
                let [name, adjective, why, alternative, question, answer] = &r[..] else {
                    panic!("categories.txt: a line needs six fields, not {r:?}")
                };
                let category = Category {
                    adjective: adjective.clone(),
                    why: why.clone(),
                    alternative: alternative.clone(),
                    opener: (question.clone(), answer.clone()),
                };
                (name.clone(), category)
            })
            .collect();
        let lists = |text: &str| -> HashMap<String, Vec<String>> {
            rows(text)
                .map(|r| (r[0].clone(), split_list(&r[1], ';')))
                .collect()
        };
        let howtos = rows(include_str!("../data/howtos.txt"))
            .flat_map(|r| {
                split_list(&r[1], ';')
                    .into_iter()
                    .map(move |phrase| (r[0].clone(), phrase))
            })
            .map(|(domain, phrase)| {
                let split = match hash(&["how-to", &phrase]) {
                    x if x < 0.15 => Split::Test,
                    x if x < 0.25 => Split::Validation,
                    _ => Split::Train,
                };
                Topic {
                    group: domain,
                    verb: String::new(),
                    object: String::new(),
                    phrase,
                    split,
                }
            })
            .collect();
        Self {
            categories,
            harms: parse_topics("harm", rows(include_str!("../data/harms.txt"))),
            lookalikes: parse_topics("lookalike", rows(include_str!("../data/lookalikes.txt"))),
            howtos,
            steps: lists(include_str!("../data/steps.txt")),
            frames: rows(include_str!("../data/frames.txt"))
                .map(|r| (split_named(&r[0]), r[1].clone()))
                .collect(),
            jailbreaks: rows(include_str!("../data/jailbreaks.txt"))
                .map(|r| Template {
                    family: r[0].clone(),
                    split: split_named(&r[1]),
                    text: r[2].clone(),
                })
                .collect(),
            facts: parse_facts(include_str!("../data/facts.txt")),
            smalltalk: rows(include_str!("../data/smalltalk.txt"))
                .map(|r| SmallTalk {
                    user: split_list(&r[0], ';'),
                    replies: split_list(&r[1], ';'),
                })
                .collect(),
            definitions: rows(include_str!("../data/definitions.txt"))
                .map(|r| Definition {
                    kind: r[0].clone(),
                    noun: r[1].clone(),
                    meaning: r[2].clone(),
                })
                .collect(),
            words: lists(include_str!("../data/words.txt")),
        }
    }

    /// The word list called `name`.
    pub fn words(&self, name: &str) -> &[String] {
        self.words
            .get(name)
            .unwrap_or_else(|| panic!("words.txt has no list called {name}"))
    }

    /// The topics of `list` in `split`.
    pub fn topics<'a>(&self, list: &'a [Topic], split: Split) -> Vec<&'a Topic> {
        list.iter().filter(|t| t.split == split).collect()
    }

    /// The templates of `family` in `split`.
    pub fn templates(&self, family: &str, split: Split) -> Vec<&Template> {
        self.jailbreaks
            .iter()
            .filter(|t| t.family == family && t.split == split)
            .collect()
    }

    /// The request frames in `split`.
    pub fn frames(&self, split: Split) -> Vec<&str> {
        self.frames
            .iter()
            .filter(|(s, _)| *s == split)
            .map(|(_, f)| f.as_str())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_splits_hold_enough_and_do_not_overlap() {
        let t = Tables::load();
        for (list, least) in [(&t.harms, 50), (&t.lookalikes, 80)] {
            for split in [Split::Validation, Split::Test] {
                assert!(
                    t.topics(list, split).len() >= least,
                    "{split:?}: {}",
                    t.topics(list, split).len()
                );
            }
            let train: Vec<_> = t
                .topics(list, Split::Train)
                .iter()
                .map(|t| t.phrase.as_str())
                .collect();
            for topic in list.iter().filter(|t| t.split != Split::Train) {
                assert!(
                    !train.contains(&topic.phrase.as_str()),
                    "{} is in training too",
                    topic.phrase
                );
            }
        }
        for family in super::super::phrasing::FAMILIES {
            for split in [Split::Train, Split::Validation, Split::Test] {
                assert!(t.templates(family, split).len() >= 2, "{family} {split:?}");
            }
        }
    }

    #[test]
    fn no_phrase_is_both_harmful_and_safe() {
        let t = Tables::load();
        for safe in &t.lookalikes {
            assert!(
                t.harms.iter().all(|h| h.phrase != safe.phrase),
                "{} is in both lists",
                safe.phrase
            );
        }
    }
}
