//! What JavaScript asks for, read with [`Options`].

use wasm_bindgen::JsValue;

use super::error::WebError;
use super::options::{self, Options};
use crate::generate::{FeatureWish, MOST_ALTERNATIVES, Sampling};
use crate::phi3::{MAX_ROWS, Precision};
use crate::sae::{HookPoint, MAX_K};
use crate::steering::{Gate, GateKind, Intervention, Operator, Positions, SteeringError, Target};
use crate::tokens::{Message, Role};

/// Messages of a conversation at most.
const MESSAGES: u32 = 1 << 16;
/// Bytes of all messages at most; the longest context is a small part of it.
const TEXT: usize = 4 << 20;
/// Interventions of a lane at most, over all hook points.
const INTERVENTIONS: u32 = 1024;
/// Numbers of a vector at most; no residual stream is as wide.
pub const WIDEST: u32 = 1 << 20;
/// Tokens of an answer at most.
const MOST_TOKENS: u32 = 1 << 20;
/// Numbers that f32 has, with room for rounding.
const LARGEST: f64 = 3.4e38;
/// Tokens of an answer, where the request does not say.
const TOKENS: u32 = 512;

/// The members of `LoadOptions` that are plain data.
pub struct LoadSettings {
    pub lanes: usize,
    pub precision: Precision,
    pub context_length: Option<usize>,
    pub sae_hook: Option<HookPoint>,
}

impl LoadSettings {
    /// Reads `LoadOptions`.
    pub fn read(value: &JsValue) -> Result<Self, WebError> {
        let known = [
            "model",
            "sae",
            "saeHook",
            "lanes",
            "quant",
            "contextLength",
            "onProgress",
        ];
        let options = Options::new(value, "", &known)?;
        let lanes = options.whole("lanes", 1..=MAX_ROWS as u32)?;
        let precision = options.choice("quant", &Precision::NAMES)?;
        let context = options.whole("contextLength", 1..=u32::MAX)?;
        let listener = options.value("onProgress");
        if listener.is_some_and(|l| !l.is_function()) {
            let message = "onProgress must be a function";
            return Err(WebError::new("bad-request", message).at("onProgress"));
        }
        Ok(Self {
            lanes: lanes.unwrap_or(2) as usize,
            precision: precision.unwrap_or_default(),
            context_length: context.map(|c| c as usize),
            sae_hook: match options.text("saeHook")? {
                Some(name) => Some(hook(&name, "saeHook")?),
                None => None,
            },
        })
    }
}

/// The hook point called `name`, in the member `path`.
pub fn hook(name: &str, path: &str) -> Result<HookPoint, WebError> {
    let parsed = name.parse::<HookPoint>();
    parsed.map_err(|e| WebError::from(e).at(path))
}

/// `ChatOptions`
pub struct ChatSettings {
    /// The conversation of each lane.
    pub lanes: Vec<Vec<Message>>,
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// The feature that is reported at every token.
    pub track: Option<FeatureWish>,
    /// How many of the strongest are.
    pub top_features: usize,
    /// How many alternatives are reported with every token's probability, if that is.
    pub logprobs: Option<usize>,
}

impl ChatSettings {
    /// Reads `ChatOptions`.
    pub fn read(value: &JsValue) -> Result<Self, WebError> {
        let known = [
            "lanes",
            "maxTokens",
            "sampling",
            "track",
            "topFeatures",
            "logprobs",
        ];
        let options = Options::new(value, "", &known)?;
        let lanes = options.list("lanes", MAX_ROWS as u32)?;
        let lanes = lanes.filter(|lanes| !lanes.is_empty());
        let lanes = lanes.ok_or_else(|| options.missing("lanes", "a list of conversations"))?;
        let mut room = TEXT;
        let read_lane = |(i, lane): (usize, &JsValue)| -> Result<Vec<Message>, WebError> {
            let lane = Options::new(lane, &format!("lanes[{i}]"), &["messages"])?;
            let messages = lane.list("messages", MESSAGES)?;
            let messages =
                messages.ok_or_else(|| lane.missing("messages", "a list of messages"))?;
            let path = lane.path_of("messages");
            let read = |(i, m): (usize, &JsValue)| message(m, &format!("{path}[{i}]"), &mut room);
            messages.iter().enumerate().map(read).collect()
        };
        let conversations = lanes.iter().enumerate().map(read_lane);
        let conversations = conversations.collect::<Result<Vec<_>, _>>()?;
        let track = match options.value("track") {
            Some(value) => Some(track(&value)?),
            None => None,
        };
        let max_tokens = options.whole("maxTokens", 0..=MOST_TOKENS)?;
        let top_features = options.whole("topFeatures", 0..=MAX_K as u32)?;
        let logprobs = options.whole("logprobs", 0..=MOST_ALTERNATIVES as u32)?;
        Ok(Self {
            lanes: conversations,
            max_tokens: max_tokens.unwrap_or(TOKENS) as usize,
            sampling: match options.value("sampling") {
                Some(value) => sampling(&value)?,
                None => Sampling::default(),
            },
            track,
            top_features: top_features.unwrap_or(0) as usize,
            logprobs: logprobs.map(|most| most as usize),
        })
    }
}

/// A message called `path`. What it has beside role and content is its writer's own affair.
fn message(value: &JsValue, path: &str, room: &mut usize) -> Result<Message, WebError> {
    let keys = js_sys::Object::keys(&js_sys::Object::from(value.clone()));
    let keys: Vec<String> = keys.iter().filter_map(|key| key.as_string()).collect();
    let known: Vec<&str> = keys.iter().map(String::as_str).collect();
    let options = Options::new(value, path, &known)?;
    let roles = [
        ("system", Role::System),
        ("user", Role::User),
        ("assistant", Role::Assistant),
    ];
    let role = options.choice("role", &roles)?;
    let role = role.ok_or_else(|| options.missing("role", "the speaker"))?;
    let content = options.text("content")?;
    let content = content.ok_or_else(|| options.missing("content", "a text"))?;
    *room = room.checked_sub(content.len()).ok_or_else(too_long)?;
    Ok(Message { role, content })
}

/// `value`, called `path`, as a text that some context may hold.
pub fn bounded_text(value: &JsValue, path: &str) -> Result<String, WebError> {
    let text = options::text(value, path)?;
    match text.len() <= TEXT {
        true => Ok(text),
        false => Err(too_long()),
    }
}

fn too_long() -> WebError {
    let message = format!("the text has more than {TEXT} bytes, which fit no context: shorten it");
    WebError::new("context-full", message)
}

fn sampling(value: &JsValue) -> Result<Sampling, WebError> {
    let known = [
        "temperature",
        "topK",
        "topP",
        "minP",
        "repetitionPenalty",
        "seed",
    ];
    let options = Options::new(value, "sampling", &known)?;
    let plain = Sampling::default();
    // The ranges are those of `Sampling::check`.
    let number = |name: &str, default: f32| -> Result<f32, WebError> {
        let number = options.number(name, -LARGEST..=LARGEST)?;
        Ok(number.map_or(default, |n| n as f32))
    };
    let sampling = Sampling {
        temperature: number("temperature", plain.temperature)?,
        top_k: options.whole("topK", 0..=u32::MAX)?.unwrap_or(plain.top_k),
        top_p: number("topP", plain.top_p)?,
        min_p: number("minP", plain.min_p)?,
        repetition_penalty: number("repetitionPenalty", plain.repetition_penalty)?,
        seed: options.whole("seed", 0..=u32::MAX)?.unwrap_or(plain.seed),
    };
    sampling.check()?;
    Ok(sampling)
}

fn track(value: &JsValue) -> Result<FeatureWish, WebError> {
    let options = Options::new(value, "track", &["hook", "feature"])?;
    let name = options.text("hook")?;
    let name = name.ok_or_else(|| options.missing("hook", "a hook point, as \"layers.3\""))?;
    let feature = options.whole("feature", 0..=u32::MAX)?;
    let feature = feature.ok_or_else(|| options.missing("feature", "a feature's number"))?;
    Ok(FeatureWish {
        hook: hook(&name, "track.hook")?,
        track: Some(feature),
    })
}

/// Reads `Intervention[]`.
pub fn interventions(value: &JsValue) -> Result<Vec<Intervention>, WebError> {
    let list = options::list(value, "interventions", INTERVENTIONS)?;
    let read = |(i, one): (usize, &JsValue)| intervention(one, &format!("interventions[{i}]"));
    list.iter().enumerate().map(read).collect()
}

/// Reads a `Gate`.
pub fn gate(value: &JsValue) -> Result<Gate, WebError> {
    let known = ["hook", "feature", "weights", "bias", "threshold"];
    let options = Options::new(value, "gate", &known)?;
    let name = options.text("hook")?;
    let name = name.ok_or_else(|| options.missing("hook", "a hook point, as \"layers.3\""))?;
    let number = |name: &str| options.number(name, -LARGEST..=LARGEST);
    let threshold = number("threshold")?;
    let threshold = threshold.ok_or_else(|| options.missing("threshold", "a number"))?;
    let weights = options.value("weights");
    let weights = weights.map(|w| options::numbers(&w, &options.path_of("weights"), WIDEST));
    let feature = options.whole("feature", 0..=u32::MAX)?;
    let bias = number("bias")?.map(|b| b as f32);
    let kind = GateKind::of(feature, weights.transpose()?, bias);
    Ok(Gate {
        hook: hook(&name, &options.path_of("hook"))?,
        kind: kind.map_err(WebError::of_gate)?,
        threshold: threshold as f32,
    })
}

fn intervention(value: &JsValue, path: &str) -> Result<Intervention, WebError> {
    let known = [
        "hook",
        "feature",
        "direction",
        "op",
        "value",
        "positions",
        "includeBos",
        "onlyIfActive",
    ];
    let options = Options::new(value, path, &known)?;
    let name = options.text("hook")?;
    let name = name.ok_or_else(|| options.missing("hook", "a hook point, as \"layers.3\""))?;
    let operators = Operator::ALL.map(|op| (op.name(), op));
    let op = options.choice("op", &operators)?;
    let op = op.ok_or_else(|| options.missing("op", "an operator, as \"clamp\""))?;
    let feature = options.whole("feature", 0..=u32::MAX)?;
    let target = Target::of(op, feature, options.text("direction")?);
    let target = target.map_err(|e| match &e {
        SteeringError::NoTarget { .. } => options.missing(
            "feature",
            "a feature's number (or direction, the name of one)",
        ),
        _ => WebError::from(e).at(options.path_of("direction")),
    })?;
    let positions = Positions::ALL.map(|positions| (positions.name(), positions));
    let value = options.number("value", -LARGEST..=LARGEST)?;
    Ok(Intervention {
        hook: hook(&name, &options.path_of("hook"))?,
        target,
        op,
        value: value.map(|v| v as f32),
        positions: options.choice("positions", &positions)?.unwrap_or_default(),
        include_bos: options.flag("includeBos")?.unwrap_or(false),
        only_if_active: options.flag("onlyIfActive")?.unwrap_or(false),
    })
}
