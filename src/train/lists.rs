//! The active latents of a step's rows, sorted by latent.

use crate::sae::Activation;

/// The latent of an empty slot.
const EMPTY: u32 = u32::MAX;

/// Marks the row of a use that is the auxiliary loss's.
pub const AUXILIARY: u32 = 0x8000_0000;

/// A row in which a latent was active.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Use {
    /// The row; with [`AUXILIARY`] if it is the auxiliary loss's.
    pub row: u32,
    /// What the row's residual counts for in the decoder's gradient.
    pub decoder: f32,
    /// The loss's gradient by the activation: what the row's input counts for in the encoder's.
    pub encoder: f32,
    unused: u32,
}

/// Empties all slots of `codes` but those of the `n` largest activations, ties to the earlier slot, and returns the
/// smallest of these; 0 if there are none.
pub fn largest(codes: &mut [Activation], n: usize) -> f32 {
    let mut slots: Vec<usize> = (0..codes.len())
        .filter(|slot| codes[*slot].feature != EMPTY)
        .collect();
    let order = |a: &usize, b: &usize| {
        let values = codes[*b].value.total_cmp(&codes[*a].value);
        values.then(a.cmp(b))
    };
    let mut rest = Vec::new();
    if slots.len() > n && n > 0 {
        slots.select_nth_unstable_by(n - 1, order);
        rest = slots.split_off(n);
    }
    for slot in rest {
        codes[slot] = Activation {
            feature: EMPTY,
            value: 0.0,
        };
    }
    let values = slots.iter().map(|slot| codes[*slot].value);
    values.reduce(f32::min).unwrap_or(0.0)
}

/// Active latents of rows with the loss's gradient by each.
pub struct Listed<'a> {
    /// `[rows, k]`; empty slots have the latent `u32::MAX`.
    pub codes: &'a [Activation],
    /// `[rows, k]`
    pub gradients: &'a [f32],
    /// Slots of a row.
    pub k: usize,
    /// -2 over what the squared error is divided by.
    pub factor: f32,
    /// [`AUXILIARY`] or 0.
    pub mark: u32,
}

/// The uses of all latents, one latent after another, in the order of the rows.
#[derive(Debug, Default)]
pub struct Uses {
    /// `[latents + 1]` where a latent's uses begin.
    pub starts: Vec<u32>,
    /// The uses.
    pub uses: Vec<Use>,
    /// The loss's gradient by each latent's bias, `[latents]`.
    pub by_bias: Vec<f32>,
}

/// Sorts what is listed by latent.
pub fn by_latent(latents: usize, lists: &[Listed<'_>]) -> Uses {
    let slots = || {
        lists.iter().flat_map(|list| {
            let all = list.codes.iter().zip(list.gradients).enumerate();
            all.filter(|(_, (code, _))| (code.feature as usize) < latents)
                .map(move |(slot, (code, gradient))| (list, slot / list.k, code, *gradient))
        })
    };
    let mut starts = vec![0u32; latents + 1];
    for (_, _, code, _) in slots() {
        starts[code.feature as usize + 1] += 1;
    }
    for j in 0..latents {
        starts[j + 1] += starts[j];
    }
    let mut next = starts.clone();
    let mut uses = vec![bytemuck::Zeroable::zeroed(); starts[latents] as usize];
    let mut by_bias = vec![0.0f32; latents];
    for (list, row, code, gradient) in slots() {
        let latent = code.feature as usize;
        uses[next[latent] as usize] = Use {
            row: row as u32 | list.mark,
            decoder: list.factor * code.value,
            encoder: gradient,
            unused: 0,
        };
        next[latent] += 1;
        by_bias[latent] += gradient;
    }
    Uses {
        starts,
        uses,
        by_bias,
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn the_largest_of_all_rows_are_kept_where_they_are() {
        let mut rng = crate::sae::reference::fresh_rng();
        for _ in 0..50 {
            let (slots, n) = (rng.random_range(1..60), rng.random_range(1..50));
            let mut codes: Vec<Activation> = (0..slots)
                .map(|i| match rng.random_range(0..4) {
                    0 => Activation {
                        feature: EMPTY,
                        value: 0.0,
                    },
                    // Many are equal.
                    _ => Activation {
                        feature: i,
                        value: rng.random_range(1..12) as f32,
                    },
                })
                .collect();
            let before = codes.clone();
            let least = largest(&mut codes, n);
            let mut expected: Vec<f32> = before.iter().map(|c| c.value).collect();
            expected.retain(|v| *v > 0.0);
            expected.sort_by(|a, b| b.total_cmp(a));
            expected.truncate(n);
            let kept = codes.iter().filter(|c| c.feature != EMPTY);
            let mut found: Vec<f32> = kept.map(|c| c.value).collect();
            found.sort_by(|a, b| b.total_cmp(a));
            assert_eq!(found, expected);
            assert_eq!(least, expected.last().copied().unwrap_or(0.0));
            for (now, then) in codes.iter().zip(&before) {
                assert!(now == then || now.feature == EMPTY);
            }
        }
    }

    #[test]
    fn uses_are_sorted_by_latent_then_row() {
        let of = |feature, value| Activation { feature, value };
        let empty = of(u32::MAX, 0.0);
        let codes = [of(2, 3.0), of(0, 1.0), of(0, 5.0), empty];
        let dead = [of(1, 2.0), empty];
        let lists = [
            Listed {
                codes: &codes,
                gradients: &[0.5, 0.25, 4.0, 9.0],
                k: 2,
                factor: 2.0,
                mark: 0,
            },
            Listed {
                codes: &dead,
                gradients: &[8.0, 9.0],
                k: 1,
                factor: 10.0,
                mark: AUXILIARY,
            },
        ];
        let sorted = by_latent(4, &lists);
        assert_eq!(sorted.starts, [0, 2, 3, 4, 4]);
        assert_eq!(sorted.by_bias, [4.25, 8.0, 0.5, 0.0]);
        let rows: Vec<_> = sorted
            .uses
            .iter()
            .map(|u| (u.row, u.decoder, u.encoder))
            .collect();
        let expected = [
            (0, 2.0, 0.25),
            (1, 10.0, 4.0),
            (AUXILIARY, 20.0, 8.0),
            (0, 6.0, 0.5),
        ];
        assert_eq!(rows, expected);
    }
}
