//! A folder of files.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::file::Output;
use super::leftovers::Leftover;
use super::lock::Lock;
use super::sources::Sources;
use super::{Failure, unwritable};

/// Where the files are until they are all there, and in it those that they replace.
const STAGE: &str = "phi3-steer-partial";
const REPLACED: &str = "replaced";
const LOCK: &str = ".phi3-steer-lock";

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// With the folders that it is in.
    pub name: String,
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// A folder whose files appear together when all are there.
pub struct FolderOutput {
    /// Through all links.
    folder: PathBuf,
    /// As the user wrote it.
    given: PathBuf,
    /// Which files go when the new ones come, beside those of the same names.
    replaces: fn(&str) -> bool,
    names: Vec<String>,
    // These go in this order.
    stage: Leftover,
    _lock: Lock,
    _made: Made,
}

/// Folders that were made, and go again if nothing comes into them.
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            let _ = fs::remove_dir(folder);
        }
    }
}

impl FolderOutput {
    /// Begins a folder, made if it is not there. If it holds anything, `force` says that the files that
    /// `replaces` names may go for the new ones, when these are all there; others stay.
    pub fn create(
        given: &Path,
        force: bool,
        replaces: fn(&str) -> bool,
        sources: Sources<'_>,
    ) -> Result<Self, String> {
        let fail = |e: io::Error| unwritable(given, &e);
        let new = given
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err());
        let made = Made(new.map(Path::to_path_buf).collect());
        fs::create_dir_all(given).map_err(fail)?;
        let folder = given.canonicalize().map_err(fail)?;
        sources.allow_folder(&folder, given)?;
        let lock = Lock::take(folder.join(LOCK), given)?;
        let stage = folder.join(STAGE);
        restore(&folder, &stage).map_err(fail)?;
        let entries = fs::read_dir(&folder).and_then(|all| all.collect::<io::Result<Vec<_>>>());
        let entries = entries.map_err(|e| format!("{} cannot be read: {e}", given.display()))?;
        let own = [STAGE, LOCK];
        let full = entries
            .iter()
            .any(|entry| own.iter().all(|name| entry.file_name() != *name));
        if full && !force {
            return Err(format!(
                "{} is not empty: choose another folder, or write over what is in it with --force",
                given.display()
            ));
        }
        // What a killed process left.
        match fs::symlink_metadata(&stage) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&stage).map_err(fail)?,
            Ok(_) => fs::remove_file(&stage).map_err(fail)?,
            Err(_) => {}
        }
        let stage = Leftover::new(stage);
        fs::create_dir(stage.path()).map_err(fail)?;
        Ok(Self {
            folder,
            given: given.into(),
            replaces,
            names: Vec::new(),
            stage,
            _lock: lock,
            _made: made,
        })
    }

    /// Where a file is until the folder is finished; one that was not begun here goes then.
    pub fn staged(&self, name: &str) -> PathBuf {
        self.stage.path().join(name)
    }

    /// Begins the file called `name`, which may be in folders.
    pub fn file(&mut self, name: &str) -> Result<Output, String> {
        self.names.push(name.into());
        Output::staged(&self.staged(name), self.given.join(name))
    }

    /// Writes the file called `name`.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<Written, Failure> {
        let mut file = self.file(name)?;
        file.add(bytes)?;
        file.finish()?;
        let hash = Sha256::digest(bytes);
        Ok(Written {
            name: name.into(),
            bytes: bytes.len() as u64,
            sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// Puts the files in their places, in the order in which they were begun, after what they replace has
    /// been put aside; if that fails, everything is as it was.
    pub fn finish(self) -> Result<(), String> {
        let change = Change {
            folder: &self.folder,
            stage: self.stage.path(),
            names: &self.names,
            replaces: self.replaces,
        };
        let fail = |e: &io::Error| unwritable(&self.given, e);
        match self.stage.settle(|_| change.make()) {
            Ok(()) => Ok(()),
            Err(Broken { why, undone: true }) => Err(fail(&why)),
            Err(Broken { why, .. }) => {
                let (why, stage) = (fail(&why), self.stage.path().join(REPLACED));
                self.stage.keep();
                Err(format!(
                    "{why}; the files that it held are in {}",
                    stage.display()
                ))
            }
        }
    }
}

/// New files for old.
struct Change<'a> {
    folder: &'a Path,
    stage: &'a Path,
    names: &'a [String],
    replaces: fn(&str) -> bool,
}

/// A change that could not be made.
struct Broken {
    why: io::Error,
    /// Whether everything is as it was.
    undone: bool,
}

impl Change<'_> {
    fn make(&self) -> Result<(), Broken> {
        let mut placed = 0;
        let done = self.old().and_then(|old| {
            let aside = self.stage.join(REPLACED);
            for name in &old {
                move_file(&self.folder.join(name), &aside.join(name))?;
            }
            for name in self.names {
                move_file(&self.stage.join(name), &self.folder.join(name))?;
                placed += 1;
            }
            // The new ones stand: nothing brings the old ones back.
            match fs::rename(&aside, self.stage.join("gone")) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            }
        });
        done.map_err(|why| {
            let back = self.names[..placed].iter();
            let mut back =
                back.map(|name| move_file(&self.folder.join(name), &self.stage.join(name)));
            let undone =
                back.all(|moved| moved.is_ok()) && restore(self.folder, self.stage).is_ok();
            Broken { why, undone }
        })
    }

    /// What is there and goes.
    fn old(&self) -> io::Result<Vec<String>> {
        let mut old = Vec::new();
        for name in self.names {
            match fs::symlink_metadata(self.folder.join(name)) {
                Ok(found) if found.is_dir() => {
                    return Err(io::Error::other(format!("{name} is a folder there")));
                }
                Ok(_) => old.push(name.clone()),
                Err(_) => {}
            }
        }
        let new: HashSet<&str> = self.names.iter().map(String::as_str).collect();
        for entry in fs::read_dir(self.folder)? {
            let entry = entry?;
            let (name, is_folder) = (entry.file_name(), entry.file_type()?.is_dir());
            let name = name
                .to_str()
                .filter(|name| !new.contains(name) && !is_folder);
            old.extend(name.filter(|name| (self.replaces)(name)).map(String::from));
        }
        Ok(old)
    }
}

/// Brings back what was put aside by a change that was broken off.
fn restore(folder: &Path, stage: &Path) -> io::Result<()> {
    let aside = stage.join(REPLACED);
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let entries = match fs::read_dir(aside.join(&below)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = below.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => folders.push(name),
                false => move_file(&entry.path(), &folder.join(name))?,
            }
        }
    }
    Ok(())
}

/// Renames a file or link, making the folder that it comes into.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::rename(from, to)
}
