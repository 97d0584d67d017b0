//! The work at one hook point.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::table::{Entry, SLOTS};
use super::{SteeringError, table};
use crate::gpu::{Access, Buffer, Gpu, Kernel, KernelDescriptor, Step, shaders};
use crate::matrix::{weights_bindings, weights_part};
use crate::phi3::{BlockHook, MAX_ROWS, Model, Phase};
use crate::quant;
use crate::sae::{Activation, Coder, CoderStep, Dictionary, HookPoint, SaeError};
use crate::steering::Intervention;

/// Invocations of a steering workgroup.
const INVOCATIONS: u32 = 64;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SteerShape {
    hidden4: u32,
    /// Entries of a row's list of features, or latents in all.
    inputs: u32,
    slots: u32,
    unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct FetchShape {
    hidden4: u32,
    groups: u32,
    row: u32,
    slot: u32,
}

/// The model's buffers that a hook works on.
pub(super) struct Site<'a> {
    /// `[MAX_ROWS, width]`
    pub residual: &'a Buffer,
    /// The prefill pass's `Rows`.
    pub prefill_rows: &'a Buffer,
    /// The decode pass's `Rows`.
    pub decode_rows: &'a Buffer,
    /// Lanes.
    pub lanes: usize,
}

/// The steps of one phase.
struct Bound {
    coder: CoderStep,
    steer: Step,
}

/// A dictionary at its place in a model, with the steering table of every lane.
pub struct Hook {
    gpu: Rc<Gpu>,
    dictionary: Rc<Dictionary>,
    point: HookPoint,
    coder: Coder,
    prefill: Bound,
    decode: Bound,
    /// `[lanes, SLOTS]` of [`Entry`]
    table: Buffer,
    /// `[lanes, SLOTS, width]`: the entries' decoder rows.
    directions: Buffer,
    /// Copies a decoder row to `directions`.
    fetch: Kernel,
    /// What the table holds.
    lanes: RefCell<Vec<Vec<Entry>>>,
    /// The latents whose rows `directions` holds, `[lanes, SLOTS]`.
    held: RefCell<Vec<Option<u32>>>,
    work: Cell<Work>,
    watched: Cell<bool>,
}

/// What the table's entries need recorded.
#[derive(Clone, Copy, Default)]
struct Work {
    encode: bool,
    rebuild: bool,
    steer: bool,
}

impl Hook {
    /// Puts `dictionary` at its hook point in `model`.
    pub fn new(model: &Model, dictionary: Rc<Dictionary>) -> Result<Self, SteeringError> {
        let site = Site {
            residual: model.residual(),
            prefill_rows: model.rows(Phase::Prefill),
            decode_rows: model.rows(Phase::Decode),
            lanes: model.lanes(),
        };
        let config = model.config();
        if dictionary.width() != config.hidden_size {
            return Err(SaeError::WrongWidth {
                file: dictionary.label().into(),
                dictionary: dictionary.width(),
                model: config.hidden_size,
            }
            .into());
        }
        let hook = Self::at(model.gpu().clone(), dictionary, &site)?;
        if hook.point.layer >= config.num_hidden_layers {
            return Err(SaeError::NoSuchBlock {
                hook: hook.point,
                layers: config.num_hidden_layers,
            }
            .into());
        }
        Ok(hook)
    }

    /// Binds `dictionary` to the buffers of `site`.
    pub(super) fn at(
        gpu: Rc<Gpu>,
        dictionary: Rc<Dictionary>,
        site: &Site<'_>,
    ) -> Result<Self, SteeringError> {
        let point = dictionary.hook().ok_or_else(|| SaeError::HookUnknown {
            folder: dictionary.label().into(),
        })?;
        let slots = site.lanes * SLOTS;
        let coder = Coder::new(&gpu, &dictionary, MAX_ROWS, site.lanes)?;
        // TopK's list has all that is active; other rules' lists may not.
        let dense = dictionary.rule().is_local();
        let kernel = gpu.kernel(&KernelDescriptor {
            label: "steer",
            parts: &[
                shaders::ROWS,
                gpu.reduction_part(),
                &table::constants(),
                shaders::STEER,
            ],
            constants: &[
                ("WG", INVOCATIONS.into()),
                ("DENSE", f64::from(u8::from(dense))),
            ],
            bindings: &[
                (0, Access::Read),
                (1, Access::Read),
                (2, Access::Read),
                (3, Access::Uniform),
                (4, Access::Read),
                (5, Access::Uniform),
                (6, Access::Write),
                (7, Access::Read),
            ],
        });
        let format = dictionary.format();
        let mut bindings = vec![(3, Access::Uniform), (6, Access::Write)];
        bindings.extend_from_slice(weights_bindings(format));
        let fetch = gpu.kernel(&KernelDescriptor {
            label: "fetch_direction",
            parts: &[
                weights_part(format),
                shaders::DECODER_ROW,
                shaders::FETCH_DIRECTION,
            ],
            constants: &[],
            bindings: &bindings,
        });
        let table = gpu.storage("steering table", (slots * size_of::<Entry>()) as u64)?;
        let directions = gpu.storage(
            "steering directions",
            (slots * dictionary.width() * 4) as u64,
        )?;
        let shape = gpu.uniform(
            "steering shape",
            &SteerShape {
                hidden4: dictionary.width() as u32 / 4,
                inputs: match dense {
                    true => dictionary.loaded() as u32,
                    false => dictionary.k() as u32,
                },
                slots: SLOTS as u32,
                unused: 0,
            },
        );
        let measured = match dense {
            true => coder.activations(),
            false => coder.features(),
        };
        let bind = |rows: &Buffer, many: bool| Bound {
            coder: coder.bind(&gpu, &dictionary, site.residual, rows, many),
            steer: kernel.bind(
                &gpu,
                &[
                    (0, &table),
                    (1, &directions),
                    (2, measured),
                    (3, &shape),
                    (4, coder.rebuilt()),
                    (5, rows),
                    (6, site.residual),
                    (7, coder.units()),
                ],
            ),
        };
        let prefill = bind(site.prefill_rows, true);
        let decode = bind(site.decode_rows, false);
        Ok(Self {
            gpu,
            dictionary,
            point,
            coder,
            prefill,
            decode,
            table,
            directions,
            fetch,
            lanes: RefCell::new(vec![Vec::new(); site.lanes]),
            held: RefCell::new(vec![None; slots]),
            work: Cell::default(),
            watched: Cell::new(false),
        })
    }

    /// The dictionary.
    pub fn dictionary(&self) -> &Rc<Dictionary> {
        &self.dictionary
    }

    /// The hook point.
    pub fn point(&self) -> HookPoint {
        self.point
    }

    /// Whether every pass encodes the residual stream, so that [`Hook::features`] can be shown, even if
    /// no intervention needs it.
    pub fn watch(&self, on: bool) {
        self.watched.set(on);
    }

    /// Whether a pass encodes the residual stream as things are.
    pub fn encodes(&self) -> bool {
        let watched = self.watched.get() && self.dictionary.encodes();
        watched || self.work.get().encode
    }

    /// The active features of the last pass that encoded, measured before steering: `[MAX_ROWS, k]` of
    /// [`Activation`], largest first; row r is row r of the pass.
    pub fn features(&self) -> &Buffer {
        self.coder.features()
    }

    /// The activations of all loaded latents in the last pass that encoded, `[MAX_ROWS, loaded latents]`
    /// f32; not for TopK, where what is listed alone is active.
    pub(super) fn activations(&self) -> &Buffer {
        self.coder.activations()
    }

    /// Reads the active features of the first `rows` rows, `[rows, k]`; see [`crate::sae::live`].
    pub async fn read_features(&self, rows: usize) -> Result<Vec<Activation>, SteeringError> {
        let count = rows * self.dictionary.k();
        Ok(self.gpu.read_vec(self.features(), 0, count).await?)
    }

    /// Checks interventions of one lane at this hook point.
    pub(super) fn compile(
        &self,
        interventions: &[Intervention],
    ) -> Result<Vec<Entry>, SteeringError> {
        table::compile(self.point, &*self.dictionary, interventions)
    }

    /// Makes `entries` the lane's: the next pass follows them.
    pub(super) fn set(&self, lane: usize, entries: Vec<Entry>) {
        let mut slots = [Entry::default(); SLOTS];
        slots[..entries.len()].copy_from_slice(&entries);
        self.gpu
            .write(&self.table, (lane * size_of_val(&slots)) as u64, &slots);
        self.fetch_directions(lane, &entries);
        let mut lanes = self.lanes.borrow_mut();
        lanes[lane] = entries;
        let any = |what: fn(&Entry) -> bool| lanes.iter().flatten().any(what);
        self.work.set(Work {
            encode: any(Entry::measures),
            rebuild: any(Entry::rebuilds),
            steer: any(|_| true),
        });
    }

    /// Copies the decoder rows, in f32, that the lane's entries need and that are not there yet.
    fn fetch_directions(&self, lane: usize, entries: &[Entry]) {
        let hidden4 = self.dictionary.width() as u32 / 4;
        let mut held = self.held.borrow_mut();
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let mut steps = Vec::new();
        for (slot, entry) in entries.iter().enumerate() {
            let at = lane * SLOTS + slot;
            if held[at] == Some(entry.latent) {
                continue;
            }
            // Compiled entries name rows of the dictionary.
            if let Some((decoder, row)) = self.dictionary.decoder_of(entry.latent) {
                let shape = FetchShape {
                    hidden4,
                    groups: quant::groups(decoder.cols()) as u32,
                    row,
                    slot: at as u32,
                };
                let shape = self.gpu.uniform("fetch shape", &shape);
                let mut buffers = decoder.buffers();
                buffers.extend([(3, &shape), (6, &self.directions)]);
                let step = self.fetch.bind(&self.gpu, &buffers);
                step.dispatch(&mut pass, [hidden4.div_ceil(64), 1, 1]);
                held[at] = Some(entry.latent);
                steps.push(step);
            }
        }
        drop(pass);
        // The steps live until here, where what they have recorded is submitted.
        if !steps.is_empty() {
            self.gpu.queue().submit([encoder.finish()]);
        }
    }

    /// The lane's entries.
    pub(super) fn entries(&self, lane: usize) -> Vec<Entry> {
        self.lanes.borrow()[lane].clone()
    }
}

impl BlockHook for Hook {
    fn layer(&self) -> usize {
        self.point.layer
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>, phase: Phase, rows: u32) {
        let bound = match phase {
            Phase::Prefill => &self.prefill,
            Phase::Decode => &self.decode,
        };
        let work = self.work.get();
        if self.encodes() {
            bound.coder.encode(pass, rows);
        } else if work.steer {
            bound.coder.measure(pass, rows);
        }
        if work.rebuild {
            bound.coder.rebuild(pass, rows);
        }
        if work.steer {
            bound.steer.dispatch(pass, [1, rows, 1]);
        }
    }
}
