//! Phi-3's forward pass in f64, written after the paper and Hugging Face's `modeling_phi3.py`, one
//! token after the other.

use half::f16;
use phi3_steer::phi3::CacheFormat;

use super::checkpoint::RandomModel;

/// What a forward pass leaves.
pub struct Pass {
    /// `[tokens][vocab]`
    pub logits: Vec<Vec<f64>>,
    /// The residual stream at the output of each block, after the edit: `[layers][tokens][hidden]`.
    pub residual: Vec<Vec<Vec<f64>>>,
}

/// An edit of the residual stream: block, position, the stream.
pub type Edit<'a> = &'a mut dyn FnMut(usize, usize, &mut Vec<f64>);

/// The pass over one sequence.
pub fn forward(model: &RandomModel, cache: CacheFormat, ids: &[u32], edit: Edit<'_>) -> Pass {
    let c = &model.config;
    let embed = model.tensor("model.embed_tokens.weight");
    let d = c.hidden_size;
    let mut x: Vec<Vec<f64>> = ids
        .iter()
        .map(|&id| wide(&embed[id as usize * d..][..d]))
        .collect();
    let mut residual = Vec::new();
    for layer in 0..c.num_hidden_layers {
        block(model, cache, layer, &mut x);
        for (position, x) in x.iter_mut().enumerate() {
            edit(layer, position, x);
        }
        residual.push(x.clone());
    }
    let head = match c.tie_word_embeddings {
        true => embed,
        false => model.tensor("lm_head.weight"),
    };
    let norm = model.tensor("model.norm.weight");
    let logits = x
        .iter()
        .map(|x| product(head, &rms_norm(x, norm, c.rms_norm_eps)))
        .collect();
    Pass { logits, residual }
}

/// The pass without an edit.
pub fn plain(model: &RandomModel, cache: CacheFormat, ids: &[u32]) -> Pass {
    forward(model, cache, ids, &mut |_, _, _| {})
}

fn block(model: &RandomModel, cache: CacheFormat, layer: usize, x: &mut [Vec<f64>]) {
    let c = &model.config;
    let weight = |name: &str| model.tensor(&format!("model.layers.{layer}.{name}.weight"));
    let (heads, kv_heads, size) = (c.num_attention_heads, c.num_key_value_heads, c.head_dim);
    let stored = |v: f64| match cache {
        CacheFormat::F32 => v,
        CacheFormat::F16 => f64::from(f16::from_f64(v)),
    };
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for (position, x) in x.iter_mut().enumerate() {
        let normed = rms_norm(x, weight("input_layernorm"), c.rms_norm_eps);
        let mut qkv = product(weight("self_attn.qkv_proj"), &normed);
        for head in qkv[..(heads + kv_heads) * size].chunks_mut(size) {
            rotate(&mut head[..c.rotary_dim], position, c.rope_theta);
        }
        let rest = qkv.split_off(heads * size);
        let (k, v) = rest.split_at(kv_heads * size);
        keys.push(k.iter().map(|v| stored(*v)).collect::<Vec<f64>>());
        values.push(v.iter().map(|v| stored(*v)).collect::<Vec<f64>>());
        // A token sees `window` positions, its own included.
        let first = (position + 1).saturating_sub(c.window());
        let mut attended = Vec::new();
        for (h, q) in qkv.chunks(size).enumerate() {
            let shared = h / (heads / kv_heads) * size;
            let scores: Vec<f64> = keys[first..]
                .iter()
                .map(|k| dot(q, &k[shared..][..size]) / (size as f64).sqrt())
                .collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut out = vec![0.0; size];
            for (w, v) in weights.iter().zip(&values[first..]) {
                for (o, v) in out.iter_mut().zip(&v[shared..][..size]) {
                    *o += w / total * v;
                }
            }
            attended.extend(out);
        }
        add(x, &product(weight("self_attn.o_proj"), &attended));
        let normed = rms_norm(x, weight("post_attention_layernorm"), c.rms_norm_eps);
        let gate_up = product(weight("mlp.gate_up_proj"), &normed);
        let (gate, up) = gate_up.split_at(c.intermediate_size);
        let inner: Vec<f64> = gate
            .iter()
            .zip(up)
            .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
            .collect();
        add(x, &product(weight("mlp.down_proj"), &inner));
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `[rows, x.len()]` times x.
fn product(matrix: &[f32], x: &[f64]) -> Vec<f64> {
    let row = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
    matrix.chunks(x.len()).map(row).collect()
}

fn rms_norm(x: &[f64], weight: &[f32], epsilon: f64) -> Vec<f64> {
    let mean = dot(x, x) / x.len() as f64;
    let scale = 1.0 / (mean + epsilon).sqrt();
    let normed = x.iter().zip(weight).map(|(x, w)| x * scale * f64::from(*w));
    normed.collect()
}

/// The rotary embedding: element i of the first half turns with element i of the second.
fn rotate(head: &mut [f64], position: usize, theta: f64) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position as f64 * theta.powf(-(2.0 * i as f64) / head.len() as f64);
        let (a, b) = (head[i], head[i + half]);
        head[i] = a * angle.cos() - b * angle.sin();
        head[i + half] = b * angle.cos() + a * angle.sin();
    }
}

/// The highest logit.
pub fn likeliest(logits: &[f64]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    best.expect("logits") as u32
}
