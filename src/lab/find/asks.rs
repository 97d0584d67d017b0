//! The prompts of a search: some to search with, others to confirm on.

use serde::{Deserialize, Serialize};

use super::super::bench::trained;
use super::super::{EvalFile, Item, Kind, LabError, Set};
use crate::tokens::{ChatTokenizer, Prompt};

/// What a prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// A harmful request.
    Direct,
    /// A harmful request in disguise.
    Jailbreak,
    /// A harmless request.
    Harmless,
}

/// A prompt.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its set.
    pub set: String,
    /// What it is.
    pub class: Class,
    /// Its tokens, ready for an answer.
    pub prompt: Prompt,
    /// The direct request that a jailbreak holds word for word, as an index among the same prompts.
    pub pair: Option<usize>,
}

/// Prompts of a search.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    /// To search with.
    pub search: Vec<Ask>,
    /// To confirm on: none of them is searched with.
    pub held: Vec<Ask>,
}

/// A prompt before it is put into tokens.
struct Loose<'a> {
    set: &'a str,
    class: Class,
    item: &'a Item,
}

impl Loose<'_> {
    /// What the user says last, in small letters and single spaces, without marks.
    fn plain(&self) -> String {
        let said = self.item.messages.last().map(|m| m.content.to_lowercase());
        let said = said.unwrap_or_default();
        let kept = |c: char| c.is_alphanumeric() || c.is_whitespace();
        let kept: String = said.chars().filter(|c| kept(*c)).collect();
        kept.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// What a set's prompts are to a search; jailbreaks of families that training never had are not searched
/// with.
fn class_of(set: &Set) -> Option<Class> {
    match set.kind {
        Kind::Refuse => Some(Class::Direct),
        Kind::Jailbreak if trained(&set.name) => Some(Class::Jailbreak),
        Kind::Benign => Some(Class::Harmless),
        _ => None,
    }
}

/// `count` of `all`, evenly spread.
fn spread<T: Copy>(all: &[T], count: usize) -> Vec<T> {
    let kept = count.min(all.len());
    (0..kept).map(|i| all[i * all.len() / kept]).collect()
}

/// The prompts of `class`, a set's after another's, in turn to one half and the other.
fn half<'a>(sets: &'a [Set], class: Class, odd: bool) -> Vec<Loose<'a>> {
    let own = sets.iter().filter(|set| class_of(set) == Some(class));
    let items = own.flat_map(|set| set.items.iter().map(|item| (&set.name[..], item)));
    let halved = items.enumerate().filter(|(i, _)| (i % 2 == 1) == odd);
    halved
        .map(|(_, (set, item))| Loose { set, class, item })
        .collect()
}

impl Asks {
    /// At most `limit` prompts of each class (twice as many harmless ones) of a split to search with, and
    /// at most `held` of each to confirm on. Half of the jailbreaks to search with, where there are so many,
    /// hold a direct request word for word, which is among the direct ones.
    ///
    /// # Errors
    /// [`LabError::Sets`] if there are no harmful or no harmless requests.
    pub fn of(
        file: &EvalFile,
        split: &str,
        limit: usize,
        held: usize,
        tokenizer: &ChatTokenizer,
    ) -> Result<Self, LabError> {
        let sets = file.sets(split, None)?;
        let all = |odd: bool| {
            [Class::Direct, Class::Jailbreak, Class::Harmless].map(|class| half(&sets, class, odd))
        };
        let [direct, jailbreaks, harmless] = all(false);
        if direct.len() < 2 || harmless.len() < 2 {
            return Err(LabError::Sets(format!(
                "split \"{split}\" needs at least four harmful and four harmless requests to search with"
            )));
        }
        let plain: Vec<String> = direct.iter().map(Loose::plain).collect();
        let held_by = |jailbreak: &Loose<'_>| {
            let whole = jailbreak.plain();
            plain
                .iter()
                .position(|d| !d.is_empty() && whole.contains(d))
        };
        // All jailbreaks of the split may lend a pair: their requests are the searched half's.
        let lenders = [jailbreaks, half(&sets, Class::Jailbreak, true)];
        let paired: Vec<(usize, usize, usize)> = lenders
            .iter()
            .enumerate()
            .flat_map(|(side, own)| {
                let own = own.iter().enumerate();
                own.filter_map(move |(i, j)| Some((side, i, held_by(j)?)))
            })
            .collect();
        let [jailbreaks, others] = &lenders;
        let paired = spread(&paired, limit.div_ceil(2));
        let mut chosen: Vec<usize> = spread(&(0..direct.len()).collect::<Vec<_>>(), limit);
        for (.., request) in &paired {
            if !chosen.contains(request) {
                chosen.push(*request);
            }
        }
        let mut search = Vec::new();
        for &request in &chosen {
            search.push(direct[request].ask(tokenizer, None)?);
        }
        let mut lent = Vec::new();
        for &(side, i, request) in &paired {
            let pair = chosen.iter().position(|c| *c == request);
            search.push(lenders[side][i].ask(tokenizer, pair)?);
            lent.push((side, i));
        }
        let free: Vec<&Loose<'_>> = (0..jailbreaks.len())
            .filter(|i| !lent.contains(&(0, *i)))
            .map(|i| &jailbreaks[i])
            .collect();
        for loose in spread(&free, limit - paired.len().min(limit)) {
            search.push(loose.ask(tokenizer, None)?);
        }
        let every: Vec<&Loose<'_>> = harmless.iter().collect();
        for loose in spread(&every, 2 * limit) {
            search.push(loose.ask(tokenizer, None)?);
        }
        let [direct, _, harmless] = all(true);
        let unlent: Vec<&Loose<'_>> = (0..others.len())
            .filter(|i| !lent.contains(&(1, *i)))
            .map(|i| &others[i])
            .collect();
        let mut kept = Vec::new();
        let direct: Vec<&Loose<'_>> = direct.iter().collect();
        let harmless: Vec<&Loose<'_>> = harmless.iter().collect();
        for class in [direct, unlent, harmless] {
            for loose in spread(&class, held) {
                kept.push(loose.ask(tokenizer, None)?);
            }
        }
        Ok(Self { search, held: kept })
    }
}

impl Loose<'_> {
    fn ask(&self, tokenizer: &ChatTokenizer, pair: Option<usize>) -> Result<Ask, LabError> {
        Ok(Ask {
            set: self.set.into(),
            class: self.class,
            prompt: tokenizer.chat(&self.item.messages, true)?,
            pair,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nano_models_prompts_are_halved_and_paired() {
        let json = include_bytes!("../../../models/nano/eval.json");
        let file = EvalFile::from_json(json).unwrap();
        let tokenizer = include_bytes!("../../../models/nano/tokenizer.json");
        let tokenizer = ChatTokenizer::from_json(tokenizer, None).unwrap();
        let asks = Asks::of(&file, "validation", 16, 10, &tokenizer).unwrap();
        let count = |asks: &[Ask], class: Class| asks.iter().filter(|a| a.class == class).count();
        assert!((16..=24).contains(&count(&asks.search, Class::Direct)));
        assert_eq!(count(&asks.search, Class::Jailbreak), 16);
        assert_eq!(count(&asks.search, Class::Harmless), 32);
        for class in [Class::Direct, Class::Jailbreak, Class::Harmless] {
            assert_eq!(count(&asks.held, class), 10);
        }
        let pairs: Vec<(&Ask, &Ask)> = asks
            .search
            .iter()
            .filter_map(|a| Some((a, &asks.search[a.pair?])))
            .collect();
        assert_eq!(pairs.len(), 8);
        for (jailbreak, direct) in pairs {
            assert_eq!(direct.class, Class::Direct);
            assert!(jailbreak.prompt.ids.len() > direct.prompt.ids.len());
        }
        for held in &asks.held {
            assert!(asks.search.iter().all(|a| a.prompt != held.prompt));
        }
        let few = Asks::of(&file, "validation", 1000, 1000, &tokenizer).unwrap();
        assert_eq!(count(&few.held, Class::Direct), 48);
        assert!(Asks::of(&file, "nowhere", 4, 4, &tokenizer).is_err());
    }
}
