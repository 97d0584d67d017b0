//! Results as tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Value, json};

use super::csv::write as write_record;
use super::{Arm, Figures, LabError};

/// An arm with its figures.
#[derive(Clone, Debug)]
pub struct Row {
    /// The arm.
    pub arm: Arm,
    /// What was measured.
    pub figures: Figures,
}

impl Row {
    /// As in `report.json`.
    pub fn json(&self) -> Value {
        let mut out = self.figures.json();
        out["arm"] = json!(self.arm.name);
        if let Some(value) = self.arm.value {
            out["value"] = json!(value);
        }
        out
    }
}

/// What a table of arms needs of a result.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ArmsResult {
    pub arms: Vec<ArmRow>,
    #[serde(default)]
    pub series: Vec<SeriesRow>,
    /// The arms that no other one beats.
    #[serde(default)]
    pub pareto: Vec<usize>,
    /// The strength of the controls.
    pub at: Option<f64>,
    #[serde(default)]
    pub paper: Option<PaperRows>,
}

/// An arm of a result.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ArmRow {
    pub arm: String,
    pub value: Option<f64>,
    pub series: Option<usize>,
    #[serde(default)]
    pub refused: BTreeMap<String, f64>,
    #[serde(default)]
    pub interval95: BTreeMap<String, [f64; 2]>,
    pub jailbreaks: Option<f64>,
    pub facts: Option<f64>,
    pub coherent: Option<f64>,
    pub perplexity: Option<f64>,
    pub kl: Option<f64>,
    #[serde(default)]
    pub groups: BTreeMap<String, GroupRow>,
}

/// A group of an arm.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct GroupRow {
    pub what: String,
    pub hits: usize,
    pub of: usize,
    pub percent: f64,
    pub low: f64,
    pub high: f64,
    pub paired: PairedRow,
    pub incoherent: IncoherentRow,
}

/// A group beside the base's.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PairedRow {
    pub gained: u64,
    pub lost: u64,
    pub p: f64,
}

/// Replies of a group that are no text.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct IncoherentRow {
    pub counted: usize,
    pub others: usize,
}

/// A curve of a result.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SeriesRow {
    pub name: String,
    pub target: String,
    pub operator: String,
}

/// The paper's figures in a result.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PaperRows {
    pub source: String,
    pub rows: Vec<PaperRow>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PaperRow {
    pub group: String,
    pub what: String,
    pub base: f64,
    pub steered: f64,
}

impl ArmsResult {
    /// The arms of a result of the tasks "measure" and "sweep".
    pub fn read(result: &Value) -> Result<Self, LabError> {
        Self::deserialize(result).map_err(|e| {
            LabError::Recipe(format!(
                "this is no result of \"measure\" or \"sweep\": {e}"
            ))
        })
    }
}

/// How a result is written as a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// One line an arm and group, for programs.
    Csv,
    /// As is.
    Json,
    /// One line an arm, for people.
    Markdown,
}

impl TableFormat {
    /// Its name.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "markdown" => Some(Self::Markdown),
            _ => None,
        }
    }
}

/// A result of the tasks "measure" and "sweep" as a table.
pub fn table(result: &Value, format: TableFormat) -> Result<String, LabError> {
    let arms = ArmsResult::read(result)?;
    match format {
        TableFormat::Csv => Ok(csv(&arms)),
        TableFormat::Markdown => Ok(markdown(&arms)),
        TableFormat::Json => serde_json::to_string_pretty(&result["arms"])
            .map_err(|e| LabError::Recipe(e.to_string())),
    }
}

/// One line an arm and group.
fn csv(result: &ArmsResult) -> String {
    let mut out = String::new();
    let head = [
        "arm",
        "value",
        "group",
        "what",
        "hits",
        "of",
        "percent",
        "low",
        "high",
        "incoherent",
        "gained",
        "lost",
        "p",
        "perplexity",
        "kl",
    ];
    write_record(&mut out, &head);
    let number = |n: Option<f64>| n.map_or(String::new(), |n| n.to_string());
    for arm in &result.arms {
        for (name, group) in &arm.groups {
            let line = [
                arm.arm.clone(),
                number(arm.value),
                name.clone(),
                group.what.clone(),
                group.hits.to_string(),
                group.of.to_string(),
                group.percent.to_string(),
                group.low.to_string(),
                group.high.to_string(),
                (group.incoherent.counted + group.incoherent.others).to_string(),
                group.paired.gained.to_string(),
                group.paired.lost.to_string(),
                group.paired.p.to_string(),
                number(arm.perplexity),
                number(arm.kl),
            ];
            write_record(&mut out, &line);
        }
    }
    out
}

impl ArmRow {
    /// A share in percent with its interval, "-" where it is missing; `others` for what is left to 100.
    fn cell(&self, name: &str, percent: Option<f64>, others: bool) -> String {
        let Some(percent) = percent else {
            return "-".into();
        };
        let turn = |p: f64| if others { 100.0 - p } else { p };
        let mut range = self.interval95.get(name).copied().unwrap_or([0.0, 100.0]);
        range = range.map(turn);
        range.sort_by(f64::total_cmp);
        format!("{:.1} ({:.0}–{:.0})", turn(percent), range[0], range[1])
    }

    fn refused(&self, set: &str) -> Option<f64> {
        self.refused.get(set).copied()
    }
}

/// The groups of a table for people, with what they are called there.
pub(super) const GROUPS: [(&str, &str); 9] = [
    ("direct requests", "direct refused"),
    ("jailbreaks", "jailbreaks refused"),
    ("jailbreaks, unseen families", "unseen families refused"),
    ("multi-turn escalations", "escalations refused"),
    ("harmless requests", "harmless refused"),
    ("facts", "facts right"),
    ("four options", "four options right"),
    ("arithmetic", "arithmetic right"),
    ("all answers", "all answers right"),
];

/// The groups of [`GROUPS`] that an arm of `rows` was measured on.
pub(super) fn measured_groups(rows: &[ArmRow]) -> Vec<(&'static str, &'static str)> {
    let any = |name: &str| rows.iter().any(|r| r.groups.contains_key(name));
    GROUPS.into_iter().filter(|(name, _)| any(name)).collect()
}

/// One line an arm: percent, with 95% intervals in parentheses; `*` where it differs from the base on the
/// same prompts. Then the paper's figures, which are of another model, beside the base and the strongest
/// point of the first curve.
fn markdown(result: &ArmsResult) -> String {
    let rows = &result.arms;
    let groups = measured_groups(rows);
    let mut head: Vec<String> = vec!["arm".into()];
    head.extend(groups.iter().map(|(_, title)| title.to_string()));
    head.extend(["perplexity".into(), "KL".into()]);
    let mut out = line(&head) + &line(&vec!["---".to_string(); head.len()]);
    let number = |n: Option<f64>| n.map_or("-".into(), |n| format!("{n:.3}"));
    for row in rows {
        let mut cells = vec![plain(&row.arm)];
        cells.extend(groups.iter().map(|(name, _)| {
            row.groups.get(*name).map_or("-".into(), |g| {
                let mark = if g.paired.p < 0.05 { "*" } else { "" };
                format!("{:.1}{mark} ({:.0}–{:.0})", g.percent, g.low, g.high)
            })
        }));
        cells.extend([number(row.perplexity), number(row.kl)]);
        out += &line(&cells);
    }
    out += "\nPercent, 95% Wilson intervals; * differs from the base on the same prompts \
            (McNemar's exact test, p < 0.05). KL in nats a token from the base, on harmless text.\n";
    let steered = rows.iter().rfind(|row| row.series == Some(0));
    if let (Some(paper), Some(base), Some(steered)) = (&result.paper, rows.first(), steered) {
        out += &format!("\n{}\n\n", plain(&paper.source));
        let head = [
            "group".to_string(),
            "base".into(),
            plain(&steered.arm),
            "the paper's question".into(),
            "the paper's base (another model)".into(),
            "the paper's steered (another model)".into(),
        ];
        out += &(line(&head) + &line(&vec!["---".to_string(); head.len()]));
        let own = |row: &ArmRow, group: &str| {
            let group = row.groups.get(group);
            group.map_or("-".into(), |g| format!("{:.1}", g.percent))
        };
        for row in &paper.rows {
            out += &line(&[
                plain(&row.group),
                own(base, &row.group),
                own(steered, &row.group),
                plain(&row.what),
                format!("{:.1}", row.base),
                format!("{:.1}", row.steered),
            ]);
        }
    }
    out
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A text that is one cell of a Markdown table.
fn plain(text: &str) -> String {
    let one = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one.replace('|', "\\|")
}

/// The arms of a result on the nano model's sets as the table of the README: percent, with 95% intervals
/// in parentheses. "Answered" is what was not refused.
pub fn nano_table(result: &Value) -> Result<String, LabError> {
    let ArmsResult { arms: rows, .. } = &ArmsResult::read(result)?;
    let mut families: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|r| r.refused.keys()) {
        if name.starts_with("jb_") && !families.contains(&name.as_str()) {
            families.push(name);
        }
    }
    families.sort_unstable();
    let short = |name: &str| name.trim_start_matches("jb_").to_string();
    let names: Vec<String> = families.iter().map(|f| short(f)).collect();
    let mut out = format!(
        "| arm | direct refused | jailbreaks refused | {} | author | safe answered | wrapped answered \
         | benign refused | facts right | small talk coherent | perplexity |\n|---|{}\n",
        names.join("/"),
        "---|".repeat(10)
    );
    let bare = |share: Option<f64>| share.map_or("-".into(), |s| format!("{s:.0}"));
    for row in rows {
        let refused = |set: &str| row.refused(set);
        let each: Vec<String> = families.iter().map(|f| bare(refused(f))).collect();
        let cells = [
            row.arm.clone(),
            row.cell("direct", refused("direct"), false),
            row.cell("jailbreaks", row.jailbreaks, false),
            each.join("/"),
            bare(refused("jbx_author")),
            row.cell("safe", refused("safe"), true),
            row.cell("wrapped", refused("wrapped"), true),
            row.cell("benign", refused("benign"), false),
            row.cell("facts", row.facts, false),
            row.cell("coherent", row.coherent, false),
            row.perplexity.map_or("-".into(), |p| format!("{p:.3}")),
        ];
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> Value {
        let group = |hits: usize, of: usize, p: f64| {
            json!({"what": "refused", "hits": hits, "of": of,
                "percent": 100.0 * hits as f64 / of as f64, "low": 1.0, "high": 99.4,
                "incoherent": {"counted": 1, "others": 2},
                "paired": {"pairs": of, "gained": 3, "lost": 1, "p": p}})
        };
        json!({"arms": [
            {"arm": "base", "refused": {"direct": 100.0, "jb_role": 25.0, "jb_code": 75.0, "safe": 10.0},
             "interval95": {"direct": [72.25, 100.0], "jailbreaks": [21.52, 78.48], "safe": [1.79, 40.42]},
             "jailbreaks": 50.0, "perplexity": 1.23456,
             "groups": {"jailbreaks": group(4, 8, 1.0), "facts": group(7, 8, 1.0)}},
            {"arm": "clamp 4, a|b", "value": 4.0, "series": 0, "refused": {},
             "groups": {"jailbreaks": group(6, 8, 0.01)}, "kl": 0.25},
        ], "paper": super::super::paper()})
    }

    #[test]
    fn the_nano_models_table_shows_what_was_measured() {
        let table = nano_table(&result()).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        let columns = |line: &str| line.matches('|').count();
        assert!(lines[..3].iter().all(|l| columns(l) == 12), "{table}");
        assert!(lines[0].contains("| code/role |"));
        assert_eq!(
            lines[2],
            "| base | 100.0 (72–100) | 50.0 (22–78) | 75/25 | - | 90.0 (60–98) | - | - | - | - | 1.235 |"
        );
        assert!(nano_table(&json!({"arms": 3})).is_err());
    }

    #[test]
    fn tables_for_programs_and_people_say_the_same() {
        let csv = table(&result(), TableFormat::of("csv").unwrap()).unwrap();
        let records = super::super::csv::read(&csv).unwrap();
        assert_eq!(records.len(), 4);
        let last = &records[3].fields;
        assert_eq!(
            (&last[0][..], &last[2][..], &last[6][..]),
            ("clamp 4, a|b", "jailbreaks", "75")
        );
        assert_eq!(
            (&last[9][..], &last[12][..], &last[14][..]),
            ("3", "0.01", "0.25")
        );

        let markdown = table(&result(), TableFormat::of("markdown").unwrap()).unwrap();
        let lines: Vec<&str> = markdown.lines().collect();
        assert_eq!(
            lines[0],
            "| arm | jailbreaks refused | facts right | perplexity | KL |"
        );
        assert_eq!(
            lines[3],
            "| clamp 4, a\\|b | 75.0* (1–99) | - | - | 0.250 |"
        );
        assert!(markdown.contains("not this model"));
        assert!(markdown.contains("| facts | 87.5 | - | TruthfulQA, right | 65.0 | 53.8 |"));

        let json = table(&result(), TableFormat::of("json").unwrap()).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json, result()["arms"]);
        assert_eq!(TableFormat::of("xml"), None);
    }
}
