//! Which failures pass by themselves, and how long to wait for that: the rules of the page's downloads
//! (`www/store/retry.js`).

use crate::checkpoint::SourceError;

/// Failures in a row before the last one is final.
pub(super) const TRIES: u32 = 5;

/// Bytes of progress that begin a new count of failures.
pub(super) const PROGRESS: u64 = 16 << 10;

/// The wait after the first failure, at most, in milliseconds; twice as long after each further one.
const FIRST_WAIT: f64 = 500.0;
const LONGEST_WAIT: f64 = 30_000.0;
/// A server that asks for more patience than this gets none, in milliseconds.
const LONGEST_RETRY_AFTER: f64 = 120_000.0;

/// A failed try.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: SourceError,
    /// Milliseconds that the server asks to wait.
    pub wait: Option<f64>,
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self { error, wait: None }
    }
}

impl Failure {
    /// Whether another try may succeed.
    fn passes(&self) -> bool {
        let passing = match &self.error {
            SourceError::Network { .. } | SourceError::Short { .. } => true,
            SourceError::Status { status, .. } => is_passing(*status),
            _ => false,
        };
        passing && self.wait.is_none_or(|wait| wait <= LONGEST_RETRY_AFTER)
    }
}

/// Whether a status may be another one on the next try.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Counts failures in a row.
#[derive(Default)]
pub(super) struct Tries {
    failed: u32,
    gained: u64,
}

impl Tries {
    /// `bytes` have come.
    pub fn gained(&mut self, bytes: u64) {
        self.gained += bytes;
        if self.gained >= PROGRESS {
            *self = Self::default();
        }
    }

    /// Milliseconds to wait for the next try, `random` being from 0 to 1; the error if it is not worth
    /// one, or there were enough.
    pub fn again(&mut self, failure: Failure, random: f64) -> Result<i32, SourceError> {
        self.failed += 1;
        if !failure.passes() || self.failed >= TRIES {
            return Err(failure.error);
        }
        let limit = (FIRST_WAIT * f64::from(1 << (self.failed - 1))).min(LONGEST_WAIT);
        let wait = match failure.wait {
            None => limit * random,
            Some(asked) => asked + limit * random / 4.0,
        };
        Ok(wait as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, wait: Option<f64>) -> Failure {
        let url = "https://a.invalid/x".into();
        Failure {
            error: SourceError::Status { url, status },
            wait,
        }
    }

    #[test]
    fn what_passes_is_tried_as_often_as_by_the_store() {
        let rules: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/support/requests.json")).unwrap();
        let statuses = |name: &str| -> Vec<u16> {
            serde_json::from_value(rules[name].clone()).expect("statuses")
        };
        assert_eq!(rules["tries"], TRIES);
        assert_eq!(rules["progress"], PROGRESS);
        assert_eq!(rules["firstWait"], FIRST_WAIT as u64);
        assert_eq!(rules["longestWait"], LONGEST_WAIT as u64);
        assert_eq!(rules["longestRetryAfter"], LONGEST_RETRY_AFTER as u64);
        for passing in statuses("passing") {
            let mut tries = Tries::default();
            let waits: Vec<i32> = (0..4)
                .map(|_| tries.again(status(passing, None), 1.0).unwrap())
                .collect();
            assert_eq!(waits, [500, 1000, 2000, 4000]);
            assert!(tries.again(status(passing, None), 1.0).is_err());
        }
        for lasting in statuses("lasting") {
            let mut tries = Tries::default();
            assert!(
                tries.again(status(lasting, None), 0.5).is_err(),
                "{lasting}"
            );
        }
        let codes = rules["codes"].as_object().expect("codes");
        for (code, statuses) in codes {
            for status in statuses.as_array().expect("statuses") {
                let status = status.as_u64().expect("a status") as u16;
                assert_eq!(SourceError::code_of_status(status), code, "{status}");
            }
        }
        // What the server asks for, up to a limit.
        let mut tries = Tries::default();
        assert_eq!(tries.again(status(503, Some(7000.0)), 1.0).unwrap(), 7125);
        assert!(tries.again(status(503, Some(1e6)), 1.0).is_err());
    }

    #[test]
    fn progress_begins_a_new_count() {
        let mut tries = Tries::default();
        for _ in 0..100 {
            assert!(tries.again(status(503, None), 0.0).is_ok());
            tries.gained(PROGRESS / 2);
            tries.gained(PROGRESS / 2);
        }
        tries.gained(PROGRESS - 1);
        for _ in 0..4 {
            assert!(tries.again(status(503, None), 0.0).is_ok());
        }
        assert!(tries.again(status(503, None), 0.0).is_err());
    }
}
