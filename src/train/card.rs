//! What is said of a dictionary: its card and its report.

use std::path::Path;
use std::time::Duration;

use phi3_steer::sae::{Fit, HookPoint};
use phi3_steer::train::{InLoop, Settings};
use serde_json::{Value, json};

use super::data::Data;

/// Where the time went, of this run of the command.
#[derive(Clone, Copy, Default)]
pub struct Times {
    pub writing: Duration,
    pub harvest: Duration,
    pub training: Duration,
    pub measuring: Duration,
}

/// All that is said.
pub struct Card<'a> {
    pub model: &'a Path,
    pub hook: HookPoint,
    pub width: usize,
    pub settings: &'a Settings,
    /// Whether activations are in units of the vectors' size.
    pub relative: bool,
    pub ring: u64,
    pub data: &'a Data,
    pub fit: &'a Fit,
    pub in_loop: InLoop,
    /// Latents that were silent at the end.
    pub silent: usize,
    pub loss: f64,
    pub times: Times,
    /// Of the tensors' file.
    pub bytes: usize,
}

impl Card<'_> {
    fn tokens(&self) -> u64 {
        self.data
            .sequences
            .iter()
            .map(|s| s.ids.len() as u64 - 1)
            .sum()
    }

    /// The figures as lines.
    pub fn figures(&self) -> Vec<String> {
        let Self { fit, in_loop, .. } = self;
        vec![
            format!(
                "variance unexplained (FVU) {:.4}, active latents a token (L0) {:.1}, on {} vectors held out",
                fit.fvu, fit.l0, fit.vectors
            ),
            format!(
                "dead: {} of {} latents were silent in the last {} steps",
                self.silent, self.settings.latents, self.settings.dead_after
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
            "model": super::name(self.model),
            "hook": self.hook,
            "settings": self.settings,
            "ring": self.ring,
            "tokens": self.tokens(),
            "sources": self.data.sources.iter()
                .map(|(what, tokens)| json!({"what": what, "tokens": tokens}))
                .collect::<Vec<_>>(),
            "dataSha256": self.data.hash(),
            "fit": self.fit,
            "silentAtTheEnd": self.silent,
            "unexplainedInTheLastStep": self.loss,
            "loss": self.in_loop,
            "lossRecovered": self.in_loop.recovered(),
            "seconds": {
                "writing": seconds(self.times.writing),
                "harvest": seconds(self.times.harvest),
                "training": seconds(self.times.training),
                "measuring": seconds(self.times.measuring),
            },
        })
    }

    /// The card, in Markdown.
    pub fn text(&self) -> String {
        let Self { settings, data, .. } = self;
        let mut out = format!(
            "# A dictionary of {} at {}\n\nA TopK sparse autoencoder of the residual stream after block {} \
             (counted from 0), in the layout of EleutherAI's sparsify, trained with `phi3-steer train-sae`: \
             {} latents of {} elements, of which {} are active at a token; {}. `sae.safetensors` has {:.1} MB.\n\n## Data\n\n",
            super::name(self.model),
            self.hook,
            self.hook.layer,
            settings.latents,
            self.width,
            settings.k,
            match self.relative {
                true =>
                    "activations in units of the vectors' mean norm over the root of their size, decoder \
                         rows as long as a unit",
                false => "decoder rows of norm 1, activations in the residual stream's units",
            },
            self.bytes as f64 / 1e6,
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
            self.tokens(),
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
        out += &format!("    {}\n\n## Figures\n\n", command());
        for line in self.figures() {
            out += &format!("- {line}\n");
        }
        let seconds = |time: Duration| time.as_secs_f64().round();
        out += &format!(
            "- time of the command's last run: {} s writing replies, {} s harvesting, {} s training, {} s \
             measuring\n",
            seconds(self.times.writing),
            seconds(self.times.harvest),
            seconds(self.times.training),
            seconds(self.times.measuring),
        );
        out
    }
}

/// The command line, without the folders that the program is in.
fn command() -> String {
    let words = std::env::args()
        .skip(1)
        .map(|word| match word.contains(char::is_whitespace) {
            true => format!("'{word}'"),
            false => word,
        });
    format!("phi3-steer {}", words.collect::<Vec<_>>().join(" "))
}
