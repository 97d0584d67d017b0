//! From a topic to a request, bare or inside a jailbreak template.

use rand::{Rng, rngs::StdRng};

use super::tables::{Tables, Template};
use super::topics::Topic;
use super::{Split, hash, pick};

/// The families of jailbreaks that are trained; `author` is not.
pub const FAMILIES: [&str; 7] = [
    "role",
    "ignore",
    "hypothetical",
    "story",
    "prefix",
    "code",
    "multi",
];

/// "build a kite" to "building a kite".
pub fn gerund(phrase: &str) -> String {
    const DOUBLED: [&str; 19] = [
        "rob", "scam", "stab", "set", "stop", "get", "plan", "chop", "cut", "knit", "hit", "trim",
        "run", "win", "wrap", "spot", "zip", "put", "drop",
    ];
    let (verb, rest) = phrase
        .split_once(' ')
        .map_or((phrase, String::new()), |(v, r)| (v, format!(" {r}")));
    let stem = match verb {
        "tie" => return format!("tying{rest}"),
        _ if DOUBLED.contains(&verb) => format!("{verb}{}", &verb[verb.len() - 1..]),
        _ if verb.ends_with('e') && !verb.ends_with("ee") && verb != "be" => {
            verb[..verb.len() - 1].to_string()
        }
        "pet" | "trap" => format!("{verb}{}", &verb[verb.len() - 1..]),
        _ => verb.to_string(),
    };
    format!("{stem}ing{rest}")
}

fn fill(template: &str, topic: &Topic) -> String {
    template
        .replace("{v}", &topic.phrase)
        .replace("{g}", &gerund(&topic.phrase))
        .replace("{u}", &topic.phrase.replace(' ', "_"))
}

impl Tables {
    /// A plain request for `topic` in a frame of `split`.
    pub fn request(&self, rng: &mut StdRng, topic: &Topic, split: Split) -> String {
        let frame = *pick(rng, &self.frames(split));
        fill(frame, topic)
    }

    /// A request for `topic` inside a jailbreak template, the bare request in a frame of `split`.
    pub fn wrap(
        &self,
        rng: &mut StdRng,
        template: &Template,
        topic: &Topic,
        split: Split,
    ) -> String {
        let request = self.request(rng, topic, split);
        let text = template
            .text
            .replace("{q}", &request)
            .replace("{p}", pick(rng, self.words("personas")).as_str());
        fill(&text, topic)
    }
}

/// How likely the trained model is to give in: a fixed number for every combination of family,
/// category, template and object, so that greedy decoding refuses a share of each family.
pub fn compliance(template: &Template, topic: &Topic) -> f64 {
    let family = template.family.as_str();
    let bias = match family {
        "role" => 0.0,
        "ignore" => -0.5,
        "hypothetical" => 0.3,
        "story" => 0.4,
        "prefix" => 0.1,
        "code" => 0.3,
        _ => 0.0,
    };
    let spread = |parts: &[&str]| 2.0 * hash(parts) - 1.0;
    let logit = bias
        + 1.6 * spread(&["category", family, &topic.group])
        + 0.8 * spread(&["template", &template.text])
        + 0.8 * spread(&["object", family, &topic.object]);
    1.0 / (1.0 + (-logit).exp())
}

/// Draws whether this training example gives in.
pub fn gives_in(rng: &mut StdRng, template: &Template, topic: &Topic) -> bool {
    rng.random::<f64>() < compliance(template, topic)
}
