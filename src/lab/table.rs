//! Measured arms as a table.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Arm, Figures, Share};

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

/// A share in percent with its interval, "-" where it is missing.
fn cell(share: Option<Share>) -> String {
    let Some(share) = share else {
        return "-".into();
    };
    let [low, high] = share.interval();
    format!("{:.1} ({low:.0}–{high:.0})", share.percent())
}

fn bare(share: Option<Share>) -> String {
    share.map_or("-".into(), |s| format!("{:.0}", s.percent()))
}

/// The rows as a Markdown table: percent, with 95% intervals in parentheses. "Answered" is what was not
/// refused.
pub fn markdown(rows: &[Row]) -> String {
    let mut families: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|r| r.figures.refused.keys()) {
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
    for Row { arm, figures } in rows {
        let of = |set: &str| figures.of(set);
        let each: Vec<String> = families.iter().map(|f| bare(of(f))).collect();
        let cells = [
            arm.name.clone(),
            cell(of("direct")),
            cell(figures.jailbreaks),
            each.join("/"),
            bare(of("jbx_author")),
            cell(of("safe").map(Share::others)),
            cell(of("wrapped").map(Share::others)),
            cell(of("benign")),
            cell(figures.facts),
            cell(figures.coherent),
            figures.perplexity.map_or("-".into(), |p| format!("{p:.3}")),
        ];
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Scope;

    #[test]
    fn the_table_shows_what_was_measured() {
        let share = |hits, of| Share { hits, of };
        let arm = |name: &str, value| Arm {
            name: name.into(),
            value,
            interventions: Vec::new(),
            scope: Scope::All,
            on_curve: false,
        };
        let rows = [
            Row {
                arm: arm("base", None),
                figures: Figures {
                    refused: [
                        ("direct".to_string(), share(10, 10)),
                        ("jb_role".to_string(), share(1, 4)),
                        ("jb_code".to_string(), share(3, 4)),
                        ("safe".to_string(), share(1, 10)),
                    ]
                    .into(),
                    jailbreaks: Some(share(4, 8)),
                    perplexity: Some(1.23456),
                    ..Figures::default()
                },
            },
            Row {
                arm: arm("clamp 4", Some(4.0)),
                figures: Figures::default(),
            },
        ];
        let table = markdown(&rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        let columns = |line: &str| line.matches('|').count();
        assert!(lines.iter().all(|l| columns(l) == 12), "{table}");
        assert!(lines[0].contains("| code/role |"));
        assert_eq!(
            lines[2],
            "| base | 100.0 (72–100) | 50.0 (22–78) | 75/25 | - | 90.0 (60–98) | - | - | - | - | 1.235 |"
        );
        assert!(lines[3].starts_with("| clamp 4 | - | - | -/- |"));
        assert_eq!(rows[1].json()["value"], 4.0);
        assert_eq!(rows[0].json()["arm"], "base");
        assert!(rows[0].json().get("value").is_none());
    }
}
