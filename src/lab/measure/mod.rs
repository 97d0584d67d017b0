//! Measuring: what steering buys, what it costs, and what else would do the same.

mod options;
mod told;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::arms::Plan;
use super::bench::{Bench, Live, Reply, Setting, Trials, difference, null_space};
use super::control::{Control, DRAWN};
use super::paper;
use super::verdicts::{Measured, Talk, count, figures};
use super::{Arm, EvalFile, Judge, Kind, LabError, Recipe, Row, Run, Scope, Sets, Stage, Task};
use crate::generate::Chat;
use crate::random::Random;
use crate::sae::HookPoint;
use crate::steering::SteeringError;
pub use options::MeasureOptions;
use told::{Caps, Done, Judging, arm_json, items_json};
pub(super) use told::{Point, pareto, range_json};

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
        chosen: None,
        means: None,
        null_space: None,
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
    let labels = bench.labels();
    let mut done: Vec<Done> = Vec::with_capacity(all.len());
    for (arm, measured) in all {
        let verdicts = judging.of(&bench, &measured, cap);
        let base = done.first().map_or(&verdicts, |base| &base.verdicts);
        let groups = count(&labels, &verdicts, base);
        let row = Row {
            figures: figures(&labels, &measured, &verdicts),
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
    let caps = Caps::new(&bench, &labels, &judging, &done, &options.caps, cap);
    let series = plan.series();
    let points: Vec<Point<'_>> = done.iter().map(Done::point).collect();
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
        "items": items_json(&bench, &labels),
        "series": series,
        "arms": arms,
        "range": range_json(&points, series.len()),
        "pareto": pareto(&points),
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
    let other = match wants(Control::DifferenceOfMeans) || wants(Control::NullSpace) {
        true => bench.contrast(&sets.file)?,
        false => Vec::new(),
    };
    let length = norm(bench, plan).await?;
    let trials = match wants(Control::RandomDecoder) {
        true => draw(bench, plan, recipe.seed, length, &sets.file)?,
        false => Trials::default(),
    };
    let total = live
        + other.len()
        + bench.trial_steps(&trials)
        + gate.map_or(0, |_| bench.asked_batches().len());
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
    if !trials.is_empty() {
        plan.chosen = bench.best(run, &trials).await?;
    }
    if !other.is_empty() {
        let last = bench.last(run, plan.hook, &other).await?;
        let own = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let found = difference(&last).filter(|_| wants(Control::DifferenceOfMeans));
        if let Some(found) = found {
            let scale = length / own(&found);
            let scaled = found.iter().map(|v| (v * scale) as f32);
            let name = "lab-difference-of-means";
            steering.add_direction(plan.hook, name, scaled.collect())?;
            plan.means = Some(name.into());
        }
        if wants(Control::NullSpace)
            && let Some(found) = null_space(&last)
        {
            let name = "lab-null-space";
            let values = found.iter().map(|v| *v as f32).collect();
            steering.add_direction(plan.hook, name, values)?;
            plan.null_space = Some((name.into(), (length / own(&found)) as f32));
        }
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

/// Random directions of a length, and the prompts that the best of them is chosen by.
fn draw(
    bench: &Bench<'_>,
    plan: &Plan,
    seed: u64,
    length: f64,
    file: &EvalFile,
) -> Result<Trials, LabError> {
    // Other draws than those of the directions that nobody chooses.
    let mut random = Random::new(!seed);
    let width = bench.chat().model().config().hidden_size;
    let mut names = Vec::with_capacity(DRAWN);
    for i in 1..=DRAWN {
        let name = format!("lab-drawn-{i}");
        let direction = random.direction(width, length);
        let steering = bench.chat().steering();
        steering.add_direction(plan.hook, &name, direction)?;
        names.push(name);
    }
    bench.trials(plan.hook, plan.at, names, file)
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
