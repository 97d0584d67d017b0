//! Every file format on the software adapter against its formulas.

use pollster::block_on;
use rand::Rng;
use rand::rngs::StdRng;

use super::reference::{fresh_rng, numbers, software_gpu};
use super::zoo::{Specimen, npz, zoo};
use super::{Dictionary, HookPoint, Wanted, check_config, default_format, encode_all};
use crate::checkpoint::{Folder, MemorySource, Npz};
use crate::gpu::{Gpu, GpuOptions};
use crate::matrix::{Format, Matrix};
use crate::quant::{Planes, dequantize};

/// What rounding may do to an activation.
const NEAR: f64 = 2e-4;

fn check(gpu: &Gpu, rng: &mut StdRng, specimen: &Specimen, part_bytes: u64, rows: usize) {
    let name = specimen.name;
    let folder = specimen.folder();
    let wanted = Wanted {
        format: Some(Format::F32),
        ..Wanted::default()
    };
    let dictionary = block_on(Dictionary::find_in_parts(gpu, &folder, wanted, part_bytes));
    let dictionary = dictionary.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(
        dictionary.hook(),
        specimen.layer.map(HookPoint::block),
        "{name}"
    );
    assert_eq!(dictionary.width(), specimen.width, "{name}");
    assert_eq!(dictionary.latents(), specimen.latents, "{name}");
    let (d, f) = (specimen.width, specimen.latents);
    let x: Vec<f32> = numbers(rng, rows * d)
        .iter()
        .map(|v| 2.0 * v + 0.1)
        .collect();
    let encoded = block_on(encode_all(gpu, &dictionary, &x)).unwrap();
    for (r, h) in x.chunks(d).enumerate() {
        let acts = &encoded.acts[r * f..][..f];
        let mut sure = 0;
        for (latent, (expected, margin)) in specimen.encode(h).into_iter().enumerate() {
            let got = f64::from(acts[latent]);
            let what = format!("{name} ({d}, {f}): latent {latent} of row {r}");
            if margin > NEAR {
                sure += 1;
                let tolerance = NEAR * expected.abs().max(1.0);
                assert!(
                    (got - expected).abs() < tolerance,
                    "{what}: {got}, not {expected}"
                );
                assert_eq!(got == 0.0, expected == 0.0, "{what}: {got}, {expected}");
            }
        }
        // Nearly all decisions are clear.
        assert!(sure * 10 >= f * 9, "{name}: {sure} of {f}");
        let acts: Vec<f64> = acts.iter().map(|v| f64::from(*v)).collect();
        let expected = specimen.decode(h, &acts);
        let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        let got = &encoded.recon[r * d..][..d];
        for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
            let error = (f64::from(*g) - e).abs();
            assert!(
                error < 2e-5 * scale,
                "{name} ({d}, {f}): element {i} of row {r}: {g}, not {e}"
            );
        }
    }
}

#[test]
fn every_format_agrees_with_its_formulas() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    for (d, f, bytes, rows) in [
        (36, 71, 1 << 20, 3),
        // Several parts, and widths around the groups' edges.
        (100, 333, 100 * 1024, 2),
        (64, 130, 64 * 4 * 40, 5),
        (68, 2100, 1 << 20, 1),
    ] {
        for specimen in zoo(&mut rng, d, f) {
            check(&gpu, &mut rng, &specimen, bytes, rows);
        }
    }
}

#[test]
fn chosen_latents_are_the_whole_dictionarys() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    for specimen in zoo(&mut rng, 44, 90) {
        let name = specimen.name;
        let folder = specimen.folder();
        let wanted = Wanted::default();
        let chosen = [77, 3, 41, 3];
        let some = block_on(Dictionary::find_latents(&gpu, &folder, wanted, &chosen));
        let some = match some {
            Ok(some) => some,
            Err(e) => panic!("{name}: {e}"),
        };
        assert_eq!(some.chosen(), Some(&[3, 41, 77][..]), "{name}");
        let npz = name.starts_with("Gemma Scope") && !name.ends_with('2');
        assert_eq!(
            some.encodes(),
            some.rule().is_local() && !npz,
            "{name}: an archive's columns are not read"
        );
        let all = block_on(Dictionary::find(&gpu, &folder, wanted)).unwrap();
        for latent in [3, 41, 77] {
            let row = some.row_of(latent).unwrap();
            let parts = [(&some, row), (&all, latent)];
            let [mine, whole] = parts.map(|(dictionary, row)| {
                let part = &dictionary.parts[0];
                let padded = 64 * 4;
                let matrices = [&part.encoder, &part.decoder];
                let rows = matrices.map(|m| {
                    let at = u64::from(row) * padded;
                    block_on(gpu.read(m.buffers()[0].1, at..at + padded)).unwrap()
                });
                let at = u64::from(row) * 16;
                (rows, block_on(gpu.read(&part.params, at..at + 16)).unwrap())
            });
            assert_eq!(mine.0[1], whole.0[1], "{name}: decoder row {latent}");
            assert_eq!(mine.1, whole.1, "{name}: rule of {latent}");
            if some.encodes() {
                assert_eq!(mine.0[0], whole.0[0], "{name}: encoder row {latent}");
            }
        }
        assert!(some.row_of(4).is_none());
        let wrong = block_on(Dictionary::find_latents(&gpu, &folder, wanted, &[90]));
        let message = wrong.err().unwrap().to_string();
        assert!(message.contains("0 to 89"), "{message}");
    }
}

/// Rows of a matrix on the GPU as the format's reference reads them, `[rows, cols]`.
fn stored(gpu: &Gpu, matrix: &Matrix) -> Vec<f32> {
    let format = matrix.format();
    let read = |at: usize, words: usize| -> Vec<u32> {
        match matrix.buffers().get(at) {
            Some((_, buffer)) => block_on(gpu.read_vec(buffer, 0, words)).unwrap(),
            None => Vec::new(),
        }
    };
    let planes = Planes {
        format,
        words: read(0, matrix.rows() * format.row_words(matrix.cols())),
        side: read(1, matrix.rows() * format.row_side(matrix.cols())),
    };
    dequantize(&planes, matrix.cols())
}

#[test]
fn eight_bits_are_the_nearest_levels_in_both_orientations() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    for (d, f, bytes) in [(36, 71, 1 << 20), (100, 213, 60 * 1024)] {
        for specimen in zoo(&mut rng, d, f) {
            let name = specimen.name;
            let load = |format| {
                let wanted = Wanted {
                    format: Some(format),
                    ..Wanted::default()
                };
                let folder = specimen.folder();
                block_on(Dictionary::find_in_parts(&gpu, &folder, wanted, bytes)).unwrap()
            };
            let (plain, packed) = (load(Format::F32), load(Format::Q8));
            assert_eq!(packed.format(), Format::Q8);
            let matrices = |dictionary: &Dictionary| -> [Vec<f32>; 2] {
                let parts = dictionary.parts.iter();
                let all = parts.map(|p| [stored(&gpu, &p.encoder), stored(&gpu, &p.decoder)]);
                all.fold([Vec::new(), Vec::new()], |[mut a, mut b], [x, y]| {
                    a.extend(x);
                    b.extend(y);
                    [a, b]
                })
            };
            for (exact, rounded) in matrices(&plain).iter().zip(matrices(&packed)) {
                assert_eq!(exact.len(), d * f, "{name}");
                for (row, back) in exact.chunks(d).zip(rounded.chunks(d)) {
                    for (group, back) in row.chunks(32).zip(back.chunks(32)) {
                        let largest = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                        // Half a level; a scale as stored is at most 2^-10 too large.
                        let bound = largest / 127.0 * 0.5 * 1.002 + 1e-7;
                        for (v, b) in group.iter().zip(back) {
                            assert!((v - b).abs() <= bound, "{name}: {v} became {b} ({largest})");
                        }
                    }
                }
            }
            // What is encoded with them is what they hold.
            let x = numbers(&mut rng, 3 * d);
            let encoded = block_on(encode_all(&gpu, &packed, &x)).unwrap();
            let whole = block_on(encode_all(&gpu, &plain, &x)).unwrap();
            let (mut off, mut size) = (0.0, 0.0);
            let (mut both, mut either) = (0, 0);
            for (a, b) in encoded.acts.iter().zip(&whole.acts) {
                either += usize::from(*a != 0.0 || *b != 0.0);
                // Rounding may carry a latent over a rule's cut, with all of its activation.
                if *a != 0.0 && *b != 0.0 {
                    both += 1;
                    off += f64::from(a - b).powi(2);
                    size += f64::from(*b).powi(2);
                }
            }
            let acts = (off / size).sqrt();
            assert!(acts < 0.1, "{name}: activations are off by {acts}");
            assert!(
                3 * both > 2 * either,
                "{name}: of {either} active latents only {both} are the same"
            );
            assert!(acts > 0.0, "{name}: nothing was rounded");
        }
    }
}

#[test]
fn large_dictionaries_are_stored_in_eight_bits() {
    assert_eq!(default_format(192, 1536), Format::F32);
    assert_eq!(default_format(3072, 24_576), Format::Q8);
}

#[test]
fn one_of_several_folders_is_found_by_its_hook_point() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let mut files = Vec::new();
    for specimen in zoo(&mut rng, 8, 20) {
        let path = match specimen.name {
            "SAELens gated" => "deep/inside/",
            "saex" => "",
            "Gemma Scope" => "layer_11/width_16k/average_l0_70/",
            "sparsify" => "",
            _ => continue,
        };
        let own = specimen.files.into_iter();
        files.extend(own.map(|(name, bytes)| (format!("all/{path}{name}"), bytes)));
    }
    let find = |layer: Option<usize>| {
        let folder = Folder::memory("mixed", files.clone());
        let wanted = Wanted {
            hook: layer.map(HookPoint::block),
            ..Wanted::default()
        };
        let found = block_on(Dictionary::find(&gpu, &folder, wanted));
        found.map(|d| d.kind()).map_err(|e| e.to_string())
    };
    assert_eq!(find(Some(2)), Ok("SAELens"));
    assert_eq!(find(Some(11)), Ok("Gemma Scope"));
    // saex's l7 and sparsify's layers.6 are the same place.
    let message = find(Some(6)).unwrap_err();
    assert!(
        message.contains("l7-test-run-6-1e-06, all/layers.6"),
        "{message}"
    );
    let message = find(None).unwrap_err();
    assert!(message.contains("deep/inside"), "{message}");
    assert!(find(Some(5)).unwrap_err().contains("layers.5"));
}

#[test]
fn the_user_may_override_the_hook_point() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let find = |specimen: &Specimen, wanted: Wanted| {
        let found = block_on(Dictionary::find(&gpu, &specimen.folder(), wanted));
        found.map(|d| d.hook()).map_err(|e| e.to_string())
    };
    let at = |layer| Some(HookPoint::block(layer));
    let mut specimens = zoo(&mut rng, 8, 20);
    let lens = specimens.remove(0);
    let other = Wanted {
        hook: at(4),
        ..Wanted::default()
    };
    let message = find(&lens, other).unwrap_err();
    assert!(
        message.contains("layers.2") && message.contains("layers.4"),
        "{message}"
    );
    let placed = Wanted {
        place: at(4),
        ..Wanted::default()
    };
    assert_eq!(find(&lens, placed), Ok(at(4)));
    // Places that cannot be hooked.
    for (hook, word) in [
        ("blocks.0.hook_resid_pre", "embedding"),
        ("blocks.3.hook_mlp_out", "blocks.3.hook_mlp_out"),
        ("blocks.3.attn.hook_z", "blocks.3.attn.hook_z"),
    ] {
        let mut json: serde_json::Value = serde_json::from_slice(&lens.files[0].1).unwrap();
        json["metadata"]["hook_name"] = hook.into();
        let files = vec![
            ("cfg.json".into(), json.to_string().into_bytes()),
            lens.files[1].clone(),
        ];
        let bad = Specimen {
            files,
            ..zoo(&mut rng, 8, 20).remove(0)
        };
        let message = find(&bad, Wanted::default()).unwrap_err();
        assert!(message.contains(word), "{message}");
        assert_eq!(find(&bad, placed), Ok(at(4)));
    }
}

#[test]
fn files_that_cannot_be_read_are_refused_with_a_reason() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let refused = |label: &str, files: Vec<(String, Vec<u8>)>| {
        let folder = Folder::memory(label, files);
        let found = block_on(Dictionary::find(&gpu, &folder, Wanted::default()));
        found.map(|_| ()).unwrap_err().to_string()
    };
    let message = refused("x", vec![("ae.pt".into(), vec![0; 9])]);
    assert!(message.contains("safetensors.torch.save_file"), "{message}");
    // As many latents as elements: SAELens's names tell, and are read.
    let square = zoo(&mut rng, 24, 24);
    let lens = &square[0];
    check(&gpu, &mut rng, lens, 1 << 20, 2);
    let wide = |d: usize, f: usize| zoo(&mut fresh_rng(), d, f).remove(0).files;
    let (a, b) = (wide(24, 60), wide(28, 60));
    let mixed = vec![a[0].clone(), b[1].clone()];
    let message = refused("x", mixed);
    assert!(
        message.contains("W_enc") || message.contains("b_dec"),
        "{message}"
    );
    // Cut off anywhere, an archive is refused.
    let whole = npz(
        &[("W_enc", vec![8, 20], &numbers(&mut rng, 160))],
        true,
        false,
    );
    for _ in 0..40 {
        let cut = rng.random_range(0..whole.len());
        let source = MemorySource::new("params.npz", whole[..cut].to_vec());
        assert!(block_on(Npz::open(source.into())).is_err());
    }
    // A flipped bit in the data is found by the checksum, at the latest.
    let stored = npz(
        &[("W_enc", vec![8, 20], &numbers(&mut rng, 160))],
        false,
        false,
    );
    for bytes in [&whole, &stored] {
        let mut bad = bytes.clone();
        let at = rng.random_range(200..400);
        bad[at] ^= 1 << rng.random_range(0..7);
        let source = MemorySource::new("params.npz", bad);
        let read = block_on(async {
            let file = Npz::open(source.into()).await?;
            let mut reader = file.reader("W_enc", &[8, 20], 0..8).await?;
            while reader.next().await?.is_some() {}
            Ok::<_, crate::checkpoint::CheckpointError>(())
        });
        assert!(read.is_err(), "byte {at}");
    }
}

#[test]
fn configurations_are_checked_without_tensors() {
    check_config(
        "cfg.json",
        br#"{"d_in": 64, "k": 4, "expansion_factor": 2}"#,
    )
    .unwrap();
    check_config("cfg.json", br#"{"d_in": 64, "d_sae": 512}"#).unwrap();
    for (json, word) in [
        (&b"{"[..], "sparsify"),
        (
            br#"{"d_in": 64, "d_sae": 512, "architecture": "clt"}"#,
            "clt",
        ),
        (br#"{"d_in": 64, "d_sae": "x"}"#, "SAELens"),
        (
            br#"{"d_in": 64, "k": 4, "activation": "batchtopk", "expansion_factor": 2}"#,
            "batchtopk",
        ),
    ] {
        let message = check_config("cfg.json", json).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}
