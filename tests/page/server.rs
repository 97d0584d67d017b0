//! A static file server for the built page that can also misbehave on purpose.
//!
//! Plain sockets, because the point is to break HTTP in chosen ways; one connection a request.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the server gets a file wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, no content.
    Status(u16),
    /// The whole file and status 200 for any range.
    IgnoreRanges,
    /// Announces the right length, closes the connection after this many bytes of the answer.
    DropAfter(usize),
    /// The file ends after this many bytes.
    Truncate(usize),
    /// These bytes at this offset of the file.
    Overwrite(usize, Vec<u8>),
    /// Waits this long before each 64 KiB.
    Slow(Duration),
}

struct Site {
    root: PathBuf,
    faults: Mutex<HashMap<String, Fault>>,
    seen: Mutex<Vec<String>>,
}

/// A server on a free port of this machine; it ends with the process.
pub struct Server {
    address: SocketAddr,
    site: Arc<Site>,
}

impl Server {
    /// Serves a folder.
    pub fn start(root: &Path) -> std::io::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let site = Arc::new(Site {
            root: root.to_path_buf(),
            faults: Mutex::default(),
            seen: Mutex::default(),
        });
        let shared = site.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let site = shared.clone();
                // A browser that hangs up early is no failure of the server.
                std::thread::spawn(move || drop(site.answer(stream)));
            }
        });
        Ok(Server { address, site })
    }

    /// The site's address, with a slash at the end.
    pub fn url(&self) -> String {
        format!("http://localhost:{}/", self.address.port())
    }

    /// Gets this file wrong from now on.
    pub fn break_file(&self, path: &str, fault: Fault) {
        let full = self.site.root.join(path);
        assert!(full.is_file(), "{} is not part of the site", full.display());
        lock(&self.site.faults).insert(path.to_owned(), fault);
    }

    /// Serves every file right again.
    pub fn repair(&self) {
        lock(&self.site.faults).clear();
    }

    /// The paths of all requests so far, without a leading slash.
    pub fn seen(&self) -> Vec<String> {
        lock(&self.site.seen).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Site {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        let mut range = None;
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("range")
            {
                range = Some(value.trim().to_owned());
            }
        }
        let target = request.split(' ').nth(1).unwrap_or("/");
        let mut path = target
            .split(['?', '#'])
            .next()
            .unwrap_or("")
            .trim_start_matches('/')
            .to_owned();
        if path.is_empty() || path.ends_with('/') {
            path.push_str("index.html");
        }
        lock(&self.seen).push(path.clone());
        let head = request.starts_with("HEAD ");
        let fault = lock(&self.faults).get(&path).cloned();

        let plain = Path::new(&path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let file = if plain {
            std::fs::read(self.root.join(&path)).ok()
        } else {
            None
        };
        let Some(mut bytes) = file else {
            return respond(&mut stream, 404, "text/plain", "", b"not here", head);
        };
        let mut drop_after = None;
        let mut wait = Duration::ZERO;
        match fault {
            None => {}
            Some(Fault::Status(status)) => {
                return respond(&mut stream, status, "text/plain", "", b"", head);
            }
            Some(Fault::IgnoreRanges) => range = None,
            Some(Fault::DropAfter(count)) => drop_after = Some(count),
            Some(Fault::Truncate(length)) => bytes.truncate(length),
            Some(Fault::Overwrite(at, with)) => {
                bytes[at..at + with.len()].copy_from_slice(&with);
            }
            Some(Fault::Slow(time)) => wait = time,
        }

        let size = bytes.len();
        let (status, extra, body) = match range.as_deref().map(|text| parse_range(text, size)) {
            None => (200, String::new(), &bytes[..]),
            Some(None) => (
                416,
                format!("Content-Range: bytes */{size}\r\n"),
                &bytes[..0],
            ),
            Some(Some((first, last))) => (
                206,
                format!("Content-Range: bytes {first}-{last}/{size}\r\n"),
                &bytes[first..=last],
            ),
        };
        let kind = content_type(&path);
        if let Some(count) = drop_after.filter(|count| *count < body.len()) {
            write_head(&mut stream, status, kind, &extra, body.len())?;
            stream.write_all(&body[..count])?;
            return stream.shutdown(std::net::Shutdown::Both);
        }
        if !wait.is_zero() && !head {
            write_head(&mut stream, status, kind, &extra, body.len())?;
            for chunk in body.chunks(64 << 10) {
                std::thread::sleep(wait);
                stream.write_all(chunk)?;
            }
            return finish(stream);
        }
        respond(&mut stream, status, kind, &extra, body, head)?;
        finish(stream)
    }
}

/// Closes after the client has read everything.
fn finish(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut rest = [0; 64];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

fn respond(
    stream: &mut TcpStream,
    status: u16,
    kind: &str,
    extra: &str,
    body: &[u8],
    head: bool,
) -> std::io::Result<()> {
    write_head(stream, status, kind, extra, body.len())?;
    if !head {
        stream.write_all(body)?;
    }
    stream.flush()
}

fn write_head(
    stream: &mut TcpStream,
    status: u16,
    kind: &str,
    extra: &str,
    length: usize,
) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status} .\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Accept-Ranges: bytes\r\nCache-Control: no-store\r\nConnection: close\r\n{extra}\r\n"
    )
}

/// First and last byte of `bytes=a-b`, `bytes=a-` or `bytes=-n`, or nothing if out of the file.
fn parse_range(text: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first.trim(), last.trim()) {
        ("", count) => (size.checked_sub(count.parse().ok()?)?, size.checked_sub(1)?),
        (first, "") => (first.parse().ok()?, size.checked_sub(1)?),
        (first, last) => {
            let last: usize = last.parse().ok()?;
            (first.parse().ok()?, last.min(size.checked_sub(1)?))
        }
    };
    (first <= last && last < size).then_some((first, last))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}
