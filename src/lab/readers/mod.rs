//! Prompts from others: published benchmarks in their own layouts, and plain CSV, JSON or JSON lines.
//!
//! The layout is told from the names of the fields:
//!
//! | layout | fields | becomes |
//! |---|---|---|
//! | XSTest | `prompt,type,label` (`type` of unsafe ones begins with `contrast_`) | benign by type, refuse |
//! | JailbreakBench | `Goal,Target,Behavior,Category` | refuse by category; benign if the file's name says so |
//! | WildGuardTest | `prompt,adversarial,prompt_harm_label,subcategory` | refuse, jailbreak, benign, wrapped |
//! | HarmBench | `Behavior,SemanticCategory,ContextString` | refuse by category |
//! | AdvBench | `goal,target` | refuse |
//! | StrongREJECT | `category,source,forbidden_prompt` | refuse by category |
//! | MMLU | `question,A,B,C,D,answer` without names, or `question,choices,answer` | choice |
//! | GSM8K | `question,answer` with `#### number` | arithmetic |
//! | TruthfulQA MC | `question,mc1_targets` | choice: the right answer and three wrong ones |
//! | plain | `prompt`, and any of `kind,category,template,type,answer,A,B,C,D` | its kind, refuse if none |

mod layouts;

use serde_json::{Map, Value};

use super::csv;
use super::sets::Item;
use super::{EvalFile, Kind, LabError, Set};

/// Bytes of a file at most.
const MOST_BYTES: usize = 64 << 20;
/// Bad lines that are named.
const NAMED: usize = 8;
/// Tokens of a reply where the file does not say.
const TOKENS: usize = 48;

/// A line with its fields by name.
pub(super) struct Row {
    pub line: u64,
    pub fields: Map<String, Value>,
}

/// A prompt and the set that it belongs to.
pub(super) struct Placed {
    pub set: String,
    pub kind: Kind,
    pub item: Item,
}

/// The prompts of `text`, a file called `name`: an `eval.json`, or any of the layouts above.
pub fn read(name: &str, text: &[u8]) -> Result<EvalFile, LabError> {
    let fail = |reason: String| LabError::Sets(reason);
    if text.len() > MOST_BYTES {
        let most = MOST_BYTES >> 20;
        return Err(fail(format!("the file has more than {most} MiB")));
    }
    let words = std::str::from_utf8(text).map_err(|e| {
        fail(format!(
            "the file is not text: byte {} is no UTF-8",
            e.valid_up_to()
        ))
    })?;
    let words = words.trim_start_matches('\u{feff}');
    let whole: Option<Value> = serde_json::from_str(words).ok();
    if whole.as_ref().is_some_and(|v| v.get("splits").is_some()) || looks_like_ours(words) {
        return EvalFile::from_json(words.as_bytes());
    }
    let (rows, mut bad) = match whole {
        Some(Value::Array(all)) => of_objects(all.into_iter().zip(1..)),
        Some(Value::Object(one)) if one.get("data").is_some_and(Value::is_array) => {
            let all = one
                .into_iter()
                .find(|(name, _)| name == "data")
                .map(|d| d.1);
            let all = all.and_then(|d| d.as_array().cloned()).unwrap_or_default();
            of_objects(all.into_iter().zip(1..))
        }
        Some(Value::Object(one)) => of_objects([(Value::Object(one), 1)].into_iter()),
        _ if words.trim_start().starts_with('{') => of_lines(words),
        _ => of_csv(words).map_err(|e| fail(format!("CSV: {e}")))?,
    };
    let mut placed = Vec::new();
    if let Some(first) = rows.first() {
        let layout = layouts::of(&first.fields).ok_or_else(|| {
            let names: Vec<&str> = first.fields.keys().map(String::as_str).collect();
            fail(format!(
                "the fields {} are of no layout that is known: a column \"prompt\" would do",
                names.join(", ")
            ))
        })?;
        for row in &rows {
            match layout(name, &row.fields) {
                Ok(one) => placed.extend(one),
                Err(reason) => bad.push((row.line, reason)),
            }
        }
    }
    if !bad.is_empty() {
        bad.sort();
        let more = bad.len().saturating_sub(NAMED);
        let told = bad
            .iter()
            .take(NAMED)
            .map(|(line, why)| format!("line {line}: {why}"));
        let mut told = told.collect::<Vec<_>>().join("; ");
        if more > 0 {
            told += &format!("; and {more} more");
        }
        return Err(fail(told));
    }
    let mut sets: Vec<Set> = Vec::new();
    for Placed { set, kind, item } in placed {
        match sets.iter_mut().find(|s| s.name == set) {
            Some(found) => found.items.push(item),
            None => sets.push(Set {
                name: set,
                kind,
                items: vec![item],
            }),
        }
    }
    if sets.is_empty() {
        return Err(fail("there are no prompts in the file".into()));
    }
    EvalFile::of_sets("test", sets, TOKENS)
}

/// Whether it was meant for an `eval.json`, whose reader says what is wrong.
fn looks_like_ours(text: &str) -> bool {
    text.trim_start().starts_with('{') && text.contains("\"splits\"")
}

type Rows = (Vec<Row>, Vec<(u64, String)>);

fn of_objects(all: impl Iterator<Item = (Value, u64)>) -> Rows {
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for (value, line) in all {
        match value {
            Value::Object(fields) => rows.push(Row { line, fields }),
            _ => bad.push((line, "this is no object".into())),
        }
    }
    (rows, bad)
}

fn of_lines(text: &str) -> Rows {
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for (words, line) in text.lines().zip(1..).filter(|(w, _)| !w.trim().is_empty()) {
        match serde_json::from_str::<Map<String, Value>>(words) {
            Ok(fields) => rows.push(Row { line, fields }),
            Err(e) => bad.push((line, format!("this is no JSON object: {e}"))),
        }
    }
    (rows, bad)
}

fn of_csv(text: &str) -> Result<Rows, String> {
    let mut records = csv::read(text)?.into_iter().peekable();
    let Some(first) = records.peek() else {
        return Ok((Vec::new(), Vec::new()));
    };
    // MMLU has no line of names: six fields, of which the last is a letter.
    let letter = |f: &String| matches!(&f[..], "A" | "B" | "C" | "D");
    let names: Vec<String> = match &first.fields[..] {
        six if six.len() == 6 && letter(&six[5]) => ["question", "A", "B", "C", "D", "answer"]
            .map(String::from)
            .into(),
        names => {
            let names = names.iter().map(|n| n.trim().to_string()).collect();
            records.next();
            names
        }
    };
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for record in records {
        if record.fields.len() != names.len() {
            let (got, wanted) = (record.fields.len(), names.len());
            bad.push((record.line, format!("{got} fields in place of {wanted}")));
            continue;
        }
        let fields = names.iter().cloned();
        let fields = fields.zip(record.fields.into_iter().map(Value::String));
        rows.push(Row {
            line: record.line,
            fields: fields.collect(),
        });
    }
    Ok((rows, bad))
}

#[cfg(test)]
mod tests;
