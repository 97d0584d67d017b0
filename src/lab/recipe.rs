//! What the lab is asked to do, as JSON: the same for page and command.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::find::{CardOptions, FindOptions, GateOptions, Source, card, find, gate};
use super::measure::{MeasureOptions, hook_of, measure};
use super::{LabError, Run, Sets};
use crate::generate::Chat;
use crate::sae::HookPoint;

/// The schema of recipes.
pub const RECIPE: &str = "phi3-steer.recipe/1";
/// The schema of results.
pub const RESULT: &str = "phi3-steer.result/1";
/// The seed where none is given.
const SEED: u64 = 1;

/// Which prompts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetsWish {
    /// What they are called: "nano", "real" or "own".
    pub name: String,
    /// Which of their splits; the task's own choice if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Prompts of a set at most, evenly spread over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The sets that are used; all if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
}

/// A task with its own fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// The features that make the model refuse.
    Find(FindOptions),
    /// What is known of a feature.
    Card(CardOptions),
    /// What tells harmful prompts from harmless ones.
    Gate(GateOptions),
    /// Steering at several strengths, and its controls, on all sets.
    Measure(MeasureOptions),
    /// Many ways of steering, on the sets that tell refusals and facts.
    Sweep(MeasureOptions),
}

/// What the lab is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Where; the only dictionary's hook point if not given.
    pub hook: Option<HookPoint>,
    /// On which prompts.
    pub sets: SetsWish,
    /// Of all draws.
    pub seed: u64,
    /// What.
    pub task: Task,
}

impl Task {
    /// Its name in recipes and results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Find(_) => "find",
            Self::Card(_) => "card",
            Self::Gate(_) => "gate",
            Self::Measure(_) => "measure",
            Self::Sweep(_) => "sweep",
        }
    }
}

fn fail<T>(reason: impl Into<String>) -> Result<T, LabError> {
    Err(LabError::Recipe(reason.into()))
}

/// A member of a recipe.
fn member<T: for<'a> Deserialize<'a>>(
    all: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<T>, LabError> {
    match all.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match serde_json::from_value(value) {
            Ok(value) => Ok(Some(value)),
            Err(e) => fail(format!("{name}: {e}")),
        },
    }
}

impl Recipe {
    /// Reads a recipe. A member that is not known is an error that names it.
    pub fn read(value: &Value) -> Result<Self, LabError> {
        let Value::Object(all) = value else {
            return fail("it must be an object");
        };
        let mut all = all.clone();
        let schema: Option<String> = member(&mut all, "schema")?;
        if schema.as_deref() != Some(RECIPE) {
            return fail(format!("its \"schema\" must be \"{RECIPE}\""));
        }
        let Some(task) = member::<String>(&mut all, "task")? else {
            return fail("it has no \"task\"");
        };
        let hook: Option<String> = member(&mut all, "hook")?;
        let hook = match hook.map(|h| h.parse::<HookPoint>()) {
            None => None,
            Some(Ok(hook)) => Some(hook),
            Some(Err(e)) => return fail(format!("hook: {e}")),
        };
        let sets = member(&mut all, "sets")?;
        let seed = member(&mut all, "seed")?.unwrap_or(SEED);
        let own = Value::Object(all);
        let words = |e: serde_json::Error| LabError::Recipe(format!("of task \"{task}\": {e}"));
        let task = match &task[..] {
            "find" => Task::Find(serde_json::from_value(own).map_err(words)?),
            "card" => Task::Card(serde_json::from_value(own).map_err(words)?),
            "gate" => Task::Gate(serde_json::from_value(own).map_err(words)?),
            "measure" => Task::Measure(serde_json::from_value(own).map_err(words)?),
            "sweep" => Task::Sweep(serde_json::from_value(own).map_err(words)?),
            _ => {
                return fail(format!(
                    "task \"{task}\" is not known; find, card, gate, measure and sweep are"
                ));
            }
        };
        match &task {
            Task::Find(options) => options.check()?,
            Task::Card(options) => options.check()?,
            Task::Gate(options) => options.check()?,
            Task::Measure(options) | Task::Sweep(options) => options.check()?,
        }
        Ok(Self {
            hook,
            sets: sets.unwrap_or_else(|| SetsWish {
                name: "own".into(),
                ..SetsWish::default()
            }),
            seed,
            task,
        })
    }

    /// The recipe as JSON, with what it left out.
    pub fn json(&self) -> Result<Value, LabError> {
        let own = match &self.task {
            Task::Find(options) => serde_json::to_value(options),
            Task::Card(options) => serde_json::to_value(options),
            Task::Gate(options) => serde_json::to_value(options),
            Task::Measure(options) | Task::Sweep(options) => serde_json::to_value(options),
        };
        let mut all = own.map_err(|e| LabError::Recipe(e.to_string()))?;
        all["schema"] = json!(RECIPE);
        all["task"] = json!(self.task.name());
        all["sets"] = json!(self.sets);
        all["seed"] = json!(self.seed);
        if let Some(hook) = self.hook {
            all["hook"] = json!(hook);
        }
        Ok(all)
    }
}

/// What a run's results depend on, in full: what a [`Journal`](super::Journal) is of. `model` is what the
/// model is called.
pub fn identity(
    chat: &Chat,
    model: &str,
    recipe: &Recipe,
    sets: &Sets,
) -> Result<String, LabError> {
    let about = json!({
        "recipe": recipe.json()?,
        "sets": sets.digest,
        "model": model_json(chat, model),
        "dictionaries": dictionaries_json(chat),
        "lanes": chat.model().lanes(),
    });
    Ok(about.to_string())
}

fn model_json(chat: &Chat, name: &str) -> Value {
    let (model, config) = (chat.model(), chat.model().config());
    let formats: Vec<&str> = model.formats().iter().map(|f| f.name()).collect();
    json!({
        "name": name,
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "vocab": config.vocab_size,
        "parameters": config.parameters(),
        "quant": formats,
        "adapter": model.gpu().capabilities().name,
        "backend": model.gpu().capabilities().backend,
    })
}

fn dictionaries_json(chat: &Chat) -> Vec<Value> {
    let steering = chat.steering();
    let hooks = steering.points().into_iter();
    hooks
        .filter_map(|point| {
            let dictionary = steering.hook(point)?.dictionary();
            Some(json!({
                "hook": point,
                "label": dictionary.label(),
                "kind": dictionary.kind(),
                "features": dictionary.latents(),
                "k": dictionary.k(),
                "activations": dictionary.rule().activations.name(),
                "stored": dictionary.format().name(),
            }))
        })
        .collect()
}

/// Follows `recipe` on `chat`, a fork that nobody else uses, with the prompts `sets`. `model` is what the
/// model is called. The lanes are left unsteered.
///
/// # Errors
/// [`LabError::Cancelled`] when the run was cancelled: its journal takes it up again.
pub async fn run_recipe(
    chat: &mut Chat,
    model: &str,
    recipe: &Recipe,
    sets: &Sets,
    run: &mut Run<'_>,
) -> Result<Value, LabError> {
    let from = Source {
        file: &sets.file,
        split: recipe.sets.split.as_deref(),
        limit: recipe.sets.limit,
    };
    let mut result = match &recipe.task {
        Task::Find(options) => {
            let hook = hook_of(chat, recipe)?;
            find(chat, hook, &from, options, recipe.seed, run).await?
        }
        Task::Card(options) => {
            let hook = hook_of(chat, recipe)?;
            card(chat, hook, &from, options, run).await?
        }
        Task::Gate(options) => {
            let hook = hook_of(chat, recipe)?;
            gate(chat, hook, &from, options, recipe.seed, run).await?
        }
        Task::Measure(options) | Task::Sweep(options) => {
            measure(chat, recipe, options, sets, run).await?
        }
    };
    for lane in 0..chat.model().lanes() {
        chat.steering().set(lane, &[])?;
    }
    result["schema"] = json!(RESULT);
    result["task"] = json!(recipe.task.name());
    result["recipe"] = recipe.json()?;
    result["model"] = model_json(chat, model);
    result["dictionary"] = json!(dictionaries_json(chat).first());
    result["lanes"] = json!(chat.model().lanes());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Value {
        json!({
            "schema": RECIPE, "task": "measure", "hook": "layers.3",
            "sets": {"name": "nano", "split": "test", "limit": 4}, "seed": 7,
            "steer": [{"features": [{"feature": 329}]}], "values": [2.0, 4.0],
        })
    }

    #[test]
    fn a_recipe_is_read_and_written_alike() {
        let read = Recipe::read(&recipe()).unwrap();
        assert_eq!(read.hook, Some(HookPoint::block(3)));
        assert_eq!((read.seed, read.task.name()), (7, "measure"));
        let written = read.json().unwrap();
        assert_eq!(written["values"], json!([2.0, 4.0]));
        assert_eq!(written["steer"][0]["features"][0]["max"], 1.0);
        assert_eq!(Recipe::read(&written).unwrap(), read);
        let mut sweep = recipe();
        sweep["task"] = json!("sweep");
        sweep["sets"] = Value::Null;
        sweep["hook"] = Value::Null;
        let sweep = Recipe::read(&sweep).unwrap();
        assert!(matches!(sweep.task, Task::Sweep(_)) && sweep.hook.is_none());
        assert_eq!(sweep.sets.name, "own");
    }

    #[test]
    fn mistakes_are_named() {
        for (name, value, words) in [
            ("schema", json!("phi3-steer.recipe/2"), "\"schema\" must be"),
            ("task", json!("guess"), "\"guess\" is not known"),
            ("task", Value::Null, "no \"task\""),
            ("hook", json!("block three"), "hook: "),
            ("seed", json!(-1), "seed: "),
            ("value", json!(4), "unknown field `value`"),
            (
                "sets",
                json!({"name": "nano", "size": 3}),
                "unknown field `size`",
            ),
            ("values", json!([]), "values"),
            ("values", json!([4.0, null]), "of task \"measure\""),
            ("steer", json!([]), "steer"),
            ("steer", json!([{"features": []}]), "steer"),
            (
                "steer",
                json!([{"features": [{"feature": 1, "max": 0.0}]}]),
                "max",
            ),
            ("operators", json!(["reconstruct"]), "reconstruct"),
            ("operators", json!(["explode"]), "explode"),
            ("controls", json!(["magic"]), "magic"),
            ("tokens", json!(0), "tokens"),
            ("caps", json!([14, 100_000]), "caps"),
        ] {
            let mut json = recipe();
            json[name] = value;
            let message = Recipe::read(&json).unwrap_err().to_string();
            assert!(message.contains(words), "{name}: {message}");
        }
        assert!(Recipe::read(&json!([])).is_err());
    }
}
