//! Results as plots: SVG by `plotters`, its colours the page's custom properties, so that the same picture
//! is readable in light and dark.

use std::collections::BTreeMap;

use plotters::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::LabError;
use super::table::{ArmRow, ArmsResult, GroupRow};

/// Pixels of a plot.
const SIZE: (u32, u32) = (720, 420);
/// Pixels of a row of bars, and of what is around them.
const ROW: u32 = 34;
const AROUND: u32 = 110;
/// Bars of a plot at most.
const MOST_BARS: usize = 24;
/// Characters of a label at most.
const LABEL: usize = 40;

/// A colour that stands for a custom property of the page; the last is where there is none.
struct Ink(RGBColor, &'static str, &'static str);

const TEXT: Ink = Ink(RGBColor(1, 2, 3), "--text", "#1d1c1a");
const MUTED: Ink = Ink(RGBColor(4, 5, 6), "--muted", "#656159");
const GRID: Ink = Ink(RGBColor(7, 8, 9), "--line", "#e2dfd7");
const SURFACE: Ink = Ink(RGBColor(10, 11, 12), "--surface", "#ffffff");
const BOUGHT: Ink = Ink(RGBColor(13, 14, 15), "--plot-1", "#0b6b62");
const DIRECT: Ink = Ink(RGBColor(16, 17, 18), "--plot-2", "#3b6fb5");
const COST: Ink = Ink(RGBColor(19, 20, 21), "--plot-3", "#c2571a");
const RIGHT: Ink = Ink(RGBColor(22, 23, 24), "--plot-4", "#8a5fb0");
const OTHER: Ink = Ink(RGBColor(25, 26, 27), "--plot-5", "#777777");
const INKS: [&Ink; 9] = [
    &TEXT, &MUTED, &GRID, &SURFACE, &BOUGHT, &DIRECT, &COST, &RIGHT, &OTHER,
];

/// A plot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plot {
    /// A name for files.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// The picture.
    pub svg: String,
}

/// A picture of `size`, drawn by `draw`.
fn picture(
    name: &str,
    title: &str,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), String>,
) -> Result<Plot, LabError> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = draw(&area).and_then(|()| area.present().map_err(|e| e.to_string()));
        drawn.map_err(|e| LabError::Recipe(format!("the plot {name}: {e}")))?;
    }
    for Ink(RGBColor(r, g, b), property, plain) in INKS {
        let marker = format!("\"#{r:02X}{g:02X}{b:02X}\"");
        svg = svg.replace(&marker, &format!("\"var({property}, {plain})\""));
    }
    let label = format!("<svg role=\"img\" aria-label=\"{}\" ", escape(title));
    Ok(Plot {
        name: name.into(),
        title: title.into(),
        svg: svg.replacen("<svg ", &label, 1),
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Text that means nothing to a parser of XML or HTML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c if c.is_control() && c != '\n' && c != '\t' => {}
            c => out.push(c),
        }
    }
    out
}

fn font(ink: &Ink, size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&ink.0)
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LABEL) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A curve: points with their intervals.
struct Curve {
    name: String,
    ink: &'static Ink,
    /// Value, share, low, high.
    points: Vec<[f64; 4]>,
}

/// Curves over values, in percent.
fn curves(area: &Area<'_>, words: &str, curves: &[Curve]) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let xs = || curves.iter().flat_map(|c| c.points.iter().map(|p| p[0]));
    let (low, high) = xs().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| {
        (a.min(x), b.max(x))
    });
    if low > high {
        return Err("there are no points".into());
    }
    let room = ((high - low) * 0.04).max(0.1);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(56)
        .build_cartesian_2d(low - room..high + room, 0f64..101f64)
        .map_err(|e| text(&e))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.0)
        .axis_style(MUTED.0)
        .label_style(font(&MUTED, 14))
        .axis_desc_style(font(&TEXT, 15))
        .x_desc(words)
        .y_desc("percent")
        .y_labels(6)
        .draw()
        .map_err(|e| text(&e))?;
    for curve in curves {
        let ink = curve.ink.0;
        for &[x, _, low, high] in &curve.points {
            let bar = PathElement::new(vec![(x, low), (x, high)], ink.mix(0.4).stroke_width(2));
            chart.draw_series([bar]).map_err(|e| text(&e))?;
        }
        let line = curve.points.iter().map(|p| (p[0], p[1]));
        chart
            .draw_series(LineSeries::new(line, ink.stroke_width(2)))
            .map_err(|e| text(&e))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], ink.stroke_width(3)));
        let dots = curve.points.iter();
        let dots = dots.map(|p| Circle::new((p[0], p[1]), 3, ink.filled()));
        chart.draw_series(dots).map_err(|e| text(&e))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(SURFACE.0.mix(0.85))
        .border_style(GRID.0)
        .label_font(font(&TEXT, 14))
        .draw()
        .map_err(|e| text(&e))?;
    Ok(())
}

/// The groups of the dose-response, with what they are called.
const DOSE: [(&str, &str, &Ink); 5] = [
    ("jailbreaks", "jailbreaks refused", &BOUGHT),
    ("direct requests", "direct requests refused", &DIRECT),
    ("harmless requests", "harmless requests refused", &COST),
    ("all answers", "answers right", &RIGHT),
    (
        "jailbreaks, unseen families",
        "unseen jailbreaks refused",
        &OTHER,
    ),
];

/// What each curve of a result buys and costs at its values.
fn dose(result: &ArmsResult) -> Result<Vec<Plot>, LabError> {
    let mut plots = Vec::new();
    let Some(base) = result.arms.first() else {
        return Ok(plots);
    };
    for (index, series) in result.series.iter().enumerate() {
        let own = result.arms.iter().filter(|a| a.series == Some(index));
        let own: Vec<&ArmRow> = own.collect();
        if own.len() < 2 {
            continue;
        }
        let all: Vec<Curve> = DOSE
            .iter()
            .map(|&(group, name, ink)| {
                let point = |x: f64, g: &GroupRow| [x, g.percent, g.low, g.high];
                let first = base.groups.get(group).map(|g| point(0.0, g));
                let rest = own.iter().filter_map(|arm| {
                    let group = arm.groups.get(group)?;
                    Some(point(arm.value?, group))
                });
                let zero = own.iter().any(|arm| arm.value == Some(0.0));
                let mut points: Vec<[f64; 4]> =
                    first.filter(|_| !zero).into_iter().chain(rest).collect();
                points.sort_by(|a, b| a[0].total_cmp(&b[0]));
                Curve {
                    name: name.to_string(),
                    ink,
                    points,
                }
            })
            .filter(|curve| !curve.points.is_empty())
            .collect();
        let how = match &series.name[..] {
            "" => format!("{} of {}", series.operator.replace('_', " "), series.target),
            name => name.to_string(),
        };
        let title = format!("What each strength buys and costs: {how}");
        let name = format!("dose-{index}");
        let words = format!("strength ({}); 0: no steering", short(&how));
        plots.push(picture(&name, &title, SIZE, |area| {
            curves(area, &words, &all)
        })?);
    }
    Ok(plots)
}

/// A point with its name.
struct Dot {
    name: String,
    x: f64,
    y: f64,
    ink: &'static Ink,
    named: bool,
}

/// Named points.
fn scatter(
    area: &Area<'_>,
    x_words: &str,
    y_words: &str,
    largest: f64,
    dots: &[Dot],
) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(56)
        .build_cartesian_2d(-0.03 * largest..1.05 * largest, -3f64..104f64)
        .map_err(|e| text(&e))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.0)
        .axis_style(MUTED.0)
        .label_style(font(&MUTED, 14))
        .axis_desc_style(font(&TEXT, 15))
        .x_desc(x_words)
        .y_desc(y_words)
        .draw()
        .map_err(|e| text(&e))?;
    for dot in dots {
        let place = (dot.x, dot.y);
        let mark = Circle::new(place, 5, dot.ink.0.filled());
        chart.draw_series([mark]).map_err(|e| text(&e))?;
        if dot.named {
            let right = dot.x < 0.6 * largest;
            let aside = if right { 9 } else { -9 };
            let anchor = plotters::style::text_anchor::Pos::new(
                if right {
                    plotters::style::text_anchor::HPos::Left
                } else {
                    plotters::style::text_anchor::HPos::Right
                },
                plotters::style::text_anchor::VPos::Center,
            );
            let label = EmptyElement::at(place)
                + Text::new(short(&dot.name), (aside, 0), font(&TEXT, 13).pos(anchor));
            chart.draw_series([label]).map_err(|e| text(&e))?;
        }
    }
    Ok(())
}

/// What is bought: jailbreaks refused, or direct requests where there are no jailbreaks.
fn bought(arm: &ArmRow) -> Option<f64> {
    let group = arm.groups.get("jailbreaks");
    Some(group.or(arm.groups.get("direct requests"))?.percent)
}

fn ink_of(arm: &ArmRow, index: usize) -> &'static Ink {
    match (index, arm.series) {
        (0, _) => &TEXT,
        (_, Some(0)) => &BOUGHT,
        (_, Some(_)) => &DIRECT,
        _ => &OTHER,
    }
}

/// Robustness against price.
fn pareto(result: &ArmsResult) -> Result<Vec<Plot>, LabError> {
    let dot = |(index, arm): (usize, &ArmRow)| {
        let on_front = result.pareto.contains(&index);
        Some(Dot {
            name: arm.arm.clone(),
            x: arm.groups.get("harmless requests")?.percent,
            y: bought(arm)?,
            ink: ink_of(arm, index),
            named: on_front || index == 0 || result.arms.len() <= 10,
        })
    };
    let dots: Vec<Dot> = result.arms.iter().enumerate().filter_map(dot).collect();
    if dots.len() < 2 {
        return Ok(Vec::new());
    }
    let title = "Robustness against price; named: what nothing else beats";
    let largest = dots.iter().map(|d| d.x).fold(10.0, f64::max);
    let plot = picture("pareto", title, SIZE, |area| {
        scatter(
            area,
            "harmless requests refused, percent",
            "jailbreaks refused, percent",
            largest,
            &dots,
        )
    })?;
    Ok(vec![plot])
}

/// Refusals beside the divergence from the base.
fn kl(result: &ArmsResult) -> Result<Vec<Plot>, LabError> {
    let dot = |(index, arm): (usize, &ArmRow)| {
        Some(Dot {
            name: arm.arm.clone(),
            x: arm.kl?,
            y: bought(arm)?,
            ink: ink_of(arm, index),
            named: arm.series == Some(0) || arm.series.is_none(),
        })
    };
    let dots: Vec<Dot> = result.arms.iter().enumerate().filter_map(dot).collect();
    let largest = dots.iter().map(|d| d.x).fold(0.0, f64::max);
    if dots.len() < 2 || largest <= 0.0 {
        return Ok(Vec::new());
    }
    let title = "Jailbreaks refused, and how far harmless replies move from the base";
    let plot = picture("kl", title, SIZE, |area| {
        scatter(
            area,
            "KL from the base on harmless text, nats a token",
            "jailbreaks refused, percent",
            largest,
            &dots,
        )
    })?;
    Ok(vec![plot])
}

/// Bars of the base and the steered arm, group by group.
fn bars(result: &ArmsResult) -> Result<Vec<Plot>, LabError> {
    let steered = |arm: &&ArmRow| arm.series == Some(0) && arm.value == result.at;
    let steered = result.arms.iter().find(steered);
    let steered = steered.or(result.arms.iter().rfind(|arm| arm.series == Some(0)));
    let (Some(base), Some(steered)) = (result.arms.first(), steered) else {
        return Ok(Vec::new());
    };
    let mut plots = Vec::new();
    let kinds = [
        ("category", "by category of harm"),
        ("template", "by jailbreak template"),
        ("type", "by type of lookalike"),
        ("set", "by set"),
    ];
    for (kind, words) in kinds {
        let prefix = format!("{kind} ");
        let rows: BTreeMap<&str, (&GroupRow, &GroupRow)> = steered
            .groups
            .iter()
            .filter_map(|(name, own)| {
                Some((name.strip_prefix(&prefix)?, (base.groups.get(name)?, own)))
            })
            .take(MOST_BARS)
            .collect();
        if rows.is_empty() {
            continue;
        }
        let title = format!("Refused {words}: base and {}", steered.arm);
        let size = (SIZE.0, ROW * rows.len() as u32 + AROUND);
        let name = format!("bars-{kind}");
        let names = [("base", &OTHER), (&steered.arm[..], &BOUGHT)];
        plots.push(picture(&name, &title, size, |area| {
            let rows: Vec<(&str, [&GroupRow; 2])> = rows
                .iter()
                .map(|(name, pair)| (*name, [pair.0, pair.1]))
                .collect();
            draw_bars(area, &names, &rows)
        })?);
    }
    Ok(plots)
}

fn draw_bars(
    area: &Area<'_>,
    names: &[(&str, &'static Ink); 2],
    rows: &[(&str, [&GroupRow; 2])],
) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let count = rows.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_top(30)
        .x_label_area_size(46)
        .y_label_area_size(200)
        .build_cartesian_2d(0f64..101f64, 0f64..count)
        .map_err(|e| text(&e))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.0)
        .axis_style(MUTED.0)
        .label_style(font(&MUTED, 14))
        .axis_desc_style(font(&TEXT, 15))
        .x_desc("refused, percent")
        .draw()
        .map_err(|e| text(&e))?;
    let anchor = plotters::style::text_anchor::Pos::new(
        plotters::style::text_anchor::HPos::Right,
        plotters::style::text_anchor::VPos::Center,
    );
    for (i, (name, pair)) in rows.iter().enumerate() {
        let top = count - i as f64;
        let words = EmptyElement::at((0.0, top - 0.5))
            + Text::new(
                short(&name.replace('_', " ")),
                (-8, 0),
                font(&TEXT, 14).pos(anchor),
            );
        chart.draw_series([words]).map_err(|e| text(&e))?;
        for (half, group) in pair.iter().enumerate() {
            let ink = names[half].1.0;
            let upper = top - 0.12 - 0.4 * half as f64;
            let bar = Rectangle::new(
                [(0.0, upper), (group.percent.max(0.3), upper - 0.36)],
                ink.mix(0.8).filled(),
            );
            chart.draw_series([bar]).map_err(|e| text(&e))?;
            let middle = upper - 0.18;
            let whisker = PathElement::new(
                vec![(group.low, middle), (group.high, middle)],
                TEXT.0.stroke_width(1),
            );
            chart.draw_series([whisker]).map_err(|e| text(&e))?;
        }
    }
    for (i, (name, ink)) in names.iter().enumerate() {
        let left = 200 + 180 * i as i32;
        area.draw(&Rectangle::new(
            [(left, 8), (left + 14, 22)],
            ink.0.filled(),
        ))
        .map_err(|e| text(&e))?;
        area.draw(&Text::new(short(name), (left + 20, 8), font(&TEXT, 14)))
            .map_err(|e| text(&e))?;
    }
    Ok(())
}

/// A gate's ROC curve: points of false and true positives.
fn roc(result: &Value) -> Result<Vec<Plot>, LabError> {
    let points = result["gate"]["roc"].as_array();
    let points: Vec<[f64; 4]> = points
        .into_iter()
        .flatten()
        .filter_map(|p| {
            let (x, y) = (p[0].as_f64()?, p[1].as_f64()?);
            Some([100.0 * x, 100.0 * y, 100.0 * y, 100.0 * y])
        })
        .collect();
    if points.len() < 2 {
        return Ok(Vec::new());
    }
    let all = [Curve {
        name: "harmful prompts above the threshold".into(),
        ink: &BOUGHT,
        points,
    }];
    let title = "The gate: harmful prompts steered against harmless ones (ROC)";
    let plot = picture("roc", title, SIZE, |area| {
        curves(area, "harmless prompts above the threshold, percent", &all)
    })?;
    Ok(vec![plot])
}

/// The strengths that were tried when a feature was looked for.
fn strength(result: &Value) -> Result<Vec<Plot>, LabError> {
    let curve = result["strength"]["curve"].as_array();
    let curve: Vec<&Value> = curve.into_iter().flatten().collect();
    let kinds = [
        ("harmful", "harmful requests refused", &BOUGHT),
        ("benign", "harmless requests refused", &COST),
        ("coherent", "coherent replies", &RIGHT),
    ];
    let percent = |v: &Value| -> Option<[f64; 3]> {
        match v {
            Value::Object(share) => {
                let of = |name: &str| share.get(name)?.as_f64();
                let percent = match of("percent") {
                    Some(percent) => percent,
                    None => 100.0 * of("hits")? / of("of")?.max(1.0),
                };
                Some([
                    percent,
                    of("low").unwrap_or(percent),
                    of("high").unwrap_or(percent),
                ])
            }
            // A bare share is a fraction.
            _ => v.as_f64().map(|f| [100.0 * f; 3]),
        }
    };
    let all: Vec<Curve> = kinds
        .iter()
        .map(|&(key, name, ink)| Curve {
            name: name.to_string(),
            ink,
            points: curve
                .iter()
                .filter_map(|point| {
                    let [share, low, high] = percent(&point[key])?;
                    Some([point["value"].as_f64()?, share, low, high])
                })
                .collect(),
        })
        .filter(|curve| curve.points.len() > 1)
        .collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let title = "The strength: what each does to harmful and harmless requests";
    let plot = picture("strength", title, SIZE, |area| {
        curves(area, "strength", &all)
    })?;
    Ok(vec![plot])
}

/// The plots of a result, whatever its task.
pub fn plots(result: &Value) -> Result<Vec<Plot>, LabError> {
    let mut all = Vec::new();
    if result["arms"].is_array() {
        let arms = ArmsResult::read(result)?;
        all.extend(dose(&arms)?);
        all.extend(pareto(&arms)?);
        all.extend(kl(&arms)?);
        all.extend(bars(&arms)?);
    }
    all.extend(strength(result)?);
    all.extend(roc(result)?);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn group(percent: f64) -> Value {
        json!({"what": "refused", "hits": 1, "of": 4, "percent": percent, "low": percent / 2.0,
            "high": (percent + 100.0) / 2.0, "incoherent": {"counted": 0, "others": 0},
            "paired": {"pairs": 4, "gained": 1, "lost": 0, "p": 1.0}})
    }

    fn result() -> Value {
        let arm = |name: &str, series: Option<usize>, value: Option<f64>, bought: f64| {
            json!({"arm": name, "series": series, "value": value, "kl": value,
                "groups": {"jailbreaks": group(bought), "harmless requests": group(bought / 3.0),
                    "category <b>": group(bought), "type homonyms": group(bought)}})
        };
        json!({
            "at": 4.0,
            "arms": [
                arm("base", None, None, 10.0),
                arm("clamp 2", Some(0), Some(2.0), 40.0),
                arm("clamp 4 & <script>", Some(0), Some(4.0), 90.0),
                arm("random", None, Some(4.0), 12.0),
            ],
            "pareto": [0, 2],
            "series": [{"name": "", "target": "7", "operator": "clamp"}],
            "gate": {"roc": [[0.0, 0.5, 1.0], [1.0, 1.0, 0.0]]},
            "strength": {"curve": [
                {"value": 1.0, "harmful": {"hits": 1, "of": 4}, "benign": 0.0},
                {"value": 2.0, "harmful": {"hits": 4, "of": 4}, "benign": 0.25}]},
        })
    }

    #[test]
    fn every_kind_of_result_is_drawn_in_the_pages_colours() {
        let all = plots(&result()).unwrap();
        let names: Vec<&str> = all.iter().map(|p| &p.name[..]).collect();
        let expected = [
            "dose-0",
            "pareto",
            "kl",
            "bars-category",
            "bars-type",
            "strength",
            "roc",
        ];
        assert_eq!(names, expected);
        for plot in &all {
            let svg = &plot.svg;
            assert!(
                svg.starts_with("<svg role=\"img\" aria-label="),
                "{svg:.80}"
            );
            assert!(svg.trim_end().ends_with("</svg>"));
            // No colour is left that is not one of the page's, and nothing is markup that was text.
            assert!(!svg.contains("\"#"), "{}", plot.name);
            assert!(
                !svg.contains("<script") && !svg.contains("<b>"),
                "{}",
                plot.name
            );
            assert!(svg.contains("var(--text, #1d1c1a)"), "{}", plot.name);
            // Every shape is inside the picture.
            let size: Vec<f64> = ["width=\"", "height=\""]
                .iter()
                .map(|key| {
                    let rest = svg.split(key).nth(1).unwrap();
                    rest.split('"').next().unwrap().parse().unwrap()
                })
                .collect();
            for (key, most) in [("cx=\"", size[0]), ("cy=\"", size[1])] {
                for rest in svg.split(key).skip(1) {
                    let at: f64 = rest.split('"').next().unwrap().parse().unwrap();
                    assert!((0.0..=most).contains(&at), "{}: {at}", plot.name);
                }
            }
        }
    }

    #[test]
    fn what_is_missing_is_not_drawn() {
        assert!(plots(&json!({})).unwrap().is_empty());
        assert!(plots(&json!({"arms": [{}]})).is_err());
        let alone = json!({"arms": [{"arm": "base", "groups": {"jailbreaks": group(3.0)}}]});
        assert!(plots(&alone).unwrap().is_empty());
    }
}
