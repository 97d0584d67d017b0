//! What a dictionary's files say beside what its kind is made of: used, or refused by name.

use pollster::block_on;
use rand::Rng;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::find::find;
use super::reference::{fresh_rng, numbers};
use super::zoo::{Specimen, npz, zoo};
use super::{HookPoint, SaeError, Wanted};
use crate::checkpoint::Folder;

/// What is found in a folder: the hook point, or the sentence of refusal.
fn look(folder: &Folder, wanted: Wanted) -> Result<Option<HookPoint>, String> {
    let found = block_on(find(folder, &wanted));
    found.map(|located| located.hook).map_err(|e| e.to_string())
}

/// A safetensors file with one more vector.
fn with_tensor(file: &[u8], name: &str, values: &[f32]) -> Vec<u8> {
    let old = SafeTensors::deserialize(file).unwrap();
    let new = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
    let mut all: Vec<(String, TensorView<'_>)> = old.tensors();
    all.push((name.into(), new.unwrap()));
    safetensors::serialize(all, None).unwrap()
}

/// Tensors of other kinds, and some that no format has.
const FOREIGN: [&str; 14] = [
    "threshold",
    "log_threshold",
    "activation_function.log_jumprelu_threshold",
    "b_enc",
    "b_gate",
    "r_mag",
    "b_mag",
    "k",
    "W_skip",
    "encoder.threshold",
    "decoder.scale",
    "b_dec_out",
    "mean_norm",
    "running_mean",
];

#[test]
fn tensors_that_a_kind_does_not_have_are_refused_by_name() {
    let mut rng = fresh_rng();
    let (d, f) = (24, 40);
    let mut tried = 0;
    for specimen in zoo(&mut rng, d, f) {
        let Some(at) = specimen
            .files
            .iter()
            .position(|(p, _)| p.ends_with(".safetensors"))
        else {
            continue;
        };
        look(&specimen.folder(), Wanted::default()).unwrap();
        let file = specimen.files[at].1.clone();
        let own = SafeTensors::deserialize(&file).unwrap();
        let own: Vec<String> = own.names().into_iter().map(|n| n.to_string()).collect();
        let changed = |name: &str, values: &[f32]| {
            let mut files = specimen.files.clone();
            files[at].1 = with_tensor(&file, name, values);
            Folder::memory("zoo", files)
        };
        let random = format!("x{}", rng.random::<u32>());
        for name in FOREIGN.into_iter().chain([random.as_str()]) {
            // saex's own norms are numbers that it is made of.
            if own.iter().any(|n| n == name)
                || (specimen.name.starts_with("saex") && name == "mean_norm")
            {
                continue;
            }
            let folder = changed(name, &numbers(&mut rng, f));
            let error = look(&folder, Wanted::default()).unwrap_err();
            assert!(error.contains(name), "{}: {error}", specimen.name);
            tried += 1;
        }
        // Figures of the training change nothing.
        look(
            &changed("act_freq_scores", &numbers(&mut rng, f)),
            Wanted::default(),
        )
        .unwrap();
    }
    assert!(tried > 100, "{tried}");
    // An archive.
    let [enc, dec, b, t] = [d * f, d * f, f, f].map(|n| numbers(&mut rng, n));
    let b_dec = numbers(&mut rng, d);
    let arrays = [
        ("W_enc", vec![d, f], &enc[..]),
        ("W_dec", vec![f, d], &dec[..]),
        ("b_enc", vec![f], &b[..]),
        ("b_dec", vec![d], &b_dec[..]),
        ("threshold", vec![f], &t[..]),
        ("w_enc", vec![d, f], &enc[..]),
    ];
    for (count, refused) in [(5, false), (6, true)] {
        let file = npz(&arrays[..count], true, false);
        let folder = Folder::memory("layer_3", vec![("params.npz".into(), file)]);
        let found = look(&folder, Wanted::default());
        assert_eq!(found.is_err(), refused, "{found:?}");
    }
}

#[test]
fn settings_that_change_numbers_are_used_or_refused() {
    let mut rng = fresh_rng();
    let lens = zoo(&mut rng, 24, 40).remove(0);
    for (key, value, word) in [
        ("norm_scaling_factor", json!(0.5), "norm_scaling_factor"),
        ("hook_head_index", json!(3), "hook_head_index"),
        (
            "hook_name_out",
            json!("blocks.4.hook_mlp_out"),
            "transcoder",
        ),
        ("is_transcoder", json!(true), "transcoder"),
    ] {
        let mut cfg: serde_json::Value = serde_json::from_slice(&lens.files[0].1).unwrap();
        cfg[key] = value;
        let files = vec![
            ("cfg.json".into(), cfg.to_string().into_bytes()),
            lens.files[1].clone(),
        ];
        let error = look(&Folder::memory("zoo", files), Wanted::default()).unwrap_err();
        assert!(error.contains(word), "{key}: {error}");
    }
    // Python's JSON, with a mark at its beginning: harmless where the number is not needed, named where it is.
    let cfg = String::from_utf8(lens.files[0].1.clone()).unwrap();
    for (key, refused) in [
        ("\"lr\": NaN", false),
        ("\"norm_scaling_factor\": Infinity", true),
    ] {
        let text = format!("\u{FEFF}{}", cfg.replacen('{', &format!("{{{key},"), 1));
        let files = vec![
            ("cfg.json".into(), text.into_bytes()),
            lens.files[1].clone(),
        ];
        match look(&Folder::memory("zoo", files), Wanted::default()) {
            Ok(hook) => assert!(!refused && hook == specimen_hook(&lens), "{key}"),
            Err(error) => assert!(refused && error.contains("Infinity"), "{error}"),
        }
    }
    // saex's average norms are above zero.
    let old = zoo(&mut rng, 24, 40).into_iter();
    let old = old
        .filter(|s| s.name.starts_with("saex"))
        .min_by_key(|s| s.files[1].1.len());
    let mut files = old.unwrap().files;
    files[1].1 = with_tensor(&files[1].1, "mean_norm", &[-2.0]);
    let error = look(&Folder::memory("zoo", files), Wanted::default()).unwrap_err();
    assert!(error.contains("mean_norm is -2"), "{error}");
}

fn specimen_hook(specimen: &Specimen) -> Option<HookPoint> {
    specimen.layer.map(HookPoint::block)
}

/// sparsify's files, under a path.
fn sparsify(path: &str) -> Vec<(String, Vec<u8>)> {
    let all = zoo(&mut fresh_rng(), 8, 20);
    let one = all.into_iter().find(|s| s.name == "sparsify").unwrap();
    let own = one.files.into_iter();
    own.map(|(name, bytes)| (name.replace("layers.6/", path), bytes))
        .collect()
}

#[test]
fn a_folder_of_another_place_is_refused_wherever_it_is_to_steer() {
    let at = |layer| Some(HookPoint::block(layer));
    for name in [
        "layers.3.mlp",
        "layers.3.self_attn",
        "model.layers.3.input_layernorm",
        "blocks.3.hook_mlp_out",
        "blocks.3.hook_resid_mid",
        "blocks.0.hook_resid_pre",
        "layer-3-transcoder",
    ] {
        let folder = Folder::memory(&format!("saes/{name}"), sparsify(""));
        for hook in [None, at(3), at(4)] {
            let wanted = Wanted {
                hook,
                ..Wanted::default()
            };
            let found = block_on(find(&folder, &wanted));
            let Err(error @ SaeError::Hook { .. }) = found else {
                panic!("{name} was accepted");
            };
            assert!(error.to_string().contains(name), "{error}");
        }
        // Someone who says where it is to go, whatever it is, is obeyed.
        let placed = Wanted {
            place: at(4),
            ..Wanted::default()
        };
        assert_eq!(look(&folder, placed), Ok(at(4)));
        // Inside a repository: alone it is refused, beside a dictionary of the stream it is none.
        let mut files = sparsify(&format!("{name}/"));
        let repository = |files: &Vec<_>| Folder::memory("repository", files.clone());
        let error = look(&repository(&files), Wanted::default()).unwrap_err();
        assert!(error.contains(name), "{error}");
        files.extend(sparsify("layers.5/"));
        for hook in [None, at(5)] {
            let wanted = Wanted {
                hook,
                ..Wanted::default()
            };
            assert_eq!(look(&repository(&files), wanted), Ok(at(5)), "{name}");
        }
    }
}
