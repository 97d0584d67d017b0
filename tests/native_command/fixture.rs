//! A random model and dictionary on disk, and the command's binary.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde_json::{Value, json};

pub const HIDDEN: usize = 64;
pub const INNER: usize = 96;
pub const LAYERS: usize = 2;
pub const POSITIONS: usize = 400;
pub const LATENTS: usize = 101;
pub const K: usize = 7;

/// A tensor in f32 with its shape.
pub type Tensor = (Vec<usize>, Vec<f32>);

/// A random model and dictionary on disk.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub rng: StdRng,
    pub vocab: usize,
    pub model: HashMap<String, Tensor>,
    pub sae: HashMap<String, Tensor>,
}

pub fn nano(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/nano")
        .join(file)
}

pub fn write(path: &Path, tensors: &HashMap<String, Tensor>) {
    let views = tensors.iter().map(|(name, (shape, values))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
        (name.as_str(), view.unwrap())
    });
    serialize_to_file(views, None, path).unwrap();
}

pub fn read(path: &Path) -> HashMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        assert_eq!(view.dtype(), Dtype::F32);
        let values = bytemuck::pod_collect_to_vec(view.data());
        (name.to_string(), (view.shape().to_vec(), values))
    });
    tensors.collect()
}

impl Fixture {
    pub fn new() -> Self {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let tokenizer: Value =
            serde_json::from_slice(&std::fs::read(nano("tokenizer.json")).unwrap()).unwrap();
        let added = tokenizer["added_tokens"].as_array().unwrap();
        let last = added
            .iter()
            .map(|t| t["id"].as_u64().unwrap())
            .max()
            .unwrap();
        let vocab = last as usize + 1;
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(nano(file), dir.path().join(file)).unwrap();
        }
        let config = json!({
            "model_type": "phi3", "vocab_size": vocab, "hidden_size": HIDDEN,
            "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
            "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "max_position_embeddings": POSITIONS, "tie_word_embeddings": false, "bos_token_id": 1,
        });
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let mut draw = |shape: &[usize], scale: f32, around: f32| -> Tensor {
            let n = shape.iter().product();
            let values = (0..n).map(|_| around + scale * rng.random_range(-1.0f32..1.0));
            (shape.to_vec(), values.collect())
        };
        let mut model = HashMap::new();
        let mut add = |name: String, tensor| model.insert(name, tensor);
        add(
            "model.embed_tokens.weight".into(),
            draw(&[vocab, HIDDEN], 1.0, 0.0),
        );
        for layer in 0..LAYERS {
            for (name, rows, cols) in [
                ("self_attn.qkv_proj", 2 * HIDDEN, HIDDEN),
                ("self_attn.o_proj", HIDDEN, HIDDEN),
                ("mlp.gate_up_proj", 2 * INNER, HIDDEN),
                ("mlp.down_proj", HIDDEN, INNER),
            ] {
                let tensor = draw(&[rows, cols], 0.3, 0.0);
                add(format!("model.layers.{layer}.{name}.weight"), tensor);
            }
            for name in ["input_layernorm", "post_attention_layernorm"] {
                let tensor = draw(&[HIDDEN], 0.2, 1.0);
                add(format!("model.layers.{layer}.{name}.weight"), tensor);
            }
        }
        add("model.norm.weight".into(), draw(&[HIDDEN], 0.2, 1.0));
        add("lm_head.weight".into(), draw(&[vocab, HIDDEN], 0.3, 0.0));
        write(&dir.path().join("model.safetensors"), &model);
        let sae = HashMap::from([
            (
                "encoder.weight".to_string(),
                draw(&[LATENTS, HIDDEN], 0.3, 0.0),
            ),
            ("encoder.bias".to_string(), draw(&[LATENTS], 0.3, 0.0)),
            ("W_dec".to_string(), draw(&[LATENTS, HIDDEN], 0.3, 0.0)),
            ("b_dec".to_string(), draw(&[HIDDEN], 0.3, 0.0)),
        ]);
        let folder = dir.path().join("sae/layers.0");
        std::fs::create_dir_all(&folder).unwrap();
        write(&folder.join("sae.safetensors"), &sae);
        let config = json!({"activation": "topk", "expansion_factor": 32, "num_latents": LATENTS,
            "k": K, "signed": false, "d_in": HIDDEN});
        std::fs::write(folder.join("cfg.json"), config.to_string()).unwrap();
        Self {
            dir,
            rng,
            vocab,
            model,
            sae,
        }
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().into()
    }

    pub fn model_dir(&self) -> String {
        self.dir.path().to_str().unwrap().into()
    }

    /// The beginning of the sequence, then random tokens.
    pub fn ids(&mut self, n: usize) -> Vec<u32> {
        let last = self.vocab as u32;
        let draws = (1..n).map(|_| self.rng.random_range(3..last));
        std::iter::once(1)
            .chain(draws.collect::<Vec<_>>())
            .collect()
    }

    /// Runs `logits` with further arguments.
    pub fn logits(&self, ids: &[u32], more: &[&str]) -> HashMap<String, Tensor> {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        let out = self.path("out.safetensors");
        let (model, ids) = (self.model_dir(), ids.join(","));
        let mut args = vec!["logits", "--model", &model, "--ids", &ids, "--out", &out];
        args.extend(more);
        succeed(&args, "");
        read(Path::new(&out))
    }
}

/// The command on a software adapter, as on a machine without a desktop.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phi3-steer"));
    command
        .arg("--cpu-adapter")
        .args(args)
        .env_remove("XDG_RUNTIME_DIR");
    command
}

pub fn run(args: &[&str], stdin: &str) -> Output {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A command that fails early does not read its input.
    let _ = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    child.wait_with_output().unwrap()
}

pub fn succeed(args: &[&str], stdin: &str) -> String {
    let output = run(args, stdin);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The arguments of a command line without spaces in them.
pub fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// What a command line that succeeds prints.
#[track_caller]
pub fn done(line: &str) -> String {
    succeed(&words(line), "")
}

/// The sentence with which a command line fails.
#[track_caller]
pub fn refused(line: &str) -> String {
    let output = run(&words(line), "");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}: {stderr}");
    stderr
}

/// What is in a folder: files by their bytes, links by where they lead.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            let inside = contents(&path).into_iter();
            all.extend(inside.map(|(own, bytes)| (format!("{name}/{own}"), bytes)));
        } else if kind.is_symlink() {
            let to = std::fs::read_link(&path).unwrap();
            all.insert(name, format!("-> {}", to.display()).into_bytes());
        } else {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}

/// A folder beside the fixture's with the model's files and nothing else.
pub fn copy(f: &Fixture, name: &str) -> String {
    let to = f.path(name);
    std::fs::create_dir(&to).unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(f.path(file), Path::new(&to).join(file)).unwrap();
    }
    to
}

/// Makes a named pipe.
pub fn make_fifo(path: &str) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}
