//! Plots of what was measured: curves over the strength, what is bought against what it costs, bars.

use std::collections::BTreeMap;

use plotters::prelude::*;

use super::*;

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
pub(super) fn dose(result: &ArmsResult) -> Result<Vec<Plot>, LabError> {
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
        plots.push(picture(&name, &title, size_with(&all), |area| {
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
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
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
pub(super) fn pareto(result: &ArmsResult) -> Result<Vec<Plot>, LabError> {
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
pub(super) fn kl(result: &ArmsResult) -> Result<Vec<Plot>, LabError> {
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
pub(super) fn bars(result: &ArmsResult) -> Result<Vec<Plot>, LabError> {
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
        .x_label_formatter(&tick)
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
