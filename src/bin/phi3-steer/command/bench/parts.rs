//! What each part of a decode pass takes, of all blocks.

use phi3_steer::phi3::{Part, Row};
use serde_json::json;

use super::{Arguments, Failure, Report, Subject, left_out, seconds_of};

pub async fn measure(
    subject: &Subject,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<(), Failure> {
    for &lanes in &arguments.lanes {
        let mut model = subject.model.fork(lanes).await?;
        for &seen in &arguments.context {
            if model.reserve(seen + 1).await.is_err() {
                left_out(&format!(
                    "the parts of {lanes} lanes at {seen} positions do not fit"
                ));
                continue;
            }
            let rows: Vec<Row> = (0..lanes as u32)
                .map(|lane| Row {
                    lane,
                    position: seen as u32,
                    ..Row::default()
                })
                .collect();
            model.set_decode_rows(&rows);
            let mut line = format!("Parts, {lanes} lanes at {seen} positions, ms:");
            let mut value = json!({"lanes": lanes, "positions": seen});
            let mut sum = 0.0;
            for part in Part::ALL {
                let seconds =
                    seconds_of(&subject.gpu, &|pass| model.decode_part(pass, part, seen)).await?;
                sum += seconds;
                line += &format!(" {part:?} {:.3}", seconds * 1e3);
                value[format!("{part:?}")] = json!(seconds);
            }
            report.add(&format!("{line}; sum {:.3}", sum * 1e3), value)?;
        }
    }
    Ok(())
}
