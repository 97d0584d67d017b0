//! A model of Phi-3 Mini's full size and layout, with random weights: from files on disk to an answer, in
//! the browser and natively. Minutes long, so not part of the ordinary run: `make full-size`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::dist;
use crate::server::Server;

/// What the browser's loading and answer may take on a software adapter.
const PATIENCE: Duration = Duration::from_secs(1500);
/// The largest wasm heap.
const HEAP: f64 = 256.0 * 1048576.0;

const PROMPT: &str = "Hi";
const TOKENS: usize = 3;

/// Loads the chosen files in the engine's worker and answers; results go to `window.run`.
const RUN: &str = "
    const [prompt, tokens] = arguments;
    const run = { stages: {}, ids: [] };
    window.run = run;
    (async () => {
        const { Engine } = await import(new URL('www/engine-client.js', document.baseURI));
        let stage = 'start';
        let since = performance.now();
        const reach = (next) => {
            const now = performance.now();
            run.stages[stage] = (run.stages[stage] ?? 0) + (now - since) / 1000;
            [stage, since] = [next, now];
        };
        const model = [...document.getElementById('files').files];
        const onProgress = (progress) => reach(progress.stage);
        const engine = await Engine.load({ model, lanes: 1, contextLength: 256, onProgress });
        reach('answer');
        run.info = engine.info;
        const messages = [{ role: 'user', content: prompt }];
        for await (const event of engine.chat({ lanes: [{ messages }], maxTokens: tokens })) {
            if (event.type === 'token') run.ids.push(event.id);
        }
        reach('end');
        await engine.dispose();
        run.done = true;
    })().catch((error) => { run.error = `${error.code}: ${error.message}`; run.done = true; });
";

/// Runs the native command and gives its output.
fn command(arguments: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_phi3-steer"))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("phi3-steer {arguments:?}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The tokens of the native command's answer.
fn native(model: &str) -> Result<Vec<u64>> {
    let count = TOKENS.to_string();
    let said = command(&[
        "--cpu-adapter",
        "generate",
        "--model",
        model,
        "--prompt",
        PROMPT,
        "--max-tokens",
        &count,
        "--json",
    ])?;
    let events: Vec<Value> = said
        .lines()
        .map(serde_json::from_str)
        .collect::<std::result::Result<_, _>>()?;
    let tokens = events.iter().filter(|e| e["type"] == "token");
    Ok(tokens.filter_map(|e| e["id"].as_u64()).collect())
}

/// Loads files in the browser: what `RUN` found.
async fn browser(site: &Server, files: &[String]) -> Result<Value> {
    let browser = Browser::start(&[]).await?;
    browser
        .client
        .goto(&format!("{}www/package.json", site.url()))
        .await?;
    browser
        .client
        .execute(
            "document.body.innerHTML = '<input id=files type=file multiple>';
             const base = document.createElement('base');
             base.href = new URL('../', location.href).href;
             document.head.append(base);",
            vec![],
        )
        .await?;
    let input = browser.find("#files").await?;
    input.send_keys(&files.join("\n")).await?;
    let given = vec![json!(PROMPT), json!(TOKENS)];
    browser.client.execute(RUN, given).await?;
    let start = Instant::now();
    while browser.eval("window.run.done ?? false").await? != json!(true) {
        if start.elapsed() > PATIENCE {
            let run = browser.eval("window.run").await?;
            return Err(format!("the browser takes too long: {run}").into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let run = browser.eval("window.run").await?;
    browser.close().await?;
    Ok(run)
}

/// The files of a model on disk.
fn files_of(path: &Path) -> Result<Vec<String>> {
    if path.is_file() {
        return Ok(vec![path.display().to_string()]);
    }
    let entries = std::fs::read_dir(path)?;
    entries
        .map(|entry| Ok(entry?.path().display().to_string()))
        .collect()
}

#[tokio::test]
#[ignore = "minutes, 5 GB of disk and 3 GB of memory: make full-size"]
async fn full_size_models_answer_in_the_browser_as_natively() -> Result {
    let site = Server::start(&dist()?)?;
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name);
    let (gguf, own) = (place("q4_k_m.gguf"), place("planes"));
    let name = |path: &Path| path.display().to_string();
    command(&[
        "synth",
        "--like",
        "phi-3-mini",
        "--format",
        "gguf-q4_k_m",
        "--out",
        &name(&gguf),
    ])?;
    command(&["convert", "--model", &name(&gguf), "--out", &name(&own)])?;
    for path in [&gguf, &own] {
        let files = files_of(path)?;
        let mut bytes = 0;
        for file in &files {
            bytes += std::fs::metadata(file)?.len();
        }
        let started = Instant::now();
        let wanted = native(&name(path))?;
        let natively = started.elapsed().as_secs_f64();
        let run = browser(&site, &files).await?;
        println!(
            "{}: {bytes} bytes in {} files; natively {natively:.1} s; in the browser {run}",
            path.file_name().unwrap_or_default().display(),
            files.len()
        );
        assert_eq!(run["error"], Value::Null, "{run}");
        assert_eq!(wanted.len(), TOKENS, "the native answer");
        assert_eq!(run["ids"], json!(wanted), "the browser's answer");
        let info = &run["info"];
        let heap = info["heapBytes"].as_f64().ok_or("no heap size")?;
        assert!(heap > 0.0 && heap < HEAP, "a heap of {heap} bytes");
        let gpu = info["model"]["gpuBytes"].as_f64().ok_or("no GPU bytes")?;
        // The cache of 256 positions takes 100 MB of it.
        assert!(gpu < 1.15 * bytes as f64 + 2e8, "{gpu} bytes on the GPU");
    }
    Ok(())
}
