//! Training a dictionary in the built page: as the command does, stopped, cancelled, kept, loaded.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ended, ready};
use crate::lab::{settled, show};
use crate::models::status;
use crate::server::Server;

/// What is asked for.
const COURSE: [(&str, usize); 7] = [
    ("layer", 2),
    ("latents", 96),
    ("k", 8),
    ("prompts", 0),
    ("steps", 40),
    ("rows", 64),
    ("seed", 5),
];

/// The report of what `phi3-steer train-sae` makes of a text.
fn by_command(text: &Path) -> Result<Value> {
    let work = tempfile::tempdir()?;
    let out = work.path().join("sae");
    let output = Command::new(env!("CARGO_BIN_EXE_phi3-steer"))
        .args([
            "--cpu-adapter",
            "train-sae",
            "--hook",
            "layers.2",
            "--model",
        ])
        .arg(dist()?.join("models/nano"))
        .arg("--text")
        .arg(text)
        .args("--latents 96 --k 8 --steps 40 --rows 64 --seed 5 --out".split(' '))
        .arg(&out)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let report = std::fs::read(out.join("layers.2/report.json"))?;
    Ok(serde_json::from_slice(&report)?)
}

/// Shows the part of the lab that trains, ready to begin.
async fn open(browser: &Browser) -> Result {
    show(browser, "train").await?;
    browser
        .wait_until(
            "the form is ready",
            "document.querySelector('.train-form button:not([disabled])') !== null",
        )
        .await
}

/// Fills the form in and begins.
async fn begin(browser: &Browser, more: &[(&str, usize)]) -> Result {
    for (name, value) in COURSE.iter().chain(more) {
        browser
            .eval(&format!(
                "(() => {{ document.getElementById('train-{name}').value = '{value}'; }})()"
            ))
            .await?;
    }
    browser.click(".train-form button[type=submit]").await
}

/// Presses a button of the part that is shown.
async fn press(browser: &Browser, label: &str) -> Result {
    let label = json!(label);
    browser
        .wait_until(
            &format!("{label} can be pressed"),
            &format!("[...document.querySelectorAll('#lab .lab-holder button')].some((button) => button.innerText === {label} && !button.disabled && button.checkVisibility())"),
        )
        .await?;
    browser
        .eval(&format!("[...document.querySelectorAll('#lab .lab-holder button')].find((button) => button.innerText === {label}).click()"))
        .await?;
    Ok(())
}

/// The report among the files of the dictionary that is kept on the disk.
const KEPT: &str = "
    const { Downloads } = await import(new URL('www/downloads.js', document.baseURI));
    const downloads = new Downloads();
    await downloads.refresh();
    const [item, more] = downloads.listing.items;
    if (more || item.kind !== 'dictionary' || item.state !== 'whole') throw new Error(JSON.stringify(downloads.listing.items));
    const files = await downloads.open(item);
    const report = files.find((file) => file.name === 'report.json');
    return { names: files.map((file) => file.name).sort(), report: JSON.parse(await report.text()) };
";

/// Of the same text, page and command train the same: step by step, up to the rounding of two adapters. What is kept
/// is there after a reload, and the page's own model runs with it.
#[tokio::test]
async fn built_page_trains_as_the_command_does() -> Result {
    let work = tempfile::tempdir()?;
    let text = work.path().join("text.txt");
    // Much the same again and again, so that a few steps learn it.
    let sentence = |i| format!("Bread is baked in an oven, and soup is cooked in pot {i}. ");
    std::fs::write(&text, (0..150).map(sentence).collect::<String>())?;
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    open(&browser).await?;
    let file = text.to_str().ok_or("no path")?;
    browser.find("#train-files").await?.send_keys(file).await?;
    let requests = server.seen().len();
    begin(&browser, &[]).await?;
    settled(&browser).await?;
    browser.screenshot("trained").await?;
    press(&browser, "Keep on this disk").await?;
    browser
        .wait_until(
            "it is kept",
            "document.querySelector('#lab .lab-hero [role=status]').textContent.includes('It is kept')",
        )
        .await?;
    let kept = browser.run(KEPT, vec![]).await?;
    let names = ["README.md", "cfg.json", "report.json", "sae.safetensors"];
    assert_eq!(kept["names"], json!(names));
    let asked = server.seen().split_off(requests);
    let sent = asked.iter().filter(|path| path.contains("trained-here"));
    assert_eq!(sent.count(), 0, "{asked:?}");

    let (page, command) = (&kept["report"], by_command(&text)?);
    assert_eq!(page["dataSha256"], command["dataSha256"]);
    assert_eq!(page["settings"], command["settings"]);
    let curve = |report: &Value| -> Result<Vec<f64>> {
        let points = report["curve"].as_array().ok_or("no curve")?;
        let losses = points.iter().map(|point| point[1].as_f64());
        Ok(losses.collect::<Option<_>>().ok_or("no losses")?)
    };
    let (ours, theirs) = (curve(page)?, curve(&command)?);
    println!("{ours:?}\n{theirs:?}");
    assert_eq!((ours.len(), theirs.len()), (40, 40));
    let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len() as f64;
    let (first, last) = (mean(&ours[..5]), mean(&ours[35..]));
    assert!(last < 0.9 * first, "nothing was learnt: {ours:?}");
    for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert!((ours - theirs).abs() < 1e-3, "{step}: {ours} {theirs}");
    }
    let fvu = |report: &Value| report["fit"]["fvu"].as_f64().ok_or("no FVU");
    assert!((fvu(page)? - fvu(&command)?).abs() < 1e-3);

    press(&browser, "Use it now").await?;
    browser
        .wait_until(
            "the model runs with it",
            "document.getElementById('status').textContent.includes('dictionary after block 2')",
        )
        .await?;
    ready(&browser).await?;
    let line = status(&browser).await?;
    assert!(line.contains("Nano Phi-3"), "{line}");
    browser.client.refresh().await?;
    ready(&browser).await?;
    assert_eq!(status(&browser).await?, line);
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());
    browser.close().await
}

/// A training under way lets the chat answer, can be stopped with what it has come to, and cancelled with nothing.
#[tokio::test]
async fn built_page_stops_training() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    open(&browser).await?;
    let long = [("prompts", 17), ("steps", 100_000)];
    begin(&browser, &long).await?;
    browser
        .wait_until(
            "some steps are taken",
            "document.querySelector('#lab .lab-work .train-curve:not([hidden])') !== null",
        )
        .await?;
    browser.screenshot("training").await?;
    browser.eval("(() => { location.hash = ''; })()").await?;
    browser.click("#suggestions .suggestion").await?;
    ended(&browser, 1).await?;
    show(&browser, "train").await?;
    press(&browser, "Stop and keep").await?;
    settled(&browser).await?;
    let card = browser
        .eval("document.querySelector('#lab .train-card').textContent")
        .await?;
    let card = card.as_str().unwrap_or_default();
    assert!(
        card.contains("It was stopped after") && card.contains("17 replies of the model's"),
        "{card}"
    );

    begin(&browser, &long).await?;
    press(&browser, "Cancel").await?;
    browser
        .wait_until(
            "the form is back, with nothing made",
            "document.querySelector('.train-form:not([hidden])') !== null && document.querySelector('#lab .lab-hero[aria-label=\"What was trained\"]') === null",
        )
        .await?;
    assert_eq!(
        browser
            .eval("document.querySelector('#lab .train-form ~ div .error-panel') === null")
            .await?,
        json!(true)
    );

    // What cannot be is not begun: the browser names the field.
    begin(&browser, &[("layer", 6)]).await?;
    assert_eq!(
        browser
            .eval("document.querySelector('.train-form :invalid')?.id ?? null")
            .await?,
        json!("train-layer")
    );
    begin(&browser, &[]).await?;
    browser
        .wait_until(
            "it is said that there is nothing to train on",
            "document.querySelector('#lab .error-panel')?.innerText.includes('nothing to train on')",
        )
        .await?;
    browser.close().await
}
