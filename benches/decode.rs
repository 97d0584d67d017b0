//! How fast the engine is on this machine: loading, prefill, decoding in 1, 2 and 8 lanes, with steering
//! off, on, and with features watched; beside the times what does not depend on the machine.
//!
//! `cargo bench --bench decode [-- --cpu-adapter]` prints a table and appends it to BENCHMARKS.md.
#![cfg(not(target_arch = "wasm32"))]

#[path = "../tests/support/mod.rs"]
mod support;

use std::cell::Cell;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use phi3_steer::checkpoint::Folder;
use phi3_steer::generate::{Chat, ChatRequest, FeatureWish, Sampling, Stats};
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::phi3::{Model, ModelOptions};
use phi3_steer::sae::{Dictionary, HookPoint, Wanted};
use phi3_steer::steering::{Intervention, Operator, Steering};
use phi3_steer::tokens::{ChatTokenizer, Prompt, TokenRole};
use pollster::block_on;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use support::checkpoint::{RandomModel, config};
use support::dictionary::RandomDictionary;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Tokens of a prompt.
const PROMPT: usize = 128;
/// Tokens of an answer.
const ANSWER: usize = 32;
/// Times that each figure is measured; the median counts.
const REPEATS: usize = 3;

/// A model's files and its dictionary's.
struct Subject {
    name: String,
    model: Folder,
    sae: Folder,
    tokenizer: Rc<ChatTokenizer>,
}

/// What is asked of the steering.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Off,
    Clamp,
    Watched,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Clamp => "clamp, every lane",
            Mode::Watched => "features watched",
        }
    }
}

/// One line of the table.
struct Line {
    lanes: usize,
    mode: Mode,
    /// Prompt tokens a second, over all lanes.
    prefill: f64,
    /// Time of a decode pass.
    pass: Duration,
    dispatches: u64,
    /// Bytes of weights and cache a pass reads.
    bytes: u64,
}

fn main() -> Outcome<()> {
    let cpu_adapter = std::env::args().any(|a| a == "--cpu-adapter");
    let mut report = String::new();
    for subject in subjects()? {
        block_on(measure(&subject, cpu_adapter, &mut report))?;
    }
    print!("{report}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("BENCHMARKS.md");
    let before = std::fs::read_to_string(&path).unwrap_or_else(|_| "# Benchmarks\n\n".into());
    std::fs::write(&path, before + &report)?;
    println!("appended to {}", path.display());
    Ok(())
}

/// The shipped model, and a larger one of random weights.
fn subjects() -> Outcome<Vec<Subject>> {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano");
    let read = |name: &str| std::fs::read(nano.join(name));
    let tokenizer = ChatTokenizer::from_json(
        &read("tokenizer.json")?,
        Some(&read("tokenizer_config.json")?),
    )?;
    let tokenizer = Rc::new(tokenizer);
    let rng = &mut StdRng::seed_from_u64(1);
    let json = config(json!({
        "vocab_size": 8192, "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 4,
        "num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 96,
        "max_position_embeddings": 1024
    }));
    let random = RandomModel::new(rng, json);
    let millions = random.config.parameters() / 1_000_000;
    let dictionary = RandomDictionary::new(rng, random.config.hidden_size, 8 * 1152, 32);
    Ok(vec![
        Subject {
            name: "nano".into(),
            model: Folder::directory(&nano),
            sae: Folder::directory(nano.join("sae")),
            tokenizer: tokenizer.clone(),
        },
        Subject {
            name: format!("random, {millions} M parameters"),
            model: random.folder(),
            sae: Folder::memory("a random dictionary", dictionary.files("layers.2/")),
            tokenizer,
        },
    ])
}

async fn measure(subject: &Subject, cpu_adapter: bool, report: &mut String) -> Outcome<()> {
    let mut lines = Vec::new();
    let mut head = String::new();
    for lanes in [1, 2, 8] {
        let started = Instant::now();
        let options = GpuOptions {
            cpu_adapter,
            ..GpuOptions::default()
        };
        let gpu = Rc::new(Gpu::open(&options).await?);
        let opened = started.elapsed();
        let options = ModelOptions {
            lanes,
            ..ModelOptions::default()
        };
        let model = Model::load(gpu.clone(), &subject.model, options).await?;
        let loaded = started.elapsed();
        let wanted = Wanted {
            hook: None,
            width: Some(model.config().hidden_size),
            layers: Some(model.config().num_hidden_layers),
            ..Wanted::default()
        };
        let dictionary = Dictionary::find(&gpu, &subject.sae, wanted).await?;
        let (latents, k) = (dictionary.latents(), dictionary.k());
        let steering = Steering::new(&model, vec![dictionary]).await?;
        let steered = started.elapsed();
        let mut chat = Chat::new(model, subject.tokenizer.clone(), steering).await?;
        run(&mut chat, Mode::Off, 2).await?;
        let ready = started.elapsed();
        if lanes == 1 {
            let c = chat.model().config();
            let capabilities = gpu.capabilities();
            writeln!(
                head,
                "### {}\n\n{}, {:?} and {:?} products, {:?} reductions{}; commit {}.\n\n\
                 {} blocks, width {}, vocabulary {}, 4-bit weights, dictionary of {latents} latents with \
                 k {k}; prompts of {PROMPT} tokens, answers of {ANSWER}, greedy.\n\n\
                 Loading: device {}, model (kernels, quantising, upload) {}, dictionary {}, first tokens {}. \
                 Copies within GPU memory reach {:.1} GB/s.\n",
                subject.name,
                capabilities.name,
                capabilities.few_rows,
                capabilities.many_rows,
                capabilities.reduction,
                if capabilities.f16 { ", f16" } else { "" },
                commit(),
                c.num_hidden_layers,
                c.hidden_size,
                c.vocab_size,
                seconds(opened),
                seconds(loaded - opened),
                seconds(steered - loaded),
                seconds(ready - steered),
                copy_bandwidth(&gpu).await? / 1e9,
            )?;
        }
        for mode in [Mode::Off, Mode::Clamp, Mode::Watched] {
            lines.push(line(&mut chat, mode).await?);
        }
        drop(chat);
        gpu.destroy();
    }
    report.push_str(&head);
    table(report, &lines, minimum(subject).await?)
}

fn table(report: &mut String, lines: &[Line], minimum: impl Fn(usize) -> f64) -> Outcome<()> {
    report.push_str(
        "| lanes | steering | prefill tokens/s | decode passes/s | tokens/s, all lanes | pass, to the first line's | \
         dispatches a pass | weights and cache a pass | to the least | GB/s |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for l in lines {
        let pass = l.pass.as_secs_f64();
        writeln!(
            report,
            "| {} | {} | {:.0} | {:.1} | {:.1} | {:.2} | {} | {:.2} MB | {:.2} | {:.2} |",
            l.lanes,
            l.mode.name(),
            l.prefill,
            1.0 / pass,
            l.lanes as f64 / pass,
            pass / lines[0].pass.as_secs_f64(),
            l.dispatches,
            l.bytes as f64 / 1e6,
            l.bytes as f64 / minimum(l.lanes),
            l.bytes as f64 / pass / 1e9,
        )?;
    }
    report.push_str(
        "\nOne submission and one readback a pass, three passes in flight. The least: each weight once at \
         4.5 bits, keys and values once at 16. A watching or clamping pass reads the dictionary's encoder \
         as well, which these bytes leave out.\n\n",
    );
    Ok(())
}

/// The least bytes that a pass of so many lanes can read.
async fn minimum(subject: &Subject) -> Outcome<impl Fn(usize) -> f64> {
    let json = subject.model.require_bytes("config.json", 1 << 20).await?;
    let c = phi3_steer::phi3::Config::from_json(&json)?;
    let gathered = match c.tie_word_embeddings {
        true => 0,
        false => c.vocab_size * c.hidden_size,
    };
    let weights = (c.parameters() - gathered as u64) as f64 * 4.5 / 8.0;
    let position = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * 2;
    Ok(move |lanes| weights + (lanes * position * seen().min(c.window())) as f64)
}

/// Positions that a token in the middle of an answer sees.
fn seen() -> usize {
    PROMPT + ANSWER / 2
}

async fn line(chat: &mut Chat, mode: Mode) -> Outcome<Line> {
    let lanes = chat.model().lanes();
    let point = chat.steering().points()[0];
    for lane in 0..lanes {
        let clamp = Intervention::new(point, 0, Operator::Clamp, Some(0.5));
        let list = if mode == Mode::Clamp {
            vec![clamp]
        } else {
            Vec::new()
        };
        chat.steering().set(lane, &list)?;
    }
    run(chat, mode, 2).await?;
    let (mut prefills, mut passes) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        chat.reset();
        prefills.push(run(chat, mode, 0).await?.prefill);
        let whole = run(chat, mode, ANSWER).await?;
        passes.push(whole.decode / whole.passes as u32);
    }
    // A longer answer has only more passes; the first step of an answer needs none.
    let mut recorded = Vec::new();
    for passes in [2, 3] {
        let before = chat.model().gpu().dispatches();
        run(chat, mode, passes).await?;
        recorded.push(chat.model().gpu().dispatches() - before);
    }
    prefills.sort();
    passes.sort();
    Ok(Line {
        lanes,
        mode,
        prefill: (lanes * PROMPT) as f64 / prefills[REPEATS / 2].as_secs_f64(),
        pass: passes[REPEATS / 2],
        dispatches: recorded[1] - recorded[0],
        bytes: chat.model().decode_bytes(seen()),
    })
}

/// Answers random prompts, another in each lane.
async fn run(chat: &mut Chat, mode: Mode, max_tokens: usize) -> Outcome<Stats> {
    let vocab = chat.model().config().vocab_size as u32;
    let rng = &mut StdRng::seed_from_u64(2);
    let prompts: Vec<Prompt> = (0..chat.model().lanes())
        .map(|_| Prompt {
            ids: (0..PROMPT).map(|_| rng.random_range(0..vocab)).collect(),
            roles: vec![TokenRole::Prompt; PROMPT],
        })
        .collect();
    let hook: HookPoint = chat.steering().points()[0];
    let request = ChatRequest {
        prompts: &prompts,
        max_tokens,
        sampling: Sampling::default(),
        features: (mode == Mode::Watched).then_some(FeatureWish { hook, track: None }),
        cancel: Rc::new(Cell::new(false)),
    };
    Ok(chat.run(&request, &mut |_| {}).await?)
}

/// Bytes a second that copies within the GPU's memory read.
async fn copy_bandwidth(gpu: &Gpu) -> Outcome<f64> {
    const BYTES: u64 = 64 << 20;
    const COPIES: u64 = 8;
    let from = gpu.storage("copied", BYTES)?;
    let to = gpu.storage("copy", BYTES)?;
    let copy = |times: u64| {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for _ in 0..times {
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, BYTES);
        }
        gpu.queue().submit([encoder.finish()]);
    };
    copy(1);
    gpu.finish().await?;
    let started = Instant::now();
    copy(COPIES);
    gpu.finish().await?;
    Ok((BYTES * COPIES) as f64 / started.elapsed().as_secs_f64())
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// The commit that is measured, or the version where there is no repository.
fn commit() -> String {
    let git = std::process::Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
        ])
        .output();
    match git {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().into(),
        _ => env!("CARGO_PKG_VERSION").into(),
    }
}
