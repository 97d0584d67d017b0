//! A real model in the page: SmolLM2-135M-Instruct from the ladder of the first screen, downloaded in ranges,
//! chatted with, steered, looked at in the lab, and opened again with its server gone.
//!
//! `make small-model` brings the file, once; without it the test fails, unless `OFFLINE=1` says that there is no
//! network to bring it over.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ended, ready};
use crate::offline::{copy, kept, script};
use crate::server::Server;
use crate::truth::text;

const NAME: &str = "SmolLM2-135M-Instruct";
const QUESTION: &str = "What is the capital of France?";
const HIDDEN: usize = 576;
const LATENTS: usize = 64;

/// The largest wasm heap.
const HEAP: f64 = 256.0 * 1048576.0;

/// The file; `None` where there is no network to bring it over.
fn file() -> Result<Option<PathBuf>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    if path.is_file() {
        return Ok(Some(path));
    }
    if std::env::var("OFFLINE").is_ok_and(|value| value == "1") {
        println!("left out: OFFLINE=1, and {NAME} is not here");
        return Ok(None);
    }
    Err(format!(
        "{} is not there: run `make small-model`, or set OFFLINE=1",
        path.display()
    )
    .into())
}

/// The native command's greedy answer.
fn native(model: &Path) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_phi3-steer"))
        .args(["--cpu-adapter", "generate", "--json", "--max-tokens", "128"])
        .args(["--prompt", QUESTION, "--model"])
        .arg(model)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let said = String::from_utf8(output.stdout)?;
    let events = said
        .lines()
        .map(serde_json::from_str)
        .collect::<std::result::Result<Vec<Value>, _>>()?;
    let tokens = events.iter().filter(|event| event["type"] == "token");
    Ok(tokens
        .filter_map(|event| event["text"].as_str())
        .collect::<String>())
}

/// A dictionary of random weights after block 9, whose directions are as long as what they are added to.
fn dictionary(rng: &mut StdRng, folder: &Path) -> Result {
    std::fs::create_dir_all(folder)?;
    let cfg = json!({
        "activation": "topk", "expansion_factor": 8, "normalize_decoder": true, "num_latents": LATENTS, "k": 4,
        "multi_topk": false, "skip_connection": false, "transcode": false, "d_in": HIDDEN
    });
    std::fs::write(folder.join("cfg.json"), cfg.to_string())?;
    let mut random = |shape: &[usize], most: f32| -> Vec<u8> {
        let count = shape.iter().product();
        let values = (0..count).map(|_| rng.random_range(-most..most));
        values.flat_map(f32::to_le_bytes).collect()
    };
    let shapes = [
        ("encoder.weight", vec![LATENTS, HIDDEN], 0.05),
        ("encoder.bias", vec![LATENTS], 0.05),
        ("W_dec", vec![LATENTS, HIDDEN], 2.0),
        ("b_dec", vec![HIDDEN], 0.05),
    ];
    let parts = shapes.map(|(name, shape, most)| {
        let data = random(&shape, most);
        (name, shape, data)
    });
    let views = parts
        .iter()
        .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, None)?;
    Ok(std::fs::write(folder.join("sae.safetensors"), bytes)?)
}

/// What a search might have found of that dictionary: a direction that pays behind a gate, which opens for everything.
fn found(rng: &mut StdRng) -> Value {
    let direction = (0..HIDDEN).map(|_| rng.random_range(-4.0..4.0f32));
    let bytes: Vec<u8> = direction.flat_map(f32::to_le_bytes).collect();
    let dose = |value: f64| json!({"value": value, "harmful": 0.5, "benign": 0.0, "coherent": 1.0});
    let mut strength =
        json!({"curve": [dose(1.0), dose(2.0)], "useful": [1.0, 2.0], "default": 2.0});
    strength["gated"] = strength.clone();
    let mut direction = strength.clone();
    direction["values"] = json!(STANDARD.encode(bytes));
    strength["base"] = dose(0.0);
    json!({
        "schema": "phi3-steer.result/1", "task": "find", "recipe": {"hook": "layers.9"},
        "model": {"layers": 30, "hidden": HIDDEN},
        "dictionary": {"hook": "layers.9", "features": LATENTS},
        "chosen": {"kind": "direction", "features": [], "gated": true},
        "strength": strength, "direction": direction, "candidates": [],
        "gate": {"hook": "layers.9", "weights": vec![0.0; HIDDEN], "bias": 1.0, "threshold": 0.5},
    })
}

/// The answer of one column to the last turn.
async fn answer(browser: &Browser, column: &str) -> Result<String> {
    let css = format!(".turn.last .answer.{column} .answer-body");
    let shown = browser
        .eval(&format!("document.querySelector({}).innerText", json!(css)))
        .await?;
    Ok(shown.as_str().ok_or("no answer")?.trim().to_owned())
}

/// Asks in a new chat.
async fn ask(browser: &Browser) -> Result {
    browser
        .eval("document.getElementById('new-chat').click()")
        .await?;
    browser
        .wait_until(
            "the new chat is empty",
            "document.querySelectorAll('.turn').length === 0",
        )
        .await?;
    let field = browser.find("#message").await?;
    field.send_keys(&format!("{QUESTION}\u{e007}")).await?;
    ended(browser, 1).await
}

#[tokio::test]
async fn built_page_talks_to_a_real_model() -> Result {
    let Some(file) = file()? else { return Ok(()) };
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let wanted = native(&file)?;
    assert!(wanted.contains("Paris"), "natively: {wanted}");

    let site = tempfile::tempdir()?;
    copy(&dist()?, site.path())?;
    let shipped = tempfile::tempdir()?;
    let shipped = shipped.path().join("layers.9");
    dictionary(&mut rng, &shipped)?;
    std::fs::write(
        shipped.join("listing.txt"),
        "Ours\nOf random numbers.\nFor: smollm2-135m\n",
    )?;
    std::fs::write(shipped.join("find.json"), found(&mut rng).to_string())?;
    script(
        "add-models.sh",
        &[site.path(), &file, &shipped],
        site.path(),
    )?;
    // The list of what the page keeps, with the catalogue as it is now.
    script("precache.sh", &[site.path()], site.path())?;
    dictionary(&mut rng, &site.path().join("dictionary/layers.9"))?;
    let server = Server::start(site.path())?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    let note = text(&browser, "#which-model").await?;
    assert!(note.contains("toy"), "{note}");
    browser
        .run(
            "const { Line } = await import(new URL('www/line.js', document.baseURI).href);
             const { call } = Line.prototype;
             Line.prototype.call = function (method, ...rest) {
                 if (method === 'load') window.engineLine = this;
                 return call.call(this, method, ...rest);
             };",
            vec![],
        )
        .await?;

    // One click on the ladder: it comes in ranges, is kept, and runs.
    let step = "[...document.querySelectorAll('#rungs .rung')][0]";
    let told = browser.eval(&format!("{step}.innerText")).await?;
    let told = told.as_str().unwrap_or_default();
    for words in [
        NAME,
        "98.4 MB",
        "Apache-2.0",
        "served with this page",
        "refuses",
        "With the dictionary Ours.",
    ] {
        assert!(
            told.contains(words),
            "the ladder does not say {words:?}: {told}"
        );
    }
    browser.screenshot("ladder").await?;
    browser
        .eval(&format!("{step}.querySelector('.button').click()"))
        .await?;
    browser
        .wait_until(
            "the real model is what runs",
            &format!("document.getElementById('status').textContent.startsWith('{NAME}') || document.querySelector('.error-panel, .rung .entry-trouble:not(:empty)') !== null"),
        )
        .await?;
    ready(&browser).await?;
    let status = text(&browser, "#status").await?;
    assert!(status.starts_with(NAME), "{status}");
    let note = text(&browser, "#which-model").await?;
    assert!(note.contains(NAME) && !note.contains("toy"), "{note}");

    // What was found of the dictionary that comes with it steers, behind its gate, without anybody's doing.
    browser
        .wait_until(
            "what was found steers",
            "document.getElementById('steer-gated').checked && document.getElementById('strength').value === '2'",
        )
        .await?;

    // What it suggests is of the prompts for real models, and promises nothing.
    let sets: Value = serde_json::from_slice(&std::fs::read(site.path().join("sets/real.json"))?)?;
    let sets = sets.to_string();
    let suggested = browser
        .eval("[...document.querySelectorAll('#suggestions .suggestion')].flatMap((one) => one.title.split('\\n'))")
        .await?;
    let suggested = suggested.as_array().ok_or("no suggestions")?;
    assert!(suggested.len() >= 6, "{suggested:?}");
    for prompt in suggested {
        assert!(sets.contains(&prompt.to_string()), "{prompt}");
    }

    ask(&browser).await?;
    browser.screenshot("real-model").await?;
    let base = answer(&browser, "base").await?;
    assert!(
        base.split_whitespace().eq(wanted.split_whitespace()),
        "the page says: {base}\nthe native engine says: {wanted}"
    );
    assert_ne!(answer(&browser, "steered").await?, base);
    let memory = browser
        .run("return window.engineLine.call('memory', []);", vec![])
        .await?;
    let heap = memory["heapBytes"].as_f64().ok_or("no heap size")?;
    println!("{memory}");
    assert!(heap > 0.0 && heap < HEAP, "a heap of {heap} bytes");

    steered(&browser, &server, &base).await?;
    in_the_lab(&browser).await?;
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());

    // From this disk, without a network.
    kept(&browser).await?;
    let url = server.url();
    server.stop();
    browser.client.goto(&url).await?;
    ready(&browser).await?;
    let status = text(&browser, "#status").await?;
    assert!(status.starts_with(NAME), "{status}");
    ask(&browser).await?;
    let turn = text(&browser, ".turn.last").await?;
    assert_eq!(answer(&browser, "base").await?, base, "{turn}");
    browser.close().await
}

/// A feature of a dictionary that the visitor brings changes what the model says, and the base stays.
async fn steered(browser: &Browser, server: &Server, base: &str) -> Result {
    browser
        .eval(&format!(
            "(() => {{
                document.getElementById('other-model').click();
                for (const part of document.querySelectorAll('#model-form details')) part.open = true;
                document.getElementById('sae-url').value = {};
                document.getElementById('sae-add').click();
                document.getElementById('model-load').click();
            }})()",
            json!(format!("{}dictionary/layers.9", server.url()))
        ))
        .await?;
    browser
        .wait_until(
            "the dictionary is loaded",
            "!document.getElementById('model-dialog').open && document.getElementById('status').textContent.includes('dictionary after block 9')",
        )
        .await?;
    ready(browser).await?;
    browser
        .eval(
            "(() => {
                const set = (id, value) => { const field = document.getElementById(id); field.value = value; for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, { bubbles: true })); };
                set('feature', 7);
                set('strength', 16);
                set('max-tokens', 12);
                document.getElementById('steer-always').click();
            })()",
        )
        .await?;
    ask(browser).await?;
    browser.screenshot("real-model-steered").await?;
    assert_eq!(answer(browser, "base").await?, base);
    let changed = answer(browser, "steered").await?;
    assert_ne!(changed, base, "steering changed nothing");
    Ok(())
}

/// Every part of the lab shows itself and is about the prompts for real models.
async fn in_the_lab(browser: &Browser) -> Result {
    for view in ["find", "measure", "strengths", "gate", "runs"] {
        browser
            .eval(&format!("(() => {{ location.hash = 'lab={view}'; }})()"))
            .await?;
        browser
            .wait_until(
                "the part of the lab is shown",
                &format!("!document.getElementById('lab').hidden && document.querySelector('.lab-holder h2') !== null && location.hash.includes('lab={view}')"),
            )
            .await?;
        if view == "measure" {
            browser
                .wait_until(
                    "what is measured is about real models",
                    "/\"name\":\\s*\"real\"/.test(document.querySelector('#lab .recipe-text')?.value ?? '')",
                )
                .await?;
        }
        browser.screenshot(&format!("real-model-{view}")).await?;
    }
    browser.eval("(() => { location.hash = ''; })()").await?;
    browser
        .wait_until("the chat is back", "document.getElementById('lab').hidden")
        .await
}
