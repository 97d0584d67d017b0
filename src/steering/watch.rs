//! Looking at the features of a hook point.

use super::{Hook, SteeringError};
use crate::gpu::Buffer;
use crate::sae::{Activation, HookPoint, live};

/// What a dictionary says of one token, before steering.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenFeatures {
    hook: HookPoint,
    listed: Vec<Activation>,
    all: bool,
    tracked: Option<(u32, f32)>,
}

impl TokenFeatures {
    /// The active features `listed`, largest first, `all` of them or those that had room, and the
    /// activation of the feature that was `tracked`.
    pub fn new(
        hook: HookPoint,
        listed: Vec<Activation>,
        all: bool,
        tracked: Option<(u32, f32)>,
    ) -> Self {
        Self {
            hook,
            listed,
            all,
            tracked,
        }
    }

    /// Where they were measured.
    pub fn hook(&self) -> HookPoint {
        self.hook
    }

    /// The active features, largest first: all of a TopK dictionary's, else the
    /// [`MAX_K`](crate::sae::MAX_K) largest.
    pub fn listed(&self) -> &[Activation] {
        &self.listed
    }

    /// The activation of `feature`; none if it is neither listed nor tracked, nor zero because all that
    /// is active is listed.
    pub fn activation(&self, feature: u32) -> Option<f32> {
        if let Some(a) = self.listed.iter().find(|a| a.feature == feature) {
            return Some(a.value);
        }
        match self.tracked {
            Some((tracked, value)) if tracked == feature => Some(value),
            _ => self.all.then_some(0.0),
        }
    }
}

/// A hook point that is looked at: while this lives, every pass encodes the residual stream there.
pub struct Watch<'a> {
    hook: &'a Hook,
    /// The feature whose activation is read beside the list, with its row among the loaded latents.
    tracked: Option<(u32, u32)>,
}

impl<'a> Watch<'a> {
    /// Looks at `hook`'s active features, and at the activation of `track`, however small.
    pub fn new(hook: &'a Hook, track: Option<u32>) -> Result<Self, SteeringError> {
        let dictionary = hook.dictionary();
        if !dictionary.encodes() {
            return Err(SteeringError::NotMeasured { hook: hook.point() });
        }
        let mut tracked = None;
        if let Some(feature) = track {
            if feature as usize >= dictionary.latents() {
                return Err(SteeringError::UnknownFeature {
                    hook: hook.point(),
                    feature,
                    latents: dictionary.latents(),
                });
            }
            let row = dictionary.row_of(feature).ok_or(SteeringError::NotLoaded {
                hook: hook.point(),
                feature,
            })?;
            // Where the list has room for all latents, or for all that can be active, it says it.
            let cut = dictionary.rule().is_local() && dictionary.k() < dictionary.loaded();
            tracked = cut.then_some((feature, row));
        }
        hook.watch(true);
        Ok(Self { hook, tracked })
    }

    /// Bytes that [`Watch::copy`] writes for so many rows.
    pub fn bytes(&self, rows: usize) -> u64 {
        let listed = rows * self.hook.dictionary().k() * size_of::<Activation>();
        let tracked = self.tracked.map_or(0, |_| rows * size_of::<f32>());
        (listed + tracked) as u64
    }

    /// Records the copy of the first `rows` rows' features, measured by the pass before, to `to` from the
    /// byte `at` on.
    pub fn copy(&self, encoder: &mut wgpu::CommandEncoder, rows: usize, to: &Buffer, at: u64) {
        let dictionary = self.hook.dictionary();
        let listed = (rows * dictionary.k() * size_of::<Activation>()) as u64;
        encoder.copy_buffer_to_buffer(self.hook.features(), 0, to, at, listed);
        let Some((_, latent)) = self.tracked else {
            return;
        };
        let (bytes, latents) = (size_of::<f32>() as u64, dictionary.loaded() as u64);
        for row in 0..rows as u64 {
            let from = (row * latents + u64::from(latent)) * bytes;
            let to_at = at + listed + row * bytes;
            encoder.copy_buffer_to_buffer(self.hook.activations(), from, to, to_at, bytes);
        }
    }

    /// The features of `rows` rows in what [`Watch::copy`] has written.
    pub fn read(&self, bytes: &[u8], rows: usize) -> Vec<TokenFeatures> {
        let k = self.hook.dictionary().k();
        let topk = !self.hook.dictionary().rule().is_local();
        let (listed, tracked) = bytes.split_at(rows * k * size_of::<Activation>());
        let listed: Vec<Activation> = bytemuck::pod_collect_to_vec(listed);
        let tracked: Vec<f32> = match self.tracked {
            Some(_) => bytemuck::pod_collect_to_vec(&tracked[..rows * size_of::<f32>()]),
            None => Vec::new(),
        };
        let features = |(row, slots): (usize, &[Activation])| {
            let listed = live(slots).to_vec();
            TokenFeatures {
                hook: self.hook.point(),
                all: topk || listed.len() < k || k == self.hook.dictionary().loaded(),
                listed,
                tracked: self.tracked.map(|(feature, _)| (feature, tracked[row])),
            }
        };
        listed.chunks_exact(k).enumerate().map(features).collect()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.hook.watch(false);
    }
}
