//! Results as plots: SVG by `plotters`, its colours the page's custom properties, so that the same picture
//! is readable in light and dark.

mod arms;
mod found;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;
use serde_json::Value;

use super::LabError;
use super::table::{ArmRow, ArmsResult, GroupRow};

/// Pixels of a plot.
const SIZE: (u32, u32) = (720, 420);
/// Pixels of a row of bars, and of what is around them.
const ROW: u32 = 34;
const AROUND: u32 = 110;
/// Pixels of a row of a legend.
const LEGEND_ROW: u32 = 22;
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

/// What an axis says at a number.
fn tick(value: &f64) -> String {
    let text = format!("{value:.3}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".into(),
        text => text.into(),
    }
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

/// The size of a picture of [`curves`], their legend below them.
fn size_with(curves: &[Curve]) -> (u32, u32) {
    (SIZE.0, SIZE.1 + LEGEND_ROW * (curves.len() as u32 + 1))
}

/// Curves over values, in percent, in a picture of [`size_with`] them.
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
    let (plot, legend) = area.split_vertically(SIZE.1);
    let mut chart = ChartBuilder::on(&plot)
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
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
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
            .map_err(|e| text(&e))?;
        let dots = curve.points.iter();
        let dots = dots.map(|p| Circle::new((p[0], p[1]), 3, ink.filled()));
        chart.draw_series(dots).map_err(|e| text(&e))?;
    }
    // By hand: the library's own legend measures its text, which needs a document, and workers have none.
    for (row, curve) in curves.iter().enumerate() {
        let y = 10 + (LEGEND_ROW * row as u32) as i32;
        let line = PathElement::new(vec![(56, y), (76, y)], curve.ink.0.stroke_width(3));
        legend.draw(&line).map_err(|e| text(&e))?;
        let at = Pos::new(HPos::Left, VPos::Center);
        let name = Text::new(short(&curve.name), (84, y), font(&TEXT, 14).pos(at));
        legend.draw(&name).map_err(|e| text(&e))?;
    }
    Ok(())
}

/// The plots of a result, whatever its task.
pub fn plots(result: &Value) -> Result<Vec<Plot>, LabError> {
    let mut all = Vec::new();
    if result["arms"].is_array() {
        let measured = ArmsResult::read(result)?;
        all.extend(arms::dose(&measured)?);
        all.extend(arms::pareto(&measured)?);
        all.extend(arms::kl(&measured)?);
        all.extend(arms::bars(&measured)?);
    }
    all.extend(found::strength(result)?);
    all.extend(found::roc(result)?);
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
    fn axes_say_numbers_as_short_as_they_are() {
        let values = [0.0, -0.000_1, 100.0, 0.05, 2.5, -12.0, 1e4];
        let said = values.map(|v| tick(&v));
        assert_eq!(said, ["0", "0", "100", "0.05", "2.5", "-12", "10000"]);
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
