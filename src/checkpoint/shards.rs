//! The safetensors files of a checkpoint that is cut into several.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::split::Split;
use super::{ByteSource, CheckpointError, Folder, Safetensors, Source, json, shown};

/// The most files of a checkpoint.
const MAX_SHARDS: usize = 4096;

/// Several safetensors files whose tensors are one checkpoint's.
pub(super) struct Shards {
    pub files: Vec<Safetensors>,
    /// The tensors, each with the place of its file in `files`.
    pub tensors: Vec<(String, usize)>,
    /// Tensors of files that are not there, each with the file that the index names.
    pub absent: BTreeMap<String, String>,
}

/// Which file has which tensor, by the index.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The path of the folder that a path leads to a file of, with the slash at its end.
fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..=slash])
}

/// The only `.safetensors` file beside the ones that begin with `base`, or those of the only one that is
/// split, where files can be listed.
pub(super) fn only(folder: &Folder, base: &str) -> Vec<String> {
    let place = folder_of(base);
    // A dictionary may lie in its model's folder.
    let of_model = base == "model";
    let is_beside = |path: &String| {
        let name = path.strip_prefix(place);
        name.is_some_and(|name| {
            // Figures about a dictionary, and changes to another model.
            let other = ["sparsity.", "adapter_model."];
            name.ends_with(".safetensors")
                && !name.contains('/')
                && (of_model || !name.starts_with("model"))
                && !other.iter().any(|start| name.starts_with(start))
        })
    };
    let files: Vec<String> = folder.paths().unwrap_or_default();
    let files: Vec<String> = files.into_iter().filter(is_beside).collect();
    let all = files.first().map(|first| Split::names_with(first));
    match all {
        Some(all) if files.iter().all(|file| all.contains(file)) => all,
        _ => Vec::new(),
    }
}

impl Shards {
    /// Opens the files that the index at `path`, whose contents are `bytes`, lists. Headers alone are read.
    ///
    /// Where a tensor is, the files say: the index decides where two have the same. A file that is not
    /// there is missed only where a tensor of it is needed.
    pub async fn of_index(
        folder: &Folder,
        path: &str,
        bytes: &[u8],
    ) -> Result<Self, CheckpointError> {
        let fail = |reason: String| CheckpointError::Index {
            file: path.into(),
            reason,
        };
        let Index { weight_map } =
            json::from_slice(bytes).map_err(|e| fail(format!("it cannot be read: {e}")))?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > MAX_SHARDS {
            return Err(fail(format!(
                "it names {} files; up to {MAX_SHARDS} make sense",
                names.len()
            )));
        }
        let (mut files, mut places) = (Vec::new(), BTreeMap::new());
        for name in names {
            // A file of this folder, whatever the index says.
            let plain =
                name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '?', '#', '%']);
            if !plain {
                return Err(fail(format!(
                    "\"{}\" is not the name of a safetensors file beside it",
                    shown(name)
                )));
            }
            let file = format!("{}{name}", folder_of(path));
            if let Some(source) = folder.open(&file).await? {
                places.insert(name.as_str(), files.len());
                files.push(header(source, files.is_empty()).await?);
            }
        }
        let named = |tensor: &str| {
            let at = places.get(weight_map.get(tensor)?.as_str());
            at.copied().filter(|&at| files[at].tensor(tensor).is_some())
        };
        let tensors = found(&files, named).map_err(fail)?;
        let absent = weight_map.iter().filter(|(tensor, name)| {
            !places.contains_key(name.as_str()) && !tensors.contains_key(*tensor)
        });
        Ok(Self {
            absent: absent.map(|(t, n)| (t.clone(), n.clone())).collect(),
            tensors: tensors.into_iter().collect(),
            files,
        })
    }

    /// Opens the files of these names, all of which must be there.
    pub async fn all(folder: &Folder, names: &[String]) -> Result<Self, CheckpointError> {
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            let Some(source) = folder.open(name).await? else {
                return Err(CheckpointError::MissingPart {
                    folder: folder.described(),
                    file: name.clone(),
                });
            };
            files.push(header(source, files.is_empty()).await?);
        }
        let fail = |reason| CheckpointError::Index {
            file: folder.described(),
            reason,
        };
        Ok(Self {
            absent: BTreeMap::new(),
            tensors: found(&files, |_| None).map_err(fail)?.into_iter().collect(),
            files,
        })
    }
}

/// Opens a file; only the `first` is read next.
async fn header(source: Source, first: bool) -> Result<Safetensors, CheckpointError> {
    let file = Safetensors::open(source).await?;
    if !first {
        file.source().release();
    }
    Ok(file)
}

/// All tensors of the files, each with the place of its file; `named` decides where several have the same.
fn found(
    files: &[Safetensors],
    named: impl Fn(&str) -> Option<usize>,
) -> Result<BTreeMap<String, usize>, String> {
    let mut tensors: BTreeMap<String, usize> = BTreeMap::new();
    for (at, file) in files.iter().enumerate() {
        for tensor in file.names() {
            let Some(other) = tensors.insert(tensor.into(), named(tensor).unwrap_or(at)) else {
                continue;
            };
            if named(tensor).is_none() {
                let [one, two] = [other, at].map(|at| shown(files[at].source().name()));
                return Err(format!(
                    "nothing says which of {one} and {two} has the right \"{}\"",
                    shown(tensor)
                ));
            }
        }
    }
    Ok(tensors)
}
