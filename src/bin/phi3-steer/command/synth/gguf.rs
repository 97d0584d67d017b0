//! Writing GGUF files: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, version 3.

use phi3_steer::checkpoint::Encoding;

/// Data begin at multiples of this.
pub const ALIGNMENT: u64 = 32;

/// A value of the metadata.
pub enum Value {
    U32(u32),
    F32(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

/// A tensor of a file.
pub struct Tensor {
    pub name: String,
    /// The last dimension contiguous.
    pub shape: Vec<usize>,
    pub encoding: Encoding,
}

impl Tensor {
    /// Bytes of its data.
    pub fn bytes(&self) -> u64 {
        let numbers = self.shape.iter().product::<usize>() as u64;
        // The mix gives every tensor an encoding that its rows are whole blocks of.
        self.encoding.bytes(numbers).unwrap_or(0)
    }

    /// Zeros after its data.
    pub fn padding(&self) -> u64 {
        self.bytes().next_multiple_of(ALIGNMENT) - self.bytes()
    }
}

/// What a file has before its data.
pub struct Gguf {
    pub keys: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

impl Gguf {
    pub fn new(keys: Vec<(String, Value)>, tensors: Vec<Tensor>) -> Self {
        Self { keys, tensors }
    }

    /// Everything up to the data of the first tensor.
    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            text(&mut out, key);
            value.write(&mut out);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for dim in tensor.shape.iter().rev() {
                out.extend((*dim as u64).to_le_bytes());
            }
            out.extend(tensor.encoding.ggml().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.bytes() + tensor.padding();
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
        out
    }
}

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        let kind: u32 = match self {
            Self::U32(_) => 4,
            Self::F32(_) => 6,
            Self::Flag(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::F32s(_) | Self::I32s(_) => 9,
        };
        out.extend(kind.to_le_bytes());
        let array = |out: &mut Vec<u8>, kind: u32, len: usize| {
            out.extend(kind.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::U32(x) => out.extend(x.to_le_bytes()),
            Self::F32(x) => out.extend(x.to_le_bytes()),
            Self::Flag(x) => out.push((*x).into()),
            Self::Text(x) => text(out, x),
            Self::Texts(all) => {
                array(out, 8, all.len());
                all.iter().for_each(|x| text(out, x));
            }
            Self::F32s(all) => {
                array(out, 6, all.len());
                out.extend(all.iter().flat_map(|x| x.to_le_bytes()));
            }
            Self::I32s(all) => {
                array(out, 5, all.len());
                out.extend(all.iter().flat_map(|x| x.to_le_bytes()));
            }
        }
    }
}

/// A text with its length.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
