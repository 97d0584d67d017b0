//! What is said of a dictionary that was trained: its card and its report.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Data, Files, Made, Measured, Selection, Settings};
use crate::sae::HookPoint;

/// Where the time went, of the last run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// The model wrote replies.
    pub writing: Duration,
    /// Its residual stream was read.
    pub harvest: Duration,
    /// Steps were taken.
    pub training: Duration,
    /// What came of it was measured.
    pub measuring: Duration,
}

/// Points of the curve that the report has, at most, and the last.
const POINTS: usize = 200;

/// All that is said.
pub struct Card<'a> {
    /// The model's name.
    pub model: &'a str,
    /// How to do it again, for example the command line.
    pub how: &'a str,
    /// The place.
    pub hook: HookPoint,
    /// Elements of a vector.
    pub width: usize,
    /// What was asked for.
    pub settings: &'a Settings,
    /// Whether activations are in units of the vectors' size.
    pub relative: bool,
    /// Vectors that steps were drawn from, the latest.
    pub ring: u64,
    /// The text.
    pub data: &'a Data,
    /// The dictionary.
    pub made: &'a Made,
    /// What it is worth.
    pub measured: &'a Measured,
    /// The share of variance that steps left unexplained, each with its number counted from 1, in order.
    pub curve: &'a [(usize, f64)],
    /// Where the time went.
    pub times: Times,
}

impl Card<'_> {
    /// The figures as lines.
    pub fn figures(&self) -> Vec<String> {
        let Measured { fit, in_loop } = self.measured;
        vec![
            format!(
                "variance unexplained (FVU) {:.4}, active latents a token (L0) {:.1}, on {} vectors held out",
                fit.fvu, fit.l0, fit.vectors
            ),
            format!(
                "dead: {} of {} latents were silent in the last {} steps",
                self.made.silent, self.settings.latents, self.settings.dead_after
            ),
            format!(
                "loss recovered {:.4}: {:.4} nats a token as it is, {:.4} rebuilt, {:.4} with the mean in place",
                in_loop.recovered(),
                in_loop.clean,
                in_loop.rebuilt,
                in_loop.ablated
            ),
        ]
    }

    /// The same for programs.
    pub fn report(&self) -> Value {
        let seconds = |time: Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
        json!({
            "model": self.model,
            "hook": self.hook,
            "settings": self.settings,
            "ring": self.ring,
            "stepsTaken": self.made.taken,
            "tokens": self.data.vectors(),
            "sources": self.data.sources.iter()
                .map(|(what, tokens)| json!({"what": what, "tokens": tokens}))
                .collect::<Vec<_>>(),
            "dataSha256": self.data.hash(),
            "fit": self.measured.fit,
            "silentAtTheEnd": self.made.silent,
            "unexplainedInTheLastStep": self.curve.last().map(|(_, loss)| loss),
            "curve": self.thinned(),
            "loss": self.measured.in_loop,
            "lossRecovered": self.measured.in_loop.recovered(),
            "seconds": {
                "writing": seconds(self.times.writing),
                "harvest": seconds(self.times.harvest),
                "training": seconds(self.times.training),
                "measuring": seconds(self.times.measuring),
            },
        })
    }

    /// The files of the dictionary with its report and card, names and bytes.
    pub fn files(&self) -> [(&'static str, Vec<u8>); 4] {
        let Files {
            config,
            name,
            tensors,
        } = &self.made.files;
        [
            ("cfg.json", config.clone().into_bytes()),
            (*name, tensors.clone()),
            ("report.json", format!("{:#}\n", self.report()).into_bytes()),
            ("README.md", self.text().into_bytes()),
        ]
    }

    /// Some of the curve: evenly spread, with the last step.
    fn thinned(&self) -> Vec<(usize, f64)> {
        let every = self.curve.len().div_ceil(POINTS).max(1);
        let last = self.curve.len().saturating_sub(1);
        let all = self.curve.iter().enumerate();
        let some = all.filter(|(at, _)| at % every == 0 || *at == last);
        some.map(|(_, point)| *point).collect()
    }

    /// The card, in Markdown.
    pub fn text(&self) -> String {
        let Self {
            settings,
            data,
            made,
            ..
        } = self;
        let (kind, layout, average) = match settings.selection {
            Selection::TopK => ("TopK sparse autoencoder", "EleutherAI's sparsify", ""),
            Selection::BatchTopK => (
                "JumpReLU sparse autoencoder, trained as BatchTopK,",
                "SAELens",
                " on average",
            ),
        };
        let mut out = format!(
            "# A dictionary of {} at {}\n\nA {} of the residual stream after block {} (counted from 0), in the \
             layout of {}, trained with phi3-steer: {} latents of {} elements, of which {} are active at a token{}; \
             {}. `{}` has {:.1} MB.\n\n## Data\n\n",
            self.model,
            self.hook,
            kind,
            self.hook.layer,
            layout,
            settings.latents,
            self.width,
            settings.k,
            average,
            match self.relative {
                true =>
                    "activations in units of the vectors' mean norm over the root of their size, decoder \
                         rows as long as a unit",
                false => "decoder rows of norm 1, activations in the residual stream's units",
            },
            made.files.name,
            made.files.tensors.len() as f64 / 1e6,
        );
        out += "| source | tokens |\n|---|---|\n";
        for (what, tokens) in &data.sources {
            out += &format!("| {what} | {tokens} |\n");
        }
        out += &format!(
            "\n{} vectors of {} sequences were trained on; {} sequences were held out. The first token of a \
             sequence does not count.\n\n## Training\n\nSeed {}. {} steps of {} vectors drawn from the \
             latest {}; Adam at {}, {} steps of warm-up, the last {:.0}% falling; latents silent for {} steps \
             are dead, {} of them rebuild what the others leave of a token, with the weight {}.\n\n",
            data.vectors(),
            data.sequences.len(),
            data.held.len(),
            settings.seed,
            settings.steps,
            settings.rows,
            self.ring,
            settings.rate,
            settings.warmup,
            100.0 * settings.decay,
            settings.dead_after,
            settings.auxiliary,
            settings.auxiliary_weight,
        );
        if settings.frozen_decoder {
            out += "The decoder's rows are random and were not trained: this dictionary is a control.\n\n";
        }
        if made.taken < settings.steps {
            out += &format!("It was stopped after {} steps.\n\n", made.taken);
        }
        out += &format!("    {}\n\n## Figures\n\n", self.how);
        for line in self.figures() {
            out += &format!("- {line}\n");
        }
        let seconds = |time: Duration| time.as_secs_f64().round();
        out += &format!(
            "- time of the last run: {} s writing replies, {} s harvesting, {} s training, {} s \
             measuring\n",
            seconds(self.times.writing),
            seconds(self.times.harvest),
            seconds(self.times.training),
            seconds(self.times.measuring),
        );
        out
    }
}
