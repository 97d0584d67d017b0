//! The same conversation through the same library on a native adapter.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use phi3_steer::checkpoint::{Folder, MAX_JSON, MAX_TOKENIZER};
use phi3_steer::generate::{Chat, ChatRequest, Event, Sampling};
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::phi3::{Model, ModelOptions};
use phi3_steer::sae::{Dictionary, HookPoint, Wanted};
use phi3_steer::steering::{Intervention, Operator, Steering};
use phi3_steer::tokens::{ChatTokenizer, Message, Role};

use crate::browser::Result;

/// Greedy answers to `question`, unsteered and with the report's feature at its default value, by the
/// model in `dir` as the page runs it.
pub async fn answers(dir: &Path, question: &str) -> Result<[String; 2]> {
    let folder = Folder::directory(dir);
    let report: serde_json::Value =
        serde_json::from_slice(&folder.require_bytes("report.json", MAX_JSON).await?)?;
    let hook: HookPoint = report["hook"].as_str().ok_or("no hook")?.parse()?;
    let feature = report["feature"].as_u64().ok_or("no feature")? as u32;
    let value = report["value"]["default"].as_f64().ok_or("no value")? as f32;

    let gpu = Rc::new(
        Gpu::open(&GpuOptions {
            cpu_adapter: true,
            ..Default::default()
        })
        .await?,
    );
    let tokenizer = ChatTokenizer::from_json(
        &folder
            .require_bytes("tokenizer.json", MAX_TOKENIZER)
            .await?,
        folder
            .bytes("tokenizer_config.json", MAX_JSON)
            .await?
            .as_deref(),
    )?;
    let model = Model::load(gpu.clone(), &folder, ModelOptions::default()).await?;
    let wanted = Wanted {
        hook: Some(hook),
        ..Default::default()
    };
    let sae = Folder::directory(dir.join("sae"));
    let dictionary = Dictionary::find(&gpu, &sae, wanted).await?;
    let steering = Steering::new(&model, vec![dictionary]).await?;
    let clamp = Intervention::new(hook, feature, Operator::Clamp, Some(value));
    steering.set(1, &[clamp])?;
    let mut chat = Chat::new(model, Rc::new(tokenizer), steering).await?;

    let message = Message {
        role: Role::User,
        content: question.into(),
    };
    let prompt = chat.tokenizer().chat(&[message], true)?;
    let said = RefCell::new([String::new(), String::new()]);
    let request = ChatRequest {
        prompts: &[prompt.clone(), prompt],
        max_tokens: 128,
        sampling: Sampling::default(),
        features: None,
        logprobs: None,
        cancel: Rc::default(),
    };
    chat.run(&request, &mut |event| {
        if let Event::Token { lane, text, .. } = event {
            said.borrow_mut()[lane] += &text;
        }
    })
    .await?;
    Ok(said.into_inner())
}
