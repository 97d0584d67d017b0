//! Locks between writers.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::leftovers::Leftover;
use super::unwritable;

/// A hidden file that is locked as long as this is held, and then removed.
pub struct Lock {
    // Removed while it is locked; if it stays behind, the next writer takes it.
    _leftover: Leftover,
    _file: File,
}

impl Lock {
    /// Locks the file at `path` for writing `target`, or says that another process has it.
    pub fn take(path: PathBuf, target: &Path) -> Result<Self, String> {
        let fail = |e: &io::Error| unwritable(target, e);
        loop {
            match fs::symlink_metadata(&path) {
                Ok(found) if !found.is_file() => {
                    let path = path.display();
                    return Err(format!("{path} is in the way: it is no file, remove it"));
                }
                _ => {}
            }
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(|e| fail(&e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let target = target.display();
                    return Err(format!(
                        "{target} is being written by another phi3-steer: wait for it, or choose another place"
                    ));
                }
                // Some network disks have no locks: then there is one writer at a time by agreement.
                Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(e)) => return Err(fail(&e)),
            }
            // Who had it before may have removed the file between the opening and the locking.
            if is_at(&file, &path) {
                return Ok(Self {
                    _leftover: Leftover::new(path),
                    _file: file,
                });
            }
        }
    }
}

/// Whether the open file is the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(own), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (own.dev(), own.ino()) == (there.dev(), there.ino())
}

/// Whether the open file is the one at `path`: an open file keeps its name on Windows.
#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let take = || Lock::take(path.clone(), Path::new("target"));
        let first = take().unwrap();
        let message = take().err().unwrap();
        assert!(message.starts_with("target is being written"), "{message}");
        drop(first);
        assert!(!path.exists());
        // A lock that a killed process left is taken.
        fs::write(&path, "").unwrap();
        drop(take().unwrap());
        fs::create_dir(&path).unwrap();
        assert!(take().err().unwrap().contains("in the way"));
    }

    #[test]
    fn many_writers_never_hold_it_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let held = std::sync::atomic::AtomicUsize::new(0);
        let taken = std::sync::atomic::AtomicUsize::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(lock) = Lock::take(path.clone(), Path::new("target")) {
                            assert_eq!(held.fetch_add(1, order), 0);
                            std::thread::yield_now();
                            held.fetch_sub(1, order);
                            taken.fetch_add(1, order);
                            drop(lock);
                        }
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
    }
}
