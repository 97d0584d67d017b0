//! One request, its answer, and the answer's body.

use std::collections::VecDeque;

use js_sys::{Date, Function, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, AbortSignal, Headers, ReadableStreamDefaultReader, RequestInit, Response,
};

use super::Watch;
use super::head::{STALL, content_range, is_encoded, is_page, retry_after};
use super::retry::Failure;
use crate::checkpoint::SourceError;
use crate::checkpoint::blob::describe;

#[wasm_bindgen]
extern "C" {
    // The globals, in a window and in a worker alike.
    #[wasm_bindgen(js_name = fetch)]
    fn global_fetch(url: &str, init: &RequestInit) -> Promise;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, milliseconds: i32) -> JsValue;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);
}

/// A server's answer, its headers read.
pub(super) struct Answer {
    pub kind: Kind,
    pub etag: Option<String>,
    /// Whether it calls itself a web page.
    pub is_page: bool,
}

pub(super) enum Kind {
    /// From the byte asked for on, of a file of `total` bytes.
    Part { total: u64, stream: Stream },
    /// All of the file; `length` if it is known.
    Whole { length: Option<u64>, stream: Stream },
}

/// Waits.
pub(super) async fn sleep(milliseconds: i32) {
    let timer = Promise::new(&mut |resolve, _| {
        set_timeout(&resolve, milliseconds);
    });
    // A timer's promise is never rejected.
    let _ = JsFuture::from(timer).await;
}

/// What a promise gives, which is never undefined; `None` if nothing comes for as long as a server may be
/// silent.
async fn heard(promise: &Promise) -> Result<Option<JsValue>, JsValue> {
    let mut timer = JsValue::UNDEFINED;
    let silence = Promise::new(&mut |resolve, _| {
        timer = set_timeout(&resolve, STALL);
    });
    let first = Promise::race(&js_sys::Array::of2(promise, &silence));
    let first = JsFuture::from(first).await;
    clear_timeout(&timer);
    Ok(Some(first?).filter(|value| !value.is_undefined()))
}

/// A request that ends when this is dropped, or when loading is cancelled.
struct Call {
    own: AbortController,
    outer: Option<AbortSignal>,
    forward: Closure<dyn FnMut()>,
}

impl Call {
    fn new(outer: Option<AbortSignal>) -> Result<Self, JsValue> {
        let own = AbortController::new()?;
        let controller = own.clone();
        let forward = Closure::new(move || controller.abort());
        if let Some(outer) = &outer {
            outer.add_event_listener_with_callback("abort", forward.as_ref().unchecked_ref())?;
        }
        Ok(Self {
            own,
            outer,
            forward,
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(outer) = &self.outer {
            let forward = self.forward.as_ref().unchecked_ref();
            // It was added, and can be removed.
            let _ = outer.remove_event_listener_with_callback("abort", forward);
        }
        self.own.abort();
    }
}

/// What a request failed by, unless it was cancelled.
fn network(url: &str, at: u64, watch: &Watch, reason: String) -> Failure {
    let error = match watch.cancel.check(url) {
        Err(cancelled) => cancelled,
        Ok(()) => SourceError::Network {
            url: url.into(),
            at,
            reason,
            begun: watch.begun.get(),
            reached: watch.reached.get(),
        },
    };
    error.into()
}

fn silent(url: &str, at: u64, watch: &Watch) -> Failure {
    let seconds = STALL / 1000;
    network(
        url,
        at,
        watch,
        format!("nothing came for {seconds} seconds"),
    )
}

/// Asks for the file from byte `at` to its end, or without `at` for all of it. `None` when the server's
/// ranges are of no use: it refuses a plain one, counts the bytes of a compressed file, or does not say
/// how long the file is.
pub(super) async fn request(
    url: &str,
    at: Option<u64>,
    watch: &Watch,
) -> Result<Option<Answer>, Failure> {
    watch.cancel.check(url)?;
    let first = at.unwrap_or(0);
    let failed = |e: JsValue| network(url, first, watch, describe(&e));
    let call = Call::new(watch.cancel.signal()).map_err(failed)?;
    let headers = Headers::new().map_err(failed)?;
    if let Some(at) = at {
        // This form of range needs no permission of a foreign server beyond that for reading.
        let range = format!("bytes={at}-");
        headers.set("Range", &range).map_err(failed)?;
    }
    let init = RequestInit::new();
    init.set_headers(&headers);
    init.set_signal(Some(&call.own.signal()));
    let answer = heard(&global_fetch(url, &init)).await.map_err(failed)?;
    let Some(answer) = answer else {
        return Err(silent(url, first, watch));
    };
    watch.reached.set(true);
    let answer: Response = answer.unchecked_into();
    let header = |name: &str| answer.headers().get(name).ok().flatten();
    let number = |name: &str| header(name).and_then(|v| v.trim().parse::<u64>().ok());
    let encoded = header("Content-Encoding").is_some_and(|e| is_encoded(&e));
    // From here on a refused answer is also closed.
    let mut stream = Stream::new(&answer, first, call);
    let kind = match answer.status() {
        // Its ranges are those of what is packed, and what comes is unpacked.
        206 if encoded => return Ok(None),
        206 => {
            let range = header("Content-Range");
            let range = range.map(|text| (content_range(&text), text));
            let (end, total) = match range {
                Some((Some((start, end, total)), _)) if start == first => (Some(end), total),
                Some((_, text)) => {
                    return Err(SourceError::BadAnswer {
                        url: url.into(),
                        reason: format!("bytes from {first} were asked, \"{text}\" came"),
                    }
                    .into());
                }
                // A foreign server may hide the first header and not the second.
                None => {
                    let end = number("Content-Length").map(|rest| first.saturating_add(rest));
                    (end, end)
                }
            };
            let Some(total) = total else {
                return Ok(None);
            };
            stream.end = end;
            Kind::Part { total, stream }
        }
        200 => {
            stream.at = 0;
            // The length of what is sent, which is not that of the file if it is compressed.
            let length = number("Content-Length").filter(|_| !encoded);
            Kind::Whole { length, stream }
        }
        416 if at.is_some() => return Ok(None),
        status => {
            let url = url.into();
            return Err(Failure {
                error: SourceError::Status { url, status },
                wait: header("Retry-After")
                    .and_then(|text| retry_after(&text, Date::now(), Date::parse)),
            });
        }
    };
    watch.begun.set(true);
    Ok(Some(Answer {
        kind,
        etag: header("ETag"),
        is_page: header("Content-Type").is_some_and(|kind| is_page(&kind)),
    }))
}

/// The body of an answer, piece by piece. Dropping it closes the connection.
pub(super) struct Stream {
    /// `None` for an answer without a body.
    reader: Option<ReadableStreamDefaultReader>,
    /// The byte of the file that comes next.
    pub at: u64,
    /// The byte after the last one that the server promised.
    pub end: Option<u64>,
    /// What was read and not used.
    pub ahead: VecDeque<Uint8Array>,
    /// Ends the request.
    _call: Call,
}

impl Stream {
    fn new(answer: &Response, at: u64, call: Call) -> Self {
        let reader = answer.body().map(|body| body.get_reader().unchecked_into());
        Self {
            reader,
            at,
            end: None,
            ahead: VecDeque::new(),
            _call: call,
        }
    }

    /// The next piece, or `None` at the end. Does not move `at`.
    pub async fn next(&mut self, url: &str, watch: &Watch) -> Result<Option<Uint8Array>, Failure> {
        watch.cancel.check(url)?;
        if let Some(piece) = self.ahead.pop_front() {
            return Ok(Some(piece));
        }
        let Some(reader) = &self.reader else {
            return Ok(None);
        };
        let failed = |e: JsValue| network(url, self.at, watch, describe(&e));
        let Some(read) = heard(&reader.read()).await.map_err(failed)? else {
            return Err(silent(url, self.at, watch));
        };
        if Reflect::get(&read, &"done".into())
            .map_err(failed)?
            .is_truthy()
        {
            return Ok(None);
        }
        let value = Reflect::get(&read, &"value".into()).map_err(failed)?;
        Ok(Some(value.unchecked_into()))
    }

    /// The next piece, which stays the next one.
    pub async fn peek(&mut self, url: &str, watch: &Watch) -> Result<Option<Uint8Array>, Failure> {
        let piece = self.next(url, watch).await?;
        self.ahead.extend(piece.clone());
        Ok(piece)
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
