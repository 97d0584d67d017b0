//! What the README promises to those who put the page, or the engine, on a site of their own.

use std::path::{Path, PathBuf};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ended, ready};
use crate::server::Server;
use phi3_steer::lab::Judge;

/// The first block of code in a language that a section of the README has.
pub fn block(section: &str, language: &str) -> Result<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme)?;
    let found = readme.split(&format!("\n## {section}\n")).nth(1);
    let found = found.and_then(|text| text.split("\n## ").next());
    let found = found.and_then(|text| text.split(&format!("\n```{language}\n")).nth(1));
    let found = found.and_then(|text| text.split("\n```").next());
    found
        .map(Into::into)
        .ok_or_else(|| format!("the README's \"{section}\" has no block of {language}").into())
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name()))?,
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name()))?),
        }
    }
    Ok(())
}

/// The snippet in a folder that was empty, with the built page beside it: nothing else.
#[tokio::test]
async fn built_page_serves_a_page_of_ones_own() -> Result {
    let site = tempfile::tempdir()?;
    copy(&dist()?, &site.path().join("phi3-steer"))?;
    let snippet = block("In your own page", "html")?;
    std::fs::create_dir(site.path().join("deep"))?;
    std::fs::write(site.path().join("index.html"), &snippet)?;
    // A page that says where it counts from.
    let based = snippet.replacen("<meta", "<base href=\"../\" />\n<meta", 1);
    assert_ne!(based, snippet);
    std::fs::write(site.path().join("deep/based.html"), based)?;
    let server = Server::start(site.path())?;
    let browser = Browser::start(&[]).await?;
    let judge = Judge::shipped()?;
    for page in ["", "deep/based.html"] {
        browser
            .client
            .goto(&format!("{}{page}", server.url()))
            .await?;
        browser
            .wait_until(
                "both answers have ended",
                "document.title === 'Done' || document.title.startsWith('Error')",
            )
            .await?;
        let answers = "[...document.querySelectorAll('pre')].map((answer) => answer.textContent)";
        let answers = browser.eval(answers).await?;
        let errors = browser.console_errors().await?;
        assert_eq!(browser.client.title().await?, "Done", "{errors:?}");
        let text = |lane: usize| answers[lane].as_str().unwrap_or_default();
        assert!(
            !text(0).is_empty() && judge.refusal(text(0)).is_none(),
            "{answers}"
        );
        assert!(judge.refusal(text(1)).is_some(), "{answers}");
        // An empty folder has no icon.
        let own = errors.iter().filter(|e| !e.contains("favicon.ico"));
        assert_eq!(own.count(), 0, "{errors:?}");
    }
    // A wrong address is named in full.
    let wrong = snippet.replace("models/nano/\"", "models/nowhere/\"");
    assert_ne!(wrong, snippet);
    std::fs::write(site.path().join("wrong.html"), wrong)?;
    browser
        .client
        .goto(&format!("{}wrong.html", server.url()))
        .await?;
    browser
        .wait_until("the error is there", "document.title.startsWith('Error')")
        .await?;
    let title = browser.client.title().await?;
    let address = format!("{}phi3-steer/models/nowhere/", server.url());
    assert!(title.contains(&address), "{title}");
    browser.close().await
}

/// The page works with the headers that the README has hosts send, and without a network after that.
#[tokio::test]
async fn built_page_works_with_the_headers_of_a_host() -> Result {
    let headers = block("On a host of your own", "text")?;
    let wanted = [
        "Content-Security-Policy: ",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: ",
        "Cross-Origin-Opener-Policy: same-origin",
        "Cache-Control: no-cache",
    ];
    for header in wanted {
        assert!(
            headers.lines().any(|line| line.starts_with(header)),
            "{header}"
        );
    }
    let browser = Browser::start(&[]).await?;
    let lines: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
    let server = Server::start_saying(&dist()?, None, lines)?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    let field = browser.find("#message").await?;
    field
        .send_keys("What is the capital of France?\u{e007}")
        .await?;
    ended(&browser, 1).await?;
    let answers = browser
        .eval("[...document.querySelectorAll('.answer-body')].map((a) => a.textContent)")
        .await?;
    assert!(
        answers[0]
            .as_str()
            .is_some_and(|text| text.contains("Paris")),
        "{answers}"
    );
    let errors = browser.console_errors().await?;
    assert!(errors.is_empty(), "{errors:?}");
    // Kept and opened without a network.
    crate::offline::kept(&browser).await?;
    let address = server.url();
    server.stop();
    browser.client.goto(&address).await?;
    ready(&browser).await?;
    // Another site cannot put it into a frame.
    let headers = block("On a host of your own", "text")?;
    let lines: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
    let page = Server::start_saying(&dist()?, None, lines)?;
    let other = tempfile::tempdir()?;
    let frame = format!(
        "<!doctype html><title>x</title><iframe src=\"{}\" onload=\"document.title = 'framed'\"></iframe>",
        page.url()
    );
    std::fs::write(other.path().join("index.html"), frame)?;
    let other = Server::start(other.path())?;
    browser.client.goto(&other.url()).await?;
    browser
        .wait_until("the frame has loaded or not", "document.title === 'framed'")
        .await?;
    let errors = browser.console_errors().await?;
    assert!(
        errors.iter().any(|e| e.contains("frame-ancestors")),
        "{errors:?}"
    );
    browser.close().await
}

/// Types and notices are where they are looked for.
#[test]
fn built_page_ships_types_and_notices() -> Result {
    let dist = dist()?;
    let mut open = vec![dist.join("www/index.d.ts")];
    let mut seen: Vec<PathBuf> = Vec::new();
    while let Some(file) = open.pop() {
        let missing = |error| format!("{}: {error}", file.display());
        let file = file.canonicalize().map_err(missing)?;
        // They name each other.
        if seen.contains(&file) {
            continue;
        }
        let text = std::fs::read_to_string(&file)?;
        let imports = text
            .lines()
            .filter_map(|line| line.split(" from \"").nth(1));
        let imports = imports.filter_map(|rest| rest.split('"').next());
        let folder = file.parent().ok_or("a file is in a folder")?;
        // A class comes with its module, whose types lie beside it.
        let types = imports.map(|import| match import.strip_suffix(".js") {
            Some(module) => format!("{module}.d.ts"),
            None => import.into(),
        });
        open.extend(types.map(|import| folder.join(import)));
        seen.push(file);
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    for name in ["LICENSE", "LICENSE-MIT", "LICENSE-APACHE"] {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        assert_eq!(
            std::fs::read(dist.join(name))?,
            std::fs::read(own)?,
            "{name}"
        );
    }
    let notices = std::fs::read_to_string(dist.join("THIRD-PARTY.txt"))?;
    for part in [
        "\nwgpu ",
        "\ntokenizers ",
        "Apache License",
        "Permission is hereby granted",
    ] {
        assert!(notices.contains(part), "{part}");
    }
    // Nobody waits for them: the page never asks.
    let kept = std::fs::read_to_string(dist.join("sw.js"))?;
    let kept = kept.split("const FILES = [").nth(1);
    let kept = kept.and_then(|rest| rest.split("\n];").next());
    let kept = kept.ok_or("sw.js has no list of files")?;
    for name in [
        "THIRD-PARTY.txt",
        "LICENSE",
        "www/engine-client.d.ts",
        "www/index.js",
    ] {
        assert!(
            !kept.contains(&format!("[\"{name}\", ")),
            "{name} is kept for the page"
        );
    }
    assert!(kept.contains("[\"www/judge.json\", "));
    Ok(())
}

/// A crate without a licence, or with one that nobody has looked at, is no part of a page that is shipped.
#[cfg(unix)]
#[test]
fn built_page_has_a_licence_for_every_crate() -> Result {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir()?;
    let bin = home.path().join(".cargo/bin");
    std::fs::create_dir_all(&bin)?;
    // A cargo that names one crate more.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let script = format!(
        "#!/bin/sh\n'{cargo}' \"$@\" || exit\n[ \"$1\" != tree ] || [ -z \"$ONE_MORE\" ] || printf '%s\\n' \"$ONE_MORE\"\n"
    );
    std::fs::write(bin.join("cargo"), script)?;
    std::fs::set_permissions(bin.join("cargo"), PermissionsExt::from_mode(0o755))?;
    let own = std::env::var("HOME")?;
    let folder =
        |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| format!("{own}/{usual}"));
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = std::fs::read_to_string(lock)?;
    let half = lock.split("\nname = \"half\"\nversion = \"").nth(1);
    let half = half
        .and_then(|rest| rest.split('"').next())
        .ok_or("half is locked")?;
    let half = format!("half v{half}");
    for (one_more, words) in [
        (String::new(), None),
        (format!("{half}||"), Some("states no licence")),
        (format!("{half}|GPL-3.0|"), Some("may it be shipped?")),
        (
            format!("{half}|MIT AND GPL-3.0|"),
            Some("may it be shipped?"),
        ),
        (format!("{half}|MIT-0|"), Some("may it be shipped?")),
        (
            "nowhere v1.0.0|MIT|".into(),
            Some("are not on this machine"),
        ),
    ] {
        let out = tempfile::tempdir()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/notices.sh");
        let output = std::process::Command::new("bash")
            .arg(script)
            .arg(out.path())
            .env("HOME", home.path())
            .env("CARGO_HOME", folder("CARGO_HOME", ".cargo"))
            .env("RUSTUP_HOME", folder("RUSTUP_HOME", ".rustup"))
            .env("ONE_MORE", &one_more)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.success(),
            words.is_none(),
            "{one_more}: {stderr}"
        );
        assert!(stderr.contains(words.unwrap_or("")), "{one_more}: {stderr}");
        let written = out.path().join("THIRD-PARTY.txt").exists();
        assert_eq!(written, words.is_none(), "{one_more}");
    }
    Ok(())
}
