//! The arms of a measurement: what is steered at several strengths, and its controls.

use serde::{Deserialize, Serialize};

use super::control::{Control, DRAWN, SAFETY_PROMPT};
use super::digest;
use super::find::packed;
use crate::sae::HookPoint;
use crate::steering::{Intervention, Operator, Positions};

/// A feature and what a strength of 1 is of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Weighted {
    /// The feature.
    pub feature: u32,
    /// The value that a strength of 1 stands for, as its largest activation; 1 if not given.
    #[serde(default = "one")]
    pub max: f32,
}

fn one() -> f32 {
    1.0
}

/// What is steered with one strength: features together, or a direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// What it is called; its features' numbers if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The features.
    #[serde(default)]
    pub features: Vec<Weighted>,
    /// A direction in their place, `[hidden]`, in base64 of f32, as a search gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

/// A direction of the residual stream, `[hidden]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Direction(#[serde(with = "packed")] pub Vec<f32>);

impl Target {
    /// What it is called.
    pub fn label(&self) -> String {
        let numbers = || {
            let all = self.features.iter().map(|f| f.feature.to_string());
            all.collect::<Vec<_>>().join(" + ")
        };
        match (&self.name, &self.direction) {
            (Some(name), _) => name.clone(),
            (None, Some(_)) => "direction".into(),
            (None, None) => numbers(),
        }
    }

    /// What its direction is called on the model.
    pub fn key(&self) -> String {
        let text = self.label();
        let plain = |c: char| if c.is_alphanumeric() { c } else { '-' };
        let name: String = text.chars().take(24).map(plain).collect();
        format!("lab-{name}-{}", &digest(text.as_bytes())[..6])
    }

    /// `op` on each feature with `value` times its unit, or on the direction.
    fn steer(&self, hook: HookPoint, op: Operator, value: Option<f32>) -> Vec<Intervention> {
        if self.direction.is_some() {
            return vec![Intervention::along(hook, &self.key(), op, value)];
        }
        let unit = |f: &Weighted| if op.row().factor { 1.0 } else { f.max };
        let one = |f: &Weighted| Intervention::new(hook, f.feature, op, value.map(|v| v * unit(f)));
        self.features.iter().map(one).collect()
    }
}

/// The sets that an arm is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All of them.
    All,
    /// Those that tell refusals and right answers: no small talk, perplexity or KL.
    Answers,
    /// Direct requests, jailbreaks and benign requests: enough to compare refusals.
    Refusals,
}

/// One way of steering.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// What it is, in words.
    pub name: String,
    /// The control that it is, if it is one.
    pub control: Option<Control>,
    /// Which curve it is a point of.
    pub series: Option<usize>,
    /// The strength, if it has one.
    pub value: Option<f32>,
    /// What is done in every lane.
    pub interventions: Vec<Intervention>,
    /// A system message that goes before every conversation.
    pub system: Option<&'static str>,
    /// Whether it steers only where the gate says so.
    pub gated: bool,
    /// The sets that it is measured on.
    pub scope: Scope,
}

/// A curve: one way of steering at all values.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// What it is, in words; "" for what is measured first.
    pub name: String,
    /// What is steered.
    pub target: String,
    /// How.
    pub operator: Operator,
    /// Where.
    pub positions: Positions,
    /// Whether only where the gate says so.
    pub gated: bool,
    /// Whether only where the feature is active.
    pub only_if_active: bool,
}

/// What to compare.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where.
    pub hook: HookPoint,
    /// What is steered; the controls are about the first.
    pub targets: Vec<Target>,
    /// How.
    pub operators: Vec<Operator>,
    /// At which tokens.
    pub positions: Vec<Positions>,
    /// Whether everywhere and whether only where the gate says so.
    pub gated: Vec<bool>,
    /// Whether only where the feature is active.
    pub only_if_active: Vec<bool>,
    /// The strengths of a curve.
    pub values: Vec<f32>,
    /// Strengths below 0, of the first way of steering.
    pub negatives: Vec<f32>,
    /// The strength at which controls are measured.
    pub at: f32,
    /// Which controls.
    pub controls: Vec<Control>,
    /// Other features to clamp.
    pub others: Vec<u32>,
    /// The unrelated feature.
    pub unrelated: Option<u32>,
    /// Random directions, by name.
    pub directions: Vec<String>,
    /// The best random direction, by name.
    pub chosen: Option<String>,
    /// The difference of means, by name.
    pub means: Option<String>,
    /// The direction in the harmless prompts' null space, by name, and the factor of a strength of 1 over 1.
    pub null_space: Option<(String, f32)>,
    /// What the curves are measured on.
    pub scope: Scope,
}

impl Plan {
    /// The curves.
    pub fn series(&self) -> Vec<Series> {
        let mut all = Vec::new();
        for target in &self.targets {
            for &operator in &self.operators {
                for &positions in &self.positions {
                    for &only_if_active in &self.only_if_active {
                        for &gated in &self.gated {
                            let mut words = Vec::new();
                            if self.targets.len() > 1 {
                                words.push(target.label());
                            }
                            if self.operators.len() > 1 {
                                words.push(operator.name().replace('_', " "));
                            }
                            if positions != Positions::All {
                                words.push(format!("{} only", positions.name()));
                            }
                            if only_if_active {
                                words.push("where active".into());
                            }
                            if gated {
                                words.push("gated".into());
                            }
                            all.push(Series {
                                name: words.join(", "),
                                target: target.label(),
                                operator,
                                positions,
                                gated,
                                only_if_active,
                            });
                        }
                    }
                }
            }
        }
        all
    }

    /// A point of a curve.
    fn point(&self, series: &Series, index: usize, value: f32) -> Arm {
        let target = self.targets.iter().find(|t| t.label() == series.target);
        let mut interventions = target.map_or_else(Vec::new, |target| {
            target.steer(self.hook, series.operator, Some(value))
        });
        for one in &mut interventions {
            one.positions = series.positions;
            one.only_if_active = series.only_if_active;
        }
        let mut name = format!("{} {value}", series.operator.name().replace('_', " "));
        if self.targets.len() > 1 {
            name = format!("{}: {name}", series.target);
        }
        if series.positions != Positions::All {
            name += &format!(", {} only", series.positions.name());
        }
        if series.only_if_active {
            name += ", where active";
        }
        if series.gated {
            name += ", gated";
        }
        Arm {
            name,
            control: None,
            series: Some(index),
            value: Some(value),
            interventions,
            system: None,
            gated: series.gated,
            scope: self.scope,
        }
    }

    /// The arms, the unsteered base first.
    pub fn arms(&self) -> Vec<Arm> {
        let plain = |name: String, interventions| Arm {
            name,
            control: None,
            series: None,
            value: None,
            interventions,
            system: None,
            gated: false,
            scope: self.scope,
        };
        let mut arms = vec![plain("base".into(), Vec::new())];
        for (index, series) in self.series().iter().enumerate() {
            arms.extend(self.values.iter().map(|&v| self.point(series, index, v)));
        }
        let Some(target) = self.targets.first() else {
            return arms;
        };
        let at = self.at;
        let one = |feature, op, value| vec![Intervention::new(self.hook, feature, op, value)];
        let along = |name: &str| {
            let one = Intervention::along(self.hook, name, Operator::Add, Some(at));
            vec![one]
        };
        let mut controls = self.controls.clone();
        controls.sort_by_key(|c| Control::ALL.iter().position(|all| all == c));
        controls.dedup();
        let negatives = self.negatives.iter().map(|&value| Arm {
            value: Some(value),
            scope: Scope::Refusals,
            ..plain(
                format!("clamp {value}"),
                target.steer(self.hook, Operator::Clamp, Some(value)),
            )
        });
        // They follow the feature's ablation.
        let mut negatives = Some(negatives);
        if controls.first() != Some(&Control::Ablation) {
            arms.extend(negatives.take().into_iter().flatten());
        }
        for control in controls {
            let of = |arm: Arm| Arm {
                control: Some(control),
                ..arm
            };
            let few = |name, steering| {
                of(Arm {
                    value: Some(at),
                    scope: Scope::Refusals,
                    ..plain(name, steering)
                })
            };
            match control {
                Control::Ablation => {
                    arms.push(Arm {
                        value: None,
                        ..few(
                            "ablated".into(),
                            match target.direction {
                                Some(_) => target.steer(self.hook, Operator::ProjectOut, None),
                                None => target.steer(self.hook, Operator::Scale, Some(0.0)),
                            },
                        )
                    });
                    arms.extend(negatives.take().into_iter().flatten());
                }
                Control::Reconstruction => {
                    let steering = one(0, Operator::Reconstruct, None);
                    arms.push(of(plain("reconstruction, no clamp".into(), steering)));
                }
                // Without a dictionary's feature there is no error to drop.
                Control::ErrorDropped if target.direction.is_some() => {}
                Control::ErrorDropped => arms.push(of(Arm {
                    value: Some(at),
                    ..plain(
                        format!("clamp {at}, error dropped"),
                        target.steer(self.hook, Operator::ClampReplace, Some(at)),
                    )
                })),
                Control::RandomFeatures => arms.extend(self.others.iter().map(|&other| {
                    let value = at * target.features.first().map_or(1.0, |f| f.max);
                    let name = format!("random feature {other} at {at}");
                    few(name, one(other, Operator::Clamp, Some(value)))
                })),
                Control::RandomDirections => {
                    arms.extend(self.directions.iter().enumerate().map(|(i, direction)| {
                        let name = format!("random direction {} at {at}", i + 1);
                        few(name, along(direction))
                    }));
                }
                Control::RandomDecoder => arms.extend(self.chosen.as_ref().map(|direction| {
                    let name = format!("best of {DRAWN} random directions at {at}");
                    few(name, along(direction))
                })),
                Control::SignFlipped => arms.push(Arm {
                    value: Some(-at),
                    ..few(
                        format!("sign flipped, clamp {}", -at),
                        target.steer(self.hook, Operator::Clamp, Some(-at)),
                    )
                }),
                Control::UnrelatedFeature => arms.extend(self.unrelated.map(|other| {
                    let value = at * target.features.first().map_or(1.0, |f| f.max);
                    let name = format!("unrelated feature {other} at {at}");
                    few(name, one(other, Operator::Clamp, Some(value)))
                })),
                Control::DifferenceOfMeans => arms.extend(self.means.as_ref().map(|direction| {
                    of(Arm {
                        value: Some(at),
                        ..plain(format!("difference of means at {at}"), along(direction))
                    })
                })),
                Control::NullSpace => {
                    arms.extend(self.null_space.as_ref().map(|(name, factor)| {
                        let factor = 1.0 + at * factor;
                        let op = Operator::Amplify;
                        let one = Intervention::along(self.hook, name, op, Some(factor));
                        of(Arm {
                            value: Some(at),
                            ..plain(format!("null space at {at}"), vec![one])
                        })
                    }));
                }
                Control::SafetyPrompt => arms.push(of(Arm {
                    system: Some(SAFETY_PROMPT),
                    ..plain("safety system prompt".into(), Vec::new())
                })),
            }
        }
        arms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            hook: HookPoint::block(3),
            targets: vec![Target {
                name: None,
                features: vec![Weighted {
                    feature: 7,
                    max: 1.0,
                }],
                direction: None,
            }],
            operators: vec![Operator::Clamp],
            positions: vec![Positions::All],
            gated: vec![false],
            only_if_active: vec![false],
            values: vec![2.0, 4.5],
            negatives: vec![-8.0],
            at: 4.5,
            controls: Control::ALL.to_vec(),
            others: vec![5],
            unrelated: Some(6),
            directions: vec!["random".into()],
            chosen: Some("best".into()),
            means: Some("means".into()),
            null_space: Some(("null".into(), 2.0)),
            scope: Scope::All,
        }
    }

    /// Name and interventions of each arm.
    fn told(plan: &Plan) -> Vec<(String, String)> {
        let arms = plan.arms().into_iter();
        arms.map(|a| {
            let steering = a.interventions.iter().map(ToString::to_string);
            (a.name, steering.collect::<Vec<_>>().join(" "))
        })
        .collect()
    }

    #[test]
    fn every_arm_says_what_it_does() {
        let plan = plan();
        let expected = [
            ("base", ""),
            ("clamp 2", "layers.3:7:clamp:2"),
            ("clamp 4.5", "layers.3:7:clamp:4.5"),
            ("ablated", "layers.3:7:scale:0"),
            ("clamp -8", "layers.3:7:clamp:-8"),
            ("reconstruction, no clamp", "layers.3:-:reconstruct"),
            ("clamp 4.5, error dropped", "layers.3:7:clamp_replace:4.5"),
            ("random feature 5 at 4.5", "layers.3:5:clamp:4.5"),
            ("random direction 1 at 4.5", "layers.3:@random:add:4.5"),
            (
                "best of 24 random directions at 4.5",
                "layers.3:@best:add:4.5",
            ),
            ("sign flipped, clamp -4.5", "layers.3:7:clamp:-4.5"),
            ("unrelated feature 6 at 4.5", "layers.3:6:clamp:4.5"),
            ("difference of means at 4.5", "layers.3:@means:add:4.5"),
            ("null space at 4.5", "layers.3:@null:amplify:10"),
            ("safety system prompt", ""),
        ];
        let told = told(&plan);
        let told: Vec<(&str, &str)> = told.iter().map(|(a, b)| (&a[..], &b[..])).collect();
        assert_eq!(told, expected);
        let arms = plan.arms();
        let curve = arms.iter().filter(|a| a.series == Some(0)).map(|a| a.value);
        assert_eq!(curve.collect::<Vec<_>>(), [Some(2.0), Some(4.5)]);
        let few = arms.iter().filter(|a| a.scope == Scope::Refusals);
        assert_eq!(few.count(), 7);
        let safe = arms.iter().filter(|a| a.system.is_some());
        assert!(safe.map(|a| a.control).eq([Some(Control::SafetyPrompt)]));
    }

    #[test]
    fn a_direction_is_steered_along() {
        let mut plan = plan();
        plan.targets = vec![Target {
            name: None,
            features: Vec::new(),
            direction: Some(Direction(vec![1.0, 2.0])),
        }];
        let key = plan.targets[0].key();
        let told = told(&plan);
        assert_eq!(told[1].1, format!("layers.3:@{key}:clamp:2"));
        assert_eq!(told[3].1, format!("layers.3:@{key}:project_out"));
        assert!(told.iter().all(|t| !t.0.contains("error dropped")));
        let json = serde_json::to_value(&plan.targets[0]).unwrap();
        let back: Target = serde_json::from_value(json).unwrap();
        assert_eq!(back, plan.targets[0]);
    }

    #[test]
    fn a_sweep_is_every_combination() {
        let mut plan = plan();
        plan.controls.clear();
        plan.negatives.clear();
        plan.values = vec![2.0];
        plan.targets.push(Target {
            name: Some("three".into()),
            features: [(1, 2.0), (2, 0.5)]
                .map(|(feature, max)| Weighted { feature, max })
                .to_vec(),
            direction: None,
        });
        plan.operators.push(Operator::Add);
        plan.positions.push(Positions::Generated);
        plan.only_if_active.push(true);
        plan.gated.push(true);
        let told = told(&plan);
        assert_eq!(told.len(), 1 + 32);
        let last = &told[32];
        assert_eq!(last.0, "three: add 2, generated only, where active, gated");
        assert_eq!(
            last.1,
            "layers.3:1:add:4:generated:if-active layers.3:2:add:1:generated:if-active"
        );
        let names: std::collections::HashSet<_> = told.iter().map(|t| &t.0).collect();
        assert_eq!(names.len(), told.len());
        assert_eq!(plan.series().len(), 32);
        assert_eq!(plan.series()[0].name, "7, clamp");
    }
}
