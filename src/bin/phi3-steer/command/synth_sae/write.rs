//! Writing tensors to disk, a little at a time.

use std::io::{self, Write};

use rawzip::{CompressionMethod, ZipArchiveWriter};

use super::Failure;
use super::formats::{Numbers, Plan, Tensor};
use crate::header::{Entry, header};
use crate::output::FolderOutput;

/// Numbers that are made at a time.
const CHUNK: usize = 1 << 18;

/// Writes the plan's files.
pub fn plan(into: &mut FolderOutput, plan: &Plan, seed: u64) -> Result<(), Failure> {
    for (name, text) in &plan.texts {
        into.write(name, text.as_bytes())?;
    }
    let mut out = into.file(plan.file)?;
    let written = match plan.file.ends_with(".npz") {
        true => npz(&mut out, &plan.tensors, seed),
        false => safetensors(&mut out, &plan.tensors, seed),
    };
    written.map_err(|e| out.failure(&e))?;
    out.finish()
}

fn count(tensor: &Tensor) -> usize {
    tensor.shape.iter().product()
}

fn safetensors(out: &mut impl Write, tensors: &[Tensor], seed: u64) -> io::Result<()> {
    let entries = tensors.iter().map(|tensor| Entry {
        name: tensor.name.into(),
        dtype: "F32",
        shape: tensor.shape.clone(),
        bytes: 4 * count(tensor) as u64,
    });
    out.write_all(&header(entries))?;
    for (i, tensor) in tensors.iter().enumerate() {
        numbers(out, tensor, seed.wrapping_add(i as u64))?;
    }
    Ok(())
}

fn npz(out: impl Write, tensors: &[Tensor], seed: u64) -> io::Result<()> {
    let mut archive = ZipArchiveWriter::new(out);
    for (i, tensor) in tensors.iter().enumerate() {
        let dimensions: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let comma = if tensor.shape.len() == 1 { "," } else { "" };
        let mut header = format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{comma}), }}",
            dimensions.join(", ")
        );
        // The data begin at a multiple of 64 bytes.
        while !(header.len() + 11).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let name = format!("{}.npy", tensor.name);
        let (mut entry, config) = archive
            .new_file(&name)
            .compression_method(CompressionMethod::STORE)
            .start()
            .map_err(io::Error::other)?;
        let mut body = config.wrap(&mut entry);
        body.write_all(b"\x93NUMPY\x01\x00")?;
        body.write_all(&(header.len() as u16).to_le_bytes())?;
        body.write_all(header.as_bytes())?;
        numbers(&mut body, tensor, seed.wrapping_add(i as u64))?;
        let (_, descriptor) = body.finish().map_err(io::Error::other)?;
        entry.finish(descriptor).map_err(io::Error::other)?;
    }
    archive.finish().map(drop).map_err(io::Error::other)
}

/// Writes a tensor's numbers in f32.
fn numbers(out: &mut impl Write, tensor: &Tensor, seed: u64) -> io::Result<()> {
    match &tensor.numbers {
        Numbers::These(values) => {
            for chunk in values.chunks(CHUNK) {
                out.write_all(bytemuck::cast_slice(chunk))?;
            }
        }
        Numbers::Random { mean, deviation } => {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut left = count(tensor);
            let mut chunk = Vec::with_capacity(CHUNK.min(left));
            while left > 0 {
                let n = left.min(CHUNK);
                chunk.clear();
                chunk.extend((0..n).map(|_| mean + deviation * bell(&mut state)));
                out.write_all(bytemuck::cast_slice(&chunk))?;
                left -= n;
            }
        }
    }
    Ok(())
}

/// The next number of a bell-shaped distribution of mean 0 and deviation 1: the sum of the four 16-bit
/// parts of a SplitMix64 number.
fn bell(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let sum = (z & 0xffff) + ((z >> 16) & 0xffff) + ((z >> 32) & 0xffff) + (z >> 48);
    // Four uniform numbers below 2^16 have the mean 2 * (2^16 - 1) and the deviation 2^16 / sqrt(3).
    (sum as f32 - 131_070.0) * (1.732_050_8 / 65_536.0)
}
