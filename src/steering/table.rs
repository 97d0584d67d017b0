//! Interventions as entries of the GPU's steering table.

use super::{Intervention, Operator, OperatorInfo, Positions, SteeringError};
use crate::phi3::{ROW_BOS, ROW_GENERATED};
use crate::sae::{Dictionary, HookPoint};

/// Interventions of one lane at one hook point, at most.
pub const SLOTS: usize = 32;

/// Applies to prompt positions.
const AT_PROMPT: u32 = 1;
/// Applies to generated positions.
const AT_GENERATED: u32 = 2;
/// Applies to the beginning-of-sequence token too.
const AT_BOS: u32 = 4;
/// Applies only where the latent is active.
const IF_ACTIVE: u32 = 8;

/// What the kernel must know: the codes of operators, the flags of entries.
pub(super) fn constants() -> String {
    let mut text = Operator::constants();
    for (name, flag) in [
        ("AT_PROMPT", AT_PROMPT),
        ("AT_GENERATED", AT_GENERATED),
        ("AT_BOS", AT_BOS),
        ("IF_ACTIVE", IF_ACTIVE),
    ] {
        text += &format!("const {name}: u32 = {flag}u;\n");
    }
    text
}

/// Whether an operator gives the feature a new activation.
fn sets(op: Operator) -> bool {
    let row = op.row();
    row.feature && row.activation
}

/// One entry of the table; all zeros is an empty one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Entry {
    op: u32,
    flags: u32,
    /// The latent's row among those loaded.
    pub latent: u32,
    value: f32,
}

/// What a dictionary can be asked for.
pub(super) trait Latents {
    /// Latents, loaded or not.
    fn latents(&self) -> usize;
    /// The row of a latent among those loaded.
    fn row_of(&self, latent: u32) -> Option<u32>;
    /// Whether activations can be computed.
    fn encodes(&self) -> bool;
    /// Whether all latents are loaded.
    fn is_whole(&self) -> bool;
}

impl Latents for Dictionary {
    fn latents(&self) -> usize {
        self.latents()
    }

    fn row_of(&self, latent: u32) -> Option<u32> {
        self.row_of(latent)
    }

    fn encodes(&self) -> bool {
        self.encodes()
    }

    fn is_whole(&self) -> bool {
        self.is_whole()
    }
}

/// The entries that compute `interventions` at `hook`: those that put the reconstruction in place of h
/// first, otherwise in order.
pub(super) fn compile(
    hook: HookPoint,
    dictionary: &dyn Latents,
    interventions: &[Intervention],
) -> Result<Vec<Entry>, SteeringError> {
    if interventions.len() > SLOTS {
        return Err(SteeringError::TooMany {
            hook,
            count: interventions.len(),
        });
    }
    for (i, one) in interventions.iter().enumerate() {
        let clashes = |other: &Intervention| {
            sets(other.op) && other.feature == one.feature && other.positions.overlap(one.positions)
        };
        if sets(one.op) && interventions[..i].iter().any(clashes) {
            return Err(SteeringError::Conflict {
                feature: one.feature,
            });
        }
    }
    let mut entries = interventions
        .iter()
        .map(|one| Ok((one.op.row().reconstruction, Entry::of(one, dictionary)?)))
        .collect::<Result<Vec<_>, SteeringError>>()?;
    // A stable sort: `false` before `true`.
    entries.sort_by_key(|(rebuilds, _)| !rebuilds);
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

impl Entry {
    fn of(one: &Intervention, dictionary: &dyn Latents) -> Result<Self, SteeringError> {
        let &Intervention {
            hook, feature, op, ..
        } = one;
        let row = op.row();
        let mut flags = match one.positions {
            Positions::All => AT_PROMPT | AT_GENERATED,
            Positions::Prompt => AT_PROMPT,
            Positions::Generated => AT_GENERATED,
        };
        if one.include_bos {
            flags |= AT_BOS;
        }
        if one.only_if_active {
            flags |= IF_ACTIVE;
        }
        if row.reconstruction && !dictionary.is_whole() {
            return Err(SteeringError::NeedsAllLatents { op });
        }
        if !row.feature {
            if one.only_if_active {
                return Err(SteeringError::ReconstructIfActive);
            }
            return Ok(Self {
                op: op.code(),
                flags,
                ..Self::default()
            });
        }
        let latents = dictionary.latents();
        if feature as usize >= latents {
            return Err(SteeringError::UnknownFeature {
                hook,
                feature,
                latents,
            });
        }
        let Some(row) = dictionary.row_of(feature) else {
            return Err(SteeringError::NotLoaded { hook, feature });
        };
        let value = match one.value {
            _ if !op.takes_value() => 0.0,
            None => return Err(SteeringError::MissingValue { op, feature }),
            Some(value) if value.is_finite() => value,
            Some(value) => return Err(SteeringError::NotFinite { op, feature, value }),
        };
        let entry = Self {
            op: op.code(),
            flags,
            latent: row,
            value,
        };
        if entry.measures() && !dictionary.encodes() {
            return Err(SteeringError::NeedsActivation { op, feature });
        }
        Ok(entry)
    }

    /// Whether it can apply to a row with these `ROW_` flags.
    pub fn applies(&self, row_flags: u32) -> bool {
        let role = if row_flags & ROW_GENERATED != 0 {
            AT_GENERATED
        } else {
            AT_PROMPT
        };
        let bos = row_flags & ROW_BOS == 0 || self.flags & AT_BOS != 0;
        self.flags & role != 0 && bos
    }

    /// Whether it reads the latent's activation.
    pub fn measures(&self) -> bool {
        self.is(|row| row.activation || row.reconstruction) || self.flags & IF_ACTIVE != 0
    }

    /// Whether it reads the reconstruction.
    pub fn rebuilds(&self) -> bool {
        self.is(|row| row.reconstruction)
    }

    fn is(&self, what: fn(&OperatorInfo) -> bool) -> bool {
        let mut all = Operator::ALL.iter();
        all.any(|op| op.code() == self.op && what(op.row()))
    }

    /// What it does where it applies, as words to hash.
    pub fn effect(&self) -> [u32; 4] {
        [
            self.op,
            self.flags & IF_ACTIVE,
            self.latent,
            self.value.to_bits(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred latents, all loaded, or the even ones.
    struct Hundred {
        whole: bool,
        encodes: bool,
    }

    impl Latents for Hundred {
        fn latents(&self) -> usize {
            100
        }

        fn row_of(&self, latent: u32) -> Option<u32> {
            match self.whole {
                true => Some(latent),
                false => latent.is_multiple_of(2).then_some(latent / 2),
            }
        }

        fn encodes(&self) -> bool {
            self.encodes
        }

        fn is_whole(&self) -> bool {
            self.whole
        }
    }

    const WHOLE: Hundred = Hundred {
        whole: true,
        encodes: true,
    };

    fn compiled(texts: &[&str]) -> Result<Vec<Entry>, SteeringError> {
        let list: Vec<Intervention> = texts.iter().map(|t| t.parse().unwrap()).collect();
        compile(HookPoint::block(3), &WHOLE, &list)
    }

    #[test]
    fn replacing_comes_first_and_the_rest_keeps_its_order() {
        let entries = compiled(&[
            "layers.3:1:project_out",
            "layers.3:2:clamp:5",
            "layers.3:3:clamp_replace:6:+bos",
            "layers.3:4:add:7:if-active",
            "layers.3:-:reconstruct:prompt",
        ])
        .unwrap();
        let seen: Vec<_> = entries
            .iter()
            .map(|e| (e.op, e.flags, e.latent, e.value))
            .collect();
        assert_eq!(
            seen,
            [
                (5, 7, 3, 6.0),
                (6, 1, 0, 0.0),
                (4, 3, 1, 0.0),
                (1, 3, 2, 5.0),
                (2, 11, 4, 7.0)
            ]
        );
        let measures: Vec<_> = entries.iter().map(Entry::measures).collect();
        assert_eq!(measures, [true, true, false, true, true]);
    }

    #[test]
    fn impossible_interventions_are_refused() {
        for (texts, word) in [
            (&["layers.3:100:clamp:1"][..], "0 to 99"),
            (&["layers.3:1:clamp:inf"], "finite"),
            (&["layers.3:1:add:NaN"], "finite"),
            (&["layers.3:-:reconstruct:if-active"], "no feature"),
            (&["layers.3:1:clamp:1", "layers.3:1:scale:0"], "twice"),
            (
                &["layers.3:1:clamp:1:prompt", "layers.3:1:clamp_replace:2"],
                "twice",
            ),
            (&["layers.3:1:add:1"; SLOTS + 1], "at most 32"),
        ] {
            let message = compiled(texts).unwrap_err().to_string();
            assert!(message.contains(word), "{texts:?}: {message}");
        }
        let missing = Intervention::new(HookPoint::block(3), 1, Operator::Add, None);
        assert!(matches!(
            compile(HookPoint::block(3), &WHOLE, &[missing]),
            Err(SteeringError::MissingValue { .. })
        ));
        // These do not clash.
        compiled(&["layers.3:1:clamp:1:prompt", "layers.3:1:clamp:2:generated"]).unwrap();
        compiled(&[
            "layers.3:1:clamp:1",
            "layers.3:1:add:2",
            "layers.3:2:clamp:1",
        ])
        .unwrap();
        compiled(&["layers.3:1:add:1"; SLOTS]).unwrap();
    }

    #[test]
    fn dictionaries_loaded_in_part_do_what_they_can() {
        let some = |text: &str, encodes: bool| {
            let list = [text.parse().unwrap()];
            let dictionary = Hundred {
                whole: false,
                encodes,
            };
            compile(HookPoint::block(3), &dictionary, &list).map(|e| e[0].latent)
        };
        assert_eq!(some("layers.3:42:clamp:1", true).unwrap(), 21);
        assert_eq!(some("layers.3:42:add:1", false).unwrap(), 21);
        for (text, encodes, word) in [
            ("layers.3:7:add:1", true, "was not loaded"),
            ("layers.3:100:add:1", true, "0 to 99"),
            ("layers.3:42:clamp:1", false, "activation"),
            ("layers.3:42:add:1:if-active", false, "activation"),
            ("layers.3:42:clamp_replace:1", true, "all latents"),
            ("layers.3:-:reconstruct", true, "all latents"),
        ] {
            let message = some(text, encodes).unwrap_err().to_string();
            assert!(message.contains(word), "{text}: {message}");
        }
    }

    #[test]
    fn entries_apply_by_position_and_bos() {
        let rows = [0, ROW_BOS, ROW_GENERATED];
        for (text, expected) in [
            ("layers.3:1:add:1", [true, false, true]),
            ("layers.3:1:add:1:+bos", [true, true, true]),
            ("layers.3:1:add:1:prompt", [true, false, false]),
            ("layers.3:1:add:1:prompt:+bos", [true, true, false]),
            ("layers.3:1:add:1:generated:+bos", [false, false, true]),
        ] {
            let entry = compiled(&[text]).unwrap()[0];
            assert_eq!(rows.map(|flags| entry.applies(flags)), expected, "{text}");
        }
    }
}
