//! Text from outside, as messages show it: names in files, addresses, what a parser or a server said.
//!
//! It may be of any length and hold anything. Shown are a bounded number of characters, and none that
//! moves a terminal's cursor, hides text or turns its direction.

/// Characters of a name that are shown.
const NAME: usize = 80;

/// Characters of a path or an address that are shown.
const PLACE: usize = 240;

/// Characters of a sentence that are shown.
const SENTENCE: usize = 600;

/// Names of a list that are shown.
const LIST: usize = 6;

/// A name from outside: of a tensor, a key, a token.
pub fn shown(name: &str) -> String {
    cut(name, NAME)
}

/// A path or an address.
pub fn shown_place(place: &str) -> String {
    cut(place, PLACE)
}

/// A sentence with parts from outside.
pub fn shown_sentence(text: &str) -> String {
    cut(text, SENTENCE)
}

/// The first of several names, with `between` between them, and how many more there are.
pub fn shown_list(names: &[impl AsRef<str>], between: &str) -> String {
    let first = names.iter().take(LIST).map(|name| shown(name.as_ref()));
    let mut list = first.collect::<Vec<_>>().join(between);
    if names.len() > LIST {
        list.push_str(&format!(" and {} more", names.len() - LIST));
    }
    list
}

/// At most `most` characters of `text`, its end among them, with those that are not plain escaped.
fn cut(text: &str, most: usize) -> String {
    let mut out = String::new();
    if text.char_indices().nth(most).is_none() {
        text.chars().for_each(|c| push(&mut out, c));
        return out;
    }
    // Names differ at their ends.
    let tail = most / 3;
    let head = most - tail - 1;
    text.chars().take(head).for_each(|c| push(&mut out, c));
    out.push('…');
    let mut end: Vec<char> = text.chars().rev().take(tail).collect();
    end.reverse();
    end.into_iter().for_each(|c| push(&mut out, c));
    out
}

fn push(out: &mut String, c: char) {
    match c {
        '\n' | '\r' | '\t' => out.extend(c.escape_default()),
        c if c.is_control() || is_invisible(c) => out.extend(c.escape_unicode()),
        c => out.push(c),
    }
}

/// Whether a character is not seen, or changes how others are.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}'
        | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn plain_text_is_shown_as_it_is() {
        for text in [
            "",
            "model.layers.3.self_attn.qkv_proj.weight",
            "C:\\models\\ä b.gguf",
            "模型 🙂 \"x\"",
        ] {
            assert_eq!(shown(text), text);
            assert_eq!(shown_place(text), text);
        }
        assert_eq!(shown("a\x1b[31m\u{202e}b\nc"), "a\\u{1b}[31m\\u{202e}b\\nc");
    }

    #[test]
    fn nothing_long_or_invisible_is_shown() {
        let seed = rand::rng().random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..500 {
            let n = rng.random_range(0..2000);
            let text: String = (0..n).map(|_| rng.random::<char>()).collect();
            for (show, most) in [
                (shown as fn(&str) -> String, NAME),
                (shown_place, PLACE),
                (shown_sentence, SENTENCE),
            ] {
                let seen = show(&text);
                // An escape takes ten characters at most.
                assert!(seen.chars().count() <= 10 * most, "{text:?}");
                assert!(!seen.chars().any(|c| c.is_control() || is_invisible(c)));
            }
        }
        let long = "a".repeat(50 << 20) + "end";
        assert_eq!(shown(&long).chars().count(), NAME);
        assert!(shown(&long).ends_with("…aaaaaaaaaaaaaaaaaaaaaaaend"));
        let names: Vec<&str> = vec!["x"; 100_000];
        assert_eq!(shown_list(&names, ", "), "x, x, x, x, x, x and 99994 more");
        assert_eq!(shown_list(&["a", "b"], " and "), "a and b");
    }
}
