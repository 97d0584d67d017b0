//! A file at an address.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use js_sys::{Array, Uint8Array};
use wasm_bindgen::JsValue;
use web_sys::Blob;

use super::head::begins_as_page;
use super::request::{Answer, Kind, Stream, request, sleep};
use super::retry::{Failure, Tries, is_passing};
use crate::checkpoint::address::{is_own, resolved};
use crate::checkpoint::blob::{describe, slice};
use crate::checkpoint::progress::Meter;
use crate::checkpoint::source::{ByteSource, MAX_FILE, check_range};
use crate::checkpoint::{Cancel, SourceError};

/// A gap up to this many bytes is read and thrown away rather than asked for anew.
const SKIP: u64 = 256 << 10;

/// Downloaded pieces are moved into a blob when they reach this many bytes.
const PIECES: u64 = 16 << 20;

/// Milliseconds of waiting after which it is seen whether loading was cancelled.
const PAUSE: i32 = 250;

/// What all requests for a file have in common.
#[derive(Clone)]
pub(in crate::checkpoint) struct Watch {
    pub meter: Meter,
    pub cancel: Cancel,
    /// The longest that the file may be, in bytes.
    pub most: u64,
    /// Whether its server has answered with the file, or a part of it.
    pub begun: Rc<Cell<bool>>,
    /// Whether its server has answered: what fails then is the network, and not a permission.
    pub reached: Rc<Cell<bool>>,
}

/// A file at an address.
pub struct HttpSource {
    url: String,
    len: u64,
    etag: Option<String>,
    /// Whether the server's ranges are of use.
    ranges: Cell<bool>,
    body: RefCell<Body>,
    watch: Watch,
}

/// Why a file at an address is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The server says so.
    NotThere,
    /// The server does not hand it out, with this status; many say so of what is not there.
    Refused(u16),
    /// A web page is there instead.
    Page,
}

/// What came of opening a file.
pub(in crate::checkpoint) enum Opened {
    Found(HttpSource),
    Missing(Absence),
}

/// What is at hand of the file.
enum Body {
    /// No open connection.
    Idle,
    /// An answer that continues at the stream's position.
    Streaming(Stream),
    /// All of it.
    Whole(Blob),
}

/// Asks for the file from byte `at` on, or for all of it where `ranges` are of no use.
async fn ask(url: &str, at: u64, ranges: &Cell<bool>, watch: &Watch) -> Result<Answer, Failure> {
    if ranges.get() {
        if let Some(answer) = request(url, Some(at), watch).await? {
            return Ok(answer);
        }
        ranges.set(false);
    }
    let answer = request(url, None, watch).await?;
    answer.ok_or_else(|| {
        let url = url.into();
        let reason = "a part came where the whole file was asked".into();
        SourceError::BadAnswer { url, reason }.into()
    })
}

/// Waits for the next try; the error if there is none.
async fn again(
    tries: &mut Tries,
    failure: Failure,
    url: &str,
    watch: &Watch,
) -> Result<(), SourceError> {
    let mut left = tries.again(failure, js_sys::Math::random())?;
    while left > 0 {
        watch.cancel.check(url)?;
        sleep(left.min(PAUSE)).await;
        left -= PAUSE;
    }
    watch.cancel.check(url)
}

impl HttpSource {
    /// Asks for the file at `url` and reads its headers; the body follows as it is read.
    pub async fn open(url: &str) -> Result<Self, SourceError> {
        let url = resolved(url);
        let watch = Watch {
            meter: Meter::default(),
            cancel: Cancel::new(),
            most: MAX_FILE,
            begun: Rc::default(),
            reached: Rc::new(Cell::new(is_own(&url))),
        };
        match Self::watched(url.clone(), watch).await? {
            Opened::Found(source) => Ok(source),
            Opened::Missing(Absence::Refused(status)) => Err(SourceError::Status { url, status }),
            Opened::Missing(Absence::NotThere) => Err(SourceError::Status { url, status: 404 }),
            Opened::Missing(Absence::Page) => Err(SourceError::BadAnswer {
                url,
                reason: "a web page came in the place of the file: check the address".into(),
            }),
        }
    }

    /// As [`HttpSource::open`]; a file that the server does not hand out is missing.
    pub(in crate::checkpoint) async fn watched(
        url: String,
        watch: Watch,
    ) -> Result<Opened, SourceError> {
        let mut tries = Tries::default();
        loop {
            let failure = match Self::try_open(&url, &watch).await {
                Ok(opened) => return Ok(opened),
                Err(failure) => failure,
            };
            match failure.error {
                SourceError::Status {
                    status: 404 | 410, ..
                } => return Ok(Opened::Missing(Absence::NotThere)),
                // Many servers say so of what is not there.
                SourceError::Status { status, .. }
                    if (400..500).contains(&status) && !is_passing(status) =>
                {
                    return Ok(Opened::Missing(Absence::Refused(status)));
                }
                _ => again(&mut tries, failure, &url, &watch).await?,
            }
        }
    }

    async fn try_open(url: &str, watch: &Watch) -> Result<Opened, Failure> {
        let ranges = Cell::new(true);
        let mut answer = ask(url, 0, &ranges, watch).await?;
        if let Kind::Part { total, stream } = &mut answer.kind
            && let Some(piece) = stream.peek(url, watch).await?
            && u64::from(piece.length()) > *total
        {
            // More than the file has: its length is that of a compressed file.
            ranges.set(false);
            answer = ask(url, 0, &ranges, watch).await?;
        }
        let (Kind::Part { stream, .. } | Kind::Whole { stream, .. }) = &mut answer.kind;
        // Hosts of single-page sites answer with their start page where a file is missing; others call
        // everything a page.
        if answer.is_page {
            let piece = stream.peek(url, watch).await?;
            let start = piece.map(|piece| piece.subarray(0, piece.length().min(256)).to_vec());
            if start.is_none_or(|start| begins_as_page(&start)) {
                return Ok(Opened::Missing(Absence::Page));
            }
        }
        let (len, body) = match answer.kind {
            Kind::Part { total, stream } => (total, Body::Streaming(stream)),
            Kind::Whole { length, stream } => {
                let blob = download(url, length, stream, watch).await?;
                (blob.size() as u64, Body::Whole(blob))
            }
        };
        check_length(url, len, watch)?;
        Ok(Opened::Found(Self {
            url: url.into(),
            len,
            etag: answer.etag,
            ranges,
            body: RefCell::new(body),
            watch: watch.clone(),
        }))
    }

    /// Closes the connection, if one is open.
    pub(in crate::checkpoint) fn release(&self) {
        let mut body = self.body.borrow_mut();
        if matches!(*body, Body::Streaming(_)) {
            *body = Body::Idle;
        }
    }

    /// Takes back the bytes from `at` on that were read last and are not needed yet.
    pub(in crate::checkpoint) fn put_back(&self, at: u64, bytes: &[u8]) {
        if let Body::Streaming(stream) = &mut *self.body.borrow_mut()
            && stream.at == at + bytes.len() as u64
        {
            stream.ahead.push_front(Uint8Array::from(bytes));
            stream.at = at;
            self.watch.meter.take_back(bytes.len() as u64);
        }
    }

    /// Reads on at byte `at`, which is before `end`: appends to `out` what comes next, which may be nothing.
    async fn step(&self, at: u64, end: u64, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut stream = match self.body.replace(Body::Idle) {
            Body::Whole(blob) => {
                self.body.replace(Body::Whole(blob.clone()));
                let bytes = slice(&blob, &(at..end)).await;
                let bytes = bytes.map_err(|e| SourceError::Unreadable {
                    file: self.url.clone(),
                    reason: describe(&e),
                })?;
                if bytes.is_empty() {
                    return Err(self.short(at));
                }
                out.extend_from_slice(&bytes);
                return Ok(());
            }
            Body::Streaming(stream) if stream.at <= at && at - stream.at <= SKIP => stream,
            // Dropping a stream at another place closes it.
            Body::Streaming(_) | Body::Idle => match self.resume(at).await? {
                Some(stream) => stream,
                // The whole file came instead: the next step reads it.
                None => return Ok(()),
            },
        };
        loop {
            let Some(piece) = stream.next(&self.url, &self.watch).await? else {
                // Some servers send a part of what was asked, and say so.
                return match stream.end == Some(stream.at) && stream.at < self.len {
                    true => Ok(()),
                    false => Err(self.short(stream.at)),
                };
            };
            let (start, length) = (stream.at, u64::from(piece.length()));
            if length > self.len - start {
                return Err(SourceError::BadAnswer {
                    url: self.url.clone(),
                    reason: "more bytes came than the file has: let the server send it \
                             without compressing it"
                        .into(),
                }
                .into());
            }
            stream.at += length;
            if stream.at <= at {
                continue;
            }
            let from = at.saturating_sub(start);
            let to = length.min(end - start);
            let used = piece.subarray(from as u32, to as u32);
            let filled = out.len();
            out.resize(filled + used.length() as usize, 0);
            used.copy_to(&mut out[filled..]);
            if to < length {
                stream.at = start + to;
                stream
                    .ahead
                    .push_front(piece.subarray(to as u32, length as u32));
            }
            self.watch.meter.add(to - from, self.len);
            self.body.replace(Body::Streaming(stream));
            return Ok(());
        }
    }

    /// A new stream from byte `at`, or `None` when the server sent the whole file.
    async fn resume(&self, at: u64) -> Result<Option<Stream>, Failure> {
        let answer = ask(&self.url, at, &self.ranges, &self.watch).await?;
        let changed = |what: &str| SourceError::BadAnswer {
            url: self.url.clone(),
            reason: format!("{what} changed during the download: load it again"),
        };
        if answer.etag.is_some() && self.etag.is_some() && answer.etag != self.etag {
            return Err(changed("the file").into());
        }
        match answer.kind {
            Kind::Part { total, stream } if total == self.len => Ok(Some(stream)),
            Kind::Part { .. } => Err(changed("the file's length").into()),
            Kind::Whole { length, stream } => {
                let blob = download(&self.url, length, stream, &self.watch).await?;
                if blob.size() as u64 != self.len {
                    return Err(changed("the file's length").into());
                }
                self.body.replace(Body::Whole(blob));
                Ok(None)
            }
        }
    }

    fn short(&self, at: u64) -> Failure {
        let error = SourceError::Short {
            file: self.url.clone(),
            at,
            expected: self.len,
        };
        error.into()
    }
}

impl ByteSource for HttpSource {
    async fn len(&self) -> Result<u64, SourceError> {
        Ok(self.len)
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        self.watch.cancel.check(&self.url)?;
        check_range(&self.url, &range, self.len)?;
        let wanted = (range.end - range.start) as usize;
        let mut out = Vec::with_capacity(wanted);
        let mut tries = Tries::default();
        while out.len() < wanted {
            let (before, at) = (out.len(), range.start + out.len() as u64);
            let step = self.step(at, range.end, &mut out).await;
            tries.gained((out.len() - before) as u64);
            if let Err(failure) = step {
                again(&mut tries, failure, &self.url, &self.watch).await?;
            }
        }
        Ok(out)
    }

    fn name(&self) -> &str {
        &self.url
    }
}

/// Refuses a file that is longer than it may be.
fn check_length(url: &str, len: u64, watch: &Watch) -> Result<(), SourceError> {
    if len > watch.most {
        return Err(SourceError::TooLarge {
            file: url.into(),
            len,
            cap: watch.most,
        });
    }
    Ok(())
}

/// Takes in the whole body, outside the wasm heap.
async fn download(
    url: &str,
    length: Option<u64>,
    mut stream: Stream,
    watch: &Watch,
) -> Result<Blob, Failure> {
    let refused = |e: JsValue| SourceError::Unreadable {
        file: url.into(),
        reason: format!("the browser has no room for it: {}", describe(&e)),
    };
    check_length(url, length.unwrap_or(0), watch)?;
    let mut blob = Blob::new().map_err(refused)?;
    let (mut pieces, mut gathered) = (Array::new(), 0);
    while let Some(piece) = stream.next(url, watch).await? {
        let bytes = u64::from(piece.length());
        pieces.push(&piece);
        stream.at += bytes;
        gathered += bytes;
        // Whatever was announced.
        check_length(url, stream.at, watch)?;
        let total = length.unwrap_or(0).max(stream.at);
        watch.meter.reach(stream.at, total);
        if gathered >= PIECES {
            pieces.unshift(&blob);
            blob = Blob::new_with_u8_array_sequence(&pieces).map_err(refused)?;
            (pieces, gathered) = (Array::new(), 0);
        }
    }
    if let Some(length) = length.filter(|length| stream.at < *length) {
        return Err(SourceError::Short {
            file: url.into(),
            at: stream.at,
            expected: length,
        }
        .into());
    }
    pieces.unshift(&blob);
    Ok(Blob::new_with_u8_array_sequence(&pieces).map_err(refused)?)
}
