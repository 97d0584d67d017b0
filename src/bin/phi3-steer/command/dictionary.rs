//! A dictionary on the command line.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use phi3_steer::checkpoint::Folder;
use phi3_steer::matrix::Format;
use phi3_steer::sae::{HookPoint, SaeError, Wanted, levels_up, listed};

use super::Failure;

/// How a dictionary's matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Storage {
    /// As the file has them.
    F32,
    /// In 8 bits with a scale for 32.
    Q8,
}

/// Which dictionary.
#[derive(clap::Args)]
pub struct DictionaryArguments {
    /// The dictionary: its folder or one of its files, in any format (sparsify, SAELens, saex, Gemma Scope,
    /// Llama Scope), or a folder with such folders.
    #[arg(long, value_name = "PATH")]
    sae: PathBuf,
    /// Which dictionary, where the folder holds several, as in layers.3.
    #[arg(long)]
    hook: Option<HookPoint>,
    /// The hook point that it is given, whatever its files say.
    #[arg(long, value_name = "HOOK")]
    at: Option<HookPoint>,
    /// How its matrices are stored; by default in f32 up to 64 MiB, else in 8 bits.
    #[arg(long, value_enum)]
    storage: Option<Storage>,
}

impl DictionaryArguments {
    /// Which dictionary is wanted, of whatever model.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            hook: self.hook,
            place: self.at,
            format: self.storage.map(|storage| match storage {
                Storage::F32 => Format::F32,
                Storage::Q8 => Format::Q8,
            }),
            ..Wanted::default()
        }
    }

    /// The hook point that was named for it.
    pub fn place(&self) -> Option<HookPoint> {
        self.at.or(self.hook)
    }

    /// The path that was given.
    pub fn path(&self) -> &Path {
        &self.sae
    }

    /// Where it is.
    pub fn folder(&self) -> Result<Folder, Failure> {
        sae_folder(&self.sae)
    }
}

/// The folder that a dictionary's path stands for: itself, or that of the dictionary whose file it is.
pub fn sae_folder(path: &Path) -> Result<Folder, Failure> {
    if !path.is_file() {
        return Ok(Folder::directory(path));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(levels) = levels_up(&name) {
        let folder = path.ancestors().nth(levels);
        let named = folder.filter(|folder| !folder.as_os_str().is_empty());
        return Ok(Folder::directory(named.unwrap_or(Path::new("."))));
    }
    if name.ends_with(".pt") || name.ends_with(".pth") {
        return Err(SaeError::Pickle { file: name.into() }.into());
    }
    Err(format!(
        "{name} is not the file of a dictionary, which has {}",
        listed()
    )
    .into())
}
