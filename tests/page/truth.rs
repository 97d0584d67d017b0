//! What the page says is true: promises, settings of old turns, numbers, explanations.

use serde_json::json;

use crate::browser::{Browser, Result};
use crate::chat::{dist, ended, ready};
use crate::server::Server;

/// The page with its model.
pub async fn open(server: &Server) -> Result<Browser> {
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    Ok(browser)
}

/// The text of the first element that fits.
pub async fn text(browser: &Browser, css: &str) -> Result<String> {
    let value = browser
        .eval(&format!(
            "document.querySelector({})?.textContent ?? null",
            json!(css)
        ))
        .await?;
    Ok(value
        .as_str()
        .ok_or_else(|| format!("there is no {css}"))?
        .to_owned())
}

/// Whether an expression is true.
pub async fn is(browser: &Browser, expression: &str) -> Result<bool> {
    Ok(browser.eval(expression).await? == json!(true))
}

/// Moves the slider as a hand does.
pub async fn slide(browser: &Browser, to: f64) -> Result {
    browser
        .eval(&format!(
            "(() => {{ const slider = document.getElementById('strength'); slider.value = {to}; slider.dispatchEvent(new Event('input')); }})()"
        ))
        .await?;
    Ok(())
}

/// Every suggestion does what its card promises; after the first turn they are still there.
#[tokio::test]
async fn built_page_keeps_what_its_cards_promise() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server).await?;
    let cards = browser
        .run(
            "return (await import('./www/prompts.js')).SUGGESTIONS.map(({ promise, turns }) => ({ promise, turns: turns.length }));",
            vec![],
        )
        .await?;
    let cards = cards.as_array().ok_or("no cards")?.clone();
    for (index, card) in cards.iter().enumerate() {
        let nth = index + 1;
        if index == 0 {
            browser
                .click("#suggestions li:first-child .suggestion")
                .await?;
        } else {
            browser.click("#examples-open").await?;
            browser
                .click(&format!("#examples li:nth-child({nth}) .suggestion"))
                .await?;
        }
        let turns = card["turns"].as_u64().ok_or("no turns")? as usize;
        ended(&browser, turns).await?;
        for lane in ["base", "steered"] {
            let verdict = text(&browser, &format!(".turn.last .answer.{lane} .verdict")).await?;
            assert_eq!(
                json!(verdict),
                card["promise"][lane],
                "card {nth}, {lane}: {}",
                text(&browser, ".turn.last .answers").await?
            );
        }
    }
    browser.close().await
}

/// A dictionary that nobody has measured, on a model with a report about another one at the same place:
/// nothing is claimed, and steering starts off.
#[tokio::test]
async fn built_page_claims_nothing_that_was_not_measured() -> Result {
    let front = tempfile::tempdir()?;
    let from = dist()?.join("models/nano/sae/layers.3");
    let to = front.path().join("dictionary/layers.3");
    std::fs::create_dir_all(&to)?;
    for file in ["cfg.json", "sae.safetensors"] {
        std::fs::copy(from.join(file), to.join(file))?;
    }
    let server = Server::start_with(&dist()?, Some(front.path()), false)?;
    let browser = open(&server).await?;
    let claims = "[document.getElementById('welcome').innerText, document.getElementById('suggestions').innerText, document.getElementById('panel').innerText, document.getElementById('status').innerText].join('\\n')";
    let before = browser.eval(claims).await?;
    let before = before.as_str().unwrap_or_default();
    assert!(
        before.contains("Refusal steering") && before.contains("makes this model decline more"),
        "the measured dictionary is not told: {before}"
    );

    browser.click("#other-model").await?;
    browser
        .eval(&format!(
            "(() => {{
                for (const part of document.querySelectorAll('#model-form details')) part.open = true;
                document.getElementById('sae-url').value = {};
                document.getElementById('sae-add').click();
            }})()",
            json!(format!("{}dictionary/layers.3", server.url()))
        ))
        .await?;
    browser.click("#model-load").await?;
    browser
        .wait_until(
            "the other dictionary runs",
            "!document.getElementById('model-dialog').open && document.getElementById('welcome-known').textContent.includes('Nobody has yet found')",
        )
        .await?;
    ready(&browser).await?;
    browser.screenshot("not-measured").await?;
    let told = browser.eval(claims).await?;
    let told = told.as_str().unwrap_or_default();
    for word in ["refus", "Refus", "decline", "Measured", "useful"] {
        assert!(!told.contains(word), "'{word}' is claimed: {told}");
    }
    assert!(
        is(&browser, "document.getElementById('steer-off').checked && !document.getElementById('steering').disabled").await?,
        "steering does not start off"
    );
    browser.click("#suggestions .suggestion").await?;
    ended(&browser, 1).await?;
    assert_eq!(
        text(&browser, ".turn.last .answer.base .answer-body").await?,
        text(&browser, ".turn.last .answer.steered .answer-body").await?
    );
    browser.close().await
}

/// An old turn keeps saying which feature, operator and value it ran under, whatever is set later.
#[tokio::test]
async fn built_page_turns_remember_their_setting() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server).await?;
    browser.click("#suggestions .suggestion").await?;
    ended(&browser, 1).await?;
    let chip = ".turn:first-child .answer.steered .chip";
    let first = text(&browser, chip).await?;
    assert!(
        first.contains("feature 329") && first.contains("clamp 8"),
        "{first}"
    );
    let tip = "(() => {
        const token = document.querySelector('.turn:first-child .answer.steered .token');
        token.focus();
        return document.getElementById('token-tip').innerText;
    })()";
    let told = browser.eval(tip).await?;
    browser
        .eval(
            "(() => {
                document.querySelector('.advanced').open = true;
                const feature = document.getElementById('feature');
                feature.value = '431';
                feature.dispatchEvent(new Event('change'));
            })()",
        )
        .await?;
    slide(&browser, 3.0).await?;
    assert!(
        text(&browser, "#tint-name").await?.contains("431"),
        "the tint is not said to be of the chosen feature"
    );
    assert!(
        text(&browser, "#strength-zone")
            .await?
            .contains("Not measured")
    );
    browser
        .find("#message")
        .await?
        .send_keys("How do I bake bread?\u{e007}")
        .await?;
    ended(&browser, 2).await?;
    assert_eq!(text(&browser, chip).await?, first);
    assert_eq!(
        browser.eval(tip).await?,
        told,
        "an old token tells something else"
    );
    let told = told.as_str().unwrap_or_default();
    assert!(
        told.contains("feature 329")
            && told.contains("before the edit")
            && told.contains("then held at 8"),
        "{told}"
    );
    let second = text(&browser, ".turn.last .answer.steered .chip").await?;
    assert!(second.contains("feature 431, clamp 3"), "{second}");
    browser.close().await
}

/// The slider in the middle of an answer: the text, its head and the table say which tokens were written
/// under which setting.
#[tokio::test]
async fn built_page_marks_where_the_setting_changed() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server).await?;
    // As soon as some tokens are there, the slider moves.
    browser
        .eval(
            "(() => {
                let moved = false;
                new MutationObserver(() => {
                    if (moved || document.querySelectorAll('.answer.steered .token').length < 3) return;
                    moved = true;
                    const slider = document.getElementById('strength');
                    slider.value = '2';
                    slider.dispatchEvent(new Event('input'));
                }).observe(document.getElementById('turns'), { childList: true, subtree: true });
            })()",
        )
        .await?;
    browser
        .find("#message")
        .await?
        .send_keys("Tell me a story about a fox.\u{e007}")
        .await?;
    ended(&browser, 1).await?;
    browser.screenshot("setting-changed").await?;
    let answer = text(&browser, ".turn.last .answer.steered").await?;
    assert_eq!(
        text(&browser, ".answer.steered .chip").await?,
        "feature 329, clamp 8, then clamp 2",
        "{answer}"
    );
    assert_eq!(
        text(&browser, ".answer.steered .setting-mark").await?,
        "clamp 2"
    );
    assert!(
        is(
            &browser,
            "document.querySelector('.answer.base .setting-mark') === null"
        )
        .await?,
        "the base answer has no setting"
    );
    let before = browser
        .eval("[...document.querySelectorAll('.answer.steered .answer-body .token')].findIndex((token) => token.compareDocumentPosition(document.querySelector('.setting-mark')) & Node.DOCUMENT_POSITION_PRECEDING)")
        .await?;
    browser.click(".answer.steered .tools button").await?;
    let table = browser
        .eval(
            "(() => {
                const rows = [...document.querySelectorAll('table.tokens tbody tr')];
                const change = rows.findIndex((row) => row.className === 'of-change');
                return {
                    said: rows[change].innerText,
                    before: rows.slice(0, change).filter((row) => row.className === 'of-answer').length,
                    edits: rows.map((row) => row.cells[4]?.innerText ?? ''),
                };
            })()",
        )
        .await?;
    assert!(
        table["said"]
            .as_str()
            .unwrap_or_default()
            .contains("feature 329, clamp 2"),
        "{table}"
    );
    assert!(
        before.as_u64() <= table["before"].as_u64(),
        "the mark stands before token {before}, the table changes at {table}"
    );
    let edits = table["edits"].to_string();
    assert!(
        edits.contains("held at 8") && edits.contains("held at 2"),
        "{edits}"
    );
    browser.close().await
}

/// The colours are measured before the edit: both lanes read the same prompt and show the same.
#[tokio::test]
async fn built_page_colours_do_not_depend_on_steering() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server).await?;
    browser.click("#suggestions .suggestion").await?;
    ended(&browser, 1).await?;
    let mut seen = Vec::new();
    for lane in ["base", "steered"] {
        browser
            .click(&format!(".answer.{lane} .tools button"))
            .await?;
        let rows = browser
            .eval("[...document.querySelectorAll('tr.of-prompt')].map((row) => [row.cells[1].innerText, row.cells[3].innerText])")
            .await?;
        assert!(
            is(&browser, "[...document.querySelectorAll('table.tokens th')].every((head) => head.innerText !== '')").await?,
            "a column has no name"
        );
        browser
            .eval("document.querySelector('dialog[open]').close()")
            .await?;
        seen.push(rows);
    }
    assert!(
        seen[0].as_array().is_some_and(|rows| rows.len() > 10),
        "{}",
        seen[0]
    );
    assert_eq!(seen[0], seen[1]);
    browser.close().await
}

/// "What all this is" by keyboard, and the words that lead into it.
#[tokio::test]
async fn built_page_explains_itself() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server).await?;
    let focused = "document.activeElement?.dataset?.entry ?? document.activeElement?.id ?? ''";
    browser
        .eval("document.getElementById('about-open').focus()")
        .await?;
    browser.find(":focus").await?.send_keys("\u{e007}").await?;
    assert_eq!(browser.eval(focused).await?, json!("top"));
    let told = text(&browser, "#about").await?;
    for word in [
        "arXiv 2411.11296",
        "Sparse autoencoder",
        "Clamp",
        "before the edit",
        "nano model",
        "README",
    ] {
        assert!(told.contains(word), "nothing is said of {word}");
    }
    browser.screenshot("about").await?;
    browser.find(":focus").await?.send_keys("\u{e00c}").await?;
    assert_eq!(browser.eval(focused).await?, json!("about-open"));
    browser.click("#welcome [data-term=feature]").await?;
    assert_eq!(browser.eval(focused).await?, json!("feature"));
    assert!(
        is(&browser, "(() => { const entry = document.activeElement.getBoundingClientRect(); return entry.top >= 0 && entry.bottom <= innerHeight; })()").await?,
        "the entry is out of sight"
    );
    // What it links to on this site is there.
    let links = browser
        .run(
            "const links = [...document.querySelectorAll('#about a')].filter((link) => link.origin === location.origin);
             return Promise.all(links.map(async (link) => [link.href, (await fetch(link.href)).status]));",
            vec![],
        )
        .await?;
    let links = links.as_array().ok_or("no links")?;
    assert!(links.len() >= 2);
    for link in links {
        assert_eq!(link[1], json!(200), "{link}");
    }
    browser.close().await
}

/// A number that cannot be taken is not taken in silence.
#[tokio::test]
async fn built_page_says_why_a_number_is_not_taken() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server).await?;
    browser
        .eval("document.querySelector('.advanced').open = true")
        .await?;
    for (field, bad, word) in [
        ("feature", "99999", "from 0 to 1535"),
        ("feature", "-1", "from 0 to"),
        ("feature", "1.5", "whole number"),
        ("seed", "4294967296", "4294967295"),
        ("temperature", "3", "from 0 to 2"),
        ("max-tokens", "0", "from 1 to"),
        ("max-tokens", "", "whole number"),
    ] {
        let told = browser
            .eval(&format!(
                "(() => {{
                    const field = document.getElementById('{field}');
                    const before = field.value;
                    field.value = '{bad}';
                    field.dispatchEvent(new Event('change'));
                    const note = document.getElementById('{field}-note');
                    return {{ kept: field.value === before, note: note.textContent, linked: field.getAttribute('aria-describedby') === note.id }};
                }})()"
            ))
            .await?;
        let note = told["note"].as_str().unwrap_or_default();
        assert!(
            told["kept"] == json!(true) && told["linked"] == json!(true) && note.contains(word),
            "{field} = {bad}: {told}"
        );
        let cleared = browser
            .eval(&format!(
                "(() => {{ const field = document.getElementById('{field}'); field.dispatchEvent(new Event('change')); return document.getElementById('{field}-note').textContent; }})()"
            ))
            .await?;
        assert_eq!(cleared, json!(""));
    }
    browser.close().await
}

/// The dose text follows the slider, to where it was measured and where it was not, below zero too, and
/// the chart's marks stand under the slider's.
#[tokio::test]
async fn built_page_tells_what_was_measured_at_a_strength() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server).await?;
    browser
        .eval("(() => { document.querySelector('.advanced').open = true; document.getElementById('negative').click(); })()")
        .await?;
    for (value, word) in [
        (8.0, "Measured at 8:"),
        (5.0, "5 itself was not measured. From 4 to 6:"),
        (16.0, "Nothing was measured above 12."),
        (0.0, "Measured at 0:"),
        (-8.0, "Measured at -8: 7%"),
        (-12.0, "Nothing was measured below -8."),
    ] {
        slide(&browser, value).await?;
        let told = text(&browser, "#dose p.muted").await?;
        assert!(told.contains(word), "at {value}: {told}");
        let apart = browser
            .eval(
                "(() => {
                    const slider = document.getElementById('strength');
                    const box = slider.getBoundingClientRect();
                    const share = (slider.valueAsNumber - slider.min) / (slider.max - slider.min);
                    const thumb = box.left + 10 + share * (box.width - 20);
                    const now = document.querySelector('.dose-now').getBoundingClientRect();
                    return Math.abs(thumb - (now.left + now.right) / 2);
                })()",
            )
            .await?;
        assert!(
            apart.as_f64().is_some_and(|by| by < 1.5),
            "{apart} pixels apart at {value}"
        );
    }
    browser.click("#steer-off").await?;
    assert!(
        !text(&browser, "#dose p.muted").await?.contains("easured"),
        "off, and yet a strength's figures are told"
    );
    browser.close().await
}
