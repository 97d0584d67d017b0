//! `phi3-steer generate`

use std::cell::Cell;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;

use phi3_steer::generate::{Chat, ChatRequest, DoneReason, Event, Sampling, Stats};
use phi3_steer::phi3::ModelFiles;
use phi3_steer::tokens::{ChatTokenizer, Message, Role};
use serde_json::{Value, json};

use super::Failure;
use super::common::{
    ModelArguments, SteerArguments, load_files, load_steering, model_folder, open_gpu,
    parse_messages, read_file,
};

const EXAMPLES: &str = "Examples:
  phi3-steer generate --model models/nano --prompt \"What is the capital of France?\"
  phi3-steer generate --model models/nano --messages chat.json --temperature 0.7 --top-p 0.9 --seed 7
  phi3-steer generate --model models/nano --prompt \"Hi\" --json \\
      --sae models/nano/sae --steer layers.3:1415:clamp:8
A file of messages: [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\":
\"Hello!\"}, {\"role\": \"user\", \"content\": \"How are you?\"}]";

/// An answer as it is generated: text on stdout, or JSON lines in the form of the page's chat events.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A conversation, a JSON list of messages.
    #[arg(long, value_name = "FILE", required_unless_present = "prompt")]
    messages: Option<PathBuf>,
    /// One message of the user's.
    #[arg(long, value_name = "TEXT", conflicts_with = "messages")]
    prompt: Option<String>,
    #[command(flatten)]
    steer: SteerArguments,
    /// Tokens of the answer at most.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// What logits are divided by; 0 takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = Sampling::default().temperature)]
    temperature: f32,
    /// Only the so many likeliest tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = Sampling::default().top_k)]
    top_k: u32,
    /// Only the likeliest tokens that together reach this probability.
    #[arg(long, value_name = "P", default_value_t = Sampling::default().top_p)]
    top_p: f32,
    /// Only tokens at least this likely, as a share of the likeliest.
    #[arg(long, value_name = "P", default_value_t = Sampling::default().min_p)]
    min_p: f32,
    /// What the logits of tokens seen before are divided by.
    #[arg(long, value_name = "R", default_value_t = Sampling::default().repetition_penalty)]
    repetition_penalty: f32,
    /// Seed of the draws.
    #[arg(long, value_name = "S", default_value_t = Sampling::default().seed)]
    seed: u32,
    /// One JSON event a line instead of text.
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments, cpu_adapter: bool) -> Result<(), Failure> {
    let messages = match (&arguments.messages, &arguments.prompt) {
        (Some(file), _) => parse_messages(&read_file(file)?, &file.display().to_string())?,
        (None, prompt) => {
            let content = prompt.clone().unwrap_or_default();
            if content.trim().is_empty() {
                return Err("the prompt is empty: write a message".into());
            }
            vec![Message {
                role: Role::User,
                content,
            }]
        }
    };
    let sampling = Sampling {
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        min_p: arguments.min_p,
        repetition_penalty: arguments.repetition_penalty,
        seed: arguments.seed,
    };
    sampling.check()?;
    let files = ModelFiles::open(&model_folder(&arguments.model.model)).await?;
    let tokenizer = Rc::new(files.tokenizer().await?);
    let prompt = tokenizer.chat(&messages, true)?;
    let gpu = open_gpu(cpu_adapter).await?;
    let model = load_files(&gpu, files, arguments.model.quant, 1).await?;
    let steering = load_steering(&model, &arguments.steer).await?;
    let mut chat = Chat::new(model, tokenizer.clone(), steering).await?;
    let request = ChatRequest {
        prompts: &[prompt],
        max_tokens: arguments.max_tokens,
        sampling,
        features: None,
        cancel: Rc::new(Cell::new(false)),
    };
    let mut written = Ok(());
    let cancel = request.cancel.clone();
    let stats = chat
        .run(&request, &mut |event| {
            if written.is_ok() {
                written = if arguments.json {
                    print_line(&event_json(&event, &tokenizer))
                } else {
                    print_text(&event)
                };
                // The reader of a pipe has gone: nobody hears the rest.
                cancel.set(written.is_err());
            }
        })
        .await?;
    match written {
        Ok(()) if arguments.json => print_line(&stats_json(&stats))?,
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
        Err(e) => return Err(format!("stdout cannot be written: {e}").into()),
    }
    Ok(())
}

fn print_line(json: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{json}")?;
    out.flush()
}

fn print_text(event: &Event) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match event {
        Event::Prompt { .. } => {}
        Event::Token { text, .. } => write!(out, "{text}")?,
        Event::Done { text, .. } => writeln!(out, "{text}")?,
    }
    out.flush()
}

/// As the page's `ChatEvent`; the text that a token stream breaks off in comes with `done`.
fn event_json(event: &Event, tokenizer: &ChatTokenizer) -> Value {
    match event {
        Event::Prompt {
            lane,
            first,
            tokens,
            reused,
        } => {
            let last: Vec<Value> = tokens
                .iter()
                .skip(*first)
                .map(|t| json!({"id": t.token, "text": tokenizer.token_text(t.token)}))
                .collect();
            json!({"type": "prompt", "lane": lane, "first": first, "length": tokens.len(),
                "tokens": last, "reused": reused})
        }
        Event::Token {
            lane,
            token,
            text,
            steered,
            setting,
            ..
        } => json!({"type": "token", "lane": lane, "id": token, "text": text, "steered": steered,
            "setting": setting}),
        Event::Done {
            lane,
            reason,
            text,
            tokens,
        } => {
            let reason = match reason {
                DoneReason::Stop => "stop",
                DoneReason::Length => "length",
                DoneReason::Cancelled => "cancelled",
                DoneReason::Context => "context",
            };
            json!({"type": "done", "lane": lane, "reason": reason, "text": text, "tokens": tokens})
        }
    }
}

fn stats_json(stats: &Stats) -> Value {
    let (prefill, decode) = (stats.prefill.as_secs_f64(), stats.decode.as_secs_f64());
    let per_second = if decode > 0.0 {
        stats.generated as f64 / decode
    } else {
        0.0
    };
    json!({
        "type": "stats",
        "promptTokens": stats.prefilled,
        "prefillMs": prefill * 1e3,
        "generatedTokens": stats.generated,
        "decodeMs": decode * 1e3,
        "tokensPerSecond": per_second,
    })
}
