//! The files of one model or dictionary, found by name.

#[cfg(target_arch = "wasm32")]
use std::cell::{Cell, RefCell};
#[cfg(target_arch = "wasm32")]
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

#[cfg(target_arch = "wasm32")]
use super::address;
#[cfg(target_arch = "wasm32")]
use super::http::{Absence, HttpSource, Opened, Watch};
use super::progress::{Listener, Meter};
use super::source::MAX_FILE;
use super::split::Split;
use super::{Cancel, MemorySource, Progress, Source, SourceError};

/// The largest configuration or index file that is read, in bytes.
pub const MAX_JSON: u64 = 16 << 20;

/// The largest `tokenizer.json` that is read, in bytes.
pub const MAX_TOKENIZER: u64 = 64 << 20;

/// Where the files of one model or dictionary are: `config.json`, `model.safetensors` or
/// `model.safetensors.index.json` with its shards, `tokenizer.json`, `cfg.json`,
/// `sae.safetensors`.
#[derive(Clone)]
pub struct Folder {
    place: Place,
    label: String,
    listener: Option<Listener>,
    cancel: Cancel,
    #[cfg(target_arch = "wasm32")]
    server: Rc<Server>,
}

/// What is known of the server of a folder at an address.
#[cfg(target_arch = "wasm32")]
#[derive(Default)]
struct Server {
    /// Whether it has answered.
    reached: Rc<Cell<bool>>,
    /// The first file that it did not hand out, though it did not say that it is not there.
    refused: RefCell<Option<(String, Absence)>>,
    /// Small files that were read whole, and files that are not there, so that none is asked for twice.
    known: RefCell<BTreeMap<String, Option<Rc<[u8]>>>>,
}

/// The longest file that is kept, in bytes.
#[cfg(target_arch = "wasm32")]
const MAX_KEPT: usize = 64 << 10;

#[derive(Clone)]
enum Place {
    Memory(Rc<Vec<(String, Arc<[u8]>)>>),
    #[cfg(not(target_arch = "wasm32"))]
    Directory(std::path::PathBuf),
    /// One file, by its name.
    #[cfg(not(target_arch = "wasm32"))]
    File(String, std::path::PathBuf),
    #[cfg(target_arch = "wasm32")]
    Url(String),
    /// The address of one file, by its name.
    #[cfg(target_arch = "wasm32")]
    FileUrl(String, String),
    #[cfg(target_arch = "wasm32")]
    Blobs(Rc<Vec<(String, web_sys::Blob)>>),
}

impl Folder {
    /// Files in memory, by name; `label` stands for them in messages.
    pub fn memory(label: &str, files: Vec<(String, Vec<u8>)>) -> Self {
        let files = files.into_iter().map(|(n, b)| (n, b.into())).collect();
        Self::new(Place::Memory(Rc::new(files)), label.into())
    }

    /// A directory on disk.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn directory(path: impl Into<std::path::PathBuf>) -> Self {
        let path = path.into();
        let label = path.display().to_string();
        Self::new(Place::Directory(path), label)
    }

    /// One file on disk, as a folder that holds nothing else.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn file(path: impl Into<std::path::PathBuf>) -> Self {
        let path = path.into();
        let label = path.display().to_string();
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        Self::new(Place::File(name, path), label)
    }

    /// The address under which the files are, with or without a slash at its end; or that of one
    /// `.gguf` file, which is then the only one, with the other parts of a model that is split. A relative
    /// one is resolved as `fetch` does: against the page, or the worker's script.
    #[cfg(target_arch = "wasm32")]
    pub fn url(base: &str) -> Self {
        let base = address::resolved(base);
        let folder = match address::gguf_name(&base) {
            Some(name) => Self::new(Place::FileUrl(name.into(), base.clone()), base.clone()),
            None => Self::new(Place::Url(base.clone()), address::folder(&base)),
        };
        folder.server.reached.set(address::is_own(&base));
        folder
    }

    /// Files that the visitor chose or dropped. A folder chosen as a whole counts from inside: the
    /// common first part of the relative paths is dropped.
    #[cfg(target_arch = "wasm32")]
    pub fn files(files: &[web_sys::File]) -> Self {
        let named = files.iter().map(|file| {
            // Not typed by web-sys everywhere: the path inside a folder chosen as a whole.
            let path = js_sys::Reflect::get(file, &"webkitRelativePath".into())
                .ok()
                .and_then(|path| path.as_string())
                .filter(|path| !path.is_empty());
            (path.unwrap_or_else(|| file.name()), file.clone().into())
        });
        Self::blobs(named.collect())
    }

    /// Browser blobs by name, as [`Folder::files`].
    #[cfg(target_arch = "wasm32")]
    pub fn blobs(mut files: Vec<(String, web_sys::Blob)>) -> Self {
        // The folder's name says where a dictionary belongs.
        let mut label = String::new();
        while let Some(root) = common_root(files.iter().map(|(name, _)| name.as_str())) {
            label.push_str(&files[0].0[..root]);
            for (name, _) in &mut files {
                name.drain(..root);
            }
        }
        if label.is_empty() {
            label.push_str(match &files[..] {
                [(name, _)] => name,
                _ => "the chosen files",
            });
        }
        Self::new(Place::Blobs(Rc::new(files)), label)
    }

    fn new(place: Place, label: String) -> Self {
        Self {
            place,
            label,
            listener: None,
            cancel: Cancel::new(),
            #[cfg(target_arch = "wasm32")]
            server: Rc::default(),
        }
    }

    /// Tells `listener` of every block read or downloaded.
    pub fn on_progress(mut self, listener: impl Fn(&Progress) + 'static) -> Self {
        self.listener = Some(Rc::new(listener));
        self
    }

    /// Stops reading when `cancel` is used.
    pub fn cancelled_by(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// The folder's path, address or description.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The folder as a message about what is missing names it: with what its server did not hand out.
    pub fn described(&self) -> String {
        #[cfg(target_arch = "wasm32")]
        if let Some((file, absence)) = &*self.server.refused.borrow() {
            let what = match absence {
                Absence::NotThere => "says that it is not there".into(),
                Absence::Refused(status) => format!("refused it with status {status}"),
                Absence::Page => "sent a web page in its place".into(),
            };
            return format!("{} (asked for {file}, its server {what})", self.label);
        }
        self.label.clone()
    }

    /// The names of the files in the folder, those in its sub-folders not counted, sorted; `None`
    /// where they cannot be listed: under an address.
    pub fn names(&self) -> Result<Option<Vec<String>>, SourceError> {
        let mut names: Vec<String> = match &self.place {
            Place::Memory(files) => files.iter().map(|(name, _)| name.clone()).collect(),
            #[cfg(not(target_arch = "wasm32"))]
            Place::Directory(path) => list(path, &self.label)?,
            #[cfg(not(target_arch = "wasm32"))]
            Place::File(name, _) => Split::names_with(name),
            #[cfg(target_arch = "wasm32")]
            Place::Url(_) => return Ok(None),
            #[cfg(target_arch = "wasm32")]
            Place::FileUrl(name, _) => Split::names_with(name),
            #[cfg(target_arch = "wasm32")]
            Place::Blobs(files) => files.iter().map(|(name, _)| name.clone()).collect(),
        };
        names.retain(|name| !name.contains('/'));
        names.sort_unstable();
        Ok(Some(names))
    }

    /// The file called `name`, or `None` if there is none. `name` may lead into sub-folders with
    /// `/`.
    pub async fn open(&self, name: &str) -> Result<Option<Source>, SourceError> {
        self.open_within(name, MAX_FILE).await
    }

    /// As [`Folder::open`]; of a server that does not say how long the file is no more than `most` bytes are
    /// taken.
    #[cfg_attr(not(target_arch = "wasm32"), allow(unused_variables))]
    async fn open_within(&self, name: &str, most: u64) -> Result<Option<Source>, SourceError> {
        self.cancel.check(name)?;
        let (meter, cancel) = (Meter::new(name, self.listener.clone()), self.cancel.clone());
        match &self.place {
            Place::Memory(files) => Ok(files.iter().find(|(n, _)| n == name).map(|(n, bytes)| {
                MemorySource::watched(n.clone(), bytes.clone(), meter, cancel).into()
            })),
            #[cfg(not(target_arch = "wasm32"))]
            Place::Directory(path) => {
                if !path.is_dir() {
                    let folder = self.label.clone();
                    return Err(SourceError::NoFolder { folder });
                }
                let file = super::FileSource::watched(&path.join(name), meter, cancel)?;
                Ok(file.map(Source::File))
            }
            #[cfg(not(target_arch = "wasm32"))]
            Place::File(only, path) => {
                if !Split::names_with(only).iter().any(|part| part == name) {
                    return Ok(None);
                }
                let path = path.with_file_name(name);
                let file = super::FileSource::watched(&path, meter, cancel)?;
                Ok(file.map(Source::File))
            }
            #[cfg(target_arch = "wasm32")]
            Place::Url(base) => {
                self.fetch(name, address::under(base, name), meter, most)
                    .await
            }
            #[cfg(target_arch = "wasm32")]
            Place::FileUrl(only, url) => {
                if !Split::names_with(only).iter().any(|part| part == name) {
                    return Ok(None);
                }
                self.fetch(name, address::beside(url, name), meter, most)
                    .await
            }
            #[cfg(target_arch = "wasm32")]
            Place::Blobs(files) => Ok(files.iter().find(|(n, _)| n == name).map(|(n, blob)| {
                Source::Blob(super::BlobSource::watched(
                    n.clone(),
                    blob.clone(),
                    meter,
                    cancel,
                ))
            })),
        }
    }

    /// Opens the file called `name` at the address `url`.
    #[cfg(target_arch = "wasm32")]
    async fn fetch(
        &self,
        name: &str,
        url: String,
        meter: Meter,
        most: u64,
    ) -> Result<Option<Source>, SourceError> {
        if let Some(None) = self.server.known.borrow().get(name) {
            return Ok(None);
        }
        let watch = Watch {
            meter,
            cancel: self.cancel.clone(),
            most,
            begun: Rc::default(),
            reached: self.server.reached.clone(),
        };
        let absence = match HttpSource::watched(url, watch).await? {
            Opened::Found(source) => return Ok(Some(Source::Http(source))),
            Opened::Missing(absence) => absence,
        };
        self.server.known.borrow_mut().insert(name.into(), None);
        if absence != Absence::NotThere {
            let mut refused = self.server.refused.borrow_mut();
            refused.get_or_insert_with(|| (name.into(), absence));
        }
        Ok(None)
    }

    /// The file called `name`, which must be there.
    pub async fn require(&self, name: &str) -> Result<Source, SourceError> {
        let file = self.open(name).await?;
        file.ok_or_else(|| self.lacks(name))
    }

    fn lacks(&self, name: &str) -> SourceError {
        SourceError::NotFound {
            file: name.into(),
            folder: self.described(),
        }
    }

    /// The whole of the file called `name`, or `None` if there is none; refused beyond `cap` bytes.
    pub async fn bytes(&self, name: &str, cap: u64) -> Result<Option<Vec<u8>>, SourceError> {
        #[cfg(target_arch = "wasm32")]
        if let Some(Some(bytes)) = self.server.known.borrow().get(name)
            && bytes.len() as u64 <= cap
        {
            return Ok(Some(bytes.to_vec()));
        }
        let Some(source) = self.open_within(name, cap).await? else {
            return Ok(None);
        };
        let bytes = source.read_all(cap).await?;
        #[cfg(target_arch = "wasm32")]
        if matches!(source, Source::Http(_)) && bytes.len() <= MAX_KEPT {
            let kept = Some(bytes.as_slice().into());
            self.server.known.borrow_mut().insert(name.into(), kept);
        }
        Ok(Some(bytes))
    }

    /// The whole of the file called `name`, which must be there; refused beyond `cap` bytes.
    pub async fn require_bytes(&self, name: &str, cap: u64) -> Result<Vec<u8>, SourceError> {
        let bytes = self.bytes(name, cap).await?;
        bytes.ok_or_else(|| self.lacks(name))
    }

    /// The paths of the files in the folder and in its sub-folders down to the fourth, sorted; none where
    /// they cannot be listed, as under an address. What cannot be read is left out.
    pub fn paths(&self) -> Option<Vec<String>> {
        let mut paths: Vec<String> = match &self.place {
            Place::Memory(files) => files.iter().map(|(name, _)| name.clone()).collect(),
            #[cfg(not(target_arch = "wasm32"))]
            Place::Directory(path) => {
                let mut paths = Vec::new();
                walk(path, "", &mut paths);
                paths
            }
            #[cfg(not(target_arch = "wasm32"))]
            Place::File(name, _) => Split::names_with(name),
            #[cfg(target_arch = "wasm32")]
            Place::Url(_) => return None,
            #[cfg(target_arch = "wasm32")]
            Place::FileUrl(name, _) => Split::names_with(name),
            #[cfg(target_arch = "wasm32")]
            Place::Blobs(files) => files.iter().map(|(name, _)| name.clone()).collect(),
        };
        paths.sort_unstable();
        Some(paths)
    }
}

/// Files of a folder that are listed at most.
#[cfg(not(target_arch = "wasm32"))]
const MOST_PATHS: usize = 10_000;

/// Appends the files under `folder`, whose own path in the listing is `before`.
#[cfg(not(target_arch = "wasm32"))]
fn walk(folder: &std::path::Path, before: &str, paths: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if paths.len() >= MOST_PATHS {
            return;
        }
        let path = format!("{before}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true if before.matches('/').count() < 4 => {
                walk(&entry.path(), &format!("{path}/"), paths);
            }
            true => {}
            false => paths.push(path),
        }
    }
}

/// The names of the files of a directory.
#[cfg(not(target_arch = "wasm32"))]
fn list(path: &std::path::Path, label: &str) -> Result<Vec<String>, SourceError> {
    if !path.is_dir() {
        return Err(SourceError::NoFolder {
            folder: label.into(),
        });
    }
    let entries = std::fs::read_dir(path).and_then(|entries| {
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<std::io::Result<Vec<_>>>()
    });
    let names = entries.map_err(|e| SourceError::Unreadable {
        file: label.into(),
        reason: e.to_string(),
    })?;
    let files = names.into_iter().filter(|name| path.join(name).is_file());
    Ok(files.collect())
}

/// The length of the first path component, slash included, if all names share it.
#[cfg(any(target_arch = "wasm32", test))]
fn common_root<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<usize> {
    let first = names.next()?;
    let root = &first[..=first.find('/')?];
    names
        .all(|name| name.starts_with(root))
        .then_some(root.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_folder_is_found() {
        let root = |names: &[&str]| common_root(names.iter().copied());
        assert_eq!(root(&["nano/config.json", "nano/sae/cfg.json"]), Some(5));
        assert_eq!(root(&["config.json", "nano/cfg.json"]), None);
        assert_eq!(root(&["nano/config.json", "nanometre/cfg.json"]), None);
        assert_eq!(root(&["config.json"]), None);
        assert_eq!(root(&[]), None);
    }
}
