//! What the command writes: files, folders, and what it says on the terminal.
//!
//! Nothing that is there goes before what takes its place is whole on the disk. A file is written beside its
//! place, as `NAME.phi3-steer-partial`, a folder inside it, in `phi3-steer-partial/`; both are renamed at the
//! end, and gone after an error or Ctrl-C. A hidden lock keeps a second writer out. Links stay links: what
//! they lead to is written.

mod file;
mod folder;
mod leftovers;
mod lock;
mod sources;
mod terminal;

use std::io;
use std::path::Path;

pub use file::{Existing, Output, Place};
pub use folder::{FolderOutput, Written};
pub use sources::Sources;
pub use terminal::{Gone, note, print, print_line};

/// An error as a sentence for the user.
type Failure = Box<dyn std::error::Error>;

/// Says that a file or folder cannot be written.
fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {error}", path.display())
}
