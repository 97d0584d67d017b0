//! Interventions: what is done to which feature, where.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::direction::check_name;
use super::{Operator, SteeringError};
use crate::sae::HookPoint;

/// The positions that an intervention applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Every token.
    #[default]
    All,
    /// Tokens that the model was given: messages of user and system, and the template's.
    Prompt,
    /// Tokens of the assistant's replies.
    Generated,
}

impl Positions {
    /// All of them.
    pub const ALL: [Positions; 3] = [Positions::All, Positions::Prompt, Positions::Generated];

    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Positions::All => "all",
            Positions::Prompt => "prompt",
            Positions::Generated => "generated",
        }
    }

    /// Whether some position belongs to both.
    pub(super) fn overlap(self, other: Positions) -> bool {
        self == other || self == Positions::All || other == Positions::All
    }
}

/// What an intervention is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A feature of the dictionary at the hook point.
    Feature(u32),
    /// A direction that was added there (see [`Steering::add_direction`](super::Steering::add_direction)), by
    /// its name.
    Direction(String),
    /// The whole residual stream: what `reconstruct` is about.
    Whole,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Feature(feature) => write!(f, "feature {feature}"),
            Target::Direction(name) => write!(f, "direction \"{name}\""),
            Target::Whole => f.write_str("the residual stream"),
        }
    }
}

/// One edit of the residual stream.
///
/// In JSON `{"hook": "layers.3", "feature": 1415, "op": "clamp", "value": 10, "positions": "generated",
/// "includeBos": true, "onlyIfActive": true}`, with `"direction": "name"` in place of the feature to name a
/// direction; on the command line `layers.3:1415:clamp:10`, or `layers.3:@name:clamp:10`, followed by any of
/// `:prompt`, `:generated`, `:+bos`, `:if-active` (and `layers.3:-:reconstruct`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Plain", try_from = "Plain")]
pub struct Intervention {
    /// Where.
    pub hook: HookPoint,
    /// What it is about.
    pub target: Target,
    /// What is done.
    pub op: Operator,
    /// The operator's value; ignored where it takes none.
    pub value: Option<f32>,
    /// The tokens that it applies to.
    pub positions: Positions,
    /// Whether it applies to the beginning-of-sequence token as well, whose residual is unlike others'.
    pub include_bos: bool,
    /// Whether it applies only where the feature is active.
    pub only_if_active: bool,
}

/// An intervention in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plain {
    hook: HookPoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feature: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    direction: Option<String>,
    op: Operator,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<f32>,
    #[serde(default)]
    positions: Positions,
    #[serde(default)]
    include_bos: bool,
    #[serde(default)]
    only_if_active: bool,
}

impl From<Intervention> for Plain {
    fn from(i: Intervention) -> Self {
        Self {
            hook: i.hook,
            feature: i.feature(),
            direction: i.direction().map(String::from),
            op: i.op,
            value: i.value,
            positions: i.positions,
            include_bos: i.include_bos,
            only_if_active: i.only_if_active,
        }
    }
}

impl TryFrom<Plain> for Intervention {
    type Error = SteeringError;

    fn try_from(p: Plain) -> Result<Self, SteeringError> {
        Ok(Self {
            hook: p.hook,
            target: Target::of(p.op, p.feature, p.direction)?,
            op: p.op,
            value: p.value,
            positions: p.positions,
            include_bos: p.include_bos,
            only_if_active: p.only_if_active,
        })
    }
}

impl Target {
    /// What `op` is about, where a feature or a direction is named; of an operator that is about neither, a
    /// feature is ignored.
    pub fn of(
        op: Operator,
        feature: Option<u32>,
        direction: Option<String>,
    ) -> Result<Self, SteeringError> {
        match (feature, direction) {
            (_, None) if !op.row().feature => Ok(Target::Whole),
            (Some(feature), None) => Ok(Target::Feature(feature)),
            (None, Some(name)) => {
                check_name(&name)?;
                match op.row().direction {
                    true => Ok(Target::Direction(name)),
                    false => Err(SteeringError::NotAlong { op }),
                }
            }
            (None, None) => Err(SteeringError::NoTarget { op }),
            (Some(_), Some(_)) => Err(SteeringError::TwoTargets { op }),
        }
    }
}

impl Intervention {
    /// The operator on the feature at all positions but the beginning of the sequence.
    pub fn new(hook: HookPoint, feature: u32, op: Operator, value: Option<f32>) -> Self {
        let target = match op.row().feature {
            true => Target::Feature(feature),
            false => Target::Whole,
        };
        Self::on(hook, target, op, value)
    }

    /// The operator along the direction `name`, at all positions but the beginning of the sequence.
    pub fn along(hook: HookPoint, name: &str, op: Operator, value: Option<f32>) -> Self {
        Self::on(hook, Target::Direction(name.into()), op, value)
    }

    fn on(hook: HookPoint, target: Target, op: Operator, value: Option<f32>) -> Self {
        Self {
            hook,
            target,
            op,
            value,
            positions: Positions::All,
            include_bos: false,
            only_if_active: false,
        }
    }

    /// The feature that it is about, if it is about one.
    pub fn feature(&self) -> Option<u32> {
        match self.target {
            Target::Feature(feature) => Some(feature),
            _ => None,
        }
    }

    /// The name of the direction that it is about, if it is about one.
    pub fn direction(&self) -> Option<&str> {
        match &self.target {
            Target::Direction(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Feature(feature) => write!(f, "{}:{feature}:{}", self.hook, self.op)?,
            Target::Direction(name) => write!(f, "{}:@{name}:{}", self.hook, self.op)?,
            Target::Whole => write!(f, "{}:-:{}", self.hook, self.op)?,
        }
        if let Some(value) = self.value.filter(|_| self.op.takes_value()) {
            write!(f, ":{value}")?;
        }
        if self.positions != Positions::All {
            write!(f, ":{}", self.positions.name())?;
        }
        if self.include_bos {
            f.write_str(":+bos")?;
        }
        if self.only_if_active {
            f.write_str(":if-active")?;
        }
        Ok(())
    }
}

impl FromStr for Intervention {
    type Err = SteeringError;

    fn from_str(text: &str) -> Result<Self, SteeringError> {
        let fail = |reason: String| SteeringError::Syntax {
            text: text.into(),
            reason,
        };
        let mut parts = text.split(':');
        let hook = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|e: crate::sae::SaeError| fail(e.to_string()))?;
        let about = parts.next().ok_or_else(|| fail("no feature".into()))?;
        let name = parts.next().ok_or_else(|| fail("no operator".into()))?;
        let op = Operator::named(name)
            .ok_or_else(|| fail(format!("\"{name}\" is no operator ({})", Operator::names())))?;
        let target = match about.strip_prefix('@') {
            Some(name) => Target::of(op, None, Some(name.into())),
            None if about == "-" && !op.row().feature => Ok(Target::Whole),
            None => {
                let feature = about
                    .parse()
                    .map_err(|_| fail(format!("\"{about}\" is not the number of a feature")))?;
                Target::of(op, Some(feature), None)
            }
        };
        let target = target.map_err(|e| fail(e.to_string()))?;
        let value = if op.takes_value() {
            let number = parts
                .next()
                .ok_or_else(|| fail(format!("{op} needs a value")))?;
            let value = number
                .parse()
                .map_err(|_| fail(format!("\"{number}\" is not a value")))?;
            Some(value)
        } else {
            None
        };
        let mut intervention = Self::on(hook, target, op, value);
        for option in parts {
            match option {
                "+bos" => intervention.include_bos = true,
                "if-active" => intervention.only_if_active = true,
                name => {
                    intervention.positions = Positions::ALL
                        .into_iter()
                        .find(|p| p.name() == name)
                        .ok_or_else(|| {
                            fail(format!(
                                "\"{name}\" is no option (all, prompt, generated, +bos, if-active)"
                            ))
                        })?;
                }
            }
        }
        Ok(intervention)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_goes_there_and_back() {
        for text in [
            "layers.3:1415:clamp:10",
            "layers.3:0:clamp_replace:-1.5:prompt",
            "layers.31:7:add:0.25:generated:+bos:if-active",
            "layers.3:7:scale:0:if-active",
            "layers.3:7:project_out:+bos",
            "layers.3:-:reconstruct:generated",
            "layers.3:@refusal:add:2.5:prompt",
            "layers.0:@difference of means-2:clamp:-1",
            "layers.3:@r.1:project_out",
            "layers.3:@r:cap:4:+bos",
        ] {
            let parsed: Intervention = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
            let json = serde_json::to_string(&parsed).unwrap();
            assert_eq!(serde_json::from_str::<Intervention>(&json).unwrap(), parsed);
        }
        let other: Intervention = "blocks.3.hook_resid_post:1:clamp:2:all".parse().unwrap();
        assert_eq!(other.to_string(), "layers.3:1:clamp:2");
    }

    #[test]
    fn json_has_the_names_of_the_page() {
        let json = r#"{"hook": "layers.3", "feature": 1415, "op": "clamp_replace", "value": 8,
            "positions": "prompt", "includeBos": true, "onlyIfActive": true}"#;
        let i: Intervention = serde_json::from_str(json).unwrap();
        assert_eq!(
            i,
            Intervention {
                positions: Positions::Prompt,
                include_bos: true,
                only_if_active: true,
                ..Intervention::new(HookPoint::block(3), 1415, Operator::ClampReplace, Some(8.0))
            }
        );
        let short = r#"{"hook": "layers.3", "op": "reconstruct"}"#;
        let i: Intervention = serde_json::from_str(short).unwrap();
        assert_eq!(
            i,
            Intervention::new(HookPoint::block(3), 0, Operator::Reconstruct, None)
        );
        let along = r#"{"hook": "layers.3", "direction": "refusal", "op": "add", "value": 2}"#;
        let i: Intervention = serde_json::from_str(along).unwrap();
        assert_eq!(
            i,
            Intervention::along(HookPoint::block(3), "refusal", Operator::Add, Some(2.0))
        );
        for bad in [
            r#"{"hook": "layers.3", "feature": 1, "op": "clamp", "includeBOS": true}"#,
            r#"{"hook": "layers.3", "feature": -1, "op": "clamp", "value": 1}"#,
            r#"{"hook": "mlp.3", "feature": 1, "op": "clamp", "value": 1}"#,
            r#"{"hook": "layers.3", "feature": 1, "op": "explode", "value": 1}"#,
            r#"{"feature": 1, "op": "clamp", "value": 1}"#,
            r#"{"hook": "layers.3", "op": "clamp", "value": 1}"#,
            r#"{"hook": "layers.3", "feature": 1, "direction": "r", "op": "clamp", "value": 1}"#,
            r#"{"hook": "layers.3", "direction": "r", "op": "scale", "value": 1}"#,
            r#"{"hook": "layers.3", "direction": "", "op": "add", "value": 1}"#,
        ] {
            assert!(serde_json::from_str::<Intervention>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mistakes_in_the_written_form_are_named() {
        for (text, word) in [
            ("", "no place in the residual stream"),
            ("layers.3", "no feature"),
            ("layers.3:7", "no operator"),
            ("layers.3:x:clamp:1", "\"x\" is not the number"),
            ("layers.3:-:clamp:1", "\"-\" is not the number"),
            ("layers.3:7:crush:1", "\"crush\" is no operator"),
            ("layers.3:7:clamp", "clamp needs a value"),
            ("layers.3:7:clamp:high", "\"high\" is not a value"),
            ("layers.3:7:clamp:1:sometimes", "\"sometimes\" is no option"),
            ("layers.3:7:project_out:1", "\"1\" is no option"),
            ("layers.3:@:add:1", "cannot be called \"\""),
            ("layers.3:@a/b:add:1", "cannot be called \"a/b\""),
            ("layers.3:@r:scale:2", &format!("use {}", Operator::along())),
            (
                "layers.3:@r:reconstruct",
                &format!("use {}", Operator::along()),
            ),
        ] {
            let message = text.parse::<Intervention>().unwrap_err().to_string();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
