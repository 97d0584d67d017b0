//! Plots of searches and gates.

use serde_json::Value;

use super::*;

/// A gate's ROC curve: points of false and true positives.
pub(super) fn roc(result: &Value) -> Result<Vec<Plot>, LabError> {
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
    let plot = picture("roc", title, size_with(&all), |area| {
        curves(area, "harmless prompts above the threshold, percent", &all)
    })?;
    Ok(vec![plot])
}

/// The strengths that were tried when a feature was looked for.
pub(super) fn strength(result: &Value) -> Result<Vec<Plot>, LabError> {
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
    let plot = picture("strength", title, size_with(&all), |area| {
        curves(area, "strength", &all)
    })?;
    Ok(vec![plot])
}
