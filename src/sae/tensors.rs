//! A dictionary's tensors, whatever the file.

use std::ops::Range;

use crate::checkpoint::{ArrayReader, BLOCK_BYTES, Checkpoint, CheckpointError, Npz, RowReader};

/// Named tensors of one dictionary.
pub(super) enum Tensors {
    Safetensors(Checkpoint),
    Npz(Npz),
}

/// Reads rows block by block.
pub(super) enum Rows<'a> {
    Safetensors(RowReader<'a>),
    Npz(ArrayReader<'a>),
}

impl Rows<'_> {
    /// The next block as `(first_row, rows)`, `rows` being `[n, columns]`; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(usize, &[f32])>, CheckpointError> {
        match self {
            Rows::Safetensors(reader) => reader.next().await,
            Rows::Npz(reader) => reader.next().await,
        }
    }
}

impl Tensors {
    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match self {
            Tensors::Safetensors(file) => file.info(name).map(|i| i.shape.as_slice()),
            Tensors::Npz(file) => file.array_of(name).map(|a| a.shape.as_slice()),
        }
    }

    /// The names of all tensors.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Tensors::Safetensors(file) => file.names().collect(),
            Tensors::Npz(file) => file.names().collect(),
        }
    }

    /// The first of `names` that is there, else the first.
    pub fn either<'a>(&self, names: &[&'a str]) -> &'a str {
        let there = names.iter().find(|name| self.shape(name).is_some());
        there.or(names.first()).copied().unwrap_or_default()
    }

    /// Reads the rows of `range` of a tensor of shape `expected`.
    pub async fn rows(
        &self,
        name: &str,
        expected: &[usize],
        range: Range<usize>,
    ) -> Result<Rows<'_>, CheckpointError> {
        Ok(match self {
            Tensors::Safetensors(file) => {
                Rows::Safetensors(file.reader(name, expected, BLOCK_BYTES)?.only(range))
            }
            Tensors::Npz(file) => Rows::Npz(file.reader(name, expected, range).await?),
        })
    }

    /// The vector `name` of `len` numbers, whole.
    pub async fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        self.whole(name, &[len]).await
    }

    /// The number `name`, if it is there, of shape `[]` or `[1]`.
    pub async fn scalar(&self, name: &str) -> Result<Option<f32>, CheckpointError> {
        let Some(shape) = self.shape(name).map(<[usize]>::to_vec) else {
            return Ok(None);
        };
        let expected: &[usize] = if shape == [1] { &[1] } else { &[] };
        Ok(self.whole(name, expected).await?.first().copied())
    }

    /// The numbers of one latent in a matrix of shape `expected`: a row, or a column of one that is
    /// `transposed`; none where a column lies scattered over a file that is not at hand.
    pub async fn one(
        &self,
        name: &str,
        expected: [usize; 2],
        transposed: bool,
        latent: usize,
    ) -> Result<Option<Vec<f32>>, CheckpointError> {
        if !transposed {
            let mut rows = self.rows(name, &expected, latent..latent + 1).await?;
            return Ok(rows.next().await?.map(|(_, row)| row.to_vec()));
        }
        match self {
            Tensors::Safetensors(file) => file.column(name, expected, latent).await,
            Tensors::Npz(_) => Ok(None),
        }
    }

    async fn whole(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let mut rows = self.rows(name, expected, 0..1).await?;
        let mut out = Vec::new();
        while let Some((_, values)) = rows.next().await? {
            out.extend_from_slice(values);
        }
        Ok(out)
    }
}
