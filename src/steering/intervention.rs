//! Interventions: what is done to which feature, where.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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

/// One edit of the residual stream.
///
/// In JSON `{"hook": "layers.3", "feature": 1415, "op": "clamp", "value": 10, "positions": "generated",
/// "includeBos": true, "onlyIfActive": true}`; on the command line `layers.3:1415:clamp:10` followed by
/// any of `:prompt`, `:generated`, `:+bos`, `:if-active` (and `layers.3:-:reconstruct`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intervention {
    /// Where.
    pub hook: HookPoint,
    /// The dictionary's feature; ignored where the operator is about none.
    #[serde(default)]
    pub feature: u32,
    /// What is done.
    pub op: Operator,
    /// The operator's value; ignored where it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f32>,
    /// The tokens that it applies to.
    #[serde(default)]
    pub positions: Positions,
    /// Whether it applies to the beginning-of-sequence token as well, whose residual is unlike others'.
    #[serde(default)]
    pub include_bos: bool,
    /// Whether it applies only where the feature is active.
    #[serde(default)]
    pub only_if_active: bool,
}

impl Intervention {
    /// The operator on the feature at all positions but the beginning of the sequence.
    pub fn new(hook: HookPoint, feature: u32, op: Operator, value: Option<f32>) -> Self {
        Self {
            hook,
            feature,
            op,
            value,
            positions: Positions::All,
            include_bos: false,
            only_if_active: false,
        }
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.op.row().feature {
            write!(f, "{}:-:{}", self.hook, self.op)?;
        } else {
            write!(f, "{}:{}:{}", self.hook, self.feature, self.op)?;
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
        let feature = parts.next().ok_or_else(|| fail("no feature".into()))?;
        let name = parts.next().ok_or_else(|| fail("no operator".into()))?;
        let op = Operator::named(name)
            .ok_or_else(|| fail(format!("\"{name}\" is no operator ({})", Operator::names())))?;
        let feature = match feature {
            "-" if !op.row().feature => 0,
            digits => digits
                .parse()
                .map_err(|_| fail(format!("\"{digits}\" is not the number of a feature")))?,
        };
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
        let mut intervention = Self::new(hook, feature, op, value);
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
        for bad in [
            r#"{"hook": "layers.3", "feature": 1, "op": "clamp", "includeBOS": true}"#,
            r#"{"hook": "layers.3", "feature": -1, "op": "clamp", "value": 1}"#,
            r#"{"hook": "mlp.3", "feature": 1, "op": "clamp", "value": 1}"#,
            r#"{"hook": "layers.3", "feature": 1, "op": "explode", "value": 1}"#,
            r#"{"feature": 1, "op": "clamp", "value": 1}"#,
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
        ] {
            let message = text.parse::<Intervention>().unwrap_err().to_string();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
