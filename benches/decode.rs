//! Speed of the nano model on this machine: `make bench`.
//!
//! One line per number of lanes: tokens per second while reading a prompt and while answering,
//! over all lanes, the best of three runs.

use std::cell::Cell;
use std::error::Error;
use std::path::Path;
use std::rc::Rc;

use phi3_steer::checkpoint::{Folder, MAX_JSON, MAX_TOKENIZER};
use phi3_steer::generate::{Chat, ChatRequest, Sampling};
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::phi3::{Model, ModelOptions};
use phi3_steer::steering::Steering;
use phi3_steer::tokens::{ChatTokenizer, Message, Role};

/// Tokens of an answer; the sampling below keeps the model talking.
const ANSWER: usize = 64;
/// Words of the prompt, about one token each.
const PROMPT_WORDS: usize = 150;
const RUNS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    pollster::block_on(measure())
}

async fn measure() -> Result<(), Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano");
    let gpu = Rc::new(Gpu::open(&GpuOptions::default()).await?);
    let adapter = gpu.capabilities();
    println!(
        "{} ({}), f16 {}, {:?}, decode {:?}, prefill {:?}",
        adapter.name,
        adapter.backend,
        adapter.f16,
        adapter.reduction,
        adapter.few_rows,
        adapter.many_rows
    );
    println!("lanes  prompt tokens/s  answer tokens/s  ms a pass");
    for lanes in [1, 2, 4, 8] {
        let folder = Folder::directory(&path);
        let json = folder
            .require_bytes("tokenizer.json", MAX_TOKENIZER)
            .await?;
        let config = folder
            .require_bytes("tokenizer_config.json", MAX_JSON)
            .await?;
        let tokenizer = Rc::new(ChatTokenizer::from_json(&json, Some(&config))?);
        let options = ModelOptions {
            lanes,
            ..ModelOptions::default()
        };
        let model = Model::load(gpu.clone(), &folder, options).await?;
        let steering = Steering::new(&model, vec![]).await?;
        let mut chat = Chat::new(model, tokenizer.clone(), steering).await?;
        let words = ["tell", "me", "about", "bread"];
        let content = words
            .iter()
            .cycle()
            .take(PROMPT_WORDS)
            .copied()
            .collect::<Vec<_>>();
        let message = Message {
            role: Role::User,
            content: content.join(" "),
        };
        let prompt = tokenizer.chat(&[message], true)?;
        let request = ChatRequest {
            prompts: &vec![prompt; lanes],
            max_tokens: ANSWER,
            sampling: Sampling {
                temperature: 100.0,
                ..Sampling::default()
            },
            features: None,
            cancel: Rc::new(Cell::new(false)),
        };
        let (mut reading, mut answering, mut pass) = (0.0_f64, 0.0_f64, f64::INFINITY);
        for _ in 0..RUNS {
            chat.reset();
            let stats = chat.run(&request, &mut |_| ()).await?;
            reading = reading.max(stats.prefilled as f64 / stats.prefill.as_secs_f64());
            answering = answering.max(stats.generated as f64 / stats.decode.as_secs_f64());
            pass = pass.min(1e3 * stats.decode.as_secs_f64() / stats.passes as f64);
        }
        println!("{lanes:5}  {reading:15.0}  {answering:15.1}  {pass:9.2}");
    }
    Ok(())
}
