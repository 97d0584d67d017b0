//! The JavaScript API as a page calls it.

use js_sys::{Array, Promise, Reflect, Uint8Array};
use phi3_steer::web::Engine;
use serde::Serialize;
use serde_json::Value;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{File, ReadableStream, ReadableStreamDefaultReader};

/// A JavaScript value, as a page would write it.
pub fn js(value: &Value) -> JsValue {
    let serializer = serde_wasm_bindgen::Serializer::json_compatible();
    value.serialize(&serializer).expect("a value")
}

pub fn from_js(value: JsValue) -> Value {
    serde_wasm_bindgen::from_value(value).expect("plain data")
}

pub fn set(object: &JsValue, name: &str, value: &JsValue) {
    Reflect::set(object, &name.into(), value).expect("a plain object");
}

/// `File`s as an `<input>` hands them out.
pub fn chosen(files: &[(String, Vec<u8>)]) -> JsValue {
    let file = |(name, bytes): &(String, Vec<u8>)| {
        let parts = Array::of1(&Uint8Array::from(&bytes[..]));
        JsValue::from(File::new_with_u8_array_sequence(&parts, name).expect("a file"))
    };
    files.iter().map(file).collect::<Array>().into()
}

/// An error's code and message.
#[derive(Debug)]
pub struct Refusal {
    pub code: String,
    pub message: String,
    /// The option that is wrong.
    pub field: Option<String>,
}

impl Refusal {
    /// What was thrown must be an `Error` with a code and a sentence.
    pub fn of(thrown: JsValue) -> Self {
        assert!(thrown.is_instance_of::<js_sys::Error>(), "{thrown:?}");
        let member = |name: &str| Reflect::get(&thrown, &name.into()).ok()?.as_string();
        let code = member("code").unwrap_or_else(|| panic!("{thrown:?} has no code"));
        let message = member("message").expect("errors have a message");
        assert!(message.split(' ').count() > 3, "no sentence: {message}");
        let field = member("field");
        Self {
            code,
            message,
            field,
        }
    }
}

pub async fn load(options: &JsValue) -> Result<Engine, Refusal> {
    let engine = Engine::load(options.clone().unchecked_into()).await;
    engine.map_err(Refusal::of)
}

/// An answer that is being read.
pub struct Answer {
    pub reader: ReadableStreamDefaultReader,
}

impl Answer {
    /// The next event; `None` at the end.
    pub async fn next(&self) -> Result<Option<Value>, Refusal> {
        let read = JsFuture::from(self.reader.read()).await;
        let read = read.map_err(Refusal::of)?;
        let member = |name: &str| Reflect::get(&read, &name.into()).expect("a member");
        if member("done").is_truthy() {
            return Ok(None);
        }
        Ok(Some(from_js(member("value"))))
    }

    pub async fn rest(&self) -> Result<Vec<Value>, Refusal> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await? {
            all.push(event);
        }
        Ok(all)
    }
}

pub fn start(engine: &Engine, options: &Value) -> Result<Answer, Refusal> {
    let stream = engine
        .chat(js(options).unchecked_into())
        .map_err(Refusal::of)?;
    let stream: ReadableStream = stream.unchecked_into();
    let reader = ReadableStreamDefaultReader::new(&stream).expect("an unlocked stream");
    Ok(Answer { reader })
}

/// All events of an answer.
pub async fn chat(engine: &Engine, options: &Value) -> Result<Vec<Value>, Refusal> {
    start(engine, options)?.rest().await
}

/// Sets a lane's steering; the setting's number.
pub fn set_steering(engine: &Engine, lane: usize, list: Value) -> Result<u64, Refusal> {
    let setting = engine.set_steering(lane.into(), js(&list).unchecked_into());
    Ok(setting.map_err(Refusal::of)? as u64)
}

pub fn of_type<'a>(events: &'a [Value], kind: &str, lane: usize) -> Vec<&'a Value> {
    let of = |e: &&Value| e["type"] == kind && e["lane"] == lane;
    events.iter().filter(of).collect()
}

pub fn ids(events: &[Value], lane: usize) -> Vec<u64> {
    let id = |e: &Value| e["id"].as_u64().expect("a token number");
    of_type(events, "token", lane).into_iter().map(id).collect()
}

pub async fn sleep(milliseconds: i32) {
    let script = format!("new Promise((resolve) => setTimeout(resolve, {milliseconds}))");
    let promise: Promise = js_sys::eval(&script).expect("a promise").unchecked_into();
    JsFuture::from(promise).await.expect("time passes");
}
