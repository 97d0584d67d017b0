//! What each part of a decode pass takes, of all blocks, and what it reads beside what could be read in that time.

use std::cell::Cell;
use std::fmt;

use serde::Serialize;

use super::{alive, lanes_of, seconds_of};
use crate::generate::{Chat, GenerateError};
use crate::phi3::{Part, Row};

/// One part of a pass, of all blocks.
#[derive(Clone, Debug, Serialize)]
pub struct PartFigure {
    /// Its name.
    pub part: String,
    /// What it takes.
    pub seconds: f64,
    /// Dispatches.
    pub dispatches: u64,
    /// Bytes of weights and cache that it reads.
    pub bytes: u64,
}

/// The parts of a decode pass.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parts {
    /// Lanes.
    pub lanes: usize,
    /// Positions that each sees.
    pub positions: usize,
    /// Each part, in the order of a pass.
    pub parts: Vec<PartFigure>,
    /// Bytes a second that the adapter reads at most.
    pub read_bytes_a_second: f64,
}

impl Parts {
    /// Measures the parts in all lanes of `chat`, each of which sees `positions` positions.
    pub(super) async fn measure(
        chat: &mut Chat,
        positions: usize,
        rate: f64,
        cancel: &Cell<bool>,
    ) -> Result<Self, GenerateError> {
        let (model, _) = chat.model_and_steering();
        model.reserve(positions + 1).await?;
        let lanes = model.lanes();
        let rows: Vec<Row> = (0..lanes as u32)
            .map(|lane| Row {
                lane,
                position: positions as u32,
                ..Row::default()
            })
            .collect();
        model.set_decode_rows(&rows);
        let gpu = model.gpu();
        let mut parts = Vec::new();
        for part in Part::ALL {
            alive(cancel)?;
            let before = gpu.dispatches();
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            model.decode_part(&mut pass, part, positions);
            drop(pass);
            let dispatches = gpu.dispatches() - before;
            let record =
                |pass: &mut wgpu::ComputePass<'_>| model.decode_part(pass, part, positions);
            parts.push(PartFigure {
                part: format!("{part:?}"),
                seconds: seconds_of(gpu, &record).await?,
                dispatches,
                bytes: model.part_bytes(part, positions),
            });
        }
        Ok(Self {
            lanes,
            positions,
            parts,
            read_bytes_a_second: rate,
        })
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Parts of a pass, {} at {} positions:\n{:>10} {:>9} {:>10} {:>9} {:>8} {:>16}",
            lanes_of(self.lanes),
            self.positions,
            "part",
            "ms",
            "dispatches",
            "MB",
            "GB/s",
            "of the read rate"
        )?;
        let sum = PartFigure {
            part: "sum".into(),
            seconds: self.parts.iter().map(|part| part.seconds).sum(),
            dispatches: self.parts.iter().map(|part| part.dispatches).sum(),
            bytes: self.parts.iter().map(|part| part.bytes).sum(),
        };
        for one in self.parts.iter().chain([&sum]) {
            let read = one.bytes as f64 / one.seconds;
            write!(
                f,
                "\n{:>10} {:>9.3} {:>10} {:>9.1} {:>8.1} {:>15.0}%",
                one.part,
                one.seconds * 1e3,
                one.dispatches,
                one.bytes as f64 / 1e6,
                read / 1e9,
                100.0 * read / self.read_bytes_a_second
            )?;
        }
        Ok(())
    }
}
