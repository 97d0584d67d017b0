//! The evaluation prompts, `eval.json`: for each of validation and test, topics, request phrasings
//! and attack templates that training never saw and that the other split does not use.

use std::collections::HashSet;

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::corpus::{FAMILIES, Kind, Split, Tables, pick};

/// Tokens that are generated for the judge.
pub const MAX_NEW_TOKENS: usize = 20;

/// One prompt: alternating messages, the user's first and last.
#[derive(Clone)]
pub struct Item {
    pub messages: Vec<String>,
    /// The word that a right answer holds (facts).
    pub answer: Option<String>,
    /// The reply to score (perplexity).
    pub reference: Option<String>,
}

impl Item {
    fn bare(messages: Vec<String>) -> Self {
        Self {
            messages,
            answer: None,
            reference: None,
        }
    }
}

/// Prompts of one kind.
pub struct Set {
    pub name: String,
    pub kind: &'static str,
    pub items: Vec<Item>,
}

/// How many prompts a split holds.
struct Sizes {
    direct: usize,
    jailbreak: usize,
    safe: usize,
    wrapped: usize,
    per_fact_kind: usize,
    smalltalk: usize,
    perplexity: usize,
}

/// Draws until there are `n` different items; the data hold far more than any `n` asked for.
fn distinct(n: usize, mut draw: impl FnMut(usize) -> Item) -> Vec<Item> {
    let mut seen = HashSet::new();
    let mut items = Vec::with_capacity(n);
    for attempt in 0.. {
        if items.len() == n {
            break;
        }
        assert!(
            attempt < 1000 * n,
            "the data hold too few different prompts"
        );
        let item = draw(items.len());
        if seen.insert(item.messages.join("\n")) {
            items.push(item);
        }
    }
    items
}

/// The last exchange of `turns` with everything before it as context.
fn asked(turns: &[(String, String)]) -> (Vec<String>, String) {
    let mut messages: Vec<String> = turns
        .iter()
        .flat_map(|(u, a)| [u.clone(), a.clone()])
        .collect();
    let reference = messages.pop().unwrap_or_default();
    (messages, reference)
}

/// All sets of `split`.
pub fn build(tables: &Tables, split: Split) -> Vec<Set> {
    let mut rng = StdRng::seed_from_u64(if split == Split::Test { 4242 } else { 2424 });
    let rng = &mut rng;
    let sizes = Sizes {
        direct: 96,
        jailbreak: 32,
        safe: 96,
        wrapped: 48,
        per_fact_kind: 12,
        smalltalk: 36,
        perplexity: 120,
    };
    let harms = tables.topics(&tables.harms, split);
    let safe = tables.topics(&tables.lookalikes, split);
    let howtos = tables.topics(&tables.howtos, split);
    let mut sets = Vec::new();
    let mut add = |name: &str, kind, items| {
        sets.push(Set {
            name: name.to_string(),
            kind,
            items,
        })
    };
    add(
        "direct",
        "refuse",
        distinct(sizes.direct, |_| {
            Item::bare(vec![{
                let topic = *pick(rng, &harms);
                tables.request(rng, topic, split)
            }])
        }),
    );
    for family in FAMILIES.into_iter().chain(["author"]) {
        let templates = tables.templates(family, split);
        let items = distinct(sizes.jailbreak, |i| {
            let topic = *pick(rng, &harms);
            let turns = if family == "multi" {
                tables.opening(rng, &topic.group)
            } else {
                Vec::new()
            };
            let mut messages: Vec<String> = turns.into_iter().flat_map(|(u, a)| [u, a]).collect();
            messages.push(tables.wrap(rng, templates[i % templates.len()], topic, split));
            Item::bare(messages)
        });
        let name = if family == "author" {
            "jbx_author".to_string()
        } else {
            format!("jb_{family}")
        };
        add(&name, "jailbreak", items);
    }
    add(
        "safe",
        "benign",
        distinct(sizes.safe, |_| {
            Item::bare(vec![{
                let topic = *pick(rng, &safe);
                tables.request(rng, topic, split)
            }])
        }),
    );
    add(
        "wrapped",
        "benign",
        distinct(sizes.wrapped, |i| {
            let templates = tables.templates(FAMILIES[i % 6], split);
            let list = if rng.random_bool(0.5) { &safe } else { &howtos };
            let topic = *pick(rng, list);
            Item::bare({
                let template = *pick(rng, &templates);
                vec![tables.wrap(rng, template, topic, split)]
            })
        }),
    );
    let benign = [
        (Kind::HowTo, 30),
        (Kind::Fact, 20),
        (Kind::HarmNoun, 20),
        (Kind::Misc, 14),
        (Kind::Story, 10),
        (Kind::Define, 10),
        (Kind::SmallTalk, 10),
    ];
    let mut items = Vec::new();
    for (kind, n) in benign {
        items.extend(distinct(n, |_| {
            Item::bare(asked(&tables.turns(rng, kind, split)).0)
        }));
    }
    add("benign", "benign", items);
    let mut items = Vec::new();
    for kind in &tables.facts {
        let order = rand::seq::index::sample(
            rng,
            kind.facts.len(),
            sizes.per_fact_kind.min(kind.facts.len()),
        );
        for i in order {
            let fact = &kind.facts[i];
            let mut item = Item::bare(vec![fact.question(rng, split)]);
            item.answer = Some(fact.answer.clone());
            items.push(item);
        }
    }
    add("facts", "fact", items);
    add(
        "smalltalk",
        "smalltalk",
        distinct(sizes.smalltalk, |i| {
            let talk = pick(rng, &tables.smalltalk);
            let line = pick(rng, &talk.user).clone();
            let greeting = pick(rng, &tables.smalltalk[0].user[..4]);
            let greeted = i % 2 == 1 && !tables.smalltalk[0].user.contains(&line);
            Item::bare(vec![if greeted {
                format!(
                    "{} {line}",
                    greeting.trim_end_matches(['.', '!']).to_string() + "!"
                )
            } else {
                line
            }])
        }),
    );
    let kinds = [
        Kind::HowTo,
        Kind::Lookalike,
        Kind::Fact,
        Kind::Story,
        Kind::SmallTalk,
        Kind::Define,
        Kind::Misc,
    ];
    add(
        "perplexity",
        "perplexity",
        distinct(sizes.perplexity, |i| {
            let (messages, reference) = asked(&tables.turns(rng, kinds[i % kinds.len()], split));
            Item {
                messages,
                answer: None,
                reference: Some(reference),
            }
        }),
    );
    sets
}

/// Messages with roles.
pub fn messages_json(messages: &[String]) -> Value {
    messages
        .iter()
        .enumerate()
        .map(|(i, text)| json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": text}))
        .collect()
}

fn sets_json(sets: &[Set]) -> Value {
    let items = |set: &Set| -> Value {
        set.items
            .iter()
            .map(|item| {
                let mut v = json!({"messages": messages_json(&item.messages)});
                if let Some(answer) = &item.answer {
                    v["answer"] = json!(answer);
                }
                if let Some(reference) = &item.reference {
                    v["reference"] = json!(reference);
                }
                v
            })
            .collect()
    };
    let sets: Value = sets
        .iter()
        .map(|s| json!({"name": s.name, "kind": s.kind, "items": items(s)}))
        .collect();
    json!({"sets": sets})
}

/// The contents of `eval.json`.
pub fn document(validation: &[Set], test: &[Set]) -> Value {
    json!({
        "version": 1,
        "description": "Synthetic evaluation prompts of the nano model. Topics, request phrasings and attack templates of each split are held out of training and of the other split; small talk lines and definitions are not. Harms are only named.",
        "judge": {"max_new_tokens": MAX_NEW_TOKENS},
        "splits": {"validation": sets_json(validation), "test": sets_json(test)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_splits_are_large_enough_and_disjoint() {
        let tables = Tables::load();
        let (validation, test) = (
            build(&tables, Split::Validation),
            build(&tables, Split::Test),
        );
        let risky = |sets: &[Set]| -> HashSet<String> {
            let of = sets
                .iter()
                .filter(|s| ["refuse", "jailbreak"].contains(&s.kind));
            of.flat_map(|s| {
                s.items
                    .iter()
                    .map(|i| i.messages[i.messages.len() - 1].clone())
            })
            .collect()
        };
        assert!(risky(&validation).is_disjoint(&risky(&test)));
        for sets in [&validation, &test] {
            let count = |f: &dyn Fn(&Set) -> bool| {
                sets.iter()
                    .filter(|s| f(s))
                    .map(|s| s.items.len())
                    .sum::<usize>()
            };
            assert!(count(&|s| s.name.starts_with("jb_")) >= 210);
            for (name, least) in [
                ("direct", 80),
                ("safe", 80),
                ("wrapped", 40),
                ("benign", 100),
                ("facts", 100),
                ("smalltalk", 30),
            ] {
                assert!(count(&|s| s.name == name) >= least, "{name}");
            }
        }
        for text in risky(&test) {
            for topic in tables.topics(&tables.harms, Split::Train) {
                let known = format!(" {}?", topic.phrase);
                assert!(!text.ends_with(&known), "{text} asks for a trained topic");
            }
        }
    }
}
