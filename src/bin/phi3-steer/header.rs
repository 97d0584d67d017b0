//! What a safetensors file has before its data.

use serde_json::{Map, Value, json};

/// A tensor of a file.
pub struct Entry {
    pub name: String,
    /// The type of its numbers, as the format names it.
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: u64,
}

/// The length of the header and the header, of tensors in the order of their data.
pub fn header(tensors: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    for Entry {
        name,
        dtype,
        shape,
        bytes,
    } in tensors
    {
        let to = at + bytes;
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [at, to]});
        entries.insert(name, entry);
        at = to;
    }
    let mut json = Value::from(entries).to_string().into_bytes();
    // Data begin at a multiple of 8 bytes.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header
}
