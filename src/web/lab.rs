//! The lab for pages.

use std::cell::Cell;
use std::rc::Rc;

use js_sys::{Function, JSON};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use super::engine::Engine;
use super::error::WebError;
use super::options::Options;
use super::types::{LabOptions, LabPlotObjects, LabResultObject, to_js};
use crate::generate::Chat;
use crate::lab::{
    ByHand, Journal, LabError, Progress, Recipe, ReportInput, Run, Sets, TableFormat, identity,
    overrule, plots, report, run_recipe, table,
};
use crate::phi3::MAX_ROWS;
use crate::turns::Turns;

/// Prompts that run at once, where the request does not say.
const LANES: u32 = 16;

/// Results whose plots are drawn at once, at most.
const MOST_RESULTS: u32 = 64;

/// What is under way in the lab.
#[derive(Default)]
pub struct Desk {
    /// Whether somebody sits at it.
    busy: Cell<bool>,
    /// Set to end it.
    pub cancel: Rc<Cell<bool>>,
    /// Set to end training and keep what came of it.
    pub finish: Rc<Cell<bool>>,
    /// In which lab and answers use the GPU.
    pub turns: Turns,
}

impl Desk {
    /// A desk of an engine that shares its GPU with that of `other`.
    pub fn beside(other: &Self) -> Self {
        Self {
            turns: other.turns.clone(),
            ..Self::default()
        }
    }
}

/// The desk while a recipe is followed or a dictionary trained.
pub(super) struct Seat<'a>(&'a Desk);

impl<'a> Seat<'a> {
    pub(super) fn take(desk: &'a Desk) -> Result<Self, WebError> {
        if desk.busy.replace(true) {
            let message = "the lab is at work: wait for it, or cancel it first";
            return Err(WebError::new("busy", message));
        }
        desk.cancel.set(false);
        desk.finish.set(false);
        Ok(Self(desk))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}

#[derive(Serialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum LabEvent<'a> {
    Progress {
        #[serde(flatten)]
        progress: Progress,
    },
    Line {
        line: &'a str,
    },
}

fn emit(listener: &Function, event: &LabEvent<'_>) {
    if let Ok(event) = to_js(event) {
        // What a listener throws is its own affair.
        let _ = listener.call1(&JsValue::NULL, &event);
    }
}

/// `value`, an object of JavaScript, as JSON.
pub(super) fn json(value: &JsValue, path: &str) -> Result<serde_json::Value, WebError> {
    let text = JSON::stringify(value).ok().and_then(|t| t.as_string());
    let parsed = text.and_then(|t| serde_json::from_str(&t).ok());
    parsed.ok_or_else(|| {
        let message = format!("{path} must be plain data, as JSON has it");
        WebError::new("bad-request", message).at(path)
    })
}

/// A result as an object of JavaScript.
fn object(value: &serde_json::Value) -> Result<JsValue, JsValue> {
    JSON::parse(&value.to_string())
}

/// `LabOptions`
struct Request {
    recipe: Recipe,
    sets: Sets,
    journal: String,
    lanes: usize,
    listener: Function,
}

impl Request {
    fn read(value: &JsValue) -> Result<Self, WebError> {
        let known = ["recipe", "sets", "journal", "lanes", "onEvent"];
        let options = Options::new(value, "", &known)?;
        let recipe = options.value("recipe");
        let recipe = recipe.ok_or_else(|| options.missing("recipe", "what to do"))?;
        let recipe =
            Recipe::read(&json(&recipe, "recipe")?).map_err(|e| WebError::from(e).at("recipe"))?;
        let what = "the text of the file with the prompts, as eval.json or sets/real.json";
        let sets = options.text("sets")?;
        let sets = sets.ok_or_else(|| options.missing("sets", what))?;
        let sets = Sets::new(&recipe.sets.name, sets.as_bytes())
            .map_err(|e| WebError::from(e).at("sets"))?;
        let mut journal = options.text("journal")?.unwrap_or_default();
        // Lines are told whole: the last one too, when its end was left out in putting them together.
        if !journal.is_empty() && !journal.ends_with('\n') {
            journal.push('\n');
        }
        let lanes = options.whole("lanes", 1..=MAX_ROWS as u32)?;
        Ok(Self {
            recipe,
            sets,
            journal,
            lanes: lanes.unwrap_or(LANES) as usize,
            listener: options.function("onEvent")?,
        })
    }
}

#[wasm_bindgen]
impl Engine {
    /// Follows a recipe of the lab, on lanes of its own beside the chat's. An answer that is asked for
    /// meanwhile waits for the step under way, and the lab for the answer. With a journal's lines it goes
    /// on where they end. [`Engine::cancel_lab`] ends it, with the code "cancelled".
    pub async fn lab(&self, options: LabOptions) -> Result<LabResultObject, JsValue> {
        let request = Request::read(options.as_ref())?;
        self.alive()?;
        let seat = Seat::take(&self.desk)?;
        let mut chat = self.lab_chat(request.lanes).await?;
        let lines = request.listener.clone();
        let sink = Box::new(move |line: &str| emit(&lines, &LabEvent::Line { line }));
        let name = &self.info.model.name;
        let about =
            identity(&chat, name, &request.recipe, &request.sets).map_err(WebError::from)?;
        let mut journal =
            Journal::resume(&about, &request.journal, sink).map_err(WebError::from)?;
        let mut tell = |progress| emit(&request.listener, &LabEvent::Progress { progress });
        let mut run =
            Run::new(&mut journal, &self.desk.cancel, &mut tell).in_turns(self.desk.turns.clone());
        let result = run_recipe(&mut chat, name, &request.recipe, &request.sets, &mut run).await;
        drop(seat);
        let result = result.map_err(WebError::from)?;
        Ok(object(&result)?.unchecked_into())
    }

    /// Ends what the lab does, also training, after the step under way.
    #[wasm_bindgen(js_name = cancelLab)]
    pub fn cancel_lab(&self) {
        self.desk.cancel.set(true);
    }
}

impl Engine {
    /// A chat for the lab, as soon as the chat is at home.
    pub(super) async fn lab_chat(&self, lanes: usize) -> Result<Chat, WebError> {
        loop {
            let turn = self.desk.turns.take().await;
            if self.desk.cancel.get() {
                return Err(LabError::Cancelled.into());
            }
            // Away: an answer waits for its turn, which it has next.
            if let Some(mut loan) = self.home.try_lend()? {
                let fork = loan.chat()?.fork(lanes).await?;
                drop(turn);
                return Ok(fork);
            }
        }
    }
}

/// The plots of results, in the page's own colours.
#[wasm_bindgen(js_name = labPlots)]
pub fn lab_plots(
    #[wasm_bindgen(unchecked_param_type = "LabResult[]")] results: JsValue,
    #[wasm_bindgen(unchecked_param_type = "{ theme: \"css\" }")] options: JsValue,
) -> Result<LabPlotObjects, JsValue> {
    let options = Options::new(&options, "options", &["theme"])?;
    options.choice("theme", &[("css", ())])?;
    let list = super::options::list(&results, "results", MOST_RESULTS)?;
    let mut all = Vec::new();
    for (i, result) in list.iter().enumerate() {
        let result = json(result, &format!("results[{i}]"))?;
        let mut drawn = plots(&result).map_err(WebError::from)?;
        if list.len() > 1 {
            let number = i + 1;
            drawn
                .iter_mut()
                .for_each(|p| p.name = format!("{number}-{}", p.name));
        }
        all.extend(drawn);
    }
    Ok(to_js(&all)?.unchecked_into())
}

/// Results, notes and settings as one HTML file that needs nothing else.
#[wasm_bindgen(js_name = labReport)]
pub fn lab_report(
    #[wasm_bindgen(unchecked_param_type = "LabReportInput")] input: JsValue,
) -> Result<String, JsValue> {
    let input: ReportInput = serde_json::from_value(json(&input, "input")?)
        .map_err(|e| WebError::new("bad-request", format!("the report: {e}")).at("input"))?;
    Ok(report(&input).map_err(WebError::from)?)
}

/// A measurement or sweep with verdicts by hand in place of the judge's; what follows from them is counted anew.
#[wasm_bindgen(js_name = labOverrule)]
pub fn lab_overrule(
    #[wasm_bindgen(unchecked_param_type = "LabResult")] result: JsValue,
    #[wasm_bindgen(unchecked_param_type = "LabVerdict[]")] verdicts: JsValue,
) -> Result<LabResultObject, JsValue> {
    let verdicts: Vec<ByHand> = serde_json::from_value(json(&verdicts, "verdicts")?)
        .map_err(|e| WebError::new("bad-request", format!("verdicts: {e}")).at("verdicts"))?;
    let told = overrule(&json(&result, "result")?, &verdicts).map_err(WebError::from)?;
    Ok(object(&told)?.unchecked_into())
}

/// A result as a table: "csv", "json" or "markdown".
#[wasm_bindgen(js_name = labTable)]
pub fn lab_table(
    #[wasm_bindgen(unchecked_param_type = "LabResult")] result: JsValue,
    #[wasm_bindgen(unchecked_param_type = "\"csv\" | \"json\" | \"markdown\"")] format: JsValue,
) -> Result<String, JsValue> {
    let name = super::options::text(&format, "format")?;
    let format = TableFormat::of(&name).ok_or_else(|| {
        let message = format!("format must be csv, json or markdown, and is {name}");
        WebError::new("bad-request", message).at("format")
    })?;
    Ok(table(&json(&result, "result")?, format).map_err(WebError::from)?)
}
