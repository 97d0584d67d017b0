//! Odd but harmless servers, files that change under a download, other tabs; and the page's own files:
//! fetched once, checked when they are served.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fantoccini::wd::WindowHandle;
use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ready};
use crate::downloads::{CLEAR, DOWNLOAD, SIZE, blank, model, open, publish};
use crate::offline::{copy, kept, script};
use crate::server::{Fault, Server};

const BIG: &str = "m/model.safetensors";

/// A file compressed by the system's own command.
fn gzip(file: &Path) -> Result<Vec<u8>> {
    let output = Command::new("gzip").arg("-c").arg(file).output()?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err("gzip fails".into()),
    }
}

/// What servers do that is odd but harmless: it works, with and without a manifest.
#[tokio::test]
async fn built_page_takes_files_from_odd_servers() -> Result {
    let dist = dist()?;
    let front = tempfile::tempdir()?;
    blank(&dist, front.path())?;
    publish(&front.path().join("m"), &model(SIZE, 2), true)?;
    publish(&front.path().join("n"), &model(SIZE, 3), false)?;
    let server = Server::start_with(&dist, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    open(&server, &browser).await?;
    let config = gzip(&front.path().join("m/config.json"))?;
    let weights = gzip(&front.path().join("m/model.safetensors"))?;
    let other = gzip(&front.path().join("n/model.safetensors"))?;
    type Change<'a> = Box<dyn Fn(&Server) + 'a>;
    let cases: [(&str, Change); 5] = [
        (
            "no HEAD",
            Box::new(|server| {
                for file in ["config.json", "tokenizer.json", "model.safetensors"] {
                    server.break_file(&format!("n/{file}"), Fault::RefuseHead(405));
                }
            }),
        ),
        (
            "403 where nothing is",
            Box::new(|server| server.missing(403)),
        ),
        (
            "compressed ranges of a small file",
            Box::new(|server| {
                for folder in ["m", "n"] {
                    server.break_file(
                        &format!("{folder}/config.json"),
                        Fault::Gzip(config.clone()),
                    );
                }
            }),
        ),
        (
            "compressed ranges of a large file",
            Box::new(|server| {
                server.break_file(BIG, Fault::Gzip(weights.clone()));
                server.break_file("n/model.safetensors", Fault::Gzip(other.clone()));
            }),
        ),
        (
            "no range can be had",
            Box::new(|server| {
                server.break_file(BIG, Fault::RefuseRanges);
                server.break_file("n/model.safetensors", Fault::RefuseRanges);
            }),
        ),
    ];
    for (what, change) in &cases {
        for (folder, seed) in [("m", 2), ("n", 3)] {
            server.repair();
            server.missing(404);
            change(&server);
            let url = format!("{}{folder}/", server.url());
            let known = json!([["model.safetensors", SIZE, seed]]);
            let got = browser.run(DOWNLOAD, vec![json!(url), known]).await?;
            assert_eq!(
                (&got["whole"], &got["wrong"]),
                (&json!(true), &Value::Null),
                "{what}, {folder}: {got}"
            );
            let files = got["opened"].as_array().ok_or("nothing was opened")?;
            assert!(
                files.contains(&json!(["config.json", 21])),
                "{what}, {folder}: {got}"
            );
            assert_eq!(browser.run(CLEAR, vec![]).await?, json!(0), "{what}");
        }
    }
    browser.close().await
}

/// Begins a download and pauses it once some bytes are there.
const PAUSE: &str = "
    const [url, bytes] = given;
    const { Downloads } = await import(new URL('www/downloads.js', document.baseURI));
    const downloads = new Downloads();
    const entry = { id: 'x', kind: 'model', name: 'x', url };
    await downloads.refresh();
    const running = downloads.run(entry);
    while ((downloads.job(entry)?.progress?.loaded ?? 0) < bytes && downloads.job(entry)?.running) await new Promise((resolve) => setTimeout(resolve, 5));
    await downloads.pause(entry);
    await running;
    return downloads.item(entry)?.loaded ?? null;
";

/// A paused download whose files the server changed meanwhile goes on with the new ones, and keeps what
/// is still the same.
#[tokio::test]
async fn built_page_renews_a_plan() -> Result {
    let dist = dist()?;
    for manifest in [true, false] {
        let front = tempfile::tempdir()?;
        blank(&dist, front.path())?;
        let folder = front.path().join("m");
        let size = 9_000_001;
        publish(&folder, &model(size, 2), manifest)?;
        let server = Server::start_with(&dist, Some(front.path()), false)?;
        let browser = Browser::start(&[]).await?;
        open(&server, &browser).await?;
        let url = json!(format!("{}m/", server.url()));
        server.break_file(BIG, Fault::Slow(Duration::from_millis(40)));
        let loaded = browser
            .run(PAUSE, vec![url.clone(), json!(2_000_000)])
            .await?;
        assert!(loaded.as_u64().is_some_and(|n| n > 0), "{loaded}");
        server.repair();

        // The description changes: the weights' part stays.
        let mut files = model(size, 2);
        files[2].1 = br#"{"changed":true}"#.to_vec();
        publish(&folder, &files, manifest)?;
        let before = server.sent(BIG);
        let known = |seed: u32| json!([["model.safetensors", size, seed]]);
        server.break_file(BIG, Fault::Slow(Duration::from_millis(40)));
        browser
            .run(PAUSE, vec![url.clone(), json!(4_000_000)])
            .await?;
        server.repair();
        let loaded = loaded.as_u64().unwrap_or(0) as usize;
        let sent = server.sent(BIG) - before;
        println!("manifest: {manifest}, {sent} bytes sent after {loaded} of {size}");
        assert!(
            sent < size - loaded + 2_000_000,
            "what was there was fetched again"
        );

        // The weights change: all of them come, once.
        publish(&folder, &model(size, 7), manifest)?;
        let before = server.sent(BIG);
        let got = browser.run(DOWNLOAD, vec![url.clone(), known(7)]).await?;
        assert_eq!(
            (&got["whole"], &got["wrong"]),
            (&json!(true), &Value::Null),
            "{got}"
        );
        let sent = server.sent(BIG) - before;
        println!("manifest: {manifest}, {sent} bytes sent of {size} that are new");
        assert!(sent < size + 2_000_000, "they came twice");
        browser.close().await?;
    }
    Ok(())
}

/// A second tab shows the first one's download, and what became of it: also when that tab is gone.
#[tokio::test]
async fn built_page_shows_other_tabs_downloads() -> Result {
    let dist = dist()?;
    let front = tempfile::tempdir()?;
    blank(&dist, front.path())?;
    publish(&front.path().join("m"), &model(SIZE, 2), true)?;
    let server = Server::start_with(&dist, Some(front.path()), false)?;
    let url = json!(format!("{}m/", server.url()));
    let browser = Browser::start(&[]).await?;
    open(&server, &browser).await?;
    let first = browser.client.window().await?;
    let second = browser.client.new_window(true).await?.handle;
    browser.client.switch_to_window(second.clone()).await?;
    open(&server, &browser).await?;
    let watch = "
        const { Downloads } = await import(new URL('www/downloads.js', document.baseURI));
        window.entry = { id: 'x', kind: 'model', name: 'x', url: given[0] };
        window.downloads = new Downloads();
        await downloads.refresh();
    ";
    browser.run(watch, vec![url.clone()]).await?;
    let begin = "window.running = downloads.run(entry).then((whole) => (window.ended = whole)); return null;";
    for gone in [false, true] {
        server.break_file(BIG, Fault::Slow(Duration::from_millis(300)));
        browser.client.switch_to_window(first.clone()).await?;
        open(&server, &browser).await?;
        browser.run(watch, vec![url.clone()]).await?;
        browser.run(begin, vec![]).await?;
        browser.client.switch_to_window(second.clone()).await?;
        browser
            .wait_until(
                "the other tab's work is seen",
                "downloads.item(entry)?.elsewhere === true",
            )
            .await?;
        browser.run("await downloads.run(entry);", vec![]).await?;
        assert_eq!(
            browser
                .eval("downloads.job(entry)?.error?.code ?? null")
                .await?,
            json!("busy-elsewhere")
        );
        browser
            .wait_until("it is seen to go on", "downloads.item(entry).loaded > 0")
            .await?;
        if gone {
            browser.client.switch_to_window(first.clone()).await?;
            open(&server, &browser).await?;
            browser.client.switch_to_window(second.clone()).await?;
        } else {
            server.repair();
        }
        browser
            .wait_until(
                "its end is seen",
                "downloads.item(entry)?.elsewhere === false && downloads.job(entry) === undefined",
            )
            .await?;
        let state = if gone { "part" } else { "whole" };
        assert_eq!(
            browser.eval("downloads.item(entry).state").await?,
            json!(state)
        );
        server.repair();
        if gone {
            assert_eq!(browser.run(CLEAR, vec![]).await?, json!(0));
        } else {
            deleted_elsewhere(&browser, &first, &second, watch, &url).await?;
        }
    }
    browser.close().await
}

/// What another tab deletes is told here, with its address; what the browser clears by itself is only gone.
async fn deleted_elsewhere(
    browser: &Browser,
    first: &WindowHandle,
    second: &WindowHandle,
    watch: &str,
    url: &Value,
) -> Result {
    let listen = "window.told = []; downloads.addEventListener('removed', ({ detail }) => told.push(detail)); return null;";
    let fetch = "return await downloads.run(entry);";
    browser.run(listen, vec![]).await?;
    browser.client.switch_to_window(first.clone()).await?;
    browser.run(watch, vec![url.clone()]).await?;
    browser.run(listen, vec![]).await?;
    browser
        .run("await downloads.remove(entry);", vec![])
        .await?;
    let deleted = json!([{ "kind": "model", "url": url }]);
    assert_eq!(browser.eval("told").await?, deleted, "in its own tab");
    browser.client.switch_to_window(second.clone()).await?;
    browser
        .wait_until(
            "the deletion is told",
            "told.length > 0 && downloads.item(entry) === undefined",
        )
        .await?;
    assert_eq!(browser.eval("told").await?, deleted, "in another tab");

    assert_eq!(browser.run(fetch, vec![]).await?, json!(true));
    assert_eq!(browser.run(CLEAR, vec![]).await?, json!(0));
    browser.run("await downloads.refresh();", vec![]).await?;
    assert_eq!(
        browser
            .eval("downloads.item(entry) === undefined && told.length")
            .await?,
        json!(1),
        "nobody has deleted it"
    );
    Ok(())
}

/// On a first visit nothing comes from the server twice, and nothing that is not used.
#[tokio::test]
async fn built_page_fetches_everything_once() -> Result {
    let dist = dist()?;
    for hold in [true, false] {
        let server = Server::start(&dist)?;
        if hold {
            server.let_hold();
        }
        let browser = Browser::start(&[]).await?;
        browser.client.goto(&server.url()).await?;
        ready(&browser).await?;
        kept(&browser).await?;
        let seen = server.seen();
        assert!(
            !seen.iter().any(|path| path.ends_with("eval.json")),
            "what the page does not read was fetched"
        );
        // The model, without what the page has beside it: figures, a text, a dictionary.
        let model = seen.iter().filter(|path| {
            let name = path.strip_prefix("models/nano/");
            let others = |name: &str| {
                ["report.json", "README.md"].contains(&name) || name.starts_with("sae/")
            };
            name.is_some_and(|name| !others(name))
        });
        assert!(
            model.clone().count() <= 4,
            "{:?}",
            model.collect::<Vec<_>>()
        );
        let mut paths: Vec<&String> = seen.iter().collect();
        paths.sort_unstable();
        paths.dedup();
        let (mut all, mut files) = (0, 0);
        for path in paths {
            let Ok(found) = std::fs::metadata(dist.join(path)) else {
                continue;
            };
            let (size, sent) = (found.len() as usize, server.sent(path));
            all += sent;
            files += size;
            // What the browser may not hold is the page itself, which it has before the worker starts.
            let large = path.starts_with("models/") || path.starts_with("phi3-steer");
            // The browser looks for another version of the service worker at times of its own.
            if (hold || large) && path != "sw.js" {
                assert!(
                    sent <= size,
                    "{path} has {size} bytes and {sent} were sent, in {} requests",
                    seen.iter().filter(|one| *one == path).count()
                );
            }
            if large {
                let requests = seen.iter().filter(|one| *one == path).count();
                assert_eq!(requests, 1, "{path}");
            }
        }
        println!(
            "held by the browser: {hold}; {} requests, {all} bytes of files of {files}",
            seen.len()
        );
        browser.close().await?;
    }
    Ok(())
}

/// What the page kept is checked when it is served: a damaged file comes anew, or not at all.
#[tokio::test]
async fn built_page_checks_what_it_kept() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    kept(&browser).await?;
    let spoil = "
        for (const name of await caches.keys()) {
            const cache = await caches.open(name);
            const url = new URL('www/prompts.js', document.baseURI).href;
            const old = await cache.match(url);
            if (old) await cache.put(url, new Response('export const spoilt = true;', { headers: old.headers }));
        }
    ";
    let read = "
        const text = async () => (await fetch('www/prompts.js', given[0] ? { headers: { Range: 'bytes=0-25' } } : {})).text();
        return text().then((text) => text.includes('spoilt'), () => 'nothing');
    ";
    for range in [false, true] {
        browser.run(spoil, vec![]).await?;
        assert_eq!(
            browser.run(read, vec![json!(range)]).await?,
            json!(false),
            "range: {range}"
        );
    }
    let requests = server.seen();
    assert!(
        requests
            .iter()
            .filter(|path| *path == "www/prompts.js")
            .count()
            >= 2,
        "it was not fetched anew"
    );
    browser.run(spoil, vec![]).await?;
    server.stop();
    assert_eq!(
        browser.run(read, vec![json!(false)]).await?,
        json!("nothing"),
        "damaged bytes were served"
    );
    // The others still are.
    assert_eq!(
        browser
            .run("return (await fetch('www/judge.js')).ok;", vec![])
            .await?,
        json!(true)
    );
    // A percent sign that stands for nothing is no trouble.
    assert_eq!(
        browser
            .run(
                "return fetch('models/nano/100%').then((got) => got.status, () => 'failed');",
                vec![]
            )
            .await?,
        json!(404)
    );
    browser.close().await
}

/// A first visit that ends before all is kept, and a new build before the next: no page of both.
#[tokio::test]
async fn built_page_never_mixes_a_half_kept_build() -> Result {
    let site = tempfile::tempdir()?;
    copy(&dist()?, site.path())?;
    let server = Server::start(site.path())?;
    server.break_file("phi3-steer_bg.wasm", Fault::Slow(Duration::from_secs(1)));
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    browser
        .run(
            "const kept = async () => { for (const name of await caches.keys()) for (const { url } of await (await caches.open(name)).keys()) if (url.includes('worker.js')) return true; return false; };
             while (!(await kept())) await new Promise((resolve) => setTimeout(resolve, 50));",
            vec![],
        )
        .await?;
    let files = ["www/worker.js", "www/prompts.js"];
    for file in files {
        let path = site.path().join(file);
        let old = std::fs::read_to_string(&path)?;
        std::fs::write(path, format!("{old}\n// build two\n"))?;
    }
    script("precache.sh", &[site.path()], site.path())?;
    server.repair();
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    let marks = "
        return Promise.all(given[0].map(async (file) => (await (await fetch(file)).text()).includes('// build two')));
    ";
    assert_eq!(
        browser.run(marks, vec![json!(files)]).await?,
        json!([true, true])
    );
    // And the new one is kept as a whole.
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    kept(&browser).await?;
    let url = server.url();
    server.stop();
    browser.client.goto(&url).await?;
    ready(&browser).await?;
    assert_eq!(
        browser.run(marks, vec![json!(files)]).await?,
        json!([true, true])
    );
    browser.close().await
}

/// The chooser says before a download that a model comes without a dictionary, and offers those that fit.
#[tokio::test]
async fn built_page_offers_dictionaries_before_the_download() -> Result {
    let server = Server::start(&dist()?)?;
    for phone in [false, true] {
        let browser = match phone {
            true => Browser::start_phone(390, 844).await?,
            false => Browser::start(&[]).await?,
        };
        browser.client.goto(&server.url()).await?;
        ready(&browser).await?;
        browser
            .eval("document.getElementById('other-model').click()")
            .await?;
        browser
            .eval("document.querySelector('#model-list input[value=\"phi-3-mini-4k-q4\"]').click()")
            .await?;
        let seen = browser
            .eval(
                "(() => {
                    const note = document.querySelector('.steering-note');
                    const box = note.getBoundingClientRect();
                    const options = [...note.querySelectorAll('option')].map((option) => option.value);
                    const marked = document.querySelector('#sae-list input:checked').value;
                    return { text: note.innerText, visible: box.height > 0 && box.bottom <= innerHeight && box.right <= innerWidth, options, marked, own: document.querySelector('#sae-list li[data-id=auto]') !== null };
                })()",
            )
            .await?;
        assert!(
            seen["text"]
                .as_str()
                .is_some_and(|text| text.contains("no steering")),
            "{seen}"
        );
        assert_eq!(
            (&seen["visible"], &seen["marked"], &seen["own"]),
            (&json!(true), &json!("none"), &json!(false)),
            "{seen}"
        );
        assert!(
            seen["options"]
                .as_array()
                .is_some_and(|options| options.len() >= 5),
            "{seen}"
        );
        browser
            .screenshot(if phone {
                "phone-no-dictionary"
            } else {
                "no-dictionary"
            })
            .await?;
        browser
            .eval("(() => { const select = document.getElementById('sae-quick'); select.value = 'analist-21'; select.dispatchEvent(new Event('change')); })()")
            .await?;
        assert_eq!(
            browser
                .eval("document.querySelector('#sae-list input:checked').value")
                .await?,
            json!("analist-21")
        );
        browser
            .eval("document.querySelector('#model-list input[value=\"nano\"]').click()")
            .await?;
        assert_eq!(
            browser
                .eval("[document.querySelector('#sae-list input:checked').value, document.querySelector('.steering-note').hidden]")
                .await?,
            json!(["auto", true])
        );
        browser.close().await?;
    }
    Ok(())
}
