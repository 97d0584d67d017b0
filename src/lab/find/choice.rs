//! What a search ends with: one feature, several together, a direction, or nothing.

use serde::Serialize;

use super::super::{LabError, Run};
use super::confirm::{CURVE, Confirmed, Dose, Doses, Member, Trial, worth};
use crate::generate::Chat;

/// What another feature must add to a set, as a share, and anything to the base: less is within the chance of so
/// few prompts.
const PAYS: f64 = 0.05;

/// What a search ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One feature.
    Feature,
    /// Several together.
    Set,
    /// The difference of means, since no feature makes the model refuse more for what it costs.
    Direction,
    /// Nothing does. The features are those that came nearest.
    None,
}

impl Kind {
    /// By what `features` buy less what they cost, along their curve, and what the direction does; and whether
    /// that is so only behind the gate.
    pub fn of(features: usize, base: &Dose, curve: &[Doses], along: &[Doses]) -> (Self, bool) {
        for gated in [false, true] {
            let dose = |d: &Doses| if gated { d.gated } else { d.always };
            let pays = |all: &[Doses]| all.iter().any(|d| worth(base, &dose(d)) > PAYS);
            match (pays(curve), pays(along)) {
                (true, _) if features == 1 => return (Self::Feature, gated),
                (true, _) => return (Self::Set, gated),
                (false, true) => return (Self::Direction, gated),
                (false, false) => {}
            }
        }
        (Self::None, false)
    }
}

/// The best confirmed latent, and more while they pay; with the curve of its strengths, always and behind the gate.
pub async fn choose(
    chat: &mut Chat,
    run: &mut Run<'_>,
    trial: &Trial<'_>,
    confirmed: &[(usize, Confirmed)],
    most: usize,
    member: &dyn Fn(usize) -> Member,
) -> Result<(Vec<Member>, Vec<Doses>), LabError> {
    let Some((first, _)) = confirmed.first() else {
        return Ok((Vec::new(), Vec::new()));
    };
    let base = trial.base();
    let mut chosen = vec![member(*first)];
    let mut curve = Vec::new();
    for times in CURVE {
        let value = f64::from(times) * chosen[0].max;
        curve.push(trial.dose(chat, run, &chosen, times, value).await?);
    }
    let worths = curve.iter().map(|d: &Doses| worth(&base, &d.always));
    let mut best = worths.fold(f64::NEG_INFINITY, f64::max);
    // A set's members are each held at their own maximum.
    let pays = confirmed[1..]
        .iter()
        .filter(|(_, c)| c.up.steered > c.up.base);
    for (i, _) in pays.take(2 * (most - 1)) {
        if chosen.len() == most {
            break;
        }
        let mut more = chosen.clone();
        more.push(member(*i));
        let dose = trial.dose(chat, run, &more, 1.0, 1.0).await?.always;
        if worth(&base, &dose) > best + PAYS {
            best = worth(&base, &dose);
            chosen = more;
        }
    }
    if chosen.len() > 1 {
        curve.clear();
        for times in CURVE {
            curve.push(trial.dose(chat, run, &chosen, times, times.into()).await?);
        }
    }
    Ok((chosen, curve))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_nothing_is_not_called_the_refusal_feature() {
        let dose = |harmful, benign| Dose {
            value: 1.0,
            harmful,
            benign,
            coherent: 1.0,
        };
        let base = dose(0.2, 0.0);
        let both = |always, gated| [Doses { always, gated }];
        let pays = both(dose(0.6, 0.1), dose(0.5, 0.0));
        let costs = both(dose(0.8, 0.6), dose(0.24, 0.0));
        let nothing = both(dose(0.24, 0.0), dose(0.2, 0.0));
        let behind = both(dose(0.8, 0.6), dose(0.5, 0.1));
        for (features, curve, along, kind) in [
            (1, &pays, &pays, (Kind::Feature, false)),
            (2, &pays, &costs, (Kind::Set, false)),
            (1, &costs, &pays, (Kind::Direction, false)),
            (3, &nothing, &costs, (Kind::None, false)),
            // What pays behind the gate alone comes after what pays without one.
            (1, &behind, &pays, (Kind::Direction, false)),
            (1, &behind, &behind, (Kind::Feature, true)),
            (2, &nothing, &behind, (Kind::Direction, true)),
        ] {
            assert_eq!(Kind::of(features, &base, curve, along), kind);
        }
        assert_eq!(Kind::of(0, &base, &[], &pays), (Kind::Direction, false));
        assert_eq!(Kind::of(0, &base, &[], &[]), (Kind::None, false));
        assert_eq!(json!(Kind::None), "none");
    }
}
