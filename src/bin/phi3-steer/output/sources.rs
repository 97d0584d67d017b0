//! What a command reads, which it must not write over.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders inside folders that are looked into, and entries in all: a dictionary's files lie at most so deep.
const DEPTH: usize = 3;
const ENTRIES: usize = 10_000;

/// What a command reads.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Models, dictionaries, prompts: files, or folders that hold them.
    paths: &'a [&'a Path],
}

impl<'a> Sources<'a> {
    pub fn new(paths: &'a [&'a Path]) -> Self {
        Self { paths }
    }

    /// Refuses `target`, given as `given`, if it is a file that the command reads.
    pub fn allow_file(self, target: &Path, given: &Path) -> Result<(), String> {
        for source in self.paths {
            let own = source.is_file();
            let found = files_of(source, None).into_iter();
            let mut found = found.filter(|file| own || is_read(file.file_name()));
            if found.any(|file| file == target) {
                return Err(among(given, source));
            }
        }
        Ok(())
    }

    /// Refuses the folder `target`, given as `given`, if a file that the command reads is in it, or is a link
    /// to a file in it.
    pub fn allow_folder(self, target: &Path, given: &Path) -> Result<(), String> {
        for source in self.paths {
            let mut found = files_of(source, Some(target)).into_iter();
            if found.any(|file| file.starts_with(target)) {
                return Err(among(given, source));
            }
        }
        Ok(())
    }
}

fn among(given: &Path, source: &Path) -> String {
    let (given, source) = (given.display(), source.display());
    format!("{given} is, or leads to, what {source} is read from: choose another place for --out")
}

/// Whether a model's, dictionary's or evaluation's reader looks for a file of this name.
fn is_read(name: Option<&OsStr>) -> bool {
    let Some(name) = name.and_then(OsStr::to_str) else {
        return false;
    };
    let name = name.to_ascii_lowercase();
    if phi3_steer::sae::file_names().any(|own| own == name) {
        return true;
    }
    let tensors = ["model", "consolidated"];
    match name.rsplit_once('.') {
        Some((_, "gguf" | "npz" | "jinja")) => true,
        Some((stem, "safetensors")) => {
            stem.contains("-of-") || tensors.iter().any(|begin| stem.starts_with(begin))
        }
        Some((stem, "json")) => {
            let whole = ["manifest", "eval", "vocab"];
            whole.contains(&stem)
                || ["config", "tokenizer", "index", "tokens_map"]
                    .iter()
                    .any(|part| stem.contains(part))
        }
        _ => false,
    }
}

/// The files of a source, through links; a folder `inside` a source's folder is not one of its own.
fn files_of(source: &Path, inside: Option<&Path>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = Vec::new();
    match source.canonicalize() {
        Ok(path) if source.is_dir() => folders.push((path, 0)),
        Ok(path) => files.push(path),
        // The reader says what is wrong with it.
        Err(_) => {}
    }
    let mut seen = 0;
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > ENTRIES {
                return files;
            }
            let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let Ok(path) = entry.path().canonicalize() else {
                continue;
            };
            match path.is_dir() {
                true if !linked && Some(&*path) == inside => {}
                true if depth < DEPTH => folders.push((path, depth + 1)),
                true => {}
                false => files.push(path),
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_read() {
        for name in [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "model.safetensors",
            "model-00002-of-00003.safetensors",
            "model.safetensors.index.json",
            "MODEL.GGUF",
            "cfg.json",
            "sae_weights.safetensors",
            "params.npz",
            "eval.json",
        ] {
            assert!(is_read(Some(OsStr::new(name))), "{name}");
        }
        for name in ["report.json", "logits.safetensors", "notes.txt", "x", ""] {
            assert!(!is_read(Some(OsStr::new(name))), "{name}");
        }
    }
}
