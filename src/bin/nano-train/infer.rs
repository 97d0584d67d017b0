//! Inference on plain slices: sequences of any lengths packed without padding, key-value caches, and
//! an edit of the residual at the output of one block.

use half::bf16;
use phi3_steer::quant::{self, Format};

use crate::Result;
use crate::linalg::{Into, Mat, Rotary, axpy, dot, matmul, product, rms_norm, softmax, swiglu};
use crate::model::{Config, Model};
use crate::sae::{Codes, Edit, Sae};

struct Block {
    input_norm: Vec<f32>,
    qkv: Vec<f32>,
    o: Vec<f32>,
    post_norm: Vec<f32>,
    gate_up: Vec<f32>,
    down: Vec<f32>,
}

/// A model that only answers.
pub struct Net {
    pub config: Config,
    embed: Vec<f32>,
    blocks: Vec<Block>,
    norm: Vec<f32>,
    head: Vec<f32>,
    rotary: Rotary,
}

/// One sequence's rotated keys and values, `[len, heads * head_dim]` for every block.
#[derive(Clone)]
struct Cache {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

/// Prompts that ran through the blocks up to and with `block`: what steering there leaves unchanged.
pub struct Prefix {
    pub block: usize,
    /// Tokens of each prompt.
    spans: Vec<usize>,
    /// The residual at the block's output, `[sum of spans, hidden]`.
    x: Vec<f32>,
    caches: Vec<Cache>,
    /// The residual's codes without the first token of each prompt.
    codes: Option<Codes>,
}

/// A sequence with the tokens whose losses count.
#[derive(Clone)]
pub struct Scored {
    pub ids: Vec<u32>,
    /// The first token that counts; all after it do.
    pub from: usize,
}

impl Net {
    /// A copy of `model`'s parameters, each passed through `convert` with its shape.
    pub fn new(model: &Model, convert: impl Fn(Vec<f32>, &[usize]) -> Vec<f32>) -> Result<Self> {
        let c = model.config;
        let mut named = model.named().into_iter().map(|(_, var)| var);
        let mut next = || -> Result<Vec<f32>> {
            let var = named.next().ok_or("the model has too few parameters")?;
            let values = var.flatten_all()?.to_vec1::<f32>()?;
            Ok(convert(values, var.dims()))
        };
        let embed = next()?;
        let blocks = (0..c.layers)
            .map(|_| {
                Ok(Block {
                    input_norm: next()?,
                    qkv: next()?,
                    o: next()?,
                    post_norm: next()?,
                    gate_up: next()?,
                    down: next()?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            config: c,
            embed,
            blocks,
            norm: next()?,
            head: next()?,
            rotary: Rotary::new(c.positions, c.head_dim, c.theta),
        })
    }

    fn width(&self) -> usize {
        self.config.heads * self.config.head_dim
    }

    /// Embeddings of `ids`, `[ids, hidden]`.
    fn embed(&self, ids: impl Iterator<Item = u32>) -> Vec<f32> {
        let d = self.config.hidden;
        ids.flat_map(|id| &self.embed[id as usize * d..][..d])
            .copied()
            .collect()
    }

    fn empty_cache(&self) -> Cache {
        let none = vec![Vec::new(); self.config.layers];
        Cache {
            keys: none.clone(),
            values: none,
        }
    }

    /// Runs `blocks` on the residual `x` `[sum of spans, hidden]`, `spans[i]` new tokens of the
    /// sequence of `caches[i]`.
    fn run(
        &self,
        blocks: std::ops::Range<usize>,
        x: &mut [f32],
        spans: &[usize],
        caches: &mut [Cache],
    ) {
        let (d, w, inner) = (self.config.hidden, self.width(), self.config.inner);
        let rows = x.len() / d;
        let mut normed = vec![0.0; rows * d];
        for l in blocks {
            let b = &self.blocks[l];
            rms_norm(&mut normed, x, &b.input_norm, self.config.eps);
            let qkv = product(Mat::new(&normed, rows, d), Mat::new(&b.qkv, 3 * w, d).t());
            let mut y = vec![0.0; rows * w];
            let mut at = 0;
            for (span, cache) in spans.iter().zip(caches.iter_mut()) {
                for r in at..at + span {
                    self.attend(
                        &mut y[r * w..][..w],
                        &qkv[r * 3 * w..][..3 * w],
                        &mut cache.keys[l],
                        &mut cache.values[l],
                    );
                }
                at += span;
            }
            let (y, o) = (Mat::new(&y, rows, w), Mat::new(&b.o, d, w).t());
            matmul(x, d, Into::Accumulate, 1.0, y, o);
            rms_norm(&mut normed, x, &b.post_norm, self.config.eps);
            let gate_up = product(
                Mat::new(&normed, rows, d),
                Mat::new(&b.gate_up, 2 * inner, d).t(),
            );
            let mut h = vec![0.0; rows * inner];
            swiglu(&mut h, &gate_up, inner);
            let (h, down) = (Mat::new(&h, rows, inner), Mat::new(&b.down, d, inner).t());
            matmul(x, d, Into::Accumulate, 1.0, h, down);
        }
    }

    /// One token's attention, its key and value appended to the cache.
    fn attend(&self, y: &mut [f32], qkv: &[f32], keys: &mut Vec<f32>, values: &mut Vec<f32>) {
        let (hd, w) = (self.config.head_dim, self.width());
        let pos = keys.len() / w;
        keys.resize((pos + 1) * w, 0.0);
        values.extend_from_slice(&qkv[2 * w..]);
        let scale = 1.0 / (hd as f32).sqrt();
        let (mut q, mut p) = (vec![0.0; hd], vec![0.0; pos + 1]);
        for h in (0..w).step_by(hd) {
            self.rotary.apply(&mut q, &qkv[h..][..hd], pos, false);
            let key = &mut keys[pos * w + h..][..hd];
            self.rotary.apply(key, &qkv[w + h..][..hd], pos, false);
            for (t, p) in p.iter_mut().enumerate() {
                *p = scale * dot(&q, &keys[t * w + h..][..hd]);
            }
            softmax(&mut p);
            for (t, p) in p.iter().enumerate() {
                axpy(&mut y[h..][..hd], *p, &values[t * w + h..][..hd]);
            }
        }
    }

    /// Logits `[rows, vocab]` of residuals `x` `[rows, hidden]` at the last block's output.
    fn logits(&self, x: &[f32]) -> Vec<f32> {
        let (d, v) = (self.config.hidden, self.config.vocab);
        let mut normed = vec![0.0; x.len()];
        rms_norm(&mut normed, x, &self.norm, self.config.eps);
        product(
            Mat::new(&normed, x.len() / d, d),
            Mat::new(&self.head, v, d).t(),
        )
    }

    /// Runs `prompts` up to and with `block`.
    pub fn prefix<'a>(
        &self,
        prompts: impl Iterator<Item = &'a [u32]> + Clone,
        block: usize,
    ) -> Prefix {
        let spans: Vec<usize> = prompts.clone().map(<[u32]>::len).collect();
        let mut x = self.embed(prompts.flatten().copied());
        let mut caches = vec![self.empty_cache(); spans.len()];
        self.run(0..block + 1, &mut x, &spans, &mut caches);
        Prefix {
            block,
            spans,
            x,
            caches,
            codes: None,
        }
    }

    /// The greedy replies to a prefix's prompts, at most `longest` tokens each, without the closing
    /// `stop`; the residual edited at the prefix's block at all positions but BOS.
    pub fn generate(
        &self,
        prefix: &Prefix,
        edit: Option<&Edit>,
        longest: usize,
        stop: u32,
    ) -> Vec<Vec<u32>> {
        let (d, v, split) = (self.config.hidden, self.config.vocab, prefix.block + 1);
        let mut x = prefix.x.clone();
        let mut caches = prefix.caches.clone();
        if let Some(edit) = edit {
            prefix.edit(&mut x, edit, d);
        }
        self.run(
            split..self.config.layers,
            &mut x,
            &prefix.spans,
            &mut caches,
        );
        let mut ends = 0;
        let mut last: Vec<f32> = Vec::new();
        for span in &prefix.spans {
            ends += span;
            last.extend_from_slice(&x[(ends - 1) * d..][..d]);
        }
        let mut replies = vec![Vec::new(); prefix.spans.len()];
        // The replies that go on, in the order of `caches`.
        let mut open: Vec<usize> = (0..replies.len()).collect();
        for step in 0..longest {
            let logits = self.logits(&last);
            let mut next: Vec<Option<u32>> = logits
                .chunks_exact(v)
                .map(|row| Some(argmax(row)).filter(|id| *id != stop))
                .collect();
            let mut keep = next.iter().map(Option::is_some);
            caches.retain(|_| keep.next() == Some(true));
            let mut keep = next.iter().map(Option::is_some);
            open.retain(|_| keep.next() == Some(true));
            next.retain(Option::is_some);
            let next: Vec<u32> = next.into_iter().flatten().collect();
            for (i, id) in open.iter().zip(&next) {
                replies[*i].push(*id);
            }
            if next.is_empty() || step + 1 == longest {
                break;
            }
            last = self.embed(next.into_iter());
            let spans = vec![1; open.len()];
            self.run(0..split, &mut last, &spans, &mut caches);
            if let Some(edit) = edit {
                edit.apply(&mut last, None);
            }
            self.run(split..self.config.layers, &mut last, &spans, &mut caches);
        }
        replies
    }

    /// The sum of the losses of the tokens that count, and their number.
    pub fn loss<'a>(
        &self,
        sequences: impl Iterator<Item = &'a Scored> + Clone,
        block: usize,
        edit: Option<&Edit>,
    ) -> (f64, usize) {
        let d = self.config.hidden;
        let mut prefix = self.prefix(sequences.clone().map(|s| &s.ids[..]), block);
        let mut x = std::mem::take(&mut prefix.x);
        if let Some(edit) = edit {
            prefix.edit(&mut x, edit, d);
        }
        self.run(
            block + 1..self.config.layers,
            &mut x,
            &prefix.spans,
            &mut prefix.caches,
        );
        let (mut rows, mut targets, mut at) = (Vec::new(), Vec::new(), 0);
        for s in sequences {
            for i in s.from..s.ids.len() {
                rows.extend_from_slice(&x[(at + i - 1) * d..][..d]);
                targets.push(s.ids[i]);
            }
            at += s.ids.len();
        }
        let logits = self.logits(&rows);
        let sum = logits
            .chunks_exact(self.config.vocab)
            .zip(&targets)
            .map(|(row, target)| crate::ops::row_loss(row, *target) as f64)
            .sum();
        (sum, targets.len())
    }
}

impl Prefix {
    /// The residual at the block's output without the first token of each prompt, `[rows, hidden]`.
    pub fn residual(&self) -> Vec<f32> {
        self.inner(&self.x)
    }

    /// Encodes the residual once for all edits that use `sae`.
    pub fn encode(&mut self, sae: &Sae) {
        self.codes = Some(sae.encode(&self.residual()));
    }

    fn inner(&self, x: &[f32]) -> Vec<f32> {
        let d = x.len() / self.spans.iter().sum::<usize>().max(1);
        let mut rows = Vec::with_capacity(x.len());
        let mut at = 0;
        for span in &self.spans {
            rows.extend_from_slice(&x[(at + 1) * d..(at + span) * d]);
            at += span;
        }
        rows
    }

    /// Edits all rows of `x` but each prompt's first.
    fn edit(&self, x: &mut [f32], edit: &Edit, d: usize) {
        let mut rows = self.inner(x);
        edit.apply(&mut rows, self.codes.as_ref());
        let (mut at, mut from) = (0, 0);
        for span in &self.spans {
            let n = (span - 1) * d;
            x[(at + 1) * d..][..n].copy_from_slice(&rows[from..from + n]);
            at += span;
            from += n;
        }
    }
}

/// A parameter as the engine computes with it: shipped in bf16, matrices then held in 4 bits.
pub fn as_in_engine(mut values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
    for v in &mut values {
        *v = bf16::from_f32(*v).to_f32();
    }
    match *shape {
        [_, cols] => quant::dequantize(&quant::quantize(&values, cols, Format::Q4), cols),
        _ => values,
    }
}

fn argmax(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best as u32
}

/// Applies `f` to all `items` on `threads` threads; the results in the items' order.
pub fn parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    f: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { return };
                    let result = f(item);
                    done.lock()
                        .unwrap_or_else(|e| e.into_inner())
                        .push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, r)| r).collect()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::model::normal;
    use crate::ops::with_slice;

    const TINY: Config = Config {
        vocab: 41,
        hidden: 12,
        heads: 3,
        head_dim: 6,
        layers: 3,
        inner: 10,
        eps: 1e-5,
        theta: 10_000.0,
        positions: 64,
    };
    const STOP: u32 = 40;

    /// A tiny model with parameters large enough for its replies to differ.
    fn tiny(seed: u64) -> Model {
        let model = Model::new(TINY, seed).unwrap();
        let mut rng = StdRng::seed_from_u64(seed);
        for (_, var) in model.named() {
            let values: Vec<f32> = (0..var.elem_count())
                .map(|_| 0.5 * normal(&mut rng))
                .collect();
            let cpu = &candle_core::Device::Cpu;
            var.set(&candle_core::Tensor::from_vec(values, var.dims(), cpu).unwrap())
                .unwrap();
        }
        model
    }

    fn prompts(rng: &mut StdRng) -> Vec<Vec<u32>> {
        [7, 1, 12, 3]
            .map(|n| (0..n).map(|_| rng.random_range(0..40)).collect())
            .to_vec()
    }

    /// Greedy replies by the training model, every token from a whole forward pass.
    fn slowly(model: &Model, prompt: &[u32], longest: usize) -> Vec<u32> {
        let mut ids = prompt.to_vec();
        for _ in 0..longest {
            let logits = model.forward(&ids, 1, ids.len(), &[]).unwrap();
            let next = with_slice(&logits, |x| argmax(&x[(ids.len() - 1) * TINY.vocab..])).unwrap();
            if next == STOP {
                break;
            }
            ids.push(next);
        }
        ids.split_off(prompt.len())
    }

    #[test]
    fn cached_replies_and_losses_equal_the_training_model() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let model = tiny(seed);
        let net = Net::new(&model, |values, _| values).unwrap();
        let prompts = prompts(&mut StdRng::seed_from_u64(seed));
        let want: Vec<Vec<u32>> = prompts.iter().map(|p| slowly(&model, p, 9)).collect();
        for block in 0..TINY.layers {
            let prefix = net.prefix(prompts.iter().map(Vec::as_slice), block);
            assert_eq!(
                net.generate(&prefix, None, 9, STOP),
                want,
                "split after block {block}"
            );
        }
        let scored: Vec<Scored> = [0, 2]
            .map(|i| Scored {
                ids: prompts[i].clone(),
                from: 2,
            })
            .to_vec();
        let (loss, n) = net.loss(scored.iter(), 1, None);
        assert_eq!(n, 5 + 10);
        let mut reference = 0.0;
        for s in &scored {
            let logits = model.forward(&s.ids, 1, s.ids.len(), &[]).unwrap();
            with_slice(&logits, |x| {
                for i in s.from..s.ids.len() {
                    let row: Vec<f64> = x[(i - 1) * TINY.vocab..][..TINY.vocab]
                        .iter()
                        .map(|v| (*v as f64).exp())
                        .collect();
                    reference -= (row[s.ids[i] as usize] / row.iter().sum::<f64>()).ln();
                }
            })
            .unwrap();
        }
        assert!(
            (loss - reference).abs() < 1e-3 * reference,
            "{loss}, not {reference}"
        );
    }

    #[test]
    fn edits_reach_every_token_but_the_first() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let model = tiny(seed);
        let net = Net::new(&model, |values, _| values).unwrap();
        let mut rng = StdRng::seed_from_u64(seed);
        let prompts = prompts(&mut rng);
        let offset: Vec<f32> = (0..TINY.hidden).map(|_| 2.0 * normal(&mut rng)).collect();
        let edit = Edit::Add {
            offset: offset.clone(),
        };
        let block = 1;
        let slowly = |prompt: &[u32]| {
            let mut ids = prompt.to_vec();
            for _ in 0..6 {
                let one = net.prefix(std::iter::once(&ids[..]), block);
                let mut x = one.x.clone();
                for row in x[TINY.hidden..].chunks_exact_mut(TINY.hidden) {
                    axpy(row, 1.0, &offset);
                }
                let mut caches = vec![net.empty_cache()];
                net.run(block + 1..TINY.layers, &mut x, &[ids.len()], &mut caches);
                let next = argmax(&net.logits(&x[(ids.len() - 1) * TINY.hidden..]));
                if next == STOP {
                    break;
                }
                ids.push(next);
            }
            ids.split_off(prompt.len())
        };
        let want: Vec<Vec<u32>> = prompts.iter().map(|p| slowly(p)).collect();
        let prefix = net.prefix(prompts.iter().map(Vec::as_slice), block);
        assert_eq!(net.generate(&prefix, Some(&edit), 6, STOP), want);
    }

    #[test]
    fn parallel_keeps_the_order() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(
            parallel(3, &items, |i| i * i),
            items.iter().map(|i| i * i).collect::<Vec<_>>()
        );
    }
}
