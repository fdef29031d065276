//! The numbers behind a change of mode, and how they are told to people.

use std::fmt;
use std::time::Duration;

use crate::pressure::size::Size;

/// The numbers that caused a change of mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Two samples in a row were at or above the threshold.
    AtThreshold {
        /// What the last of them measured, in bytes.
        measured_bytes: u64,
        /// The threshold, in bytes.
        threshold_bytes: u64,
    },
    /// One sample was at or above critical.
    AtCritical {
        /// What it measured, in bytes.
        measured_bytes: u64,
        /// The critical mark, in bytes.
        critical_bytes: u64,
    },
    /// Less was left around us than is needed at once (critical) or twice that
    /// (aggressive).
    LittleHeadroom {
        /// What was left, in bytes.
        headroom_bytes: u64,
        /// What there should be, in bytes.
        wanted_bytes: u64,
    },
    /// The system asked for memory back while not little was held.
    Notified {
        /// What was held, in bytes.
        measured_bytes: u64,
    },
    /// The kernel killed a process of our group.
    OomKilled,
    /// Reading became slow while not little was held.
    SlowReads {
        /// What was held, in bytes.
        measured_bytes: u64,
    },
    /// The measure stayed below the mark for leaving the mode, and nothing else
    /// spoke against it.
    StayedBelow {
        /// What the last sample measured, in bytes.
        measured_bytes: u64,
        /// The mark, in bytes.
        mark_bytes: u64,
        /// How long it stayed below.
        lasted: Duration,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Reason::AtThreshold {
                measured_bytes,
                threshold_bytes,
            } => write!(
                f,
                "{} reached the threshold of {}",
                Size(measured_bytes),
                Size(threshold_bytes)
            ),
            Reason::AtCritical {
                measured_bytes,
                critical_bytes,
            } => write!(
                f,
                "{} reached the critical mark of {}",
                Size(measured_bytes),
                Size(critical_bytes)
            ),
            Reason::LittleHeadroom {
                headroom_bytes,
                wanted_bytes,
            } => write!(
                f,
                "{} left around us, {} wanted",
                Size(headroom_bytes),
                Size(wanted_bytes)
            ),
            Reason::Notified { measured_bytes } => write!(
                f,
                "the system asked for memory back while {} were held",
                Size(measured_bytes)
            ),
            Reason::OomKilled => f.write_str("the kernel killed a process of our group"),
            Reason::SlowReads { measured_bytes } => write!(
                f,
                "reading became slow while {} were held",
                Size(measured_bytes)
            ),
            Reason::StayedBelow {
                measured_bytes,
                mark_bytes,
                lasted,
            } => write!(
                f,
                "{} after {:.1} s below {}",
                Size(measured_bytes),
                lasted.as_secs_f64(),
                Size(mark_bytes)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_its_numbers() {
        let reason = Reason::StayedBelow {
            measured_bytes: 10 << 20,
            mark_bytes: 24 << 20,
            lasted: Duration::from_millis(2050),
        };
        assert_eq!(reason.to_string(), "10 MiB after 2.0 s below 24 MiB");
        let reason = Reason::AtThreshold {
            measured_bytes: 17 << 20,
            threshold_bytes: 16 << 20,
        };
        assert_eq!(reason.to_string(), "17 MiB reached the threshold of 16 MiB");
        let reason = Reason::LittleHeadroom {
            headroom_bytes: 3 << 20,
            wanted_bytes: 14 << 20,
        };
        assert_eq!(reason.to_string(), "3 MiB left around us, 14 MiB wanted");
    }
}
