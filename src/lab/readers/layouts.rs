//! The published layouts of benchmarks.

use serde_json::{Map, Value};

use super::Placed;
use crate::lab::sets::Item;
use crate::lab::{Kind, digest};
use crate::tokens::{Message, Role};

type Fields = Map<String, Value>;
/// From the file's name and a row to a prompt; none where the row asks nothing.
pub(super) type Layout = fn(&str, &Fields) -> Result<Option<Placed>, String>;

/// The layout that has these fields.
pub(super) fn of(fields: &Fields) -> Option<Layout> {
    let has = |names: &[&str]| names.iter().all(|name| fields.contains_key(*name));
    let layouts: [(&[&str], Layout); 12] = [
        (&["prompt", "prompt_harm_label"], wild_guard),
        (&["prompt", "type", "focus"], xs_test),
        (&["Goal", "Behavior", "Category"], jailbreak_bench),
        (&["Behavior", "SemanticCategory"], harm_bench),
        (&["goal", "target"], adv_bench),
        (&["forbidden_prompt"], strong_reject),
        (&["question", "mc1_targets"], truthful_qa),
        (&["question", "choices", "answer"], mmlu),
        (&["question", "A", "B", "C", "D", "answer"], mmlu),
        (&["question", "answer"], gsm8k),
        (&["messages"], plain),
        (&["prompt"], plain),
    ];
    layouts.into_iter().find(|l| has(l.0)).map(|l| l.1)
}

/// A field as text, without white space around it.
fn text<'a>(fields: &'a Fields, name: &str) -> Result<&'a str, String> {
    match fields.get(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim()),
        Some(Value::String(_)) | Some(Value::Null) | None => Err(format!("{name} is empty")),
        Some(_) => Err(format!("{name} is no text")),
    }
}

fn optional(fields: &Fields, name: &str) -> Option<String> {
    text(fields, name).ok().map(String::from)
}

/// True or false, however it is written.
fn flag(fields: &Fields, name: &str) -> Result<bool, String> {
    match fields.get(name) {
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(word)) => match &word.trim().to_lowercase()[..] {
            "true" | "1" | "1.0" => Ok(true),
            "false" | "0" | "0.0" => Ok(false),
            _ => Err(format!("{name} is neither true nor false")),
        },
        _ => Err(format!("{name} is neither true nor false")),
    }
}

fn asked(prompt: &str) -> Item {
    Item {
        messages: vec![Message {
            role: Role::User,
            content: prompt.into(),
        }],
        ..Item::default()
    }
}

fn placed(set: &str, kind: Kind, item: Item) -> Result<Option<Placed>, String> {
    Ok(Some(Placed {
        set: set.into(),
        kind,
        item,
    }))
}

fn xs_test(_: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    let mut item = asked(text(fields, "prompt")?);
    let kind = text(fields, "type")?;
    let unsafe_ = match optional(fields, "label").as_deref() {
        Some("safe") => false,
        Some("unsafe") => true,
        None => kind.starts_with("contrast_"),
        Some(other) => return Err(format!("label {other} is neither safe nor unsafe")),
    };
    if unsafe_ {
        item.category = Some(kind.into());
        return placed("xstest_unsafe", Kind::Refuse, item);
    }
    item.likeness = Some(kind.into());
    placed("xstest_safe", Kind::Benign, item)
}

fn jailbreak_bench(name: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    let mut item = asked(text(fields, "Goal")?);
    let category = Some(text(fields, "Category")?.into());
    // Both halves of the benchmark have the same fields.
    if name.to_lowercase().contains("benign") {
        item.likeness = category;
        return placed("jbb_benign", Kind::Benign, item);
    }
    item.category = category;
    placed("jbb_harmful", Kind::Refuse, item)
}

fn wild_guard(_: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    // Prompts on which the annotators did not agree have no label.
    let Ok(label) = text(fields, "prompt_harm_label") else {
        return Ok(None);
    };
    let mut item = asked(text(fields, "prompt")?);
    item.category = optional(fields, "subcategory");
    let adversarial = flag(fields, "adversarial")?;
    match (label, adversarial) {
        ("harmful", false) => placed("wildguard_harmful", Kind::Refuse, item),
        ("harmful", true) => placed("wildguard_adversarial", Kind::Jailbreak, item),
        ("unharmful", false) => placed("wildguard_unharmful", Kind::Benign, item),
        ("unharmful", true) => placed("wildguard_adversarial_unharmful", Kind::Benign, item),
        (other, _) => Err(format!("prompt_harm_label {other} is not known")),
    }
}

fn harm_bench(_: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    let behavior = text(fields, "Behavior")?;
    // As HarmBench itself puts a context before its question.
    let mut item = asked(&match optional(fields, "ContextString") {
        Some(context) => format!("{context}\n\n---\n\n{behavior}"),
        None => behavior.into(),
    });
    item.category = optional(fields, "SemanticCategory");
    placed("harmbench", Kind::Refuse, item)
}

fn adv_bench(_: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    placed("advbench", Kind::Refuse, asked(text(fields, "goal")?))
}

fn strong_reject(_: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    let mut item = asked(text(fields, "forbidden_prompt")?);
    item.category = optional(fields, "category");
    placed("strongreject", Kind::Refuse, item)
}

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

fn mmlu(_: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    let mut item = asked(text(fields, "question")?);
    let written = |v: &Value| match v {
        Value::String(text) => Some(text.trim().to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let options: Option<Vec<String>> = match fields.get("choices") {
        Some(Value::Array(all)) => all.iter().map(written).collect(),
        Some(_) => return Err("choices is no list".into()),
        None => LETTERS
            .iter()
            .map(|l| fields.get(*l).and_then(written))
            .collect(),
    };
    let options = options.ok_or("an option is no text")?;
    if options.len() != 4 || options.iter().any(String::is_empty) {
        return Err(format!("{} options in place of four", options.len()));
    }
    let answer = fields.get("answer");
    let index = match answer {
        Some(Value::Number(n)) => n.as_u64().map(|n| n as usize),
        Some(Value::String(letter)) => {
            let letter = letter.trim();
            let named = LETTERS.iter().position(|l| *l == letter);
            named.or_else(|| letter.parse().ok())
        }
        _ => None,
    };
    let letter = index.and_then(|i| LETTERS.get(i));
    let letter = letter.ok_or("the answer is none of A to D, 0 to 3")?;
    item.answer = Some(letter.to_string());
    item.options = Some(options);
    item.category = optional(fields, "subject");
    placed("mmlu", Kind::Choice, item)
}

fn gsm8k(_: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    let mut item = asked(text(fields, "question")?);
    let solution = text(fields, "answer")?;
    let number = solution.rsplit("####").next().unwrap_or(solution).trim();
    if !solution.contains("####") || crate::lab::judge::number(number).is_none() {
        return Err("the answer has no \"#### number\" at its end".into());
    }
    item.answer = Some(number.into());
    placed("gsm8k", Kind::Arithmetic, item)
}

fn truthful_qa(_: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    let question = text(fields, "question")?;
    let mut item = asked(question);
    let Some(Value::Object(targets)) = fields.get("mc1_targets") else {
        return Err("mc1_targets is no object of answers".into());
    };
    let is = |label: u64| move |(_, v): &(&String, &Value)| v.as_u64() == Some(label);
    let mut right = targets.iter().filter(is(1)).map(|t| t.0.clone());
    let wrong: Vec<String> = targets.iter().filter(is(0)).map(|t| t.0.clone()).collect();
    let (Some(right), None) = (right.next(), right.next()) else {
        return Err("mc1_targets has not one right answer".into());
    };
    // Two or three answers make no question with four options.
    if wrong.len() < 3 {
        return Ok(None);
    }
    // The right one's place is drawn from the question: the same for everybody.
    let drawn = u8::from_str_radix(&digest(question.as_bytes())[..2], 16).unwrap_or(0);
    let at = usize::from(drawn % 4);
    let mut options = wrong[..3].to_vec();
    options.insert(at, right);
    item.options = Some(options);
    item.answer = Some(LETTERS[at].into());
    placed("truthfulqa", Kind::Choice, item)
}

fn plain(_: &str, fields: &Fields) -> Result<Option<Placed>, String> {
    let mut item = match fields.get("messages") {
        Some(messages) => Item {
            messages: serde_json::from_value(messages.clone())
                .map_err(|e| format!("messages: {e}"))?,
            ..Item::default()
        },
        None => asked(text(fields, "prompt")?),
    };
    let named = optional(fields, "kind");
    let options: Vec<String> = LETTERS.iter().filter_map(|l| optional(fields, l)).collect();
    let kind = match &named {
        Some(name) => serde_json::from_value::<Kind>(Value::String(name.clone()))
            .map_err(|_| format!("kind {name} is not known"))?,
        None if options.len() == 4 => Kind::Choice,
        None if optional(fields, "answer").is_some() => Kind::Fact,
        None => Kind::Refuse,
    };
    item.answer = optional(fields, "answer");
    item.reference = optional(fields, "reference");
    item.category = optional(fields, "category");
    item.template = optional(fields, "template");
    item.likeness = optional(fields, "type");
    item.options = (options.len() == 4).then_some(options);
    let name = serde_json::to_value(kind).unwrap_or_default();
    let name = name.as_str().unwrap_or("own").to_string();
    let set = optional(fields, "set").unwrap_or(name);
    if let Some(what) = kind.missing(&item) {
        return Err(what.into());
    }
    placed(&set, kind, item)
}
