//! How the split skeleton lays a product out.

use crate::gpu::{Gpu, shaders};

/// Invocations of a team at most: K's groups that are read side by side.
const TEAM: usize = 32;
/// Workgroups that a GPU should have at least, so that all of it works.
const WORKGROUPS: usize = 128;
/// Units from which a team takes two, so that staged activations are read half as often.
const TWO_UNITS_FROM: usize = 8192;
/// Bytes of staged activations at most, so that several workgroups fit a multiprocessor.
const STAGED_BYTES: usize = 20 << 10;

/// The layout of one product: the constants of `matmul/split.wgsl`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    half: bool,
    tile: usize,
    workgroup: usize,
    team: usize,
    units: usize,
    steps: usize,
    chunk: usize,
    groups: usize,
}

impl Split {
    /// The layout for `units` units of `groups` groups of K, in tiles of `tile` activation rows, in f16 or f32.
    pub fn of(gpu: &Gpu, half: bool, [units, groups]: [usize; 2], tile: u32) -> Self {
        let (tile, limits) = (tile as usize, gpu.device().limits());
        let team = groups.next_power_of_two().min(TEAM);
        let per_team = if units < TWO_UNITS_FROM { 1 } else { 2 };
        let teams = (units / per_team / WORKGROUPS).clamp(2, 8);
        let most = limits.max_compute_invocations_per_workgroup.min(256) as usize;
        let workgroup = (teams.next_power_of_two() * TEAM).min(most);
        // Beside a slot of 16 bytes an invocation for sums, and one a team.
        let taken = 16 * (workgroup + workgroup / team);
        let room = limits.max_compute_workgroup_storage_size as usize - taken;
        let group_bytes = tile * if half { 64 } else { 128 };
        let steps = groups.div_ceil(team);
        let fit = (room.min(STAGED_BYTES) / group_bytes).saturating_sub(1) / team;
        Self {
            half,
            tile,
            workgroup,
            team,
            units: per_team,
            steps,
            chunk: steps.min(fit.max(1)),
            groups,
        }
    }

    /// Units of a workgroup.
    pub fn units(&self) -> u32 {
        (self.workgroup / self.team * self.units) as u32
    }

    /// Invocations of a team.
    pub fn team(&self) -> u32 {
        self.team as u32
    }

    /// The twin of the arithmetic.
    pub fn arithmetic(&self) -> &'static str {
        match self.half {
            true => shaders::DOTS_F16,
            false => shaders::DOTS_F32,
        }
    }

    /// The kernel's constants.
    pub fn constants(&self) -> [(&'static str, f64); 10] {
        let pitch = self.chunk * self.team + 1;
        let staged = self.tile * pitch * if self.half { 4 } else { 8 };
        let ragged = !self.groups.is_multiple_of(self.chunk * self.team);
        [
            ("WG", self.workgroup as f64),
            ("ROW_TILE", self.tile as f64),
            ("TEAM", self.team as f64),
            ("TEAMS", (self.workgroup / self.team) as f64),
            ("UNITS", self.units as f64),
            ("STEPS", self.steps as f64),
            ("CHUNK", self.chunk as f64),
            ("PITCH", pitch as f64),
            ("RAGGED", f64::from(u8::from(ragged))),
            ("STAGED", staged as f64),
        ]
    }
}
