//! What one sample says, measured against four marks.
//!
//! The marks hold `0 < resume < threshold < critical <= limit`. [`Thresholds`]
//! cannot be made otherwise: a band that is empty or upside down would make
//! the controller flap or never let go, so the order is checked once, here.
//! A level has no memory; what filed does about it is the [mode](super::mode).

use serde::{Deserialize, Serialize};

/// What a single sample says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Below the threshold.
    #[default]
    Normal,
    /// At or above the threshold.
    High,
    /// At or above critical.
    Critical,
}

/// The marks a sample is compared with, in bytes and in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Marks")]
pub struct Thresholds {
    resume_bytes: u64,
    threshold_bytes: u64,
    critical_bytes: u64,
    limit_bytes: u64,
}

/// The marks as they are read, in bytes and in any order.
#[derive(Deserialize)]
struct Marks {
    resume_bytes: u64,
    threshold_bytes: u64,
    critical_bytes: u64,
    limit_bytes: u64,
}

impl TryFrom<Marks> for Thresholds {
    type Error = ThresholdError;

    fn try_from(marks: Marks) -> Result<Self, ThresholdError> {
        Thresholds::new(
            marks.resume_bytes,
            marks.threshold_bytes,
            marks.critical_bytes,
            marks.limit_bytes,
        )
    }
}

/// Why four numbers are not thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// There is nothing below a resume mark of zero.
    #[error("resume must be more than 0 bytes")]
    ResumeIsZero,
    /// A mark is not below the one it must stay under.
    #[error("{lower} ({lower_bytes} bytes) must be below {upper} ({upper_bytes} bytes)")]
    NotBelow {
        /// Name of the mark that is too high.
        lower: &'static str,
        /// Its value, in bytes.
        lower_bytes: u64,
        /// Name of the mark it must be below.
        upper: &'static str,
        /// Its value, in bytes.
        upper_bytes: u64,
    },
    /// Critical would only be seen after the limit was hit.
    #[error("critical ({critical_bytes} bytes) must not exceed the limit ({limit_bytes} bytes)")]
    CriticalOverLimit {
        /// The critical mark, in bytes.
        critical_bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
}

impl Thresholds {
    /// Takes the four marks in rising order, each in bytes.
    ///
    /// # Errors
    ///
    /// Unless `0 < resume < threshold < critical <= limit`.
    pub fn new(
        resume_bytes: u64,
        threshold_bytes: u64,
        critical_bytes: u64,
        limit_bytes: u64,
    ) -> Result<Self, ThresholdError> {
        if resume_bytes == 0 {
            return Err(ThresholdError::ResumeIsZero);
        }
        must_be_below(("resume", resume_bytes), ("threshold", threshold_bytes))?;
        must_be_below(("threshold", threshold_bytes), ("critical", critical_bytes))?;
        if critical_bytes > limit_bytes {
            return Err(ThresholdError::CriticalOverLimit {
                critical_bytes,
                limit_bytes,
            });
        }
        Ok(Self {
            resume_bytes,
            threshold_bytes,
            critical_bytes,
            limit_bytes,
        })
    }

    /// Below this many bytes aggressive mode may be left.
    pub fn resume_bytes(&self) -> u64 {
        self.resume_bytes
    }

    /// From this many bytes on a sample is high.
    pub fn threshold_bytes(&self) -> u64 {
        self.threshold_bytes
    }

    /// From this many bytes on a sample is critical.
    pub fn critical_bytes(&self) -> u64 {
        self.critical_bytes
    }

    /// The bytes that must not be exceeded.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Below this many bytes critical mode may be left: half way from the
    /// threshold to critical.
    pub fn leave_critical_bytes(&self) -> u64 {
        self.threshold_bytes.midpoint(self.critical_bytes)
    }
}

fn must_be_below(
    lower: (&'static str, u64),
    upper: (&'static str, u64),
) -> Result<(), ThresholdError> {
    if lower.1 < upper.1 {
        return Ok(());
    }
    Err(ThresholdError::NotBelow {
        lower: lower.0,
        lower_bytes: lower.1,
        upper: upper.0,
        upper_bytes: upper.1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_is_left_between_the_threshold_and_critical() {
        let marks = Thresholds::new(70, 80, 92, 100).expect("in order");
        assert_eq!(marks.leave_critical_bytes(), 86);
        let tight = Thresholds::new(1, 2, 3, 3).expect("in order");
        assert_eq!(tight.leave_critical_bytes(), 2);
    }

    #[test]
    fn marks_out_of_order_are_refused_and_named() {
        assert_eq!(
            Thresholds::new(0, 1, 2, 3),
            Err(ThresholdError::ResumeIsZero)
        );
        for (marks, message) in [
            (
                [5, 5, 7, 9],
                "resume (5 bytes) must be below threshold (5 bytes)",
            ),
            (
                [5, 7, 7, 9],
                "threshold (7 bytes) must be below critical (7 bytes)",
            ),
            (
                [5, 6, 9, 8],
                "critical (9 bytes) must not exceed the limit (8 bytes)",
            ),
        ] {
            let [resume, threshold, critical, limit] = marks;
            let error =
                Thresholds::new(resume, threshold, critical, limit).expect_err("out of order");
            assert_eq!(error.to_string(), message);
        }
        assert!(Thresholds::new(5, 6, 8, 8).is_ok());
    }
}
