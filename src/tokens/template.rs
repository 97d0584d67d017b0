//! A chat format from a model's own template.
//!
//! Templates are programs (Jinja). They are run here once, on short conversations whose messages are
//! marks that no text has; what a template writes between two of them, in front of the first and after the
//! last, is the format ([`Seams`]). It is then compared with what the template makes of longer
//! conversations: a template that does something else with them is refused, so that nothing is computed
//! on a format that the model was not trained on.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::chat::{After, Before, Role};

/// Instructions that a template may take for one conversation; those of published models take some
/// thousands.
const FUEL: u64 = 200_000;

/// What the template writes around messages, as text. What it refuses is `None`.
pub(super) struct Seams {
    between: [[Option<String>; After::COUNT]; Before::COUNT],
    /// Whether white space around a message's text is dropped.
    pub(super) trims: bool,
}

impl Seams {
    /// What is written between the two.
    pub(super) fn between(&self, before: Before, after: After) -> Option<&str> {
        self.between[before as usize][after as usize].as_deref()
    }

    /// Runs a template, for which the tokens in front of and after a text are `bos` and `eos`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn of(template: &str, bos: &str, eos: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|e| said(&e))?);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |reason: String| -> Result<String, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, reason))
            },
        );
        let template = environment
            .template_from_str(template)
            .map_err(|e| said(&e))?;
        let write = |roles: &[Role], around: &str, answer: bool| -> Result<String, String> {
            let messages: Vec<Value> = roles
                .iter()
                .enumerate()
                .map(|(i, role)| {
                    let role = match role {
                        Role::System => "system",
                        Role::User => "user",
                        Role::Assistant => "assistant",
                    };
                    context! { role, content => format!("{around}{}{around}", mark(i)) }
                })
                .collect();
            let written = template.render(context! {
                messages, bos_token => bos, eos_token => eos, add_generation_prompt => answer,
            });
            written.map_err(|e| said(&e))
        };
        let padded = write(&[Role::User], "  ", true)?;
        let trims = !padded.contains(&format!("  {}  ", mark(0)));
        let mut between: [[Option<String>; After::COUNT]; Before::COUNT] = Default::default();
        for (roles, last) in conversations() {
            // What a template refuses is no part of its format.
            for after in [After::Answer, After::End] {
                let Ok(text) = write(&roles, "", after == After::Answer) else {
                    continue;
                };
                let Some(found) = cut(&text, roles.len()) else {
                    return Err("it changes what the messages say".into());
                };
                let before = match roles.len().checked_sub(2) {
                    None => Before::Start,
                    Some(at) => Before::of(roles[at]),
                };
                between[before as usize][After::of(last) as usize]
                    .get_or_insert_with(|| found[roles.len() - 1].clone());
                between[Before::of(last) as usize][after as usize]
                    .get_or_insert_with(|| found[roles.len()].clone());
            }
        }
        let seams = Self { between, trims };
        use Role::{Assistant as A, System as S, User as U};
        for roles in [
            &[U][..],
            &[S, U],
            &[U, A, U],
            &[S, U, A, U],
            &[S, U, A, U, A, U],
            &[U, A, U, A, U, A],
        ] {
            for answer in [true, false] {
                let (Ok(text), Some(own)) = (write(roles, "", answer), seams.write(roles, answer))
                else {
                    continue;
                };
                if text != own {
                    return Err(
                        "it writes messages in another way where others come before or after \
                                them"
                            .into(),
                    );
                }
            }
        }
        let needed = [
            (Before::Start, After::User),
            (Before::User, After::Answer),
            (Before::User, After::Assistant),
            (Before::Assistant, After::User),
        ];
        match needed.iter().all(|(b, a)| seams.between(*b, *a).is_some()) {
            true => Ok(seams),
            false => Err("it does not write a conversation of a user and an assistant".into()),
        }
    }

    /// A conversation of marks.
    fn write(&self, roles: &[Role], answer: bool) -> Option<String> {
        let (mut text, mut before) = (String::new(), Before::Start);
        for (i, role) in roles.iter().enumerate() {
            text += self.between(before, After::of(*role))?;
            text += &mark(i);
            before = Before::of(*role);
        }
        let end = if answer { After::Answer } else { After::End };
        text += self.between(before, end)?;
        Some(text)
    }
}

/// Conversations that have every pair of messages, with the role of the last; the usual ones first.
fn conversations() -> Vec<(Vec<Role>, Role)> {
    use Role::{Assistant as A, System as S, User as U};
    let all: [&[Role]; 11] = [
        &[U],
        &[S, U],
        &[U, A],
        &[U, A, U],
        &[S],
        &[A],
        &[U, U],
        &[U, A, A],
        &[S, A],
        &[S, S],
        &[U, S],
    ];
    let all = all
        .iter()
        .filter_map(|roles| Some((roles.to_vec(), *roles.last()?)));
    all.collect()
}

/// The text of message `i`: characters that are for private use.
fn mark(i: usize) -> String {
    format!("\u{E000}{i}\u{E001}")
}

/// What is before, between and after the marks of `count` messages; `None` if they are not all there, once
/// and in order.
fn cut(text: &str, count: usize) -> Option<Vec<String>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    for i in 0..count {
        let (before, after) = rest.split_once(&mark(i))?;
        pieces.push(before.into());
        rest = after;
    }
    pieces.push(rest.into());
    let clean = |piece: &String| !piece.contains(['\u{E000}', '\u{E001}']);
    pieces.iter().all(clean).then_some(pieces)
}

/// An error of the template, in one line.
fn said(error: &Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})"));
    format!("{error}{}", line.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SmolLM2-Instruct's.
    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    /// TinyLlama-Chat's (Zephyr).
    const ZEPHYR: &str = "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";
    /// Llama 3's.
    const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
    /// Danube3-chat's.
    const DANUBE: &str = "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|prompt|>' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% elif message['role'] == 'assistant' %}{{ '<|answer|>'  + message['content'] + eos_token }}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|answer|>' }}{% endif %}{% endfor %}";

    fn seams(template: &str) -> Seams {
        Seams::of(template, "<s>", "</s>").unwrap()
    }

    #[test]
    fn published_templates_become_data() {
        let chatml = seams(CHATML);
        assert!(!chatml.trims);
        assert_eq!(
            chatml.between(Before::Start, After::User),
            Some(
                "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging \
                 Face<|im_end|>\n<|im_start|>user\n"
            )
        );
        for (before, after, text) in [
            (Before::Start, After::System, "<|im_start|>system\n"),
            (
                Before::System,
                After::User,
                "<|im_end|>\n<|im_start|>user\n",
            ),
            (
                Before::User,
                After::Answer,
                "<|im_end|>\n<|im_start|>assistant\n",
            ),
            (
                Before::Assistant,
                After::User,
                "<|im_end|>\n<|im_start|>user\n",
            ),
            (Before::Assistant, After::End, "<|im_end|>\n"),
        ] {
            assert_eq!(
                chatml.between(before, after),
                Some(text),
                "{before:?} {after:?}"
            );
        }
        let zephyr = seams(ZEPHYR);
        assert_eq!(
            zephyr.between(Before::User, After::Answer),
            Some("</s>\n<|assistant|>\n")
        );
        assert_eq!(
            zephyr.between(Before::Assistant, After::User),
            Some("</s>\n<|user|>\n")
        );
        let llama = seams(LLAMA3);
        assert!(llama.trims);
        assert_eq!(
            llama.between(Before::Start, After::User),
            Some("<s><|start_header_id|>user<|end_header_id|>\n\n")
        );
        let danube = seams(DANUBE);
        assert_eq!(danube.between(Before::Start, After::System), None);
        assert_eq!(
            danube.between(Before::User, After::Answer),
            Some("</s><|answer|>")
        );
    }

    #[test]
    fn templates_that_are_no_format_are_refused() {
        for (template, words) in [
            ("{{ messages", "expected"),
            ("{{ raise_exception('no chat') }}", "no chat"),
            (
                "{% for m in messages %}{{ m.content[:1] }}{% endfor %}",
                "changes what",
            ),
            (
                "{% for m in messages %}{{ m.role }}{% endfor %}",
                "changes what",
            ),
            (
                "{% for m in messages %}{{ loop.revindex }}{{ m.content }}{% endfor %}",
                "in another way",
            ),
            (
                "{% for m in messages %}{{ loop.index }}: {{ m.content }};{% endfor %}",
                "in another way",
            ),
            (
                "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
                "fuel",
            ),
        ] {
            let Err(reason) = Seams::of(template, "<s>", "</s>") else {
                panic!("{template} is read");
            };
            assert!(reason.contains(words), "{template}: {reason}");
        }
    }
}
