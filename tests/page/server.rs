//! A static file server for the built page that can also misbehave on purpose.
//!
//! Plain sockets, because the point is to break HTTP in chosen ways; one connection a request.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a browser, however busy, needs to hand out what has come.
const DELIVERY: Duration = Duration::from_millis(500);

/// How the server gets a file wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, no content.
    Status(u16),
    /// The whole file and status 200 for any range.
    IgnoreRanges,
    /// Announces the right length, closes the connection after this many bytes of the answer.
    DropAfter(usize),
    /// Closes the connection where this byte of the file comes, however often it is asked for.
    DropAt(usize),
    /// The file ends after this many bytes.
    Truncate(usize),
    /// These bytes at this offset of the file.
    Overwrite(usize, Vec<u8>),
    /// Waits this long before each 64 KiB.
    Slow(Duration),
    /// Says that the file is this long, whatever it is.
    LieLength(usize),
    /// This status to a HEAD request, and everything right to others.
    RefuseHead(u16),
    /// Ranges are ranges of these bytes, which are the file compressed by gzip, and are sent as such.
    Gzip(Vec<u8>),
    /// 416 to any range, with an error message for content.
    RefuseRanges,
}

struct Site {
    root: PathBuf,
    /// Files that stand in front of those of the root.
    front: Option<PathBuf>,
    /// What goes wrong, and how many times more.
    faults: Mutex<HashMap<String, (Fault, usize)>>,
    seen: Mutex<Vec<String>>,
    /// Bytes of bodies sent, by path.
    sent: Mutex<HashMap<String, usize>>,
    /// Headers of every answer, each with its line's end.
    headers: String,
    /// The status of what is not there.
    missing: AtomicU16,
    /// Whether the browser may hold what it fetched.
    held: AtomicBool,
    /// Cleared when the server is to stop.
    open: AtomicBool,
}

/// A server on a free port of this machine; it ends with the process.
pub struct Server {
    address: SocketAddr,
    site: Arc<Site>,
}

impl Server {
    /// Serves a folder.
    pub fn start(root: &Path) -> std::io::Result<Server> {
        Server::start_with(root, None, false)
    }

    /// Serves a folder with the files of another folder in front of its own.
    /// Pages of other sites may read them if `cross`.
    pub fn start_with(root: &Path, front: Option<&Path>, cross: bool) -> std::io::Result<Server> {
        let headers = match cross {
            true => {
                "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Content-Range, ETag\r\n"
            }
            false => "",
        };
        Server::start_saying(root, front, headers.into())
    }

    /// The same with more headers in every answer, each with its line's end.
    pub fn start_saying(
        root: &Path,
        front: Option<&Path>,
        headers: String,
    ) -> std::io::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let site = Arc::new(Site {
            root: root.to_path_buf(),
            front: front.map(Path::to_path_buf),
            faults: Mutex::default(),
            seen: Mutex::default(),
            sent: Mutex::default(),
            headers,
            missing: AtomicU16::new(404),
            held: AtomicBool::new(false),
            open: AtomicBool::new(true),
        });
        let shared = site.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !shared.open.load(Ordering::SeqCst) {
                    return;
                }
                let site = shared.clone();
                // A browser that hangs up early is no failure of the server.
                std::thread::spawn(move || drop(site.answer(stream)));
            }
        });
        Ok(Server { address, site })
    }

    /// Ends it: connections are refused from now on.
    pub fn stop(self) {
        self.site.open.store(false, Ordering::SeqCst);
        // Wakes the thread that waits for the next connection.
        drop(TcpStream::connect(self.address));
        while TcpStream::connect(self.address).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The site's address, with a slash at the end.
    pub fn url(&self) -> String {
        format!("http://localhost:{}/", self.address.port())
    }

    /// Gets this file wrong from now on.
    pub fn break_file(&self, path: &str, fault: Fault) {
        self.break_times(path, fault, usize::MAX);
    }

    /// Gets this file wrong in the next `times` requests.
    pub fn break_times(&self, path: &str, fault: Fault, times: usize) {
        assert!(
            self.site.find(path).is_some_and(|file| file.is_file()),
            "{path} is not part of the site"
        );
        lock(&self.site.faults).insert(path.to_owned(), (fault, times));
    }

    /// Serves every file right again.
    pub fn repair(&self) {
        lock(&self.site.faults).clear();
    }

    /// Answers with this status where a file is missing.
    pub fn missing(&self, status: u16) {
        self.site.missing.store(status, Ordering::SeqCst);
    }

    /// Lets the browser hold what it fetches, as most servers do.
    pub fn let_hold(&self) {
        self.site.held.store(true, Ordering::SeqCst);
    }

    /// The paths of all requests so far, without a leading slash.
    pub fn seen(&self) -> Vec<String> {
        lock(&self.site.seen).clone()
    }

    /// Bytes of this file that were sent so far.
    pub fn sent(&self, path: &str) -> usize {
        lock(&self.site.sent).get(path).copied().unwrap_or(0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Site {
    /// Where a path's file is, there or not; nothing for paths that lead out of the site.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let plain = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let front = self.front.as_ref().map(|front| front.join(path));
        plain.then(|| match front {
            Some(front) if front.is_file() => front,
            _ => self.root.join(path),
        })
    }

    /// What goes wrong with this request.
    fn fault(&self, path: &str, head: bool) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let (fault, times) = faults.get_mut(path)?;
        let fault = fault.clone();
        if !head {
            *times = times.saturating_sub(1);
            if *times == 0 {
                faults.remove(path);
            }
        }
        Some(fault)
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        let (mut range, mut known) = (None, None);
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "range" => range = Some(value.trim().to_owned()),
                    "if-none-match" => known = Some(value.trim().to_owned()),
                    _ => {}
                }
            }
        }
        let target = request.split(' ').nth(1).unwrap_or("/");
        let mut path = decoded(
            target
                .split(['?', '#'])
                .next()
                .unwrap_or("")
                .trim_start_matches('/'),
        );
        if path.is_empty() || path.ends_with('/') {
            path.push_str("index.html");
        }
        lock(&self.seen).push(path.clone());
        let head = request.starts_with("HEAD ");
        let fault = self.fault(&path, head);
        let file = self.find(&path).and_then(|file| std::fs::read(file).ok());
        let Some(mut bytes) = file else {
            return respond(
                &mut stream,
                self.missing.load(Ordering::SeqCst),
                "text/plain",
                &self.headers,
                b"not here",
                head,
            );
        };
        let mut claimed = None;
        let (mut drop_after, mut drop_at) = (None, None);
        let mut wait = Duration::ZERO;
        let mut encoding = "";
        match fault {
            None => {}
            Some(Fault::Status(status)) => {
                return respond(&mut stream, status, "text/plain", &self.headers, b"", head);
            }
            Some(Fault::IgnoreRanges) => range = None,
            Some(Fault::DropAfter(count)) => drop_after = Some(count),
            Some(Fault::DropAt(byte)) => drop_at = Some(byte),
            Some(Fault::Truncate(length)) => bytes.truncate(length),
            Some(Fault::Overwrite(at, with)) => {
                bytes[at..at + with.len()].copy_from_slice(&with);
            }
            Some(Fault::Slow(time)) => wait = time,
            Some(Fault::LieLength(length)) => claimed = Some(length),
            Some(Fault::RefuseHead(status)) if head => {
                return respond(&mut stream, status, "text/plain", &self.headers, b"", head);
            }
            Some(Fault::RefuseHead(_)) => {}
            Some(Fault::Gzip(packed)) if range.is_some() => {
                bytes = packed;
                encoding = "Content-Encoding: gzip\r\n";
            }
            Some(Fault::Gzip(_)) => {}
            Some(Fault::RefuseRanges) if range.is_some() => {
                let text = b"<?xml version=\"1.0\"?><Error>InvalidRange</Error>";
                return respond(
                    &mut stream,
                    416,
                    "application/xml",
                    &self.headers,
                    text,
                    head,
                );
            }
            Some(Fault::RefuseRanges) => {}
        }

        let size = bytes.len();
        let tag = format!("\"{:x}\"", fingerprint(&bytes));
        let held = self.held.load(Ordering::SeqCst);
        if held && known.as_ref() == Some(&tag) {
            return respond(&mut stream, 304, content_type(&path), "", b"", true);
        }
        let tag = format!("ETag: {tag}\r\n");
        let total = claimed.unwrap_or(size);
        let part = range.as_deref().map(|text| parse_range(text, size));
        if let Some(byte) = drop_at {
            let first = part.flatten().map_or(0, |(first, _)| first);
            drop_after = Some(byte.saturating_sub(first));
        }
        let (status, extra, body) = match part {
            None => (200, String::new(), &bytes[..]),
            Some(None) => (
                416,
                format!("Content-Range: bytes */{size}\r\n"),
                &bytes[..0],
            ),
            Some(Some((first, last))) => (
                206,
                format!("Content-Range: bytes {first}-{last}/{total}\r\n"),
                &bytes[first..=last],
            ),
        };
        let caching = if held { "no-cache" } else { "no-store" };
        let extra = format!(
            "{extra}{tag}{encoding}Cache-Control: {caching}\r\n{}",
            self.headers
        );
        let kind = content_type(&path);
        if let Some(count) = drop_after.filter(|count| *count < body.len()) {
            write_head(&mut stream, status, kind, &extra, body.len())?;
            stream.write_all(&body[..count])?;
            stream.flush()?;
            // A browser throws away what it has received and not handed out when the connection ends.
            std::thread::sleep(DELIVERY);
            return stream.shutdown(std::net::Shutdown::Both);
        }
        if !wait.is_zero() && !head {
            write_head(&mut stream, status, kind, &extra, body.len())?;
            for chunk in body.chunks(64 << 10) {
                std::thread::sleep(wait);
                stream.write_all(chunk)?;
                self.count(&path, chunk.len());
            }
            return finish(stream);
        }
        respond(&mut stream, status, kind, &extra, body, head)?;
        if !head {
            self.count(&path, body.len());
        }
        finish(stream)
    }

    fn count(&self, path: &str, bytes: usize) {
        *lock(&self.sent).entry(path.to_owned()).or_default() += bytes;
    }
}

/// A path of an address, its percent signs taken for what they stand for.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let byte = (first == b'%')
            .then(|| std::str::from_utf8(after.get(..2)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = &after[if byte.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Tells versions of a file apart (FNV-1a).
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
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
         Accept-Ranges: bytes\r\nConnection: close\r\n{extra}\r\n"
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
