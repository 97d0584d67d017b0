//! What a configuration says of the rotary embedding, in the places where it may stand: at the top,
//! in `rope_scaling`, and in `rope_parameters`, where Transformers 5 has all of it.
//!
//! A position that is turned by another angle makes another model, and nothing fails: so what is
//! said twice must agree, and what is not understood is an error.

use serde_json::{Map, Value};

use super::architecture::{Architecture, same};
use super::fields::Fields;
use super::{LongRope, ModelError};
use crate::checkpoint::shown;

/// The entries of a block that are understood.
const KNOWN: [&str; 11] = [
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "short_factor",
    "long_factor",
    "attention_factor",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
];

/// The rotary embedding's settings.
pub(super) struct Rope {
    pub(super) theta: f64,
    /// The share of a head that is rotated.
    pub(super) partial: f64,
    /// What is done to the frequencies, if anything.
    scaling: Option<Scaling>,
}

/// What is done to the frequencies.
enum Scaling {
    /// All are divided by one number.
    Linear(f64),
    /// Long waves are divided by `factor`, those between two lengths by less.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: usize,
    },
    /// Each is divided by a number of its own.
    Long {
        short: Vec<f64>,
        long: Vec<f64>,
        original: usize,
        factor: Option<f64>,
        attention_factor: Option<f64>,
    },
}

/// What kind of scaling a block names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// None.
    Default,
    /// One factor for all positions.
    Linear,
    /// That of Llama 3.1 and later.
    Llama3,
    /// LongRoPE.
    Long,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Linear => "linear",
            Self::Llama3 => "llama3",
            Self::Long => "longrope",
        }
    }
}

impl Rope {
    /// Reads the settings of `config`.
    pub(super) fn new(config: &Fields<'_>, own: &Architecture) -> Result<Self, ModelError> {
        let places = Places::new(config)?;
        let number = |key: &str| places.settled(key, |fields| fields.number(key));
        let theta = number("rope_theta")?.unwrap_or(10_000.0);
        let partial = number("partial_rotary_factor")?.unwrap_or(1.0);
        let original = "original_max_position_embeddings";
        let original = places.settled(original, |fields| fields.count(original))?;
        let original = original.filter(|o| *o > 1);
        let factor = number("factor")?;
        let attention_factor = number("attention_factor")?;
        let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
        let kind = places.settled("type", |fields| kind(fields, own))?;
        let short = places.settled("short_factor", |f| factors(f, "short_factor"))?;
        let long = places.settled("long_factor", |f| factors(f, "long_factor"))?;
        let fail = |reason: String| places.fail(reason);
        let missing = |name: &str| fail(format!("{name} is missing"));
        if let Some(factor) = attention_factor.filter(|f| *f <= 0.0) {
            return Err(fail(format!("attention_factor is {factor}")));
        }
        let one = |f: Option<f64>| f.is_none_or(|f| f == 1.0);
        let listed = short.is_some() || long.is_some();
        let banded = low.is_some() || high.is_some();
        let has = |kind: Kind| own.scalings.contains(&kind.name());
        let scaling = match kind {
            Some(Kind::Long) if !banded => Some(Scaling::Long {
                short: short.ok_or_else(|| missing("short_factor"))?,
                long: long.ok_or_else(|| missing("long_factor"))?,
                original: original.ok_or_else(|| {
                    fail(
                        "original_max_position_embeddings is missing: the positions of pretraining"
                            .into(),
                    )
                })?,
                factor,
                attention_factor,
            }),
            Some(Kind::Llama3) if !listed && one(attention_factor) => {
                let factor = factor.ok_or_else(|| missing("factor"))?;
                let low = low.ok_or_else(|| missing("low_freq_factor"))?;
                let high = high.ok_or_else(|| missing("high_freq_factor"))?;
                let original =
                    original.ok_or_else(|| missing("original_max_position_embeddings"))?;
                if !(factor >= 1.0 && low > 0.0 && high > low) {
                    return Err(fail(format!(
                        "factor is {factor}, low_freq_factor {low}, high_freq_factor {high}: 1 or more, \
                         above 0, and above that are needed"
                    )));
                }
                Some(Scaling::Llama3 {
                    factor,
                    low,
                    high,
                    original,
                })
            }
            Some(Kind::Linear)
                if has(Kind::Linear) && !listed && !banded && one(attention_factor) =>
            {
                let factor = factor.filter(|f| *f > 0.0);
                Some(Scaling::Linear(factor.ok_or_else(|| missing("factor"))?))
            }
            None if listed || banded || !one(factor) => {
                return Err(fail(format!(
                    "it has no type; {} models have {}",
                    own.words,
                    own.scalings()
                )));
            }
            Some(Kind::Linear) if !one(factor.or(Some(0.0))) => {
                return Err(fail(format!(
                    "its type is \"linear\"; {} models have {}",
                    own.words,
                    own.scalings()
                )));
            }
            // A factor of 1 leaves all as it is.
            Some(Kind::Default | Kind::Linear) | None
                if !listed && !banded && one(factor) && one(attention_factor) =>
            {
                None
            }
            Some(Kind::Default | Kind::Linear) | None => {
                return Err(fail(
                    "it has factors, but its type says that there is no scaling".into(),
                ));
            }
            Some(kind) => {
                return Err(fail(format!(
                    "it has factors that are not those of its type, \"{}\"",
                    kind.name()
                )));
            }
        };
        Ok(Self {
            theta,
            partial,
            scaling,
        })
    }

    /// What the frequencies of `rotary_dim` elements are divided by in a model for `positions` positions.
    pub(super) fn scaling(
        self,
        rotary_dim: usize,
        positions: usize,
    ) -> Result<Option<LongRope>, ModelError> {
        let half = rotary_dim / 2;
        let fail = |reason: String| ModelError::Config(format!("rope_scaling: {reason}"));
        let (short, long, original, factor, attention_factor) = match self.scaling {
            None => return Ok(None),
            Some(Scaling::Linear(factor)) => {
                return Ok(Some(LongRope::always(vec![factor; half], positions)));
            }
            Some(Scaling::Llama3 {
                factor,
                low,
                high,
                original,
            }) => {
                let lengths = (0..half).map(|i| {
                    let power = 2.0 * i as f64 / rotary_dim as f64;
                    std::f64::consts::TAU * self.theta.powf(power)
                });
                let factors = lengths.map(|length| {
                    let waves = original as f64 / length;
                    let short = ((waves - low) / (high - low)).clamp(0.0, 1.0);
                    1.0 / ((1.0 - short) / factor + short)
                });
                return Ok(Some(LongRope::always(factors.collect(), positions)));
            }
            Some(Scaling::Long {
                short,
                long,
                original,
                factor,
                attention_factor,
            }) => (short, long, original, factor, attention_factor),
        };
        for (name, factors) in [("short_factor", &short), ("long_factor", &long)] {
            if factors.len() != half {
                return Err(fail(format!(
                    "{name} has {} factors; the rotary embedding has {half} frequencies",
                    factors.len()
                )));
            }
        }
        let scale = positions as f64 / original as f64;
        let attention_factor = match (attention_factor, factor) {
            (Some(given), _) => given,
            // Versions of Transformers differ in which of the two they take.
            (None, Some(factor)) if (factor / scale - 1.0).abs() > 1e-6 => {
                return Err(fail(format!(
                    "factor is {factor}, but {positions} positions for {original} of pretraining \
                     are {scale}: which of the two holds is not clear; attention_factor would say it"
                )));
            }
            (None, _) => LongRope::attention_factor(scale, original),
        };
        Ok(Some(LongRope {
            short,
            long,
            original_max_position_embeddings: original,
            attention_factor,
        }))
    }
}

/// The objects in which the settings may stand.
struct Places<'a> {
    top: Fields<'a>,
    blocks: Vec<Fields<'a>>,
    /// The name of the first block, for messages.
    name: &'static str,
}

impl<'a> Places<'a> {
    fn new(config: &Fields<'a>) -> Result<Self, ModelError> {
        let (mut blocks, mut first) = (Vec::new(), None);
        for (key, place) in [
            ("rope_scaling", "rope_scaling: "),
            ("rope_parameters", "rope_parameters: "),
        ] {
            let Some(value) = config.get(key) else {
                continue;
            };
            let wrong = || {
                let value = shown(&value.to_string());
                config.fail(format!("{key} is {value}; an object is needed"))
            };
            let map = common(value.as_object().ok_or_else(wrong)?).ok_or_else(|| {
                config.fail(format!(
                    "{key} has settings that differ by the kind of layer; here all layers are alike"
                ))
            })?;
            let unknown = map
                .iter()
                .find(|(key, value)| !value.is_null() && !KNOWN.contains(&key.as_str()));
            if let Some((unknown, value)) = unknown {
                return Err(config.fail(format!(
                    "{key}: {} is {}, which is not understood and may change the numbers",
                    shown(unknown),
                    shown(&value.to_string())
                )));
            }
            first = first.or(Some(key));
            blocks.push(Fields::new(map, place));
        }
        Ok(Self {
            top: *config,
            blocks,
            name: first.unwrap_or("rope_scaling"),
        })
    }

    fn fail(&self, reason: String) -> ModelError {
        self.top.fail(format!("{}: {reason}", self.name))
    }

    /// What all places that say it say.
    fn settled<T: PartialEq>(
        &self,
        key: &str,
        read: impl Fn(&Fields<'a>) -> Result<Option<T>, ModelError>,
    ) -> Result<Option<T>, ModelError> {
        // These are another setting, or none, outside of a block.
        let inside = matches!(
            key,
            "type"
                | "factor"
                | "attention_factor"
                | "short_factor"
                | "long_factor"
                | "low_freq_factor"
                | "high_freq_factor"
        );
        let top = [&self.top].into_iter().filter(|_| !inside);
        let mut settled = None;
        for fields in top.chain(&self.blocks) {
            let said = read(fields)?;
            if settled.is_some() && said.is_some() && settled != said {
                return Err(self.top.fail(format!(
                    "{key} is said twice, and differently (at the top, in rope_scaling, or in \
                     rope_parameters): which holds is not clear"
                )));
            }
            settled = settled.or(said);
        }
        Ok(settled)
    }
}

/// The settings themselves, where they are given once for each kind of layer and are all the same;
/// `None` if they are not.
fn common(map: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let mut kinds = map.values().filter_map(Value::as_object);
    match kinds.next() {
        None => Some(map),
        Some(first) => {
            let whole = kinds.clone().count() + 1 == map.len();
            let equal = |other: &Map<String, Value>| {
                other.len() == first.len()
                    && first
                        .iter()
                        .all(|(key, value)| other.get(key).is_some_and(|o| same(o, value)))
            };
            (whole && kinds.all(equal)).then_some(first)
        }
    }
}

/// The kind of scaling that a block names, under either key.
fn kind(fields: &Fields<'_>, own: &Architecture) -> Result<Option<Kind>, ModelError> {
    let mut found = None;
    for key in ["rope_type", "type"] {
        let Some(name) = fields.text(key)? else {
            continue;
        };
        let kind = match name {
            "default" | "none" => Kind::Default,
            "linear" => Kind::Linear,
            "llama3" if own.scalings.contains(&name) => Kind::Llama3,
            // The names that the first Phi-3 checkpoints had for it. The YaRN of other models has
            // no such factors.
            "longrope" | "su" => Kind::Long,
            "yarn" if fields.get("short_factor").is_some() => Kind::Long,
            other => {
                return Err(fields.fail(format!(
                    "its type is \"{}\"; {} models have {}",
                    shown(other),
                    own.words,
                    own.scalings()
                )));
            }
        };
        if found.is_some_and(|found| found != kind) {
            return Err(fields.fail("its rope_type and its type differ".into()));
        }
        found = Some(kind);
    }
    Ok(found)
}

/// Factors of frequencies.
fn factors(fields: &Fields<'_>, key: &str) -> Result<Option<Vec<f64>>, ModelError> {
    let Some(value) = fields.get(key) else {
        return Ok(None);
    };
    let wrong = |value: &Value| {
        let value = shown(&value.to_string());
        fields.fail(format!("{key} holds {value}, which is no factor"))
    };
    let factor = |value: &Value| {
        let factor = value.as_f64().filter(|f| f.is_finite() && *f > 0.0);
        factor.ok_or_else(|| wrong(value))
    };
    let list = value.as_array().ok_or_else(|| wrong(value))?;
    list.iter().map(factor).collect::<Result<_, _>>().map(Some)
}
