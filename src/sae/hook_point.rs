//! Places in the residual stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{SaeError, site};

/// The output of a block of the model: the residual stream after it.
///
/// Written `layers.N`, as sparsify names it; `model.layers.N`, `model.layers.N.output`,
/// `blocks.N.hook_resid_post` and `blocks.N.hook_resid_pre` (the output of block N - 1) are understood too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookPoint {
    /// The block, counted from 0.
    pub layer: usize,
}

impl HookPoint {
    /// The output of block `layer`.
    pub fn block(layer: usize) -> Self {
        Self { layer }
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layers.{}", self.layer)
    }
}

impl FromStr for HookPoint {
    type Err = SaeError;

    fn from_str(name: &str) -> Result<Self, SaeError> {
        let layer = |digits: &str| {
            // "+3" would parse as a number.
            let plain = digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse::<usize>().ok().filter(|_| plain)
        };
        let without = |path: &'_ str, prefix: &str| -> String {
            path.strip_prefix(prefix).unwrap_or(path).into()
        };
        let path = without(&without(name, "model."), "language_model.");
        if path == "blocks.0.hook_resid_pre" {
            return Err(SaeError::Embedding(name.into()));
        }
        let block = match path.strip_prefix("layers.") {
            Some(rest) => layer(rest.strip_suffix(".output").unwrap_or(rest)),
            None => path
                .strip_prefix("blocks.")
                .and_then(|rest| rest.split_once('.'))
                .and_then(|(digits, site)| match site {
                    "hook_resid_post" => layer(digits),
                    "hook_resid_pre" => layer(digits)?.checked_sub(1),
                    _ => None,
                }),
        };
        block.map(Self::block).ok_or_else(|| site::refused(name))
    }
}

impl Serialize for HookPoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HookPoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_tools_are_understood() {
        for (name, layer) in [
            ("layers.6", 6),
            ("model.layers.31", 31),
            ("blocks.6.hook_resid_post", 6),
            ("blocks.7.hook_resid_pre", 6),
            ("model.layers.12.output", 12),
            ("model.language_model.layers.3.output", 3),
        ] {
            assert_eq!(name.parse::<HookPoint>().unwrap(), HookPoint::block(layer));
        }
        assert_eq!(HookPoint::block(6).to_string(), "layers.6");
        for name in [
            "",
            "layers.",
            "layers.x",
            "layers.-1",
            "layers.+1",
            "layers.3.mlp",
            "model.layers.3.self_attn.output",
            "blocks.3.attn.hook_z",
            "blocks.0.hook_resid_pre",
            "blocks.3.hook_mlp_out",
            "layers.99999999999999999999999",
        ] {
            let message = name.parse::<HookPoint>().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        for (name, what) in [
            ("layers.3.mlp", "the output of an MLP"),
            ("blocks.3.hook_mlp_out", "the output of an MLP"),
            (
                "model.layers.3.self_attn.output",
                "the output of an attention layer",
            ),
            ("blocks.3.hook_attn_out", "the output of an attention layer"),
        ] {
            let message = name.parse::<HookPoint>().unwrap_err().to_string();
            assert!(
                message.contains(&format!("is {what}, which a block adds")),
                "{message}"
            );
        }
    }
}
