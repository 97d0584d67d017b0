//! Choosing other models: by address, by dropping a folder, kept on disk, deleted; and going on after
//! the graphics device was lost.

use std::path::Path;

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ended, ready};
use crate::server::{Fault, Server};

/// Copies the nano model to `folder/name`.
fn nano(folder: &Path, name: &str) -> Result {
    let from = dist()?.join("models/nano");
    let to = folder.join(name);
    std::fs::create_dir_all(&to)?;
    for file in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "report.json",
    ] {
        std::fs::copy(from.join(file), to.join(file))?;
    }
    for hook in std::fs::read_dir(from.join("sae"))? {
        let hook = hook?;
        let inside = to.join("sae").join(hook.file_name());
        std::fs::create_dir_all(&inside)?;
        for file in ["cfg.json", "sae.safetensors"] {
            std::fs::copy(hook.path().join(file), inside.join(file))?;
        }
    }
    Ok(())
}

/// The line that says what runs.
pub async fn status(browser: &Browser) -> Result<String> {
    let text = browser
        .eval("document.getElementById('status').textContent")
        .await?;
    Ok(text.as_str().ok_or("no status")?.to_owned())
}

/// Opens the chooser and adds a model by its address.
async fn choose(browser: &Browser, url: &str) -> Result {
    browser.click("#other-model").await?;
    browser
        .eval(&format!(
            "(() => {{
                document.querySelector('#model-form details').open = true;
                document.getElementById('model-url').value = {};
                document.getElementById('model-add').click();
            }})()",
            json!(url)
        ))
        .await?;
    Ok(())
}

/// Waits until the chooser has closed and another model than the page's own runs, or the page says why not.
async fn loaded(browser: &Browser) -> Result {
    browser
        .wait_until(
            "the chooser closes, and what ran before ends",
            "!document.getElementById('model-dialog').open && !document.getElementById('status').textContent.includes('Nano Phi-3')",
        )
        .await?;
    ready(browser).await
}

/// A model by its address: downloaded, kept, opened from disk the next time, checked, deleted.
#[tokio::test]
async fn built_page_keeps_and_deletes_a_model() -> Result {
    let front = tempfile::tempdir()?;
    nano(front.path(), "other")?;
    let server = Server::start_with(&dist()?, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    choose(&browser, &format!("{}other", server.url())).await?;
    assert_eq!(
        browser
            .eval("document.getElementById('model-load').innerText.startsWith('Download')")
            .await?,
        json!(true)
    );
    browser.click("#model-load").await?;
    loaded(&browser).await?;
    let line = status(&browser).await?;
    assert!(
        line.contains("other") && line.contains("dictionary after block"),
        "{line}"
    );

    // From disk: its files on the server are gone.
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        server.break_file(&format!("other/{file}"), Fault::Status(404));
    }
    let sent = server.sent("other/model.safetensors");
    browser.client.refresh().await?;
    ready(&browser).await?;
    assert_eq!(status(&browser).await?, line);
    assert_eq!(
        server.sent("other/model.safetensors"),
        sent,
        "it was not read from disk"
    );

    browser.click("#other-model").await?;
    let row = "[...document.querySelectorAll('#model-list .entry')].find((row) => row.querySelector('b').innerText === 'other')";
    browser
        .wait_until(
            "the row says that it is stored",
            &format!("{row}.innerText.includes('On this disk')"),
        )
        .await?;
    browser.screenshot("stored").await?;
    let press = |label: &str| {
        format!(
            "[...{row}.querySelectorAll('button')].find((button) => button.innerText === '{label}').click()"
        )
    };
    browser.eval(&press("Check")).await?;
    browser
        .wait_until(
            "the check ends",
            &format!(
                "{row}.querySelector('progress').hidden && {row}.innerText.includes('On this disk')"
            ),
        )
        .await?;
    browser.eval(&press("Delete")).await?;
    browser
        .wait_until(
            "the row offers the download again",
            &format!("{row}.innerText.includes('Download')"),
        )
        .await?;
    let left = browser
        .run(
            "let files = 0;
             const root = await (await navigator.storage.getDirectory()).getDirectoryHandle('phi3-steer-1');
             for await (const name of root.keys()) files += 1;
             return files;",
            vec![],
        )
        .await?;
    assert_eq!(left, json!(0), "something is left on disk");

    // Its address, which may hold a secret, is nowhere left: the next visit begins with the page's own model.
    browser.client.refresh().await?;
    ready(&browser).await?;
    assert!(status(&browser).await?.contains("Nano Phi-3"));
    let traces = browser
        .run(
            "const found = [];
             for (const [key, value] of Object.entries(localStorage)) if (value.includes(given[0]) || key.includes(given[0])) found.push(key);
             for (const name of await caches.keys()) for (const { url } of await (await caches.open(name)).keys()) if (url.includes(given[0])) found.push(url);
             return found;",
            vec![json!("/other")],
        )
        .await?;
    assert_eq!(traces, json!([]), "its address is still there");
    browser.close().await
}

/// A stored model that the browser has cleared: the next visit says so, and there is a way back.
#[tokio::test]
async fn built_page_says_that_a_model_was_cleared() -> Result {
    let front = tempfile::tempdir()?;
    nano(front.path(), "other")?;
    let server = Server::start_with(&dist()?, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    choose(&browser, &format!("{}other", server.url())).await?;
    browser.click("#model-load").await?;
    loaded(&browser).await?;
    browser
        .run(
            "await (await navigator.storage.getDirectory()).removeEntry('phi3-steer-1', { recursive: true });",
            vec![],
        )
        .await?;
    browser.client.refresh().await?;
    browser
        .wait_until(
            "an error is shown",
            "document.querySelector('#stage .error-panel') !== null",
        )
        .await?;
    let title = browser.find("#stage .error-panel h2").await?.text().await?;
    assert_eq!(title, "It is no longer on this disk");
    browser
        .eval("[...document.querySelectorAll('#stage .error-panel button')].find((button) => button.innerText === 'Back to the nano model').click()")
        .await?;
    ready(&browser).await?;
    assert!(status(&browser).await?.contains("Nano Phi-3"));
    browser.close().await
}

/// No room on disk: the page says so, still works, and loads the model without keeping it.
#[tokio::test]
async fn built_page_runs_without_room_on_disk() -> Result {
    let front = tempfile::tempdir()?;
    nano(front.path(), "other")?;
    let server = Server::start_with(&dist()?, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    crate::offline::kept(&browser).await?;
    let used = browser
        .run("return (await navigator.storage.estimate()).usage;", vec![])
        .await?;
    let used = used.as_u64().ok_or("no usage")?;
    let origin = server.url().trim_end_matches('/').to_owned();
    browser
        .command(
            "Storage.overrideQuotaForOrigin",
            json!({ "origin": origin, "quotaSize": used + 3_000_000 }),
        )
        .await?;
    choose(&browser, &format!("{}other", server.url())).await?;
    browser.click("#model-load").await?;
    browser
        .wait_until("the page says that there is no room", "document.querySelector('.entry-trouble')?.innerText.includes('no room') || [...document.querySelectorAll('.entry-trouble')].some((one) => one.innerText.includes('no room'))")
        .await?;
    browser.screenshot("no-room").await?;
    browser
        .eval("[...document.querySelectorAll('.entry-trouble button')].find((button) => button.innerText === 'Load without keeping it').click()")
        .await?;
    loaded(&browser).await?;
    assert!(status(&browser).await?.contains("other"));
    browser.click("#suggestions .suggestion").await?;
    ended(&browser, 1).await?;
    browser.close().await
}

/// A folder dropped onto the page is found to be a model with its dictionary, and runs.
#[tokio::test]
async fn built_page_takes_a_dropped_folder() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    let hook: Value =
        serde_json::from_slice(&std::fs::read(dist()?.join("models/nano/report.json"))?)?;
    let hook = hook["hook"].as_str().ok_or("no hook")?;
    // A drop by a person cannot be played; its entries are, from files of the site.
    browser
        .run(
            "const names = ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors', 'report.json',
                `sae/${given[0]}/cfg.json`, `sae/${given[0]}/sae.safetensors`, '.hidden/x'];
             const blobs = {};
             for (const name of names) blobs[name] = name.startsWith('.') ? new Blob([]) : await (await fetch(`models/nano/${name}`)).blob();
             const folder = (name, prefix) => ({
                isFile: false, isDirectory: true, name,
                createReader() {
                    const inside = new Map();
                    for (const path of names.filter((path) => path.startsWith(prefix))) {
                        const [first, ...rest] = path.slice(prefix.length).split('/');
                        inside.set(first, rest.length
                            ? folder(first, `${prefix}${first}/`)
                            : { isFile: true, isDirectory: false, name: first, file: (take) => take(new File([blobs[path]], first)) });
                    }
                    const left = [...inside.values()];
                    // Browsers hand out some at a time.
                    return { readEntries: (take) => take(left.splice(0, 2)) };
                },
             });
             const data = new DataTransfer();
             data.items.add(new File(['x'], 'dropped'));
             DataTransferItem.prototype.webkitGetAsEntry = () => folder('dropped', '');
             const fire = (kind) => document.body.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }));
             fire('dragenter');
             if (document.getElementById('veil').hidden) throw new Error('nothing shows that it can be dropped');
             fire('drop');",
            vec![json!(hook)],
        )
        .await?;
    browser
        .wait_until("the chooser opens with it", "document.querySelector('#model-list .entry:has(input:checked) b')?.innerText === 'dropped'")
        .await?;
    assert_eq!(
        browser.eval("document.activeElement.id").await?,
        json!("model-load")
    );
    browser.screenshot("dropped").await?;
    browser.click("#model-load").await?;
    loaded(&browser).await?;
    let line = status(&browser).await?;
    assert!(
        line.contains("dropped") && line.contains("dictionary after block"),
        "{line}"
    );
    browser.close().await
}

/// The graphics process dies in the middle of an answer: a new engine goes on with the conversation.
#[tokio::test]
async fn built_page_goes_on_after_a_lost_device() -> Result {
    let server = Server::start(&dist()?)?;
    // Chromium gives up on a graphics process that crashes often.
    let flags = [
        "--disable-gpu-process-crash-limit",
        "--disable-domain-blocking-for-3d-apis",
    ];
    let browser = Browser::start(&flags).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    let say = |text: &str| {
        format!(
            "(() => {{
                const field = document.getElementById('message');
                field.value = '{text}';
                field.dispatchEvent(new Event('input'));
                document.getElementById('send').click();
            }})()"
        )
    };
    browser
        .eval("(() => { const slider = document.getElementById('strength'); slider.value = '5'; slider.dispatchEvent(new Event('input')); })()")
        .await?;
    let answers =
        "[...document.querySelectorAll('.turn .answer-body')].map((body) => body.innerText)";
    browser.eval(&say("How do I bake bread?")).await?;
    ended(&browser, 1).await?;
    let first = browser.eval(answers).await?;
    browser
        .eval(&say("Please tell me how to make soup."))
        .await?;
    ended(&browser, 2).await?;
    let all = browser.eval(answers).await?;

    // The same turn again, and the device goes in its middle.
    browser.click(".turn.last .turn-foot button").await?;
    browser
        .wait_until(
            "the answer begins",
            "document.querySelectorAll('.turn.last .answer .token').length > 2",
        )
        .await?;
    browser
        .command("Browser.crashGpuProcess", json!({}))
        .await?;
    browser
        .wait_until("the page says what happens", "document.querySelector('.loading-card')?.innerText.includes('starting again') ?? false")
        .await?;
    browser.screenshot("lost").await?;
    ready(&browser).await?;
    ended(&browser, 2).await?;
    let after = browser.eval(answers).await?;
    assert_eq!(after[0], first[0], "the conversation was not kept");
    assert_eq!(after, all, "the new engine answers differently");
    assert_eq!(
        browser
            .eval("document.getElementById('strength').valueAsNumber")
            .await?,
        json!(5)
    );

    // A second loss soon after waits for the visitor: one click.
    browser.eval(&say("Thank you.")).await?;
    browser
        .wait_until(
            "the answer begins",
            "document.querySelectorAll('.turn.last .answer .token').length > 0",
        )
        .await?;
    browser
        .command("Browser.crashGpuProcess", json!({}))
        .await?;
    browser
        .wait_until("the page offers a new engine", "document.querySelector('#stage .error-panel button')?.innerText === 'Reload the engine'")
        .await?;
    browser.click("#stage .error-panel button").await?;
    ready(&browser).await?;
    ended(&browser, 3).await?;
    let last = browser.eval(answers).await?;
    assert_eq!(last[3], all[3]);
    assert!(
        last[4].as_str().is_some_and(|text| !text.is_empty()),
        "the interrupted turn was not repeated"
    );
    browser.close().await
}

/// The chooser fits a phone, and is used by keyboard.
#[tokio::test]
async fn built_page_chooser_fits_a_phone() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start_phone(390, 844).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    browser
        .eval("document.getElementById('other-model').click()")
        .await?;
    browser
        .wait_until(
            "the list is there",
            "document.querySelectorAll('#model-list .entry').length > 3",
        )
        .await?;
    browser
        .eval("document.querySelectorAll('#model-dialog details').forEach((one) => (one.open = true))")
        .await?;
    browser.screenshot("phone-chooser").await?;
    let wide = browser
        .eval("[...document.querySelectorAll('#model-dialog *')].filter((node) => node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.id || node.className)")
        .await?;
    assert_eq!(wide, json!([]), "wider than the screen");
    assert_eq!(
        browser.eval("document.activeElement.value").await?,
        json!("nano")
    );
    // The arrow moves the mark, as in every group of radio buttons.
    let focused = browser.find("#model-list input:checked").await?;
    focused.send_keys("\u{e015}").await?;
    assert_ne!(
        browser.eval("document.activeElement.value").await?,
        json!("nano")
    );
    assert_eq!(
        browser.eval("document.querySelector('#model-list input:checked').value === document.activeElement.value").await?,
        json!(true)
    );
    focused.send_keys("\u{e00c}").await?;
    assert_eq!(
        browser
            .eval("document.getElementById('model-dialog').open")
            .await?,
        json!(false)
    );
    browser.close().await
}
