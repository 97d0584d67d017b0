//! What each part of a decode pass takes, of all blocks, and what it reads beside what could be read in that time.

use phi3_steer::phi3::{Part, Row};
use serde_json::json;

use super::{Arguments, Failure, Report, Subject, left_out, seconds_of};

/// Measures every part; `rate` is what the adapter reads at most, in bytes a second.
pub async fn measure(
    subject: &Subject,
    arguments: &Arguments,
    rate: f64,
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
            let mut table = format!(
                "Parts of a pass, {lanes} lanes at {seen} positions:\n{:>10} {:>9} {:>10} {:>9} {:>8} {:>16}",
                "part", "ms", "dispatches", "MB", "GB/s", "of what is read"
            );
            let mut value = json!({"lanes": lanes, "positions": seen});
            let (mut all, mut sum) = (0, 0.0);
            for part in Part::ALL {
                let before = subject.gpu.dispatches();
                let mut encoder = subject
                    .gpu
                    .device()
                    .create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                model.decode_part(&mut pass, part, seen);
                drop(pass);
                let dispatches = subject.gpu.dispatches() - before;
                let seconds =
                    seconds_of(&subject.gpu, &|pass| model.decode_part(pass, part, seen)).await?;
                let bytes = model.part_bytes(part, seen);
                (all, sum) = (all + bytes, sum + seconds);
                table += &row(&format!("{part:?}"), seconds, Some(dispatches), bytes, rate);
                value[format!("{part:?}")] =
                    json!({"seconds": seconds, "dispatches": dispatches, "bytes": bytes});
            }
            table += &row("sum", sum, None, all, rate);
            report.add(&table, value)?;
        }
    }
    Ok(())
}

/// A row of the table.
fn row(name: &str, seconds: f64, dispatches: Option<u64>, bytes: u64, rate: f64) -> String {
    let read = bytes as f64 / seconds;
    let dispatches = dispatches.map_or(String::new(), |n| n.to_string());
    format!(
        "\n{name:>10} {:>9.3} {dispatches:>10} {:>9.1} {:>8.1} {:>15.0}%",
        seconds * 1e3,
        bytes as f64 / 1e6,
        read / 1e9,
        100.0 * read / rate
    )
}
