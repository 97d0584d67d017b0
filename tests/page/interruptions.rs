//! Downloads that are interrupted: by a killed tab, a pause, a second tab, a full disk, or a file that was
//! changed behind the page's back.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::dist;
use crate::downloads::{CLEAR, DOWNLOAD, SIZE, blank, model, open, publish};
use crate::server::{Fault, Server};

/// Begins a download and returns once some bytes are there.
const BEGIN: &str = "
    const [url, bytes] = given;
    const { Downloads } = await import(new URL('www/downloads.js', document.baseURI));
    const downloads = new Downloads();
    const entry = { id: 'x', kind: 'model', name: 'x', url };
    await downloads.refresh();
    window.running = downloads.run(entry).then((whole) => (window.ended = { whole, code: downloads.job(entry)?.error?.code ?? null }));
    while (!window.ended && (downloads.job(entry)?.progress?.loaded ?? 0) < bytes) await new Promise((resolve) => setTimeout(resolve, 5));
    window.downloads = downloads;
    return window.ended ?? null;
";

/// Killing the tab at random moments never yields a wrong file: `KILLS` of them, 12 if not set.
#[tokio::test]
async fn built_page_survives_kills_while_downloading() -> Result {
    let kills: usize = match std::env::var("KILLS") {
        Ok(text) => text.parse()?,
        Err(_) => 12,
    };
    let seed: u64 = match std::env::var("SEED") {
        Ok(text) => text.parse()?,
        Err(_) => rand::rng().random(),
    };
    println!("SEED={seed} KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);

    let dist = dist()?;
    let front = tempfile::tempdir()?;
    blank(&dist, front.path())?;
    let size = 24_000_007;
    publish(&front.path().join("m"), &model(size, 2), true)?;
    let server = Server::start_with(&dist, Some(front.path()), false)?;
    const BIG: &str = "m/model.safetensors";
    let url = format!("{}m/", server.url());
    let known = json!([["model.safetensors", size, 2]]);
    let browser = Browser::start(&[]).await?;
    open(&server, &browser).await?;

    let (mut killed, mut completed, mut resumed) = (0, 0, 0);
    while killed < kills {
        server.repair();
        server.break_file(
            BIG,
            Fault::Slow(Duration::from_millis(random.random_range(1..12))),
        );
        if random.random_bool(0.2) {
            server.break_times(BIG, Fault::DropAfter(random.random_range(0..2_000_000)), 2);
        }
        let ended = browser
            .run(
                BEGIN,
                vec![json!(url), json!(random.random_range(0..200_000))],
            )
            .await?;
        if ended.is_null() {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
        }
        // Half of the tabs crash, the others are left in the middle.
        let crash = random.random_bool(0.5);
        let fresh = browser.client.new_window(true).await?;
        if crash {
            // The command gets no answer from a process that is gone.
            let _ = tokio::time::timeout(
                Duration::from_secs(5),
                browser.command("Page.crash", json!({})),
            )
            .await;
        }
        browser.client.close_window().await?;
        browser.client.switch_to_window(fresh.handle).await?;
        killed += 1;
        open(&server, &browser).await?;

        // What is there now is either whole and right, or not handed out.
        let state = browser
            .run(
                "const { Downloads } = await import(new URL('www/downloads.js', document.baseURI));
                 const downloads = new Downloads();
                 await downloads.refresh();
                 const entry = { id: 'x', kind: 'model', name: 'x', url: given[0] };
                 const item = downloads.item(entry);
                 const opened = await downloads.open(entry).then((files) => files.length, (error) => error.code);
                 return { state: item?.state ?? null, loaded: item?.loaded ?? 0, opened };",
                vec![json!(url)],
            )
            .await?;
        let whole = state["state"] == json!("whole");
        assert_eq!(whole, state["opened"].is_u64(), "kill {killed}: {state}");
        if state["loaded"].as_u64().unwrap_or(0) > 1_000_000 && !whole {
            resumed += 1;
        }
        if whole || random.random_bool(0.25) {
            server.repair();
            // The browser may need a moment to give the dead tab's files free.
            let mut got = Value::Null;
            for _ in 0..50 {
                got = browser
                    .run(DOWNLOAD, vec![json!(url), known.clone()])
                    .await?;
                if got["code"] != json!("busy-elsewhere") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(
                (&got["whole"], &got["wrong"]),
                (&json!(true), &Value::Null),
                "kill {killed}: {got}"
            );
            completed += 1;
            assert_eq!(browser.run(CLEAR, vec![]).await?, json!(0));
        }
    }
    println!(
        "{killed} kills, {resumed} with a part on disk, {completed} downloads completed after them"
    );
    assert!(
        kills < 8 || resumed > 0,
        "no kill hit a download in the middle"
    );
    browser.close().await
}

/// Pause, resume without fetching again what is there, a second tab, and cancel.
#[tokio::test]
async fn built_page_pauses_resumes_and_cancels_downloads() -> Result {
    let dist = dist()?;
    let front = tempfile::tempdir()?;
    blank(&dist, front.path())?;
    let size = 20_000_003;
    publish(&front.path().join("m"), &model(size, 2), true)?;
    let server = Server::start_with(&dist, Some(front.path()), false)?;
    let url = format!("{}m/", server.url());
    let known = json!([["model.safetensors", size, 2]]);
    server.break_file(
        "m/model.safetensors",
        Fault::Slow(Duration::from_millis(150)),
    );
    let browser = Browser::start(&[]).await?;
    open(&server, &browser).await?;
    let ended = browser
        .run(BEGIN, vec![json!(url), json!(3_000_000)])
        .await?;
    assert_eq!(ended, Value::Null, "it ended too early");

    // Another tab says so, and takes nothing.
    let first = browser.client.window().await?;
    let second = browser.client.new_window(true).await?;
    browser
        .client
        .switch_to_window(second.handle.clone())
        .await?;
    open(&server, &browser).await?;
    let got = browser
        .run(DOWNLOAD, vec![json!(url), known.clone()])
        .await?;
    assert_eq!(got["code"], json!("busy-elsewhere"), "{got}");
    browser.client.close_window().await?;
    browser.client.switch_to_window(first).await?;

    let paused = browser
        .run(
            "const entry = { id: 'x', kind: 'model', name: 'x', url: given[0] };
             await window.downloads.pause(entry);
             await window.running;
             return { ended: window.ended, loaded: window.downloads.item(entry)?.loaded };",
            vec![json!(url)],
        )
        .await?;
    assert_eq!(
        paused["ended"],
        json!({ "whole": false, "code": null }),
        "{paused}"
    );
    let loaded = paused["loaded"].as_u64().ok_or("nothing is on disk")? as usize;
    assert!(loaded >= 3_000_000 && loaded < size, "{paused}");

    // After a reload the rest comes, and only the rest.
    server.repair();
    open(&server, &browser).await?;
    let got = browser.run(DOWNLOAD, vec![json!(url), known]).await?;
    assert_eq!(
        (&got["whole"], &got["wrong"]),
        (&json!(true), &Value::Null),
        "{got}"
    );
    let sent = server.sent("m/model.safetensors");
    assert!(
        sent < size + loaded / 2,
        "{sent} bytes were sent of a file of {size}"
    );

    // A cancelled download leaves nothing.
    browser.run(CLEAR, vec![]).await?;
    server.break_file(
        "m/model.safetensors",
        Fault::Slow(Duration::from_millis(10)),
    );
    browser
        .run(BEGIN, vec![json!(url), json!(1_000_000)])
        .await?;
    let left = browser
        .run(
            "await window.downloads.remove({ id: 'x', kind: 'model', name: 'x', url: given[0] });
             await window.running;
             return window.downloads.listing.items.length;",
            vec![json!(url)],
        )
        .await?;
    assert_eq!(left, json!(0));
    browser.close().await
}

/// A full disk is an error that says so; what was there stays usable, and room makes it go on.
#[tokio::test]
async fn built_page_survives_a_full_disk() -> Result {
    let dist = dist()?;
    let front = tempfile::tempdir()?;
    blank(&dist, front.path())?;
    let size = 12_000_000;
    publish(&front.path().join("small"), &model(SIZE, 1), true)?;
    publish(&front.path().join("big"), &model(size, 2), false)?;
    let server = Server::start_with(&dist, Some(front.path()), false)?;
    let origin = server.url();
    let origin = origin.trim_end_matches('/');
    let browser = Browser::start(&[]).await?;
    open(&server, &browser).await?;
    let small = vec![
        json!(format!("{}small/", server.url())),
        json!([["model.safetensors", SIZE, 1]]),
    ];
    let big = vec![
        json!(format!("{}big/", server.url())),
        json!([["model.safetensors", size, 2]]),
    ];
    let got = browser.run(DOWNLOAD, small.clone()).await?;
    assert_eq!(got["whole"], json!(true), "{got}");

    let quota = |bytes: Option<usize>| match bytes {
        Some(bytes) => json!({ "origin": origin, "quotaSize": bytes }),
        None => json!({ "origin": origin }),
    };
    for faults in [None, Some(Fault::IgnoreRanges)] {
        if let Some(fault) = faults {
            server.break_file("big/model.safetensors", fault);
        }
        browser
            .command("Storage.overrideQuotaForOrigin", quota(Some(8_000_000)))
            .await?;
        let got = browser.run(DOWNLOAD, big.clone()).await?;
        assert_eq!(got["code"], json!("quota"), "{got}");
        let got = browser.run(DOWNLOAD, small.clone()).await?;
        assert_eq!(
            (&got["whole"], &got["wrong"]),
            (&json!(true), &Value::Null),
            "{got}"
        );
        browser
            .command("Storage.overrideQuotaForOrigin", quota(None))
            .await?;
    }
    let got = browser.run(DOWNLOAD, big).await?;
    assert_eq!(
        (&got["whole"], &got["wrong"]),
        (&json!(true), &Value::Null),
        "{got}"
    );
    browser.close().await
}

/// Changes the first stored file of an item, in a worker, where files can be changed in place.
const SPOIL: &str = "
    onmessage = async ({ data: [key, cut] }) => {
        const root = await (await navigator.storage.getDirectory()).getDirectoryHandle('phi3-steer-1');
        const file = await (await root.getDirectoryHandle(key)).getFileHandle('file-0');
        const handle = await file.createSyncAccessHandle();
        if (cut) handle.truncate(5);
        else handle.write(new Uint8Array([1, 2, 3]), { at: 77 });
        handle.flush();
        handle.close();
        postMessage(null);
    };
";

/// A stored file that was changed behind the page's back is found by its length, or by a check.
#[tokio::test]
async fn built_page_finds_damaged_files() -> Result {
    let dist = dist()?;
    let front = tempfile::tempdir()?;
    // Without the page's policy, which lets no worker of a test start.
    std::fs::write(
        front.path().join("blank.html"),
        "<!doctype html><title>blank</title>",
    )?;
    std::fs::write(front.path().join("spoil.js"), SPOIL)?;
    publish(&front.path().join("m"), &model(SIZE, 2), true)?;
    let server = Server::start_with(&dist, Some(front.path()), false)?;
    let known = json!([["model.safetensors", SIZE, 2]]);
    let url = json!(format!("{}m/", server.url()));
    let browser = Browser::start(&[]).await?;
    open(&server, &browser).await?;
    for cut in [false, true] {
        let got = browser
            .run(DOWNLOAD, vec![url.clone(), known.clone()])
            .await?;
        assert_eq!(got["whole"], json!(true), "{got}");
        let got = browser
            .run(
                "const { Downloads } = await import(new URL('www/downloads.js', document.baseURI));
                 const downloads = new Downloads();
                 await downloads.refresh();
                 const entry = { id: 'x', kind: 'model', name: 'x', url: given[0] };
                 const worker = new Worker('spoil.js');
                 await new Promise((resolve) => {
                    worker.onmessage = resolve;
                    worker.postMessage([downloads.key(entry), given[1]]);
                 });
                 const opened = await downloads.open(entry).then(() => 'opened', (error) => error.code);
                 const checked = await downloads.run(entry, 'verify');
                 const code = downloads.job(entry)?.error?.code ?? null;
                 return { opened, checked, code, state: downloads.item(entry)?.state ?? null };",
                vec![url.clone(), json!(cut)],
            )
            .await?;
        let opened = if cut { "incomplete" } else { "opened" };
        assert_eq!(got["opened"], json!(opened), "{got}");
        assert_eq!(got["checked"], json!(false), "{got}");
        assert_eq!(got["state"], json!("part"), "{got}");
    }
    browser.close().await
}
