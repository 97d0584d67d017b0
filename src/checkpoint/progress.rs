//! Saying how far a file is, and stopping half-way.

use std::cell::Cell;
use std::rc::Rc;

use super::SourceError;

/// How far the reading of one file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The file's name in its folder.
    pub file: String,
    /// Bytes of it read or downloaded so far, at most `total`.
    pub loaded: u64,
    /// The file's length in bytes.
    pub total: u64,
}

/// A handle that stops the reading of files: at once where a browser downloads, before the next
/// block elsewhere. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Cancel {
    flag: Rc<Cell<bool>>,
    #[cfg(target_arch = "wasm32")]
    controller: Option<web_sys::AbortController>,
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    /// A handle that has not been used.
    pub fn new() -> Self {
        Self {
            flag: Rc::default(),
            // Without it (no known browser) a download still stops at its next piece.
            #[cfg(target_arch = "wasm32")]
            controller: web_sys::AbortController::new().ok(),
        }
    }

    /// Stops everything that reads under this handle, now and later.
    pub fn cancel(&self) {
        self.flag.set(true);
        #[cfg(target_arch = "wasm32")]
        if let Some(controller) = &self.controller {
            controller.abort();
        }
    }

    /// Whether it was used.
    pub fn is_cancelled(&self) -> bool {
        self.flag.get()
    }

    /// The signal that stops a `fetch`.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn signal(&self) -> Option<web_sys::AbortSignal> {
        self.controller.as_ref().map(|c| c.signal())
    }

    pub(super) fn check(&self, file: &str) -> Result<(), SourceError> {
        if self.is_cancelled() {
            return Err(SourceError::Cancelled { file: file.into() });
        }
        Ok(())
    }
}

/// Who is told of progress.
pub(super) type Listener = Rc<dyn Fn(&Progress)>;

/// Counts one file's bytes and tells the listener.
#[derive(Clone, Default)]
pub(super) struct Meter {
    file: String,
    listener: Option<Listener>,
    loaded: Rc<Cell<u64>>,
}

impl Meter {
    pub(super) fn new(file: &str, listener: Option<Listener>) -> Self {
        Self {
            file: file.into(),
            listener,
            loaded: Rc::default(),
        }
    }

    /// `bytes` more of a file of `total` have come.
    pub(super) fn add(&self, bytes: u64, total: u64) {
        self.reach(self.loaded.get().saturating_add(bytes), total);
    }

    /// `bytes` that have come will come again.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn take_back(&self, bytes: u64) {
        self.loaded.set(self.loaded.get().saturating_sub(bytes));
    }

    /// `loaded` bytes of a file of `total` have come, or more before.
    pub(super) fn reach(&self, loaded: u64, total: u64) {
        let loaded = self.loaded.get().max(loaded).min(total);
        self.loaded.set(loaded);
        if let Some(listener) = &self.listener {
            listener(&Progress {
                file: self.file.clone(),
                loaded,
                total,
            });
        }
    }
}
