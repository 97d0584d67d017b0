//! Chats with the nano model: `cargo run --release --example chat -- "What is the capital of France?"`

use std::cell::Cell;
use std::error::Error;
use std::path::Path;
use std::rc::Rc;

use phi3_steer::checkpoint::Folder;
use phi3_steer::generate::{Chat, ChatRequest, Event, Sampling};
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::phi3::{Model, ModelFiles, ModelOptions};
use phi3_steer::steering::Steering;
use phi3_steer::tokens::{Message, Role};

/// The answer to `question`.
pub async fn answer(question: &str) -> Result<String, Box<dyn Error>> {
    let files = ModelFiles::open(&Folder::directory(Path::new("models/nano"))).await?;
    let tokenizer = Rc::new(files.tokenizer().await?);
    let gpu = Rc::new(Gpu::open(&GpuOptions::default()).await?);
    let (config, checkpoint) = (files.config.clone(), &files.checkpoint);
    let options = ModelOptions {
        lanes: 1,
        ..ModelOptions::default()
    };
    let model = Model::from_checkpoint(gpu, config, checkpoint, options).await?;
    let steering = Steering::new(&model, Vec::new()).await?;
    let mut chat = Chat::new(model, tokenizer, steering).await?;

    let message = Message {
        role: Role::User,
        content: question.into(),
    };
    let prompts = [chat.tokenizer().chat(&[message], true)?];
    let request = ChatRequest {
        prompts: &prompts,
        max_tokens: 40,
        sampling: Sampling::default(),
        features: None,
        logprobs: None,
        cancel: Rc::new(Cell::new(false)),
    };
    let mut said = String::new();
    let mut hear = |event| {
        if let Event::Token { text, .. } | Event::Done { text, .. } = event {
            said += &text;
        }
    };
    chat.run(&request, &mut hear).await?;
    Ok(said)
}

#[allow(dead_code, reason = "the tests run what is above")]
fn main() -> Result<(), Box<dyn Error>> {
    let question = std::env::args().nth(1);
    let question = question
        .as_deref()
        .unwrap_or("What is the capital of France?");
    println!("{}", pollster::block_on(answer(question))?);
    Ok(())
}
