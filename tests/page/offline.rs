//! The page without a network: from its own cache after the first visit, and out of a classroom folder.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ended, ready};
use crate::driver::Kind;
use crate::server::Server;

/// Waits until the page is kept for use without a network.
pub async fn kept(browser: &Browser) -> Result {
    let asked = match browser.kind() {
        Kind::Chromium => {
            "const { kept } = await import(new URL('www/offline.js', document.baseURI));
             return kept;"
        }
        // Its scripts import modules of their own, not those that the page runs: the worker is asked itself.
        Kind::Firefox => {
            "const { active } = await navigator.serviceWorker.ready;
             return new Promise((resolve) => {
                const { port1, port2 } = new MessageChannel();
                port1.onmessage = ({ data }) => resolve(data.whole);
                active.postMessage('keep', [port2]);
             });"
        }
    };
    browser
        .run(asked, vec![])
        .await?
        .as_bool()
        .filter(|whole| *whole)
        .map(drop)
        .ok_or_else(|| "the page is not kept".into())
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) -> Result {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Runs a script of the project.
pub fn script(name: &str, arguments: &[&Path], dist: &Path) -> Result {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("bash")
        .arg(root.join("scripts").join(name))
        .args(arguments)
        .env("DIST", dist)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// After the first visit the site opens and chats with its server gone.
#[tokio::test]
async fn built_page_opens_and_chats_offline() -> Result {
    let server = Server::start(&dist()?)?;
    let url = server.url();
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&url).await?;
    ready(&browser).await?;
    kept(&browser).await?;
    server.stop();

    browser.client.goto(&url).await?;
    ready(&browser).await?;
    browser.click("#suggestions .suggestion").await?;
    ended(&browser, 1).await?;
    let answer = browser
        .eval("document.querySelector('.turn.last .answer.base .answer-body').innerText")
        .await?;
    assert!(
        answer.as_str().is_some_and(|text| !text.is_empty()),
        "no answer"
    );
    browser.screenshot("offline").await?;

    // Parts of the kept files are answered as a server would.
    let size = std::fs::metadata(dist()?.join("models/nano/config.json"))?.len();
    for (range, status, content) in [
        ("bytes=0-9", 206, format!("bytes 0-9/{size}")),
        ("bytes=5-", 206, format!("bytes 5-{}/{size}", size - 1)),
        (
            "bytes=-3",
            206,
            format!("bytes {}-{}/{size}", size - 3, size - 1),
        ),
        ("bytes=99999999-", 416, format!("bytes */{size}")),
    ] {
        let got = browser
            .run(
                "const answer = await fetch('models/nano/config.json', { headers: { Range: given[0] } });
                 return [answer.status, answer.headers.get('Content-Range'), (await answer.text()).length];",
                vec![json!(range)],
            )
            .await?;
        assert_eq!(
            (&got[0], &got[1]),
            (&json!(status), &json!(content)),
            "{range}"
        );
        let length = match range {
            "bytes=0-9" => 10,
            "bytes=5-" => size - 5,
            "bytes=-3" => 3,
            _ => 0,
        };
        assert_eq!(got[2], json!(length), "{range}");
    }
    let missing = browser
        .run(
            "return (await fetch('models/nano/none.json')).status;",
            vec![],
        )
        .await?;
    assert_eq!(missing, json!(404));
    browser.close().await
}

/// A new build replaces the old one whole, when the visitor wants it; half a build never does.
#[tokio::test]
async fn built_page_updates_as_a_whole() -> Result {
    let site = tempfile::tempdir()?;
    copy(&dist()?, site.path())?;
    let server = Server::start(site.path())?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    kept(&browser).await?;

    let mark = |text: &str, files: &[&str]| -> Result {
        for file in files {
            let path = site.path().join(file);
            let old = std::fs::read_to_string(&path)?;
            std::fs::write(path, format!("{old}\n// {text}\n"))?;
        }
        Ok(())
    };
    let marks = "
        const text = async (file) => (await fetch(file)).text();
        const files = ['www/prompts.js', 'www/judge.js'];
        return Promise.all(files.map(async (file) => (await text(file)).split('\\n').findLast((line) => line.startsWith('// build')) ?? ''));
    ";
    let both = ["www/prompts.js", "www/judge.js"];
    mark("build two", &both)?;
    script("precache.sh", &[site.path()], site.path())?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    assert_eq!(
        browser.run(marks, vec![]).await?,
        json!(["", ""]),
        "the old page sees new files"
    );
    browser
        .wait_until(
            "the page offers the new build",
            "!document.getElementById('update').hidden",
        )
        .await?;
    assert_eq!(
        browser.run(marks, vec![]).await?,
        json!(["", ""]),
        "the old page sees new files"
    );

    // With a second page of the old build open nothing changes under it.
    let first = browser.client.window().await?;
    let second = browser.client.new_window(true).await?;
    browser.client.switch_to_window(second.handle).await?;
    browser.client.goto(&server.url()).await?;
    browser.client.switch_to_window(first.clone()).await?;
    browser.click("#update button").await?;
    browser
        .wait_until(
            "the page names the others",
            "document.getElementById('update').innerText.includes('other tabs')",
        )
        .await?;
    assert_eq!(browser.run(marks, vec![]).await?, json!(["", ""]));
    for window in browser.client.windows().await? {
        if window != first {
            browser.client.switch_to_window(window).await?;
            browser.client.close_window().await?;
        }
    }
    browser.client.switch_to_window(first).await?;
    browser.eval("window.before = true").await?;
    browser.click("#update button").await?;
    browser
        .wait_until(
            "the page reloads",
            "window.before === undefined && document.readyState === 'complete'",
        )
        .await?;
    ready(&browser).await?;
    assert_eq!(
        browser.run(marks, vec![]).await?,
        json!(["// build two", "// build two"])
    );

    // A build that is only half on the server.
    mark("build three", &both)?;
    script("precache.sh", &[site.path()], site.path())?;
    std::fs::write(site.path().join(both[1]), "export const broken = true;")?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    let state = browser
        .run(
            "const registration = await navigator.serviceWorker.getRegistration();
             await registration.update().catch(() => {});
             const worker = registration.installing;
             while (worker && worker.state === 'installing') await new Promise((resolve) => setTimeout(resolve, 20));
             return [worker?.state ?? null, registration.waiting === null];",
            vec![],
        )
        .await?;
    assert_eq!(state[1], json!(true), "half a build was taken: {state}");
    assert_eq!(
        browser.run(marks, vec![]).await?,
        json!(["// build two", "// build two"])
    );
    browser.close().await
}

/// One folder for a classroom: its models are listed, checked by hash, kept, and open from disk.
#[tokio::test]
async fn built_page_serves_a_classroom() -> Result {
    let dist = dist()?;
    let work = tempfile::tempdir()?;
    let nano = dist.join("models/nano");
    let model = work.path().join("a class's model");
    copy(&nano, &model)?;
    std::fs::write(
        model.join("listing.txt"),
        "A model for \"Tuesday\"\n\nAsk it about\ncapitals.\n",
    )?;
    let hook = std::fs::read_dir(nano.join("sae"))?
        .next()
        .ok_or("the nano model has no dictionary")??;
    let dictionary = work.path().join(hook.file_name());
    copy(&hook.path(), &dictionary)?;
    let out = work.path().join("out");
    script("classroom.sh", &[&out, &model, &dictionary], &dist)?;
    assert!(
        out.join("README.txt").is_file(),
        "nothing tells the teacher what to do"
    );

    let server = Server::start(&out)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    browser.click("#other-model").await?;
    browser
        .wait_until(
            "what is stored is known",
            "document.getElementById('storage').innerText.includes('on this disk')",
        )
        .await?;
    browser.screenshot("classroom").await?;
    let names = browser
        .eval("[...document.querySelectorAll('.entry')].filter((row) => row.innerText.includes('served with this page')).map((row) => row.querySelector('b').innerText)")
        .await?;
    assert_eq!(
        names,
        json!([
            "A model for \"Tuesday\"",
            hook.file_name().to_string_lossy()
        ])
    );
    let notes = browser
        .eval("document.getElementById('model-list').innerText")
        .await?;
    assert!(
        notes
            .as_str()
            .is_some_and(|told| told.contains("Ask it about capitals.")),
        "{notes}"
    );
    browser
        .eval("[...document.querySelectorAll('.entry')].filter((row) => row.innerText.includes('served with this page')).forEach((row) => row.querySelector('input').click())")
        .await?;
    browser.click("#model-load").await?;
    browser
        .wait_until(
            "both are there",
            "!document.getElementById('model-dialog').open",
        )
        .await?;
    ready(&browser).await?;
    let requests = server.seen();
    assert!(
        requests.iter().any(|path| path.ends_with("manifest.json")),
        "no manifest was read"
    );

    // Without the server the page opens with that model, from disk.
    kept(&browser).await?;
    let url = server.url();
    server.stop();
    browser.client.goto(&url).await?;
    ready(&browser).await?;
    let status = browser
        .eval("document.getElementById('status').textContent")
        .await?;
    let status = status.as_str().unwrap_or_default();
    assert!(
        status.contains("A model for \"Tuesday\"") && status.contains("dictionary after block"),
        "{status}"
    );
    assert_ne!(
        browser.eval("navigator.serviceWorker.controller").await?,
        Value::Null
    );
    browser.close().await
}
