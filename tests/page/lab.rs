//! The lab in the built page: it measures what the command measures, also when the tab is reloaded in the
//! middle; and its parts fit a screen and a phone.

use std::process::Command;

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ready};
use crate::server::Server;

/// What `phi3-steer lab run` makes of a recipe.
fn by_command(recipe: &Value) -> Result<Value> {
    let work = tempfile::tempdir()?;
    let file = work.path().join("recipe.json");
    std::fs::write(&file, recipe.to_string())?;
    let nano = dist()?.join("models/nano");
    let output = Command::new(env!("CARGO_BIN_EXE_phi3-steer"))
        .args(["--cpu-adapter", "lab", "run"])
        .arg(&file)
        .arg("--model")
        .arg(&nano)
        .arg("--sae")
        .arg(nano.join("sae"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Shows a part of the lab.
pub async fn show(browser: &Browser, view: &str) -> Result {
    browser
        .eval(&format!("(() => {{ location.hash = 'lab={view}'; }})()"))
        .await?;
    browser
        .wait_until(
            "the part is shown",
            &format!("!document.getElementById('lab').hidden && document.querySelector('.lab-holder h2') !== null && location.hash.includes('lab={view}')"),
        )
        .await
}

/// Puts a recipe into the form of the part that is shown, and starts it.
async fn start(browser: &Browser, recipe: &Value) -> Result {
    let text = serde_json::to_string(&recipe.to_string())?;
    browser
        .eval(&format!(
            "(() => {{
                const field = document.querySelector('#lab .recipe-text');
                field.value = {text};
                field.dispatchEvent(new Event('change'));
                const told = document.querySelector('#lab .by-hand .field-note').textContent;
                if (told) throw new Error(told);
            }})()"
        ))
        .await?;
    browser
        .eval("document.querySelector('#lab .lab-section > .actions .button.big').click()")
        .await?;
    Ok(())
}

/// All that one of the lab's stores holds.
async fn stored(browser: &Browser, store: &str) -> Result<Value> {
    browser
        .run(
            "const opening = indexedDB.open('phi3-steer-lab');
             const done = (request) => new Promise((resolve, reject) => {
                 request.onsuccess = () => resolve(request.result);
                 request.onerror = () => reject(request.error);
             });
             const db = await done(opening);
             const all = await done(db.transaction(given[0]).objectStore(given[0]).getAll());
             db.close();
             return all;",
            vec![json!(store)],
        )
        .await
}

/// Waits for what the part that is shown comes to; an error if it says why it does not.
pub async fn settled(browser: &Browser) -> Result {
    browser
        .wait_until(
            "the run is done, or the lab says why not",
            "document.querySelector('#lab .lab-hero') !== null || document.querySelector('#lab .error-panel') !== null",
        )
        .await?;
    let trouble = browser
        .eval("document.querySelector('#lab .error-panel')?.innerText ?? null")
        .await?;
    match trouble {
        Value::Null => Ok(()),
        trouble => Err(format!("the lab did not do it: {trouble}").into()),
    }
}

/// Waits for the result of the only run of a task.
async fn result(browser: &Browser, task: &str) -> Result<Value> {
    settled(browser).await?;
    kept_result(browser, task).await
}

/// The result of the only run of a task, as the browser keeps it.
async fn kept_result(browser: &Browser, task: &str) -> Result<Value> {
    let runs = stored(browser, "runs").await?;
    let run = runs
        .as_array()
        .and_then(|runs| runs.iter().find(|run| run["recipe"]["task"] == task))
        .ok_or("the run was not kept")?;
    assert_eq!(run["state"], "done");
    Ok(run["result"].clone())
}

/// Waits until the run under way has written down so many lines.
async fn noted(browser: &Browser, lines: usize) -> Result {
    loop {
        let runs = stored(browser, "runs").await?;
        let over = |run: &Value| run["state"] != "running";
        if runs.as_array().is_some_and(|runs| runs.iter().any(over)) {
            return Err(format!("it was over before {lines} lines were kept: {runs}").into());
        }
        let kept = stored(browser, "lines").await?;
        if kept.as_array().is_some_and(|kept| kept.len() >= lines) {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The same with all numbers as JavaScript has them.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(all) => all.iter().map(plain).collect(),
        Value::Object(all) => all
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        other => other.clone(),
    }
}

/// The counts of every arm, by group.
fn counts(result: &Value) -> Result<Vec<Value>> {
    let arms = result["arms"].as_array().ok_or("no arms")?;
    let each = arms.iter().map(|arm| {
        let groups = arm["groups"].as_object().into_iter().flatten();
        let groups = groups.map(|(name, group)| json!([name, group["hits"], group["of"]]));
        json!({"arm": arm["arm"], "groups": groups.collect::<Vec<_>>()})
    });
    Ok(each.collect())
}

/// Measured in the page, with a reload in the middle, as by the command; nothing is sent to anyone.
#[tokio::test]
async fn built_page_measures_as_the_command_does() -> Result {
    let recipe = json!({
        "schema": "phi3-steer.recipe/1", "task": "measure", "hook": "layers.3",
        "sets": {"name": "nano", "split": "test", "limit": 4, "only": ["direct", "jb_ignore", "benign", "facts"]},
        "seed": 1,
        "steer": [{"features": [{"feature": 329}]}], "values": [4.0, 8.0],
        "controls": ["safetyPrompt"], "tokens": 24,
    });
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    crate::offline::kept(&browser).await?;
    show(&browser, "measure").await?;
    let requests = server.seen().len();
    start(&browser, &recipe).await?;
    // The journal's head and two steps.
    noted(&browser, 3).await?;
    browser.screenshot("lab-running").await?;
    browser.client.refresh().await?;
    ready(&browser).await?;
    let page = result(&browser, "measure").await?;
    browser
        .wait_until(
            "the plots are drawn, curves and all",
            "[...document.querySelectorAll('#lab .plot')].some((plot) => plot.getAttribute('aria-label').startsWith('What each strength buys'))",
        )
        .await?;
    browser.screenshot("lab-measured").await?;
    let asked: Vec<String> = server.seen().split_off(requests);
    let prompts = asked.iter().filter(|path| path.contains("eval.json"));
    assert!(prompts.count() >= 1, "the prompts came from nowhere");
    let lines = stored(&browser, "lines").await?;
    assert_eq!(lines, json!([]), "the journal outlives its result");

    let command = by_command(&recipe)?;
    assert_eq!(counts(&page)?, counts(&command)?);
    assert_eq!(plain(&page["recipe"]), plain(&command["recipe"]));
    let told = browser
        .eval("document.querySelector('#lab .lab-hero').innerText")
        .await?;
    let told = told.as_str().unwrap_or_default().to_lowercase();
    assert!(
        told.contains("it buys") && told.contains("it costs"),
        "{told}"
    );

    // A verdict by hand is counted, kept, and can be taken back.
    let item = "benign/0";
    overrule(&browser, item, "declined").await?;
    let told = browser
        .eval("document.querySelector('#lab .caution').innerText")
        .await?;
    assert_eq!(told, "One verdict is by hand.");
    browser.screenshot("lab-by-hand").await?;
    let hits = |result: &Value| result["arms"][0]["groups"]["harmless requests"]["hits"].clone();
    let read = kept_result(&browser, "measure").await?;
    assert_eq!(hits(&read).as_f64(), hits(&page).as_f64().map(|h| h + 1.0));
    assert_eq!(
        read["byHand"],
        json!([{"arm": "base", "item": item, "refused": true}])
    );
    overrule(&browser, item, "judge").await?;
    assert_eq!(kept_result(&browser, "measure").await?, page);
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());
    browser.close().await
}

/// Says in the list of replies how the base's reply to a prompt is to be read.
async fn overrule(browser: &Browser, item: &str, reading: &str) -> Result {
    let before = kept_result(browser, "measure").await?["byHand"].clone();
    let items = kept_result(browser, "measure").await?["items"].clone();
    let items = items.as_array().ok_or("no items")?;
    let item = items.iter().find(|one| one["id"] == item);
    let text = item.ok_or("no such prompt")?["text"].clone();
    browser
        .run(
            "const summary = [...document.querySelectorAll('#lab details summary')].find((one) => one.textContent.includes('reply by reply'));
             summary.parentElement.open = true;
             await new Promise((resolve) => setTimeout(resolve, 100));
             [...document.querySelectorAll('#lab button')].find((one) => /^Show all/.test(one.textContent) && one.checkVisibility())?.click();
             const choice = [...document.querySelectorAll('#lab .reading select')].find((one) => one.getAttribute('aria-label').includes(given[0]));
             choice.value = given[1];
             choice.dispatchEvent(new Event('change', { bubbles: true }));",
            vec![text, json!(reading)],
        )
        .await?;
    while kept_result(browser, "measure").await?["byHand"] == before {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    browser
        .wait_until(
            "the figures are drawn anew",
            "document.querySelectorAll('#lab .reading select:disabled').length === 0",
        )
        .await
}

/// A search in the page and by the command, on different adapters: what is said and counted is the same, scores
/// are within rounding.
#[tokio::test]
async fn built_page_finds_as_the_command_does() -> Result {
    let recipe = json!({
        "schema": "phi3-steer.recipe/1", "task": "find", "hook": "layers.3",
        "sets": {"name": "nano", "split": "validation"}, "seed": 1,
        "prompts": 4, "held": 3, "candidates": 8, "confirm": 2, "most": 1, "tokens": 12,
    });
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser
        .client
        .goto(&format!("{}#lab=find", server.url()))
        .await?;
    ready(&browser).await?;
    show(&browser, "find").await?;
    start(&browser, &recipe).await?;
    let page = result(&browser, "find").await?;
    browser
        .wait_until(
            "the plots are drawn",
            "document.querySelectorAll('#lab .plot').length === 2",
        )
        .await?;
    browser.screenshot("lab-found").await?;
    let command = by_command(&recipe)?;
    for name in [
        "chosen",
        "openings",
        "refused",
        "alive",
        "prompts",
        "readTokens",
    ] {
        same(&page[name], &command[name], name)?;
    }
    same(&page["strength"], &command["strength"], "strength")?;
    same(&page["gate"]["auc"], &command["gate"]["auc"], "gate")?;
    for name in ["norm", "curve"] {
        same(&page["direction"][name], &command["direction"][name], name)?;
    }
    let list = |result: &Value| result["candidates"].as_array().cloned().unwrap_or_default();
    let (own, theirs) = (list(&page), list(&command));
    let mut both = 0;
    for candidate in &own {
        let feature = &candidate["feature"];
        // The last of the list may be another where scores are nearly equal.
        let Some(other) = theirs
            .iter()
            .find(|o| o["feature"].as_f64() == feature.as_f64())
        else {
            continue;
        };
        both += 1;
        for name in ["scores", "confirmed", "strength"] {
            same(
                &candidate[name],
                &other[name],
                &format!("{feature}: {name}"),
            )?;
        }
    }
    assert!(both + 1 >= own.len() && own.len() == theirs.len(), "{both}");
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());
    browser.close().await
}

/// Whether two values are the same, numbers up to the rounding of two adapters.
fn same(one: &Value, other: &Value, what: &str) -> Result {
    let fail = || Err(format!("{what}: {one} in the page, {other} by the command").into());
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (
                a.as_f64().unwrap_or(f64::NAN),
                b.as_f64().unwrap_or(f64::NAN),
            );
            match (a - b).abs() <= 5e-3 * (1.0 + a.abs()) {
                true => Ok(()),
                false => fail(),
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| same(a, b, what))
        }
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => a
            .iter()
            .try_for_each(|(name, a)| same(a, &b[name], &format!("{what}.{name}"))),
        _ if one == other => Ok(()),
        _ => fail(),
    }
}

/// Every part of the lab and every step of the lesson is reached by a link, is no wider than the screen, and
/// says what its fields are.
#[tokio::test]
async fn built_page_lab_fits_screens() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    look(&server, "wide", &browser).await?;
    browser.close().await?;
    let browser = Browser::start_phone(390, 844).await?;
    look(&server, "phone", &browser).await?;
    browser.close().await
}

/// Looks at every part.
async fn look(server: &Server, name: &str, browser: &Browser) -> Result {
    let parts = [
        "find",
        "measure",
        "feature",
        "strengths",
        "gate",
        "runs",
        "lesson.1",
        "lesson.2",
        "lesson.3",
        "lesson.4",
        "lesson.5",
    ];
    browser
        .client
        .goto(&format!("{}#lab=find", server.url()))
        .await?;
    ready(browser).await?;
    for part in parts {
        show(browser, part).await?;
        browser
            .eval("document.querySelectorAll('#lab details').forEach((one) => (one.open = true))")
            .await?;
        browser
            .screenshot(&format!("lab-{name}-{}", part.replace('.', "-")))
            .await?;
        let wide = browser
            .eval("document.documentElement.scrollWidth > innerWidth || document.getElementById('lab').scrollWidth > document.getElementById('lab').clientWidth")
            .await?;
        assert_eq!(wide, json!(false), "{part} is wider than the screen");
        let nameless = browser
            .eval(
                "[...document.querySelectorAll('#lab :is(input, select, textarea, button, a)')]
                    .filter((node) => node.checkVisibility() && !node.labels?.length && !node.getAttribute('aria-label') && !node.innerText?.trim())
                    .map((node) => node.outerHTML)",
            )
            .await?;
        assert_eq!(nameless, json!([]), "{part} has fields without a name");
        let focused = browser.eval("document.activeElement?.tagName").await?;
        assert!(
            part == "find" || focused != "BODY",
            "{part} leaves the keyboard nowhere"
        );
    }
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());
    Ok(())
}

/// One prompt at several strengths, and the features that fire at a token, with the engine that the chat has.
#[tokio::test]
async fn built_page_compares_strengths() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser
        .client
        .goto(&format!("{}#lab=strengths", server.url()))
        .await?;
    ready(&browser).await?;
    browser
        .eval(
            "(() => {
                document.getElementById('strengths-values').value = 'off, 0, 8';
                document.querySelector('#lab form .primary').click();
            })()",
        )
        .await?;
    browser
        .wait_until(
            "all three are answered",
            "document.querySelectorAll('.strength-columns .answer:not(.running)').length === 3 && document.querySelector('#lab form .primary').textContent !== 'Stop'",
        )
        .await?;
    browser.screenshot("lab-strengths").await?;
    let verdicts = browser
        .eval("[...document.querySelectorAll('.strength-columns .verdict')].map((one) => one.textContent)")
        .await?;
    assert_eq!(verdicts[0], "Answered", "{verdicts}");
    assert_eq!(verdicts[2], "Declined", "{verdicts}");

    // The chat is as it was, and a token of it tells its features.
    browser.eval("(() => { location.hash = ''; })()").await?;
    browser.click("#suggestions .suggestion").await?;
    crate::chat::ended(&browser, 1).await?;
    browser
        .eval("document.querySelector('.turn.last .answer.steered .token').click()")
        .await?;
    browser
        .wait_until(
            "the token's features are listed",
            "document.querySelector('dialog[open] tbody tr') !== null",
        )
        .await?;
    let features = browser
        .eval("[...document.querySelectorAll('dialog[open] tbody th')].map((one) => Number(one.firstChild.textContent))")
        .await?;
    let features = features.as_array().ok_or("no features")?;
    assert!(
        !features.is_empty() && features.iter().all(Value::is_number),
        "{features:?}"
    );
    browser.screenshot("lab-firing").await?;
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());
    browser.close().await
}
