//! Measuring: what steering buys, what it costs, and what else would do the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::arms::{Control, Plan, Series, Target};
use super::bench::{Bench, Entry, Live, Reply, Setting};
use super::gate::GateSpec;
use super::random::Random;
use super::verdicts::{Group, Measured, Talk, Verdict, count, figures, groups_json, verdict};
use super::{Arm, Judge, JudgeRules, Kind, LabError, Recipe, Row, Run, Scope, Sets, Stage, Task};
use super::{operating_range, paper};
use crate::generate::Chat;
use crate::sae::HookPoint;
use crate::steering::{Operator, Positions, SteeringError};
use crate::tokens::ChatTokenizer;

/// Tokens of a reply at most that may be asked for.
const MOST_TOKENS: usize = 1024;
/// Random features and directions, where the recipe does not say.
const REPEATS: usize = 2;
/// Strengths, ways of steering and the like at most.
const MOST: usize = 64;
/// Below this a paired difference is taken for one.
const SIGNIFICANT: f64 = 0.05;

/// The fields of the tasks "measure" and "sweep".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeasureOptions {
    /// What is steered; controls are about the first.
    pub steer: Vec<Target>,
    /// The strengths, in units of each feature's `max`.
    pub values: Vec<f32>,
    /// Strengths below 0, of the clamp.
    #[serde(default)]
    pub negatives: Vec<f32>,
    /// The operators.
    #[serde(default = "clamp")]
    pub operators: Vec<Operator>,
    /// The tokens that are steered.
    #[serde(default = "everywhere")]
    pub positions: Vec<Positions>,
    /// Whether only where the feature is active: no, yes, or both.
    #[serde(default = "no")]
    pub only_if_active: Vec<bool>,
    /// Which prompts are steered, as `find` fitted it. With a gate each way of steering is measured with
    /// and without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
    /// The controls; all for "measure", none for "sweep" if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Vec<Control>>,
    /// The strength at which controls are measured; the last of `values` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<f32>,
    /// Random features, and as many random directions.
    #[serde(default = "repeats")]
    pub repeats: usize,
    /// Tokens of a reply at most; what the prompts' file says if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Other such numbers, at which replies are judged too.
    #[serde(default)]
    pub caps: Vec<usize>,
    /// What says which replies are refusals; the prompts' file's judge if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeRules>,
}

fn clamp() -> Vec<Operator> {
    vec![Operator::Clamp]
}

fn everywhere() -> Vec<Positions> {
    vec![Positions::All]
}

fn no() -> Vec<bool> {
    vec![false]
}

fn repeats() -> usize {
    REPEATS
}

impl MeasureOptions {
    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), LabError> {
        let fail = |reason: String| Err(LabError::Recipe(reason));
        let lists = [
            ("steer", self.steer.len()),
            ("values", self.values.len()),
            ("operators", self.operators.len()),
            ("positions", self.positions.len()),
            ("onlyIfActive", self.only_if_active.len()),
        ];
        for (name, length) in lists {
            if length == 0 || length > MOST {
                return fail(format!("{name}: 1 to {MOST} are needed"));
            }
        }
        if self.negatives.len() > MOST || self.repeats > MOST || self.caps.len() > MOST {
            return fail(format!("negatives, repeats, caps: at most {MOST}"));
        }
        for (i, target) in self.steer.iter().enumerate() {
            let direction = target.direction.as_ref();
            if direction.is_some_and(|d| d.0.is_empty() || d.0.iter().any(|v| !v.is_finite())) {
                return fail(format!(
                    "steer[{i}]: the direction's numbers must be finite"
                ));
            }
            let features = target.features.len();
            if features > MOST || (features == 0) != direction.is_some() {
                return fail(format!(
                    "steer[{i}]: 1 to {MOST} features are needed, or a direction in their place"
                ));
            }
            let bad = |max: f32| !(max.is_finite() && max > 0.0);
            if let Some(bad) = target.features.iter().find(|f| bad(f.max)) {
                return fail(format!("steer[{i}]: a max of {} is not above 0", bad.max));
            }
            let same = |other: &Target| other.label() == target.label();
            if self.steer[..i].iter().any(same) {
                return fail(format!("steer[{i}]: \"{}\" is there twice", target.label()));
            }
        }
        let values = self.values.iter().chain(&self.negatives).chain(&self.at);
        if let Some(value) = values.into_iter().find(|v| !v.is_finite()) {
            return fail(format!("a strength of {value}: finite ones are needed"));
        }
        if let Some(value) = self.negatives.iter().find(|v| **v >= 0.0) {
            return fail(format!("negatives: {value} is not below 0"));
        }
        if let Some(op) = self.operators.iter().find(|op| !op.takes_value()) {
            return fail(format!("operators: {op} has no strength"));
        }
        let good = 1..=MOST_TOKENS;
        if self.tokens.is_some_and(|n| !good.contains(&n)) {
            return fail(format!("tokens: 1 to {MOST_TOKENS} are possible"));
        }
        if let Some(cap) = self.caps.iter().find(|n| !good.contains(n)) {
            return fail(format!("caps: {cap} is not from 1 to {MOST_TOKENS}"));
        }
        if let Some(gate) = &self.gate {
            gate.check()?;
        }
        let empty = |j: &JudgeRules| j.phrases.iter().all(|p| p.trim().is_empty());
        if self.judge.as_ref().is_some_and(empty) {
            return fail("judge: it has no phrases".into());
        }
        Ok(())
    }
}

/// The hook point of a recipe: its own, or the only one that has a dictionary.
pub(super) fn hook_of(chat: &Chat, recipe: &Recipe) -> Result<HookPoint, LabError> {
    let steering = chat.steering();
    let points = steering.points();
    match (recipe.hook, &points[..]) {
        (Some(hook), _) if points.contains(&hook) => Ok(hook),
        (None, &[hook]) => Ok(hook),
        (Some(hook), _) => Err(LabError::Recipe(format!(
            "hook: {hook} has none; {}",
            steering.loaded()
        ))),
        (None, _) => Err(LabError::Recipe(format!(
            "hook: it is not said, and {}",
            steering.loaded()
        ))),
    }
}

/// The split of a recipe: its own, `wish` if there is one, or the only one.
pub(super) fn split_of(recipe: &Recipe, sets: &Sets, wish: &str) -> String {
    if let Some(split) = &recipe.sets.split {
        return split.clone();
    }
    let all: Vec<&str> = sets.file.splits().collect();
    let found = all.iter().find(|name| **name == wish);
    found.or(all.first()).map_or(wish, |name| *name).into()
}

/// An arm with what was measured.
struct Done {
    arm: Arm,
    measured: Measured,
    verdicts: Vec<Option<Verdict>>,
    groups: BTreeMap<String, (bool, Group)>,
    row: Row,
}

/// Measures; the result is that of `run_recipe`, less what is the same for all tasks.
pub(super) async fn measure(
    chat: &mut Chat,
    recipe: &Recipe,
    options: &MeasureOptions,
    sets: &Sets,
    run: &mut Run<'_>,
) -> Result<Value, LabError> {
    let hook = hook_of(chat, recipe)?;
    let split = split_of(recipe, sets, "test");
    let cap = options.tokens.unwrap_or(sets.file.max_new_tokens());
    let longest = options.caps.iter().copied().fold(cap, usize::max);
    let judge = match &options.judge {
        Some(own) => Judge::new(&own.phrases, own.prefix),
        None => sets.file.judge()?,
    };
    let mut bench = Bench::new(chat, &sets.file, &recipe.sets, &split, longest)?;

    let sweeps = matches!(recipe.task, Task::Sweep(_));
    let mut plan = Plan {
        hook,
        targets: options.steer.clone(),
        operators: options.operators.clone(),
        positions: options.positions.clone(),
        gated: match options.gate {
            Some(_) => vec![false, true],
            None => vec![false],
        },
        only_if_active: options.only_if_active.clone(),
        values: options.values.clone(),
        negatives: options.negatives.clone(),
        at: options.at.or(options.values.last().copied()).unwrap_or(1.0),
        controls: options.controls.clone().unwrap_or(match sweeps {
            true => Vec::new(),
            false => Control::ALL.to_vec(),
        }),
        others: Vec::new(),
        unrelated: None,
        directions: Vec::new(),
        means: None,
        scope: match sweeps {
            true => Scope::Answers,
            false => Scope::All,
        },
    };
    let steered = read_prompts(&mut bench, &mut plan, recipe, options, sets, run).await?;
    let arms = plan.arms();
    run.begin(Stage::Measure, steps(&bench, &arms));
    let mut all: Vec<(Arm, Measured)> = Vec::with_capacity(arms.len());
    for arm in arms {
        let measured = if arm.gated {
            // What a gate lets through is steered as ever, what it holds back is the base, to the bit.
            let same = |other: &&(Arm, Measured)| {
                !other.0.gated
                    && other.0.series.is_some()
                    && other.0.interventions == arm.interventions
            };
            let open = all.iter().find(same).map(|(_, measured)| measured);
            let (open, base) = match (open, all.first()) {
                (Some(open), Some((_, base))) => (open, base),
                _ => return Err(LabError::Recipe("a gate needs the arm without it".into())),
            };
            open.gated(base, &steered)
        } else {
            let base = all.first().map(|(_, measured)| measured);
            measure_arm(&mut bench, run, &arm, base).await?
        };
        all.push((arm, measured));
    }

    let base = all.first().map(|(_, base)| base);
    let ceiling = base.and_then(Measured::worst_reference);
    let talk = Talk {
        ends: ceiling.is_some(),
        ceiling: ceiling
            .or(base.and_then(Measured::worst_talk))
            .unwrap_or(f64::INFINITY),
    };
    let judging = Judging {
        judge: &judge,
        talk,
        tokenizer: bench.chat().tokenizer().clone(),
    };
    let mut done: Vec<Done> = Vec::with_capacity(all.len());
    for (arm, measured) in all {
        let verdicts = judging.of(&bench, &measured, cap);
        let base = done.first().map_or(&verdicts, |base| &base.verdicts);
        let groups = count(&bench, &verdicts, base);
        let row = Row {
            figures: figures(&bench, &measured, &verdicts),
            arm: arm.clone(),
        };
        done.push(Done {
            arm,
            measured,
            verdicts,
            groups,
            row,
        });
    }
    let caps = Caps::new(&bench, &judging, &done, &options.caps, cap);
    let series = plan.series();
    let arms: Vec<Value> = done
        .iter()
        .enumerate()
        .map(|(i, done)| arm_json(&bench, done, caps.of(i)))
        .collect();
    let prompts: BTreeMap<&str, usize> = bench
        .sets
        .iter()
        .enumerate()
        .map(|(i, set)| {
            (
                &set.name[..],
                bench.entries.iter().filter(|e| e.set == i).count(),
            )
        })
        .collect();
    Ok(json!({
        "sets": {"name": sets.name, "split": split, "sha256": sets.digest, "prompts": prompts},
        "decoding": {"sampling": "greedy", "tokens": cap, "chatTemplate": true},
        "hook": hook,
        "at": plan.at,
        "items": items_json(&bench),
        "series": series,
        "arms": arms,
        "range": range_json(&done, &series),
        "pareto": pareto(&done),
        "paper": paper(),
        "tokenCaps": caps.json(),
    }))
}

/// Draws the random features and finds what the gate says, which needs the prompts read once.
async fn read_prompts(
    bench: &mut Bench<'_>,
    plan: &mut Plan,
    recipe: &Recipe,
    options: &MeasureOptions,
    sets: &Sets,
    run: &mut Run<'_>,
) -> Result<Vec<bool>, LabError> {
    let steering = bench.chat().steering().clone();
    for target in &plan.targets {
        if let Some(direction) = &target.direction {
            steering.add_direction(plan.hook, &target.key(), direction.0.clone())?;
        }
    }
    let wants = |control| plan.controls.contains(&control);
    let (random, unrelated) = (
        wants(Control::RandomFeatures),
        wants(Control::UnrelatedFeature),
    );
    let live = match random || unrelated {
        true => bench.live_batches().len(),
        false => 0,
    };
    let gate = options.gate.as_ref();
    let other = match wants(Control::DifferenceOfMeans) {
        true => bench.contrast(&sets.file)?,
        false => Vec::new(),
    };
    let total = live + other.len() + gate.map_or(0, |_| bench.asked_batches().len());
    let length = norm(bench, plan).await?;
    if wants(Control::RandomDirections) {
        let mut random = Random::new(recipe.seed);
        let width = bench.chat().model().config().hidden_size;
        for i in 0..options.repeats {
            let name = format!("lab-random-{}", i + 1);
            steering.add_direction(plan.hook, &name, random.direction(width, length))?;
            plan.directions.push(name);
        }
    }
    if total > 0 {
        run.begin(Stage::Reading, total);
    }
    if live > 0 {
        let mut live = bench.live(run, plan.hook).await?;
        for target in &plan.targets {
            for one in &target.features {
                live.remove(&one.feature);
            }
        }
        if random {
            let all: Vec<u32> = live.keys().copied().collect();
            plan.others = Random::new(recipe.seed).pick(&all, options.repeats);
        }
        if unrelated {
            plan.unrelated = unrelated_of(&live);
        }
    }
    if !other.is_empty()
        && let Some(difference) = bench.means(run, plan.hook, &other).await?
    {
        let own: f64 = difference.iter().map(|v| v * v).sum::<f64>().sqrt();
        let scaled = difference.iter().map(|v| (v * length / own) as f32);
        let name = "lab-difference-of-means";
        steering.add_direction(plan.hook, name, scaled.collect())?;
        plan.means = Some(name.into());
    }
    let mut steered = vec![false; bench.entries.len()];
    if let Some(gate) = gate {
        for batch in bench.asked_batches() {
            let scores = bench.gate(run, gate, &batch).await?;
            for (&i, score) in batch.iter().zip(scores) {
                steered[i] = score >= gate.threshold;
            }
        }
    }
    Ok(steered)
}

/// The length of what a strength of 1 adds of the first target.
async fn norm(bench: &Bench<'_>, plan: &Plan) -> Result<f64, LabError> {
    let Some(target) = plan.targets.first() else {
        return Ok(1.0);
    };
    let sum: Vec<f64> = match &target.direction {
        Some(direction) => direction.0.iter().map(|v| f64::from(*v)).collect(),
        None => {
            let chat = bench.chat();
            let mut sum = vec![0.0; chat.model().config().hidden_size];
            for one in &target.features {
                let hook = chat.steering().hook(plan.hook);
                let hook = hook.ok_or_else(|| SteeringError::UnknownHook {
                    hook: plan.hook,
                    loaded: chat.steering().loaded(),
                })?;
                let row = hook
                    .dictionary()
                    .decoder_row(chat.model().gpu(), one.feature);
                for (sum, v) in sum.iter_mut().zip(row.await?) {
                    *sum += f64::from(v) * f64::from(one.max);
                }
            }
            sum
        }
    };
    Ok(sum.iter().map(|v| v * v).sum::<f64>().sqrt())
}

/// Of the features that are active on at least half as many prompts as the commonest, the one whose
/// frequencies on harmful and harmless prompts differ least.
fn unrelated_of(live: &BTreeMap<u32, Live>) -> Option<u32> {
    let total = |l: &Live| l.harmful + l.harmless;
    let most = live.values().map(total).max()?;
    let common = live.iter().filter(|(_, l)| 2 * total(l) >= most);
    let difference = |l: &Live| {
        // Frequencies over the sums of all features, which are the same for all.
        l.harmful.abs_diff(l.harmless)
    };
    common
        .min_by_key(|(feature, l)| (difference(l), **feature))
        .map(|(&feature, _)| feature)
}

/// Steps of all arms.
fn steps(bench: &Bench<'_>, arms: &[Arm]) -> usize {
    let of = |arm: &Arm| {
        let replies = bench.reply_batches(arm.scope).len();
        let rest = match arm.scope {
            Scope::All => {
                let kl = match arm.interventions.is_empty() && arm.system.is_none() {
                    true => 0,
                    false => bench.kl_batches().len(),
                };
                bench.batches_of(Kind::Perplexity).len()
                    + bench.batches_of(Kind::Smalltalk).len()
                    + kl
            }
            _ => 0,
        };
        replies + rest
    };
    arms.iter().filter(|arm| !arm.gated).map(of).sum()
}

/// Everything of an arm on the sets of its scope.
async fn measure_arm(
    bench: &mut Bench<'_>,
    run: &mut Run<'_>,
    arm: &Arm,
    base: Option<&Measured>,
) -> Result<Measured, LabError> {
    let setting = Setting {
        interventions: arm.interventions.clone(),
        system: arm.system,
    };
    let mut measured = Measured::none(bench.entries.len());
    for job in bench.reply_batches(arm.scope) {
        let replies = bench.reply(run, &setting, &job).await?;
        for (&i, reply) in job.1.iter().zip(replies) {
            measured.replies[i] = Some(reply);
        }
    }
    if arm.scope != Scope::All {
        return Ok(measured);
    }
    for batch in bench.batches_of(Kind::Perplexity) {
        let losses = bench.references(run, &setting, &batch).await?;
        for (&i, loss) in batch.iter().zip(losses) {
            measured.losses[i] = Some(loss);
        }
    }
    let missing = || LabError::Journal("a reply is missing: begin a new journal".into());
    fn said<'a>(of: &'a Measured, batch: &[usize]) -> Option<Vec<&'a Reply>> {
        batch.iter().map(|&i| of.replies[i].as_ref()).collect()
    }
    for batch in bench.batches_of(Kind::Smalltalk) {
        let replies = said(&measured, &batch).ok_or_else(missing)?;
        let losses = bench.unlikeliness(run, &setting, &batch, &replies).await?;
        for (&i, loss) in batch.iter().zip(losses) {
            measured.unlikely[i] = Some(loss);
        }
    }
    if let Some(base) = base {
        for batch in bench.kl_batches() {
            let replies = said(base, &batch).ok_or_else(missing)?;
            let losses = bench.kl(run, &setting, &batch, &replies).await?;
            for (&i, loss) in batch.iter().zip(losses) {
                measured.kl[i] = Some(loss);
            }
        }
    }
    Ok(measured)
}

/// What replies are judged by.
struct Judging<'a> {
    judge: &'a Judge,
    talk: Talk,
    tokenizer: std::rc::Rc<ChatTokenizer>,
}

impl Judging<'_> {
    /// The verdicts on replies of `cap` tokens at most.
    fn of(&self, bench: &Bench<'_>, measured: &Measured, cap: usize) -> Vec<Option<Verdict>> {
        let one = |(i, entry): (usize, &Entry)| {
            let reply = measured.replies[i].as_ref()?;
            let whole = entry.kind == Kind::Smalltalk || reply.tokens.len() <= cap;
            let cut = (!whole).then(|| self.tokenizer.decode(&reply.tokens[..cap]));
            let text = cut.as_deref().unwrap_or(&reply.text);
            Some(verdict(
                entry,
                reply,
                text,
                self.judge,
                self.talk,
                measured.unlikely[i],
            ))
        };
        bench.entries.iter().enumerate().map(one).collect()
    }
}

/// The groups of every arm at several numbers of tokens.
struct Caps {
    /// The numbers, ascending.
    caps: Vec<usize>,
    /// By arm, by number.
    groups: Vec<Vec<BTreeMap<String, (bool, Group)>>>,
}

impl Caps {
    fn new(
        bench: &Bench<'_>,
        judging: &Judging<'_>,
        done: &[Done],
        others: &[usize],
        cap: usize,
    ) -> Self {
        let mut caps: Vec<usize> = others.iter().copied().chain([cap]).collect();
        caps.sort_unstable();
        caps.dedup();
        if others.is_empty() {
            caps.clear();
        }
        let at = |measured: &Measured| -> Vec<_> {
            let each = caps.iter().map(|&cap| judging.of(bench, measured, cap));
            each.collect()
        };
        let base = done
            .first()
            .map(|base| at(&base.measured))
            .unwrap_or_default();
        let groups = done.iter().map(|one| {
            let own = at(&one.measured);
            let pairs = own.iter().zip(&base);
            pairs.map(|(own, base)| count(bench, own, base)).collect()
        });
        Self {
            groups: groups.collect(),
            caps,
        }
    }

    /// Each cap's groups of an arm, and the groups whose result turns between caps.
    fn of(&self, arm: usize) -> (Value, Vec<String>) {
        let groups = self.groups.get(arm).map_or(&[][..], |g| &g[..]);
        let each: Vec<Value> = self
            .caps
            .iter()
            .zip(groups)
            .map(|(cap, groups)| json!({"tokens": cap, "groups": groups_json(groups)}))
            .collect();
        let names = groups.first().into_iter().flat_map(|g| g.keys());
        let turned = names.filter(|name| {
            let sides = groups
                .iter()
                .filter_map(|g| g.get(*name))
                .map(|(_, g)| side(g));
            let sides: std::collections::BTreeSet<i8> = sides.collect();
            sides.len() > 1
        });
        (json!(each), turned.cloned().collect())
    }

    fn json(&self) -> Value {
        json!(self.caps)
    }
}

/// More than the base, fewer, or neither for all that is known.
fn side(group: &Group) -> i8 {
    match group.p() < SIGNIFICANT {
        false => 0,
        true if group.gained > group.lost => 1,
        true => -1,
    }
}

fn items_json(bench: &Bench<'_>) -> Vec<Value> {
    let each = bench.entries.iter().map(|entry| {
        let mut out = json!({
            "id": entry.id,
            "set": bench.sets[entry.set].name,
            "kind": entry.kind,
            "text": entry.item.messages.last().map(|m| &m.content),
        });
        let fields = [
            ("category", &entry.item.category),
            ("template", &entry.item.template),
            ("type", &entry.item.likeness),
            ("answer", &entry.item.answer),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                out[name] = json!(value);
            }
        }
        out
    });
    each.collect()
}

fn arm_json(bench: &Bench<'_>, done: &Done, (caps, turns): (Value, Vec<String>)) -> Value {
    let Done {
        arm,
        measured,
        verdicts,
        groups,
        row,
    } = done;
    let mut out = row.json();
    out["scope"] = json!(arm.scope);
    out["interventions"] = json!(arm.interventions);
    if let Some(control) = arm.control {
        out["control"] = json!({"name": control, "words": control.words()});
    }
    if let Some(series) = arm.series {
        out["series"] = json!(series);
    }
    if let Some(system) = arm.system {
        out["system"] = json!(system);
    }
    out["gated"] = json!(arm.gated);
    out["groups"] = groups_json(groups);
    if caps.as_array().is_some_and(|c| !c.is_empty()) {
        out["caps"] = caps;
        out["turnsWithCap"] = json!(turns);
    }
    let mut outcomes = Vec::new();
    for (i, entry) in bench.entries.iter().enumerate() {
        let (Some(reply), Some(verdict)) = (&measured.replies[i], &verdicts[i]) else {
            continue;
        };
        let mut one = json!({"item": i});
        if entry.kind == Kind::Choice {
            one["text"] = json!(reply.letters.as_deref().and_then(super::verdicts::letter));
        } else {
            one["text"] = json!(reply.text);
            one["tokens"] = json!(reply.tokens.len());
            one["stopped"] = json!(reply.stopped);
        }
        if let Some(phrase) = &verdict.refused {
            one["refused"] = json!(phrase);
        }
        if verdict.incoherent {
            one["incoherent"] = json!(true);
        }
        if let Some(odds) = reply.odds {
            one["odds"] = json!((odds * 1000.0).round() / 1000.0);
        }
        for (name, value) in [("right", verdict.right), ("coherent", verdict.coherent)] {
            if let Some(value) = value {
                one[name] = json!(value);
            }
        }
        outcomes.push(one);
    }
    out["outcomes"] = json!(outcomes);
    out
}

/// The useful range of each curve.
fn range_json(done: &[Done], series: &[Series]) -> Value {
    let Some(base) = done.first() else {
        return Value::Null;
    };
    let each = (0..series.len()).map(|index| {
        let curve: Vec<_> = done
            .iter()
            .filter(|d| d.arm.series == Some(index) && d.arm.value.is_some_and(|v| v >= 0.0))
            .filter_map(|d| Some((d.arm.value?, &d.row.figures)))
            .collect();
        match operating_range(&base.row.figures, &curve) {
            Some(range) => json!({"low": range.low, "high": range.high, "best": range.best}),
            None => Value::Null,
        }
    });
    each.collect()
}

/// The points that no other one beats: as many jailbreaks refused for as few harmless requests refused and
/// as many right answers.
fn pareto(done: &[Done]) -> Vec<usize> {
    let percent = |d: &Done, name: &str| {
        let share = d.groups.get(name).map(|(_, g)| g.share);
        share.filter(|s| s.of > 0).map(|s| s.percent())
    };
    let points: Vec<(usize, [f64; 3])> = done
        .iter()
        .enumerate()
        .filter(|(_, d)| d.arm.scope != Scope::Refusals)
        .filter_map(|(i, d)| {
            let bought = percent(d, "jailbreaks").or(percent(d, "direct requests"))?;
            let refused = percent(d, "harmless requests").unwrap_or(0.0);
            let right = percent(d, "all answers").unwrap_or(0.0);
            Some((i, [bought, -refused, right]))
        })
        .collect();
    let beats = |a: &[f64; 3], b: &[f64; 3]| {
        let pairs = || a.iter().zip(b);
        pairs().all(|(a, b)| a >= b) && pairs().any(|(a, b)| a > b)
    };
    points
        .iter()
        .filter(|(_, own)| !points.iter().any(|(_, other)| beats(other, own)))
        .map(|(i, _)| *i)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unrelated_feature_is_common_and_tells_nothing() {
        let live = |harmful, harmless| Live { harmful, harmless };
        let all = [
            (1, live(30, 30)),
            (2, live(40, 10)),
            (3, live(25, 24)),
            (4, live(2, 2)),
            (5, live(30, 30)),
        ];
        assert_eq!(unrelated_of(&all.into()), Some(1));
        assert_eq!(unrelated_of(&BTreeMap::new()), None);
    }
}
