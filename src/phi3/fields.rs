//! The entries of a configuration, read by type.

use serde_json::{Map, Value};

use super::ModelError;
use crate::checkpoint::shown;

/// A JSON object of `config.json`. An entry that is null is as good as none.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// The object's own key with a colon and a space, or nothing, for messages.
    place: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, place: &'a str) -> Self {
        Self { map, place }
    }

    /// An error about this object.
    pub(super) fn fail(&self, reason: String) -> ModelError {
        ModelError::Config(format!("{}{reason}", self.place))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A whole number, also if it is written with a point: 2047.0.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.typed(key, "a whole number, 0 or more", |value| {
            let whole = |n: f64| n >= 0.0 && n.fract() == 0.0;
            match (value.as_u64(), value.as_f64()) {
                // Larger than any bound here, where it is cut.
                (Some(n), _) => Some(usize::try_from(n).unwrap_or(usize::MAX)),
                (None, Some(n)) if whole(n) => Some(n as usize),
                _ => None,
            }
        })
    }

    /// A finite number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.typed(key, "a text", Value::as_str)
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => {
                let value = shown(&value.to_string());
                Err(self.fail(format!("{key} is {value}; {expected} is needed")))
            }
        }
    }
}
