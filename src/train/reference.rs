//! One step of training in f64 on the CPU, written from its definition: what the GPU's is checked against.

use super::{Scale, Selection, Settings, Weights};

/// A tensor with its gradient and Adam's moments.
#[derive(Clone)]
pub struct Tensor {
    pub weight: Vec<f64>,
    pub gradient: Vec<f64>,
    mean: Vec<f64>,
    square: Vec<f64>,
}

impl Tensor {
    fn new(weight: &[f32]) -> Self {
        let zeros = vec![0.0; weight.len()];
        Self {
            weight: weight.iter().map(|v| f64::from(*v)).collect(),
            gradient: zeros.clone(),
            mean: zeros.clone(),
            square: zeros,
        }
    }

    fn adam(&mut self, rate: f64, step: i32) {
        for (i, g) in self.gradient.iter().enumerate() {
            let (m, s) = (&mut self.mean[i], &mut self.square[i]);
            *m = 0.9 * *m + 0.1 * g;
            *s = 0.999 * *s + 0.001 * g * g;
            let mean = *m / (1.0 - 0.9f64.powi(step));
            let square = *s / (1.0 - 0.999f64.powi(step));
            self.weight[i] -= rate * mean / (square.sqrt() + 1e-8);
        }
    }
}

/// A dictionary under training.
pub struct Reference {
    settings: Settings,
    unit: f64,
    variance: f64,
    width: usize,
    latents: usize,
    pub encoder: Tensor,
    pub bias: Tensor,
    pub decoder: Tensor,
    pub b_dec: Tensor,
    pub silent: Vec<u32>,
    taken: usize,
}

/// What pre-activations differ by if rounding cannot change their order.
const CLEAR: f64 = 1e-4;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * f);
}

/// The `k` largest positive values of `pre`, ties to the lower latent, of those that `may` be listed.
fn largest(pre: &[f64], k: usize, may: impl Fn(usize) -> bool) -> Vec<(usize, f64)> {
    let mut all: Vec<_> = pre.iter().copied().enumerate().collect();
    all.retain(|(j, v)| *v > 0.0 && may(*j));
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

impl Reference {
    pub fn new(settings: &Settings, scale: &Scale, weights: &Weights) -> Self {
        Self {
            settings: settings.clone(),
            unit: f64::from(scale.unit),
            variance: f64::from(scale.variance),
            width: weights.width,
            latents: weights.latents,
            encoder: Tensor::new(&weights.encoder),
            bias: Tensor::new(&weights.bias),
            decoder: Tensor::new(&weights.decoder),
            b_dec: Tensor::new(&weights.b_dec),
            silent: vec![0; weights.latents],
            taken: 0,
        }
    }

    fn row<'a>(&self, of: &'a [f64], j: usize) -> &'a [f64] {
        &of[j * self.width..][..self.width]
    }

    /// Goes on from other numbers: a dictionary's, and Adam's means and squares.
    pub fn load(&mut self, weights: &Weights, moments: &[Weights; 2]) {
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
        type Of = fn(&Weights) -> &Vec<f32>;
        let parts: [(&mut Tensor, Of); 4] = [
            (&mut self.encoder, |w| &w.encoder),
            (&mut self.bias, |w| &w.bias),
            (&mut self.decoder, |w| &w.decoder),
            (&mut self.b_dec, |w| &w.b_dec),
        ];
        for (tensor, of) in parts {
            tensor.weight = wide(of(weights));
            tensor.mean = wide(of(&moments[0]));
            tensor.square = wide(of(&moments[1]));
        }
    }

    /// The pre-activations `[latents]` of an input, and the input less `b_dec`.
    fn pre(&self, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let centred: Vec<f64> = x
            .iter()
            .zip(&self.b_dec.weight)
            .map(|(x, b)| f64::from(*x) / self.unit - b)
            .collect();
        let pre = (0..self.latents)
            .map(|j| dot(self.row(&self.encoder.weight, j), &centred) + self.bias.weight[j]);
        (pre.collect(), centred)
    }

    fn dead(&self) -> Vec<bool> {
        let after = self.settings.dead_after;
        self.silent.iter().map(|s| *s > after).collect()
    }

    /// Whether rounding cannot change which latents are listed for `x`.
    pub fn is_clear(&self, x: &[f32]) -> bool {
        let (pre, _) = self.pre(x);
        let dead = self.dead();
        let clear = |k: usize, may: &dyn Fn(usize) -> bool| {
            let all = largest(&pre, self.latents, may);
            let at = |i: usize| all.get(i).map_or(0.0, |a| a.1);
            let listed = all.len().min(k);
            let zero = pre.iter().all(|v| v.abs() > CLEAR || listed == k);
            (listed == 0 || at(listed - 1) - at(listed) > CLEAR) && zero
        };
        clear(self.settings.slots(), &|_| true) && clear(self.settings.auxiliary, &|j| dead[j])
    }

    /// Whether rounding cannot change which latents are active in all of `rows` `[rows, width]`, each clear.
    pub fn are_clear(&self, rows: &[f32]) -> bool {
        let Selection::BatchTopK = self.settings.selection else {
            return true;
        };
        let all = rows.chunks_exact(self.width).flat_map(|x| {
            let (pre, _) = self.pre(x);
            largest(&pre, self.settings.slots(), |_| true)
        });
        let mut values: Vec<f64> = all.map(|(_, v)| v).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        let kept = rows.len() / self.width * self.settings.k;
        let at = |i: usize| values.get(i).copied().unwrap_or(0.0);
        at(kept - 1) - at(kept) > CLEAR
    }

    /// The active latents of rows with these pre-activations.
    fn active(&self, pre: &[Vec<f64>]) -> Vec<Vec<(usize, f64)>> {
        let listed = |pre: &Vec<f64>| largest(pre, self.settings.slots(), |_| true);
        let mut active: Vec<_> = pre.iter().map(listed).collect();
        if self.settings.selection == Selection::BatchTopK {
            let mut values: Vec<f64> = active.iter().flatten().map(|(_, v)| *v).collect();
            values.sort_by(|a, b| b.total_cmp(a));
            let kept = pre.len() * self.settings.k;
            if let Some(cut) = values.get(kept) {
                active
                    .iter_mut()
                    .for_each(|row| row.retain(|(_, v)| v > cut));
            }
        }
        active
    }

    /// Takes a step on `rows` `[rows, width]` and returns the share of variance unexplained.
    pub fn step(&mut self, rows: &[f32]) -> f64 {
        let loss = self.descend_all(rows);
        self.update();
        loss
    }

    /// The gradients on `rows` `[rows, width]`; returns the share of variance unexplained.
    pub fn descend_all(&mut self, rows: &[f32]) -> f64 {
        let (d, n) = (self.width, rows.len() / self.width);
        for tensor in [
            &mut self.encoder,
            &mut self.bias,
            &mut self.decoder,
            &mut self.b_dec,
        ] {
            tensor.gradient.fill(0.0);
        }
        let dead = self.dead();
        self.silent.iter_mut().for_each(|s| *s += 1);
        let scale = 1.0 / (n as f64 * self.variance);
        let mut error = 0.0;
        let (pres, all_centred): (Vec<_>, Vec<_>) =
            rows.chunks_exact(d).map(|x| self.pre(x)).unzip();
        let all_active = self.active(&pres);
        for ((pre, centred), active) in pres.iter().zip(&all_centred).zip(&all_active) {
            let mut rest = centred.clone();
            for &(j, v) in active {
                add(&mut rest, -v, self.row(&self.decoder.weight, j));
                self.silent[j] = 0;
            }
            error += dot(&rest, &rest);
            // x - b_dec - f W_dec: each output's gradient is -2 rest.
            add(&mut self.b_dec.gradient, -2.0 * scale, &rest);
            self.descend(active, centred, &rest, scale);
            if dead.contains(&true) && self.settings.auxiliary > 0 {
                let active = largest(pre, self.settings.auxiliary, |j| dead[j]);
                for &(j, v) in &active {
                    add(&mut rest, -v, self.row(&self.decoder.weight, j));
                }
                let weight = f64::from(self.settings.auxiliary_weight);
                self.descend(&active, centred, &rest, scale * weight);
            }
        }
        for j in 0..self.latents {
            let unit = self.row(&self.decoder.weight, j).to_vec();
            let gradient = &mut self.decoder.gradient[j * d..][..d];
            let along = dot(gradient, &unit);
            add(gradient, -along, &unit);
        }
        error * scale
    }

    /// Adam's step along the gradients.
    pub fn update(&mut self) {
        self.taken += 1;
        let rate = f64::from(self.settings.rate_at(self.taken - 1));
        for tensor in [
            &mut self.encoder,
            &mut self.bias,
            &mut self.decoder,
            &mut self.b_dec,
        ] {
            tensor.adam(rate, self.taken as i32);
        }
        for row in self.decoder.weight.chunks_exact_mut(self.width) {
            let norm = dot(row, row).sqrt();
            row.iter_mut().for_each(|v| *v /= norm);
        }
    }

    /// Adds the gradients of `scale |rest|^2` through the `active` latents.
    fn descend(&mut self, active: &[(usize, f64)], centred: &[f64], rest: &[f64], scale: f64) {
        let d = self.width;
        for &(j, v) in active {
            let by_v = -2.0 * scale * dot(rest, self.row(&self.decoder.weight, j));
            add(
                &mut self.decoder.gradient[j * d..][..d],
                -2.0 * scale * v,
                rest,
            );
            add(&mut self.encoder.gradient[j * d..][..d], by_v, centred);
            self.bias.gradient[j] += by_v;
            let encoder = self.row(&self.encoder.weight, j).to_vec();
            add(&mut self.b_dec.gradient, -by_v, &encoder);
        }
    }
}

/// The definition itself is checked: its gradients are the loss's, by finite differences.
#[test]
fn gradients_match_finite_differences() {
    use crate::sae::reference::{fresh_rng, numbers};
    let mut rng = fresh_rng();
    let (d, latents, n) = (7, 19, 5);
    let settings = Settings {
        latents,
        k: 4,
        rows: n,
        auxiliary: 0,
        rate: 1e-12,
        ..Settings::default()
    };
    let x = numbers(&mut rng, n * d);
    let scale = Scale::of(&x, d).unwrap();
    let mut weights = Weights::fresh(latents, &scale, rand::Rng::random(&mut rng));
    weights.bias = numbers(&mut rng, latents);
    weights.encoder = numbers(&mut rng, latents * d);
    let at = |change: &dyn Fn(&mut Reference)| {
        let mut one = Reference::new(&settings, &scale, &weights);
        change(&mut one);
        let loss = one.step(&x);
        (loss, one)
    };
    let (_, plain) = at(&|_| {});
    type Part = fn(&mut Reference) -> &mut Tensor;
    let parts: [(&str, Part); 3] = [
        ("encoder", |r| &mut r.encoder),
        ("bias", |r| &mut r.bias),
        ("b_dec", |r| &mut r.b_dec),
    ];
    let h = 1e-6;
    for (name, part) in parts {
        let mut copy = at(&|_| {}).1;
        let gradient = part(&mut copy).gradient.clone();
        let mut largest = 0.0f64;
        for (i, expected) in gradient.iter().enumerate() {
            let (up, _) = at(&|r| part(r).weight[i] += h);
            let (down, _) = at(&|r| part(r).weight[i] -= h);
            let difference = (up - down) / (2.0 * h);
            largest = largest.max(difference.abs());
            assert!(
                (difference - expected).abs() < 1e-5,
                "{name} {i}: {expected}, {difference}"
            );
        }
        assert!(largest > 1e-3, "{name} has no gradient to compare");
    }
    // The decoder's, along directions that keep a row's norm.
    for j in 0..latents {
        let row = plain.row(&plain.decoder.weight, j).to_vec();
        let mut way: Vec<f64> = numbers(&mut rng, d).iter().map(|v| f64::from(*v)).collect();
        let along = dot(&way, &row);
        add(&mut way, -along, &row);
        let moved = |h: f64| {
            let (loss, _) = at(&|r| add(&mut r.decoder.weight[j * d..][..d], h, &way));
            loss
        };
        let difference = (moved(h) - moved(-h)) / (2.0 * h);
        let expected = dot(plain.row(&plain.decoder.gradient, j), &way);
        assert!(
            (difference - expected).abs() < 1e-5,
            "decoder {j}: {expected}, {difference}"
        );
    }
}
