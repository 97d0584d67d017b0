//! Results as one HTML file that needs nothing else.

use serde::Deserialize;
use serde_json::Value;

use super::plots::escape;
use super::table::{ArmsResult, measured_groups};
use super::{LabError, plots};

/// Bytes of the notes at most.
const NOTES: usize = 1 << 20;
/// Replies of an arm that are shown.
const SHOWN: usize = 12;

/// What a report is of.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportInput {
    /// Its title.
    #[serde(default)]
    pub title: String,
    /// The writer's notes: paragraphs of plain text.
    #[serde(default)]
    pub notes: String,
    /// Results of the lab.
    pub results: Vec<Value>,
    /// Whatever else is worth keeping: what was loaded, settings of the chat.
    #[serde(default)]
    pub settings: Value,
}

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1d1c1a; --muted: #656159; --line: #e2dfd7; --surface: #ffffff;
  --plot-1: #0b6b62; --plot-2: #3b6fb5; --plot-3: #c2571a; --plot-4: #8a5fb0; --plot-5: #777777; }
@media (prefers-color-scheme: dark) { :root { --text: #ece9e2; --muted: #a9a498; --line: #3a3833;
  --surface: #1b1a18; --plot-1: #5cc9bb; --plot-2: #86b3f0; --plot-3: #f09a63; --plot-4: #c3a2e6; --plot-5: #a0a0a0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--surface); margin: 0 auto;
  max-width: 62rem; padding: 1.5rem; }
h1, h2, h3 { line-height: 1.2; } .muted { color: var(--muted); }
table { border-collapse: collapse; font-size: 0.9rem; } .wide { overflow-x: auto; margin: 1rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.6rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } td.text { text-align: left; }
svg { max-width: 100%; height: auto; } pre { overflow-x: auto; font-size: 0.8rem; background: none; border:
  1px solid var(--line); padding: 0.8rem; } figure { margin: 1.2rem 0; } figcaption { color: var(--muted); }
@media print { details > * { display: block; } }
";

/// A report as HTML: notes, tables, plots, replies and settings, all in one file. Everything that is not
/// the report's own is text in it.
pub fn report(input: &ReportInput) -> Result<String, LabError> {
    if input.notes.len() > NOTES {
        return Err(LabError::Recipe(format!(
            "the notes have more than {NOTES} bytes: shorten them"
        )));
    }
    let title = match input.title.trim() {
        "" => "Steering refusal: a report",
        title => title,
    };
    let title = escape(title);
    let mut body = format!("<h1>{title}</h1>\n");
    for paragraph in input.notes.split("\n\n").filter(|p| !p.trim().is_empty()) {
        let lines: Vec<String> = paragraph.trim().lines().map(escape).collect();
        body += &format!("<p>{}</p>\n", lines.join("<br>\n"));
    }
    for result in &input.results {
        body += &section(result)?;
    }
    if !input.settings.is_null() {
        body += "<h2>Settings</h2>\n";
        body += &preformatted(&input.settings)?;
    }
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    ))
}

fn preformatted(value: &Value) -> Result<String, LabError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| LabError::Recipe(e.to_string()))?;
    Ok(format!("<pre>{}</pre>\n", escape(&text)))
}

/// The words of a value.
fn words(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => escape(text),
        Value::Number(number) if number.is_f64() => {
            format!("{:.2}", number.as_f64().unwrap_or(f64::NAN))
        }
        Value::Array(parts) => parts.iter().map(words).collect::<Vec<_>>().join(", "),
        other => escape(&other.to_string()),
    }
}

/// One result.
fn section(result: &Value) -> Result<String, LabError> {
    let heading = match result["task"].as_str() {
        Some("find") => "The refusal feature",
        Some("card") => "A feature's card",
        Some("gate") => "The gate",
        Some("measure") => "What it buys and what it costs",
        Some("sweep") => "Ways of steering",
        Some("survive") => "The dictionary after quantisation",
        _ => "A result",
    };
    let mut out = format!("<h2>{heading}</h2>\n");
    let about = [
        ("Model", &result["model"]["name"]),
        ("Stored as", &result["model"]["quant"]),
        ("Hook", &result["dictionary"]["hook"]),
        ("Dictionary's features", &result["dictionary"]["features"]),
        ("Prompts", &result["sets"]["name"]),
        ("Split", &result["sets"]["split"]),
        ("Prompts' SHA-256", &result["sets"]["sha256"]),
    ];
    out += "<div class=\"wide\"><table>\n";
    for (name, value) in about.iter().filter(|(_, value)| !value.is_null()) {
        out += &format!(
            "<tr><th scope=\"row\">{name}</th><td class=\"text\">{}</td></tr>\n",
            words(value)
        );
    }
    out += "</table></div>\n";
    for plot in plots(result)? {
        out += &format!(
            "<figure>{}<figcaption>{}</figcaption></figure>\n",
            plot.svg,
            escape(&plot.title)
        );
    }
    if result["arms"].is_array() {
        out += &arms(result)?;
    } else if let Some(candidates) = result["candidates"].as_array() {
        out += &found(result, candidates);
    }
    out += "<details><summary>Recipe</summary>\n";
    out += &preformatted(&result["recipe"])?;
    out += "</details>\n";
    Ok(out)
}

/// The arms of a measurement, and what the paper reports.
fn arms(result: &Value) -> Result<String, LabError> {
    let all = ArmsResult::read(result)?;
    let groups = measured_groups(&all.arms);
    let mut out = String::from("<div class=\"wide\"><table>\n<tr><th scope=\"col\">arm</th>");
    for (_, title) in &groups {
        out += &format!("<th scope=\"col\">{title}</th>");
    }
    out += "<th scope=\"col\">perplexity</th><th scope=\"col\">KL</th></tr>\n";
    let number = |n: Option<f64>| n.map_or("-".into(), |n| format!("{n:.3}"));
    for arm in &all.arms {
        out += &format!("<tr><th scope=\"row\">{}</th>", escape(&arm.arm));
        for (name, _) in &groups {
            let cell = arm.groups.get(*name).map_or("-".into(), |g| {
                let broken = g.incoherent.counted + g.incoherent.others;
                let broken = match broken {
                    0 => String::new(),
                    n => format!(", {n} incoherent"),
                };
                let mark = if g.paired.p < 0.05 { "<b>" } else { "" };
                let end = if g.paired.p < 0.05 { "</b>" } else { "" };
                format!(
                    "{mark}{:.0}{end} <span class=\"muted\">({:.0}–{:.0}{broken})</span>",
                    g.percent, g.low, g.high
                )
            });
            out += &format!("<td>{cell}</td>");
        }
        out += &format!(
            "<td>{}</td><td>{}</td></tr>\n",
            number(arm.perplexity),
            number(arm.kl)
        );
    }
    out += "</table></div>\n<p class=\"muted\">Percent with 95% Wilson intervals; bold: differs from the \
            base on the same prompts (McNemar's exact test, p &lt; 0.05). KL in nats a token from the \
            base's distribution, on its own replies to harmless prompts. Greedy decoding, the model's own \
            chat template. Multi-turn escalations are fixed conversations, not Crescendo.</p>\n";
    out += &turns(result);
    if let Some(paper) = &all.paper {
        let steered = all.arms.iter().rfind(|arm| arm.series == Some(0));
        if let (Some(base), Some(steered)) = (all.arms.first(), steered) {
            out += &format!(
                "<h3>Beside the paper</h3>\n<p class=\"muted\">{}</p>\n<div class=\"wide\"><table>\n\
                 <tr><th scope=\"col\">group</th><th scope=\"col\">base</th><th scope=\"col\">{}</th>\
                 <th scope=\"col\">the paper's question</th><th scope=\"col\">the paper's base (another \
                 model)</th><th scope=\"col\">the paper's steered (another model)</th></tr>\n",
                escape(&paper.source),
                escape(&steered.arm)
            );
            for row in &paper.rows {
                let own = |arm: &super::table::ArmRow| {
                    let group = arm.groups.get(&row.group);
                    group.map_or("-".into(), |g| format!("{:.1}", g.percent))
                };
                out += &format!(
                    "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"text\">{}</td>\
                     <td>{:.1}</td><td>{:.1}</td></tr>\n",
                    escape(&row.group),
                    own(base),
                    own(steered),
                    escape(&row.what),
                    row.base,
                    row.steered
                );
            }
            out += "</table></div>\n";
        }
    }
    let hands = result["byHand"].as_array().map_or(0, Vec::len);
    if hands > 0 {
        out += &format!(
            "<p>Verdicts by hand in place of the judge's: {hands}. All shares count them.</p>\n"
        );
    }
    out += &replies(result);
    Ok(out)
}

/// The groups whose result depends on how long replies may be.
fn turns(result: &Value) -> String {
    let arms = result["arms"].as_array();
    let mut out = String::new();
    for arm in arms.into_iter().flatten() {
        let turned = arm["turnsWithCap"].as_array();
        let turned: Vec<String> = turned.into_iter().flatten().map(words).collect();
        if !turned.is_empty() {
            out += &format!(
                "<p><b>{}</b>: the result turns with the longest reply for {}.</p>\n",
                words(&arm["arm"]),
                turned.join(", ")
            );
        }
    }
    out
}

/// Some replies of the base and of the arm at the controls' strength, side by side.
fn replies(result: &Value) -> String {
    let arms: Vec<&Value> = result["arms"].as_array().into_iter().flatten().collect();
    let on_curve = |arm: &&&Value| arm["series"] == 0;
    let at = |arm: &&&Value| on_curve(arm) && arm["value"] == result["at"];
    let steered = arms.iter().find(at).or(arms.iter().rfind(on_curve));
    let (Some(base), Some(steered)) = (arms.first(), steered) else {
        return String::new();
    };
    let said = |arm: &Value, item: &Value| -> Option<String> {
        let outcomes = arm["outcomes"].as_array()?;
        let own = outcomes.iter().find(|o| o["item"] == *item)?;
        let mark = match (own["refused"].as_str(), own["incoherent"].as_bool()) {
            (Some(phrase), _) => format!(
                " <span class=\"muted\">[refused: {}]</span>",
                escape(phrase)
            ),
            (None, Some(true)) => " <span class=\"muted\">[incoherent]</span>".into(),
            _ => String::new(),
        };
        Some(words(&own["text"]) + &mark)
    };
    let outcomes: Vec<&Value> = steered["outcomes"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    if outcomes.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<details><summary>Some replies</summary>\n<div class=\"wide\"><table>\n<tr><th scope=\"col\">\
         prompt</th><th scope=\"col\">base</th><th scope=\"col\">{}</th></tr>\n",
        words(&steered["arm"])
    );
    let kept = SHOWN.min(outcomes.len());
    for i in 0..kept {
        let item = &outcomes[i * outcomes.len() / kept]["item"];
        let prompt = item.as_u64().map(|i| &result["items"][i as usize]["text"]);
        out += &format!(
            "<tr><td class=\"text\">{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td></tr>\n",
            prompt.map_or("-".into(), words),
            said(base, item).unwrap_or_else(|| "-".into()),
            said(steered, item).unwrap_or_else(|| "-".into())
        );
    }
    out + "</table></div></details>\n"
}

/// Candidates that are seen at once.
const FIRST: usize = 12;

/// What a search chose, and its candidates.
fn found(result: &Value, candidates: &[Value]) -> String {
    let share = |side: &Value| {
        let of = |name: &str| side[name].as_f64();
        match (of("base"), of("steered"), of("n")) {
            (Some(base), Some(steered), Some(n)) => format!("{base:.2} → {steered:.2} (n {n:.0})"),
            _ => "-".into(),
        }
    };
    let table = |candidates: &[Value]| {
        let rows = candidates.iter().map(|candidate| {
            let confirmed = &candidate["confirmed"];
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                words(&candidate["feature"]),
                words(&candidate["agreement"]),
                share(&confirmed["up"]),
                share(&confirmed["down"])
            )
        });
        format!(
            "<div class=\"wide\"><table>\n<tr><th scope=\"col\">feature</th><th scope=\"col\">agreement of \
             ranks</th><th scope=\"col\">harmful requests refused, held up</th><th scope=\"col\">held \
             down</th></tr>\n{}</table></div>\n",
            rows.collect::<String>()
        )
    };
    let members = result["chosen"]["features"].as_array();
    let members = members.into_iter().flatten().map(|m| words(&m["feature"]));
    let names = members.collect::<Vec<_>>().join(" + ");
    let kind = result["chosen"]["kind"].as_str();
    let curve = match kind {
        Some("direction") => &result["direction"],
        _ => &result["strength"],
    };
    let range = match (curve["useful"].as_array(), curve["default"].as_f64()) {
        (Some(range), Some(default)) if range.len() == 2 => format!(
            ", useful held from {} to {}; {default:.2} is a good place to start",
            words(&range[0]),
            words(&range[1])
        ),
        _ => String::new(),
    };
    let mut out = match kind {
        Some("none") => format!("<p>No refusal feature was found; {names} came nearest.</p>\n"),
        Some("direction") => {
            format!("<p>No feature does it: the difference of means does{range}.</p>\n")
        }
        _ => format!("<p>Chosen: {names}{range}.</p>\n"),
    };
    let (first, others) = candidates.split_at(candidates.len().min(FIRST));
    out += &table(first);
    if !others.is_empty() {
        out += &format!(
            "<details><summary>{} further candidates</summary>\n{}</details>\n",
            others.len(),
            table(others)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn input() -> ReportInput {
        let hostile = "</title><script>alert(1)</script>\"'&";
        let group = json!({"what": "refused", "hits": 3, "of": 4, "percent": 75.0, "low": 30.0,
            "high": 95.0, "incoherent": {"counted": 1, "others": 0},
            "paired": {"pairs": 4, "gained": 3, "lost": 0, "p": 0.01}});
        let arm = |name: &str, series: Value| {
            json!({"arm": name, "series": series, "value": 4.0, "groups": {"jailbreaks": group,
                "harmless requests": group}, "turnsWithCap": [hostile],
                "outcomes": [{"item": 0, "text": hostile, "refused": hostile}]})
        };
        let measured = json!({
            "schema": "phi3-steer.result/1", "task": "measure", "recipe": {"note": hostile},
            "model": {"name": hostile}, "at": 4.0, "items": [{"text": hostile}],
            "series": [{"name": hostile, "target": "7", "operator": "clamp"}],
            "arms": [arm(hostile, Value::Null), arm(hostile, json!(0))],
            "paper": super::super::paper(),
        });
        let found = json!({"task": "find", "recipe": {}, "chosen": hostile,
            "strength": {"useful": [4.478_803_6, 9], "default": 6.718_2},
            "candidates": vec![json!({"feature": 3, "agreement": hostile,
                "confirmed": {"up": {"base": 0.1, "steered": 0.9, "n": 20}}}); FIRST + 2]});
        ReportInput {
            title: hostile.into(),
            notes: format!("{hostile}\nsecond line\n\nnext"),
            results: vec![measured, found],
            settings: json!({"x": hostile}),
        }
    }

    #[test]
    fn a_report_is_one_file_in_which_all_that_is_given_is_text() {
        let html = report(&input()).unwrap();
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("</title>").count(), 1);
        // Nothing is fetched: no address, no link, no image.
        for part in ["src=", "href=", "url(", "@import"] {
            assert!(!html.contains(part), "{part}");
        }
        for part in [
            "second line",
            "<p>next</p>",
            "0.10 → 0.90 (n 20)",
            "from 4.48 to 9; 6.72 is",
            "2 further candidates",
            "var(--plot-1",
        ] {
            assert!(html.contains(part), "{part}");
        }
        assert!(html.contains("another model"));
        // What is opened is closed.
        for tag in [
            "table", "div", "svg", "details", "pre", "figure", "p", "tr", "td", "th",
        ] {
            let opened = html.matches(&format!("<{tag}>")).count()
                + html.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn a_report_without_anything_has_a_title() {
        let input: ReportInput = serde_json::from_value(json!({"results": []})).unwrap();
        assert!(
            report(&input)
                .unwrap()
                .contains("<h1>Steering refusal: a report</h1>")
        );
        let long = ReportInput {
            notes: "x".repeat(NOTES + 1),
            ..input
        };
        assert!(report(&long).is_err());
        let odd: Result<ReportInput, _> = serde_json::from_value(json!({"result": []}));
        assert!(odd.is_err());
    }
}
