//! Trains the nano model and its dictionary from a seed, from nothing but its own synthetic text:
//! `cargo run --profile tool --features train --bin nano-train -- --seed 1 --out models/nano`

mod corpus;
mod dictionary;
mod evalset;
mod export;
mod infer;
mod linalg;
mod measure;
mod model;
mod ops;
mod optim;
mod sae;
mod search;
mod steering;
mod tokenizer;
mod train;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use corpus::Split;
use rand::SeedableRng;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Errors end the program with their message.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Dialogues that the tokenizer is trained on.
const TOKENIZER_DIALOGUES: usize = 30_000;

/// Makes the nano model: corpus, tokenizer, model, dictionaries, feature search, evaluation sets.
#[derive(Parser)]
struct Args {
    /// Seed of the corpus, the initial weights, the perturbations and the dictionaries.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the shipped files go.
    #[arg(long, default_value = "models/nano")]
    out: PathBuf,
    /// Where checkpoints go; an interrupted run goes on from here.
    #[arg(long, default_value = "target/nano-train")]
    work: PathBuf,
    /// Optimiser steps of about 4,000 tokens.
    #[arg(long, default_value_t = 877)]
    steps: usize,
    /// Threads; the result does not depend on their number.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// What to do.
    #[arg(long, value_enum, default_value_t = Stage::All)]
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Everything: the model, then the dictionaries and the search.
    All,
    /// Print some dialogues.
    Show,
    /// Write dialogues that a dictionary is trained on, as `train-sae --chats` reads them.
    Chats,
    /// Tokenizer, evaluation prompts and model.
    Model,
    /// Dictionaries of the newest checkpoint and the search for the refusal feature.
    Search,
    /// Print the newest checkpoint's figures on the validation sets, at 4 bits.
    Measure,
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.out)?;
    std::fs::create_dir_all(&args.work)?;
    let tables = corpus::Tables::load();
    if args.stage == Stage::Show {
        show(&tables, args.seed);
        return Ok(());
    }
    if args.stage == Stage::Chats {
        return export::write_chats(&args.work.join("chats.jsonl"), &tables, args.seed);
    }
    let (validation, test) = (
        evalset::build(&tables, Split::Validation),
        evalset::build(&tables, Split::Test),
    );
    export::write_json(
        &args.out.join("eval.json"),
        &evalset::document(&validation, &test),
    )?;
    let path = args.out.join("tokenizer.json");
    if !path.exists() {
        export::write_json(
            &path,
            &tokenizer::train(&tables, model::NANO.vocab, TOKENIZER_DIALOGUES, args.seed)?,
        )?;
    }
    export::write_json(
        &args.out.join("tokenizer_config.json"),
        &tokenizer::config(model::NANO.positions),
    )?;
    let tokenizer = tokenizer::ChatTokenizer::load(&path)?;
    let model = model::Model::new(model::NANO, args.seed)?;
    if matches!(args.stage, Stage::All | Stage::Model) {
        train::train(
            &model,
            &tables,
            &tokenizer,
            args.seed,
            args.steps,
            args.threads,
            &args.work,
        )?;
        export::write_model(&args.out, &model, &tokenizer)?;
    } else {
        let checkpoint = args.work.join("checkpoint.safetensors");
        export::read_parameters(&std::fs::read(checkpoint)?, &model)?;
    }
    if args.stage == Stage::Measure {
        let net = infer::Net::new(&model, infer::as_in_engine)?;
        let bench = measure::Bench::new(&net, &tokenizer, &validation, 0, usize::MAX, |_| true)?;
        println!("{}", bench.measure(None)?.line());
        for line in bench.samples(None, 3)? {
            println!("{line}");
        }
    }
    if matches!(args.stage, Stage::All | Stage::Search) {
        steering::run(&steering::Setup {
            model: &model,
            tables: &tables,
            tokenizer: &tokenizer,
            validation: &validation,
            seed: args.seed,
            threads: args.threads,
            work: &args.work,
            out: &args.out,
        })?;
    }
    Ok(())
}

/// Prints some dialogues of the corpus.
fn show(tables: &corpus::Tables, seed: u64) {
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    for _ in 0..60 {
        for (user, assistant) in tables.dialogue(&mut rng).turns {
            println!("user: {user}\n    {assistant}");
        }
        println!();
    }
}
