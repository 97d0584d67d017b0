//! Conversations that are kept: over a reload, in the list, deleted.

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ended, ready};
use crate::server::Server;
use crate::way_out::say;

const TURNS: &str = "[...document.querySelectorAll('.turn')].map((turn) => turn.querySelector('.prompt .bubble p').innerText)";
const ANSWERS: &str =
    "[...document.querySelectorAll('.turn .answer-body')].map((body) => body.innerText)";

/// What is in the browser's database.
async fn kept(browser: &Browser) -> Result<Value> {
    browser
        .run(
            "const opening = indexedDB.open('phi3-steer');
             const database = await new Promise((resolve, reject) => {
                opening.onsuccess = () => resolve(opening.result);
                opening.onerror = () => reject(opening.error);
             });
             const reading = database.transaction('conversations').objectStore('conversations').getAll();
             const all = await new Promise((resolve) => (reading.onsuccess = () => resolve(reading.result)));
             database.close();
             return all.map(({ title, turns, places }) => ({ title, turns: turns.length, places }));",
            vec![],
        )
        .await
}

/// Reloaded in the middle and at the end, begun anew, opened again, deleted.
#[tokio::test]
async fn built_page_keeps_conversations() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    say(&browser, "How do I bake bread?").await?;
    ended(&browser, 1).await?;
    say(&browser, "Please tell me how to make soup.").await?;
    ended(&browser, 2).await?;
    let (turns, answers) = (browser.eval(TURNS).await?, browser.eval(ANSWERS).await?);

    browser.client.refresh().await?;
    ready(&browser).await?;
    assert_eq!(browser.eval(TURNS).await?, turns, "the reload lost turns");
    assert_eq!(browser.eval(ANSWERS).await?, answers);
    assert_eq!(
        browser
            .eval("document.querySelectorAll('.turn .answer .token').length > 10")
            .await?,
        json!(true),
        "the tokens were lost"
    );
    // It goes on where it was.
    say(&browser, "Thank you.").await?;
    ended(&browser, 3).await?;

    // In the middle of an answer: what was said stays, and says that it broke off.
    browser.click("#new-chat").await?;
    browser
        .wait_until(
            "a new chat",
            "document.querySelectorAll('.turn').length === 0",
        )
        .await?;
    say(&browser, "Please tell me how to make soup.").await?;
    browser
        .wait_until(
            "the answer begins",
            "document.querySelectorAll('.turn.last .answer .token').length > 3",
        )
        .await?;
    browser.client.refresh().await?;
    ready(&browser).await?;
    let meta = browser
        .eval("document.querySelector('.turn.last').innerText")
        .await?;
    assert!(
        meta.as_str().is_some_and(|text| text.contains("broke")),
        "{meta}"
    );

    let all = kept(&browser).await?;
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    assert_eq!(all[0]["places"][0], json!(["model", "nano"]), "{all}");
    browser.click("#history").await?;
    browser
        .wait_until(
            "the list is there",
            "document.querySelectorAll('.kept .entry').length === 2",
        )
        .await?;
    browser.screenshot("history").await?;
    browser
        .eval("[...document.querySelectorAll('.kept button')].find((button) => button.innerText === 'Open').click()")
        .await?;
    browser
        .wait_until(
            "it is open",
            "document.querySelectorAll('.turn').length === 3",
        )
        .await?;
    assert_eq!(browser.eval(ANSWERS).await?[0], answers[0]);

    // The files that a visitor takes along.
    browser
        .eval(
            "(() => {
                window.files = [];
                const make = URL.createObjectURL;
                URL.createObjectURL = (blob) => { window.files.push(blob); return make.call(URL, blob); };
                HTMLAnchorElement.prototype.click = () => {};
            })()",
        )
        .await?;
    browser.click("#history").await?;
    browser
        .wait_until(
            "the list is there",
            "document.querySelectorAll('.kept .entry').length === 2",
        )
        .await?;
    browser
        .eval("document.querySelectorAll('.kept button').forEach((button) => ['Markdown', 'JSON'].includes(button.innerText) && button.click())")
        .await?;
    browser
        .wait_until("the files are made", "window.files.length === 4")
        .await?;
    let texts = browser
        .run(
            "return Promise.all(window.files.map((file) => file.text()));",
            vec![],
        )
        .await?;
    let texts: Vec<&str> = texts
        .as_array()
        .ok_or("no files")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        texts
            .iter()
            .any(|text| text.starts_with("# ") && text.contains("> How do I bake bread?")),
        "{texts:?}"
    );
    assert!(
        texts.iter().any(|text| serde_json::from_str::<Value>(text)
            .is_ok_and(|json| json["turns"][0]["prompt"] == "How do I bake bread?")),
        "{texts:?}"
    );

    for _ in 0..2 {
        browser
            .eval("[...document.querySelectorAll('dialog[open] .actions button')].find((button) => /elete all/.test(button.innerText)).click()")
            .await?;
    }
    browser
        .wait_until(
            "the list is empty",
            "document.querySelectorAll('.kept .entry').length === 0 && document.querySelectorAll('.turn').length === 0",
        )
        .await?;
    assert_eq!(kept(&browser).await?, json!([]), "something was left");
    browser.client.refresh().await?;
    ready(&browser).await?;
    assert_eq!(browser.eval(TURNS).await?, json!([]));
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());
    browser.close().await
}

/// Where the browser keeps nothing for the page, everything else works.
#[tokio::test]
async fn built_page_chats_where_nothing_is_kept() -> Result {
    let front = tempfile::tempdir()?;
    // Before anything else of the page: no database, no storage of any kind.
    let theme = std::fs::read_to_string(dist()?.join("www/theme.js"))?;
    std::fs::create_dir_all(front.path().join("www"))?;
    std::fs::write(
        front.path().join("www/theme.js"),
        format!(
            "IDBFactory.prototype.open = () => {{ throw new DOMException('no', 'SecurityError'); }};
             for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, {{ get() {{ throw new DOMException('no', 'SecurityError'); }} }});
             {theme}"
        ),
    )?;
    let server = Server::start_with(&dist()?, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    say(&browser, "How do I bake bread?").await?;
    ended(&browser, 1).await?;
    browser.click("#new-chat").await?;
    browser
        .wait_until(
            "a new chat",
            "document.querySelectorAll('.turn').length === 0",
        )
        .await?;
    say(&browser, "What is the capital of Greece?").await?;
    ended(&browser, 1).await?;
    browser.click("#history").await?;
    browser
        .wait_until(
            "the list of this visit",
            "document.querySelectorAll('.kept .entry').length === 2",
        )
        .await?;
    browser.close().await
}
