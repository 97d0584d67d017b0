//! What a lane's cache holds.

use std::rc::Rc;

use super::FeatureWish;
use crate::phi3::{Model, ROW_BOS, ROW_GENERATED};
use crate::steering::{Steering, TokenFeatures};
use crate::tokens::TokenRole;

/// The `ROW_` flags of a token.
pub(super) fn flags(role: TokenRole) -> u32 {
    match role {
        TokenRole::Bos => ROW_BOS,
        TokenRole::Prompt => 0,
        TokenRole::Generated => ROW_GENERATED,
    }
}

/// The steering that a token is computed under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Under {
    /// See [`Steering::fingerprint`].
    pub fingerprint: u64,
    /// The first block whose output is edited.
    pub edited: Option<usize>,
}

impl Under {
    /// That of a token with these `ROW_` flags, in a pass that is submitted now.
    pub fn now(steering: &Steering, lane: usize, row_flags: u32) -> Self {
        Self {
            fingerprint: steering.fingerprint(lane, row_flags),
            edited: steering.first_edited(lane, row_flags),
        }
    }
}

/// One token whose keys and values are in the cache.
#[derive(Clone)]
pub(super) struct Held {
    pub token: u32,
    /// The steering that it was computed under.
    pub under: Under,
    /// Its features, if they were asked for then.
    pub features: Option<Rc<TokenFeatures>>,
}

impl Held {
    /// Whether it tells what `wish` asks.
    fn grants(&self, wish: FeatureWish) -> bool {
        self.features.as_ref().is_some_and(|features| {
            features.hook() == wish.hook
                && wish
                    .track
                    .is_none_or(|feature| features.activation(feature).is_some())
        })
    }
}

/// What a token was predicted under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// The lane's setting.
    pub setting: u64,
    /// Whether it edits the tokens of an answer.
    pub steered: bool,
}

impl Written {
    /// What a pass that is submitted now is computed under.
    pub fn now(steering: &Steering, lane: usize) -> Self {
        Self {
            setting: steering.setting(lane),
            steered: steering.fingerprint(lane, ROW_GENERATED) != 0,
        }
    }
}

/// The tokens of a lane that are in the cache, in order.
#[derive(Default)]
pub(super) struct LaneCache {
    pub held: Vec<Held>,
    /// Positions that were written since the first was: no fewer than are held.
    pub reached: usize,
    /// What the pass that gave the lane's logits was computed under.
    pub written: Written,
}

impl LaneCache {
    /// Holds nothing any more.
    pub fn forget(&mut self) {
        self.held.clear();
        self.reached = 0;
    }

    /// Takes in the token of the next position.
    pub fn push(&mut self, held: Held) {
        self.held.push(held);
        self.reached = self.reached.max(self.held.len());
    }

    /// Keeps the first `keep` tokens, or none if what follows them could not be read any more; returns how many.
    pub fn keep(&mut self, keep: usize, model: &Model) -> usize {
        if keep == 0 || !model.can_go_on(self.reached, keep) {
            self.forget();
        }
        self.held.truncate(keep);
        self.held.len()
    }

    /// How many leading tokens of a prompt can be kept: the same tokens under the same steering, with
    /// the features that are wanted, and never the whole prompt, whose last token gives the logits.
    pub fn reusable(&self, wanted: &[(u32, u64)], wish: Option<FeatureWish>) -> usize {
        self.held
            .iter()
            .zip(&wanted[..wanted.len().saturating_sub(1)])
            .take_while(|(held, (token, fingerprint))| {
                held.token == *token
                    && held.under.fingerprint == *fingerprint
                    && wish.is_none_or(|wish| held.grants(wish))
            })
            .count()
    }
}

impl LaneCache {
    /// How many leading tokens of a prompt are in the cache with keys and values up to block `layer` that are as
    /// without steering; never the whole prompt.
    pub fn untouched(&self, prompt: &[u32], layer: usize) -> usize {
        let wanted = &prompt[..prompt.len().saturating_sub(1)];
        let plain = |held: &Held| held.under.edited.is_none_or(|edited| edited >= layer);
        let pairs = self.held.iter().zip(wanted);
        pairs
            .take_while(|(held, token)| held.token == **token && plain(held))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sae::{Activation, HookPoint};

    fn held(token: u32, fingerprint: u64, features: Option<TokenFeatures>) -> Held {
        Held {
            token,
            under: Under {
                fingerprint,
                edited: (fingerprint != 0).then_some(2),
            },
            features: features.map(Rc::new),
        }
    }

    /// Features at block 3 of which the strongest are listed.
    fn features(all: bool, tracked: Option<(u32, f32)>) -> Option<TokenFeatures> {
        let listed = vec![Activation {
            feature: 7,
            value: 1.5,
        }];
        let hook = HookPoint::block(3);
        Some(TokenFeatures::new(hook, listed, all, tracked))
    }

    #[test]
    fn the_longest_equal_prefix_is_kept_but_never_all() {
        let lane = LaneCache {
            held: vec![
                held(1, 0, features(true, None)),
                held(5, 0, features(true, None)),
                held(6, 7, None),
            ],
            ..LaneCache::default()
        };
        let wish = FeatureWish {
            hook: HookPoint::block(3),
            track: None,
        };
        let reusable = |wanted: &[(u32, u64)], wish| lane.reusable(wanted, wish);
        assert_eq!(reusable(&[(1, 0), (5, 0), (6, 7), (9, 0)], None), 3);
        assert_eq!(reusable(&[(1, 0), (5, 0), (6, 7)], None), 2);
        assert_eq!(reusable(&[(1, 0), (5, 0), (6, 8), (9, 0)], None), 2);
        assert_eq!(reusable(&[(1, 0), (5, 3), (6, 7), (9, 0)], None), 1);
        assert_eq!(reusable(&[(1, 0), (5, 0), (6, 7), (9, 0)], Some(wish)), 2);
        assert_eq!(reusable(&[(2, 0), (5, 0)], None), 0);
        assert_eq!(reusable(&[], None), 0);
    }

    #[test]
    fn what_no_edit_has_reached_serves_a_gate() {
        let lane = LaneCache {
            held: [(1, 0), (5, 7), (6, 8), (9, 0)]
                .map(|(token, fingerprint)| held(token, fingerprint, None))
                .into(),
            ..LaneCache::default()
        };
        let prompt = [1, 5, 6, 9, 4];
        // Tokens are edited after block 2.
        for (layer, expected) in [(0, 4), (2, 4), (3, 1), (9, 1)] {
            assert_eq!(lane.untouched(&prompt, layer), expected, "block {layer}");
        }
        assert_eq!(lane.untouched(&prompt[..4], 2), 3, "never the whole prompt");
        assert_eq!(lane.untouched(&[1, 5, 7, 9], 2), 2);
        assert_eq!(lane.untouched(&[], 2), 0);
    }

    #[test]
    fn features_are_kept_where_they_tell_what_is_asked() {
        let of = |all, tracked| LaneCache {
            held: vec![held(1, 0, features(all, tracked))],
            ..LaneCache::default()
        };
        let asks = |lane: &LaneCache, layer, track| {
            let hook = HookPoint::block(layer);
            lane.reusable(&[(1, 0), (2, 0)], Some(FeatureWish { hook, track }))
        };
        let whole = of(true, None);
        assert_eq!(asks(&whole, 3, Some(9)), 1, "what is not listed is zero");
        assert_eq!(asks(&whole, 2, None), 0, "another dictionary's");
        let cut = of(false, Some((9, 0.25)));
        assert_eq!(asks(&cut, 3, None), 1);
        assert_eq!(asks(&cut, 3, Some(7)), 1, "listed");
        assert_eq!(asks(&cut, 3, Some(9)), 1, "tracked");
        assert_eq!(asks(&cut, 3, Some(8)), 0, "not known");
    }
}
