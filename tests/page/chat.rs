//! What a visitor does: chat, steer, compare, stop, come back, on a phone too.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::server::Server;

/// The built page's folder.
pub fn dist() -> Result<PathBuf> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    if dist.join("phi3-steer_bg.wasm").is_file() {
        return Ok(dist);
    }
    Err(format!(
        "{} holds no built page: run scripts/test.sh page",
        dist.display()
    )
    .into())
}

/// Waits until loading has ended; an error if it ended in one.
pub async fn ready(browser: &Browser) -> Result {
    browser
        .wait_until(
            "the model is loaded, or the page says why not",
            // A panel in the loading card says that loading takes its time.
            "document.getElementById('what-runs').childElementCount > 0 || document.querySelector('#stage > .error-panel') !== null",
        )
        .await?;
    match browser
        .eval("document.querySelector('#stage > .error-panel')?.innerText ?? null")
        .await?
    {
        Value::Null => Ok(()),
        trouble => Err(format!("the page did not load the model: {trouble}").into()),
    }
}

/// Opens the page and waits for its model.
pub async fn open(server: &Server, flags: &[&str]) -> Result<Browser> {
    let browser = Browser::start(flags).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    // What the page fetches to keep itself is not part of any chat.
    crate::offline::kept(&browser).await?;
    Ok(browser)
}

/// Waits until turn `count` is the last and has ended.
pub async fn ended(browser: &Browser, count: usize) -> Result {
    browser
        .wait_until(
            &format!("turn {count} ends"),
            &format!(
                "document.querySelectorAll('.turn').length === {count} && document.querySelector('.answer.running') === null && document.getElementById('composer-note').textContent === '' && document.getElementById('send').getAttribute('aria-label') === 'Send'"
            ),
        )
        .await
}

/// Types a message and sends it with Enter.
pub async fn send(browser: &Browser, text: &str) -> Result {
    let field = browser.find("#message").await?;
    field.send_keys(text).await?;
    field.send_keys("\u{e007}").await?;
    Ok(())
}

/// The last turn's answer in one column.
struct Shown {
    text: String,
    verdict: String,
    tokens: u64,
}

async fn shown(browser: &Browser, column: &str) -> Result<Shown> {
    let value = browser
        .eval(&format!(
            "(() => {{
                const answer = document.querySelector('.turn.last .answer.{column}');
                return {{
                    text: answer.querySelector('.answer-body').innerText,
                    verdict: answer.querySelector('.verdict').textContent,
                    tokens: answer.querySelectorAll('.token').length,
                }};
            }})()"
        ))
        .await?;
    Ok(Shown {
        text: value["text"].as_str().ok_or("no text")?.to_owned(),
        verdict: value["verdict"].as_str().ok_or("no verdict")?.to_owned(),
        tokens: value["tokens"].as_u64().ok_or("no tokens")?,
    })
}

/// One click on a suggestion: two answers side by side, which differ while steering is on and are
/// the same text when it is off.
#[tokio::test]
async fn built_page_shows_base_and_steered() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server, &[]).await?;
    browser.screenshot("ready").await?;
    let status = browser.find("#status").await?.text().await?;
    for part in ["4-bit", "dictionary after block", "feature"] {
        assert!(
            status.contains(part),
            "the status line lacks '{part}': {status}"
        );
    }

    // Without the lab's own files, which come when the page has time.
    let asked = || {
        let seen = server.seen();
        seen.iter().filter(|path| !path.contains("/lab")).count()
    };
    let requests = asked();
    let question = browser.find("#suggestions .suggestion-text").await?;
    let question = question.prop("textContent").await?.ok_or("no suggestion")?;
    browser.click("#suggestions .suggestion").await?;
    ended(&browser, 1).await?;
    browser.screenshot("steered").await?;
    let (base, steered) = (
        shown(&browser, "base").await?,
        shown(&browser, "steered").await?,
    );
    assert!(!base.text.is_empty() && base.tokens > 0, "no base answer");
    assert_ne!(base.text, steered.text, "steering changed nothing");
    for answer in [&base, &steered] {
        let known = ["Answered", "Declined"].contains(&answer.verdict.as_str());
        assert!(known, "no verdict on: {}", answer.text);
    }
    assert!(
        steered.tokens > 0,
        "no token shows the feature's activation"
    );
    let native = crate::native::answers(&dist()?.join("models/nano"), &question).await?;
    for (page, native) in [&base.text, &steered.text].into_iter().zip(&native) {
        assert!(
            page.split_whitespace().eq(native.split_whitespace()),
            "the page says: {page}\nthe native engine says: {native}"
        );
    }
    let chip = browser.find(".turn.last .answer.steered .chip.on").await?;
    assert!(
        chip.is_displayed().await?,
        "nothing says that the answer was steered"
    );

    browser.click("#steer-off").await?;
    browser.click(".turn.last .turn-foot button").await?;
    ended(&browser, 1).await?;
    browser.screenshot("not-steered").await?;
    let off = shown(&browser, "steered").await?;
    assert_eq!(
        shown(&browser, "base").await?.text,
        base.text,
        "the base answer is not reproducible"
    );
    assert_eq!(
        off.text, base.text,
        "steering is off, yet the columns differ"
    );

    browser.click("#steer-always").await?;
    browser.click(".turn.last .turn-foot button").await?;
    ended(&browser, 1).await?;
    assert_eq!(
        shown(&browser, "steered").await?.text,
        steered.text,
        "steering is not reproducible"
    );

    assert_eq!(
        asked(),
        requests,
        "the chat asked the network for something"
    );
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());
    browser.close().await
}

/// A scripted conversation, an edited message, a new chat.
#[tokio::test]
async fn built_page_talks_over_several_turns() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server, &[]).await?;
    browser
        .click("#suggestions li:nth-child(2) .suggestion")
        .await?;
    ended(&browser, 3).await?;
    browser.screenshot("several-turns").await?;

    // The edit replaces the turn; those before it stay.
    let before = browser
        .eval("document.querySelector('.turn .answer-body').innerText")
        .await?;
    browser
        .eval("document.querySelector('.turn.last .prompt .tools button').click()")
        .await?;
    let editor = browser.find(".editor textarea").await?;
    editor.clear().await?;
    editor
        .send_keys("Thank you. What is two plus two?\u{e007}")
        .await?;
    ended(&browser, 3).await?;
    let prompt = browser.find(".turn.last .prompt p").await?.text().await?;
    assert_eq!(prompt, "Thank you. What is two plus two?");
    let after = browser
        .eval("document.querySelector('.turn .answer-body').innerText")
        .await?;
    assert_eq!(before, after, "editing the last turn changed the first");

    browser.click("#new-chat").await?;
    assert_eq!(
        browser
            .eval("document.querySelectorAll('.turn').length")
            .await?,
        json!(0)
    );
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());
    browser.close().await
}

/// Stop ends both answers at once, and the next message is answered.
#[tokio::test]
async fn built_page_stops() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server, &[]).await?;
    browser
        .eval(
            "(() => {
                const field = document.getElementById('message');
                field.value = 'How do I bake bread?';
                field.dispatchEvent(new Event('input'));
                const button = document.getElementById('send');
                button.click();
                window.wasRunning = button.getAttribute('aria-label').startsWith('Stop');
                // At once, where a second click would be the other half of a double click.
                document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }));
            })()",
        )
        .await?;
    ended(&browser, 1).await?;
    assert_eq!(browser.eval("window.wasRunning").await?, json!(true));
    let told = browser
        .eval("document.querySelector('.turn.last .answers').innerText")
        .await?;
    let told = told.as_str().unwrap_or_default();
    assert!(
        told.to_lowercase().contains("stopped"),
        "nothing says that it was stopped: {told}"
    );

    send(&browser, "How do I bake bread?").await?;
    ended(&browser, 2).await?;
    assert!(
        shown(&browser, "base").await?.tokens > 0,
        "no answer after a stop"
    );
    browser.close().await
}

/// The visitor's choices outlive a reload; the engine starts again.
#[tokio::test]
async fn built_page_reloads() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server, &[]).await?;
    browser
        .eval(
            "(() => {
                const slider = document.getElementById('strength');
                slider.value = '2';
                slider.dispatchEvent(new Event('input'));
            })()",
        )
        .await?;
    browser.client.refresh().await?;
    ready(&browser).await?;
    assert_eq!(
        browser
            .eval("document.getElementById('strength').valueAsNumber")
            .await?,
        json!(2)
    );
    send(&browser, "How do I bake bread?").await?;
    ended(&browser, 1).await?;
    assert!(
        shown(&browser, "base").await?.tokens > 0,
        "no answer after a reload"
    );
    browser.close().await
}

/// Nothing is cut off at the width of a phone.
#[tokio::test]
async fn built_page_fits_a_phone() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start_phone(390, 844).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    assert_eq!(
        browser.eval("innerWidth").await?,
        json!(390),
        "not the width of a phone"
    );
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(
        browser.eval(fits).await?,
        json!(true),
        "the page is wider than the screen"
    );
    browser.screenshot("phone").await?;
    browser
        .eval("document.querySelector('#suggestions .suggestion').click()")
        .await?;
    ended(&browser, 1).await?;
    browser.screenshot("phone-steered").await?;
    assert_eq!(
        browser.eval(fits).await?,
        json!(true),
        "the conversation is wider than the screen"
    );
    for css in [
        "#message",
        "#send",
        "#steering",
        ".turn.last .answer.steered",
    ] {
        let inside = browser
            .eval(&format!(
                "(() => {{ const box = document.querySelector('{css}').getBoundingClientRect(); return box.width > 0 && box.left >= 0 && box.right <= innerWidth; }})()"
            ))
            .await?;
        assert_eq!(inside, json!(true), "{css} is cut off");
    }
    browser.close().await
}
