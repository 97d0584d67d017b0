//! A dictionary at its place.

use std::cell::Cell;
use std::rc::Rc;

use super::SteeringError;
use super::place::Site;
use crate::gpu::{Buffer, Gpu};
use crate::phi3::{BlockHook, MAX_ROWS, Phase};
use crate::sae::{Activation, Coder, CoderStep, Dictionary, HookPoint, SaeError};

/// A dictionary at its place in a model.
pub struct Hook {
    gpu: Rc<Gpu>,
    dictionary: Rc<Dictionary>,
    point: HookPoint,
    coder: Coder,
    prefill: CoderStep,
    decode: CoderStep,
    work: Cell<Work>,
    /// By how many.
    watched: Cell<usize>,
}

/// What the steering needs measured.
#[derive(Clone, Copy, Default)]
struct Work {
    encode: bool,
    rebuild: bool,
    units: bool,
}

impl Hook {
    /// Puts `dictionary` at its hook point in `site`.
    pub(super) fn new(site: &Site, dictionary: Rc<Dictionary>) -> Result<Self, SteeringError> {
        if dictionary.width() != site.width {
            return Err(SaeError::WrongWidth {
                file: dictionary.label().into(),
                dictionary: dictionary.width(),
                model: site.width,
            }
            .into());
        }
        let point = dictionary.hook().ok_or_else(|| SaeError::HookUnknown {
            folder: dictionary.label().into(),
        })?;
        if point.layer >= site.layers {
            return Err(SaeError::NoSuchBlock {
                hook: point,
                layers: site.layers,
            }
            .into());
        }
        let gpu = &site.gpu;
        let coder = Coder::new(gpu, &dictionary, MAX_ROWS, site.lanes)?;
        let bind =
            |rows: &Buffer, many: bool| coder.bind(gpu, &dictionary, &site.residual, rows, many);
        Ok(Self {
            gpu: gpu.clone(),
            point,
            prefill: bind(&site.prefill_rows, true),
            decode: bind(&site.decode_rows, false),
            coder,
            dictionary,
            work: Cell::default(),
            watched: Cell::new(0),
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

    /// Makes every pass encode the residual stream, so that [`Hook::features`] can be shown, even if no
    /// intervention needs it, until it has been turned off as often as on.
    pub fn watch(&self, on: bool) {
        let watched = self.watched.get();
        self.watched.set(match on {
            true => watched + 1,
            false => watched.saturating_sub(1),
        });
    }

    /// Whether a pass encodes the residual stream as things are.
    pub fn encodes(&self) -> bool {
        let watched = self.watched.get() > 0 && self.dictionary.encodes();
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

    /// What the steering reads: the activations, or the list of those that are active; the reconstructions;
    /// the units.
    pub(super) fn measured(&self) -> [Buffer; 3] {
        let coder = &self.coder;
        let activations = match self.dictionary.rule().is_local() {
            true => coder.activations(),
            false => coder.features(),
        };
        [activations, coder.rebuilt(), coder.units()].map(Buffer::clone)
    }

    /// Reads the active features of the first `rows` rows, `[rows, k]`; see [`crate::sae::live`].
    pub async fn read_features(&self, rows: usize) -> Result<Vec<Activation>, SteeringError> {
        let count = rows * self.dictionary.k();
        Ok(self.gpu.read_vec(self.features(), 0, count).await?)
    }

    /// What the steering needs in every pass from now on: activations, reconstructions, units.
    pub(super) fn need(&self, encode: bool, rebuild: bool, units: bool) {
        self.work.set(Work {
            encode,
            rebuild,
            units,
        });
    }

    /// Records what is looked at and what the steering needs of the first `rows` rows.
    pub(super) fn measure(&self, pass: &mut wgpu::ComputePass<'_>, phase: Phase, rows: u32) {
        let coder = match phase {
            Phase::Prefill => &self.prefill,
            Phase::Decode => &self.decode,
        };
        let work = self.work.get();
        if self.encodes() {
            coder.encode(pass, rows);
        } else if work.units {
            coder.measure(pass, rows);
        }
        if work.rebuild {
            coder.rebuild(pass, rows);
        }
    }
}

/// Looks, and edits nothing.
impl BlockHook for Hook {
    fn layer(&self) -> usize {
        self.point.layer
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>, phase: Phase, rows: u32) {
        self.measure(pass, phase, rows);
    }
}
