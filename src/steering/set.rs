//! The steering of a model: its hooks, and every lane's interventions.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{Hook, Intervention, SteeringError};
use crate::phi3::{BlockHook, Model};
use crate::sae::{Dictionary, HookPoint};

/// What a lane does.
#[derive(Clone, Default)]
struct Lane {
    interventions: Vec<Intervention>,
    setting: u64,
}

/// The dictionaries of a model and what each lane does with them.
pub struct Steering {
    hooks: Vec<Hook>,
    lanes: RefCell<Vec<Lane>>,
    /// Settings so far.
    settings: Cell<u64>,
}

impl Steering {
    /// Puts `dictionaries`, each of another hook point, into `model`; no lane is steered.
    pub async fn new(model: &Model, dictionaries: Vec<Dictionary>) -> Result<Self, SteeringError> {
        Self::put(model, dictionaries.into_iter().map(Rc::new)).await
    }

    /// The same dictionaries, which stay on the GPU once, in `model`; no lane of it is steered.
    pub async fn fork(&self, model: &Model) -> Result<Self, SteeringError> {
        Self::put(model, self.hooks.iter().map(|h| h.dictionary().clone())).await
    }

    async fn put(
        model: &Model,
        dictionaries: impl Iterator<Item = Rc<Dictionary>>,
    ) -> Result<Self, SteeringError> {
        let hooks = dictionaries.map(|dictionary| Hook::new(model, dictionary));
        let hooks = hooks.collect::<Result<Vec<_>, _>>()?;
        let steering = Self::of(hooks, model.lanes())?;
        model.gpu().settle().await?;
        Ok(steering)
    }

    /// The steering of `hooks`.
    pub(super) fn of(hooks: Vec<Hook>, lanes: usize) -> Result<Self, SteeringError> {
        for (i, hook) in hooks.iter().enumerate() {
            if hooks[..i].iter().any(|other| other.point() == hook.point()) {
                return Err(SteeringError::TwoDictionaries(hook.point()));
            }
        }
        Ok(Self {
            hooks,
            lanes: RefCell::new(vec![Lane::default(); lanes]),
            settings: Cell::new(0),
        })
    }

    /// Replaces the lane's interventions. Takes effect with the next pass that is submitted and writes
    /// only the steering tables; on an error nothing has changed. Returns the setting's number: one more
    /// than that of the setting before it, of whatever lane.
    pub fn set(&self, lane: usize, interventions: &[Intervention]) -> Result<u64, SteeringError> {
        let lanes = self.lanes.borrow().len();
        if lane >= lanes {
            return Err(SteeringError::UnknownLane { lane, lanes });
        }
        if let Some(one) = interventions.iter().find(|i| self.hook(i.hook).is_none()) {
            return Err(SteeringError::UnknownHook {
                hook: one.hook,
                loaded: self.loaded(),
            });
        }
        let mut compiled = Vec::with_capacity(self.hooks.len());
        for hook in &self.hooks {
            let own: Vec<Intervention> = interventions
                .iter()
                .filter(|i| i.hook == hook.point())
                .cloned()
                .collect();
            compiled.push(hook.compile(&own)?);
        }
        for (hook, entries) in self.hooks.iter().zip(compiled) {
            hook.set(lane, entries);
        }
        let setting = self.settings.get() + 1;
        self.settings.set(setting);
        self.lanes.borrow_mut()[lane] = Lane {
            interventions: interventions.to_vec(),
            setting,
        };
        Ok(setting)
    }

    /// The number of the lane's setting, as [`Steering::set`] gave it; 0 if nothing was ever set.
    pub fn setting(&self, lane: usize) -> u64 {
        self.lanes.borrow().get(lane).map_or(0, |l| l.setting)
    }

    /// What is loaded, in words.
    pub(crate) fn loaded(&self) -> String {
        if self.hooks.is_empty() {
            return "no dictionary is loaded".into();
        }
        let points: Vec<String> = self.hooks.iter().map(|h| h.point().to_string()).collect();
        format!("the dictionaries loaded are of {}", points.join(", "))
    }

    /// The lane's interventions; none if there is no such lane.
    pub fn interventions(&self, lane: usize) -> Vec<Intervention> {
        let lanes = self.lanes.borrow();
        lanes
            .get(lane)
            .map_or_else(Vec::new, |l| l.interventions.clone())
    }

    /// The hooks, for a pass of the model.
    pub fn hooks(&self) -> Vec<&dyn BlockHook> {
        self.hooks.iter().map(|h| h as &dyn BlockHook).collect()
    }

    /// The hook points that have a dictionary.
    pub fn points(&self) -> Vec<HookPoint> {
        self.hooks.iter().map(Hook::point).collect()
    }

    /// The hook at `point`.
    pub fn hook(&self, point: HookPoint) -> Option<&Hook> {
        self.hooks.iter().find(|h| h.point() == point)
    }

    /// A number for what the lane's steering does to a token with these `ROW_` flags: 0 for nothing,
    /// otherwise equal for equal steering. A token's cached keys and values are those of another
    /// steering only if the token, or one before it, has another fingerprint.
    pub fn fingerprint(&self, lane: usize, row_flags: u32) -> u64 {
        // FNV-1a, 64 bits.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut any = false;
        if lane >= self.lanes.borrow().len() {
            return 0;
        }
        for hook in &self.hooks {
            for entry in hook.entries(lane).iter().filter(|e| e.applies(row_flags)) {
                any = true;
                let layer = hook.point().layer as u32;
                for byte in [layer]
                    .into_iter()
                    .chain(entry.effect())
                    .flat_map(u32::to_le_bytes)
                {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
                }
            }
        }
        if any { hash | 1 } else { 0 }
    }
}
