//! What is half written, and goes when the command ends before its time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files and folders that are being written, and locks.
static PATHS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Something that goes when this is dropped, or on Ctrl-C.
pub struct Leftover {
    path: PathBuf,
}

impl Leftover {
    /// Takes note of what is at `path`, or will be.
    pub fn new(path: PathBuf) -> Self {
        on_interrupt();
        paths().push(path.clone());
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs what brings it to its place; an interrupt waits for that.
    pub fn settle<T>(&self, last: impl FnOnce(&Path) -> T) -> T {
        let _guard = paths();
        last(&self.path)
    }

    /// Leaves it where it is.
    pub fn keep(self) {
        paths().retain(|path| *path != self.path);
        std::mem::forget(self);
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        let mut paths = paths();
        paths.retain(|path| *path != self.path);
        remove(&self.path);
    }
}

fn paths() -> MutexGuard<'static, Vec<PathBuf>> {
    PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a file, a link or a folder; what cannot be removed has a name that says what it is.
fn remove(path: &Path) {
    let _ = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
}

/// Has an interrupt remove what is half written, then end the process as it would have.
#[cfg(unix)]
fn on_interrupt() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Without it the leftovers stay, under names that say what they are.
        let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGTERM]) else {
            return;
        };
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let paths = paths();
                paths.iter().rev().for_each(|path| remove(path));
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        });
    });
}

#[cfg(not(unix))]
fn on_interrupt() {}
