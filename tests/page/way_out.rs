//! A way out, always: the worker hangs, is gone, or waits for a GPU that never answers, and the page
//! still stops, begins a new chat and takes another model, with the conversation kept.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ended, ready};
use crate::server::{Fault, Server};

/// What the page promises, in milliseconds: any way out works within this time.
pub const PROMISE: f64 = 5000.0;

/// In front of the engine's worker, so that a test can make it hang, close itself, or wait for ever.
const SABOTAGE: &str = r#"
new BroadcastChannel("sabotage").onmessage = ({ data }) => {
  if (data === "busy") for (;;);
  if (data === "close") self.close();
  if (data === "hang") {
    GPUBuffer.prototype.mapAsync = () => new Promise(() => {});
    GPUQueue.prototype.onSubmittedWorkDone = () => new Promise(() => {});
  }
};
"#;

/// The built page with a worker that can be sabotaged.
pub fn sabotaged(folder: &Path) -> Result {
    let worker = std::fs::read_to_string(dist()?.join("www/worker.js"))?;
    std::fs::create_dir_all(folder.join("www"))?;
    // After its imports, which must come first.
    let body = worker.rfind("import {").map_or(0, |at| {
        at + worker[at..].find('\n').unwrap_or(worker.len() - at)
    });
    let (imports, rest) = worker.split_at(body);
    Ok(std::fs::write(
        folder.join("www/worker.js"),
        format!("{imports}\n{SABOTAGE}{rest}"),
    )?)
}

/// Does to the worker what its sabotage knows.
pub async fn sabotage(browser: &Browser, what: &str) -> Result {
    browser
        .eval(&format!(
            "new BroadcastChannel('sabotage').postMessage('{what}')"
        ))
        .await?;
    // A message to another thread.
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(())
}

/// Puts a text into the message field and presses the button.
pub async fn say(browser: &Browser, text: &str) -> Result {
    browser
        .eval(&format!(
            "(() => {{
                const field = document.getElementById('message');
                field.value = {};
                field.dispatchEvent(new Event('input'));
                document.getElementById('send').click();
            }})()",
            json!(text)
        ))
        .await?;
    Ok(())
}

/// Waits until the last turn is being answered.
async fn begun(browser: &Browser) -> Result {
    browser
        .wait_until(
            "the answer begins",
            "document.querySelectorAll('.turn.last .answer.running .token').length > 1",
        )
        .await
}

/// What the page does, and how many milliseconds later an expression is true.
pub async fn takes(browser: &Browser, action: &str, until: &str) -> Result<f64> {
    let took = browser
        .run(
            &format!(
                "const start = performance.now();
                 {action};
                 while (!({until})) {{
                    if (performance.now() - start > 60000) return null;
                    await new Promise((resolve) => setTimeout(resolve, 10));
                 }}
                 return performance.now() - start;"
            ),
            vec![],
        )
        .await?;
    took.as_f64()
        .ok_or_else(|| format!("never happened: {until}").into())
}

/// The key that stops an answer.
pub const ESCAPE: &str =
    "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }))";
/// Nothing is being answered.
pub const STOPPED: &str = "document.querySelector('.answer.running') === null";

/// Stop, New chat and another model, with a worker that hangs, one that waits for a GPU that does not
/// answer, and one that is gone.
#[tokio::test]
async fn built_page_has_a_way_out_of_a_silent_engine() -> Result {
    let front = tempfile::tempdir()?;
    sabotaged(front.path())?;
    let server = Server::start_with(&dist()?, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    let message = "Please tell me how to make soup.";
    for what in ["busy", "hang"] {
        browser.client.goto("about:blank").await?;
        browser.client.goto(&server.url()).await?;
        ready(&browser).await?;
        browser.click("#new-chat").await.ok();
        say(&browser, "How do I bake bread?").await?;
        ended(&browser, 1).await?;
        let first = browser
            .eval("document.querySelector('.turn .answer-body').innerText")
            .await?;

        // Escape.
        say(&browser, message).await?;
        begun(&browser).await?;
        sabotage(&browser, what).await?;
        let took = takes(&browser, ESCAPE, STOPPED).await?;
        assert!(took < PROMISE, "{what}: Escape took {took} ms");
        assert_eq!(
            browser
                .eval("document.querySelector('.turn .answer-body').innerText")
                .await?,
            first,
            "{what}: the conversation was not kept"
        );
        if what == "busy" {
            // A new engine answers.
            ready(&browser).await?;
            say(&browser, message).await?;
            ended(&browser, 3).await?;
            // New chat.
            say(&browser, message).await?;
            begun(&browser).await?;
            sabotage(&browser, what).await?;
        }
        let took = takes(
            &browser,
            "document.getElementById('new-chat').click()",
            "document.querySelectorAll('.turn').length === 0",
        )
        .await?;
        assert!(took < PROMISE, "{what}: New chat took {took} ms");
        if what == "hang" {
            // The engine is alive and not free: the visitor need not wait for it.
            say(&browser, message).await?;
            browser
                .wait_until(
                    "the page offers a new engine",
                    "document.querySelector('#stage .error-panel button')?.innerText === 'Restart the engine'",
                )
                .await?;
            browser.click("#stage .error-panel button").await?;
            ready(&browser).await?;
            ended(&browser, 1).await?;
        }
    }

    // Another model, from a worker that hangs in the middle of an answer.
    ready(&browser).await?;
    say(&browser, message).await?;
    begun(&browser).await?;
    sabotage(&browser, "busy").await?;
    browser.click("#other-model").await?;
    browser
        .wait_until(
            "the list is there",
            "document.querySelectorAll('#model-list .entry').length > 0",
        )
        .await?;
    let took = takes(
        &browser,
        "document.getElementById('model-load').click()",
        "document.querySelector('.loading-card') !== null && document.querySelectorAll('.turn').length === 0",
    )
    .await?;
    assert!(took < PROMISE, "another model took {took} ms");
    ready(&browser).await?;
    say(&browser, message).await?;
    ended(&browser, 1).await?;

    // A worker that is gone: the page notices by itself, and goes on by itself.
    say(&browser, "How do I bake bread?").await?;
    begun(&browser).await?;
    sabotage(&browser, "close").await?;
    browser
        .wait_until(
            "a new engine goes on",
            "document.querySelector('.loading-card')?.innerText.includes('starting again') ?? false",
        )
        .await?;
    ready(&browser).await?;
    ended(&browser, 2).await?;
    assert_eq!(
        browser
            .eval("[...document.querySelectorAll('.turn.last .answer-meta')].some((meta) => /stopped|broken/.test(meta.innerText))")
            .await?,
        json!(false)
    );
    browser.close().await
}

/// The page says by itself that the worker no longer answers, while it loads and afterwards, and a click
/// takes another.
#[tokio::test]
async fn built_page_notices_a_silent_engine() -> Result {
    let front = tempfile::tempdir()?;
    sabotaged(front.path())?;
    let script = front.path().join("www/worker.js");
    let sound = std::fs::read_to_string(&script)?;
    let hangs = "  async load(id, options) {\n    for (;;);";
    let hanging = sound.replace("  async load(id, options) {", hangs);
    assert!(hanging.contains(hangs), "the worker's load is elsewhere");
    std::fs::write(&script, hanging)?;
    let server = Server::start_with(&dist()?, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    browser
        .wait_until(
            "the page says that it hangs while it loads",
            "document.querySelector('#stage .loading-card .error-panel')?.innerText.includes('does not answer') ?? false",
        )
        .await?;
    std::fs::write(&script, sound)?;
    browser.screenshot("silent-load").await?;
    browser.click("#stage .error-panel button").await?;
    ready(&browser).await?;
    say(&browser, "How do I bake bread?").await?;
    ended(&browser, 1).await?;

    // Nothing runs: it is noticed all the same.
    sabotage(&browser, "busy").await?;
    browser
        .wait_until(
            "the page says so",
            "document.querySelector('#stage .error-panel')?.innerText.includes('does not answer') ?? false",
        )
        .await?;
    browser.screenshot("silent").await?;
    browser.click("#stage .error-panel button").await?;
    ready(&browser).await?;
    say(&browser, "How do I bake bread?").await?;
    ended(&browser, 2).await?;

    // A worker that is gone while nothing runs is replaced unasked.
    sabotage(&browser, "close").await?;
    browser
        .wait_until(
            "it is replaced",
            "document.querySelector('.loading-card') !== null",
        )
        .await?;
    ready(&browser).await?;
    say(&browser, "How do I bake bread?").await?;
    ended(&browser, 3).await?;
    assert_eq!(
        browser.console_errors().await?,
        Vec::<String>::new(),
        "the console shows errors"
    );
    browser.close().await
}

/// A message that is sent while the model loads waits in sight, can be taken back, and is answered.
/// A double click on Send is no Stop. The keyboard's place is never lost.
#[tokio::test]
async fn built_page_takes_messages_at_any_time() -> Result {
    let server = Server::start(&dist()?)?;
    server.break_file(
        "models/nano/model.safetensors",
        Fault::Slow(Duration::from_millis(100)),
    );
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    browser
        .wait_until(
            "it loads",
            "document.querySelector('.loading-card') !== null",
        )
        .await?;
    say(&browser, "What is the capital of Greece?").await?;
    let outbox = "document.querySelector('.outbox').innerText";
    let waiting = browser.eval(outbox).await?;
    assert!(
        waiting
            .as_str()
            .is_some_and(|text| text.contains("capital of Greece")),
        "{waiting}"
    );
    browser.click(".outbox button").await?;
    assert_eq!(
        browser
            .eval("document.getElementById('message').value")
            .await?,
        json!("What is the capital of Greece?")
    );
    browser.click("#send").await?;
    ready(&browser).await?;
    ended(&browser, 1).await?;
    assert_eq!(
        browser
            .eval("[document.querySelector('.turn .prompt .bubble p').innerText, document.querySelector('.outbox').hidden]")
            .await?,
        json!(["What is the capital of Greece?", true])
    );

    let focus = "document.activeElement.id";
    let place = |what: &'static str| {
        let browser = &browser;
        async move {
            let now = browser.eval(focus).await?;
            assert_eq!(now, json!("message"), "the focus is lost after {what}");
            Result::Ok(())
        }
    };
    let press = |button: &str| {
        format!("(() => {{ const button = {button}; button.focus(); button.click(); }})()")
    };
    browser
        .eval(&press("[...document.querySelectorAll('.turn.last .turn-foot button')].find((one) => one.innerText === 'Run again')"))
        .await?;
    ended(&browser, 1).await?;
    place("Run again").await?;
    browser
        .eval("document.querySelector('.turn.last .prompt .tools button').click()")
        .await?;
    browser
        .eval("document.querySelector('.editor textarea').value = 'What is the capital of France?'")
        .await?;
    browser
        .eval(&press("[...document.querySelectorAll('.editor button')].find((one) => one.innerText === 'Send again')"))
        .await?;
    ended(&browser, 1).await?;
    place("Send again").await?;
    browser
        .eval(&press("document.getElementById('new-chat')"))
        .await?;
    browser
        .wait_until(
            "a new chat",
            "document.querySelectorAll('.turn').length === 0",
        )
        .await?;
    place("New chat").await?;
    browser
        .eval(&press(
            "document.querySelectorAll('#suggestions button')[2]",
        ))
        .await?;
    ended(&browser, 1).await?;
    place("a card").await?;

    browser
        .eval("(() => { const field = document.getElementById('message'); field.value = 'How do I bake bread?'; field.dispatchEvent(new Event('input')); const send = document.getElementById('send'); send.click(); send.click(); })()")
        .await?;
    ended(&browser, 2).await?;
    assert_eq!(
        browser
            .eval("[...document.querySelectorAll('.turn.last .answer-meta')].map((meta) => meta.innerText.includes('stopped'))")
            .await?,
        json!([false, false])
    );
    browser.close().await
}

/// A link brings its setting, below zero too, and says what it could not do; another model is asked
/// about before a byte of it is fetched.
#[tokio::test]
async fn built_page_follows_links() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    let visit = |fragment: &'static str| {
        let (browser, url) = (&browser, server.url());
        async move {
            browser.client.goto("about:blank").await?;
            browser.client.goto(&format!("{url}{fragment}")).await?;
            ready(browser).await
        }
    };
    let notes = "[...document.querySelectorAll('.notes li span')].map((note) => note.innerText)";
    visit("#strength=-8&hook=layers.3&seed=4294967296&feature=1e21&maxTokens=1e15&prompt=Hello%20%26%20welcome").await?;
    assert_eq!(
        browser
            .eval("[document.getElementById('strength').value, document.getElementById('negative').checked, document.getElementById('message').value, document.getElementById('seed').value]")
            .await?,
        json!(["-8", true, "Hello & welcome", "1"])
    );
    let said = browser.eval(notes).await?.to_string();
    for part in [
        "below zero",
        "seed must be",
        "feature must be",
        "maxTokens must be",
    ] {
        assert!(said.contains(part), "no note says '{part}': {said}");
    }
    browser.screenshot("link").await?;
    browser.click("#send").await?;
    ended(&browser, 1).await?;
    assert_eq!(
        browser
            .eval("document.querySelector('.turn .error-panel')")
            .await?,
        Value::Null,
        "the link broke the chat"
    );
    let stored = browser
        .eval("localStorage.getItem('phi3-steer.choices') ?? ''")
        .await?
        .to_string();
    assert!(!stored.contains("4294967296"), "{stored}");

    // What the page itself says is what a visitor of the link gets.
    browser
        .eval("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
        .await?;
    browser
        .eval("document.getElementById('share').click()")
        .await?;
    let link = browser.eval("location.hash").await?;
    for part in ["model=nano", "strength=-8", "prompt=Hello"] {
        assert!(
            link.as_str().is_some_and(|hash| hash.contains(part)),
            "no {part} in {link}"
        );
    }

    visit("#model=phi-3-mini-4k-q4&dictionary=analist-21&strength=5").await?;
    let said = browser.eval(notes).await?.to_string();
    assert!(
        said.contains("another model") && said.contains("GB to download"),
        "{said}"
    );
    assert_eq!(
        browser
            .eval("document.getElementById('strength').value")
            .await?,
        json!("8"),
        "the setting of another model was taken"
    );
    browser.click(".notes li button").await?;
    browser
        .wait_until(
            "the chooser shows it",
            "document.querySelector('#model-list input:checked')?.value === 'phi-3-mini-4k-q4'",
        )
        .await?;
    visit("#model=javascript%3Aalert(1)").await?;
    let said = browser.eval(notes).await?.to_string();
    assert!(said.contains("cannot be loaded"), "{said}");
    browser.close().await
}
