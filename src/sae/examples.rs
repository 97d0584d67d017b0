//! What Gemma Scope 2 publishes of a dictionary's latents beside it (`examples.safetensors`): the contexts in which
//! each is most active, and the tokens that its decoder row makes likely.
//!
//! The file is large (0.8 GB for 16,384 latents), most of it text, and never read whole: its header, the latent's own
//! rows, and the words around the places that these name. Its tensors, of any number type that fits:
//!
//! - `tokens` `[sequences, length]`: the text;
//! - `activations`, `seq_ids`, `positions` `[latents, examples]`: how active the latent is, and where;
//! - `top_tokens`, `top_logits`, `bottom_tokens`, `bottom_logits` `[latents, listed]`;
//! - `feature_frequencies` `[latents]`: the share of tokens at which it is active.

use serde::{Deserialize, Serialize};

use super::SaeError;
use crate::checkpoint::{
    ByteSource, CheckpointError, Dtype, Encoding, Folder, Safetensors, Source, TensorInfo,
    TensorType,
};

/// Examples of a latent that are looked through, and the longest text, at most.
const MOST: usize = 1 << 16;

/// A latent's published examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Examples {
    /// The share of tokens at which it is active.
    pub frequency: Option<f64>,
    /// Where it is most active, strongest first, one of a sequence.
    pub contexts: Vec<Context>,
    /// Tokens that its decoder row makes likeliest, with their logits.
    pub top: Vec<(u32, f64)>,
    /// Tokens that it makes unlikeliest.
    pub bottom: Vec<(u32, f64)>,
}

/// A place where a latent is active, with the text around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Which of them it is active at.
    pub peak: usize,
    /// How active it is there, in the dictionary's units.
    pub activation: f64,
}

/// What is read of a latent.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Contexts at most.
    pub contexts: usize,
    /// Tokens of a context before its peak and after it, at most.
    pub around: usize,
}

/// Reads the examples of `latent`, of a dictionary of `latents`, from the file called `name`; `None` if the folder
/// has no such file.
pub(super) async fn read(
    folder: &Folder,
    name: &str,
    latents: usize,
    latent: usize,
    extent: Extent,
) -> Result<Option<Examples>, SaeError> {
    let Some(source) = folder.open(name).await? else {
        return Ok(None);
    };
    let file = File {
        all: Safetensors::open(source).await?,
        latents,
    };
    let listed = async |name: &str, logits: &str| -> Result<Vec<(u32, f64)>, SaeError> {
        let ids = file.row(name, latent).await?;
        let logits = file.row(logits, latent).await?;
        if ids.len() != logits.len() {
            let reason = "it has another number of tokens than its logits".into();
            return Err(file.refuse(name, reason));
        }
        let both = ids.into_iter().zip(logits);
        Ok(both
            .filter_map(|(id, logit)| Some((whole(id)?, logit)))
            .collect())
    };
    Ok(Some(Examples {
        frequency: file
            .row("feature_frequencies", latent)
            .await?
            .first()
            .copied(),
        contexts: file.contexts(latent, extent).await?,
        top: listed("top_tokens", "top_logits").await?,
        bottom: listed("bottom_tokens", "bottom_logits").await?,
    }))
}

/// A number that counts or names something, as that of a place that is left empty (-1) does not.
fn whole(number: f64) -> Option<u32> {
    let whole = number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0;
    whole.then_some(number as u32)
}

struct File {
    all: Safetensors,
    latents: usize,
}

impl File {
    fn refuse(&self, tensor: &str, reason: String) -> SaeError {
        let file = self.all.source().name().into();
        let tensor = tensor.into();
        CheckpointError::Tensor {
            file,
            tensor,
            reason,
        }
        .into()
    }

    /// A tensor `[latents]` or `[latents, n]` with `n`; `None` if the file has none.
    fn of_latents(&self, name: &str) -> Result<Option<(&TensorInfo, usize)>, SaeError> {
        let Some(info) = self.all.tensor(name) else {
            return Ok(None);
        };
        match info.shape[..] {
            [latents] if latents == self.latents => Ok(Some((info, 1))),
            [latents, n] if latents == self.latents && n <= MOST => Ok(Some((info, n))),
            _ => {
                let latents = self.latents;
                let reason = format!(
                    "its shape is {:?}, and the dictionary has {latents} latents",
                    info.shape
                );
                Err(self.refuse(name, reason))
            }
        }
    }

    /// A latent's row; empty if the file has no such tensor.
    async fn row(&self, name: &str, latent: usize) -> Result<Vec<f64>, SaeError> {
        match self.of_latents(name)? {
            Some((info, n)) => self.numbers(name, info, latent as u64 * n as u64, n).await,
            None => Ok(Vec::new()),
        }
    }

    /// `count` numbers of a tensor, from its `first` on.
    async fn numbers(
        &self,
        name: &str,
        info: &TensorInfo,
        first: u64,
        count: usize,
    ) -> Result<Vec<f64>, SaeError> {
        let Some((size, number)) = reader(info.dtype) else {
            let reason = format!("{} numbers are not read here", info.dtype);
            return Err(self.refuse(name, reason));
        };
        let from = info.range.start + first * size as u64;
        let to = from + (count * size) as u64;
        let source: &Source = self.all.source();
        let bytes = source.read(from..to).await?;
        Ok(bytes.chunks_exact(size).map(number).collect())
    }

    /// Where the latent is most active.
    async fn contexts(&self, latent: usize, extent: Extent) -> Result<Vec<Context>, SaeError> {
        let Some(text) = self.all.tensor("tokens") else {
            return Ok(Vec::new());
        };
        let (sequences, length) = match text.shape[..] {
            [sequences, length] if length <= MOST => (sequences, length),
            _ => {
                let reason = format!(
                    "its shape is {:?}, and texts of one length are expected",
                    text.shape
                );
                return Err(self.refuse("tokens", reason));
            }
        };
        let activations = self.row("activations", latent).await?;
        let which = self.row("seq_ids", latent).await?;
        let positions = self.row("positions", latent).await?;
        if which.len() != activations.len() || positions.len() != activations.len() {
            let reason = "it has another number of examples than activations and positions".into();
            return Err(self.refuse("seq_ids", reason));
        }
        let mut order: Vec<usize> = (0..activations.len()).collect();
        order.retain(|&i| activations[i].is_finite() && activations[i] > 0.0);
        order.sort_by(|&a, &b| activations[b].total_cmp(&activations[a]));
        let mut seen = Vec::new();
        let mut contexts = Vec::new();
        for i in order {
            if contexts.len() == extent.contexts {
                break;
            }
            // Places that are left empty.
            let (Some(sequence), Some(at)) = (whole(which[i]), whole(positions[i])) else {
                continue;
            };
            if seen.contains(&sequence) {
                continue;
            }
            let at = at as usize;
            if sequence as usize >= sequences || at >= length {
                let reason = format!(
                    "it names token {at} of sequence {sequence}, of {sequences} with {length} each"
                );
                return Err(self.refuse("positions", reason));
            }
            seen.push(sequence);
            let from = at.saturating_sub(extent.around);
            let to = (at + extent.around + 1).min(length);
            let first = u64::from(sequence) * length as u64 + from as u64;
            let ids = self.numbers("tokens", text, first, to - from).await?;
            // A text that is shorter than the others has no tokens at its end.
            let ids: Vec<u32> = ids.into_iter().map_while(whole).collect();
            let peak = at - from;
            if peak >= ids.len() {
                let reason = format!("token {at} of sequence {sequence} is none");
                return Err(self.refuse("tokens", reason));
            }
            contexts.push(Context {
                ids,
                peak,
                activation: activations[i],
            });
        }
        Ok(contexts)
    }
}

/// Bytes of a number, and what it is.
type Reader = (usize, fn(&[u8]) -> f64);

/// How numbers of a type are read: those of the file's activations and counts.
fn reader(dtype: TensorType) -> Option<Reader> {
    /// The bytes of one number, as many as its type has.
    fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
        let mut all = [0; N];
        all.copy_from_slice(bytes);
        all
    }
    Some(match dtype {
        TensorType::Encoding(Encoding::F32) => (4, |b| f32::from_le_bytes(fixed(b)).into()),
        TensorType::Encoding(Encoding::F16) => (2, |b| half::f16::from_le_bytes(fixed(b)).into()),
        TensorType::Encoding(Encoding::BF16) => (2, |b| half::bf16::from_le_bytes(fixed(b)).into()),
        TensorType::Other(Dtype::F64) => (8, |b| f64::from_le_bytes(fixed(b))),
        TensorType::Other(Dtype::I16) => (2, |b| i16::from_le_bytes(fixed(b)).into()),
        TensorType::Other(Dtype::U16) => (2, |b| u16::from_le_bytes(fixed(b)).into()),
        TensorType::Other(Dtype::I32) => (4, |b| i32::from_le_bytes(fixed(b)).into()),
        TensorType::Other(Dtype::U32) => (4, |b| u32::from_le_bytes(fixed(b)).into()),
        TensorType::Other(Dtype::I64) => (8, |b| i64::from_le_bytes(fixed(b)) as f64),
        TensorType::Other(Dtype::U64) => (8, |b| u64::from_le_bytes(fixed(b)) as f64),
        TensorType::Encoding(_) | TensorType::Other(_) => return None,
    })
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use pollster::block_on;
    use rand::Rng;
    use safetensors::tensor::TensorView;

    use super::super::reference::fresh_rng;
    use super::*;

    const NAME: &str = "layer_3/examples.safetensors";
    const LATENTS: usize = 5;
    const EXTENT: Extent = Extent {
        contexts: 4,
        around: 3,
    };

    /// A tensor of a file: name, type, shape, bytes.
    type Entry = (&'static str, Dtype, Vec<usize>, Vec<u8>);

    fn folder(entries: &[Entry]) -> Folder {
        let views = entries.iter().map(|(name, dtype, shape, bytes)| {
            (
                *name,
                TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
            )
        });
        let file = safetensors::serialize(views, None).unwrap();
        Folder::memory("memory", vec![(NAME.into(), file)])
    }

    fn look(folder: &Folder, latent: usize) -> Result<Option<Examples>, String> {
        let read = block_on(read(folder, NAME, LATENTS, latent, EXTENT));
        read.map_err(|e| e.to_string())
    }

    fn i64s(values: &[i64]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn i32s(values: &[i64]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|v| (*v as i32).to_le_bytes())
            .collect()
    }

    #[test]
    fn the_strongest_of_each_sequence_are_read_with_their_words() {
        let mut rng = fresh_rng();
        let (sequences, length, many, listed) = (7, 13, 9, 3);
        let mut some = |n: usize, below: i64| -> Vec<i64> {
            (0..n).map(|_| rng.random_range(0..below)).collect()
        };
        let tokens = some(sequences * length, 50_000);
        let mut which = some(LATENTS * many, sequences as i64);
        let positions = some(LATENTS * many, length as i64);
        let top = some(LATENTS * listed, 50_000);
        let bottom = some(LATENTS * listed, 50_000);
        // Halves that bf16 holds as they are; each once in a row, the last ones nought.
        let activations: Vec<f32> = (0..LATENTS * many)
            .map(|i| ((i * 7) % many) as f32 * 0.5)
            .collect();
        let logits: Vec<f32> = (0..LATENTS * listed).map(|i| i as f32 - 4.0).collect();
        // A place that is left empty.
        which[2 * many + 1] = -1;
        let floats = |values: &[f32]| bytemuck::cast_slice(values).to_vec();
        let halves = |values: &[f32]| -> Vec<u8> {
            let bf16 = values.iter().map(|v| half::bf16::from_f32(*v));
            bf16.flat_map(|v| v.to_le_bytes()).collect()
        };
        let frequencies: Vec<u8> = (0..LATENTS)
            .flat_map(|i| (i as f64 / 64.0).to_le_bytes())
            .collect();
        let by_latent = vec![LATENTS, many];
        let few = vec![LATENTS, listed];
        let entries = [
            ("tokens", Dtype::I32, vec![sequences, length], i32s(&tokens)),
            (
                "activations",
                Dtype::BF16,
                by_latent.clone(),
                halves(&activations),
            ),
            ("seq_ids", Dtype::I64, by_latent.clone(), i64s(&which)),
            ("positions", Dtype::I64, by_latent, i64s(&positions)),
            ("top_tokens", Dtype::I32, few.clone(), i32s(&top)),
            ("top_logits", Dtype::F32, few.clone(), floats(&logits)),
            ("bottom_tokens", Dtype::I64, few.clone(), i64s(&bottom)),
            ("bottom_logits", Dtype::F32, few, floats(&logits)),
            (
                "feature_frequencies",
                Dtype::F64,
                vec![LATENTS],
                frequencies,
            ),
        ];
        let all = folder(&entries);
        for latent in 0..LATENTS {
            let found = look(&all, latent).unwrap().expect("a file");
            assert_eq!(found.frequency, Some(latent as f64 / 64.0));
            let list = |ids: &[i64]| -> Vec<(u32, f64)> {
                let at = latent * listed..(latent + 1) * listed;
                let both = ids[at.clone()].iter().zip(&logits[at]);
                both.map(|(id, logit)| (*id as u32, f64::from(*logit)))
                    .collect()
            };
            assert_eq!(found.top, list(&top));
            assert_eq!(found.bottom, list(&bottom));
            // The definition: of each sequence its strongest, of these the strongest.
            let mut best = std::collections::BTreeMap::new();
            for i in latent * many..(latent + 1) * many {
                if which[i] >= 0 && activations[i] > 0.0 {
                    let one = best.entry(which[i]).or_insert(i);
                    if activations[i] > activations[*one] {
                        *one = i;
                    }
                }
            }
            let mut best: Vec<usize> = best.into_values().collect();
            best.sort_by(|a, b| activations[*b].total_cmp(&activations[*a]));
            best.truncate(EXTENT.contexts);
            assert_eq!(found.contexts.len(), best.len());
            for (context, i) in found.contexts.iter().zip(best) {
                let at = positions[i] as usize;
                let text = &tokens[which[i] as usize * length..][..length];
                let from = at.saturating_sub(3);
                let wanted: Vec<u32> = text[from..(at + 4).min(length)]
                    .iter()
                    .map(|id| *id as u32)
                    .collect();
                assert_eq!(context.ids, wanted, "latent {latent}");
                assert_eq!(i64::from(context.ids[context.peak]), text[at]);
                assert_eq!(context.activation, f64::from(activations[i]));
            }
        }
        // Some of it, and none.
        assert!(look(&folder(&entries[4..5]), 1).is_err(), "without logits");
        let bare = look(&folder(&entries[8..]), 1).unwrap().expect("a file");
        assert_eq!((bare.frequency, bare.contexts.len()), (Some(1.0 / 64.0), 0));
        let none = Folder::memory("memory", Vec::<(String, Vec<u8>)>::new());
        assert_eq!(look(&none, 1), Ok(None));
    }

    #[test]
    fn what_is_of_another_dictionary_or_damaged_is_said() {
        let one = |which: i64, at: i64| -> Vec<Entry> {
            vec![
                ("tokens", Dtype::I32, vec![1, 4], i32s(&[1, 2, 3, 4])),
                (
                    "activations",
                    Dtype::I32,
                    vec![LATENTS, 1],
                    i32s(&[1; LATENTS]),
                ),
                (
                    "seq_ids",
                    Dtype::I32,
                    vec![LATENTS, 1],
                    i32s(&[which; LATENTS]),
                ),
                (
                    "positions",
                    Dtype::I32,
                    vec![LATENTS, 1],
                    i32s(&[at; LATENTS]),
                ),
            ]
        };
        let with = |index: usize, entry: Entry| -> Vec<Entry> {
            let mut all = one(0, 1);
            all[index] = entry;
            all
        };
        let six = vec![6, 1];
        let cases = [
            (one(1, 1), "token 1 of sequence 1"),
            (one(0, 4), "token 4 of sequence 0"),
            (
                with(1, ("activations", Dtype::I32, six, i32s(&[1; 6]))),
                "has 5 latents",
            ),
            (
                with(2, ("seq_ids", Dtype::I32, vec![LATENTS, 2], i32s(&[0; 10]))),
                "another number of examples",
            ),
            (
                with(
                    3,
                    ("positions", Dtype::BOOL, vec![LATENTS, 1], vec![1; LATENTS]),
                ),
                "are not read here",
            ),
            (
                with(
                    0,
                    ("tokens", Dtype::I32, vec![1, 4], i32s(&[1, -1, -1, -1])),
                ),
                "token 1 of sequence 0 is none",
            ),
            (
                with(0, ("tokens", Dtype::I32, vec![4], i32s(&[1; 4]))),
                "texts of one length",
            ),
        ];
        for (entries, says) in cases {
            let error = look(&folder(&entries), 2).expect_err(says);
            assert!(error.contains(says) && error.contains(NAME), "{error}");
        }
        let right = look(&folder(&one(0, 3)), 2).unwrap().expect("a file");
        assert_eq!(right.contexts[0].ids, [1, 2, 3, 4]);
        assert_eq!(right.contexts[0].peak, 3);
        let short = with(0, ("tokens", Dtype::I32, vec![1, 4], i32s(&[1, 2, 3, -1])));
        let short = look(&folder(&short), 2).unwrap().expect("a file");
        assert_eq!(short.contexts[0].ids, [1, 2, 3]);
        let damaged = Folder::memory("memory", vec![(NAME.into(), vec![7; 40])]);
        assert!(look(&damaged, 0).is_err());
    }
}
