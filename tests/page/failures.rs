//! What goes wrong: each time the page says so in a sentence and can go on.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::browser::{Browser, Result};
use crate::chat::{dist, ready};
use crate::server::{Fault, Server};

const MODEL: &str = "models/nano/model.safetensors";

/// Where some bytes first occur in a file of the site.
fn position(dist: &Path, file: &str, text: &str) -> Result<usize> {
    let bytes = std::fs::read(dist.join(file))?;
    bytes
        .windows(text.len())
        .position(|window| window == text.as_bytes())
        .ok_or_else(|| format!("{file} does not contain {text}").into())
}

/// The error panel that loading ended in: its title and all it says.
async fn trouble(browser: &Browser) -> Result<(String, String)> {
    browser
        .wait_until(
            "an error is shown",
            "document.querySelector('#stage .error-panel') !== null",
        )
        .await?;
    let title = browser.find("#stage .error-panel h2").await?.text().await?;
    let text = browser.find("#stage .error-panel").await?.text().await?;
    Ok((title, text))
}

/// Missing, damaged and ill-fitting files, and a connection that breaks.
#[tokio::test]
async fn built_page_names_what_is_wrong_with_the_files() -> Result {
    let dist = dist()?;
    let server = Server::start(&dist)?;
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dist.join("models/nano/report.json"))?)?;
    let hook = report["hook"]
        .as_str()
        .ok_or("report.json names no hook point")?;
    let dictionary = format!("models/nano/sae/{hook}");
    let header = std::fs::read(dist.join(MODEL))?;
    let header = u64::from_le_bytes(header[..8].try_into()?) as usize;
    let size = std::fs::metadata(dist.join(MODEL))?.len() as usize;
    let width = position(&dist, "models/nano/config.json", "\"intermediate_size\": ")?
        + "\"intermediate_size\": ".len();
    let rename = |name: &str| -> Result<Fault> {
        Ok(Fault::Overwrite(
            position(&dist, MODEL, name)?,
            b"x".to_vec(),
        ))
    };
    let cfg = format!("{dictionary}/cfg.json");

    let cases = [
        (
            "a missing model",
            MODEL,
            Fault::Status(404),
            "A file of the model is missing",
        ),
        (
            "a missing configuration",
            "models/nano/config.json",
            Fault::Status(404),
            "A file of the model is missing",
        ),
        (
            "a missing dictionary",
            &cfg,
            Fault::Status(404),
            "A file of the model is missing",
        ),
        (
            "a server in trouble",
            MODEL,
            Fault::Status(503),
            "The server is in trouble",
        ),
        (
            "a connection that breaks within a tensor",
            MODEL,
            Fault::DropAt(8 + header + 1000),
            "The download broke off",
        ),
        (
            "a file cut short",
            MODEL,
            Fault::Truncate(size / 2),
            "The model's file is damaged",
        ),
        (
            "an absurd header length",
            MODEL,
            Fault::Overwrite(0, vec![0xff; 8]),
            "The model's file is damaged",
        ),
        (
            "a header that is no JSON",
            MODEL,
            Fault::Overwrite(8, b"]]]]".to_vec()),
            "The model's file is damaged",
        ),
        (
            "a tensor of another name",
            MODEL,
            rename("model.norm.weight")?,
            "The model's file lacks a tensor",
        ),
        (
            "a weight that is not a number",
            MODEL,
            Fault::Overwrite(8 + header, vec![0xc0, 0x7f]),
            "The model's file holds a number that is not finite",
        ),
        (
            "another width in the configuration",
            "models/nano/config.json",
            Fault::Overwrite(width, b"9".to_vec()),
            "The model's file and its config do not agree",
        ),
        (
            "a tokenizer that is no JSON",
            "models/nano/tokenizer.json",
            Fault::Overwrite(0, b"}{".to_vec()),
            "The tokenizer could not be read",
        ),
    ];
    let browser = Browser::start(&[]).await?;
    for (what, file, fault, expected) in cases {
        server.repair();
        server.break_file(file, fault);
        browser.client.goto(&server.url()).await?;
        let (title, text) = trouble(&browser)
            .await
            .map_err(|error| format!("{what}: {error}"))?;
        assert_eq!(title, expected, "{what}: the page says: {text}");
        assert!(
            !text.contains("panicked"),
            "{what}: the page shows a panic: {text}"
        );
        // What came whole is kept, and would hide that the server has it no more.
        forget(&browser).await?;
    }

    browser.screenshot("error").await?;
    server.repair();
    browser.click("#stage .error-panel button").await?;
    ready(&browser).await?;

    forget(&browser).await?;
    server.break_file(MODEL, Fault::IgnoreRanges);
    browser.client.goto(&server.url()).await?;
    ready(&browser)
        .await
        .map_err(|error| format!("a server without ranges: {error}"))?;
    browser.close().await
}

/// Takes from the browser what the page's service worker has kept, and the worker.
async fn forget(browser: &Browser) -> Result {
    let script = "(async () => {
        for (const registration of await navigator.serviceWorker.getRegistrations()) await registration.unregister();
        for (const name of await caches.keys()) await caches.delete(name);
        return (await caches.keys()).length;
    })()";
    assert_eq!(browser.eval(script).await?, json!(0), "caches are left");
    Ok(())
}

/// A slow download can be cancelled, and started again.
#[tokio::test]
async fn built_page_cancels_loading() -> Result {
    let server = Server::start(&dist()?)?;
    // The browser may go on with the answer that was cancelled: slow enough to be cancelled, and no slower.
    server.break_file(MODEL, Fault::Slow(Duration::from_millis(100)));
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    browser
        .wait_until(
            "the weights are loading",
            "document.querySelector('.loading-card')?.innerText.includes('Loading the weights') ?? false",
        )
        .await?;
    browser.click(".loading-card button").await?;
    let (title, _) = trouble(&browser).await?;
    assert_eq!(title, "Loading was cancelled");
    server.repair();
    browser.click("#stage .error-panel button").await?;
    ready(&browser).await?;
    browser.close().await
}

/// A prompt that no context holds is an error of that turn only; an empty one cannot be sent.
#[tokio::test]
async fn built_page_survives_impossible_prompts() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    let can_send = "document.getElementById('send').disabled === false";
    assert_eq!(
        browser.eval(can_send).await?,
        json!(false),
        "an empty message can be sent"
    );

    let say = |text: &str| {
        format!(
            "(() => {{
                const field = document.getElementById('message');
                field.value = {text};
                field.dispatchEvent(new Event('input'));
                document.getElementById('send').click();
            }})()"
        )
    };
    browser.eval(&say("'one two three '.repeat(20000)")).await?;
    browser
        .wait_until(
            "the turn fails",
            "document.querySelector('.turn .error-panel') !== null",
        )
        .await?;
    let title = browser.find(".turn .error-panel h2").await?.text().await?;
    assert_eq!(title, "The conversation no longer fits");

    browser.click("#new-chat").await?;
    browser.eval(&say("'How do I bake bread?'")).await?;
    browser
        .wait_until(
            "the next message is answered",
            "document.querySelectorAll('.turn.last .answer.base .token').length > 0 && document.querySelector('.answer.running') === null",
        )
        .await?;
    browser.close().await
}

/// Without WebGPU the page says what to do in this browser and in others.
#[tokio::test]
async fn built_page_explains_missing_webgpu() -> Result {
    let server = Server::start(&dist()?)?;
    // Browsers offer WebGPU only to pages served over https or from localhost.
    let browser = Browser::start(&["--host-resolver-rules=MAP insecure.test 127.0.0.1"]).await?;
    let insecure = server.url().replace("localhost", "insecure.test");
    browser.client.goto(&insecure).await?;
    let (title, text) = trouble(&browser).await?;
    assert_eq!(title, "This browser has no WebGPU yet");
    assert!(
        text.contains("https or from localhost"),
        "the reason is not said: {text}"
    );
    assert!(
        text.contains("Chrome or another Chromium browser"),
        "no advice for this browser: {text}"
    );
    browser.screenshot("no-webgpu").await?;
    browser.close().await
}
