//! How likely a token was, and what else was likely in its place.

/// Alternatives of a token at most.
pub const MOST_ALTERNATIVES: usize = 20;

/// Logs of probabilities in nats: those of the model itself, before penalty, temperature and what else the
/// sampler does to them; steering is part of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// That of the token.
    pub token: f64,
    /// The likeliest tokens with theirs, the likeliest first, the lower id first among equals. The token is
    /// among them if it is one of them.
    pub top: Vec<(u32, f64)>,
}

impl Logprobs {
    /// Those of `token` and of the `most` likeliest under `logits`, which are finite.
    pub fn of(logits: &[f32], token: u32, most: usize) -> Self {
        let most = most.min(logits.len());
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let largest = f64::from(largest);
        let sum: f64 = logits.iter().map(|l| (f64::from(*l) - largest).exp()).sum();
        let log = |id: u32| f64::from(logits[id as usize]) - largest - sum.ln();
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let order = |a: &u32, b: &u32| {
            let (left, right) = (logits[*a as usize], logits[*b as usize]);
            right.total_cmp(&left).then(a.cmp(b))
        };
        if most < ids.len() {
            ids.select_nth_unstable_by(most, order);
            ids.truncate(most);
        }
        ids.sort_unstable_by(order);
        Self {
            token: log(token),
            top: ids.into_iter().map(|id| (id, log(id))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_all_sum_to_one() {
        for case in 0..50u64 {
            // Few different values, so that some are equal; any shift of all changes nothing.
            let draw = |i: u64| ((i * 2_654_435_761 + case * 40_503) % 97) as f32 / 8.0;
            let logits: Vec<f32> = (0..300)
                .map(|i| draw(i) + case as f32 * 20.0 - 500.0)
                .collect();
            let all = Logprobs::of(&logits, 7, logits.len());
            let sum: f64 = all.top.iter().map(|(_, log)| log.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-9, "case {case}: {sum}");
            assert_eq!(all.top.len(), logits.len());
            for pair in all.top.windows(2) {
                let (before, after) = (pair[0], pair[1]);
                let equal = logits[before.0 as usize] == logits[after.0 as usize];
                assert!(
                    before.1 > after.1 || equal && before.0 < after.0,
                    "case {case}"
                );
            }
            let own = all.top.iter().find(|(id, _)| *id == 7);
            assert_eq!(own.map(|(_, log)| *log), Some(all.token));
            for most in [0, 1, 5, MOST_ALTERNATIVES] {
                let few = Logprobs::of(&logits, 7, most);
                assert_eq!(few.top, all.top[..most], "case {case}");
                assert_eq!(few.token, all.token);
            }
        }
    }

    #[test]
    fn probabilities_are_those_of_the_logits() {
        let logits = [0.5f64, 0.25, 0.125, 0.125].map(|p| p.ln() as f32);
        let logprobs = Logprobs::of(&logits, 2, 2);
        assert!((logprobs.token.exp() - 0.125).abs() < 1e-6);
        let ids: Vec<u32> = logprobs.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [0, 1]);
    }
}
