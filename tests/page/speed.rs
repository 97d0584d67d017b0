//! How fast the model runs, measured in the page.

use serde_json::json;

use crate::browser::Result;
use crate::chat::{dist, ended, open, send};
use crate::server::Server;

/// What the report shows by now.
const TEXT: &str = "(document.querySelector('#speed-report .report')?.textContent ?? '')";
const STATE: &str = "(document.querySelector('#speed-report [role=status]')?.textContent ?? '')";

#[tokio::test]
async fn built_page_measures_its_speed() -> Result {
    let server = Server::start(&dist()?)?;
    let browser = open(&server, &[]).await?;
    // A message comes first, and is answered as always.
    browser.click("#speed").await?;
    let measured = format!("{TEXT}.includes('A dispatch costs')");
    browser.wait_until("the first figures", &measured).await?;
    send(&browser, "What is the capital of France?").await?;
    ended(&browser, 1).await?;
    let stopped = format!("{STATE} === 'Stopped before all was measured.'");
    browser
        .wait_until("it says that it ended", &stopped)
        .await?;
    let answer = browser
        .eval("document.querySelector('.turn.last .answer.base .answer-body').innerText")
        .await?;
    assert!(
        answer.as_str().is_some_and(|text| !text.is_empty()),
        "{answer}"
    );

    // Until somebody has seen enough: what was measured stays, and the conversation.
    browser.click("#speed").await?;
    let clamped =
        format!("{TEXT}.includes('1 lane at 16 positions, steering clamp in every lane')");
    browser.wait_until("figures of steering", &clamped).await?;
    let label = "document.querySelector('#speed').textContent";
    assert_eq!(browser.eval(label).await?, json!("Stop measuring"));
    browser.click("#speed").await?;
    browser.wait_until("it stops", &stopped).await?;
    assert_eq!(browser.eval(label).await?, json!("Measure speed"));
    browser.screenshot("speed").await?;
    let text = browser.eval(TEXT).await?;
    let text = text.as_str().unwrap_or_default();
    for part in [
        "A dispatch costs",
        "Parts of a pass, 1 lane at 16 positions",
        "1 lane at 16 positions, steering off: prefill",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    browser.click("#speed-report .actions .button").await?;
    let told = "document.querySelector('#speed-report .actions .button').textContent !== 'Copy the report'";
    browser
        .wait_until("it says whether it was copied", told)
        .await?;
    send(&browser, "Why?").await?;
    ended(&browser, 2).await?;

    // What was measured is not another engine's.
    browser.client.refresh().await?;
    crate::chat::ready(&browser).await?;
    let hidden = "document.querySelector('#speed-report').hidden";
    assert_eq!(browser.eval(hidden).await?, json!(true));
    assert_eq!(browser.console_errors().await?, Vec::<String>::new());
    browser.close().await
}
