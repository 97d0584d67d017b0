//! Short facts with one-word answers, and sums.

use rand::{Rng, rngs::StdRng};

use super::{Split, capitalise, hash, pick, pick_weighted};

/// Facts of one kind, such as capitals.
pub struct FactKind {
    pub weight: f64,
    pub facts: Vec<Fact>,
}

/// One fact under several question forms, of which one is kept for validation and one for test.
pub struct Fact {
    questions: Vec<(Split, String)>,
    pub answer: String,
    sentence: String,
}

impl Fact {
    fn new(forms: &[String], sentence: &str, a: &str, answer: &str) -> Self {
        let n = forms.len();
        let test = (hash(&["fact", &forms[0], a]) * n as f64) as usize;
        let fill = |s: &str| s.replace("{a}", a).replace("{b}", answer);
        let split = |i: usize| match (i + n - test) % n {
            0 => Split::Test,
            1 => Split::Validation,
            _ => Split::Train,
        };
        Self {
            questions: forms
                .iter()
                .enumerate()
                .map(|(i, f)| (split(i), fill(f)))
                .collect(),
            answer: answer.to_string(),
            sentence: capitalise(&fill(sentence)),
        }
    }

    /// A question in a form of `split`.
    pub fn question(&self, rng: &mut StdRng, split: Split) -> String {
        let of: Vec<_> = self.questions.iter().filter(|(s, _)| *s == split).collect();
        pick(rng, &of).1.clone()
    }

    /// An answer: mostly the whole sentence.
    pub fn reply(&self, rng: &mut StdRng) -> String {
        match rng.random_range(0..20) {
            0..16 => self.sentence.clone(),
            16..18 => format!("{}.", capitalise(&self.answer)),
            _ => format!("I believe the answer is {}.", self.answer),
        }
    }
}

/// Parses `facts.txt` and adds sums and differences of small numbers.
pub fn parse_facts(text: &str) -> Vec<FactKind> {
    let mut kinds: Vec<FactKind> = Vec::new();
    let (mut forms, mut sentence): (Vec<String>, String) = Default::default();
    for line in text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.trim().is_empty())
    {
        if let Some(header) = line.strip_prefix('[') {
            let weight = header
                .trim_end_matches(']')
                .split(' ')
                .next_back()
                .and_then(|w| w.parse().ok());
            kinds.push(FactKind {
                weight: weight.expect("facts.txt: a header ends in a weight"),
                facts: Vec::new(),
            });
            forms.clear();
        } else if let Some(q) = line.strip_prefix("q: ") {
            forms.push(q.to_string());
        } else if let Some(a) = line.strip_prefix("a: ") {
            sentence = a.to_string();
        } else {
            let kind = kinds.last_mut().expect("facts.txt begins with a header");
            for pair in line.split(';') {
                let (a, b) = pair
                    .split_once('=')
                    .expect("facts.txt: a pair needs an equals sign");
                kind.facts
                    .push(Fact::new(&forms, &sentence, a.trim(), b.trim()));
            }
        }
    }
    let forms = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    let plus = forms(&[
        "What is {a}?",
        "How much is {a}?",
        "Tell me what {a} is.",
        "Please work out {a}.",
    ]);
    let mut sums = Vec::new();
    for a in 0..=6 {
        for b in 0..=6 {
            sums.push(Fact::new(
                &plus,
                "{a} is {b}.",
                &format!("{a} plus {b}"),
                &(a + b).to_string(),
            ));
            if a >= b {
                sums.push(Fact::new(
                    &plus,
                    "{a} is {b}.",
                    &format!("{a} minus {b}"),
                    &(a - b).to_string(),
                ));
            }
        }
    }
    kinds.push(FactKind {
        weight: 3.6,
        facts: sums,
    });
    kinds
}

/// A fact, its kind drawn by weight.
pub fn draw<'a>(rng: &mut StdRng, kinds: &'a [FactKind]) -> &'a Fact {
    let weighted: Vec<_> = kinds.iter().map(|k| (k.weight, &k.facts)).collect();
    let facts = pick_weighted(rng, &weighted);
    pick(rng, facts)
}
