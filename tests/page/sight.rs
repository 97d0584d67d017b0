//! What is in sight and what is not: long messages, long tables, verdicts, a phone's room; icons.

use std::path::Path;

use serde_json::{Value, json};

use crate::browser::{Browser, Result};
use crate::chat::{dist, ended, ready};
use crate::server::Server;
use crate::truth::{is, open, text};

/// A long message is folded; the card of a token leaves the verdict in sight.
#[tokio::test]
async fn built_page_keeps_answers_in_sight() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server).await?;
    let message = "Please tell me about the sea and the sky and the land. ".repeat(25);
    browser
        .eval(&format!(
            "(() => {{ const field = document.getElementById('message'); field.value = {}; field.dispatchEvent(new Event('input')); document.getElementById('send').click(); }})()",
            json!(message)
        ))
        .await?;
    ended(&browser, 1).await?;
    let height = "document.querySelector('.bubble > p').getBoundingClientRect().height";
    let folded = browser.eval(height).await?.as_f64().ok_or("no height")?;
    browser.click(".bubble button").await?;
    let whole = browser.eval(height).await?.as_f64().ok_or("no height")?;
    assert!(
        whole > folded + 20.0,
        "{folded} pixels folded, {whole} in full"
    );
    let hidden = browser
        .eval(
            "(() => {
                const token = document.querySelector('.answer.steered .token');
                token.scrollIntoView({ block: 'center' });
                token.focus();
                const tip = document.getElementById('token-tip').getBoundingClientRect();
                const verdict = document.querySelector('.answer.steered .verdict').getBoundingClientRect();
                return tip.height > 0 && tip.top < verdict.bottom && tip.bottom > verdict.top && tip.left < verdict.right && tip.right > verdict.left;
            })()",
        )
        .await?;
    assert_eq!(hidden, json!(false), "the card covers the verdict");
    browser.close().await
}

/// More tokens than anybody looks at: the table shows the last of them and says so, and files have all.
#[tokio::test]
async fn built_page_bounds_the_table_of_tokens() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    let table = "
        const { openTokens } = await import(new URL('www/token-table.js', document.baseURI));
        const token = (index) => ({ id: index, text: ` ${index}`, activation: index % 7, top: [[index, 1], [1, 0.5]] });
        const tokens = (count) => Array.from({ length: count }, (_, index) => token(index));
        const setting = { id: 1, label: 'clamp 8', on: true, hook: 'layers.3', feature: 5, op: 'clamp', value: 8, positions: 'all', onlyIfActive: false, includeBos: false, from: 0 };
        const answer = { text: '', prompt: tokens(given[0]), tokens: tokens(given[1]), end: 'finished' };
        const turn = { prompt: 'Tell me.', answers: [answer, answer], tracked: { hook: 'layers.3', feature: 5 }, settings: [setting], sampling: {}, model: 'm', dictionary: 'd' };
        const files = [];
        const make = URL.createObjectURL;
        URL.createObjectURL = (blob) => { files.push(blob); return make.call(URL, blob); };
        HTMLAnchorElement.prototype.click = () => {};
        openTokens(turn, 1, () => {});
        const dialog = document.querySelector('dialog[open]');
        for (const button of dialog.querySelectorAll('.actions button')) button.click();
        const rows = [...dialog.querySelectorAll('tbody tr')];
        const [csv, json] = await Promise.all(files.map((file) => file.text()));
        const said = {
            rows: rows.length, first: rows[0].innerText, text: dialog.querySelector('p').innerText, focus: document.activeElement.innerText,
            lines: csv.split('\\r\\n').length - 1, tokens: JSON.parse(json).tokens.length, files: files.length,
        };
        URL.createObjectURL = make;
        dialog.close();
        return said;";
    for (prompt, answer) in [(1500, 2500), (2, 3)] {
        let said = browser
            .run(table, vec![json!(prompt), json!(answer)])
            .await?;
        let all = prompt + answer;
        assert_eq!(said["rows"], json!(all.min(1000)), "{said}");
        assert_eq!(
            said["text"]
                .as_str()
                .map(|text| text.contains("The last 1,000 of 4,000 tokens")),
            Some(all > 1000),
            "{said}"
        );
        let part = if all > 1000 { "answer" } else { "prompt" };
        assert!(
            said["first"]
                .as_str()
                .is_some_and(|row| row.starts_with(part)),
            "{said}"
        );
        assert_eq!(said["focus"], "Close");
        assert_eq!(
            (&said["lines"], &said["tokens"]),
            (&json!(all + 1), &json!(all))
        );
        assert_eq!(said["files"], 2);
    }
    browser.close().await
}

/// A phone: "More" becomes "Less"; on its side there is still room for the chat.
#[tokio::test]
async fn built_page_leaves_a_phone_room() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = Browser::start_phone(390, 844).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    browser.click("#panel-more").await?;
    assert_eq!(text(&browser, "#panel-more").await?.trim(), "Less");
    browser.click("#panel-more").await?;
    assert_eq!(text(&browser, "#panel-more").await?.trim(), "More");
    browser.close().await?;

    let browser = Browser::start_phone(740, 360).await?;
    browser.client.goto(&server.url()).await?;
    ready(&browser).await?;
    browser.screenshot("phone-on-its-side").await?;
    let room = browser
        .eval("document.getElementById('scroller').getBoundingClientRect().height / innerHeight")
        .await?;
    assert!(
        room.as_f64().is_some_and(|share| share > 0.4),
        "the chat has {room} of the height"
    );
    assert!(
        is(
            &browser,
            "document.documentElement.scrollWidth <= innerWidth"
        )
        .await?
    );
    browser.close().await
}

/// What browsers, home screens and links to the page ask for.
#[tokio::test]
async fn built_page_has_its_icons_and_manifest() -> Result {
    let dist = dist()?;
    let server = Server::start(&dist)?;
    let browser = open(&server).await?;
    let manifest = browser.command("Page.getAppManifest", json!({})).await?;
    assert_eq!(manifest["errors"], json!([]), "{manifest}");
    let data: Value = serde_json::from_str(manifest["data"].as_str().ok_or("no manifest")?)?;
    let mut files = vec![
        ("favicon.ico".to_owned(), None),
        ("www/icons/touch.png".to_owned(), Some(180)),
    ];
    for icon in data["icons"].as_array().ok_or("no icons")? {
        let source = icon["src"].as_str().ok_or("no source")?;
        let size = icon["sizes"]
            .as_str()
            .and_then(|size| size.split('x').next()?.parse::<u32>().ok());
        files.push((format!("www/{source}"), size));
    }
    for (file, size) in files {
        let bytes = std::fs::read(dist.join(Path::new(&file)))?;
        if let Some(size) = size {
            assert_eq!(
                bytes[16..20],
                size.to_be_bytes(),
                "{file} is not {size} pixels wide"
            );
        }
    }
    let colours = browser
        .run(
            "const colour = () => document.querySelector('meta[name=theme-color]').content;
             const first = colour();
             document.getElementById('theme').click();
             await new Promise((resolve) => setTimeout(resolve, 0));
             return [first, colour()];",
            vec![],
        )
        .await?;
    assert_ne!(
        colours[0], colours[1],
        "the browser's bars keep the other theme's colour"
    );
    browser.close().await
}
