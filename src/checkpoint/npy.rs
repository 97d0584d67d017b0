//! The header of a `.npy` array.

use super::unzip::Body;
use super::{CheckpointError, Encoding};

/// The longest header that is read, in bytes.
pub(super) const MAX_NPY_HEADER: u64 = 64 << 10;
/// Dimensions of an array at most, as in NumPy.
const MAX_DIMENSIONS: usize = 64;

/// What the header of an array says.
pub(super) struct Header {
    /// Bytes that it takes.
    pub bytes: u64,
    pub encoding: Encoding,
    /// The last dimension is contiguous.
    pub shape: Vec<usize>,
}

impl Header {
    /// Reads the header that `body` begins with, of at most `most` bytes.
    pub async fn read(body: &mut Body<'_>, most: u64) -> Result<Self, CheckpointError> {
        let fail = |reason: &str| CheckpointError::Npz {
            file: String::new(),
            reason: reason.into(),
        };
        if most < 12 {
            return Err(fail("it is no .npy array"));
        }
        let start = body.read(10).await?;
        if !start.starts_with(b"\x93NUMPY") {
            return Err(fail("it is no .npy array"));
        }
        let (text, before) = match start[6] {
            1 => (u64::from(u16::from_le_bytes([start[8], start[9]])), 10),
            2 | 3 => {
                let rest = body.read(2).await?;
                let bytes = [start[8], start[9], rest[0], rest[1]];
                (u64::from(u32::from_le_bytes(bytes)), 12)
            }
            _ => return Err(fail("its version of the .npy format is not read")),
        };
        if before + text > most {
            return Err(fail("its header is longer than it can be"));
        }
        let bytes = body.read(text as usize).await?;
        let text = std::str::from_utf8(&bytes)
            .ok()
            .filter(|t| t.is_ascii())
            .ok_or_else(|| fail("its header is no text"))?;
        let (encoding, shape) = parse(text).map_err(|reason| fail(&reason))?;
        Ok(Self {
            bytes: before + bytes.len() as u64,
            encoding,
            shape,
        })
    }
}

/// Reads the dictionary `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse(text: &str) -> Result<(Encoding, Vec<usize>), String> {
    let no = |what: &str| format!("its header has no {what}");
    let after = |key: &str| {
        let quoted = [format!("'{key}'"), format!("\"{key}\"")];
        let (_, rest) = quoted.iter().find_map(|q| text.split_once(q.as_str()))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let descr = after("descr").ok_or_else(|| no("type"))?;
    let mark = descr.chars().next().filter(|c| "'\"".contains(*c));
    let descr = mark
        .and_then(|mark| descr[1..].split(mark).next())
        .ok_or_else(|| no("type that is one of numbers"))?;
    let encoding = match descr {
        "<f4" => Encoding::F32,
        "<f2" => Encoding::F16,
        other => {
            return Err(format!(
                "its numbers are of type \"{other}\": <f4 and <f2 are read, convert it with astype(\"float32\")"
            ));
        }
    };
    let order = after("fortran_order").ok_or_else(|| no("order"))?;
    let fortran = match (order.starts_with("True"), order.starts_with("False")) {
        (true, _) => true,
        (_, true) => false,
        _ => return Err(no("order")),
    };
    let shape = after("shape")
        .and_then(|rest| rest.strip_prefix('('))
        .and_then(|rest| rest.split_once(')'))
        .ok_or_else(|| no("shape"))?
        .0;
    let parts: Vec<&str> = shape.split(',').map(str::trim).collect();
    let (last, first) = parts.split_last().ok_or_else(|| no("shape"))?;
    // "3," is one dimension, "" none.
    let parts = if last.is_empty() { first } else { &parts[..] };
    if parts.len() > MAX_DIMENSIONS {
        return Err("it has too many dimensions".into());
    }
    let mut shape = parts
        .iter()
        .map(|part| part.parse::<usize>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| no("shape of whole numbers"))?;
    if fortran {
        shape.reverse();
    }
    Ok((encoding, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_numpy_are_read() {
        for (text, encoding, shape) in [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  \n",
                Encoding::F32,
                &[3, 4][..],
            ),
            (
                "{'descr': '<f2', 'fortran_order': True, 'shape': (3, 4), }\n",
                Encoding::F16,
                &[4, 3],
            ),
            (
                "{\"shape\": (7,), \"fortran_order\": False, \"descr\": \"<f4\"}",
                Encoding::F32,
                &[7],
            ),
            (
                "{'descr':'<f4','fortran_order':False,'shape':()}",
                Encoding::F32,
                &[],
            ),
        ] {
            assert_eq!(parse(text), Ok((encoding, shape.to_vec())), "{text}");
        }
        for (text, word) in [
            ("", "no type"),
            ("{'descr': [('a', '<f4')], 'shape': (3,)}", "no type"),
            (
                "{'descr': '>f4', 'fortran_order': False, 'shape': (3,)}",
                ">f4",
            ),
            (
                "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
                "|O",
            ),
            (
                "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}",
                "order",
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -1)}",
                "whole",
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3",
                "shape",
            ),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
