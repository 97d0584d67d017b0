//! Scores of all searches side by side, and how their ranks agree.

use super::super::LabError;
use super::super::stats::concordance;
use super::evidence::Evidence;
use super::reading::hook_at;
use crate::generate::Chat;
use crate::sae::HookPoint;

/// A way of searching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Refusal rate at a clamp, of latents active on at least two tokens of a refusal (arXiv 2411.11296).
    Paper,
    /// Contrast at the prompt's last token.
    Last,
    /// Contrast over the reply.
    Reply,
    /// Cosine of the decoder row with the difference of means.
    Cosine,
    /// Effect on the log-odds of a refusal.
    Causal,
    /// Output score (arXiv 2505.20063).
    Output,
    /// Paired contrast with and without a jailbreak (arXiv 2602.12418).
    Paired,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Paper,
        Self::Last,
        Self::Reply,
        Self::Cosine,
        Self::Causal,
        Self::Output,
        Self::Paired,
    ];

    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Last => "contrastLast",
            Self::Reply => "contrastReply",
            Self::Cosine => "cosine",
            Self::Causal => "causal",
            Self::Output => "output",
            Self::Paired => "paired",
        }
    }
}

/// The scores of each latent that is alive, by its place in the evidence; the higher the better, none where
/// a search did not come to it.
pub struct Scores {
    by: Vec<Vec<Option<f64>>>,
    /// Tokens of the archetypal refusal at which each is active.
    tokens: Vec<usize>,
}

/// Tokens of the refusal at which a candidate of the paper's is active.
const PAPER_TOKENS: usize = 2;

impl Scores {
    /// Those that need no steering.
    pub fn new(evidence: &[Evidence], cosines: &[f64]) -> Self {
        let of = |score: &dyn Fn(usize) -> Option<f64>| -> Vec<Option<f64>> {
            (0..evidence.len()).map(score).collect()
        };
        let by = Method::ALL
            .into_iter()
            .map(|method| match method {
                Method::Last => of(&|i| Some(evidence[i].last.t)),
                Method::Reply => of(&|i| Some(evidence[i].reply.t)),
                Method::Cosine => of(&|i| cosines.get(i).copied()),
                // Significance, on the side of the request alone; among equals the larger difference.
                Method::Paired => of(&|i| {
                    let paired = evidence[i].paired?;
                    let size = -paired.p.max(1e-300).log10()
                        + 1e-3 * paired.delta.abs() / (1.0 + paired.delta.abs());
                    Some(size * paired.delta.signum())
                }),
                Method::Paper | Method::Causal | Method::Output => of(&|_| None),
            })
            .collect();
        Self {
            by,
            tokens: evidence.iter().map(|e| e.paper).collect(),
        }
    }

    /// Sets the scores of the latents `of`.
    pub fn set(&mut self, method: Method, of: &[usize], scores: &[f64]) {
        for (&i, &score) in of.iter().zip(scores) {
            self.by[method as usize][i] = Some(score);
        }
    }

    /// A score.
    pub fn get(&self, method: Method, index: usize) -> Option<f64> {
        self.by[method as usize].get(index).copied().flatten()
    }

    /// The latents that a search came to, best first; of equals those on more tokens of the refusal.
    fn order(&self, method: Method) -> Vec<usize> {
        let scored = &self.by[method as usize];
        let mut all: Vec<usize> = (0..scored.len()).filter(|i| scored[*i].is_some()).collect();
        all.sort_by(|&a, &b| {
            let (x, y) = (scored[a].unwrap_or_default(), scored[b].unwrap_or_default());
            y.total_cmp(&x).then(self.tokens[b].cmp(&self.tokens[a]))
        });
        all
    }

    /// The `count` latents that the searches so far rank highest: up to three quarters of them the paper's
    /// candidates,
    /// then the first of each other search in turn.
    pub fn likely(&self, count: usize) -> Vec<usize> {
        let mut orders: Vec<Vec<usize>> = Method::ALL.iter().map(|m| self.order(*m)).collect();
        orders.retain(|order| !order.is_empty());
        let mut all = self.archetypal(count * 3 / 4);
        let longest = orders.iter().map(Vec::len).max().unwrap_or(0);
        for place in 0..longest {
            for order in &orders {
                if let Some(&i) = order.get(place)
                    && !all.contains(&i)
                    && all.len() < count
                {
                    all.push(i);
                }
            }
        }
        all
    }

    /// The paper's candidates, at most `count`: latents active on at least two tokens of the archetypal
    /// refusal. First those with the largest effect on the odds, as far as it is known, then those on most
    /// tokens.
    pub fn archetypal(&self, count: usize) -> Vec<usize> {
        let tokens = &self.tokens;
        let mut all: Vec<usize> = (0..tokens.len())
            .filter(|i| tokens[*i] >= PAPER_TOKENS)
            .collect();
        let effect = |i: usize| self.get(Method::Causal, i).unwrap_or(f64::NEG_INFINITY);
        all.sort_by(|&a, &b| {
            let stronger = effect(b).total_cmp(&effect(a));
            stronger.then(tokens[b].cmp(&tokens[a]))
        });
        all.truncate(count);
        all
    }
}

/// The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009).
const FUSION: f64 = 60.0;
/// A rank that counts as agreement.
const HIGH: usize = 10;

/// The ranks of all searches.
pub struct Ranking {
    /// By search, the rank of each latent from 1 on.
    ranks: Vec<Vec<Option<usize>>>,
    fused: Vec<f64>,
    concordance: f64,
}

impl Ranking {
    /// The ranks of `scores`.
    pub fn of(scores: &Scores) -> Self {
        let count = scores.tokens.len();
        let ranks: Vec<Vec<Option<usize>>> = Method::ALL
            .into_iter()
            .map(|method| {
                let mut ranks = vec![None; count];
                for (place, i) in scores.order(method).into_iter().enumerate() {
                    ranks[i] = Some(place + 1);
                }
                ranks
            })
            .collect();
        let fused = (0..count)
            .map(|i| {
                let own = ranks.iter().filter_map(|r| r[i]);
                own.map(|rank| 1.0 / (FUSION + rank as f64)).sum()
            })
            .collect();
        // Of those that every search came to.
        let full: Vec<usize> = (0..count)
            .filter(|&i| {
                let mut all = ranks.iter().zip(&scores.by);
                all.all(|(r, s)| r[i].is_some() || s.iter().all(Option::is_none))
            })
            .collect();
        let judges: Vec<Vec<f64>> = scores
            .by
            .iter()
            .filter(|s| s.iter().any(Option::is_some))
            .map(|s| full.iter().filter_map(|i| s[*i]).collect())
            .collect();
        Self {
            ranks,
            fused,
            concordance: concordance(&judges),
        }
    }

    /// A latent's rank in a search.
    pub fn rank(&self, method: Method, index: usize) -> Option<usize> {
        self.ranks[method as usize].get(index).copied().flatten()
    }

    /// The share of the searches that came to a latent which rank it among their first ten.
    pub fn agreement(&self, index: usize) -> f64 {
        let own: Vec<usize> = self.ranks.iter().filter_map(|r| r[index]).collect();
        let high = own.iter().filter(|rank| **rank <= HIGH).count();
        high as f64 / own.len().max(1) as f64
    }

    /// Kendall's W of the searches over the latents that all of them came to.
    pub fn concordance(&self) -> f64 {
        self.concordance
    }

    /// All latents, best first by the ranks' fusion.
    pub fn order(&self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.fused.len()).collect();
        all.sort_by(|&a, &b| self.fused[b].total_cmp(&self.fused[a]));
        all
    }

    /// The `count` latents to confirm: in turn the best by the effect on the odds, by the paper's search and
    /// by the fusion of all ranks.
    pub fn best(&self, count: usize) -> Vec<usize> {
        let by = |method: Method| {
            let ranks = &self.ranks[method as usize];
            let mut all: Vec<usize> = (0..ranks.len()).filter(|i| ranks[*i].is_some()).collect();
            all.sort_by_key(|i| ranks[*i]);
            all
        };
        let orders = [by(Method::Causal), self.order(), by(Method::Paper)];
        let mut all = Vec::new();
        for place in 0..self.fused.len() {
            for order in &orders {
                if let Some(&i) = order.get(place)
                    && !all.contains(&i)
                    && all.len() < count
                {
                    all.push(i);
                }
            }
        }
        all
    }
}

/// Decoder rows that are read at a time.
const ROWS: usize = 1024;

/// The cosine of each latent's decoder row with `direction`.
pub async fn cosines(
    chat: &Chat,
    hook: HookPoint,
    evidence: &[Evidence],
    direction: &[f32],
) -> Result<Vec<f64>, LabError> {
    let all = all_cosines(chat, hook, direction).await?;
    let of = |e: &Evidence| all.get(e.feature as usize).copied().unwrap_or_default();
    Ok(evidence.iter().map(of).collect())
}

/// The cosine of every latent's decoder row with `direction`, `[latents]`.
pub async fn all_cosines(
    chat: &Chat,
    hook: HookPoint,
    direction: &[f32],
) -> Result<Vec<f64>, LabError> {
    let dictionary = hook_at(chat, hook)?.dictionary().clone();
    let gpu = chat.model().gpu();
    let width = dictionary.width();
    let mut all = Vec::with_capacity(dictionary.latents());
    while all.len() < dictionary.latents() {
        let rows = dictionary.decoder_rows(gpu, all.len() as u32, ROWS).await?;
        if rows.is_empty() {
            break;
        }
        all.extend(rows.chunks_exact(width).map(|row| cosine(row, direction)));
    }
    Ok(all)
}

/// The cosine of two vectors; 0 where one is.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        (ab, aa, bb) = (ab + x * y, aa + x * x, bb + y * y);
    }
    if aa == 0.0 || bb == 0.0 {
        0.0
    } else {
        ab / (aa * bb).sqrt()
    }
}
