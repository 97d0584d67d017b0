//! How far the GPU works ahead of the host: enough that it never waits for work, and so little that a
//! cancel or a change of the steering acts soon, on a slow adapter too.

use std::time::Duration;

use crate::phi3::MAX_ROWS;

/// What a chunk of a prompt should take at most.
const CHUNK_TIME: Duration = Duration::from_millis(500);
/// Rows of the first chunk, whose time nobody knows.
const FIRST_ROWS: usize = 32;
/// Rows of a chunk at least.
const LEAST_ROWS: usize = 8;
/// From this time a pass on, what the host does between two passes is nothing beside it.
const SLOW_PASS: Duration = Duration::from_millis(250);
/// Submitted at once where passes are quick.
const QUICK: usize = 3;
/// Chunks that are submitted at once: one is computed, the next waits.
pub(super) const CHUNKS: usize = 2;

/// What was measured so far. It decides about the order of work alone, never about its results.
pub(super) struct Ahead {
    rows: usize,
    pass: Option<Duration>,
}

impl Ahead {
    /// Nothing is known of the adapter.
    pub fn new() -> Self {
        Self {
            rows: FIRST_ROWS,
            pass: None,
        }
    }

    /// Rows of the next chunk of a prompt.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Decode passes that may be under way at once.
    pub fn passes(&self) -> usize {
        match self.pass {
            Some(time) if time < SLOW_PASS => QUICK,
            _ => 1,
        }
    }

    /// A chunk of `rows` rows took `time`.
    pub fn took_chunk(&mut self, rows: usize, time: Duration) {
        let fit = CHUNK_TIME.as_secs_f64() / time.as_secs_f64().max(1e-6) * rows as f64;
        // A short chunk says little about long ones: it makes them longer step by step, and shorter only
        // if it took too long itself.
        let most = (4 * rows).max(self.rows);
        let least = match time > CHUNK_TIME {
            true => LEAST_ROWS,
            false => self.rows,
        };
        self.rows = (fit as usize).clamp(least.min(most), most).min(MAX_ROWS);
    }

    /// A decode pass took `time`.
    pub fn took_pass(&mut self, time: Duration) {
        self.pass = Some(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the chunks that follow one another where a row takes `row` and a chunk `fixed` more.
    fn chunks(row: Duration, fixed: Duration, count: usize) -> Vec<usize> {
        let mut ahead = Ahead::new();
        let step = |_| {
            let rows = ahead.rows();
            ahead.took_chunk(rows, fixed + row * rows as u32);
            rows
        };
        (0..count).map(step).collect()
    }

    #[test]
    fn chunks_are_as_long_as_the_adapter_is_quick() {
        let (us, ms) = (Duration::from_micros, Duration::from_millis);
        assert_eq!(chunks(us(10), ms(1), 4), [32, 128, 256, 256]);
        // Two and a half seconds a row, as a full-size model on a processor.
        assert_eq!(chunks(ms(2500), ms(0), 3), [32, 8, 8]);
        let middling = chunks(ms(10), ms(0), 6);
        assert_eq!(middling[2..], [50, 50, 50, 50]);
    }

    #[test]
    fn a_short_quick_chunk_shortens_nothing() {
        let mut ahead = Ahead::new();
        for _ in 0..3 {
            ahead.took_chunk(ahead.rows(), Duration::from_millis(1));
        }
        assert_eq!(ahead.rows(), MAX_ROWS);
        ahead.took_chunk(1, Duration::from_millis(20));
        assert_eq!(ahead.rows(), MAX_ROWS);
        ahead.took_chunk(MAX_ROWS, Duration::from_secs(5));
        assert!(ahead.rows() < 30);
    }

    #[test]
    fn slow_passes_go_one_by_one() {
        let mut ahead = Ahead::new();
        assert_eq!(ahead.passes(), 1);
        ahead.took_pass(Duration::from_millis(20));
        assert_eq!(ahead.passes(), QUICK);
        ahead.took_pass(Duration::from_secs(6));
        assert_eq!(ahead.passes(), 1);
    }
}
