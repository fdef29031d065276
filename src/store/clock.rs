//! The time, as it is written down: nanoseconds since 1970.

use std::time::SystemTime;

/// Now; before 1970, 0.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}
