//! Writes GGUF files, valid ones and others.
// Every test file uses its own part.
#![allow(dead_code)]

/// A value as the file has it: the number of its type, and its bytes.
#[derive(Clone)]
pub struct Stored(pub u32, pub Vec<u8>);

/// A text with its length.
pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl Stored {
    pub fn text(value: &str) -> Self {
        Self(8, text(value))
    }

    pub fn u32(value: u32) -> Self {
        Self(4, value.to_le_bytes().into())
    }

    pub fn f32(value: f32) -> Self {
        Self(6, value.to_le_bytes().into())
    }

    pub fn flag(value: bool) -> Self {
        Self(7, vec![value.into()])
    }

    /// An array of `len` values of type `kind`, which are one after the other in `bytes`.
    pub fn array(kind: u32, len: usize, bytes: Vec<u8>) -> Self {
        let head = [&kind.to_le_bytes()[..], &(len as u64).to_le_bytes()].concat();
        Self(9, [head, bytes].concat())
    }

    pub fn texts<T: AsRef<str>>(values: &[T]) -> Self {
        let bytes = values.iter().flat_map(|v| text(v.as_ref())).collect();
        Self::array(8, values.len(), bytes)
    }

    pub fn i32s(values: &[i32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::array(5, values.len(), bytes)
    }

    pub fn f32s(values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::array(6, values.len(), bytes)
    }
}

/// A tensor's entry.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// Innermost dimension first.
    pub dimensions: Vec<u64>,
    pub encoding: u32,
    pub offset: u64,
}

/// A GGUF file to be written.
#[derive(Clone)]
pub struct File {
    pub version: u32,
    pub alignment: usize,
    pub keys: Vec<(String, Stored)>,
    pub tensors: Vec<Tensor>,
    pub data: Vec<u8>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            version: 3,
            alignment: 32,
            keys: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
        }
    }
}

impl File {
    pub fn key(&mut self, key: &str, value: Stored) {
        self.keys.push((key.into(), value));
    }

    /// Adds a tensor of a row-major shape behind those that are there.
    pub fn tensor(&mut self, name: &str, shape: &[usize], encoding: u32, bytes: &[u8]) {
        let offset = self.data.len().next_multiple_of(self.alignment);
        self.data.resize(offset, 0);
        self.data.extend(bytes);
        self.tensors.push(Tensor {
            name: name.into(),
            dimensions: shape.iter().rev().map(|&dim| dim as u64).collect(),
            encoding,
            offset: offset as u64,
        });
    }

    /// The header up to the padding before the data.
    pub fn header(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        for (key, Stored(kind, value)) in &self.keys {
            bytes.extend(text(key));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        for tensor in &self.tensors {
            bytes.extend(text(&tensor.name));
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            let dimensions = tensor.dimensions.iter();
            bytes.extend(dimensions.flat_map(|dim| dim.to_le_bytes()));
            bytes.extend(tensor.encoding.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        bytes
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        if !self.tensors.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
            bytes.extend(&self.data);
        }
        bytes
    }
}
