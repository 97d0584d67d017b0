//! Browser `File`s and `Blob`s, which stay outside the wasm heap and are read by slices.

use std::ops::Range;

use js_sys::Uint8Array;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

use super::progress::Meter;
use super::source::{ByteSource, check_range};
use super::{Cancel, SourceError};

/// A browser `File` or `Blob`, read by slices.
pub struct BlobSource {
    name: String,
    blob: web_sys::Blob,
    meter: Meter,
    cancel: Cancel,
}

impl BlobSource {
    /// A file called `name` (for messages) with the blob's bytes.
    pub fn new(name: &str, blob: web_sys::Blob) -> Self {
        Self::watched(name.into(), blob, Meter::default(), Cancel::new())
    }

    pub(super) fn watched(name: String, blob: web_sys::Blob, meter: Meter, cancel: Cancel) -> Self {
        Self {
            name,
            blob,
            meter,
            cancel,
        }
    }
}

impl ByteSource for BlobSource {
    async fn len(&self) -> Result<u64, SourceError> {
        Ok(self.blob.size() as u64)
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        self.cancel.check(&self.name)?;
        let len = self.blob.size() as u64;
        check_range(&self.name, &range, len)?;
        let bytes = slice(&self.blob, &range).await;
        let bytes = bytes.map_err(|e| SourceError::Unreadable {
            file: self.name.clone(),
            reason: describe(&e),
        })?;
        if (bytes.len() as u64) < range.end - range.start {
            return Err(SourceError::Short {
                file: self.name.clone(),
                at: range.start + bytes.len() as u64,
                expected: len,
            });
        }
        self.meter.add(bytes.len() as u64, len);
        Ok(bytes)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A range of a blob's bytes.
pub(super) async fn slice(blob: &web_sys::Blob, range: &Range<u64>) -> Result<Vec<u8>, JsValue> {
    let part = blob.slice_with_f64_and_f64(range.start as f64, range.end as f64)?;
    let buffer = JsFuture::from(part.array_buffer()).await?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

/// What a JavaScript exception says.
pub(super) fn describe(error: &JsValue) -> String {
    let message = js_sys::Reflect::get(error, &"message".into());
    let message = message.ok().and_then(|m| m.as_string());
    message
        .or_else(|| error.as_string())
        .unwrap_or_else(|| format!("{error:?}"))
}
