//! The key-value cache of all lanes: it grows, and where the model's window is narrower than its context it is a ring.

use super::{Config, MAX_ROWS};
use crate::gpu::{Buffer, Gpu, GpuError, shaders};

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFormat {
    /// 2 bytes an element.
    F16,
    /// 4 bytes an element.
    F32,
}

impl CacheFormat {
    /// The key-value twin.
    pub fn part(self) -> &'static str {
        match self {
            CacheFormat::F16 => shaders::KV_F16,
            CacheFormat::F32 => shaders::KV_F32,
        }
    }

    /// Bytes of a pair of neighbouring elements.
    fn pair_bytes(self) -> u64 {
        match self {
            CacheFormat::F16 => 4,
            CacheFormat::F32 => 8,
        }
    }
}

/// Keys and values of one block, `[lanes, kv_heads, capacity, head_dim / 2]` pairs each.
pub(super) struct LayerCache {
    pub keys: Buffer,
    pub values: Buffer,
}

/// Positions beyond the window that a ring holds: those that a pass writes before its first row reads, and as many
/// again by which a conversation can be taken back.
const BEYOND_WINDOW: usize = 2 * MAX_ROWS;

/// Keys and values of all blocks: position p is in cell p % capacity of its lane.
pub(super) struct Cache {
    pub layers: Vec<LayerCache>,
    pub capacity: usize,
    strips: u64,
    position_bytes: u64,
}

impl Cache {
    /// An empty cache for `capacity` positions in each of `lanes` lanes.
    pub fn new(
        gpu: &Gpu,
        config: &Config,
        lanes: usize,
        capacity: usize,
        format: CacheFormat,
    ) -> Result<Self, GpuError> {
        let strips = (lanes * config.num_key_value_heads) as u64;
        let position_bytes = config.head_dim as u64 / 2 * format.pair_bytes();
        let bytes = Self::buffer_bytes(config, lanes, capacity, format);
        let layers = Self::allocate(gpu, config.num_hidden_layers, bytes)?;
        Ok(Self {
            layers,
            capacity,
            strips,
            position_bytes,
        })
    }

    /// Cells that a lane of `context` positions needs at most.
    pub fn cells(config: &Config, context: usize) -> usize {
        context.min(config.window().saturating_add(BEYOND_WINDOW))
    }

    /// Bytes of a block's keys for `capacity` positions in each of `lanes` lanes.
    pub fn buffer_bytes(
        config: &Config,
        lanes: usize,
        capacity: usize,
        format: CacheFormat,
    ) -> u64 {
        let pairs = lanes * config.num_key_value_heads * capacity * config.head_dim / 2;
        pairs as u64 * format.pair_bytes()
    }

    fn allocate(gpu: &Gpu, layers: usize, bytes: u64) -> Result<Vec<LayerCache>, GpuError> {
        let mut all = Vec::with_capacity(layers);
        for _ in 0..layers {
            all.push(LayerCache {
                keys: gpu.storage("key cache", bytes)?,
                values: gpu.storage("value cache", bytes)?,
            });
        }
        Ok(all)
    }

    /// Makes room for `capacity` positions, keeping what is there, which must not have gone round; on an error nothing
    /// has changed.
    pub async fn grow(&mut self, gpu: &Gpu, capacity: usize) -> Result<(), GpuError> {
        let strip = |capacity: usize| capacity as u64 * self.position_bytes;
        let (old, new) = (strip(self.capacity), strip(capacity));
        let layers = Self::allocate(gpu, self.layers.len(), self.strips * new)?;
        gpu.settle().await?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for (before, after) in self.layers.iter().zip(&layers) {
            for i in 0..self.strips {
                for (b, a) in [(&before.keys, &after.keys), (&before.values, &after.values)] {
                    encoder.copy_buffer_to_buffer(b, i * old, a, i * new, old);
                }
            }
        }
        gpu.queue().submit([encoder.finish()]);
        self.layers = layers;
        self.capacity = capacity;
        Ok(())
    }

    /// Bytes of `positions` positions in every lane.
    pub fn bytes_of(&self, positions: usize) -> u64 {
        2 * self.layers.len() as u64 * self.strips * positions as u64 * self.position_bytes
    }

    /// Bytes on the GPU.
    pub fn gpu_bytes(&self) -> u64 {
        self.layers
            .iter()
            .map(|l| l.keys.size() + l.values.size())
            .sum()
    }
}
