//! Dictionaries on the software adapter against the reference.

use pollster::block_on;
use rand::Rng;
use rand::rngs::StdRng;

use super::reference::{Reference, assert_near, fresh_rng, numbers, software_gpu, software_gpus};
use super::{Activation, Dictionary, HookPoint, SaeError, Wanted, encode_all};
use crate::checkpoint::Folder;
use crate::gpu::{Access, Gpu, GpuOptions, KernelDescriptor, MatmulKind, shaders};

/// The k largest positive values of a row by sorting, the lowest index first among equals.
fn sorted_topk(row: &[f32], k: usize) -> Vec<(u32, u32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
    all.retain(|(_, v)| *v > 0.0);
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    let mut slots: Vec<_> = all.into_iter().map(|(i, v)| (i, v.to_bits())).collect();
    slots.resize(k, (u32::MAX, 0));
    slots
}

fn check_topk(gpu: &Gpu, latents: usize, k: usize, pre: &[f32], what: &str) {
    let rows = pre.len() / latents;
    let got = block_on(async {
        let kernel = gpu.kernel(&KernelDescriptor {
            label: "topk",
            parts: &[shaders::ROWS, shaders::TOPK],
            constants: &[],
            bindings: &[
                (0, Access::Read),
                (1, Access::Write),
                (2, Access::Read),
                (3, Access::Uniform),
                (5, Access::Uniform),
            ],
        });
        let input = gpu.storage("pre", (pre.len() * 4) as u64).unwrap();
        gpu.write(&input, 0, pre);
        // One row more than the pass has: it must stay as it is.
        let poison = vec![0xdead_beefu32; (rows + 1) * k * 2];
        let out = gpu.storage("out", (poison.len() * 4) as u64).unwrap();
        gpu.write(&out, 0, &poison);
        let shape = gpu.uniform("shape", &[latents as u32, k as u32, 0, 0]);
        let mut table = vec![0u32; 4 + 256 * 4];
        table[0] = rows as u32;
        let uniform = wgpu::BufferUsages::UNIFORM;
        let row_buffer = gpu.buffer("rows", 4112, uniform).unwrap();
        gpu.write(&row_buffer, 0, &table);
        let step = kernel.bind(
            gpu,
            &[
                (0, &input),
                (1, &out),
                (2, &input),
                (3, &shape),
                (5, &row_buffer),
            ],
        );
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        step.dispatch(&mut pass, [1, rows as u32 + 1, 1]);
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
        gpu.read_vec::<u32>(&out, 0, poison.len()).await.unwrap()
    });
    let pairs: Vec<(u32, u32)> = got.chunks(2).map(|p| (p[0], p[1])).collect();
    for (r, row) in pre.chunks(latents).enumerate() {
        assert_eq!(
            pairs[r * k..(r + 1) * k],
            sorted_topk(row, k),
            "{what}: {latents} latents, k {k}, row {r} of {rows}"
        );
    }
    assert!(
        pairs[rows * k..]
            .iter()
            .all(|p| *p == (0xdead_beef, 0xdead_beef))
    );
}

#[test]
fn topk_is_exact() {
    let mut rng = fresh_rng();
    let rng = &mut rng;
    type Fill = fn(&mut StdRng) -> f32;
    let fills: [(&str, Fill); 6] = [
        ("spread", |r| r.random_range(-1.0..1.0)),
        ("many ties", |r| f32::from(r.random_range(-3i8..4)) * 0.5),
        ("few positive", |r| {
            if r.random_bool(0.01) {
                r.random()
            } else {
                -r.random::<f32>()
            }
        }),
        ("none positive", |r| -r.random::<f32>()),
        ("all equal", |_| 0.75),
        // Every float: tiny, huge, infinite, negative zero, NaN.
        ("any bits", |r| f32::from_bits(r.random())),
    ];
    let sizes = [
        (1, 1, 1),
        (5, 3, 2),
        (63, 63, 5),
        (255, 32, 1),
        (256, 256, 2),
        (257, 1, 5),
        (1000, 24, 2),
        (3001, 256, 5),
        (20_011, 33, 1),
    ];
    for f16 in [false, true] {
        let gpu = software_gpu(GpuOptions {
            f16: Some(f16),
            ..GpuOptions::default()
        });
        for (name, fill) in fills {
            for (latents, k, rows) in sizes {
                let pre: Vec<f32> = (0..latents * rows).map(|_| fill(rng)).collect();
                check_topk(&gpu, latents, k, &pre, name);
            }
        }
    }
}

#[test]
fn topk_is_exact_at_its_largest() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let spread = numbers(&mut rng, 131_072);
    check_topk(&gpu, 131_072, 256, &spread, "spread");
    // The cut falls among equals, far apart: all seven passes run.
    let mut tied = vec![0.5f32; 131_072];
    for i in 0..255 {
        tied[i * 511 + 7] = 0.5 + (i % 250) as f32;
    }
    check_topk(&gpu, 131_072, 256, &tied, "tied");
}

fn load(gpu: &Gpu, reference: &Reference, part_bytes: u64) -> Dictionary {
    let folder = reference.folder(3);
    block_on(Dictionary::find_in_parts(
        gpu,
        &folder,
        Wanted::default(),
        part_bytes,
    ))
    .unwrap()
}

fn check_encoding(
    gpu: &Gpu,
    rng: &mut StdRng,
    reference: &Reference,
    part_bytes: u64,
    rows: usize,
) {
    let dictionary = load(gpu, reference, part_bytes);
    let x: Vec<f32> = numbers(rng, rows * reference.width)
        .iter()
        .map(|v| v * 3.0)
        .collect();
    let encoded = block_on(encode_all(gpu, &dictionary, &x)).unwrap();
    assert_eq!(encoded.acts.len(), rows * reference.latents);
    for (r, h) in x.chunks(reference.width).enumerate() {
        let acts = &encoded.acts[r * reference.latents..][..reference.latents];
        let mut slots: Vec<Activation> = (0..)
            .zip(acts)
            .filter(|(_, v)| **v != 0.0)
            .map(|(feature, value)| Activation {
                feature,
                value: *value,
            })
            .collect();
        slots.sort_by(|a, b| b.value.total_cmp(&a.value));
        assert!(slots.len() <= reference.k);
        slots.resize(
            reference.k,
            Activation {
                feature: u32::MAX,
                value: 0.0,
            },
        );
        let code = reference.checked_code(h, &slots);
        let recon = &encoded.recon[r * reference.width..][..reference.width];
        assert_near(recon, &reference.decode(&code), 1e-5, "reconstruction");
    }
}

#[test]
fn encoding_agrees_with_f64() {
    let mut rng = fresh_rng();
    for gpu in software_gpus() {
        for (width, latents, k, rows) in [
            (4, 1, 1, 1),
            (36, 70, 5, 2),
            (100, 333, 16, 5),
            (64, 257, 256, 3),
        ] {
            let reference = Reference::random(&mut rng, width, latents, k);
            check_encoding(&gpu, &mut rng, &reference, 1 << 20, rows);
        }
    }
}

#[test]
fn encoding_agrees_with_f64_in_the_kernels_that_are_not_the_adapters() {
    let mut rng = fresh_rng();
    let kinds = [
        MatmulKind::Split,
        MatmulKind::Tile,
        MatmulKind::Thread,
        MatmulKind::Block,
    ];
    for (kind, f16) in kinds.into_iter().flat_map(|k| [(k, false), (k, true)]) {
        let gpu = software_gpu(GpuOptions {
            f16: Some(f16),
            many_rows: Some(kind),
            ..GpuOptions::default()
        });
        let reference = Reference::random(&mut rng, 72, 201, 12);
        check_encoding(&gpu, &mut rng, &reference, 1 << 20, 37);
    }
}

#[test]
fn a_dictionary_in_several_buffers_is_one() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    // Rows of 64 padded elements: 20 latents a part, the last one short; then 2 a part.
    for bytes in [64 * 4 * 21, 1] {
        let reference = Reference::random(&mut rng, 36, 73, 9);
        check_encoding(&gpu, &mut rng, &reference, bytes, 4);
        let dictionary = load(&gpu, &reference, bytes);
        assert!(dictionary.parts.len() >= 4);
        for latent in [0, 19, 20, 72] {
            let (matrix, row) = dictionary.decoder_of(latent).unwrap();
            // f32, padded to 64 columns.
            let at = u64::from(row) * 64 * 4;
            let (_, buffer) = matrix.buffers()[0];
            let row = block_on(gpu.read(buffer, at..at + 36 * 4)).unwrap();
            let latent = latent as usize;
            let expected = &reference.decoder[latent * 36..][..36];
            assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&row), expected);
        }
        assert!(dictionary.decoder_of(73).is_none());
    }
}

#[test]
fn more_vectors_than_a_pass_holds_are_encoded() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let reference = Reference::random(&mut rng, 12, 40, 4);
    check_encoding(&gpu, &mut rng, &reference, 1 << 20, 300);
    let dictionary = load(&gpu, &reference, 1 << 20);
    assert!(
        block_on(encode_all(&gpu, &dictionary, &[]))
            .unwrap()
            .acts
            .is_empty()
    );
    let result = block_on(encode_all(&gpu, &dictionary, &[0.0; 13]));
    assert!(matches!(result, Err(SaeError::NotWholeRows { .. })));
}

#[test]
fn dictionaries_are_found() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let reference = Reference::random(&mut rng, 8, 16, 2);
    let find = |label: &str, paths: &[&str], wanted: Wanted| {
        let files = paths.iter().flat_map(|p| reference.files(p)).collect();
        block_on(Dictionary::find(
            &gpu,
            &Folder::memory(label, files),
            wanted,
        ))
        .map(|d| (d.hook(), d.latents(), d.k()))
        .map_err(|e| e.to_string())
    };
    let at = |layer| Some(HookPoint::block(layer));
    let any = Wanted::default();
    let third = Wanted { hook: at(3), ..any };
    let small = Wanted {
        layers: Some(3),
        ..any
    };
    let both = ["layers.3/", "layers.11/"];
    assert_eq!(find("sae", &["layers.3/"], any), Ok((at(3), 16, 2)));
    assert_eq!(find("sae", &both, third), Ok((at(3), 16, 2)));
    assert_eq!(
        find("https://x/sae/layers.3/", &[""], any),
        Ok((at(3), 16, 2))
    );
    assert_eq!(
        find("/data/blocks.3.hook_resid_post", &[""], any),
        Ok((at(3), 16, 2))
    );
    assert_eq!(find("/data/mine", &[""], third), Ok((at(3), 16, 2)));
    assert_eq!(find("/data/mine", &[""], any), Ok((None, 16, 2)));
    for (result, word) in [
        (find("sae", &both, any), "layers.3, layers.11"),
        (find("/x/layers.4", &[""], third), "layers.4"),
        (find("sae", &["layers.11/"], third), "layers.3"),
        (find("sae", &[], any), "layers.N"),
        (find("sae", &["layers.3/"], small), "layers.N"),
        (find("layers.3", &[""], small), "3 blocks"),
        (
            find(
                "sae",
                &["layers.3/"],
                Wanted {
                    layers: Some(3),
                    ..third
                },
            ),
            "layers.0 to layers.2",
        ),
        (
            find(
                "sae",
                &["layers.3/"],
                Wanted {
                    width: Some(192),
                    ..any
                },
            ),
            "reads vectors of 8 elements, but the model's residual stream has 192",
        ),
    ] {
        let message = result.unwrap_err();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn broken_dictionaries_are_refused() {
    let gpu = software_gpu(GpuOptions::default());
    let good = || Reference::random(&mut fresh_rng(), 8, 16, 2);
    let load = |reference: &Reference, cfg: serde_json::Value| {
        let mut files = reference.files("layers.1/");
        files[0].1 = cfg.to_string().into();
        let folder = Folder::memory("sae", files);
        let result = block_on(Dictionary::find(&gpu, &folder, Wanted::default()));
        result.map(|_| ()).unwrap_err().to_string()
    };
    let mut nan = good();
    nan.encoder[5 * 8 + 3] = f32::NAN;
    let mut infinite = good();
    infinite.b_dec[2] = f32::INFINITY;
    let mut wide = good().cfg();
    wide["d_in"] = 12.into();
    let mut other = good().cfg();
    other["activation"] = "batchtopk".into();
    let mut groups = good().cfg();
    groups["activation"] = "groupmax".into();
    groups["k"] = 7.into();
    for (message, words) in [
        (
            load(&nan, nan.cfg()),
            &["encoder.weight", "row 5", "column 3"][..],
        ),
        (load(&infinite, infinite.cfg()), &["b_dec", "inf"]),
        (load(&good(), wide), &["b_dec", "12"]),
        (load(&good(), other), &["layers.1/cfg.json", "batchtopk"]),
        (load(&good(), groups), &["layers.1/cfg.json", "7 groups"]),
    ] {
        for word in words {
            assert!(message.contains(word), "{message}");
        }
    }
}

/// A published file says 32 where its matrices have 64 times as many latents as elements.
#[test]
fn the_shapes_and_not_the_expansion_factor_say_how_many_latents_there_are() {
    let gpu = software_gpu(GpuOptions::default());
    let reference = Reference::random(&mut fresh_rng(), 8, 48, 2);
    let load = |counted: usize, factor: usize| {
        let mut cfg = reference.cfg();
        cfg["num_latents"] = counted.into();
        cfg["expansion_factor"] = factor.into();
        let mut files = reference.files("layers.1/");
        files[0].1 = cfg.to_string().into();
        let folder = Folder::memory("sae", files);
        let found = block_on(Dictionary::find(&gpu, &folder, Wanted::default()));
        found
            .map(|dictionary| dictionary.latents())
            .map_err(|error| error.to_string())
    };
    for factor in [1, 3, 6, 32] {
        assert_eq!(load(0, factor), Ok(48));
    }
    // A number that is given is no guess: then the file is another one.
    assert!(load(24, 6).unwrap_err().contains("encoder.bias"));
}
