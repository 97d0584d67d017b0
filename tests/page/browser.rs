//! A headless browser behind its WebDriver, with a few steps that the tests share.

use std::path::Path;
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::driver::{Driver, Kind};

/// What tests return: any error fails them with its message.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Software rendering is slow, and machines differ: long enough for any of them.
const PATIENCE: Duration = Duration::from_secs(300);

/// The window's size in CSS pixels.
const WIDTH: u32 = 1280;
const HEIGHT: u32 = 900;

/// One browser at a time: each one computes on every core.
static TURN: Mutex<()> = Mutex::const_new(());

/// A browser; it and its driver end with the test.
pub struct Browser {
    /// The WebDriver session.
    pub client: Client,
    driver: Driver,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts the browser with the flags of `webdriver.json` and more.
    pub async fn start(more_flags: &[&str]) -> Result<Browser> {
        Browser::start_with(more_flags, json!({})).await
    }

    /// Starts Chromium with a phone's screen of this many CSS pixels.
    pub async fn start_phone(width: u32, height: u32) -> Result<Browser> {
        let metrics = json!({ "width": width, "height": height, "pixelRatio": 2, "touch": true });
        Browser::start_with(
            &[],
            json!({ "mobileEmulation": { "deviceMetrics": metrics } }),
        )
        .await
    }

    /// More of Chromium's flags, and of its own WebDriver options.
    async fn start_with(more_flags: &[&str], more_options: Value) -> Result<Browser> {
        let turn = TURN.lock().await;
        let kind = Kind::wanted()?;
        let mut driver = Driver::start(kind)?;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("webdriver.json");
        let settings: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        let mut capabilities = match kind {
            Kind::Chromium => chromium(&settings, more_flags, more_options)?,
            Kind::Firefox => firefox(&settings, more_flags, more_options)?,
        };
        let patience = json!({ "script": PATIENCE.as_millis() as u64 });
        capabilities.insert("timeouts".into(), patience);
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://localhost:{}", driver.port))
            .await?;
        driver.session = client.session_id().await?;
        Ok(Browser {
            client,
            driver,
            _turn: turn,
        })
    }

    /// Which browser it is.
    pub fn kind(&self) -> Kind {
        self.driver.kind
    }

    /// Ends the browser in an orderly way.
    pub async fn close(self) -> Result {
        self.client.close().await?;
        drop(self.driver);
        Ok(())
    }

    /// The one element for a CSS selector; an error if there is none.
    pub async fn find(&self, css: &str) -> Result<Element> {
        self.client
            .find(Locator::Css(css))
            .await
            .map_err(|error| format!("{css}: {error}").into())
    }

    /// The value of a JavaScript expression.
    pub async fn eval(&self, expression: &str) -> Result<Value> {
        Ok(self
            .client
            .execute(&format!("return ({expression});"), vec![])
            .await?)
    }

    /// Waits until a JavaScript expression is true, and says what it was waiting for if it never is.
    pub async fn wait_until(&self, what: &str, expression: &str) -> Result {
        let start = Instant::now();
        loop {
            if self.eval(expression).await? == json!(true) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let text = self.eval("document.body.innerText").await?;
                return Err(format!("never happened: {what}. The page says:\n{text}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Clicks the one element for a CSS selector.
    pub async fn click(&self, css: &str) -> Result {
        Ok(self.find(css).await?.click().await?)
    }

    /// Errors that the console has shown since the last call, such as violations of the page's
    /// content security policy.
    pub async fn console_errors(&self) -> Result<Vec<String>> {
        if self.driver.kind == Kind::Firefox {
            return Ok(self.driver.told());
        }
        // Chromium's own addition to WebDriver, so by hand.
        let log = self.driver.post("se/log", &json!({ "type": "browser" }))?;
        let entries = log["value"]
            .as_array()
            .ok_or_else(|| format!("not a log: {log}"))?;
        Ok(entries
            .iter()
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].to_string())
            .collect())
    }

    /// A command of Chromium's own protocol, for what WebDriver does not know.
    pub async fn command(&self, name: &str, parameters: Value) -> Result<Value> {
        let body = json!({ "cmd": name, "params": parameters });
        let answer = self.driver.post("goog/cdp/execute", &body)?;
        match answer["value"].get("error") {
            Some(error) => Err(format!("{name}: {error}").into()),
            None => Ok(answer["value"].clone()),
        }
    }

    /// What the body of an asynchronous function returns.
    pub async fn run(&self, body: &str, arguments: Vec<Value>) -> Result<Value> {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             (async (...given) => {{ {body} }})(...[...arguments].slice(0, -1)).then(
                (value) => done({{ value: value ?? null }}),
                (error) => done({{ error: `${{error}}\n${{error?.stack ?? ''}}` }}));"
        );
        let answer = self.client.execute_async(&script, arguments).await?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.into()),
            None => Ok(answer["value"].clone()),
        }
    }

    /// Writes what the window shows to `target/screenshots/NAME.png`.
    pub async fn screenshot(&self, name: &str) -> Result {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(
            folder.join(format!("{name}.png")),
            self.client.screenshot().await?,
        )?;
        Ok(())
    }
}

/// What Chromium is started with.
fn chromium(settings: &Value, flags: &[&str], more: Value) -> Result<Map<String, Value>> {
    let mut options = settings["goog:chromeOptions"].clone();
    let own = options["args"].as_array_mut();
    let own = own.ok_or("webdriver.json has no flags")?;
    own.push(json!(format!("--window-size={WIDTH},{HEIGHT}")));
    own.extend(flags.iter().map(|flag| json!(flag)));
    if let (Some(options), Value::Object(more)) = (options.as_object_mut(), more) {
        options.extend(more);
    }
    if let Ok(chrome) = std::env::var("CHROME") {
        options["binary"] = json!(chrome);
    }
    Ok(Map::from_iter([
        ("goog:chromeOptions".to_string(), options),
        ("goog:loggingPrefs".to_string(), json!({ "browser": "ALL" })),
    ]))
}

/// What Firefox is started with. It has no flags of Chromium's: a test that needs them is not for it.
fn firefox(settings: &Value, flags: &[&str], more: Value) -> Result<Map<String, Value>> {
    if !flags.is_empty() || more != json!({}) {
        return Err(format!("Firefox knows neither {flags:?} nor {more}").into());
    }
    let mut options = settings["moz:firefoxOptions"].clone();
    options["args"] = json!(["-headless"]);
    options["env"] = json!({
        "MOZ_HEADLESS_WIDTH": WIDTH.to_string(), "MOZ_HEADLESS_HEIGHT": HEIGHT.to_string(),
    });
    // What the page's console says goes where its driver's words go.
    options["prefs"]["devtools.console.stdout.content"] = json!(true);
    if let Ok(firefox) = std::env::var("FIREFOX") {
        options["binary"] = json!(firefox);
    }
    Ok(Map::from_iter([(
        "moz:firefoxOptions".to_string(),
        options,
    )]))
}
