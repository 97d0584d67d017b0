//! What a lane's cache holds.

use crate::phi3::{ROW_BOS, ROW_GENERATED};
use crate::sae::Activation;
use crate::tokens::TokenRole;

/// The `ROW_` flags of a token.
pub(super) fn flags(role: TokenRole) -> u32 {
    match role {
        TokenRole::Bos => ROW_BOS,
        TokenRole::Prompt => 0,
        TokenRole::Generated => ROW_GENERATED,
    }
}

/// One token whose keys and values are in the cache.
#[derive(Clone)]
pub(super) struct Held {
    pub token: u32,
    /// The steering that it was computed under.
    pub fingerprint: u64,
    /// Its active features, largest first, if they were asked for then.
    pub features: Option<Vec<Activation>>,
}

/// The tokens of a lane that are in the cache, in order.
#[derive(Default)]
pub(super) struct LaneCache {
    pub held: Vec<Held>,
}

impl LaneCache {
    /// How many leading tokens of a prompt can be kept: the same tokens under the same steering, with
    /// features where those are wanted, and never the whole prompt, whose last token gives the logits.
    pub fn reusable(&self, wanted: &[(u32, u64)], with_features: bool) -> usize {
        self.held
            .iter()
            .zip(&wanted[..wanted.len().saturating_sub(1)])
            .take_while(|(held, (token, fingerprint))| {
                held.token == *token
                    && held.fingerprint == *fingerprint
                    && (!with_features || held.features.is_some())
            })
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(token: u32, fingerprint: u64, with: bool) -> Held {
        Held {
            token,
            fingerprint,
            features: with.then(Vec::new),
        }
    }

    #[test]
    fn the_longest_equal_prefix_is_kept_but_never_all() {
        let lane = LaneCache {
            held: vec![held(1, 0, true), held(5, 0, true), held(6, 7, false)],
        };
        let reusable = |wanted: &[(u32, u64)], with| lane.reusable(wanted, with);
        assert_eq!(reusable(&[(1, 0), (5, 0), (6, 7), (9, 0)], false), 3);
        assert_eq!(reusable(&[(1, 0), (5, 0), (6, 7)], false), 2);
        assert_eq!(reusable(&[(1, 0), (5, 0), (6, 8), (9, 0)], false), 2);
        assert_eq!(reusable(&[(1, 0), (5, 3), (6, 7), (9, 0)], false), 1);
        assert_eq!(reusable(&[(1, 0), (5, 0), (6, 7), (9, 0)], true), 2);
        assert_eq!(reusable(&[(2, 0), (5, 0)], false), 0);
        assert_eq!(reusable(&[], false), 0);
    }
}
