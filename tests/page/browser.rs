//! A headless Chromium behind its WebDriver, with a few steps that the tests share.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// What tests return: any error fails them with its message.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Software rendering is slow, and machines differ: long enough for any of them.
const PATIENCE: Duration = Duration::from_secs(300);

/// One browser at a time: each one computes on every core.
static TURN: Mutex<()> = Mutex::const_new(());

/// A browser; it and its driver end with the test.
pub struct Browser {
    /// The WebDriver session.
    pub client: Client,
    port: u16,
    driver: Driver,
    _turn: MutexGuard<'static, ()>,
}

struct Driver {
    process: Child,
    port: Option<u16>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Asked to shut down, it ends its browser, which a kill would leave running.
        let asked = self.port.map(|port| request(port, "GET", "/shutdown", ""));
        if !matches!(asked, Some(Ok(_))) {
            drop(self.process.kill());
        }
        // Already gone is as good.
        drop(self.process.wait());
    }
}

/// One request to the driver, by hand: for what WebDriver's standard does not know.
fn request(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("localhost", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    // The driver keeps the connection open: the length says where the answer ends.
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut content = vec![0; length];
    reader.read_exact(&mut content)?;
    String::from_utf8(content).map_err(std::io::Error::other)
}

impl Browser {
    /// Starts Chromium with the flags of `webdriver.json` and more.
    pub async fn start(more_flags: &[&str]) -> Result<Browser> {
        let flags: Vec<&str> = ["--window-size=1280,900"]
            .iter()
            .chain(more_flags)
            .copied()
            .collect();
        Browser::start_with(&flags, json!({})).await
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

    /// More flags, and more of Chromium's own WebDriver options.
    async fn start_with(more_flags: &[&str], more_options: Value) -> Result<Browser> {
        let turn = TURN.lock().await;
        let program = std::env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".into());
        let mut child = Command::new(&program)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{program} does not start: {error}"))?;
        let output = child.stdout.take().ok_or("chromedriver has no output")?;
        let mut driver = Driver {
            process: child,
            port: None,
        };
        let mut lines = BufReader::new(output).lines();
        let port: u16 = loop {
            let line = lines.next().ok_or("chromedriver ended early")??;
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse()?;
            }
        };
        driver.port = Some(port);
        // It must not block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));

        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("webdriver.json");
        let settings: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        let mut options = settings["goog:chromeOptions"].clone();
        let flags = options["args"]
            .as_array_mut()
            .ok_or("webdriver.json has no flags")?;
        flags.extend(more_flags.iter().map(|flag| json!(flag)));
        if let (Some(options), Value::Object(more)) = (options.as_object_mut(), more_options) {
            options.extend(more);
        }
        if let Ok(chrome) = std::env::var("CHROME") {
            options["binary"] = json!(chrome);
        }
        let capabilities = json!({
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": PATIENCE.as_millis() as u64 },
        });
        let Value::Object(capabilities) = capabilities else {
            return Err("capabilities are an object".into());
        };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://localhost:{port}"))
            .await?;
        Ok(Browser {
            client,
            port,
            driver,
            _turn: turn,
        })
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
    /// content security policy. Chromium's own addition to WebDriver, so by hand.
    pub async fn console_errors(&self) -> Result<Vec<String>> {
        let session = self
            .client
            .session_id()
            .await?
            .ok_or("the session has ended")?;
        let body = json!({ "type": "browser" }).to_string();
        let content = request(
            self.port,
            "POST",
            &format!("/session/{session}/se/log"),
            &body,
        )?;
        let log: Value = serde_json::from_str(&content)?;
        let entries = log["value"]
            .as_array()
            .ok_or_else(|| format!("not a log: {content}"))?;
        Ok(entries
            .iter()
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].to_string())
            .collect())
    }

    /// A command of Chromium's own protocol, for what WebDriver does not know.
    pub async fn command(&self, name: &str, parameters: Value) -> Result<Value> {
        let session = self
            .client
            .session_id()
            .await?
            .ok_or("the session has ended")?;
        let content = request(
            self.port,
            "POST",
            &format!("/session/{session}/goog/cdp/execute"),
            &json!({ "cmd": name, "params": parameters }).to_string(),
        )?;
        let answer: Value = serde_json::from_str(&content)?;
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
                (error) => done({{ error: String(error.stack ?? error) }}));"
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
