//! The built page (`dist/`), served from this machine and driven through WebDriver.
//! Run by `scripts/test.sh page`, which builds the page first.
#![cfg(not(target_arch = "wasm32"))]

mod browser;
mod server;

use std::path::Path;

use browser::{Browser, Result};
use serde_json::json;
use server::Server;

/// Serves the built page.
fn site() -> Result<Server> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    if !dist.join("phi3-steer_bg.wasm").is_file() {
        return Err(format!(
            "{} holds no built page: run scripts/test.sh page",
            dist.display()
        )
        .into());
    }
    Ok(Server::start(&dist)?)
}

/// The wasm in its worker, before any model.
#[tokio::test]
async fn built_page_worker_starts() -> Result {
    let server = site()?;
    let browser = Browser::start(&[]).await?;
    browser.client.goto(&server.url()).await?;
    let first = browser
        .client
        .execute_async(
            "const done = arguments[0];
             const worker = new Worker('./www/worker.js', { type: 'module' });
             worker.onmessage = (message) => done(message.data);
             worker.onerror = (event) => done({ error: String(event.message) });",
            vec![],
        )
        .await?;
    assert_eq!(first, json!({ "ready": true }));
    browser.close().await
}
