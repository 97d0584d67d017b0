//! How fast a model runs on a device: what a dispatch and a byte cost, what each part of a decode pass takes, prefill and
//! decoding in several lanes at several lengths, with steering off, on and with features watched. The same for command
//! and page.

mod floor;
mod parts;
mod passes;

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use serde::Serialize;
use web_time::Instant;

pub use floor::Floor;
pub use parts::{PartFigure, Parts};
pub use passes::{Mode, Pass};

use crate::generate::{Chat, GenerateError};
use crate::gpu::{Gpu, GpuError};
use crate::phi3::ModelError;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Lanes, each number for itself.
    pub lanes: Vec<usize>,
    /// Positions that a lane holds before it decodes.
    pub context: Vec<usize>,
    /// Tokens that a lane decodes.
    pub tokens: usize,
    /// Seconds that a figure may take at most; longer contexts and more lanes are then left out.
    pub patience: f64,
}

/// What runs, and on what.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The adapter's name.
    pub adapter: String,
    /// The graphics API behind it.
    pub backend: String,
    /// The skeletons of products with few and with many activation rows.
    pub few_rows: String,
    /// See there.
    pub many_rows: String,
    /// Whether products compute in f16.
    pub half_products: bool,
    /// How workgroups add up.
    pub reduction: String,
    /// The model's blocks.
    pub blocks: usize,
    /// The residual stream's width.
    pub width: usize,
    /// Tokens that the model knows.
    pub vocabulary: usize,
    /// How its matrices are stored.
    pub formats: Vec<&'static str>,
    /// Bytes that a decode pass of one lane reads.
    pub bytes_a_pass: u64,
}

/// A figure, or that one is missing.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "figure", rename_all = "camelCase")]
pub enum Figure {
    /// What runs, and on what.
    Machine(Machine),
    /// What a dispatch and a byte cost.
    Floor(Floor),
    /// The parts of a decode pass.
    Parts(Parts),
    /// Whole passes.
    Pass(Pass),
    /// What was not measured, and why.
    LeftOut {
        /// In words.
        what: String,
    },
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}), {} and {} products{}, {} reductions; {} blocks, width {}, vocabulary {}, {}; {:.1} MB a pass",
            self.adapter,
            self.backend,
            self.few_rows,
            self.many_rows,
            if self.half_products { " in f16" } else { "" },
            self.reduction,
            self.blocks,
            self.width,
            self.vocabulary,
            self.formats.join(", "),
            self.bytes_a_pass as f64 / 1e6,
        )
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::Machine(machine) => machine.fmt(f),
            Figure::Floor(floor) => floor.fmt(f),
            Figure::Parts(parts) => parts.fmt(f),
            Figure::Pass(pass) => pass.fmt(f),
            Figure::LeftOut { what } => write!(f, "left out: {what}"),
        }
    }
}

/// Measures `chat`'s model and its first dictionary, if it has one, on forks of it: its conversations stay. Each figure
/// goes to `tell` as soon as it is there.
///
/// [`GenerateError::Cancelled`] soon after `cancel` is set; else errors as [`Chat::fork`] and [`Chat::run`].
pub async fn measure(
    chat: &Chat,
    plan: &Plan,
    cancel: &Rc<Cell<bool>>,
    tell: &mut dyn FnMut(Figure),
) -> Result<(), GenerateError> {
    let gpu = chat.model().gpu();
    tell(Figure::Machine(machine(chat)));
    let floor = Floor::measure(gpu).await?;
    let rate = floor.read_bytes_a_second;
    tell(Figure::Floor(floor));
    let mut first = None;
    for &lanes in &plan.lanes {
        let mut fork = chat.fork(lanes).await?;
        for &positions in &plan.context {
            alive(cancel)?;
            if positions + plan.tokens > fork.model().context() {
                let what = format!("{positions} positions: the model holds fewer");
                tell(Figure::LeftOut { what });
                continue;
            }
            match Parts::measure(&mut fork, positions, rate, cancel).await {
                Ok(parts) => tell(Figure::Parts(parts)),
                Err(GenerateError::Model(ModelError::CacheFull { .. })) => {
                    let lanes = lanes_of(lanes);
                    let what = format!("{lanes} at {positions} positions do not fit");
                    tell(Figure::LeftOut { what });
                    continue;
                }
                Err(error) => return Err(error),
            }
            for &mode in Mode::of(&fork) {
                alive(cancel)?;
                match Pass::measure(&mut fork, mode, positions, plan, cancel).await? {
                    Some(mut pass) => {
                        let alone = *first.get_or_insert(pass.pass_seconds);
                        pass.of_first = pass.pass_seconds / alone;
                        tell(Figure::Pass(pass));
                    }
                    None => {
                        let lanes = lanes_of(lanes);
                        let what = format!("{lanes} at {positions} positions take too long");
                        tell(Figure::LeftOut { what });
                    }
                }
            }
        }
    }
    Ok(())
}

fn machine(chat: &Chat) -> Machine {
    let model = chat.model();
    let (c, m) = (model.gpu().capabilities(), model.config());
    Machine {
        adapter: c.name.clone(),
        backend: c.backend.clone(),
        few_rows: format!("{:?}", c.few_rows),
        many_rows: format!("{:?}", c.many_rows),
        half_products: c.half_products,
        reduction: format!("{:?}", c.reduction),
        blocks: m.num_hidden_layers,
        width: m.hidden_size,
        vocabulary: m.vocab_size,
        formats: model.formats().iter().map(|f| f.name()).collect(),
        bytes_a_pass: model.decode_bytes(1),
    }
}

/// An error once the user has had enough.
fn alive(cancel: &Cell<bool>) -> Result<(), GenerateError> {
    match cancel.get() {
        true => Err(GenerateError::Cancelled),
        false => Ok(()),
    }
}

/// Seconds that one call of `record` takes the GPU, by the wall clock: so many are recorded into a submission that it
/// takes a while, and what an empty submission takes goes off.
async fn seconds_of(
    gpu: &Gpu,
    record: &dyn Fn(&mut wgpu::ComputePass<'_>),
) -> Result<f64, GpuError> {
    submitted(gpu, 1, record).await?; // compiled, and its memory touched
    let mut times = 1;
    loop {
        let taken = submitted(gpu, times, record).await?;
        if taken > 0.02 || times >= 512 {
            break;
        }
        times *= 2;
    }
    let mut taken = Vec::new();
    for _ in 0..5 {
        let with = submitted(gpu, times, record).await?;
        let without = submitted(gpu, 0, record).await?;
        taken.push((with - without).max(0.0) / f64::from(times));
    }
    Ok(median(&mut taken))
}

/// Seconds from recording `times` calls of `record` to their end.
async fn submitted(
    gpu: &Gpu,
    times: u32,
    record: &dyn Fn(&mut wgpu::ComputePass<'_>),
) -> Result<f64, GpuError> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    (0..times).for_each(|_| record(&mut pass));
    drop(pass);
    let commands = encoder.finish();
    let started = Instant::now();
    gpu.queue().submit([commands]);
    gpu.finish().await?;
    Ok(started.elapsed().as_secs_f64())
}

/// How many lanes, in words.
fn lanes_of(count: usize) -> String {
    format!("{count} lane{}", if count == 1 { "" } else { "s" })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
