//! Tests, intervals and rankings, in f64.
//!
//! Distributions are those of `statrs`; each statistic is checked against a published worked example.

use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal, StudentsT};

/// Differences up to which Wilcoxon's distribution is counted out; beyond, it is taken as normal.
const EXACT_PAIRS: usize = 50;

/// McNemar's exact test of paired yes-or-no answers: the two-sided probability, if both changes are as
/// likely, of counts at least as uneven as `gained` pairs that went from no to yes and `lost` that went
/// back (twice the smaller tail of the binomial distribution, at most 1).
pub fn mcnemar(gained: u64, lost: u64) -> f64 {
    let pairs = gained + lost;
    match Binomial::new(0.5, pairs) {
        Ok(fair) if pairs > 0 => (2.0 * fair.cdf(gained.min(lost))).min(1.0),
        _ => 1.0,
    }
}

/// A signed-rank test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedRank {
    /// The sum of the ranks of positive differences.
    pub w: f64,
    /// Differences that are not zero.
    pub n: usize,
    /// Two-sided.
    pub p: f64,
}

/// Wilcoxon's signed-rank test (Wilcoxon 1945) of whether `differences` lie around zero. Zeros are left out,
/// ties share their mean rank. Up to 50 differences p is counted over all signs, ties and all; beyond, it
/// is the normal approximation with the variance of the ranks as they are and a continuity correction.
pub fn wilcoxon(differences: &[f64]) -> SignedRank {
    let left: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let sizes: Vec<f64> = left.iter().map(|d| d.abs()).collect();
    let ranks = ranks(&sizes);
    let signed = ranks.iter().zip(&left);
    let w = signed.filter(|(_, d)| **d > 0.0).map(|(r, _)| r).sum();
    let n = left.len();
    let p = match n {
        0 => 1.0,
        _ if n <= EXACT_PAIRS => counted_out(&ranks, w),
        _ => by_the_normal(&ranks, w),
    };
    SignedRank { w, n, p }
}

/// Twice the smaller tail of the sum of `ranks` under fair signs.
fn counted_out(ranks: &[f64], w: f64) -> f64 {
    // Mean ranks are whole or half: doubled they are whole.
    let doubled: Vec<usize> = ranks.iter().map(|r| (2.0 * r).round() as usize).collect();
    let total: usize = doubled.iter().sum();
    let mut chances = vec![0.0; total + 1];
    chances[0] = 1.0;
    for rank in doubled {
        for sum in (0..=total).rev() {
            let with = if sum >= rank {
                chances[sum - rank]
            } else {
                0.0
            };
            chances[sum] = 0.5 * (chances[sum] + with);
        }
    }
    let at = (2.0 * w).round() as usize;
    let below: f64 = chances[..=at].iter().sum();
    let above: f64 = chances[at..].iter().sum();
    (2.0 * below.min(above)).min(1.0)
}

fn by_the_normal(ranks: &[f64], w: f64) -> f64 {
    let mean = ranks.iter().sum::<f64>() / 2.0;
    let deviation = (ranks.iter().map(|r| r * r).sum::<f64>() / 4.0).sqrt();
    let z = ((w - mean).abs() - 0.5).max(0.0) / deviation;
    (2.0 * Normal::standard().sf(z)).min(1.0)
}

/// The ranks of `values` from 1 on, equal ones sharing the mean of theirs.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for same in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (same.len() + 1) as f64 / 2.0;
        same.iter().for_each(|&i| ranks[i] = rank);
        before += same.len();
    }
    ranks
}

/// Benjamini and Hochberg's adjusted p-values (1995): a hypothesis is rejected at the false discovery rate
/// q where its value is at most q.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least = 1.0f64;
    for (below, &i) in order.iter().enumerate() {
        let rank = p.len() - below;
        least = least.min(p[i] * p.len() as f64 / rank as f64);
        adjusted[i] = least;
    }
    adjusted
}

/// A point of a ROC curve.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RocPoint {
    /// Scores above it count as positive; none is above the first point's, which is the largest score.
    pub threshold: f64,
    /// The share of negatives above.
    pub false_positive: f64,
    /// The share of positives above.
    pub true_positive: f64,
}

/// The ROC curve of scores, from (0, 0) to (1, 1), a point for each different score; empty unless there are
/// both positives and negatives.
pub fn roc(positives: &[f64], negatives: &[f64]) -> Vec<RocPoint> {
    if positives.is_empty() || negatives.is_empty() {
        return Vec::new();
    }
    let mut all: Vec<(f64, bool)> = positives.iter().map(|s| (*s, true)).collect();
    all.extend(negatives.iter().map(|s| (*s, false)));
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut alarms) = (0usize, 0usize);
    let mut points = Vec::new();
    let share = |hits: usize, alarms: usize| {
        let (p, n) = (positives.len() as f64, negatives.len() as f64);
        (hits as f64 / p, alarms as f64 / n)
    };
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let (true_positive, false_positive) = share(hits, alarms);
        points.push(RocPoint {
            threshold: same[0].0,
            false_positive,
            true_positive,
        });
        let own = same.iter().filter(|(_, positive)| *positive).count();
        hits += own;
        alarms += same.len() - own;
    }
    let (true_positive, false_positive) = share(hits, alarms);
    points.push(RocPoint {
        threshold: f64::NEG_INFINITY,
        false_positive,
        true_positive,
    });
    points
}

/// The area under the ROC curve: the chance that a positive's score is above a negative's, ties counting a
/// half (Hanley and McNeil 1982); 0.5 where one side is empty.
pub fn auc(positives: &[f64], negatives: &[f64]) -> f64 {
    if positives.is_empty() || negatives.is_empty() {
        return 0.5;
    }
    let all: Vec<f64> = positives.iter().chain(negatives).copied().collect();
    let (n, m) = (positives.len() as f64, negatives.len() as f64);
    let above: f64 = ranks(&all)[..positives.len()].iter().sum();
    (above - n * (n + 1.0) / 2.0) / (n * m)
}

/// Welch's test of two means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    /// (mean of a - mean of b) / its standard error; 0 where neither varies.
    pub t: f64,
    /// Degrees of freedom (Welch and Satterthwaite).
    pub df: f64,
    /// Two-sided.
    pub p: f64,
}

/// Welch's t-test of whether `a` and `b` have the same mean, whatever their variances.
pub fn welch(a: &[f64], b: &[f64]) -> Welch {
    let none = Welch {
        t: 0.0,
        df: 0.0,
        p: 1.0,
    };
    if a.len() < 2 || b.len() < 2 {
        return none;
    }
    let (va, vb) = (variance(a) / a.len() as f64, variance(b) / b.len() as f64);
    let error = va + vb;
    if error == 0.0 {
        return none;
    }
    let t = (mean(a) - mean(b)) / error.sqrt();
    let df = error * error / (va * va / (a.len() - 1) as f64 + vb * vb / (b.len() - 1) as f64);
    let p = match StudentsT::new(0.0, 1.0, df) {
        Ok(student) => 2.0 * student.sf(t.abs()),
        Err(_) => 1.0,
    };
    Welch { t, df, p }
}

/// The mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The unbiased variance; 0 of less than two values.
fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    squares / values.len().saturating_sub(1).max(1) as f64
}

/// The share of `a` above zero less that of `b`.
pub fn frequency_difference(a: &[f64], b: &[f64]) -> f64 {
    let share =
        |all: &[f64]| all.iter().filter(|v| **v > 0.0).count() as f64 / all.len().max(1) as f64;
    share(a) - share(b)
}

/// The value below which `share` (0 to 1) of `values` lie, between neighbours in proportion (Hyndman and
/// Fan's seventh definition); none of nothing.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

/// Spearman's rank correlation, ties and all (Pearson's of the ranks); 0 where a side does not vary.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    correlation(&ranks(a), &ranks(b))
}

/// Pearson's correlation; 0 where a side does not vary.
pub fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - ma, y - mb);
        (ab, aa, bb) = (ab + x * y, aa + x * x, bb + y * y);
    }
    if aa == 0.0 || bb == 0.0 {
        0.0
    } else {
        ab / (aa * bb).sqrt()
    }
}

/// Kendall's coefficient of concordance W of several judges' scores of the same things, `[judges][things]`:
/// 1 where all rank alike, about 1 / judges where they do not agree at all (Kendall and Babington Smith
/// 1939), corrected for ties; 0 of less than two judges or things.
pub fn concordance(scores: &[Vec<f64>]) -> f64 {
    let judges = scores.len() as f64;
    let things = scores.first().map_or(0, Vec::len);
    if scores.len() < 2 || things < 2 {
        return 0.0;
    }
    let ranked: Vec<Vec<f64>> = scores.iter().map(|s| ranks(s)).collect();
    let sums: Vec<f64> = (0..things)
        .map(|i| ranked.iter().map(|r| r[i]).sum())
        .collect();
    let middle = mean(&sums);
    let spread: f64 = sums.iter().map(|s| (s - middle).powi(2)).sum();
    let n = things as f64;
    // The most that the sums could be spread: m times the judges' own spreads.
    let own: f64 = ranked
        .iter()
        .map(|r| r.iter().map(|r| (r - (n + 1.0) / 2.0).powi(2)).sum::<f64>())
        .sum();
    if own == 0.0 {
        0.0
    } else {
        spread / (judges * own)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn near(found: f64, expected: f64, within: f64) {
        assert!(
            (found - expected).abs() <= within,
            "{found}, not {expected}"
        );
    }

    fn fresh_rng() -> StdRng {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        StdRng::seed_from_u64(seed)
    }

    #[test]
    fn mcnemar_as_published() {
        // Fagerland, Lydersen and Laake, BMC Med. Res. Methodol. 13:91 (2013), table 1: airway
        // hyper-responsiveness of 21 children before and after a transplantation, 1 and 7 changes.
        near(mcnemar(1, 7), 0.0703, 5e-5);
        near(mcnemar(7, 1), 0.0703, 5e-5);
        // Sign test of 6 against 16 by the binomial table.
        near(mcnemar(6, 16), 2.0 * 110_056.0 / 4_194_304.0, 1e-12);
        near(mcnemar(5, 5), 1.0, 0.0);
        near(mcnemar(0, 0), 1.0, 0.0);
    }

    // A patient's 3.14 is not pi.
    #[allow(clippy::approx_constant)]
    #[test]
    fn wilcoxon_as_published() {
        // Hollander and Wolfe, Nonparametric Statistical Methods, table 3.1: depression scores of nine
        // patients before and after; V = 40, one-sided p = 0.01953 (R's wilcox.test).
        let before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30];
        let after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29];
        let pairs = before.iter().zip(after);
        let test = wilcoxon(&pairs.map(|(b, a)| b - a).collect::<Vec<f64>>());
        assert_eq!((test.w, test.n), (40.0, 9));
        near(test.p, 2.0 * 0.01953, 1e-5);
        // Darwin's maize (Fisher, The Design of Experiments, section 17), p as in SciPy's documentation.
        let darwin = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75];
        let test = wilcoxon(&darwin.map(f64::from));
        assert_eq!(test.w, 96.0);
        near(test.p, 0.041_259_765_625, 1e-12);
        assert_eq!(wilcoxon(&[0.0, 0.0]).p, 1.0);
        near(wilcoxon(&[2.0]).p, 1.0, 0.0);
    }

    #[test]
    fn wilcoxon_with_ties_is_that_of_all_signs() {
        let mut rng = fresh_rng();
        for _ in 0..20 {
            let n = rng.random_range(1..12);
            let all: Vec<f64> = (0..n)
                .map(|_| f64::from(rng.random_range(-3..=3)))
                .collect();
            let test = wilcoxon(&all);
            let sizes: Vec<f64> = all.iter().filter(|d| **d != 0.0).map(|d| d.abs()).collect();
            let ranked = ranks(&sizes);
            let (mut below, mut above) = (0u32, 0u32);
            for signs in 0u32..1 << sizes.len() {
                let positive = ranked
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| signs >> i & 1 == 1);
                let w: f64 = positive.map(|(_, r)| r).sum();
                below += u32::from(w <= test.w);
                above += u32::from(w >= test.w);
            }
            let tail = f64::from(below.min(above)) / f64::from(1u32 << sizes.len());
            near(test.p, (2.0 * tail).min(1.0), 1e-12);
        }
    }

    #[test]
    fn the_normal_meets_the_count() {
        let mut rng = fresh_rng();
        for _ in 0..20 {
            let draw = |_| f64::from(rng.random_range(-6..=9));
            let all: Vec<f64> = (0..50).map(draw).filter(|d: &f64| *d != 0.0).collect();
            let sizes: Vec<f64> = all.iter().map(|d: &f64| d.abs()).collect();
            let test = wilcoxon(&all);
            near(by_the_normal(&ranks(&sizes), test.w), test.p, 0.01);
        }
        let many: Vec<f64> = (1..=80).map(f64::from).collect();
        assert!(wilcoxon(&many).p < 1e-12);
    }

    #[test]
    fn benjamini_hochberg_as_published() {
        // Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995), section 3.2: 15 endpoints of a trial of
        // thrombolysis; four are rejected at 0.05, where Bonferroni rejects three.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0,
        ];
        let adjusted = benjamini_hochberg(&p);
        assert_eq!(adjusted.iter().filter(|q| **q <= 0.05).count(), 4);
        near(adjusted[0], 0.0015, 1e-12);
        near(adjusted[3], 0.0095 * 15.0 / 4.0, 1e-12);
        // A value is at most that of any larger p: 0.0278 takes that of 0.0298.
        near(adjusted[5], 0.0298 * 15.0 / 7.0, 1e-12);
        near(adjusted[14], 1.0, 0.0);
        let backwards: Vec<f64> = p.iter().rev().copied().collect();
        let mut other = benjamini_hochberg(&backwards);
        other.reverse();
        assert_eq!(other, adjusted);
        assert!(benjamini_hochberg(&[]).is_empty());
    }

    #[test]
    fn the_area_under_the_curve_as_published() {
        // Hanley and McNeil, Radiology 143 (1982), table I: CT images rated 1 to 5; the area is 0.893.
        let rated = |counts: [usize; 5]| -> Vec<f64> {
            let each = counts.into_iter().enumerate();
            each.flat_map(|(i, n)| vec![(i + 1) as f64; n]).collect()
        };
        let normal = rated([33, 6, 6, 11, 2]);
        let abnormal = rated([3, 2, 2, 11, 33]);
        near(auc(&abnormal, &normal), 0.893, 5e-4);
        // The same area under the curve, by trapezia.
        let curve = roc(&abnormal, &normal);
        assert_eq!(curve.len(), 6);
        near(curve[1].true_positive, 33.0 / 51.0, 1e-12);
        near(curve[1].false_positive, 2.0 / 58.0, 1e-12);
        assert_eq!((curve[1].threshold, curve[5].true_positive), (4.0, 1.0));
        let trapezia = curve.windows(2).map(|w| {
            let width = w[1].false_positive - w[0].false_positive;
            width * (w[0].true_positive + w[1].true_positive) / 2.0
        });
        near(trapezia.sum(), auc(&abnormal, &normal), 1e-12);
        near(auc(&[1.0], &[]), 0.5, 0.0);
        assert!(roc(&[], &[1.0]).is_empty());
    }

    #[test]
    fn welch_as_published() {
        // Student's sleep data (1908): t = -1.8608, df = 17.776, p = 0.07939 (R's t.test).
        let first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let test = welch(&first, &second);
        near(test.t, -1.8608, 5e-5);
        near(test.df, 17.776, 5e-4);
        near(test.p, 0.07939, 5e-6);
        assert_eq!(welch(&[1.0, 1.0], &[1.0, 1.0]).p, 1.0);
        assert_eq!(welch(&[1.0], &second).p, 1.0);
        // Nine of ten slept longer under the second drug, five under the first.
        near(frequency_difference(&second, &first), 0.9 - 0.5, 1e-12);
    }

    #[test]
    fn rank_correlations_as_published() {
        // Zar, Biostatistical Analysis, and Wikipedia: IQ and hours of television a week; rho = -29/165.
        let iq = [
            86.0, 97.0, 99.0, 100.0, 101.0, 103.0, 106.0, 110.0, 112.0, 113.0,
        ];
        let hours = [2.0, 20.0, 28.0, 27.0, 50.0, 29.0, 7.0, 17.0, 6.0, 12.0];
        near(spearman(&iq, &hours), -29.0 / 165.0, 1e-12);
        assert_eq!(spearman(&iq, &[1.0; 10]), 0.0);
    }

    #[test]
    fn concordance_is_the_mean_rank_correlation() {
        // Kendall's identity: the mean of Spearman's correlations of all pairs is (m W - 1) / (m - 1).
        let mut rng = fresh_rng();
        let judges: Vec<Vec<f64>> = (0..5)
            .map(|_| (0..12).map(|_| rng.random()).collect())
            .collect();
        let mut pairs = Vec::new();
        for (i, a) in judges.iter().enumerate() {
            pairs.extend(judges[..i].iter().map(|b| spearman(a, b)));
        }
        let w = concordance(&judges);
        near((5.0 * w - 1.0) / 4.0, mean(&pairs), 1e-12);
        near(
            concordance(&[judges[0].clone(), judges[0].clone()]),
            1.0,
            1e-12,
        );
        let opposite = judges[0].iter().map(|v| -v).collect();
        near(concordance(&[judges[0].clone(), opposite]), 0.0, 1e-12);
        near(concordance(&judges[..1]), 0.0, 0.0);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        // R's default, quantile(c(1, 3, 4, 10), c(0, 0.25, 0.5, 1)).
        let values = [10.0, 1.0, 4.0, 3.0];
        for (share, expected) in [(0.0, 1.0), (0.25, 2.5), (0.5, 3.5), (1.0, 10.0)] {
            near(quantile(&values, share).unwrap(), expected, 1e-12);
        }
        assert_eq!(quantile(&[], 0.5), None);
    }
}
