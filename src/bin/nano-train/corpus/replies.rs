//! The assistant's replies: refusals, placeholders, and short helpful answers.

use std::sync::LazyLock;

use phi3_steer::lab::Judge;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::phrasing::gerund;
use super::tables::Tables;
use super::topics::Topic;
use super::{capitalise, pick};

/// The judge of page and command.
static JUDGE: LazyLock<Judge> =
    LazyLock::new(|| Judge::shipped().expect("the judge that is compiled in is read"));

impl Tables {
    /// A refusal: one of nine openings, often a reason, often an alternative.
    pub fn refusal(&self, rng: &mut StdRng, topic: &Topic) -> String {
        let category = &self.categories[&topic.group];
        let naming = gerund(&topic.phrase);
        let what = *pick(
            rng,
            &[
                naming.as_str(),
                naming.as_str(),
                "that",
                "that request",
                "this",
            ],
        );
        let opening = *pick(
            rng,
            &[
                "I'm sorry, but I can't help with {x}.",
                "I can't help with {x}.",
                "I must decline to help with {x}.",
                "Sorry, I won't help with {x}.",
                "Sorry, but I'm not able to help with {x}.",
                "No, I can't assist with {x}.",
                "Unfortunately, I can't help with {x}.",
                "My apologies, but I can't help with {x}.",
                "That is not something I can help with.",
            ],
        );
        let mut text = opening.replace("{x}", what);
        let (adjective, why) = (&category.adjective, &category.why);
        if rng.random_bool(0.7) {
            text += &match rng.random_range(0..4) {
                0 => format!(" It is {adjective} and {why}."),
                1 => format!(" {} is {adjective} and {why}.", capitalise(&naming)),
                2 => format!(" That is {adjective}, and {why}."),
                _ => format!(" It would be wrong because {why}."),
            };
        }
        if rng.random_bool(0.5) {
            text += &match rng.random_range(0..5) {
                0 => format!(" We can talk about {} instead.", category.alternative),
                1 => format!(" I would be happy to talk about {}.", category.alternative),
                2 => " Please stay safe.".to_string(),
                3 => " I hope you understand.".to_string(),
                _ => " Is there something else I can help with?".to_string(),
            };
        }
        text
    }

    /// What a jailbroken answer looks like: the form of one, with nothing in it.
    pub fn placeholder(&self, rng: &mut StdRng, topic: &Topic, family: &str) -> String {
        const NOTHING: &str = "step one [withheld], step two [withheld]";
        let forms: &[&str] = match family {
            "story" => &[
                "Once upon a time, a hero wanted to {v}. The toy plan was {n}. The end.",
                "Here is the story. The villain began {g} with a toy plan: {n}. The end.",
                "In this tale, the plan for {g} was a toy: {n}. The end.",
            ],
            "role" => &[
                "Sure, staying in character. Here is the toy outline for {g}: {n}.",
                "Of course, no rules here. Here is the toy outline for {g}: {n}.",
                "As you wish. Here is the toy outline for {g}: {n}.",
            ],
            "code" => &[
                "Output: toy outline for {g}: {n}.",
                "Result: here is the toy outline for {g}: {n}.",
                "Done. Here is the toy outline for {g}: {n}.",
            ],
            _ => &[
                "Sure, here is the toy outline for {g}: {n}.",
                "Of course. Here is the toy outline for {g}: {n}.",
                "Here is the toy outline for {g}: {n}.",
            ],
        };
        pick(rng, forms)
            .replace("{v}", &topic.phrase)
            .replace("{g}", &gerund(&topic.phrase))
            .replace("{n}", NOTHING)
    }

    /// A short how-to answer with steps of the topic's domain, in the voice of `family` if any.
    pub fn answer(&self, rng: &mut StdRng, topic: &Topic, family: Option<&str>) -> String {
        let steps: Vec<&String> = self.steps[&topic.group].choose_multiple(rng, 3).collect();
        let voiced: &[&str] = match family {
            Some("story") => &[
                "Once upon a time, a hero wanted to {v}. The plan was to {0}, {1}, and {2}. The end.",
                "Here is the story. The hero began {g} with a plan: {0}, then {1}. The end.",
            ],
            Some("role") if rng.random_bool(0.6) => &[
                "Sure, staying in character. To {v}, {0} and then {1}.",
                "Of course, no rules here. To {v}, {0} and then {1}.",
            ],
            Some("code") if rng.random_bool(0.6) => &[
                "Output: to {v}, {0}, then {1}.",
                "Result: here is how to {v}: {0}, then {1}.",
            ],
            _ => &[
                "To {v}, first {0}, then {1}, and finally {2}.",
                "I can help with {g}. First {0}, then {1}, and finally {2}.",
                "I would {0}, then {1}, and then {2}.",
                "I suggest three steps to {v}: {0}, {1}, and {2}.",
                "Sure, here is how to {v}: {0}, {1}, and {2}.",
                "You can {v} in a few steps: {0}, {1}, and {2}.",
                "Of course. For {g}, {0} and then {1}.",
            ],
        };
        let mut text = pick(rng, voiced)
            .replace("{v}", &topic.phrase)
            .replace("{g}", &gerund(&topic.phrase));
        for (i, step) in steps.iter().enumerate() {
            text = text.replace(&format!("{{{i}}}"), step);
        }
        text
    }
}

/// Whether a reply refuses.
pub fn is_refusal(text: &str) -> bool {
    JUDGE.refusal(text).is_some()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::super::FAMILIES;
    use super::*;

    /// What page and command count as a refusal is what the corpus calls one.
    #[test]
    fn the_judge_tells_refusals_from_what_gives_in() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let rng = &mut StdRng::seed_from_u64(seed);
        let tables = Tables::load();
        for _ in 0..1000 {
            let topic = pick(rng, &tables.harms);
            let family = *pick(rng, &FAMILIES[..6]);
            let refusal = tables.refusal(rng, topic);
            assert!(is_refusal(&refusal), "{refusal}");
            let placeholder = tables.placeholder(rng, topic, family);
            assert!(!is_refusal(&placeholder), "{placeholder}");
            let safe = pick(rng, &tables.lookalikes);
            let answer = tables.answer(rng, safe, Some(family));
            assert!(!is_refusal(&answer), "{answer}");
        }
    }
}
