//! Files on disk.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use super::progress::Meter;
use super::source::{ByteSource, check_range};
use super::{Cancel, SourceError};

/// A file on disk, read by ranges.
pub struct FileSource {
    name: String,
    file: File,
    len: u64,
    meter: Meter,
    cancel: Cancel,
}

impl FileSource {
    /// Opens the file at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        let path = path.as_ref();
        match Self::watched(path, Meter::default(), Cancel::new())? {
            Some(source) => Ok(source),
            None => Err(SourceError::NotFound {
                file: path.display().to_string(),
                folder: "this place".into(),
            }),
        }
    }

    /// Opens the file at `path`, if there is one.
    pub(super) fn watched(
        path: &Path,
        meter: Meter,
        cancel: Cancel,
    ) -> Result<Option<Self>, SourceError> {
        let name = path.display().to_string();
        let unreadable = |e: std::io::Error| SourceError::Unreadable {
            file: path.display().to_string(),
            reason: e.to_string(),
        };
        // Looked at before it is opened: opening a pipe waits for its writer.
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(unreadable(e)),
        };
        if !metadata.is_file() {
            let what = match metadata.is_dir() {
                true => "it is a folder",
                false => "it is no plain file, but a pipe, a socket or a device",
            };
            return Err(SourceError::Unreadable {
                file: name,
                reason: what.into(),
            });
        }
        let file = File::open(path).map_err(unreadable)?;
        Ok(Some(Self {
            name,
            file,
            len: metadata.len(),
            meter,
            cancel,
        }))
    }
}

impl ByteSource for FileSource {
    async fn len(&self) -> Result<u64, SourceError> {
        Ok(self.len)
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        self.cancel.check(&self.name)?;
        check_range(&self.name, &range, self.len)?;
        let wanted = range.end - range.start;
        let mut bytes = Vec::with_capacity(wanted as usize);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(range.start))
            .and_then(|_| file.take(wanted).read_to_end(&mut bytes))
            .map_err(|e| SourceError::Unreadable {
                file: self.name.clone(),
                reason: e.to_string(),
            })?;
        if (bytes.len() as u64) < wanted {
            return Err(SourceError::Short {
                file: self.name.clone(),
                at: range.start + bytes.len() as u64,
                expected: self.len,
            });
        }
        self.meter.add(wanted, self.len);
        Ok(bytes)
    }

    fn name(&self) -> &str {
        &self.name
    }
}
