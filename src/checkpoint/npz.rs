//! NumPy archives: zip files of `.npy` arrays, read by ranges and streamed as rows of f32.
//!
//! Formats: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html> and the zip
//! format's appnote. Entries may be stored (`numpy.savez`) or deflated (`savez_compressed`). Only the end
//! of the file, each entry's header and what is asked for are read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use rawzip::{CompressionMethod, ReaderAt, ZipArchive, ZipArchiveEntryWayfinder, ZipLocator};

use super::convert::{append_f32, first_not_finite};
use super::npy::{Header, MAX_NPY_HEADER};
use super::unzip::{Body, Packed};
use super::{BLOCK_BYTES, ByteSource, CheckpointError, Encoding, Source};

/// Bytes at the end of the file that must hold the archive's directory: the longest comment, and room for
/// some thousand entries.
const TAIL: u64 = (64 << 10) + (512 << 10);
/// Arrays that are looked at.
const MAX_ENTRIES: usize = 4096;
/// Bytes of an entry's own header in the archive.
const LOCAL_HEADER: u64 = 30;

/// One array of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpyArray {
    /// Its shape in rows: for one in Fortran order the dimensions are reversed, so that the last is
    /// contiguous.
    pub shape: Vec<usize>,
    /// How its numbers are stored; F32 or F16.
    pub encoding: Encoding,
    /// Its entry, header included.
    packed: Packed,
    /// Bytes of the `.npy` header.
    header: u64,
}

/// A NumPy archive: its directory, and the source of its data.
pub struct Npz {
    source: Source,
    arrays: BTreeMap<String, NpyArray>,
}

/// The pieces of the file that are at hand.
struct Pieces(RefCell<Vec<(u64, Vec<u8>)>>);

impl ReaderAt for Pieces {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        for (at, bytes) in self.0.borrow().iter() {
            let inside = offset
                .checked_sub(*at)
                .and_then(|from| usize::try_from(from).ok())
                .and_then(|from| bytes.get(from..));
            if let Some(rest) = inside.filter(|rest| !rest.is_empty()) {
                let n = rest.len().min(buf.len());
                buf[..n].copy_from_slice(&rest[..n]);
                return Ok(n);
            }
        }
        Ok(0)
    }
}

impl Npz {
    /// Reads and checks the directory and the arrays' headers, and nothing else of the file.
    ///
    /// Refused: what is no zip file, encrypted entries and compressions other than deflate, two arrays of
    /// one name, types other than little-endian f4 and f2, sizes that do not match the shapes.
    pub async fn open(source: Source) -> Result<Self, CheckpointError> {
        let len = source.len().await?;
        let file = source.name().to_string();
        let fail = |reason: String| CheckpointError::Npz {
            file: file.clone(),
            reason,
        };
        let tail = source.read(len.saturating_sub(TAIL)..len).await?;
        let pieces = Pieces(RefCell::new(vec![(len.saturating_sub(TAIL), tail)]));
        let mut buffer = vec![0; rawzip::RECOMMENDED_BUFFER_SIZE];
        let archive = ZipLocator::new()
            .locate_in_reader(pieces, &mut buffer, len)
            .map_err(|(_, e)| fail(format!("it is no zip archive ({e}): get it again")))?;
        let entries = directory(&archive, &mut buffer, &fail)?;
        let mut arrays = BTreeMap::new();
        for entry in entries {
            let name = entry.name.clone();
            let array = Self::array(&source, &archive, entry, len, &fail).await?;
            if arrays.insert(name.clone(), array).is_some() {
                return Err(fail(format!("it holds two arrays \"{name}\"")));
            }
        }
        Ok(Self { source, arrays })
    }

    async fn array(
        source: &Source,
        archive: &ZipArchive<Pieces>,
        entry: Entry,
        len: u64,
        fail: &impl Fn(String) -> CheckpointError,
    ) -> Result<NpyArray, CheckpointError> {
        let fail = |reason: String| fail(format!("array \"{}\": {reason}", entry.name));
        let end = entry.header_at.saturating_add(LOCAL_HEADER).min(len);
        let header = source.read(entry.header_at.min(end)..end).await?;
        archive
            .get_ref()
            .0
            .borrow_mut()
            .push((entry.header_at, header));
        let found = archive.get_entry(entry.place).map_err(|e| {
            fail(format!(
                "its entry cannot be read ({e}): get the file again"
            ))
        })?;
        let (start, end) = found.compressed_data_range();
        archive.get_ref().0.borrow_mut().truncate(1);
        if start > end || end > len {
            return Err(fail("it reaches beyond the file: get it again".into()));
        }
        let mut array = NpyArray {
            shape: Vec::new(),
            encoding: Encoding::F32,
            packed: Packed {
                range: start..end,
                deflated: entry.deflated,
                size: entry.size,
                crc: entry.crc,
            },
            header: 0,
        };
        // Deflate packs at most 1032 bytes into one.
        let most = match entry.deflated {
            true => (end - start).saturating_mul(1032),
            false => end - start,
        };
        if entry.size > most || (!entry.deflated && entry.size != most) {
            return Err(fail(format!(
                "it claims {} bytes, which its {} bytes in the file cannot hold: get it again",
                entry.size,
                end - start
            )));
        }
        let mut body = Body::new(source, &array.packed);
        let most = entry.size.min(MAX_NPY_HEADER);
        let header = Header::read(&mut body, most).await.map_err(|e| match e {
            CheckpointError::Npz { reason, .. } => fail(reason),
            other => other,
        })?;
        array.header = header.bytes;
        array.encoding = header.encoding;
        array.shape = header.shape;
        let numbers = array
            .shape
            .iter()
            .try_fold(array.encoding.block_bytes() as u64, |bytes, &dimension| {
                bytes.checked_mul(dimension as u64)
            });
        if numbers != Some(entry.size - array.header) {
            return Err(fail(format!(
                "its shape {:?} of {} does not take the {} bytes that it has: get the file again",
                array.shape,
                array.encoding,
                entry.size - array.header
            )));
        }
        Ok(array)
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The names of all arrays, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.keys().map(String::as_str)
    }

    /// The directory's entry of an array.
    pub fn array_of(&self, name: &str) -> Option<&NpyArray> {
        self.arrays.get(name)
    }

    /// Streams rows `range` of an array of shape `expected` as blocks of whole rows, in order; a row is
    /// one run of the last dimension. A deflated array is unpacked up to where the range begins.
    ///
    /// Fails with the array's name if it is missing, of another shape, corrupt, or not finite (with the
    /// place).
    pub async fn reader(
        &self,
        name: &str,
        expected: &[usize],
        range: Range<usize>,
    ) -> Result<ArrayReader<'_>, CheckpointError> {
        let array = self
            .arrays
            .get(name)
            .ok_or_else(|| CheckpointError::MissingTensor {
                tensor: name.into(),
                files: vec![self.file().into()],
            })?;
        if array.shape != expected {
            return Err(CheckpointError::WrongShape {
                file: self.file().into(),
                tensor: name.into(),
                found: array.shape.clone(),
                expected: expected.into(),
            });
        }
        let (columns, rows) = match expected.split_last() {
            Some((&columns, outer)) => (columns, outer.iter().product()),
            None => (1, 1),
        };
        let row_bytes = columns * array.encoding.block_bytes();
        let range = range.start.min(rows)..range.end.min(rows);
        let mut body = Body::new(&self.source, &array.packed);
        body.skip(array.header + range.start as u64 * row_bytes as u64)
            .await?;
        Ok(ArrayReader {
            file: self.file(),
            name: name.into(),
            encoding: array.encoding,
            body,
            columns,
            row_bytes,
            range: if columns == 0 { 0..0 } else { range },
            block_rows: (BLOCK_BYTES / row_bytes.max(1)).max(1),
            values: Vec::new(),
        })
    }
}

/// Reads one array block by block; see [`Npz::reader`].
pub struct ArrayReader<'a> {
    file: &'a str,
    name: String,
    encoding: Encoding,
    body: Body<'a>,
    columns: usize,
    row_bytes: usize,
    /// The rows still to come.
    range: Range<usize>,
    block_rows: usize,
    values: Vec<f32>,
}

impl ArrayReader<'_> {
    /// The next block as `(first_row, rows)`, `rows` being `[n, columns]`; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(usize, &[f32])>, CheckpointError> {
        let first = self.range.start;
        let n = self.block_rows.min(self.range.len());
        if n == 0 {
            return Ok(None);
        }
        let bytes = self.body.read(n * self.row_bytes).await?;
        self.values.clear();
        append_f32(self.encoding, &bytes, &mut self.values);
        if let Some(at) = first_not_finite(&self.values) {
            return Err(CheckpointError::NotFinite {
                file: self.file.into(),
                tensor: self.name.clone(),
                row: first + at / self.columns,
                column: at % self.columns,
                value: self.values[at],
            });
        }
        self.range.start += n;
        Ok(Some((first, &self.values)))
    }
}

/// What the archive's directory says of one array.
struct Entry {
    name: String,
    place: ZipArchiveEntryWayfinder,
    header_at: u64,
    deflated: bool,
    size: u64,
    crc: u32,
}

fn directory(
    archive: &ZipArchive<Pieces>,
    buffer: &mut [u8],
    fail: &impl Fn(String) -> CheckpointError,
) -> Result<Vec<Entry>, CheckpointError> {
    let mut found = Vec::new();
    let mut entries = archive.entries(buffer);
    loop {
        let entry = entries.next_entry().map_err(|e| {
            fail(format!(
                "its directory cannot be read ({e}): the file is cut short or corrupt, get it again"
            ))
        })?;
        let Some(entry) = entry else {
            break;
        };
        let path = entry.file_path();
        let name = String::from_utf8_lossy(path.as_ref());
        let Some(name) = name.strip_suffix(".npy") else {
            continue;
        };
        let deflated = match entry.compression_method() {
            CompressionMethod::STORE => false,
            CompressionMethod::DEFLATE => true,
            _ => {
                return Err(fail(format!(
                    "array \"{name}\" is packed in a way that is not read: save it with numpy.savez"
                )));
            }
        };
        if found.len() == MAX_ENTRIES {
            return Err(fail(format!("it holds more than {MAX_ENTRIES} arrays")));
        }
        found.push(Entry {
            name: name.into(),
            place: entry.wayfinder(),
            header_at: entry.local_header_offset(),
            deflated,
            size: entry.uncompressed_size_hint(),
            crc: entry.crc32(),
        });
    }
    Ok(found)
}
