//! A stand-in for `fetch`, which plays servers that do odd things.
// Every test file uses its own part.
#![allow(dead_code)]

use js_sys::{Array, Function, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

/// Bytes that say where they are.
pub fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + (i >> 8) * 7) as u8).collect()
}

/// A stand-in for `fetch`, in place until dropped. A server of one file whose answers follow a script, one
/// word a request; the last word repeats:
///
/// - "ok": the range that was asked for, or the file;
/// - "drop:N": the connection breaks after N bytes; "short:N": the body ends after N bytes; "part:N": N bytes
///   come, and the server says so; "stall:N": after N bytes nothing comes any more;
/// - "fail": no answer; "silent": none, ever; a status like "503", with an error's text;
/// - "all": the whole file, ranges ignored; "all-drop:N" breaks; "endless": bytes without end or length;
/// - "html": a web page; "html-typed": the file, called a web page;
/// - "hidden": a range without its header; "star": one of a file of unknown length; "wrong": another range
///   than the one asked for;
/// - "gzip": a range of a compressed file, unpacked on the way; "gzip-hidden": without its header;
/// - "etag:X".
///
/// Waits for the next try are shortened; how long a server may be silent too, by the script's first word
/// "impatient".
pub struct Server {
    state: JsValue,
}

#[wasm_bindgen(inline_js = r#"
export function start_server(content, script) {
    const { fetch, setTimeout } = globalThis;
    const state = { fetch, setTimeout, asked: [], open: 0, sent: 0 };
    const impatient = script[0] === "impatient";
    if (impatient) script = script.slice(1);
    globalThis.setTimeout = (callback, time) =>
        setTimeout(callback, time === 30_000 ? (impatient ? 1_000 : time) : time >= 200 ? time / 50 : time);
    const size = content.length;
    globalThis.fetch = async (url, init) => {
        const range = new Headers(init.headers).get("Range");
        const from = range === null ? null : Number(/^bytes=(\d+)-$/.exec(range)[1]);
        const at = from ?? 0;
        const word = script[Math.min(state.asked.length, script.length - 1)];
        state.asked.push(from ?? -1);
        const { signal } = init;
        const aborted = () => new DOMException("aborted", "AbortError");
        if (signal && signal.aborted) throw aborted();
        let [kind, argument] = word.split(":");
        if (kind === "fail") throw new TypeError("Failed to fetch");
        if (kind === "silent") return new Promise((_, reject) => signal.addEventListener("abort", () => reject(aborted())));
        if (kind === "416" && from === null) kind = "ok";
        if (/^\d+$/.test(kind)) return new Response("<Error><Code>No</Code></Error>", { status: Number(kind) });
        if (kind === "html") return new Response("<!doctype html>", { headers: { "Content-Type": "text/html; charset=utf-8" } });
        const gzip = kind.startsWith("gzip") && from !== null;
        const whole = from === null || kind.startsWith("all") || kind === "endless";
        let next = whole ? 0 : at;
        let left = ["drop", "short", "all-drop", "part", "stall"].includes(kind) ? Number(argument) : Infinity;
        state.open += 1;
        let closed = false;
        const close = () => { if (!closed) { closed = true; state.open -= 1; } };
        const body = new ReadableStream({
            async pull(controller) {
                await new Promise((resolve) => setTimeout(resolve, 0));
                if (signal && signal.aborted) {
                    close();
                    controller.error(aborted());
                    return;
                }
                const n = kind === "endless" ? 1000 : Math.min(1000, size - next, left);
                if (n > 0) {
                    state.sent += n;
                    controller.enqueue(kind === "endless" ? new Uint8Array(n) : content.slice(next, next + n));
                    next += n;
                    left -= n;
                    return;
                }
                if (kind === "stall") {
                    await new Promise((resolve) => signal.addEventListener("abort", resolve));
                }
                close();
                if (next < size && !["short", "part"].includes(kind)) controller.error(new TypeError("network error"));
                else controller.close();
            },
            cancel: close,
        });
        const headers = {};
        if (kind === "etag") headers["ETag"] = argument;
        if (kind === "html-typed") headers["Content-Type"] = "text/html";
        if (whole && kind !== "endless") headers["Content-Length"] = String(size);
        else if (gzip) headers["Content-Range"] = `bytes ${at}-70/71`;
        else if (kind === "part") headers["Content-Range"] = `bytes ${at}-${Math.min(size, at + Number(argument)) - 1}/${size}`;
        else if (kind === "star") headers["Content-Range"] = `bytes ${at}-${size - 1}/*`;
        else if (kind === "wrong") headers["Content-Range"] = `bytes ${at + 1}-${size - 1}/${size}`;
        else if (kind !== "hidden") headers["Content-Range"] = `bytes ${at}-${size - 1}/${size}`;
        if (kind === "gzip" && gzip) headers["Content-Encoding"] = "gzip";
        return new Response(body, { status: whole ? 200 : 206, headers });
    };
    return state;
}
"#)]
extern "C" {
    fn start_server(content: Uint8Array, script: Array) -> JsValue;
}

impl Server {
    /// Serves `size` bytes as in [`bytes`].
    pub fn start(size: usize, script: &str) -> Self {
        Self::of(&bytes(size), script)
    }

    /// Serves a file.
    pub fn of(content: &[u8], script: &str) -> Self {
        let words = script.split(' ').map(JsValue::from_str).collect::<Array>();
        let state = start_server(Uint8Array::from(content), words);
        Self { state }
    }

    fn member(&self, name: &str) -> JsValue {
        Reflect::get(&self.state, &name.into()).expect("a member")
    }

    /// The first bytes of the ranges asked for; -1 for the whole file.
    pub fn asked(&self) -> Vec<f64> {
        let asked = Array::from(&self.member("asked"));
        asked.iter().filter_map(|v| v.as_f64()).collect()
    }

    /// Bodies that were neither read to the end nor closed.
    pub fn open(&self) -> f64 {
        self.member("open").as_f64().expect("a number")
    }

    /// Bytes that were sent.
    pub fn sent(&self) -> f64 {
        self.member("sent").as_f64().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for name in ["fetch", "setTimeout"] {
            let original: Function = self.member(name).unchecked_into();
            Reflect::set(&js_sys::global(), &name.into(), &original).expect("is put back");
        }
    }
}
