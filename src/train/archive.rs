//! Files as one file.

use std::io::{self, Write};

use rawzip::{CompressionMethod, ZipArchiveWriter};

use super::TrainError;

/// A zip of `files`, names and bytes, in a folder of their own; they are numbers, which hardly shrink, and lie in it
/// as they are.
pub fn zip(folder: &str, files: &[(&str, Vec<u8>)]) -> Result<Vec<u8>, TrainError> {
    let mut out = Vec::new();
    let written = write(&mut out, folder, files);
    written.map_err(|e| TrainError::Disk {
        place: format!("{folder}.zip"),
        what: format!("cannot be written: {e}"),
    })?;
    Ok(out)
}

fn write(out: &mut Vec<u8>, folder: &str, files: &[(&str, Vec<u8>)]) -> Result<(), io::Error> {
    let mut archive = ZipArchiveWriter::new(out);
    for (name, bytes) in files {
        let path = format!("{folder}/{name}");
        let entry = archive.new_file(&path);
        let entry = entry.compression_method(CompressionMethod::STORE).start();
        let (mut entry, config) = entry.map_err(io::Error::other)?;
        let mut writer = config.wrap(&mut entry);
        writer.write_all(bytes)?;
        let (_, descriptor) = writer.finish().map_err(io::Error::other)?;
        entry.finish(descriptor).map_err(io::Error::other)?;
    }
    archive.finish().map_err(io::Error::other)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn files_come_out_as_they_went_in() {
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i * i % 251) as u8).collect();
        let files = [("cfg.json", b"{}\n".to_vec()), ("sae.safetensors", bytes)];
        let out = zip("layers.3", &files).unwrap();
        let archive = rawzip::ZipArchive::from_slice(&out).unwrap();
        let mut entries = archive.entries();
        for (name, bytes) in files {
            let entry = entries.next_entry().unwrap().unwrap();
            let path = entry.file_path().try_normalize().unwrap();
            assert_eq!(path.as_ref(), format!("layers.3/{name}"));
            let local = archive.get_entry(entry.wayfinder()).unwrap();
            let mut read = Vec::new();
            let mut reader = local.verifying_reader(local.data());
            reader.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes);
        }
        assert!(entries.next_entry().unwrap().is_none());
    }
}
