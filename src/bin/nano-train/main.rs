//! Trains the nano model and its dictionary from a seed, from nothing but its own synthetic text:
//! `cargo run --profile tool --features train --bin nano-train -- --seed 1 --out models/nano`

mod corpus;
mod evalset;
mod export;
mod linalg;
mod model;
mod ops;
mod optim;
mod tokenizer;
mod train;

use std::path::PathBuf;

use clap::Parser;
use corpus::Split;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Errors end the program with their message.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Dialogues that the tokenizer is trained on.
const TOKENIZER_DIALOGUES: usize = 30_000;

/// Makes the nano model: corpus, tokenizer, model, dictionaries, feature search, evaluation sets.
#[derive(Parser)]
struct Args {
    /// Seed of the corpus, the initial weights and the perturbations.
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
    /// Print some dialogues and stop.
    #[arg(long)]
    show: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.out)?;
    std::fs::create_dir_all(&args.work)?;
    let tables = corpus::Tables::load();
    if args.show {
        use rand::SeedableRng;
        let mut rng = rand::rngs::StdRng::seed_from_u64(args.seed);
        for _ in 0..60 {
            for (user, assistant) in tables.dialogue(&mut rng).turns {
                println!("user: {user}\n    {assistant}");
            }
            println!();
        }
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
    if args.show {
        return Ok(());
    }
    let model = model::Model::new(model::NANO, args.seed)?;
    train::train(
        &model,
        &tables,
        &tokenizer,
        args.seed,
        args.steps,
        args.threads,
        &args.work,
    )?;
    export::write_model(&args.out, &model, &tokenizer)
}
