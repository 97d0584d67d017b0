//! What is there stays until its successor stands, for every subcommand that writes.

use std::path::Path;

use serde_json::json;

use crate::fixture::*;

#[test]
fn a_source_that_fails_costs_the_target_nothing() {
    let f = Fixture::new();
    let (model, out) = (f.model_dir(), f.path("out"));
    done(&format!("convert --model {model} --out {out}"));
    std::fs::write(f.path("out/notes.txt"), "mine").unwrap();
    let before = contents(Path::new(&out));

    // More blocks than weights.
    let deep = copy(&f, "deep");
    let config = std::fs::read_to_string(f.path("deep/config.json")).unwrap();
    let config = config.replace("\"num_hidden_layers\":2", "\"num_hidden_layers\":7");
    std::fs::write(f.path("deep/config.json"), config).unwrap();
    // Weights that end early, found out in the middle of the writing.
    let torn = copy(&f, "torn");
    let weights = f.path("torn/model.safetensors");
    let len = std::fs::metadata(&weights).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&weights);
    file.unwrap().set_len(len - 5_000).unwrap();
    let mute = copy(&f, "mute");
    std::fs::remove_file(f.path("mute/tokenizer.json")).unwrap();
    let nowhere = f.path("nowhere");
    let gguf = f.path("old/out.gguf");
    std::fs::create_dir(f.path("old")).unwrap();
    std::fs::write(&gguf, "old").unwrap();
    for source in [&deep, &torn, &mute, &nowhere] {
        for line in [
            format!("convert --model {source} --out {out} --force"),
            format!("synth --weights {source} --format planes --out {out} --force"),
            format!("synth --weights {source} --format safetensors --out {out} --force"),
        ] {
            refused(&line);
            assert!(contents(Path::new(&out)) == before, "{line}");
        }
        let line = format!("synth --weights {source} --format gguf-f32 --out {gguf} --force");
        refused(&line);
        assert_eq!(std::fs::read(&gguf).unwrap(), b"old", "{line}");
        assert_eq!(std::fs::read_dir(f.path("old")).unwrap().count(), 1);
        let fresh = f.path("fresh/deeper");
        refused(&format!("convert --model {source} --out {fresh}"));
        assert!(!Path::new(&f.path("fresh")).exists(), "{source}");
    }
    let line = format!("synth-sae --format saex --from {nowhere} --out {out} --force");
    assert!(refused(&line).contains("nowhere"));
    assert!(contents(Path::new(&out)) == before);
}

#[test]
fn a_successor_takes_the_place_as_a_whole() {
    let f = Fixture::new();
    let (model, out) = (f.model_dir(), f.path("out"));
    let convert = format!("convert --model {model} --out {out}");
    done(&convert);
    let mut expected = contents(Path::new(&out));
    // Of an older and larger model, and not of any.
    for (name, text) in [
        ("model-00009-of-00009.safetensors", "old"),
        ("generation_config.json", "{}"),
        ("model.gguf", "kept"),
        ("notes.txt", "kept"),
    ] {
        std::fs::write(Path::new(&out).join(name), text).unwrap();
    }
    assert!(refused(&convert).contains("--force"));
    done(&format!("{convert} --force"));
    expected.insert("model.gguf".into(), b"kept".into());
    expected.insert("notes.txt".into(), b"kept".into());
    assert!(contents(Path::new(&out)) == expected);
    // Another form in the same place.
    done(&format!(
        "synth --weights {model} --format safetensors --out {out} --force"
    ));
    let names: Vec<String> = contents(Path::new(&out)).into_keys().collect();
    let left = [
        "config.json",
        "model.gguf",
        "model.safetensors",
        "notes.txt",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, left);

    let (from, sae) = (f.path("sae/layers.0"), f.path("dictionary"));
    let synth = format!("synth-sae --format saex --from {from} --out {sae}");
    let folder = done(&synth);
    std::fs::write(Path::new(folder.trim()).join("notes.txt"), "kept").unwrap();
    let before = contents(Path::new(&sae));
    assert!(refused(&synth).contains("--force"));
    done(&format!("{synth} --force"));
    assert!(contents(Path::new(&sae)) == before);
}

#[test]
fn what_is_read_is_never_written_over() {
    let f = Fixture::new();
    let (model, sae, x) = (f.model_dir(), f.path("sae"), f.path("x.safetensors"));
    let tensors = [("x".to_string(), (vec![2, HIDDEN], vec![0.5; 2 * HIDDEN]))];
    write(Path::new(&x), &tensors.into());
    let ask = json!([{"messages": [{"role": "user", "content": "a"}]}]);
    let sets = json!([{"name": "direct", "kind": "refuse", "items": ask}]);
    let eval =
        json!({"version": 1, "judge": {"max_new_tokens": 2}, "splits": {"test": {"sets": sets}}});
    std::fs::write(f.path("eval.json"), eval.to_string()).unwrap();
    let gguf = f.path("model.gguf");
    done(&format!(
        "synth --weights {model} --format gguf-f32 --out {gguf}"
    ));
    let before = contents(f.dir.path());
    let (weights, config, prompts) = (
        f.path("model.safetensors"),
        f.path("config.json"),
        f.path("eval.json"),
    );
    let latents = f.path("sae/layers.0/sae.safetensors");
    let eval = format!("eval --model {model} --sae {sae} --hook layers.0 --feature 1");
    for line in [
        format!("convert --model {model} --out {model} --force"),
        format!("synth --weights {model} --format planes --out {model} --force"),
        format!("synth --weights {gguf} --format gguf-q8_0 --out {gguf} --force"),
        format!("synth --weights {model} --format gguf-q8_0 --out {weights} --force"),
        format!("synth-sae --from {sae}/layers.0 --format sparsify --out {model}/sae --force"),
        format!("logits --model {model} --ids 1 --out {weights}"),
        format!("logits --model {gguf} --ids 1 --out {gguf}"),
        format!("encode --sae {sae} --in {x} --out {x}"),
        format!("encode --sae {sae} --in {x} --out {latents}"),
        format!("{eval} --out {prompts}"),
        format!("{eval} --out {config}"),
    ] {
        let line = line.replace("--format sparsify", "--format sparsify --hook layers.0");
        let refusal = refused(&line);
        assert!(refusal.contains("another place"), "{line}: {refusal}");
        assert!(contents(f.dir.path()) == before, "{line}");
    }
    // The place of an earlier answer is no source.
    let logits = f.path("logits.safetensors");
    for _ in 0..2 {
        done(&format!("logits --model {model} --ids 1 --out {logits}"));
    }
}
