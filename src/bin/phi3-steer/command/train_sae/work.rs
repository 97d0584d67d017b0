//! What a run keeps until its dictionary is written.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use phi3_steer::sae::HookPoint;
use phi3_steer::tokens::Message;
use phi3_steer::train::{Ring, Settings, State, TrainError};
use serde::{Deserialize, Serialize};

use crate::command::Failure;

const RING: &str = "ring.f32";
const STATE: &str = "state.safetensors";
const WHAT: &str = "run.json";
const WRITTEN: &str = "written.jsonl";

/// What a run trains, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct What {
    pub settings: Settings,
    pub hook: HookPoint,
    pub ring: u64,
    /// The SHA-256 of the sequences' tokens.
    pub data: String,
}

/// The folder of a run.
pub struct Work(PathBuf);

impl Work {
    /// Opens the folder that was `asked` for, or the one beside `out`.
    pub fn open(asked: Option<&Path>, out: &Path) -> Result<Self, Failure> {
        let folder = asked.map_or_else(
            || {
                let mut name = out.file_name().unwrap_or_default().to_os_string();
                name.push(".work");
                out.with_file_name(name)
            },
            Path::to_path_buf,
        );
        let made = fs::create_dir_all(&folder);
        made.map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
        Ok(Self(folder))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn failed(&self, name: &str, error: &io::Error) -> TrainError {
        TrainError::Disk {
            place: self.at(name).display().to_string(),
            what: format!("cannot be written: {error}"),
        }
    }

    /// A file's bytes, if it is there.
    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        match fs::read(self.at(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("{} cannot be read: {e}", self.at(name).display()).into()),
        }
    }

    /// Replaces a file as a whole.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
        let part = self.at(&format!("{name}.part"));
        fs::write(&part, bytes)
            .and_then(|()| fs::rename(&part, self.at(name)))
            .map_err(|e| self.failed(name, &e))
    }

    /// The conversations that were written before.
    pub fn written(&self) -> Result<Vec<Vec<Message>>, Failure> {
        let bytes = self.bytes(WRITTEN)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        // A line that was broken off is written again.
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let lines = lines.map_while(|line| serde_json::from_str(line).ok());
        Ok(lines.collect())
    }

    /// Keeps the conversations that were written.
    pub fn keep_written(&self, all: &[Vec<Message>]) -> Result<(), TrainError> {
        let mut out = Vec::new();
        for messages in all {
            serde_json::to_writer(&mut out, messages)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
                .map_err(|e| self.failed(WRITTEN, &e))?;
        }
        self.put(WRITTEN, &out)
    }

    /// Begins the run of `what`, or goes on with it: where it was.
    pub fn begin(&self, what: &What) -> Result<Option<State>, Failure> {
        match self.bytes(WHAT)? {
            Some(bytes) if serde_json::from_slice::<What>(&bytes).ok().as_ref() == Some(what) => {
                let Some(bytes) = self.bytes(STATE)? else {
                    return Ok(None);
                };
                let place = self.at(STATE).display().to_string();
                Ok(Some(State::from_bytes(&place, &bytes)?))
            }
            Some(_) => Err(format!(
                "{} is of a run with other settings or other text: remove it, or choose another with --work",
                self.0.display()
            )
            .into()),
            None => {
                let text = format!("{:#}\n", serde_json::to_value(what)?);
                self.put(WHAT, text.as_bytes())?;
                Ok(None)
            }
        }
    }

    /// The vectors, of which `came` had come.
    pub fn ring(&self, width: usize, capacity: u64, came: u64) -> Result<Ring, TrainError> {
        Ring::disk(&self.at(RING), width, capacity, came)
    }

    /// Keeps what is needed to go on.
    pub fn keep(&self, state: &State) -> Result<(), TrainError> {
        self.put(STATE, &state.to_bytes())
    }

    /// Removes what is of no use any more: all but what the model wrote.
    pub fn clear(self) -> Result<(), Failure> {
        for name in [RING, STATE, WHAT] {
            match fs::remove_file(self.at(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(
                        format!("{} cannot be removed: {e}", self.at(name).display()).into(),
                    );
                }
                _ => {}
            }
        }
        // It stays where it holds what the model wrote.
        let _ = fs::remove_dir(&self.0);
        Ok(())
    }
}
