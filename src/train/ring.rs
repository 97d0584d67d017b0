//! The vectors that are trained on: the latest of them, on the disk or in memory.

use super::TrainError;

/// Vectors in the order in which they came, the oldest overwritten when there is no more room.
pub struct Ring {
    width: usize,
    /// Vectors there is room for.
    capacity: u64,
    /// Vectors that ever came.
    came: u64,
    store: Store,
}

enum Store {
    Memory(Vec<f32>),
    #[cfg(not(target_arch = "wasm32"))]
    Disk(disk::File),
}

impl Ring {
    /// A ring in memory.
    pub fn memory(width: usize, capacity: u64) -> Self {
        Self {
            width,
            capacity,
            came: 0,
            store: Store::Memory(Vec::new()),
        }
    }

    /// A ring in a file, which is made, or else holds the `came` vectors of an earlier run.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn disk(
        path: &std::path::Path,
        width: usize,
        capacity: u64,
        came: u64,
    ) -> Result<Self, TrainError> {
        let bytes = came.min(capacity) * 4 * width as u64;
        Ok(Self {
            width,
            capacity,
            came,
            store: Store::Disk(disk::File::open(path, bytes)?),
        })
    }

    /// Elements of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Vectors there is room for.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Vectors that ever came.
    pub fn came(&self) -> u64 {
        self.came
    }

    /// Vectors that are there.
    pub fn len(&self) -> u64 {
        self.came.min(self.capacity)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.came == 0
    }

    /// Adds vectors `[n, width]`.
    pub fn push(&mut self, rows: &[f32]) -> Result<(), TrainError> {
        let mut rows = rows;
        while !rows.is_empty() {
            let at = self.came % self.capacity;
            let room = ((self.capacity - at) as usize).saturating_mul(self.width);
            let (some, left) = rows.split_at(room.min(rows.len()));
            match &mut self.store {
                Store::Memory(all) => {
                    let from = at as usize * self.width;
                    if all.len() < from + some.len() {
                        all.resize(from + some.len(), 0.0);
                    }
                    all[from..from + some.len()].copy_from_slice(some);
                }
                #[cfg(not(target_arch = "wasm32"))]
                Store::Disk(file) => file.write(at * 4 * self.width as u64, some)?,
            }
            self.came += (some.len() / self.width) as u64;
            rows = left;
        }
        Ok(())
    }

    /// The vectors at `places`, below [`Ring::len`], `[n, width]`.
    pub fn read(&self, places: &[u64]) -> Result<Vec<f32>, TrainError> {
        let mut out = vec![0.0; places.len() * self.width];
        for (&place, row) in places.iter().zip(out.chunks_exact_mut(self.width)) {
            match &self.store {
                Store::Memory(all) => {
                    row.copy_from_slice(&all[place as usize * self.width..][..self.width]);
                }
                #[cfg(not(target_arch = "wasm32"))]
                Store::Disk(file) => file.read(place * 4 * self.width as u64, row)?,
            }
        }
        Ok(out)
    }

    /// Sees to it that what came is on the disk.
    pub fn flush(&self) -> Result<(), TrainError> {
        match &self.store {
            Store::Memory(_) => Ok(()),
            #[cfg(not(target_arch = "wasm32"))]
            Store::Disk(file) => file.flush(),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod disk {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::path::{Path, PathBuf};

    use super::TrainError;

    /// A file of f32, little-endian.
    pub struct File {
        path: PathBuf,
        file: std::fs::File,
    }

    impl File {
        /// Opens the file, which must hold `bytes` of an earlier run.
        pub fn open(path: &Path, bytes: u64) -> Result<Self, TrainError> {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(bytes == 0)
                .open(path);
            let own = |file| Self {
                path: path.into(),
                file,
            };
            let disk = |what: String| TrainError::Disk {
                place: path.display().to_string(),
                what,
            };
            let file = file.map_err(|e| disk(format!("cannot be opened: {e}")))?;
            let there = file
                .metadata()
                .map_err(|e| disk(format!("cannot be read: {e}")))?;
            if there.len() < bytes {
                let held = there.len();
                return Err(disk(format!(
                    "holds {held} bytes in place of {bytes}: it is not that of this run; begin again in \
                     another folder"
                )));
            }
            Ok(own(file))
        }

        fn failed(&self, doing: &str, error: &std::io::Error) -> TrainError {
            TrainError::Disk {
                place: self.path.display().to_string(),
                what: format!("cannot be {doing}: {error}"),
            }
        }

        pub fn write(&self, at: u64, values: &[f32]) -> Result<(), TrainError> {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let mut file = &self.file;
            file.seek(SeekFrom::Start(at))
                .and_then(|_| file.write_all(&bytes))
                .map_err(|e| self.failed("written", &e))
        }

        pub fn read(&self, at: u64, values: &mut [f32]) -> Result<(), TrainError> {
            let mut bytes = vec![0; 4 * values.len()];
            let mut file = &self.file;
            file.seek(SeekFrom::Start(at))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|e| self.failed("read", &e))?;
            for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            Ok(())
        }

        pub fn flush(&self) -> Result<(), TrainError> {
            self.file
                .sync_data()
                .map_err(|e| self.failed("written", &e))
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    /// Rows of two elements that tell their number.
    fn rows(from: u64, to: u64) -> Vec<f32> {
        (from..to).flat_map(|i| [i as f32, -(i as f32)]).collect()
    }

    #[test]
    fn the_oldest_rows_go_first_and_both_stores_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let mut rings = [Ring::memory(2, 5), Ring::disk(&path, 2, 5, 0).unwrap()];
        for ring in &mut rings {
            assert!(ring.is_empty());
            ring.push(&rows(0, 3)).unwrap();
            assert_eq!(ring.len(), 3);
            ring.push(&rows(3, 8)).unwrap();
            assert_eq!((ring.len(), ring.came()), (5, 8));
            // Rows 5, 6, 7 lie where 0, 1, 2 did.
            let all = ring.read(&[0, 1, 2, 3, 4, 0]).unwrap();
            assert_eq!(all[..6], rows(5, 8));
            assert_eq!(all[6..10], rows(3, 5));
            assert_eq!(all[10..], rows(5, 6));
            ring.push(&rows(8, 20)).unwrap();
            assert_eq!(
                ring.read(&[0, 4]).unwrap(),
                [rows(15, 16), rows(19, 20)].concat()
            );
        }
        // A file goes on where it was, and one that is too short is refused.
        let again = Ring::disk(&path, 2, 5, 20).unwrap();
        assert_eq!(again.read(&[4]).unwrap(), rows(19, 20));
        let error = Ring::disk(&path, 3, 5, 20).err().unwrap().to_string();
        assert!(error.contains("in place of 60"), "{error}");
    }
}
