//! One place in the residual stream, with the steering table of every lane.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Hook;
use super::table::{self, Edit, Entry, SLOTS};
use crate::gpu::{Access, Buffer, Gpu, GpuError, Kernel, KernelDescriptor, Step, shaders};
use crate::matrix::{weights_bindings, weights_part};
use crate::phi3::{BlockHook, MAX_ROWS, Model, Phase};
use crate::quant;
use crate::sae::{Dictionary, HookPoint};

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

/// The buffers of a model that its steering works on.
#[derive(Clone)]
pub(super) struct Site {
    pub gpu: Rc<Gpu>,
    /// `[MAX_ROWS, width]`
    pub residual: Buffer,
    /// The prefill pass's `Rows`.
    pub prefill_rows: Buffer,
    /// The decode pass's `Rows`.
    pub decode_rows: Buffer,
    pub lanes: usize,
    /// Elements of the residual stream.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
}

impl Site {
    /// Those of `model`.
    pub fn of(model: &Model) -> Self {
        Self {
            gpu: model.gpu().clone(),
            residual: model.residual().clone(),
            prefill_rows: model.rows(Phase::Prefill).clone(),
            decode_rows: model.rows(Phase::Decode).clone(),
            lanes: model.lanes(),
            width: model.config().hidden_size,
            layers: model.config().num_hidden_layers,
        }
    }
}

/// The output of a block where something is edited or looked at.
pub(super) struct Place {
    gpu: Rc<Gpu>,
    point: HookPoint,
    hook: Option<Hook>,
    prefill: Step,
    decode: Step,
    width: usize,
    /// `[lanes, SLOTS]` of [`Entry`]
    table: Buffer,
    /// `[lanes, SLOTS, width]`: what the entries work along.
    directions: Buffer,
    /// Copies a decoder row to `directions`.
    fetch: Option<Kernel>,
    /// What the table holds.
    lanes: RefCell<Vec<Vec<Edit>>>,
    /// What `directions` holds, by [`Entry::source`], `[lanes, SLOTS]`.
    held: RefCell<Vec<Option<(bool, u32)>>>,
    steers: Cell<bool>,
}

impl Place {
    /// The place `point` of `site`, with its dictionary if it has one.
    pub fn new(site: &Site, point: HookPoint, hook: Option<Hook>) -> Result<Self, GpuError> {
        let gpu = &site.gpu;
        let dictionary = hook.as_ref().map(Hook::dictionary);
        // TopK's list has all that is active; other rules' lists may not.
        let dense = dictionary.is_some_and(|d| d.rule().is_local());
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
        let slots = site.lanes * SLOTS;
        let table = gpu.storage("steering table", (slots * size_of::<Entry>()) as u64)?;
        let directions = gpu.storage("steering directions", (slots * site.width * 4) as u64)?;
        let shape = gpu.uniform(
            "steering shape",
            &SteerShape {
                hidden4: site.width as u32 / 4,
                inputs: dictionary.map_or(0, |d| match dense {
                    true => d.loaded() as u32,
                    false => d.k() as u32,
                }),
                slots: SLOTS as u32,
                unused: 0,
            },
        );
        let [features, rebuilt, units] = match &hook {
            Some(hook) => hook.measured(),
            None => {
                // Nothing measures here.
                let none = gpu.storage("units", (MAX_ROWS * 8) as u64)?;
                [none.clone(), none.clone(), none]
            }
        };
        let bind = |rows: &Buffer| {
            kernel.bind(
                gpu,
                &[
                    (0, &table),
                    (1, &directions),
                    (2, &features),
                    (3, &shape),
                    (4, &rebuilt),
                    (5, rows),
                    (6, &site.residual),
                    (7, &units),
                ],
            )
        };
        Ok(Self {
            gpu: gpu.clone(),
            point,
            prefill: bind(&site.prefill_rows),
            decode: bind(&site.decode_rows),
            width: site.width,
            fetch: dictionary.map(|d| fetch_kernel(gpu, d)),
            hook,
            table,
            directions,
            lanes: RefCell::new(vec![Vec::new(); site.lanes]),
            held: RefCell::new(vec![None; slots]),
            steers: Cell::new(false),
        })
    }

    /// Where it is.
    pub fn point(&self) -> HookPoint {
        self.point
    }

    /// Its dictionary.
    pub fn hook(&self) -> Option<&Hook> {
        self.hook.as_ref()
    }

    /// Makes `edits` the lane's: the next pass follows them.
    pub fn set(&self, lane: usize, edits: Vec<Edit>) {
        let mut slots = [Entry::default(); SLOTS];
        for (slot, edit) in slots.iter_mut().zip(&edits) {
            *slot = edit.entry;
        }
        self.gpu
            .write(&self.table, (lane * size_of_val(&slots)) as u64, &slots);
        self.fetch_directions(lane, &edits);
        let mut lanes = self.lanes.borrow_mut();
        lanes[lane] = edits;
        let any = |what: fn(&Entry) -> bool| lanes.iter().flatten().any(|e| what(&e.entry));
        self.steers.set(any(|_| true));
        if let Some(hook) = &self.hook {
            hook.need(
                any(Entry::measures),
                any(Entry::rebuilds),
                any(Entry::scales),
            );
        }
    }

    /// Brings, in f32, what the lane's entries work along and what is not there yet.
    fn fetch_directions(&self, lane: usize, edits: &[Edit]) {
        let mut held = self.held.borrow_mut();
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let mut steps = Vec::new();
        for (slot, edit) in edits.iter().enumerate() {
            let at = lane * SLOTS + slot;
            if held[at] == Some(edit.entry.source()) {
                continue;
            }
            if let Some(direction) = &edit.direction {
                let offset = (at * self.width * 4) as u64;
                self.gpu.write(&self.directions, offset, &direction.values);
            } else if let Some(step) = self.fetch_row(edit.entry.latent, at) {
                step.dispatch(&mut pass, [(self.width as u32 / 4).div_ceil(64), 1, 1]);
                steps.push(step);
            }
            held[at] = Some(edit.entry.source());
        }
        drop(pass);
        // The steps live until here, where what they have recorded is submitted.
        if !steps.is_empty() {
            self.gpu.queue().submit([encoder.finish()]);
        }
    }

    /// The copy of a decoder row to slot `at`; compiled entries name rows of the dictionary.
    fn fetch_row(&self, latent: u32, at: usize) -> Option<Step> {
        let dictionary = self.hook.as_ref()?.dictionary();
        let (decoder, row) = dictionary.decoder_of(latent)?;
        let shape = FetchShape {
            hidden4: self.width as u32 / 4,
            groups: quant::groups(decoder.cols()) as u32,
            row,
            slot: at as u32,
        };
        let shape = self.gpu.uniform("fetch shape", &shape);
        let mut buffers = decoder.buffers();
        buffers.extend([(3, &shape), (6, &self.directions)]);
        Some(self.fetch.as_ref()?.bind(&self.gpu, &buffers))
    }

    /// Calls `see` with every entry of the lane.
    pub fn each_entry(&self, lane: usize, mut see: impl FnMut(&Entry)) {
        for edit in &self.lanes.borrow()[lane] {
            see(&edit.entry);
        }
    }
}

fn fetch_kernel(gpu: &Gpu, dictionary: &Dictionary) -> Kernel {
    let format = dictionary.format();
    let mut bindings = vec![(3, Access::Uniform), (6, Access::Write)];
    bindings.extend_from_slice(weights_bindings(format));
    gpu.kernel(&KernelDescriptor {
        label: "fetch_direction",
        parts: &[
            weights_part(format),
            shaders::DECODER_ROW,
            shaders::FETCH_DIRECTION,
        ],
        constants: &[],
        bindings: &bindings,
    })
}

impl BlockHook for Place {
    fn layer(&self) -> usize {
        self.point.layer
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>, phase: Phase, rows: u32) {
        if let Some(hook) = &self.hook {
            hook.measure(pass, phase, rows);
        }
        if self.steers.get() {
            let step = match phase {
                Phase::Prefill => &self.prefill,
                Phase::Decode => &self.decode,
            };
            step.dispatch(pass, [1, rows, 1]);
        }
    }
}
