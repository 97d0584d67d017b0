//! The rows of a pass, as the kernels see them.

/// Rows of one pass at most.
pub const MAX_ROWS: usize = 256;

/// The row's token is part of an assistant's reply.
pub const ROW_GENERATED: u32 = 1;
/// The row's token is the beginning of the sequence.
pub const ROW_BOS: u32 = 2;
/// The row's lane has stopped; its results are ignored.
pub const ROW_DONE: u32 = 4;

/// One token of one lane.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Row {
    /// Token id; for the head, the activation row to read.
    pub token: u32,
    /// Lane.
    pub lane: u32,
    /// Position in the lane.
    pub position: u32,
    /// `ROW_` flags.
    pub flags: u32,
}

/// The kernels' `Rows` buffer.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Rows {
    count: u32,
    padding: [u32; 3],
    rows: [Row; MAX_ROWS],
}

impl Rows {
    /// At most [`MAX_ROWS`] rows.
    pub fn new(rows: &[Row]) -> Self {
        let mut all = Self {
            count: rows.len() as u32,
            padding: [0; 3],
            rows: [Row::default(); MAX_ROWS],
        };
        all.rows[..rows.len()].copy_from_slice(rows);
        all
    }
}
