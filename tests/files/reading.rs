//! What is checked before the first weight is read: every tensor is there, in its shape, and nothing is that
//! would change what the model computes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use crate::support::checkpoint::{RandomModel, config};
use crate::support::fresh_rng;
use phi3_steer::checkpoint::Folder;
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::phi3::{Model, ModelOptions};
use pollster::block_on;
use rand::Rng;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

/// Loads the model in a folder; the bytes that were read of each file, and the refusal.
fn load(gpu: &Rc<Gpu>, place: &Path) -> (BTreeMap<String, u64>, Result<(), String>) {
    let read = Rc::new(RefCell::new(BTreeMap::new()));
    let told = read.clone();
    let folder = Folder::directory(place).on_progress(move |p| {
        told.borrow_mut().insert(p.file.clone(), p.loaded);
    });
    let loaded = block_on(Model::load(gpu.clone(), &folder, ModelOptions::default()));
    let loaded = loaded.map(drop).map_err(|e| e.to_string());
    let read = read.borrow().clone();
    (read, loaded)
}

/// Writes tensors of a safetensors file that `keep` takes.
fn part(whole: &[u8], more: &[(&str, TensorView<'_>)], keep: impl Fn(&str) -> bool) -> Vec<u8> {
    let file = SafeTensors::deserialize(whole).unwrap();
    let mut views: Vec<(String, TensorView<'_>)> = file.tensors();
    views.retain(|(name, _)| keep(name));
    views.extend(
        more.iter()
            .map(|(name, view)| (name.to_string(), view.clone())),
    );
    safetensors::serialize(views, None).unwrap()
}

fn header(file: &[u8]) -> u64 {
    8 + u64::from_le_bytes(*file.first_chunk().unwrap())
}

#[test]
fn nothing_is_read_of_a_model_that_cannot_be_whole() {
    let mut rng = fresh_rng();
    let gpu = Rc::new(
        block_on(Gpu::open(&GpuOptions {
            cpu_adapter: true,
            ..GpuOptions::default()
        }))
        .unwrap(),
    );
    let model = RandomModel::new(&mut rng, config(json!({})));
    let whole = model.safetensors();
    let names: Vec<String> = model.tensors.keys().cloned().collect();
    let second = |name: &str| name > "model.layers.1";
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path().join(name), bytes).unwrap();
    write("config.json", model.json.to_string().as_bytes());
    let shards = [part(&whole, &[], |n| !second(n)), part(&whole, &[], second)];
    let map: BTreeMap<&String, &str> = names
        .iter()
        .map(|n| {
            (
                n,
                if second(n) {
                    "2.safetensors"
                } else {
                    "1.safetensors"
                },
            )
        })
        .collect();
    let index = json!({"weight_map": map}).to_string();
    write("model.safetensors.index.json", index.as_bytes());
    write("1.safetensors", &shards[0]);
    write("2.safetensors", &shards[1]);
    let (read, loaded) = load(&gpu, place.path());
    loaded.unwrap();
    assert_eq!(read["1.safetensors"], shards[0].len() as u64);
    assert_eq!(read["2.safetensors"], shards[1].len() as u64);

    // A file is not there, a tensor is not, or has another shape, or one too many is.
    let lost = names[rng.random_range(0..names.len())].clone();
    let bytes = vec![0; 2 * 7];
    let odd = |shape: &[usize]| TensorView::new(Dtype::BF16, shape.to_vec(), &bytes).unwrap();
    let own = |name: &str| !second(name);
    let first =
        |keep: &dyn Fn(&str) -> bool, more: &[(&str, TensorView<'_>)]| part(&whole, more, keep);
    for (files, words) in [
        (
            vec![("1.safetensors", shards[0].clone())],
            vec!["2.safetensors"],
        ),
        (
            vec![
                ("1.safetensors", first(&|n| own(n) && n != lost, &[])),
                (
                    "2.safetensors",
                    part(&whole, &[], |n| second(n) && n != lost),
                ),
            ],
            vec![lost.as_str()],
        ),
        (
            vec![
                ("1.safetensors", first(&|n| own(n) && n != lost, &[])),
                (
                    "2.safetensors",
                    part(&whole, &[(lost.as_str(), odd(&[7]))], |n| {
                        second(n) && n != lost
                    }),
                ),
            ],
            vec![lost.as_str(), "shape"],
        ),
        (
            vec![
                (
                    "1.safetensors",
                    first(
                        &own,
                        &[("model.layers.0.self_attn.qkv_proj.bias", odd(&[7]))],
                    ),
                ),
                ("2.safetensors", shards[1].clone()),
            ],
            vec!["qkv_proj.bias", "is not a part of its architecture"],
        ),
        (
            vec![
                (
                    "1.safetensors",
                    first(
                        &own,
                        &[("model.layers.1.self_attn.q_norm.weight", odd(&[7]))],
                    ),
                ),
                ("2.safetensors", shards[1].clone()),
            ],
            vec!["q_norm.weight", "is not a part of its architecture"],
        ),
        (
            vec![
                (
                    "1.safetensors",
                    first(&own, &[("base.lora_A.weight", odd(&[1, 7]))]),
                ),
                ("2.safetensors", shards[1].clone()),
            ],
            vec!["lora_A", "is not a part of its architecture"],
        ),
    ] {
        for name in ["1.safetensors", "2.safetensors"] {
            let file = files.iter().find(|(n, _)| *n == name);
            match file {
                Some((_, bytes)) => write(name, bytes),
                None => std::fs::remove_file(place.path().join(name)).unwrap(),
            }
        }
        let (read, loaded) = load(&gpu, place.path());
        let error = loaded.unwrap_err();
        assert!(
            words.iter().all(|word| error.contains(word)),
            "{words:?}: {error}"
        );
        for (name, bytes) in &files {
            assert_eq!(read[*name], header(bytes), "{name}: {error}");
        }
    }
    // What changes nothing does not matter.
    let more = [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", odd(&[7])),
        ("model.layers.9.anything.weight", odd(&[7])),
        ("score.weight", odd(&[7, 1])),
    ];
    write("1.safetensors", &first(&own, &more));
    write("2.safetensors", &shards[1]);
    load(&gpu, place.path()).1.unwrap();
}
