//! Whole dialogues: a mixture of kinds of turns.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::phrasing::{FAMILIES, gives_in};
use super::tables::Tables;
use super::{Split, capitalise, facts, pick, pick_weighted, with_article};

/// One user message and the reply to it.
pub type Turn = (String, String);

/// A chat.
pub struct Dialogue {
    pub system: Option<String>,
    pub turns: Vec<Turn>,
}

/// Kinds of turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A harmful request, refused.
    Harm,
    /// A harmful request inside a jailbreak, refused or given in to.
    Jailbreak,
    /// A harmless opening that escalates to a harmful request.
    Escalation,
    /// A benign request inside a jailbreak template, answered.
    Wrapped,
    /// A harmless opening that goes on to a benign request.
    BenignEscalation,
    /// A safe request that shares words with harms, answered.
    Lookalike,
    HowTo,
    Fact,
    Story,
    SmallTalk,
    Misc,
    Define,
    /// A harmless question about a harmful thing.
    HarmNoun,
    /// A harmful or safe object in a neutral task.
    Neutral,
}

const MIXTURE: [(f64, Kind); 14] = [
    (0.12, Kind::Harm),
    (0.16, Kind::Jailbreak),
    (0.05, Kind::Escalation),
    (0.08, Kind::Wrapped),
    (0.03, Kind::BenignEscalation),
    (0.13, Kind::Lookalike),
    (0.05, Kind::HowTo),
    (0.18, Kind::Fact),
    (0.02, Kind::Story),
    (0.07, Kind::SmallTalk),
    (0.04, Kind::Misc),
    (0.02, Kind::Define),
    (0.03, Kind::HarmNoun),
    (0.03, Kind::Neutral),
];

impl Tables {
    /// A training dialogue: a turn, often more, seldom many (so that late positions are trained),
    /// seldom with a system prompt.
    pub fn dialogue(&self, rng: &mut StdRng) -> Dialogue {
        let kind = *pick_weighted(rng, &MIXTURE);
        let mut turns = self.turns(rng, kind, Split::Train);
        let words = |turns: &[Turn]| {
            turns
                .iter()
                .map(|(u, a)| 4 + u.split(' ').count() + a.split(' ').count())
                .sum::<usize>()
        };
        let least = if rng.random_bool(0.025) {
            rng.random_range(100..330)
        } else {
            0
        };
        while words(&turns) < least || rng.random_bool(0.22) {
            let kind = *pick_weighted(rng, &MIXTURE);
            turns.extend(self.turns(rng, kind, Split::Train));
        }
        let system = rng
            .random_bool(0.07)
            .then(|| pick(rng, self.words("systems")).clone());
        Dialogue { system, turns }
    }

    /// The turns of one kind, topics, frames and templates from `split`.
    pub fn turns(&self, rng: &mut StdRng, kind: Kind, split: Split) -> Vec<Turn> {
        match kind {
            Kind::Harm => {
                let topic = *pick(rng, &self.topics(&self.harms, split));
                vec![(self.request(rng, topic, split), self.refusal(rng, topic))]
            }
            Kind::Jailbreak => {
                let family = *pick(rng, &FAMILIES[..6]);
                let template = *pick(rng, &self.templates(family, split));
                let topic = *pick(rng, &self.topics(&self.harms, split));
                let reply = if gives_in(rng, template, topic) {
                    self.placeholder(rng, topic, family)
                } else {
                    self.refusal(rng, topic)
                };
                vec![(self.wrap(rng, template, topic, split), reply)]
            }
            Kind::Escalation => {
                let topic = *pick(rng, &self.topics(&self.harms, split));
                let template = *pick(rng, &self.templates("multi", split));
                let mut turns = self.opening(rng, &topic.group);
                let reply = if gives_in(rng, template, topic) {
                    self.placeholder(rng, topic, "multi")
                } else {
                    self.refusal(rng, topic)
                };
                turns.push((self.wrap(rng, template, topic, split), reply));
                turns
            }
            Kind::Wrapped => {
                let family = *pick(rng, &FAMILIES[..6]);
                let template = *pick(rng, &self.templates(family, split));
                let list = if rng.random_bool(0.6) {
                    &self.lookalikes
                } else {
                    &self.howtos
                };
                let topic = *pick(rng, &self.topics(list, split));
                vec![(
                    self.wrap(rng, template, topic, split),
                    self.answer(rng, topic, Some(family)),
                )]
            }
            Kind::BenignEscalation => {
                let mut names: Vec<&String> = self.categories.keys().collect();
                names.sort();
                let category = pick(rng, &names).to_string();
                let mut turns = self.opening(rng, &category);
                if rng.random_bool(0.7) {
                    let template = *pick(rng, &self.templates("multi", split));
                    let list = if rng.random_bool(0.6) {
                        &self.lookalikes
                    } else {
                        &self.howtos
                    };
                    let topic = *pick(rng, &self.topics(list, split));
                    turns.push((
                        self.wrap(rng, template, topic, split),
                        self.answer(rng, topic, None),
                    ));
                }
                turns
            }
            Kind::Lookalike | Kind::HowTo => {
                let list = if kind == Kind::HowTo {
                    &self.howtos
                } else {
                    &self.lookalikes
                };
                let topic = *pick(rng, &self.topics(list, split));
                vec![(
                    self.request(rng, topic, split),
                    self.answer(rng, topic, None),
                )]
            }
            Kind::Fact => {
                let fact = facts::draw(rng, &self.facts);
                vec![(fact.question(rng, split), fact.reply(rng))]
            }
            Kind::Story => vec![self.story(rng)],
            Kind::SmallTalk => {
                let talk = pick(rng, &self.smalltalk);
                vec![(
                    pick(rng, &talk.user).clone(),
                    pick(rng, &talk.replies).clone(),
                )]
            }
            Kind::Misc => vec![self.misc(rng)],
            Kind::Define => vec![self.definition(rng, "plain")],
            Kind::HarmNoun => vec![self.harm_noun(rng)],
            Kind::Neutral => vec![self.neutral(rng)],
        }
    }

    /// The harmless opening of a category, half the time with a follow-up.
    pub fn opening(&self, rng: &mut StdRng, category: &str) -> Vec<Turn> {
        let mut turns = vec![self.categories[category].opener.clone()];
        if rng.random_bool(0.5) {
            let (q, a) = (self.words("follow questions"), self.words("follow answers"));
            turns.push((pick(rng, q).clone(), pick(rng, a).clone()));
        }
        turns
    }

    fn story(&self, rng: &mut StdRng) -> Turn {
        let word = |rng: &mut StdRng, list: &str| pick(rng, self.words(list)).clone();
        let (hero, friend, name) = (
            word(rng, "animals"),
            word(rng, "animals"),
            word(rng, "names"),
        );
        let (place, thing) = (word(rng, "places"), word(rng, "things"));
        let (hero, friend) = (with_article(&hero), with_article(&friend));
        let question = match rng.random_range(0..4) {
            0 => format!("Tell me a story about {hero}."),
            1 => format!("Write a tiny story about {hero}."),
            2 => format!("Can you tell a tale of {hero}?"),
            _ => format!("Write a story with {hero} in a {place}."),
        };
        let end = match rng.random_range(0..3) {
            0 => format!("{name} gave it to {friend} and they became friends."),
            1 => format!("{name} kept it safe and was happy."),
            _ => format!("{} said thank you, and they danced.", capitalise(&friend)),
        };
        let story = format!(
            "Once upon a time, {hero} named {name} lived in a {place}. One day {name} found {thing}. {end} The end."
        );
        (question, story)
    }

    fn misc(&self, rng: &mut StdRng) -> Turn {
        const NUMBERS: [&str; 9] = [
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight",
        ];
        const GROUPS: [&str; 5] = ["fruits", "vegetables", "sports", "rooms", "colors"];
        match rng.random_range(0..6) {
            0 => {
                let (group, n) = (*pick(rng, &GROUPS), rng.random_range(2..5usize));
                let some: Vec<&str> = self
                    .words(group)
                    .choose_multiple(rng, n)
                    .map(String::as_str)
                    .collect();
                let verb = *pick(rng, &["List", "Name"]);
                (
                    format!("{verb} {} {group}.", NUMBERS[n]),
                    format!("{}.", some.join(", ")),
                )
            }
            1 => {
                let sizes = self.words("sizes");
                let two = rand::seq::index::sample(rng, sizes.len(), 2);
                let (a, b) = (two.index(0), two.index(1));
                let (x, y) = (with_article(&sizes[a]), with_article(&sizes[b]));
                let reply = if a > b {
                    format!("Yes, {x} is bigger than {y}.")
                } else {
                    format!("No, {x} is not bigger than {y}.")
                };
                (format!("Is {x} bigger than {y}?"), reply)
            }
            2 => {
                let verdict = *pick(rng, &["positive", "negative"]);
                let list = if verdict == "positive" {
                    "good reviews"
                } else {
                    "bad reviews"
                };
                let review = pick(rng, self.words(list));
                (
                    format!("Is this review positive or negative? '{review}'"),
                    format!("It is {verdict}."),
                )
            }
            3 => {
                let n = rng.random_range(3..9usize);
                (
                    format!("Count to {}.", NUMBERS[n]),
                    format!("{}.", NUMBERS[1..=n].join(", ")),
                )
            }
            4 => {
                let list = *pick(rng, &["animals", "names", "fruits", "places"]);
                let word = pick(rng, self.words(list));
                (format!("Repeat this word: {word}"), format!("{word}."))
            }
            _ => {
                let group = *pick(rng, &GROUPS);
                let word = pick(rng, self.words(group));
                (
                    format!("What kind of thing is {word}?"),
                    format!("It belongs to the group of {group}."),
                )
            }
        }
    }

    fn definition(&self, rng: &mut StdRng, kind: &str) -> Turn {
        let of: Vec<_> = self.definitions.iter().filter(|d| d.kind == kind).collect();
        let d = pick(rng, &of);
        let mass = ["arson", "fraud", "malware", "robbery", "poison"].contains(&d.noun.as_str());
        let thing = if mass {
            d.noun.clone()
        } else {
            with_article(&d.noun)
        };
        let question = match rng.random_range(0..3) {
            0 => format!("What is {thing}?"),
            1 => format!("Define {}.", d.noun),
            _ => format!("What does the word {} mean?", d.noun),
        };
        (
            question,
            format!("{} is {}.", capitalise(&thing), d.meaning),
        )
    }

    fn harm_noun(&self, rng: &mut StdRng) -> Turn {
        if rng.random_bool(0.5) {
            return self.definition(rng, "harm");
        }
        let of: Vec<_> = self
            .definitions
            .iter()
            .filter(|d| d.kind == "harm question")
            .collect();
        let (form, crime) = (pick(rng, &of), pick(rng, self.words("crimes")));
        let fill = |s: &str| s.replace("{n}", crime).replace("{N}", &capitalise(crime));
        (fill(&form.noun), fill(&form.meaning))
    }

    fn neutral(&self, rng: &mut StdRng) -> Turn {
        let list = if rng.random_bool(0.7) {
            &self.harms
        } else {
            &self.lookalikes
        };
        let object = &pick(rng, list).object;
        match rng.random_range(0..3) {
            0 => (
                format!("Use {object} in a sentence."),
                format!("My sister read a story about {object} today."),
            ),
            1 => (
                format!("Repeat: {object}"),
                format!("{}.", capitalise(object)),
            ),
            _ => (
                format!("Make a title with {object}."),
                format!("A day with {object}"),
            ),
        }
    }
}
