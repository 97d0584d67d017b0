//! The download manager and the store against servers that misbehave: every case ends in a file
//! that is right, byte for byte, or in a clear error, and nothing is ever taken for whole that is not.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::dist;
use crate::server::{Fault, Server};

/// Bytes that say where they are, as in `DOWNLOAD`.
pub fn content(length: usize, seed: u32) -> Vec<u8> {
    (0..length as u32)
        .map(|at| (at.wrapping_mul(31) + (at >> 8).wrapping_mul(7) + seed) as u8)
        .collect()
}

/// The files of a model whose weights have this length: a head that is none, then bytes that say where they are.
pub fn model(length: usize, seed: u32) -> Vec<(&'static str, Vec<u8>)> {
    let mut weights = content(length, seed);
    weights[..HEAD].copy_from_slice(b"\x10\0\0\0\0\0\0\0{\"a\":1}\n");
    vec![
        ("model.safetensors", weights),
        ("config.json", br#"{"model_type":"phi3"}"#.to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
    ]
}

/// A GGUF file of this length, as far as the page looks at one.
pub fn gguf(length: usize, seed: u32) -> Vec<u8> {
    let mut file = content(length, seed);
    file[..4].copy_from_slice(b"GGUF");
    file
}

/// Bytes at the front that are not those of `content`.
const HEAD: usize = 16;

/// SHA-256 by the system's own command.
pub fn sha256(file: &Path) -> Result<String> {
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg(file).stderr(Stdio::null());
        command.output()
    };
    let output = run("sha256sum", &[]).or_else(|_| run("shasum", &["-a", "256"]))?;
    let text = String::from_utf8(output.stdout)?;
    let hash = text.split_whitespace().next().ok_or("no hash")?;
    Ok(hash.to_owned())
}

/// Writes files into a folder, with a manifest of them if asked for.
pub fn publish(folder: &Path, files: &[(&str, Vec<u8>)], manifest: bool) -> Result {
    std::fs::create_dir_all(folder)?;
    let mut listed = Vec::new();
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes)?;
        listed.push(json!({ "name": name, "bytes": bytes.len(), "sha256": sha256(&path)? }));
    }
    if manifest {
        let manifest = json!({ "format": "phi3-steer-files-1", "files": listed });
        std::fs::write(folder.join("manifest.json"), manifest.to_string())?;
    }
    Ok(())
}

/// Downloads a model through the page's own modules and checks every byte of what is handed out.
/// Arguments: the address, and a list of name, length and seed of each file whose bytes are known but for
/// its head.
pub const DOWNLOAD: &str = "
    const [url, known] = given;
    const { Downloads } = await import(new URL('www/downloads.js', document.baseURI));
    const downloads = new Downloads();
    const entry = { id: 'x', kind: 'model', name: 'x', url };
    await downloads.refresh();
    const whole = await downloads.run(entry);
    const job = downloads.job(entry);
    const item = downloads.item(entry);
    let opened = null;
    let wrong = null;
    try {
        const files = await downloads.open(entry);
        opened = files.map((file) => [file.name, file.size]);
        for (const [name, length, seed] of known) {
            const file = files.find((file) => file.name === name);
            if (!file || file.size !== length) { wrong = `${name} has ${file?.size} bytes`; continue; }
            const bytes = new Uint8Array(await file.arrayBuffer());
            for (let at = 16; at < length; at++) {
                const right = (Math.imul(at, 31) + Math.imul(at >>> 8, 7) + seed) & 255;
                if (bytes[at] !== right) { wrong = `${name} differs at byte ${at}`; break; }
            }
        }
    } catch (error) {
        opened = error.code;
    }
    return { whole, code: job?.error?.code ?? null, message: job?.error?.message ?? null, state: item?.state ?? null, opened, wrong };
";

/// Deletes what is stored.
pub const CLEAR: &str = "
    const { Downloads } = await import(new URL('www/downloads.js', document.baseURI));
    const downloads = new Downloads();
    await downloads.refresh();
    for (const item of downloads.listing.items) await downloads.call('remove', [item.key]);
    await downloads.refresh();
    return downloads.listing.items.length;
";

/// A page of the site without the engine: quick to open.
pub async fn open(server: &Server, browser: &Browser) -> Result {
    browser
        .client
        .goto(&format!("{}blank.html", server.url()))
        .await?;
    Ok(())
}

/// A page with the policy of the real one and nothing on it.
pub fn blank(dist: &Path, front: &Path) -> Result {
    let index = std::fs::read_to_string(dist.join("index.html"))?;
    let start = index.find("<meta").ok_or("index.html has no meta")?;
    let end = index.find("<title>").ok_or("index.html has no title")?;
    let page = format!(
        "<!doctype html><html><head>{}<title>blank</title></head><body></body></html>",
        &index[start..end]
    );
    std::fs::write(front.join("blank.html"), page)?;
    Ok(())
}

pub const SIZE: usize = 3_000_001;

/// Faults of every kind, on files with a manifest.
#[tokio::test]
async fn built_page_downloads_right_or_says_why() -> Result {
    let dist = dist()?;
    let front = tempfile::tempdir()?;
    blank(&dist, front.path())?;
    publish(&front.path().join("m"), &model(SIZE, 2), true)?;
    let server = Server::start_with(&dist, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    open(&server, &browser).await?;
    const BIG: &str = "m/model.safetensors";
    let url = format!("{}m/", server.url());
    let known = json!([["model.safetensors", SIZE, 2]]);

    let always = usize::MAX;
    let cases: [(&str, &str, Fault, usize, Option<&str>); 17] = [
        (
            "nothing is wrong",
            BIG,
            Fault::Slow(Duration::ZERO),
            0,
            None,
        ),
        ("no ranges", BIG, Fault::IgnoreRanges, always, None),
        ("some drops", BIG, Fault::DropAfter(700_000), 3, None),
        (
            "a drop each time",
            BIG,
            Fault::DropAfter(400_000),
            always,
            None,
        ),
        (
            "drops without progress",
            BIG,
            Fault::DropAfter(10),
            always,
            Some("network"),
        ),
        ("500 for a while", BIG, Fault::Status(500), 2, None),
        ("429 for a while", BIG, Fault::Status(429), 2, None),
        ("500", BIG, Fault::Status(500), always, Some("server")),
        ("429", BIG, Fault::Status(429), always, Some("throttled")),
        ("403", BIG, Fault::Status(403), always, Some("forbidden")),
        ("404", BIG, Fault::Status(404), always, Some("not-found")),
        (
            "corrupt bytes once",
            BIG,
            Fault::Overwrite(99_999, vec![1, 2, 3]),
            1,
            Some("hash-mismatch"),
        ),
        (
            "corrupt bytes",
            BIG,
            Fault::Overwrite(99_999, vec![1, 2, 3]),
            always,
            Some("hash-mismatch"),
        ),
        (
            "a shorter file",
            BIG,
            Fault::Truncate(SIZE / 2),
            always,
            Some("wrong-length"),
        ),
        (
            "a lie about the length",
            BIG,
            Fault::LieLength(SIZE + 7),
            always,
            Some("wrong-length"),
        ),
        (
            "a slow server",
            BIG,
            Fault::Slow(Duration::from_millis(10)),
            always,
            None,
        ),
        (
            "a manifest that is not handed out",
            "m/manifest.json",
            Fault::Status(403),
            always,
            None,
        ),
    ];
    for (what, file, fault, times, expected) in cases {
        server.repair();
        if times > 0 {
            server.break_times(file, fault, times);
        }
        let got = browser
            .run(DOWNLOAD, vec![json!(url), known.clone()])
            .await
            .map_err(|error| format!("{what}: {error}"))?;
        assert_eq!(got["wrong"], Value::Null, "{what}: {got}");
        match expected {
            None => {
                assert_eq!(got["whole"], json!(true), "{what}: {got}");
                assert!(
                    got["opened"]
                        .as_array()
                        .is_some_and(|files| files.len() >= 3),
                    "{what}: {got}"
                );
            }
            Some(code) => {
                assert_eq!(got["code"], json!(code), "{what}: {got}");
                assert!(
                    got["message"].as_str().is_some_and(|m| m.len() > 20),
                    "{what}: {got}"
                );
                assert!(got["opened"].is_string(), "{what}: handed out: {got}");
                // What has come stays, and the repaired server's rest completes it.
                server.repair();
                let again = browser
                    .run(DOWNLOAD, vec![json!(url), known.clone()])
                    .await?;
                assert_eq!(again["whole"], json!(true), "{what}, repaired: {again}");
                assert_eq!(again["wrong"], Value::Null, "{what}, repaired: {again}");
            }
        }
        assert_eq!(
            browser.run(CLEAR, vec![]).await?,
            json!(0),
            "{what}: not deleted"
        );
    }
    browser.close().await
}

/// Without a manifest there is no length and no hash beforehand: what the server says must agree.
#[tokio::test]
async fn built_page_downloads_folders_without_a_manifest() -> Result {
    let dist = dist()?;
    let front = tempfile::tempdir()?;
    blank(&dist, front.path())?;
    let index = json!({ "weight_map": { "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors" } });
    let files = [
        ("config.json", br#"{"model_type":"phi3"}"#.to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        (
            "model.safetensors.index.json",
            index.to_string().into_bytes(),
        ),
        (
            "model-00001-of-00002.safetensors",
            model(SIZE, 3).swap_remove(0).1,
        ),
        (
            "model-00002-of-00002.safetensors",
            model(SIZE / 3, 4).swap_remove(0).1,
        ),
    ];
    publish(&front.path().join("s"), &files, false)?;
    publish(front.path(), &[("one.gguf", gguf(SIZE, 5))], false)?;
    let server = Server::start_with(&dist, Some(front.path()), false)?;
    let elsewhere = Server::start_with(&dist, Some(front.path()), true)?;
    let closed = Server::start_with(&dist, Some(front.path()), false)?;
    let browser = Browser::start(&[]).await?;
    open(&server, &browser).await?;

    let sharded = json!([
        ["model-00001-of-00002.safetensors", SIZE, 3],
        ["model-00002-of-00002.safetensors", SIZE / 3, 4]
    ]);
    let got = browser
        .run(DOWNLOAD, vec![json!(format!("{}s", server.url())), sharded])
        .await?;
    assert_eq!(got["whole"], json!(true), "{got}");
    assert_eq!(got["opened"].as_array().map(Vec::len), Some(5), "{got}");
    assert_eq!(got["wrong"], Value::Null, "{got}");

    // A foreign server that allows reading, also one that ignores ranges; then one that forbids it.
    let known = json!([["one.gguf", SIZE, 5]]);
    for fault in [None, Some(Fault::IgnoreRanges)] {
        if let Some(fault) = fault {
            elsewhere.break_file("one.gguf", fault);
        }
        let got = browser
            .run(
                DOWNLOAD,
                vec![json!(format!("{}one.gguf", elsewhere.url())), known.clone()],
            )
            .await?;
        assert_eq!(
            (&got["whole"], &got["wrong"]),
            (&json!(true), &Value::Null),
            "{got}"
        );
        browser.run(CLEAR, vec![]).await?;
    }
    let got = browser
        .run(
            DOWNLOAD,
            vec![json!(format!("{}one.gguf", closed.url())), known.clone()],
        )
        .await?;
    assert_eq!(got["code"], json!("cors"), "{got}");
    let got = browser
        .run(
            DOWNLOAD,
            vec![json!("http://models.invalid/one.gguf"), known.clone()],
        )
        .await?;
    assert_eq!(got["code"], json!("insecure-url"), "{got}");

    // The length changes between two requests for ever; then the file itself, once.
    let url = format!("{}one.gguf", server.url());
    server.break_file("one.gguf", Fault::LieLength(SIZE + 7));
    let got = browser
        .run(DOWNLOAD, vec![json!(url), known.clone()])
        .await?;
    // Its ranges never add up: it is fetched in one answer, which has the right length.
    assert_eq!(
        (&got["whole"], &got["wrong"]),
        (&json!(true), &Value::Null),
        "{got}"
    );
    browser.run(CLEAR, vec![]).await?;
    server.repair();
    server.break_file("one.gguf", Fault::DropAfter(10));
    browser.run(DOWNLOAD, vec![json!(url), known]).await?;
    server.repair();
    std::fs::write(front.path().join("one.gguf"), gguf(SIZE, 6))?;
    let got = browser
        .run(DOWNLOAD, vec![json!(url), json!([["one.gguf", SIZE, 6]])])
        .await?;
    assert_eq!(
        (&got["whole"], &got["wrong"]),
        (&json!(true), &Value::Null),
        "{got}"
    );
    browser.close().await
}
