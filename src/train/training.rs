//! A run of training: harvest and steps in turn.

use std::rc::Rc;

use super::save::Trained;
use super::{Control, Harvest, Ring, Scale, Settings, State, Step, TrainError, Trainer, Weights};
use crate::generate::GenerateError;
use crate::gpu::Gpu;
use crate::random::Random;

/// Vectors that the scale is measured on, at most.
const MEASURED: u64 = 16_384;
/// Steps between two states that are kept.
const KEPT_EVERY: usize = 100;
/// The share of the ring that is renewed at a time.
const RENEWED: u64 = 8;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Vectors have come, of so many in all.
    Harvested {
        /// Vectors that came.
        came: u64,
        /// Vectors that will.
        total: u64,
    },
    /// A step was taken.
    Stepped {
        /// Steps taken.
        taken: usize,
        /// What it saw.
        step: Step,
    },
}

/// What a run works on.
pub struct Training<'a, 'm> {
    /// How the dictionary is trained.
    pub settings: &'a Settings,
    /// The vectors.
    pub ring: &'a mut Ring,
    /// Where further vectors come from; without, the ring is all there is.
    pub harvest: Option<&'a mut Harvest<'m>>,
    /// How it is told to end.
    pub control: &'a Control,
}

impl Training<'_, '_> {
    /// Trains from `state`, or from the beginning, to the last step, or to the one after which it is told to finish. The ring must hold what had come by
    /// then. `keep` is given states to go on from, before anything that they need is overwritten.
    pub async fn run(
        mut self,
        gpu: &Rc<Gpu>,
        state: Option<State>,
        keep: &mut dyn FnMut(&State) -> Result<(), TrainError>,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<Trainer, TrainError> {
        self.settings.check()?;
        let total = self
            .harvest
            .as_ref()
            .map_or(self.ring.came(), |h| h.vectors());
        let first = total.min(self.ring.capacity());
        if first < self.settings.rows as u64 {
            return Err(TrainError::TooFewRows {
                rows: first,
                needed: self.settings.rows,
            });
        }
        let mut trainer = match state.and_then(|state| state.trained) {
            Some(trained) => self.again(gpu, trained).await?,
            None => {
                while self.ring.came() < first {
                    self.more(0, total, tell).await?;
                    self.ring.flush()?;
                    keep(&self.state(None).await?)?;
                }
                self.begin(gpu).await?
            }
        };
        let mut kept = trainer.taken();
        while trainer.taken() < self.settings.steps {
            let taken = trainer.taken();
            let share = taken as f64 / self.settings.steps as f64;
            let due = first + ((total - first) as f64 * share) as u64;
            let renew = self.ring.came() < due;
            let stop = self.control.cancel.get();
            if self.control.finish.get() && taken > 0 {
                break;
            }
            if renew || stop || taken >= kept + KEPT_EVERY {
                keep(&self.state(Some(&trainer)).await?)?;
                kept = taken;
            }
            if stop {
                return Err(TrainError::Stopped { step: taken });
            }
            if renew {
                let until = total.min(due + self.ring.capacity() / RENEWED);
                while self.ring.came() < until {
                    self.more(taken, total, tell).await?;
                }
                self.ring.flush()?;
            }
            let places = self.places(taken as u64, self.settings.rows);
            let turn = self.control.turns.take().await;
            let step = trainer.step(&self.ring.read(&places)?).await?;
            drop(turn);
            tell(Progress::Stepped {
                taken: trainer.taken(),
                step,
            });
        }
        Ok(trainer)
    }

    /// `n` places of the ring, drawn for a step.
    fn places(&self, step: u64, n: usize) -> Vec<u64> {
        // Any odd number spreads the steps' seeds.
        let spread = (step + 1).wrapping_mul(0xd134_2543_de82_ef95);
        let mut random = Random::new(self.settings.seed ^ spread);
        let there = self.ring.len() as usize;
        (0..n).map(|_| random.below(there) as u64).collect()
    }

    /// Harvests the next vectors.
    async fn more(
        &mut self,
        step: usize,
        total: u64,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), TrainError> {
        let Some(harvest) = &mut self.harvest else {
            return Err(TrainError::TooFewRows {
                rows: self.ring.came(),
                needed: self.settings.rows,
            });
        };
        let turn = self.control.turns.take().await;
        let rows = harvest.next(&self.control.cancel).await;
        drop(turn);
        let rows = match rows {
            Err(TrainError::Generate(GenerateError::Cancelled)) => {
                return Err(TrainError::Stopped { step });
            }
            rows => rows?,
        };
        self.ring.push(&rows)?;
        tell(Progress::Harvested {
            came: self.ring.came(),
            total,
        });
        Ok(())
    }

    /// A trainer before its first step.
    async fn begin(&self, gpu: &Rc<Gpu>) -> Result<Trainer, TrainError> {
        let measured = self.ring.len().min(MEASURED) as usize;
        let rows = self.ring.read(&self.places(u64::MAX - 1, measured))?;
        let scale = Scale::of(&rows, self.ring.width())?;
        let weights = Weights::fresh(self.settings.latents, &scale, self.settings.seed);
        Trainer::new(gpu, self.settings, &scale, &weights).await
    }

    /// A trainer after the steps of an earlier run.
    async fn again(&self, gpu: &Rc<Gpu>, trained: Trained) -> Result<Trainer, TrainError> {
        let Trained {
            taken,
            silent,
            threshold,
            scale,
            weights,
            moments,
        } = trained;
        let mut trainer = Trainer::new(gpu, self.settings, &scale, &weights).await?;
        trainer.set_moments(&moments);
        trainer.resume(taken, silent, threshold);
        Ok(trainer)
    }

    /// What to go on from.
    async fn state(&self, trainer: Option<&Trainer>) -> Result<State, TrainError> {
        let trained = match trainer {
            None => None,
            Some(trainer) => Some(Trained {
                taken: trainer.taken(),
                silent: trainer.silent().to_vec(),
                threshold: trainer.threshold(),
                scale: trainer.scale().clone(),
                weights: trainer.weights().await?,
                moments: trainer.moments().await?,
            }),
        };
        Ok(State {
            settings: self.settings.clone(),
            came: self.ring.came(),
            read: self.harvest.as_ref().map_or(0, |h| h.read()),
            trained,
        })
    }
}
