//! The steering of a model: its places, and every lane's interventions.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use super::direction::{self, Directions};
use super::place::{Place, Site};
use super::table::{self, Edit, Sources};
use super::{Gate, GateKind, Hook, Intervention, SteeringError, Target, Watch};
use crate::phi3::{BlockHook, Model, ModelError};
use crate::sae::{Dictionary, HookPoint};

/// What a lane does.
#[derive(Clone, Default)]
struct Lane {
    interventions: Vec<Intervention>,
    setting: u64,
    gate: Option<Rc<Gate>>,
    /// Whether the gate has decided that the interventions do not hold.
    closed: bool,
}

/// The dictionaries and directions of a model, and what each lane does with them.
pub struct Steering {
    site: Site,
    /// By block; made where a dictionary or a direction is put.
    places: Vec<OnceCell<Place>>,
    directions: RefCell<Directions>,
    lanes: RefCell<Vec<Lane>>,
    /// Settings so far.
    settings: Cell<u64>,
}

impl Steering {
    /// Puts `dictionaries`, each of another hook point, into `model`; no lane is steered.
    pub async fn new(model: &Model, dictionaries: Vec<Dictionary>) -> Result<Self, SteeringError> {
        let dictionaries = dictionaries.into_iter().map(Rc::new);
        let steering = Self::at(Site::of(model), dictionaries)?;
        model.gpu().settle().await?;
        Ok(steering)
    }

    /// The same dictionaries, which stay on the GPU once, and the same directions in `model`; no lane of it
    /// is steered.
    pub async fn fork(&self, model: &Model) -> Result<Self, SteeringError> {
        let hooks = self.made().filter_map(Place::hook);
        let steering = Self::at(Site::of(model), hooks.map(|h| h.dictionary().clone()))?;
        for (hook, _) in self.directions.borrow().names() {
            steering.place(hook)?;
        }
        *steering.directions.borrow_mut() = self.directions.borrow().clone();
        model.gpu().settle().await?;
        Ok(steering)
    }

    /// Puts `dictionaries` into `site`.
    pub(super) fn at(
        site: Site,
        dictionaries: impl Iterator<Item = Rc<Dictionary>>,
    ) -> Result<Self, SteeringError> {
        let places: Vec<OnceCell<Place>> = (0..site.layers).map(|_| OnceCell::new()).collect();
        for dictionary in dictionaries {
            let hook = Hook::new(&site, dictionary)?;
            let point = hook.point();
            let place = Place::new(&site, point, Some(hook))?;
            if places[point.layer].set(place).is_err() {
                return Err(SteeringError::TwoDictionaries(point));
            }
        }
        Ok(Self {
            places,
            directions: RefCell::default(),
            lanes: RefCell::new(vec![Lane::default(); site.lanes]),
            settings: Cell::new(0),
            site,
        })
    }

    /// The places there are.
    fn made(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter_map(OnceCell::get)
    }

    /// The place at `point`, made if it is not there yet.
    fn place(&self, point: HookPoint) -> Result<&Place, SteeringError> {
        let layers = self.site.layers;
        let layer = point.layer;
        let cell = self.places.get(layer);
        let cell = cell.ok_or(ModelError::NoBlock { layer, layers })?;
        if let Some(place) = cell.get() {
            return Ok(place);
        }
        let place = Place::new(&self.site, point, None)?;
        Ok(cell.get_or_init(|| place))
    }

    /// Makes `values`, `[hidden]` in the residual's units, a direction that interventions at `hook` can name,
    /// in place of one of that name; lanes that work along it go on along the new one, as after
    /// [`Steering::set`]. No dictionary is needed.
    pub fn add_direction(
        &self,
        hook: HookPoint,
        name: &str,
        values: Vec<f32>,
    ) -> Result<(), SteeringError> {
        direction::check(hook, name, &values, self.site.width)?;
        self.place(hook)?;
        if !self.directions.borrow_mut().put(hook, name, values) {
            return Ok(());
        }
        for lane in 0..self.site.lanes {
            let list = self.interventions(lane);
            let along = |i: &Intervention| i.hook == hook && i.direction() == Some(name);
            if list.iter().any(along) {
                self.set(lane, &list)?;
            }
        }
        Ok(())
    }

    /// The directions there are, by place and name.
    pub fn directions(&self) -> Vec<(HookPoint, String)> {
        self.directions.borrow().names()
    }

    /// Replaces the lane's interventions. Takes effect with the next pass that is submitted and writes
    /// only the steering tables; on an error nothing has changed. A lane whose gate has decided against steering
    /// stays unsteered until it decides again. Returns the setting's number: one more than that of the
    /// setting before it, of whatever lane.
    pub fn set(&self, lane: usize, interventions: &[Intervention]) -> Result<u64, SteeringError> {
        self.check_lane(lane)?;
        let compiled = self.compile(interventions)?;
        let setting = self.settings.get() + 1;
        self.settings.set(setting);
        {
            let own = &mut self.lanes.borrow_mut()[lane];
            own.interventions = interventions.to_vec();
            own.setting = setting;
        }
        self.apply(lane, compiled);
        Ok(setting)
    }

    fn check_lane(&self, lane: usize) -> Result<(), SteeringError> {
        let lanes = self.site.lanes;
        match lane < lanes {
            true => Ok(()),
            false => Err(SteeringError::UnknownLane { lane, lanes }),
        }
    }

    /// Writes what the lane's interventions are at each place, or nothing where its gate is closed.
    fn apply(&self, lane: usize, compiled: Vec<Vec<Edit>>) {
        let closed = self.lanes.borrow()[lane].closed;
        for (place, edits) in self.made().zip(compiled) {
            place.set(lane, if closed { Vec::new() } else { edits });
        }
    }

    /// Gives the lane a gate, which decides at the beginning of every answer whether its interventions hold
    /// for it; until it has, they hold as before. With none they always hold, from the next pass on.
    pub fn set_gate(&self, lane: usize, gate: Option<Gate>) -> Result<(), SteeringError> {
        self.check_lane(lane)?;
        if let Some(gate) = &gate {
            gate.check(self.site.width)?;
            let (layer, layers) = (gate.hook.layer, self.site.layers);
            if layer >= layers {
                return Err(ModelError::NoBlock { layer, layers }.into());
            }
            if let GateKind::Feature { feature } = gate.kind {
                let hook = self
                    .hook(gate.hook)
                    .ok_or_else(|| SteeringError::UnknownHook {
                        hook: gate.hook,
                        loaded: self.loaded(),
                    })?;
                // What cannot be looked at is refused.
                Watch::new(hook, Some(feature))?;
            }
        }
        let gone = gate.is_none();
        self.lanes.borrow_mut()[lane].gate = gate.map(Rc::new);
        match gone {
            true => self.decide(lane, true),
            false => Ok(()),
        }
    }

    /// The lane's gate.
    pub fn gate(&self, lane: usize) -> Option<Rc<Gate>> {
        self.lanes.borrow().get(lane)?.gate.clone()
    }

    /// Whether the lane's interventions hold, from the next pass on.
    pub(crate) fn decide(&self, lane: usize, hold: bool) -> Result<(), SteeringError> {
        if self.lanes.borrow()[lane].closed != hold {
            return Ok(());
        }
        let compiled = self.compile(&self.interventions(lane))?;
        self.lanes.borrow_mut()[lane].closed = !hold;
        self.apply(lane, compiled);
        Ok(())
    }

    /// What a lane's interventions are at each place there is.
    fn compile(&self, interventions: &[Intervention]) -> Result<Vec<Vec<Edit>>, SteeringError> {
        for one in interventions {
            match &one.target {
                Target::Direction(name) => {
                    self.directions.borrow().get(one.hook, name)?;
                }
                _ if self.hook(one.hook).is_some() => {}
                _ => {
                    return Err(SteeringError::UnknownHook {
                        hook: one.hook,
                        loaded: self.loaded(),
                    });
                }
            }
        }
        let directions = self.directions.borrow();
        let at = |place: &Place| {
            let own = interventions.iter().filter(|i| i.hook == place.point());
            let own: Vec<Intervention> = own.cloned().collect();
            let sources = Sources {
                dictionary: place.hook().map(|hook| &**hook.dictionary() as _),
                directions: &directions,
            };
            table::compile(place.point(), &sources, &own)
        };
        self.made().map(at).collect()
    }

    /// The number of the lane's setting, as [`Steering::set`] gave it; 0 if nothing was ever set.
    pub fn setting(&self, lane: usize) -> u64 {
        self.lanes.borrow().get(lane).map_or(0, |l| l.setting)
    }

    /// What is loaded, in words.
    pub(crate) fn loaded(&self) -> String {
        let points = self.points();
        if points.is_empty() {
            return "no dictionary is loaded".into();
        }
        let points: Vec<String> = points.iter().map(HookPoint::to_string).collect();
        format!("the dictionaries loaded are of {}", points.join(", "))
    }

    /// The lane's interventions; none if there is no such lane.
    pub fn interventions(&self, lane: usize) -> Vec<Intervention> {
        let lanes = self.lanes.borrow();
        lanes
            .get(lane)
            .map_or_else(Vec::new, |l| l.interventions.clone())
    }

    /// The work at all places, for a pass of the model.
    pub fn hooks(&self) -> Vec<&dyn BlockHook> {
        self.made().map(|place| place as &dyn BlockHook).collect()
    }

    /// The hook points that have a dictionary.
    pub fn points(&self) -> Vec<HookPoint> {
        let hooks = self.made().filter_map(Place::hook);
        hooks.map(Hook::point).collect()
    }

    /// The dictionary at `point`.
    pub fn hook(&self, point: HookPoint) -> Option<&Hook> {
        self.places.get(point.layer)?.get()?.hook()
    }

    /// The first block whose output the lane's steering edits at a token with these `ROW_` flags: keys and values
    /// up to this block are as without steering.
    pub(crate) fn first_edited(&self, lane: usize, row_flags: u32) -> Option<usize> {
        let edits = |place: &&Place| {
            let mut edits = false;
            place.each_entry(lane, |entry| edits |= entry.applies(row_flags));
            edits
        };
        let first = self.made().find(edits);
        first.map(|place| place.point().layer)
    }

    /// A number for what the lane's steering does to a token with these `ROW_` flags: 0 for nothing,
    /// otherwise equal for equal steering. A token's cached keys and values are those of another
    /// steering only if the token, or one before it, has another fingerprint.
    pub fn fingerprint(&self, lane: usize, row_flags: u32) -> u64 {
        // FNV-1a, 64 bits.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut any = false;
        if lane >= self.site.lanes {
            return 0;
        }
        for place in self.made() {
            let layer = place.point().layer as u32;
            place.each_entry(lane, |entry| {
                if !entry.applies(row_flags) {
                    return;
                }
                any = true;
                let words = [layer].into_iter().chain(entry.effect());
                for byte in words.flat_map(u32::to_le_bytes) {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
                }
            });
        }
        if any { hash | 1 } else { 0 }
    }
}
