//! Options from JavaScript, member by member: what is misspelt, of another kind or out of range is an
//! error that names the member.

use std::ops::RangeInclusive;

use js_sys::{Array, Float32Array, Function, Object, Reflect};
use wasm_bindgen::{JsCast, JsValue};

use super::error::WebError;

/// Characters of a foreign text that a message repeats at most.
const SHOWN: usize = 40;

/// An object whose members are all known by name.
pub struct Options {
    object: JsValue,
    /// What the object is called in messages: "" at the top.
    path: String,
}

impl Options {
    /// The members of `value`, which is called `path` ("" at the top) and may have those in `known`.
    pub fn new(value: &JsValue, path: &str, known: &[&str]) -> Result<Self, WebError> {
        let plain = value.is_object() && !Array::is_array(value) && !value.is_function();
        let Some(object) = value.dyn_ref::<Object>().filter(|_| plain) else {
            let what = if path.is_empty() { "options" } else { path };
            let shown = show(value);
            let message = format!("{what} must be an object, and is {shown}");
            return Err(refusal(path, message));
        };
        for key in Object::keys(object).iter() {
            let key = key.as_string().unwrap_or_default();
            if !known.contains(&&key[..]) {
                return Err(unknown(&key, path, known));
            }
        }
        Ok(Self {
            object: value.clone(),
            path: path.into(),
        })
    }

    /// What a member is called in messages.
    pub fn path_of(&self, name: &str) -> String {
        match self.path.is_empty() {
            true => name.into(),
            false => format!("{}.{name}", self.path),
        }
    }

    /// A member as it is; none if it is undefined or null.
    pub fn value(&self, name: &str) -> Option<JsValue> {
        let value = Reflect::get(&self.object, &name.into()).ok()?;
        (!value.is_undefined() && !value.is_null()).then_some(value)
    }

    /// A number in `range`.
    pub fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, WebError> {
        let value = self.value(name);
        value
            .map(|value| number(&value, &self.path_of(name), range))
            .transpose()
    }

    /// A whole number in `range`.
    pub fn whole(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, WebError> {
        let value = self.value(name);
        value
            .map(|value| whole(&value, &self.path_of(name), range))
            .transpose()
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<String>, WebError> {
        let value = self.value(name);
        value
            .map(|value| text(&value, &self.path_of(name)))
            .transpose()
    }

    /// True or false.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, WebError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match value.as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => Err(self.must(name, "true or false", &value)),
        }
    }

    /// One of the texts in `choices`, with what it stands for.
    pub fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, WebError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let text = value.as_string();
        let found = choices.iter().find(|(c, _)| text.as_deref() == Some(c));
        if let Some((_, meant)) = found {
            return Ok(Some(*meant));
        }
        let all: Vec<String> = choices.iter().map(|(c, _)| format!("\"{c}\"")).collect();
        Err(self.must(name, &format!("one of {}", all.join(", ")), &value))
    }

    /// A list of at most `most` elements.
    pub fn list(&self, name: &str, most: u32) -> Result<Option<Vec<JsValue>>, WebError> {
        let value = self.value(name);
        value
            .map(|value| list(&value, &self.path_of(name), most))
            .transpose()
    }

    /// A function, which must be there.
    pub fn function(&self, name: &str) -> Result<Function, WebError> {
        let value = self.value(name);
        let function = value.and_then(|value| value.dyn_into().ok());
        function.ok_or_else(|| self.missing(name, "a function"))
    }

    /// The error that member `name` is missing, which must be `what`.
    pub fn missing(&self, name: &str, what: &str) -> WebError {
        let path = self.path_of(name);
        refusal(&path, format!("{path} is missing: it must be {what}"))
    }

    /// The error that member `name` is `value` and must be `what`.
    fn must(&self, name: &str, what: &str, value: &JsValue) -> WebError {
        must(&self.path_of(name), what, value)
    }
}

/// `value`, called `path`, as a number in `range`.
pub fn number(value: &JsValue, path: &str, range: RangeInclusive<f64>) -> Result<f64, WebError> {
    match value.as_f64().filter(|n| range.contains(n)) {
        Some(number) => Ok(number),
        None => {
            let (from, to) = (written(*range.start()), written(*range.end()));
            let what = format!("a number from {from} to {to}");
            Err(must(path, &what, value))
        }
    }
}

/// `value`, called `path`, as a whole number in `range`.
pub fn whole(value: &JsValue, path: &str, range: RangeInclusive<u32>) -> Result<u32, WebError> {
    let (from, to) = (*range.start(), *range.end());
    let inside = |n: &f64| n.fract() == 0.0 && (f64::from(from)..=f64::from(to)).contains(n);
    match value.as_f64().filter(inside) {
        Some(number) => Ok(number as u32),
        None => {
            let what = format!("a whole number from {from} to {to}");
            Err(must(path, &what, value))
        }
    }
}

/// `value`, called `path`, as a text.
pub fn text(value: &JsValue, path: &str) -> Result<String, WebError> {
    value.as_string().ok_or_else(|| must(path, "a text", value))
}

/// `value`, called `path`, as a list of at most `most` elements.
pub fn list(value: &JsValue, path: &str, most: u32) -> Result<Vec<JsValue>, WebError> {
    match value.dyn_ref::<Array>() {
        Some(array) if array.length() <= most => Ok(array.iter().collect()),
        Some(array) => {
            let message = format!(
                "{path} has {} elements, and at most {most} are possible",
                array.length()
            );
            Err(refusal(path, message))
        }
        None => Err(must(path, "a list", value)),
    }
}

/// `value`, called `path`, as at most `most` numbers: a `Float32Array` or a list.
pub fn numbers(value: &JsValue, path: &str, most: u32) -> Result<Vec<f32>, WebError> {
    if let Some(array) = value.dyn_ref::<Float32Array>() {
        if array.length() > most {
            let message = format!(
                "{path} has {} elements, and at most {most} are possible",
                array.length()
            );
            return Err(refusal(path, message));
        }
        return Ok(array.to_vec());
    }
    let list = list(value, path, most)?;
    let read = |(i, one): (usize, &JsValue)| {
        let number = one.as_f64();
        number
            .map(|n| n as f32)
            .ok_or_else(|| must(&format!("{path}[{i}]"), "a number", one))
    };
    list.iter().enumerate().map(read).collect()
}

fn must(path: &str, what: &str, value: &JsValue) -> WebError {
    refusal(
        path,
        format!("{path} must be {what}, and is {}", show(value)),
    )
}

fn refusal(path: &str, message: String) -> WebError {
    let error = WebError::new("bad-request", message);
    match path.is_empty() {
        true => error,
        false => error.at(path),
    }
}

/// The error that there is no option `key`.
fn unknown(key: &str, path: &str, known: &[&str]) -> WebError {
    let key: String = key.chars().take(SHOWN).collect();
    let whole = match path.is_empty() {
        true => key.clone(),
        false => format!("{path}.{key}"),
    };
    let meant = match nearest(&key, known) {
        Some(near) => format!("\"{near}\" is near"),
        None => format!("there are {}", known.join(", ")),
    };
    refusal(&whole, format!("\"{whole}\" is no option: {meant}"))
}

/// The known name that `key` seems to be a slip of, other conventions of writing aside.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let bare = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let key = bare(key);
    let far = |name: &str| strsim::damerau_levenshtein(&key, &bare(name));
    let near = known.iter().min_by_key(|name| far(name))?;
    (far(near) <= key.len() / 3).then_some(*near)
}

/// A value for a message.
fn show(value: &JsValue) -> String {
    if let Some(text) = value.as_string() {
        let short: String = text.chars().take(SHOWN).collect();
        let more = if short.len() < text.len() { "…" } else { "" };
        return format!("\"{short}{more}\"");
    }
    if let Some(number) = value.as_f64() {
        return written(number);
    }
    let name = match value {
        v if v.is_undefined() => "undefined",
        v if v.is_null() => "null",
        v if Array::is_array(v) => "a list",
        v if v.is_function() => "a function",
        v => match v.as_bool() {
            Some(true) => "true",
            Some(false) => "false",
            None => "an object",
        },
    };
    name.into()
}

/// A number for a message; Rust would write the 300 digits of 1e300.
fn written(number: f64) -> String {
    match number.is_nan() {
        true => "not a number".into(),
        false if number.abs() >= 1e16 => format!("{number:e}"),
        false => number.to_string(),
    }
}
