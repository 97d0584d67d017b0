//! The programs that drive browsers: chromedriver, geckodriver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::browser::Result;

/// So many times a driver is started that ends before it listens.
const STARTS: usize = 5;

/// A browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chromium,
    Firefox,
}

impl Kind {
    /// The one that `PAGE_BROWSER` names; Chromium if it is not set.
    pub fn wanted() -> Result<Self> {
        match std::env::var("PAGE_BROWSER").as_deref() {
            Err(_) | Ok("chromium") => Ok(Self::Chromium),
            Ok("firefox") => Ok(Self::Firefox),
            Ok(other) => Err(format!("PAGE_BROWSER is {other}: chromium or firefox").into()),
        }
    }

    /// Its driver: the variable that names the program, the program, and what it says before its port.
    fn driver(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Chromium => (
                "CHROMEDRIVER",
                "chromedriver",
                "started successfully on port ",
            ),
            Self::Firefox => ("GECKODRIVER", "geckodriver", "Listening on 127.0.0.1:"),
        }
    }
}

/// A driver; with it ends its browser.
pub struct Driver {
    /// What it drives.
    pub kind: Kind,
    pub port: u16,
    /// The session that it drives, once there is one.
    pub session: Option<String>,
    process: Child,
    /// Errors that came with its output.
    errors: Arc<Mutex<Vec<String>>>,
}

impl Driver {
    /// Starts the driver at a port of its own. Chromium's wants the same free port at two addresses and ends where
    /// something else has it at one of them: it is asked again then.
    pub fn start(kind: Kind) -> Result<Self> {
        let (_, program, _) = kind.driver();
        for _ in 0..STARTS {
            if let Some(driver) = Self::try_start(kind)? {
                return Ok(driver);
            }
        }
        Err(format!("{program} ended early {STARTS} times").into())
    }

    /// The driver, or nothing if it ended before it listened.
    fn try_start(kind: Kind) -> Result<Option<Self>> {
        let (variable, program, before_port) = kind.driver();
        let program = std::env::var(variable).unwrap_or_else(|_| program.into());
        let mut process = Command::new(&program)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{program} does not start: {error}"))?;
        let output = process.stdout.take();
        let output = output.ok_or_else(|| format!("{program} has no output"))?;
        let mut lines = BufReader::new(output).lines();
        let port = loop {
            let Some(line) = lines.next() else {
                drop(process.kill());
                process.wait()?;
                return Ok(None);
            };
            if let Some((_, port)) = line?.split_once(before_port) {
                break port.trim_end_matches('.').parse()?;
            }
        };
        let errors = Arc::new(Mutex::new(Vec::new()));
        let kept = errors.clone();
        // It must not block on a full pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(std::result::Result::ok) {
                if is_the_pages(&line) {
                    kept.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                }
            }
        });
        Ok(Some(Self {
            kind,
            port,
            session: None,
            process,
            errors,
        }))
    }

    /// The errors since the last call that its output told.
    pub fn told(&self) -> Vec<String> {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *errors)
    }

    /// Posts a command of its session, for what WebDriver's standard does not know.
    pub fn post(&self, command: &str, body: &Value) -> Result<Value> {
        let session = self.session.as_ref().ok_or("there is no session")?;
        let path = format!("/session/{session}/{command}");
        let answer = request(self.port, "POST", &path, &body.to_string())?;
        Ok(serde_json::from_str(&answer)?)
    }
}

/// Whether a line of Firefox's output is an error of the page. Firefox's own come from other addresses, or with the
/// name of a part of it before them.
fn is_the_pages(line: &str) -> bool {
    let named = |rest: &str| {
        let name = rest.strip_suffix(": ");
        name.is_some_and(|name| name.chars().all(char::is_alphanumeric))
    };
    match line.strip_prefix("console.error: ") {
        Some(rest) => !named(rest),
        None => line.starts_with("JavaScript error: http"),
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Asked to, it ends its browser, which a kill would leave running.
        match (self.kind, &self.session) {
            (Kind::Chromium, _) => {
                if request(self.port, "GET", "/shutdown", "").is_err() {
                    drop(self.process.kill());
                }
            }
            (Kind::Firefox, session) => {
                if let Some(session) = session {
                    // Already ended is as good.
                    drop(request(
                        self.port,
                        "DELETE",
                        &format!("/session/{session}"),
                        "",
                    ));
                }
                drop(self.process.kill());
            }
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
        "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\
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
