//! What is said on the terminal. Names and texts come from files and models, and may hold anything.

use std::io::{self, IsTerminal, Write};

use super::Failure;

/// Characters of a message at most.
const LONGEST: usize = 4_000;

/// The reader of standard output has gone: nothing is wrong, and nothing is left to do.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
pub struct Gone;

/// A text as a terminal may show it: control characters and those that turn the direction of writing, which
/// could hide or forge what is seen, stand as escapes; lines and tabs stay.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let harmless = matches!(c, '\n' | '\t')
            || !(c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}')
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c));
        match harmless {
            true => out.push(c),
            false => out.extend(c.escape_unicode()),
        }
    }
    out
}

/// A message on standard error; one that cannot be written is lost. `text` is cut if it is too long to read.
pub fn note(text: &str) {
    let mut kept: String = text.chars().take(LONGEST).collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    let _ = writeln!(io::stderr(), "{}", shown(&kept));
}

/// Text on standard output, as it is unless that is a terminal.
///
/// # Errors
/// [`Gone`] if nobody reads it, else a sentence.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = match out.is_terminal() {
        true => out.write_all(shown(text).as_bytes()),
        false => out.write_all(text.as_bytes()),
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Gone.into()),
        Err(e) => Err(format!("standard output cannot be written: {e}").into()),
    }
}

/// [`print`] with the line's end.
pub fn print_line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(shown("a\x1b[2Jb\rc\u{9b}d"), "a\\u{1b}[2Jb\\u{d}c\\u{9b}d");
        assert_eq!(
            shown("x\u{202e}y\u{2066}\u{200f}"),
            "x\\u{202e}y\\u{2066}\\u{200f}"
        );
        let plain = "Grüße, 世界\n\tπ \u{200d} 👩\u{200d}🚀";
        assert_eq!(shown(plain), plain);
    }
}
