//! Repeatable draws: SplitMix64 (Steele, Lea and Flood, 2014), the same on every machine.

pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1].
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A vector of norm `norm` in a direction that is uniform on the sphere, `[width]`.
    pub fn direction(&mut self, width: usize, norm: f64) -> Vec<f32> {
        let draws: Vec<f64> = (0..width).map(|_| self.normal()).collect();
        let length = draws.iter().map(|v| v * v).sum::<f64>().sqrt();
        let scale = if length > 0.0 { norm / length } else { 0.0 };
        draws.iter().map(|v| (v * scale) as f32).collect()
    }

    /// `count` different elements of `from`, or all of them, in random order.
    pub fn pick<T: Clone>(&mut self, from: &[T], count: usize) -> Vec<T> {
        let mut rest = from.to_vec();
        let count = count.min(rest.len());
        (0..count)
            .map(|_| {
                let at = self.below(rest.len());
                rest.swap_remove(at)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The reference implementation's first outputs for the seed 1234567.
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn directions_have_the_norm_asked_for_and_differ() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let (a, b) = (random.direction(193, 2.5), random.direction(193, 2.5));
        let dot = |a: &[f32], b: &[f32]| {
            let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
            products.sum::<f64>()
        };
        assert!((dot(&a, &a).sqrt() - 2.5).abs() < 1e-5);
        // Seven standard deviations of the cosine of random directions.
        assert!(dot(&a, &b).abs() / 6.25 < 7.0 / 193f64.sqrt());
    }

    #[test]
    fn picks_are_different_elements() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let all: Vec<usize> = (0..20).collect();
        let mut picked = random.pick(&all, 7);
        picked.sort_unstable();
        picked.dedup();
        assert_eq!(picked.len(), 7);
        let mut picked = random.pick(&all, 100);
        picked.sort_unstable();
        assert_eq!(picked, all);
        assert!(random.pick(&[] as &[u8], 3).is_empty());
    }
}
