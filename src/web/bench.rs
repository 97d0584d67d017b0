//! How fast a model runs, for pages.

use js_sys::Function;
use serde::Serialize;
use wasm_bindgen::prelude::*;

use super::engine::Engine;
use super::error::WebError;
use super::options::{Options, whole};
use super::types::{SpeedOptions, to_js};
use crate::bench::{Figure, Plan, measure};
use crate::phi3::MAX_ROWS;

/// Numbers in a list of lanes or lengths at most.
const MOST: u32 = 16;

/// `SpeedFigure`
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    figure: &'a Figure,
    text: String,
}

/// `SpeedOptions`
struct Request {
    plan: Plan,
    listener: Function,
}

impl Request {
    fn read(value: &JsValue) -> Result<Self, WebError> {
        let known = ["lanes", "context", "tokens", "patience", "onFigure"];
        let options = Options::new(value, "", &known)?;
        let numbers = |name: &str, most: u32, usual: &[usize]| -> Result<Vec<usize>, WebError> {
            let Some(list) = options.list(name, MOST)? else {
                return Ok(usual.to_vec());
            };
            let each = list.iter().enumerate().map(|(i, value)| {
                let path = format!("{}[{i}]", options.path_of(name));
                Ok(whole(value, &path, 1..=most)? as usize)
            });
            each.collect()
        };
        Ok(Self {
            plan: Plan {
                lanes: numbers("lanes", MAX_ROWS as u32, &[1, 2])?,
                context: numbers("context", u32::MAX, &[16, 256])?,
                tokens: options.whole("tokens", 2..=4096)?.unwrap_or(16) as usize,
                patience: options.number("patience", 0.0..=3600.0)?.unwrap_or(10.0),
            },
            listener: options.function("onFigure")?,
        })
    }
}

#[wasm_bindgen]
impl Engine {
    /// Measures how fast the model runs, on lanes of its own; the figures as they come. [`Engine::cancel`] stops it, with
    /// the code "cancelled".
    #[wasm_bindgen(js_name = measureSpeed)]
    pub async fn measure_speed(&self, options: SpeedOptions) -> Result<(), JsValue> {
        let request = Request::read(options.as_ref())?;
        let mut loan = self.take()?;
        let _turn = self.desk.turns.take().await;
        let mut tell = |figure: Figure| {
            let text = figure.to_string();
            let figure = &figure;
            if let Ok(told) = to_js(&Told { figure, text }) {
                // What a listener throws is its own affair.
                let _ = request.listener.call1(&JsValue::NULL, &told);
            }
        };
        let measured = measure(loan.chat()?, &request.plan, &self.cancel, &mut tell).await;
        Ok(measured.map_err(WebError::from)?)
    }
}
