//! The file formats of dictionaries, each brought to the one [`Rule`].

mod gemma_scope;
mod llama_scope;
pub(crate) mod names;
mod saelens;
mod saex;
mod sparsify;

use serde::de::DeserializeOwned;

use super::rule::{Latent, Rule};
use super::tensors::Tensors;
use super::{HookPoint, MAX_K, MAX_LATENTS, SaeError, site};
use crate::checkpoint::{Checkpoint, Folder, MAX_JSON, Npz, json, shown, shown_list};

/// A matrix of one row a latent, as the file holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    /// The tensor.
    pub name: &'static str,
    /// Whether the file holds `[width, latents]`.
    pub transposed: bool,
}

impl Weights {
    /// The tensor's shape in the file.
    pub fn shape(&self, width: usize, latents: usize) -> [usize; 2] {
        match self.transposed {
            true => [width, latents],
            false => [latents, width],
        }
    }
}

/// A dictionary whose files are open and whose rule is known.
pub(super) struct Described {
    /// The format's name, for people.
    pub format: &'static str,
    pub tensors: Tensors,
    pub width: usize,
    pub latents: usize,
    pub rule: Rule,
    pub encoder: Weights,
    pub decoder: Weights,
    /// `[width]`
    pub b_dec: Vec<f32>,
    /// `[latents]`
    pub params: Vec<Latent>,
    /// What decoder rows are multiplied by, `[latents]`; 1 where there is none.
    pub gains: Option<Vec<f32>>,
    /// Whether activations are in units of decoder rows of norm 1: a latent's scale is its row's norm, and
    /// the row is divided by it.
    pub unit_decoder: bool,
    /// What the files say of the hook point.
    pub hook: Option<Result<HookPoint, SaeError>>,
}

/// One dictionary in a folder.
#[derive(Debug)]
pub(super) struct Found {
    /// Where its files are: empty, or a path that ends in a slash.
    pub path: String,
    kind: Kind,
}

/// The keys under which the formats' descriptions name the hook point.
const HOOK_KEYS: [&str; 4] = ["hook_name", "hook_point", "hf_hook_name", "hook_point_in"];

#[derive(Debug)]
enum Kind {
    Sparsify(Vec<u8>),
    /// SAELens or saex; the tensors tell.
    Weights(Vec<u8>),
    GemmaScope,
    GemmaScope2,
    LlamaScope(Vec<u8>),
}

/// Looks for a dictionary at `path` in `folder` by its `cfg.json`.
pub(super) async fn look_for_config(
    folder: &Folder,
    path: &str,
) -> Result<Option<Found>, SaeError> {
    let name = format!("{path}{}", names::CONFIG);
    let Some(json) = folder.bytes(&name, MAX_JSON).await? else {
        return Ok(None);
    };
    // sparsify's has none of SAELens's names for the sizes.
    let saelens = is_saelens(&json);
    Ok(Some(Found {
        path: path.into(),
        kind: match saelens {
            true => Kind::Weights(json),
            false => Kind::Sparsify(json),
        },
    }))
}

/// Looks for a dictionary at `path` in `folder` that has no `cfg.json`.
pub(super) async fn look_for_other(folder: &Folder, path: &str) -> Result<Option<Found>, SaeError> {
    let found = |kind| {
        Ok(Some(Found {
            path: path.into(),
            kind,
        }))
    };
    let there = async |name: &str| folder.open(&format!("{path}{name}")).await;
    if there(names::GEMMA_SCOPE).await?.is_some() {
        return found(Kind::GemmaScope);
    }
    if there(names::GEMMA_SCOPE_2).await?.is_some() {
        return found(Kind::GemmaScope2);
    }
    let name = format!("{path}{}", names::HYPERPARAMETERS);
    if let Some(json) = folder.bytes(&name, MAX_JSON).await? {
        return found(Kind::LlamaScope(json));
    }
    for name in ["ae.pt", "sae.pt"] {
        if there(name).await?.is_some() {
            return Err(SaeError::Pickle {
                file: format!("{path}{name}"),
            });
        }
    }
    Ok(None)
}

impl Found {
    /// The hook point that the configuration names, or else the folder, if they do, or why it is none; without
    /// opening the weights.
    pub fn hint(&self, folder: &Folder) -> Option<Result<HookPoint, SaeError>> {
        let config = match &self.kind {
            Kind::Sparsify(json) | Kind::Weights(json) | Kind::LlamaScope(json) => json.as_slice(),
            Kind::GemmaScope | Kind::GemmaScope2 => b"",
        };
        let config: serde_json::Value = json::from_slice(config).unwrap_or_default();
        let named = [&config["metadata"], &config]
            .into_iter()
            .find_map(|at| HOOK_KEYS.iter().find_map(|key| at[*key].as_str()));
        if let Some(name) = named {
            return Some(name.parse());
        }
        let place = self.place(folder);
        if let Some(named) = site::of_path(&place) {
            return Some(named);
        }
        match &self.kind {
            // saex names its folders so; SAELens may be anything.
            Kind::Weights(_) => saex::hook_of(&place),
            Kind::Sparsify(_) | Kind::LlamaScope(_) => None,
            Kind::GemmaScope | Kind::GemmaScope2 => gemma_scope::hook_of(&place),
        }
    }

    /// The file in the folder that may hold published examples of the latents.
    pub fn examples(&self) -> Option<String> {
        matches!(self.kind, Kind::GemmaScope2).then(|| format!("{}{}", self.path, names::EXAMPLES))
    }

    /// The dictionary's path or address, without a query.
    fn place(&self, folder: &Folder) -> String {
        let label = folder.label().split(['?', '#']).next().unwrap_or_default();
        format!("{}/{}", label.trim_end_matches('/'), self.path)
    }

    /// Opens the files and reads everything but the two matrices.
    pub async fn describe(&self, folder: &Folder) -> Result<Described, SaeError> {
        let path = self.path.as_str();
        let place = self.place(folder);
        let open =
            async |name| Checkpoint::open(folder, &format!("{path}{}", names::stem(name))).await;
        match &self.kind {
            Kind::Sparsify(json) => {
                let file = open(names::SPARSIFY).await?;
                sparsify::describe(path, json, Tensors::Safetensors(file)).await
            }
            Kind::Weights(json) => {
                let file = open(names::SAELENS).await?;
                let tensors = Tensors::Safetensors(file);
                if saex::is_saex(&tensors) {
                    saex::describe(path, &place, json, tensors).await
                } else {
                    saelens::describe(path, json, tensors).await
                }
            }
            Kind::GemmaScope => {
                let file = folder
                    .require(&format!("{path}{}", names::GEMMA_SCOPE))
                    .await?;
                let tensors = Tensors::Npz(Npz::open(file).await?);
                gemma_scope::describe(path, &place, None, tensors).await
            }
            Kind::GemmaScope2 => {
                let file = open(names::GEMMA_SCOPE_2).await?;
                let config = folder
                    .bytes(&format!("{path}{}", names::GEMMA_CONFIG), MAX_JSON)
                    .await?;
                let tensors = Tensors::Safetensors(file);
                gemma_scope::describe(path, &place, config.as_deref(), tensors).await
            }
            Kind::LlamaScope(json) => {
                let file = open(names::LLAMA_SCOPE).await?;
                llama_scope::describe(path, json, Tensors::Safetensors(file)).await
            }
        }
    }
}

/// Parses and checks a dictionary's `cfg.json` of whatever format, as loading does before it reads any
/// tensor: for tools that check files.
pub fn check_config(file: &str, json: &[u8]) -> Result<(), SaeError> {
    if is_saelens(json) {
        let config = saelens::Config::from_json(file, json)?;
        saex::Config::from_json(file, json)?;
        config.check(file)
    } else {
        sparsify::Config::from_json(file, json).map(|_| ())
    }
}

fn is_saelens(bytes: &[u8]) -> bool {
    let value: serde_json::Value = json::from_slice(bytes).unwrap_or_default();
    value.get("d_sae").is_some()
}

/// Parses `bytes`, the contents of `file`, which `writer` wrote.
fn parse<T: DeserializeOwned>(file: &str, bytes: &[u8], writer: &str) -> Result<T, SaeError> {
    json::from_slice(bytes).map_err(|e| SaeError::Config {
        file: file.into(),
        reason: format!("{e}: it should be the configuration that {writer} wrote"),
    })
}

fn unsupported(file: &str, what: impl Into<String>) -> SaeError {
    SaeError::Unsupported {
        file: file.into(),
        what: what.into(),
    }
}

/// Refuses a dictionary whose tensors, those of `file`, have a skip connection.
fn refuse_skip(tensors: &Tensors, file: &str) -> Result<(), SaeError> {
    match tensors.shape("W_skip") {
        None => Ok(()),
        Some(_) => Err(unsupported(
            file,
            "it has a skip connection (the tensor W_skip)",
        )),
    }
}

/// Figures of a training, which change nothing.
const FIGURES: [&str; 6] = [
    "act_freq_scores",
    "log_feature_sparsity",
    "n_forward_passes_since_fired",
    "num_batches_not_active",
    "num_tokens_since_fired",
    "sparsity",
];

/// Refuses a dictionary with other tensors, in `file`, than those that one of its `kind` is made of: what they
/// do is not known.
fn refuse_others(
    tensors: &Tensors,
    file: &str,
    kind: &str,
    made_of: &[&str],
) -> Result<(), SaeError> {
    let names = tensors.names().into_iter();
    let mut others = names.filter(|name| !made_of.contains(name) && !FIGURES.contains(name));
    match others.next() {
        None => Ok(()),
        Some(other) => Err(SaeError::Config {
            file: file.into(),
            reason: format!(
                "it has a tensor \"{}\", but a {kind} dictionary has none: the configuration beside it says \
                 another kind than the tensors are, or it is of a kind that is not read",
                shown(other)
            ),
        }),
    }
}

/// Checks the sizes of a dictionary.
fn check_sizes(file: &str, width: usize, latents: usize) -> Result<(), SaeError> {
    let fail = |reason: String| SaeError::Config {
        file: file.into(),
        reason,
    };
    if width == 0 || width > 1 << 16 || !width.is_multiple_of(4) {
        return Err(fail(format!(
            "d_in is {width}; a multiple of 4 up to {} is needed",
            1 << 16
        )));
    }
    if latents == 0 || latents > MAX_LATENTS {
        return Err(fail(format!(
            "{latents} latents; 1 to {MAX_LATENTS} are supported"
        )));
    }
    Ok(())
}

/// Checks TopK's k.
fn check_k(file: &str, k: usize, latents: usize) -> Result<(), SaeError> {
    let most = MAX_K.min(latents);
    if k == 0 || k > most {
        return Err(SaeError::Config {
            file: file.into(),
            reason: format!("k is {k}; 1 to {most} is supported here"),
        });
    }
    Ok(())
}

/// How the file holds the matrix `name` of `latents` rows of `width`, by its shape. Where the two are
/// equal the shape does not tell; `fixed` is the orientation that the format's names fix, if they do.
fn orient(
    tensors: &Tensors,
    file: &str,
    name: &'static str,
    [width, latents]: [usize; 2],
    fixed: Option<bool>,
) -> Result<Weights, SaeError> {
    let shape = tensors.shape(name).unwrap_or_default();
    let transposed = match fixed {
        _ if width != latents && shape == [latents, width] => false,
        _ if width != latents && shape == [width, latents] => true,
        Some(transposed) if width == latents => transposed,
        None if width == latents && shape == [width, width] => {
            return Err(SaeError::Ambiguous {
                file: file.into(),
                tensor: name.into(),
                width,
            });
        }
        // Reading it will say which shape is wrong, or that the tensor is missing.
        _ => fixed.unwrap_or(false),
    };
    Ok(Weights { name, transposed })
}

/// The two sizes of a square-free matrix whose `[latents, width]` order is unknown: there are more latents
/// than elements in every dictionary of these formats.
fn sizes_of(tensors: &Tensors, file: &str, name: &'static str) -> Result<[usize; 2], SaeError> {
    match tensors.shape(name) {
        Some(&[a, b]) => Ok([a.min(b), a.max(b)]),
        Some(shape) => Err(SaeError::Config {
            file: file.into(),
            reason: format!("its tensor {name} has the shape {shape:?}; a matrix is needed"),
        }),
        None => Err(SaeError::Config {
            file: file.into(),
            reason: format!(
                "it has no tensor {name}, but {}: this is another format",
                shown_list(&tensors.names(), ", ")
            ),
        }),
    }
}

/// Whether a path or an address is that of one layer's dictionary, and not of a folder of several.
pub(super) fn names_a_layer(place: &str) -> bool {
    let last = place
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let layer = ["l", "layer_", "layers."].iter();
    site::of_path(place).is_some()
        || number_after(place, "layer_").is_some()
        || layer
            .filter_map(|before| number_after(last, before))
            .count()
            > 0
}

/// The first number that follows `before` in a component of a path.
fn number_after(path: &str, before: &str) -> Option<usize> {
    path.split(['/', '\\']).rev().find_map(|part| {
        let rest = part.strip_prefix(before)?;
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}
