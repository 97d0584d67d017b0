//! Interventions as entries of the GPU's steering table.

use std::rc::Rc;

use super::direction::{Direction, Directions};
use super::{Intervention, Operator, OperatorInfo, Positions, SteeringError, Target};
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
/// Works along a direction, in the residual's units, and not along a latent's.
const ALONG: u32 = 16;

/// What the kernel must know: the codes of operators, the flags of entries.
pub(super) fn constants() -> String {
    let mut text = Operator::shader();
    for (name, flag) in [
        ("AT_PROMPT", AT_PROMPT),
        ("AT_GENERATED", AT_GENERATED),
        ("AT_BOS", AT_BOS),
        ("IF_ACTIVE", IF_ACTIVE),
        ("ALONG", ALONG),
    ] {
        text += &format!("const {name}: u32 = {flag}u;\n");
    }
    text
}

/// Whether an operator gives the feature a new activation, or the direction a new component.
fn sets(op: Operator) -> bool {
    let row = op.row();
    row.feature && row.activation
}

/// An entry, with the direction that it works along if no latent's.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    pub entry: Entry,
    pub direction: Option<Rc<Direction>>,
}

/// What interventions at a place can name.
pub(super) struct Sources<'a> {
    pub dictionary: Option<&'a dyn Latents>,
    pub directions: &'a Directions,
}

/// One entry of the table; all zeros is an empty one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Entry {
    op: u32,
    flags: u32,
    /// The latent's row among those loaded, or the direction's number.
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

/// What computes `interventions` at `hook`: what puts the reconstruction in place of h first, otherwise in
/// order.
pub(super) fn compile(
    hook: HookPoint,
    sources: &Sources<'_>,
    interventions: &[Intervention],
) -> Result<Vec<Edit>, SteeringError> {
    if interventions.len() > SLOTS {
        return Err(SteeringError::TooMany {
            hook,
            count: interventions.len(),
        });
    }
    for (i, one) in interventions.iter().enumerate() {
        let clashes = |other: &Intervention| {
            sets(other.op) && other.target == one.target && other.positions.overlap(one.positions)
        };
        if sets(one.op) && interventions[..i].iter().any(clashes) {
            return Err(SteeringError::Conflict {
                target: one.target.clone(),
            });
        }
    }
    let edit = |one: &Intervention| Edit::of(one, sources);
    let edits = interventions.iter().map(edit);
    let mut edits = edits.collect::<Result<Vec<_>, SteeringError>>()?;
    // A stable sort: `false` before `true`.
    edits.sort_by_key(|edit| !edit.entry.rebuilds());
    Ok(edits)
}

impl Edit {
    fn of(one: &Intervention, sources: &Sources<'_>) -> Result<Self, SteeringError> {
        let (hook, op, row) = (one.hook, one.op, one.op.row());
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
        let value = match one.value {
            _ if !op.takes_value() => 0.0,
            Some(value) if value.is_finite() => value,
            value => {
                let target = one.target.clone();
                return Err(match value {
                    None => SteeringError::MissingValue { op, target },
                    Some(value) => SteeringError::NotFinite { op, target, value },
                });
            }
        };
        let mut entry = Entry {
            op: op.code(),
            flags,
            latent: 0,
            value,
        };
        if let Target::Direction(name) = &one.target {
            if !row.direction {
                return Err(SteeringError::NotAlong { op });
            }
            if one.only_if_active {
                return Err(SteeringError::NothingActive);
            }
            let direction = sources.directions.get(hook, name)?;
            entry.flags |= ALONG;
            entry.latent = direction.id;
            return Ok(Self {
                entry,
                direction: Some(direction),
            });
        }
        let Some(dictionary) = sources.dictionary else {
            return Err(SteeringError::UnknownHook {
                hook,
                loaded: "it has no dictionary".into(),
            });
        };
        if row.reconstruction && !dictionary.is_whole() {
            return Err(SteeringError::NeedsAllLatents { op });
        }
        let alone = |entry| Self {
            entry,
            direction: None,
        };
        let Target::Feature(feature) = one.target else {
            if one.only_if_active {
                return Err(SteeringError::NothingActive);
            }
            return Ok(alone(entry));
        };
        let latents = dictionary.latents();
        if feature as usize >= latents {
            return Err(SteeringError::UnknownFeature {
                hook,
                feature,
                latents,
            });
        }
        let Some(latent) = dictionary.row_of(feature) else {
            return Err(SteeringError::NotLoaded { hook, feature });
        };
        entry.latent = latent;
        if entry.measures() && !dictionary.encodes() {
            return Err(SteeringError::NeedsActivation { op, feature });
        }
        Ok(alone(entry))
    }
}

impl Entry {
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

    /// What it works along: whether a direction, and its number, or the latent's row.
    pub fn source(&self) -> (bool, u32) {
        (self.flags & ALONG != 0, self.latent)
    }

    /// Whether it is in the dictionary's units.
    pub fn scales(&self) -> bool {
        self.flags & ALONG == 0
    }

    /// Whether it reads the latent's activation.
    pub fn measures(&self) -> bool {
        self.scales()
            && (self.is(|row| row.activation || row.reconstruction) || self.flags & IF_ACTIVE != 0)
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
            self.flags & (IF_ACTIVE | ALONG),
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

    fn compile(dictionary: &Hundred, list: &[Intervention]) -> Result<Vec<Entry>, SteeringError> {
        let mut directions = Directions::default();
        directions.put(HookPoint::block(2), "other", vec![1.0]);
        directions.put(HookPoint::block(3), "mine", vec![1.0]);
        let sources = Sources {
            dictionary: Some(dictionary),
            directions: &directions,
        };
        let edits = super::compile(HookPoint::block(3), &sources, list)?;
        Ok(edits.into_iter().map(|e| e.entry).collect())
    }

    fn compiled(texts: &[&str]) -> Result<Vec<Entry>, SteeringError> {
        let list: Vec<Intervention> = texts.iter().map(|t| t.parse().unwrap()).collect();
        compile(&WHOLE, &list)
    }

    #[test]
    fn replacing_comes_first_and_the_rest_keeps_its_order() {
        let entries = compiled(&[
            "layers.3:1:project_out",
            "layers.3:2:clamp:5",
            "layers.3:3:clamp_replace:6:+bos",
            "layers.3:4:add:7:if-active",
            "layers.3:-:reconstruct:prompt",
            "layers.3:@mine:clamp:8",
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
                (2, 11, 4, 7.0),
                (1, 19, 1, 8.0)
            ]
        );
        let measures: Vec<_> = entries.iter().map(Entry::measures).collect();
        assert_eq!(measures, [true, true, false, true, true, false]);
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
            (
                &["layers.3:@mine:clamp:1", "layers.3:@mine:clamp:2:prompt"],
                "direction \"mine\" is set twice",
            ),
            (
                &["layers.3:@other:add:1"],
                "layers.2:@other, layers.3:@mine",
            ),
            (&["layers.3:@mine:add:1:if-active"], "no feature"),
            (&["layers.3:@mine:add:inf"], "finite"),
        ] {
            let message = compiled(texts).unwrap_err().to_string();
            assert!(message.contains(word), "{texts:?}: {message}");
        }
        let missing = Intervention::new(HookPoint::block(3), 1, Operator::Add, None);
        assert!(matches!(
            compile(&WHOLE, &[missing]),
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
        compiled(&[
            "layers.3:@mine:clamp:1",
            "layers.3:@mine:cap:2",
            "layers.3:1:clamp:2",
        ])
        .unwrap();
    }

    #[test]
    fn dictionaries_loaded_in_part_do_what_they_can() {
        let some = |text: &str, encodes: bool| {
            let list = [text.parse().unwrap()];
            let dictionary = Hundred {
                whole: false,
                encodes,
            };
            compile(&dictionary, &list).map(|e| e[0].latent)
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
