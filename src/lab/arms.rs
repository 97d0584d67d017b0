//! The arms of an evaluation: the feature at several strengths, and what it is compared with.

use crate::sae::HookPoint;
use crate::steering::{Intervention, Operator};

/// The sets that an arm is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// Direct requests, jailbreaks and benign requests: enough to compare refusals.
    Refusals,
}

/// One way of steering.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// What it is, in words.
    pub name: String,
    /// The strength, if it has one.
    pub value: Option<f32>,
    /// What is done in every lane.
    pub interventions: Vec<Intervention>,
    /// The sets that it is measured on.
    pub scope: Scope,
    /// Whether it is a point of the dose-response curve: the feature clamped to `value` >= 0.
    pub on_curve: bool,
}

/// What to compare.
pub struct Plan {
    /// Where the feature is.
    pub hook: HookPoint,
    /// The feature.
    pub feature: u32,
    /// The clamp's values, >= 0.
    pub values: Vec<f32>,
    /// The clamp's values below 0.
    pub negatives: Vec<f32>,
    /// The value at which controls are measured.
    pub at: f32,
    /// Other features to clamp to `at`.
    pub others: Vec<u32>,
    /// Features that are directions of the same norm, of which `at` is added (see
    /// [`add_directions`](super::add_directions)).
    pub directions: Vec<u32>,
}

impl Plan {
    /// The arms, the unsteered base first.
    pub fn arms(&self) -> Vec<Arm> {
        let at = self.at;
        let one = |feature, op, value| vec![Intervention::new(self.hook, feature, op, value)];
        let arm = |name: String, value, interventions| Arm {
            name,
            value,
            interventions,
            scope: Scope::All,
            on_curve: false,
        };
        let clamp = |value: f32| {
            let steering = one(self.feature, Operator::Clamp, Some(value));
            arm(format!("clamp {value}"), Some(value), steering)
        };
        let mut arms = vec![arm("base".into(), None, Vec::new())];
        arms.extend(self.values.iter().map(|&value| Arm {
            on_curve: true,
            ..clamp(value)
        }));
        let refusals = |arm| Arm {
            scope: Scope::Refusals,
            ..arm
        };
        let ablate = one(self.feature, Operator::Scale, Some(0.0));
        arms.push(refusals(arm("ablated".into(), None, ablate)));
        arms.extend(self.negatives.iter().map(|&value| refusals(clamp(value))));
        let rebuilt = one(0, Operator::Reconstruct, None);
        arms.push(arm("reconstruction, no clamp".into(), None, rebuilt));
        let dropped = one(self.feature, Operator::ClampReplace, Some(at));
        arms.push(arm(format!("clamp {at}, error dropped"), Some(at), dropped));
        let control = |name, steering| refusals(arm(name, Some(at), steering));
        arms.extend(self.others.iter().map(|&other| {
            let name = format!("random feature {other} at {at}");
            control(name, one(other, Operator::Clamp, Some(at)))
        }));
        arms.extend(self.directions.iter().enumerate().map(|(i, &direction)| {
            let name = format!("random direction {} at {at}", i + 1);
            control(name, one(direction, Operator::Add, Some(at)))
        }));
        arms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arm_says_what_it_does() {
        let plan = Plan {
            hook: HookPoint::block(3),
            feature: 7,
            values: vec![2.0, 4.5],
            negatives: vec![-8.0],
            at: 4.5,
            others: vec![5],
            directions: vec![100],
        };
        let arms = plan.arms();
        let told: Vec<(String, Vec<String>)> = arms
            .iter()
            .map(|a| {
                let steering = a.interventions.iter().map(ToString::to_string);
                (a.name.clone(), steering.collect())
            })
            .collect();
        let expected = [
            ("base", None),
            ("clamp 2", Some("layers.3:7:clamp:2")),
            ("clamp 4.5", Some("layers.3:7:clamp:4.5")),
            ("ablated", Some("layers.3:7:scale:0")),
            ("clamp -8", Some("layers.3:7:clamp:-8")),
            ("reconstruction, no clamp", Some("layers.3:-:reconstruct")),
            (
                "clamp 4.5, error dropped",
                Some("layers.3:7:clamp_replace:4.5"),
            ),
            ("random feature 5 at 4.5", Some("layers.3:5:clamp:4.5")),
            ("random direction 1 at 4.5", Some("layers.3:100:add:4.5")),
        ];
        assert_eq!(told.len(), expected.len());
        for ((name, steering), (words, what)) in told.iter().zip(expected) {
            assert_eq!(name, words);
            assert_eq!(steering.first().map(String::as_str), what);
        }
        let curve = arms.iter().filter(|a| a.on_curve).map(|a| a.value);
        assert_eq!(curve.collect::<Vec<_>>(), [Some(2.0), Some(4.5)]);
        let few = arms.iter().filter(|a| a.scope == Scope::Refusals);
        assert_eq!(few.count(), 4);
    }
}
