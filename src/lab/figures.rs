//! Figures of one arm, with their uncertainty.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Hits out of a number of trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Hits.
    pub hits: usize,
    /// Trials.
    pub of: usize,
}

/// The 97.5th percentile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

impl Share {
    /// Counts another trial.
    pub fn count(&mut self, hit: bool) {
        self.hits += usize::from(hit);
        self.of += 1;
    }

    /// In percent; NaN without trials.
    pub fn percent(self) -> f64 {
        100.0 * self.hits as f64 / self.of as f64
    }

    /// The other trials.
    pub fn others(self) -> Self {
        Self {
            hits: self.of - self.hits,
            of: self.of,
        }
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            of: self.of + other.of,
        }
    }

    /// Wilson's 95% score interval in percent (Wilson 1927); 0 to 100 without trials.
    pub fn interval(self) -> [f64; 2] {
        if self.of == 0 {
            return [0.0, 100.0];
        }
        let (n, p) = (self.of as f64, self.hits as f64 / self.of as f64);
        let scale = 1.0 / (1.0 + Z * Z / n);
        let middle = scale * (p + Z * Z / (2.0 * n));
        let half = scale * Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        [
            100.0 * (middle - half).max(0.0),
            100.0 * (middle + half).min(1.0),
        ]
    }
}

/// What was measured of one arm; what was not is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Replies that refuse, by set.
    pub refused: BTreeMap<String, Share>,
    /// Replies that are no text any more, by set.
    pub incoherent: BTreeMap<String, Share>,
    /// Mean log-odds that a reply begins as refusals do, by set.
    pub odds: BTreeMap<String, f64>,
    /// Refused jailbreaks of all trained families (all but the sets `jbx_*`).
    pub jailbreaks: Option<Share>,
    /// Refused jailbreaks of the families that training never had (the sets `jbx_*`).
    pub unseen: Option<Share>,
    /// Facts answered rightly.
    pub facts: Option<Share>,
    /// Questions with four options answered rightly.
    pub choice: Option<Share>,
    /// Sums answered rightly.
    pub arithmetic: Option<Share>,
    /// Coherent replies to small talk.
    pub coherent: Option<Share>,
    /// Perplexity of the reference replies.
    pub perplexity: Option<f64>,
    /// KL divergence from the base on its own replies to harmless prompts, nats a token.
    pub kl: Option<f64>,
}

impl Figures {
    /// The share of `set` that was refused.
    pub fn of(&self, set: &str) -> Option<Share> {
        self.refused.get(set).copied()
    }

    /// In percent, with intervals and numbers of prompts; `refused`, `jailbreaks`, `facts`, `coherent`
    /// and `perplexity` as the page reads them.
    pub fn json(&self) -> Value {
        let round = |v: f64| (v * 100.0).round() / 100.0;
        let mut refused = json!({});
        let mut intervals = json!({});
        let mut prompts = json!({});
        for (set, share) in &self.refused {
            refused[set] = json!(round(share.percent()));
            intervals[set] = json!(share.interval().map(round));
            prompts[set] = json!(share.of);
        }
        let mut out = json!({"refused": refused});
        let broken = self.incoherent.iter().filter(|(_, share)| share.hits > 0);
        let broken: BTreeMap<&String, f64> =
            broken.map(|(set, s)| (set, round(s.percent()))).collect();
        if !broken.is_empty() {
            out["incoherent"] = json!(broken);
        }
        if !self.odds.is_empty() {
            let odds = self.odds.iter().map(|(set, v)| (set, round(*v)));
            out["odds"] = json!(odds.collect::<BTreeMap<_, _>>());
        }
        let totals = [
            ("jailbreaks", self.jailbreaks),
            ("unseen", self.unseen),
            ("facts", self.facts),
            ("choice", self.choice),
            ("arithmetic", self.arithmetic),
            ("coherent", self.coherent),
        ];
        for (name, share) in totals {
            if let Some(share) = share {
                out[name] = json!(round(share.percent()));
                intervals[name] = json!(share.interval().map(round));
                prompts[name] = json!(share.of);
            }
        }
        for (name, value) in [("perplexity", self.perplexity), ("kl", self.kl)] {
            if let Some(value) = value {
                out[name] = json!((value * 1000.0).round() / 1000.0);
            }
        }
        out["interval95"] = intervals;
        out["prompts"] = prompts;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_intervals_are_the_published_ones() {
        // Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score).
        for (hits, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let [a, b] = Share { hits, of }.interval();
            assert!((a / 100.0 - low).abs() < 6e-5, "{hits}/{of}: {a}");
            assert!((b / 100.0 - high).abs() < 6e-5, "{hits}/{of}: {b}");
            // The interval of the others is its mirror image.
            let [c, d] = Share { hits, of }.others().interval();
            assert!((c + b - 100.0).abs() < 1e-9 && (d + a - 100.0).abs() < 1e-9);
        }
        assert_eq!(Share::default().interval(), [0.0, 100.0]);
        assert!(Share::default().percent().is_nan());
    }

    #[test]
    fn json_is_in_percent_and_leaves_out_what_is_missing() {
        let figures = Figures {
            refused: [("benign".to_string(), Share { hits: 1, of: 3 })].into(),
            facts: Some(Share { hits: 9, of: 10 }),
            ..Figures::default()
        };
        let json = figures.json();
        assert_eq!(json["refused"]["benign"], 33.33);
        assert_eq!(json["facts"], 90.0);
        assert_eq!(json["prompts"], json!({"benign": 3, "facts": 10}));
        assert_eq!(json["interval95"]["facts"][0], 59.58);
        for key in ["jailbreaks", "coherent", "perplexity"] {
            assert!(json.get(key).is_none(), "{key}");
        }
    }
}
