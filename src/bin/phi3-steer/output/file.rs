//! One file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use super::leftovers::Leftover;
use super::lock::Lock;
use super::sources::Sources;
use super::terminal::Gone;
use super::{Failure, unwritable};

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced.
    Replaced,
    /// It stays: the command needs --force.
    Kept,
}

/// A place for a plain file, which no other process writes to meanwhile.
pub struct Place {
    /// Through all links.
    path: PathBuf,
    /// As the user wrote it.
    given: PathBuf,
    existing: Existing,
    _lock: Lock,
}

/// Where a path leads.
enum Target {
    /// To a plain file that is there or can be made.
    Plain(PathBuf),
    /// To standard output.
    Stdout,
    /// To a pipe or a device, which is written to as it is.
    Device,
}

impl Place {
    /// Finds out where a plain file would go, before anything is computed: what is no plain file, cannot be
    /// written or is among `sources` is refused.
    pub fn find(given: &Path, existing: Existing, sources: Sources<'_>) -> Result<Self, String> {
        match target(given)? {
            Target::Plain(path) => Self::new(path, given, existing, sources),
            Target::Stdout | Target::Device => {
                let given = given.display();
                Err(format!("{given} is no plain file: this one must be one"))
            }
        }
    }

    fn new(
        path: PathBuf,
        given: &Path,
        existing: Existing,
        sources: Sources<'_>,
    ) -> Result<Self, String> {
        let lock = beside(&path, ".", ".phi3-steer-lock");
        let place = Self {
            _lock: Lock::take(lock, given)?,
            path,
            given: given.into(),
            existing,
        };
        place.check()?;
        sources.allow_file(&place.path, given)?;
        // What cannot be written is said now rather than after hours.
        drop(place.partial()?);
        Ok(place)
    }

    /// Refuses to write over what is to stay.
    fn check(&self) -> Result<(), String> {
        if self.existing == Existing::Kept && fs::symlink_metadata(&self.path).is_ok() {
            let given = self.given.display();
            return Err(format!(
                "{given} is there already: write over it with --force"
            ));
        }
        Ok(())
    }

    /// A new file beside the place.
    fn partial(&self) -> Result<(Leftover, File), String> {
        let path = beside(&self.path, "", ".phi3-steer-partial");
        let file = create(&path).map_err(|e| unwritable(&self.given, &e))?;
        Ok((Leftover::new(path), file))
    }

    /// Gives a finished file the place's name, and the mode of the one that it replaces.
    fn settle(&self, partial: &Leftover, file: &File) -> Result<(), String> {
        self.check()?;
        let finished = partial.settle(|partial| {
            if let Ok(old) = fs::metadata(&self.path) {
                file.set_permissions(old.permissions())?;
            }
            file.sync_all()?;
            fs::rename(partial, &self.path)
        });
        finished.map_err(|e| unwritable(&self.given, &e))
    }

    /// Puts `bytes` there, which may be done again and again.
    pub fn write(&self, bytes: &[u8]) -> Result<(), String> {
        let (partial, mut file) = self.partial()?;
        let written = file.write_all(bytes);
        written.map_err(|e| unwritable(&self.given, &e))?;
        self.settle(&partial, &file)
    }
}

/// Creates a file with the mode that is usual for new ones. What is there is what a killed process left,
/// under a name that nothing else has: it goes, and of a link not what it leads to.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => OpenOptions::new().write(true).create_new(true).open(path),
    }
}

/// Another name in a file's folder.
fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(before);
    name.push(path.file_name().unwrap_or_default());
    name.push(after);
    path.with_file_name(name)
}

/// Where the bytes of an output go.
enum Sink {
    /// Beside the file's place.
    Plain {
        place: Place,
        partial: Leftover,
        file: BufWriter<File>,
    },
    /// To a file of a folder that is being written.
    Staged(BufWriter<File>),
    /// To a pipe or a device.
    Through(BufWriter<Box<dyn Write>>),
}

/// Bytes that are held back.
const BUFFER: usize = 1 << 20;

/// A file that is written piece by piece and is there only when it is finished, or a pipe or device that
/// gets its bytes at once.
pub struct Output {
    given: PathBuf,
    sink: Sink,
}

impl Output {
    /// Begins the file at `given`; `-` is standard output.
    pub fn create(given: &Path, existing: Existing, sources: Sources<'_>) -> Result<Self, String> {
        let through = |to: Box<dyn Write>| Sink::Through(BufWriter::with_capacity(BUFFER, to));
        let sink = match target(given)? {
            Target::Plain(path) => {
                let place = Place::new(path, given, existing, sources)?;
                let (partial, file) = place.partial()?;
                Sink::Plain {
                    place,
                    partial,
                    file: BufWriter::with_capacity(BUFFER, file),
                }
            }
            Target::Stdout if io::stdout().is_terminal() => {
                return Err(
                    "a terminal cannot show these numbers: send them to a file or a pipe".into(),
                );
            }
            Target::Stdout => through(Box::new(io::stdout())),
            Target::Device => {
                let opened = OpenOptions::new().write(true).open(given);
                through(Box::new(opened.map_err(|e| unwritable(given, &e))?))
            }
        };
        Ok(Self {
            given: given.into(),
            sink,
        })
    }

    /// Begins a file at `path`, in a folder that is not there yet as a whole; `given` names it in errors.
    pub(super) fn staged(path: &Path, given: PathBuf) -> Result<Self, String> {
        let folder = path.parent().unwrap_or(path);
        let file = fs::create_dir_all(folder).and_then(|()| create(path));
        let file = file.map_err(|e| unwritable(&given, &e))?;
        Ok(Self {
            given,
            sink: Sink::Staged(BufWriter::with_capacity(BUFFER, file)),
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.sink {
            Sink::Plain { file, .. } | Sink::Staged(file) => file,
            Sink::Through(to) => to,
        }
    }

    /// Says that it could not be written, or that nobody wants the rest.
    pub fn failure(&self, error: &io::Error) -> Failure {
        match self.sink {
            Sink::Through(_) if error.kind() == io::ErrorKind::BrokenPipe => Gone.into(),
            _ => unwritable(&self.given, error).into(),
        }
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.writer().write_all(bytes);
        written.map_err(|e| self.failure(&e))
    }

    /// Adds so many zeros.
    pub fn zeros(&mut self, count: u64) -> Result<(), Failure> {
        let copied = io::copy(&mut io::repeat(0).take(count), self.writer());
        copied.map(drop).map_err(|e| self.failure(&e))
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<(), Failure> {
        let flushed = self.writer().flush().and_then(|()| match &self.sink {
            Sink::Staged(file) => file.get_ref().sync_all(),
            _ => Ok(()),
        });
        flushed.map_err(|e| self.failure(&e))?;
        if let Sink::Plain {
            place,
            partial,
            file,
        } = &self.sink
        {
            place.settle(partial, file.get_ref())?;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

/// Where a path leads, through links.
fn target(given: &Path) -> Result<Target, String> {
    let shown = given.display();
    let fail = |e: io::Error| unwritable(given, &e);
    let stdout = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
    if stdout.iter().any(|name| given == Path::new(name)) {
        return Ok(Target::Stdout);
    }
    match fs::metadata(given) {
        Ok(found) if found.is_dir() => Err(format!("{shown} is a folder: give the name of a file")),
        // An open file of some process is written to as it is, not replaced.
        Ok(_) if folder_of(given).is_ok_and(|folder| folder.starts_with("/proc")) => {
            Ok(Target::Device)
        }
        Ok(found) if found.is_file() => given.canonicalize().map(Target::Plain).map_err(fail),
        Ok(found) if takes_bytes(&found) => Ok(Target::Device),
        Ok(_) => Err(format!(
            "{shown} is neither a file nor a pipe nor a character device: choose another place"
        )),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail(e)),
        Err(_) if fs::symlink_metadata(given).is_ok() => Err(format!(
            "{shown} is a link to something that is not there: remove it, or make what it leads to"
        )),
        Err(_) => {
            let (folder, name) = (folder_of(given).map_err(fail)?, given.file_name());
            let name = name.ok_or_else(|| format!("{shown} is no name of a file"))?;
            Ok(Target::Plain(folder.join(name)))
        }
    }
}

/// The folder that a path is in, through links.
fn folder_of(path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(""));
    match folder.as_os_str().is_empty() {
        true => Path::new(".").canonicalize(),
        false => folder.canonicalize(),
    }
}

/// Whether it is a pipe or a character device, such as a terminal or /dev/null.
#[cfg(unix)]
fn takes_bytes(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    found.file_type().is_fifo() || found.file_type().is_char_device()
}

#[cfg(not(unix))]
fn takes_bytes(_found: &fs::Metadata) -> bool {
    false
}
