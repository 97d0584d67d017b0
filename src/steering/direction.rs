//! Directions of the residual stream that no dictionary has.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::SteeringError;
use crate::sae::HookPoint;

/// Characters of a name at most.
const LONGEST_NAME: usize = 64;

/// A vector that interventions work along.
#[derive(Debug)]
pub(super) struct Direction {
    /// Its number, another one whenever the values are others.
    pub id: u32,
    /// `[width]`, in the residual's units.
    pub values: Vec<f32>,
}

/// The directions of a model by place and name.
#[derive(Clone, Default)]
pub(super) struct Directions {
    by_name: BTreeMap<(HookPoint, String), Rc<Direction>>,
    next: u32,
}

impl Directions {
    /// The direction called `name` at `hook`.
    pub fn get(&self, hook: HookPoint, name: &str) -> Result<Rc<Direction>, SteeringError> {
        let found = self.by_name.get(&(hook, name.to_string()));
        found
            .cloned()
            .ok_or_else(|| SteeringError::UnknownDirection {
                hook,
                name: name.into(),
                known: self.known(),
            })
    }

    /// Puts `values` at `hook` under `name`, in place of what was there. False if the same was there.
    pub fn put(&mut self, hook: HookPoint, name: &str, values: Vec<f32>) -> bool {
        let key = (hook, name.to_string());
        if self.by_name.get(&key).is_some_and(|d| d.values == values) {
            return false;
        }
        let id = self.next;
        self.next += 1;
        self.by_name.insert(key, Rc::new(Direction { id, values }));
        true
    }

    /// Places and names.
    pub fn names(&self) -> Vec<(HookPoint, String)> {
        self.by_name.keys().cloned().collect()
    }

    fn known(&self) -> String {
        if self.by_name.is_empty() {
            return "none was added".into();
        }
        let names = self.by_name.keys();
        let names: Vec<String> = names
            .map(|(hook, name)| format!("{hook}:@{name}"))
            .collect();
        format!("there are {}", names.join(", "))
    }
}

/// What is wrong with `values` as the direction `name` at `hook` of a stream `width` wide.
pub(super) fn check(
    hook: HookPoint,
    name: &str,
    values: &[f32],
    width: usize,
) -> Result<(), SteeringError> {
    check_name(name)?;
    let fail = |reason: String| {
        Err(SteeringError::BadDirection {
            hook,
            name: name.into(),
            reason,
        })
    };
    if values.len() != width {
        let count = values.len();
        return fail(format!(
            "it has {count} numbers, and the residual stream {width}"
        ));
    }
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return fail(format!(
            "number {at} is {}, which is not finite",
            values[at]
        ));
    }
    let squares: f32 = values.iter().map(|v| v * v).sum();
    if squares == 0.0 {
        return fail("it is zero, and points nowhere".into());
    }
    if !squares.is_finite() {
        return fail("it is too long to measure: scale it down".into());
    }
    Ok(())
}

/// Whether a direction may be called `name`: its written form must be read again.
pub(super) fn check_name(name: &str) -> Result<(), SteeringError> {
    let plain = |c: char| c.is_alphanumeric() || "_-.+ ".contains(c);
    let short = (1..=LONGEST_NAME).contains(&name.chars().count());
    if short && name.trim() == name && name.chars().all(plain) {
        return Ok(());
    }
    Err(SteeringError::BadName {
        name: name.chars().take(LONGEST_NAME).collect(),
    })
}
