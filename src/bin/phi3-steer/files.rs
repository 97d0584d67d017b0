//! Files that are never half there: written under another name, then renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use phi3_steer::tokens::TokenizerFiles;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    pub name: String,
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// Writes the file called `name` in the folder `dir`.
pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<Written, String> {
    let part = dir.join(format!("{name}.part"));
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, dir.join(name))
    });
    written.map_err(|e| unwritable(&dir.join(name), &e))?;
    Ok(Written {
        name: name.into(),
        bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
    })
}

/// A file that is written piece by piece, and there only when it is finished.
pub struct Streamed {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
}

impl Streamed {
    /// Begins the file at `path`.
    pub fn create(path: &Path) -> Result<Self, String> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|e| unwritable(path, &e))?;
        Ok(Self {
            path: path.into(),
            part,
            file: BufWriter::with_capacity(1 << 20, file),
        })
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = self.file.write_all(bytes);
        written.map_err(|e| unwritable(&self.path, &e))
    }

    /// Adds so many zeros.
    pub fn zeros(&mut self, count: u64) -> Result<(), String> {
        let copied = io::copy(&mut io::repeat(0).take(count), &mut self.file);
        copied.map(drop).map_err(|e| unwritable(&self.path, &e))
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<(), String> {
        let named = self.file.flush().and_then(|()| {
            self.file.get_ref().sync_all()?;
            fs::rename(&self.part, &self.path)
        });
        named.map_err(|e| unwritable(&self.path, &e))
    }
}

/// Says that a file cannot be written.
pub fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {error}", path.display())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder to write a model into: made if it is not there, refused if it holds anything, unless
/// `force` says that a model in it may go.
pub fn prepare(dir: &Path, force: bool) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|e| unwritable(dir, &e))?;
    let entries = fs::read_dir(dir).and_then(|all| all.collect::<io::Result<Vec<_>>>());
    let entries = entries.map_err(|e| format!("{} cannot be read: {e}", dir.display()))?;
    if entries.is_empty() {
        return Ok(());
    }
    if !force {
        return Err(format!(
            "{} is not empty: choose another folder, or write over the model in it with --force",
            dir.display()
        ));
    }
    let mut old: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    // What makes the folder a model goes first, so that it never looks like a whole one.
    old.retain(|path| is_of_model(path));
    old.sort_by_key(|path| path.extension().is_some_and(|e| e == "safetensors"));
    for path in old {
        fs::remove_file(&path).map_err(|e| unwritable(&path, &e))?;
    }
    Ok(())
}

/// Whether a file is part of a model in the project's own format, or was to become one.
fn is_of_model(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.map(|name| name.strip_suffix(".part").unwrap_or(name));
    name.is_some_and(|name| {
        let other = [
            "manifest.json",
            "config.json",
            "model.safetensors",
            "model.safetensors.index.json",
        ];
        other.contains(&name)
            || TokenizerFiles::NAMES.contains(&name)
            || (name.starts_with("model-") && name.ends_with(".safetensors"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_kept_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("new");
        prepare(&at, false).unwrap();
        let written = write(&at, "config.json", b"abc").unwrap();
        assert_eq!(written.bytes, 3);
        assert_eq!(
            written.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        fs::write(at.join("notes.txt"), "mine").unwrap();
        fs::write(at.join("model-00001-of-00002.safetensors.part"), "half").unwrap();
        assert!(prepare(&at, false).unwrap_err().contains("--force"));
        assert_eq!(fs::read(at.join("config.json")).unwrap(), b"abc");
        prepare(&at, true).unwrap();
        let left: Vec<_> = fs::read_dir(&at)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["notes.txt"]);
    }
}
