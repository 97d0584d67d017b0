//! Files at an address, read with `fetch`.
//!
//! One open-ended range request feeds reads that follow each other; a read elsewhere starts
//! another. A request that fails on the way is taken up again at the byte reached. A server that
//! ignores ranges sends the whole file, which is kept as a `Blob` outside the wasm heap.

use std::cell::RefCell;
use std::ops::Range;

use js_sys::{Array, Function, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, Headers, ReadableStreamDefaultReader, RequestInit, Response};

use super::blob::{describe, slice};
use super::progress::Meter;
use super::source::{ByteSource, check_range};
use super::{Cancel, SourceError};

#[wasm_bindgen]
extern "C" {
    // The globals, in a window and in a worker alike.
    #[wasm_bindgen(js_name = fetch)]
    fn global_fetch(url: &str, init: &RequestInit) -> Promise;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, milliseconds: i32) -> JsValue;
}

/// Times that a request is made in all before its failure is final; progress starts the count anew.
const TRIES: u32 = 3;

/// The wait before the second try, in milliseconds; four times longer before each further one.
const FIRST_WAIT: i32 = 250;

/// A gap up to this many bytes is read and thrown away rather than asked for anew.
const SKIP: u64 = 256 << 10;

/// Downloaded pieces are moved into a blob when they reach this many bytes.
const PIECES: u64 = 16 << 20;

/// A file at an address.
pub struct HttpSource {
    url: String,
    len: u64,
    etag: Option<String>,
    body: RefCell<Body>,
    meter: Meter,
    cancel: Cancel,
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

impl HttpSource {
    /// Asks for the file at `url` and reads its headers; the body follows as it is read.
    pub async fn open(url: &str) -> Result<Self, SourceError> {
        let source = Self::watched(url.into(), Meter::default(), Cancel::new()).await?;
        source.ok_or_else(|| SourceError::Status {
            url: url.into(),
            status: 404,
        })
    }

    /// As [`HttpSource::open`], `None` where there is no such file.
    pub(super) async fn watched(
        url: String,
        meter: Meter,
        cancel: Cancel,
    ) -> Result<Option<Self>, SourceError> {
        let mut tries = Tries::default();
        loop {
            let opened = Self::try_open(&url, &meter, &cancel).await;
            match opened {
                Err(SourceError::Status {
                    status: 404 | 410, ..
                }) => return Ok(None),
                Err(error) => tries.again(error, &cancel).await?,
                Ok(found) => return Ok(found),
            }
        }
    }

    async fn try_open(
        url: &str,
        meter: &Meter,
        cancel: &Cancel,
    ) -> Result<Option<Self>, SourceError> {
        let answer = request(url, 0, cancel).await?;
        if answer.is_page {
            // Hosts of single-page sites answer with their start page where a file is missing.
            return Ok(None);
        }
        let (len, body) = match answer.kind {
            Kind::Part { total, stream } => (total, Body::Streaming(stream)),
            Kind::Empty => (0, Body::Idle),
            Kind::Whole { length, stream } => {
                let blob = download(url, length, stream, meter, cancel).await?;
                (blob.size() as u64, Body::Whole(blob))
            }
        };
        Ok(Some(Self {
            url: url.into(),
            len,
            etag: answer.etag,
            body: RefCell::new(body),
            meter: meter.clone(),
            cancel: cancel.clone(),
        }))
    }

    /// Closes the connection, if one is open.
    pub(super) fn release(&self) {
        let mut body = self.body.borrow_mut();
        if matches!(*body, Body::Streaming(_)) {
            *body = Body::Idle;
        }
    }

    /// Reads on at byte `at`, which is before `end`: appends at least one byte to `out`.
    async fn step(&self, at: u64, end: u64, out: &mut Vec<u8>) -> Result<(), SourceError> {
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
            let Some(piece) = stream.next(&self.url, &self.cancel).await? else {
                return Err(self.short(stream.at));
            };
            let (start, length) = (stream.at, u64::from(piece.length()));
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
                stream.rest = Some(piece.subarray(to as u32, length as u32));
            }
            self.meter.add(to - from, self.len);
            self.body.replace(Body::Streaming(stream));
            return Ok(());
        }
    }

    /// A new stream from byte `at`, or `None` when the server sent the whole file.
    async fn resume(&self, at: u64) -> Result<Option<Stream>, SourceError> {
        let answer = request(&self.url, at, &self.cancel).await?;
        let changed = |what: &str| SourceError::BadAnswer {
            url: self.url.clone(),
            reason: format!("{what} changed during the download: load it again"),
        };
        if answer.etag.is_some() && self.etag.is_some() && answer.etag != self.etag {
            return Err(changed("the file"));
        }
        match answer.kind {
            Kind::Part { total, stream } if total == self.len => Ok(Some(stream)),
            Kind::Part { .. } | Kind::Empty => Err(changed("the file's length")),
            Kind::Whole { length, stream } => {
                let blob = download(&self.url, length, stream, &self.meter, &self.cancel).await?;
                if blob.size() as u64 != self.len {
                    return Err(changed("the file's length"));
                }
                self.body.replace(Body::Whole(blob));
                Ok(None)
            }
        }
    }

    fn short(&self, at: u64) -> SourceError {
        SourceError::Short {
            file: self.url.clone(),
            at,
            expected: self.len,
        }
    }
}

impl ByteSource for HttpSource {
    async fn len(&self) -> Result<u64, SourceError> {
        Ok(self.len)
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        self.cancel.check(&self.url)?;
        check_range(&self.url, &range, self.len)?;
        let wanted = (range.end - range.start) as usize;
        let mut out = Vec::with_capacity(wanted);
        let mut tries = Tries::default();
        while out.len() < wanted {
            let (before, at) = (out.len(), range.start + out.len() as u64);
            let step = self.step(at, range.end, &mut out).await;
            if out.len() > before {
                tries = Tries::default();
            }
            if let Err(error) = step {
                tries.again(error, &self.cancel).await?;
            }
        }
        Ok(out)
    }

    fn name(&self) -> &str {
        &self.url
    }
}

/// Counts failures in a row.
#[derive(Default)]
struct Tries {
    failed: u32,
}

impl Tries {
    /// Waits for the next try; the error if it is not worth one, or there were enough.
    async fn again(&mut self, error: SourceError, cancel: &Cancel) -> Result<(), SourceError> {
        let passing = match &error {
            SourceError::Network { .. } | SourceError::Short { .. } => true,
            SourceError::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        };
        self.failed += 1;
        if !passing || self.failed >= TRIES || cancel.is_cancelled() {
            return Err(error);
        }
        let wait = FIRST_WAIT << (2 * (self.failed - 1));
        let timer = Promise::new(&mut |resolve, _| {
            set_timeout(&resolve, wait);
        });
        // A timer's promise is never rejected.
        let _ = JsFuture::from(timer).await;
        Ok(())
    }
}

/// A server's answer, its headers read.
struct Answer {
    kind: Kind,
    etag: Option<String>,
    /// Whether it calls itself a web page.
    is_page: bool,
}

enum Kind {
    /// From the byte asked for to the end of a file of `total` bytes.
    Part { total: u64, stream: Stream },
    /// All of the file; `length` if it is known.
    Whole { length: Option<u64>, stream: Stream },
    /// There is nothing from the byte asked for on.
    Empty,
}

/// Asks for the file from byte `at` to its end.
async fn request(url: &str, at: u64, cancel: &Cancel) -> Result<Answer, SourceError> {
    cancel.check(url)?;
    let network = |e: JsValue| match cancel.check(url) {
        Err(cancelled) => cancelled,
        Ok(()) => SourceError::Network {
            url: url.into(),
            at,
            reason: describe(&e),
        },
    };
    let headers = Headers::new().map_err(network)?;
    // This form of range needs no permission of a foreign server beyond that for reading.
    let range = format!("bytes={at}-");
    headers.set("Range", &range).map_err(network)?;
    let init = RequestInit::new();
    init.set_headers(&headers);
    init.set_signal(cancel.signal().as_ref());
    let answer = JsFuture::from(global_fetch(url, &init)).await;
    let answer: Response = answer.map_err(network)?.unchecked_into();
    let header = |name: &str| answer.headers().get(name).ok().flatten();
    let number = |name: &str| header(name).and_then(|v| v.trim().parse::<u64>().ok());
    let bad = |reason: &str| SourceError::BadAnswer {
        url: url.into(),
        reason: reason.into(),
    };
    // From here on a refused answer is also closed.
    let mut stream = Stream::new(&answer, at);
    let kind = match answer.status() {
        206 => {
            let total = match header("Content-Range") {
                Some(range) => match content_range(&range) {
                    Some((start, total)) if start == at => total,
                    _ => {
                        return Err(bad(&format!(
                            "bytes from {at} were asked, \"{range}\" came"
                        )));
                    }
                },
                // A foreign server may hide the first header and not the second.
                None => number("Content-Length").map(|rest| at.saturating_add(rest)),
            };
            let total = total.ok_or_else(|| {
                bad(
                    "it does not say how long the file is: let the server expose the header \
                     Content-Range",
                )
            })?;
            Kind::Part { total, stream }
        }
        200 => {
            stream.at = 0;
            // The length of what is sent, which is not that of the file if it is compressed.
            let length = match header("Content-Encoding") {
                None => number("Content-Length"),
                Some(_) => None,
            };
            Kind::Whole { length, stream }
        }
        416 if at == 0 => Kind::Empty,
        status => {
            return Err(SourceError::Status {
                url: url.into(),
                status,
            });
        }
    };
    let page = header("Content-Type").is_some_and(|t| t.trim_start().starts_with("text/html"));
    Ok(Answer {
        kind,
        etag: header("ETag"),
        is_page: page,
    })
}

/// The first byte and the total length (if known) of `bytes 0-9/100`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Takes in the whole body, outside the wasm heap.
async fn download(
    url: &str,
    length: Option<u64>,
    mut stream: Stream,
    meter: &Meter,
    cancel: &Cancel,
) -> Result<Blob, SourceError> {
    let refused = |e: JsValue| SourceError::Unreadable {
        file: url.into(),
        reason: format!("the browser has no room for it: {}", describe(&e)),
    };
    let mut blob = Blob::new().map_err(refused)?;
    let (mut pieces, mut gathered) = (Array::new(), 0);
    while let Some(piece) = stream.next(url, cancel).await? {
        let bytes = u64::from(piece.length());
        pieces.push(&piece);
        stream.at += bytes;
        gathered += bytes;
        meter.reach(stream.at, length.unwrap_or(0).max(stream.at));
        if gathered >= PIECES {
            pieces.unshift(&blob);
            blob = Blob::new_with_u8_array_sequence(&pieces).map_err(refused)?;
            (pieces, gathered) = (Array::new(), 0);
        }
    }
    if length.is_some_and(|length| stream.at < length) {
        return Err(SourceError::Short {
            file: url.into(),
            at: stream.at,
            expected: length.unwrap_or(0),
        });
    }
    pieces.unshift(&blob);
    Blob::new_with_u8_array_sequence(&pieces).map_err(refused)
}

/// The body of an answer, piece by piece. Dropping it closes the connection.
struct Stream {
    /// `None` for an answer without a body.
    reader: Option<ReadableStreamDefaultReader>,
    /// The byte of the file that comes next.
    at: u64,
    /// What was left of the last piece.
    rest: Option<Uint8Array>,
}

impl Stream {
    fn new(answer: &Response, at: u64) -> Self {
        let reader = answer.body().map(|body| body.get_reader().unchecked_into());
        Self {
            reader,
            at,
            rest: None,
        }
    }

    /// The next piece, or `None` at the end. Does not move `at`.
    async fn next(
        &mut self,
        url: &str,
        cancel: &Cancel,
    ) -> Result<Option<Uint8Array>, SourceError> {
        cancel.check(url)?;
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let Some(reader) = &self.reader else {
            return Ok(None);
        };
        let read = async {
            let result = JsFuture::from(reader.read()).await?;
            if Reflect::get(&result, &"done".into())?.is_truthy() {
                return Ok(None);
            }
            let value = Reflect::get(&result, &"value".into())?;
            Ok(Some(value.unchecked_into::<Uint8Array>()))
        };
        read.await.map_err(|e: JsValue| match cancel.check(url) {
            Err(cancelled) => cancelled,
            Ok(()) => SourceError::Network {
                url: url.into(),
                at: self.at,
                reason: describe(&e),
            },
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            let closed = reader.cancel();
            // A body that already failed refuses to be closed: nothing is left to do then.
            wasm_bindgen_futures::spawn_local(async move {
                let _ = JsFuture::from(closed).await;
            });
        }
    }
}
