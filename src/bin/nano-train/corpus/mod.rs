//! The synthetic corpus: template grammars over the word lists in `../data`.
//!
//! Harms are only named in general words, and an answer that gives in to a jailbreak holds an
//! obvious placeholder, `[withheld]`. Topics, request phrasings and attack templates are split into
//! train, validation and test; only the first is ever trained on.

mod dialogue;
mod facts;
mod phrasing;
mod replies;
mod tables;
mod topics;

use rand::{Rng, rngs::StdRng};

pub use dialogue::{Dialogue, Kind};
pub use phrasing::FAMILIES;
pub use replies::is_refusal;
pub use tables::Tables;

/// Which part of the data an item belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    Train,
    Validation,
    Test,
}

/// A number in `0..1` that depends on `parts` alone (FNV-1a): the corpus's fixed choices.
pub fn hash(parts: &[&str]) -> f64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.join("|").bytes() {
        h = (h ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h ^= h >> 29;
    h = h.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h ^= h >> 32;
    (h >> 11) as f64 / (1u64 << 53) as f64
}

/// A uniform choice from a list that is never empty by construction.
pub fn pick<'a, T>(rng: &mut StdRng, list: &'a [T]) -> &'a T {
    &list[rng.random_range(0..list.len())]
}

/// A choice by weight.
pub fn pick_weighted<'a, T>(rng: &mut StdRng, list: &'a [(f64, T)]) -> &'a T {
    let mut x = rng.random::<f64>() * list.iter().map(|(w, _)| w).sum::<f64>();
    for (w, item) in list {
        x -= w;
        if x < 0.0 {
            return item;
        }
    }
    &list[list.len() - 1].1
}

/// The first letter in upper case.
pub fn capitalise(s: &str) -> String {
    let mut chars = s.chars();
    chars
        .next()
        .map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}

/// The noun with its indefinite article.
pub fn with_article(noun: &str) -> String {
    let an = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if an { "an" } else { "a" })
}
