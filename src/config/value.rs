//! Values as text: how sizes, times and shares are read and written.
//!
//! What is written reads back as the same value, so that `config show` can be pasted into a file.
//! Ranges are not known here; they stand in the table of `rule`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// A limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Found from the cgroup, the rlimit and the memory of the machine.
    Auto,
    /// This much.
    Size(ByteSize),
}

/// A number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// Found from the processors filed may use.
    Auto,
    /// This many.
    Count(u16),
}

/// How fast something may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Not at all.
    Off,
    /// This much each second.
    PerSecond(ByteSize),
}

/// Where metrics can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    /// Nowhere.
    Off,
    /// At this address of the machine itself. Of port 0 the kernel makes one that is free.
    At(SocketAddr),
}

/// A share of something, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

impl Percent {
    /// This share of `whole`, rounded down to a byte.
    pub fn of(self, whole: ByteSize) -> ByteSize {
        let share_bytes = u128::from(whole.as_u64()) * u128::from(self.0) / 100;
        ByteSize(u64::try_from(share_bytes).unwrap_or(u64::MAX))
    }
}

/// A text that is not a value of the wanted type. The rule of the key says what is allowed.
#[derive(Debug, thiserror::Error)]
#[error("not a value of this type")]
pub struct NotAValue;

/// Reads a size: bytes, or a number with a unit.
///
/// `K`, `M`, `G`, `T` alone are powers of 1024, as in systemd's `MemoryMax=`: whoever writes the
/// same `512M` in both places must get the same number. `KB`, `MB`, `GB` are powers of 1000.
/// A number too large for 64 bits becomes the largest, which is out of every range.
pub(super) fn parse_size(text: &str) -> Result<ByteSize, NotAValue> {
    let text = text.trim();
    let bare_prefix = text.ends_with(|c: char| "kmgtpe".contains(c.to_ascii_lowercase()));
    let parsed = if bare_prefix {
        format!("{text}iB").parse()
    } else {
        text.parse()
    };
    parsed.map_err(|_| NotAValue)
}

/// Writes a size in the largest binary unit that says it exactly.
pub(super) fn format_size(size: ByteSize) -> String {
    let bytes = size.as_u64();
    let units = [
        (bytesize::EIB, "EiB"),
        (bytesize::PIB, "PiB"),
        (bytesize::TIB, "TiB"),
        (bytesize::GIB, "GiB"),
        (bytesize::MIB, "MiB"),
        (bytesize::KIB, "KiB"),
    ];
    units
        .iter()
        .find(|(unit_bytes, _)| bytes > 0 && bytes.is_multiple_of(*unit_bytes))
        .map_or_else(
            || format!("{bytes} B"),
            |(unit_bytes, name)| format!("{} {name}", bytes / unit_bytes),
        )
}

/// The longest text taken for a time. humantime 2.4 panics where seconds and nanoseconds together
/// overflow ("18446744073709551615s 1000ms"); nothing this short can say so large a time.
const LONGEST_TIME: usize = 20;

/// Reads a time such as `5s`, `100ms`, `1h 30m`. Zero needs no unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, NotAValue> {
    let text = text.trim();
    if text.len() > LONGEST_TIME {
        return Err(NotAValue);
    }
    humantime::parse_duration(text).map_err(|_| NotAValue)
}

/// Writes a time in the form [`parse_duration`] reads. Nothing is longer than a day here: months and
/// years have no fixed length.
pub(super) fn format_duration(time: Duration) -> String {
    let days = time.as_secs() / Duration::from_hours(24).as_secs();
    let rest = time.saturating_sub(Duration::from_hours(24 * days));
    let rest_text = humantime::format_duration(rest);
    match days {
        0 => rest_text.to_string(),
        _ if rest.is_zero() => format!("{days}d"),
        _ => format!("{days}d {rest_text}"),
    }
}

impl FromStr for Limit {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            size => parse_size(size).map(Self::Size),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Size(size) => f.write_str(&format_size(*size)),
        }
    }
}

impl FromStr for Workers {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            count => count.parse().map(Self::Count).map_err(|_| NotAValue),
        }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl FromStr for Rate {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        match text.trim() {
            "off" => Ok(Self::Off),
            size => parse_size(size).map(Self::PerSecond),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::PerSecond(size) => f.write_str(&format_size(*size)),
        }
    }
}

impl FromStr for Metrics {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        match text.trim() {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| NotAValue),
        }
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for Percent {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let number = text.trim().strip_suffix('%').ok_or(NotAValue)?;
        number.trim().parse().map(Self).map_err(|_| NotAValue)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bare_prefix_means_1024_and_decimal_unit_means_1000() {
        assert_eq!(parse_size("512M").unwrap(), ByteSize::mib(512));
        assert_eq!(parse_size("512 m").unwrap(), ByteSize::mib(512));
        assert_eq!(parse_size("512 MiB").unwrap(), ByteSize::mib(512));
        assert_eq!(parse_size("512 MB").unwrap(), ByteSize::mb(512));
        assert_eq!(parse_size("1.5 GiB").unwrap(), ByteSize::mib(1536));
        assert_eq!(parse_size("1048576").unwrap(), ByteSize::mib(1));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            " ",
            "lots",
            "MiB",
            "-5",
            "1.2.3 MiB",
            "1e3",
            "5 miles",
            "1.5",
        ] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn time_that_overflows_is_refused_instead_of_a_panic() {
        assert!(parse_duration("18446744073709551615s 1000ms").is_err());
    }

    #[test]
    fn time_without_unit_is_refused_unless_zero() {
        assert!(parse_duration("5").is_err());
        assert_eq!(parse_duration("0").unwrap(), Duration::ZERO);
    }

    #[test]
    fn long_times_are_written_in_days() {
        for text in ["30d", "3650d", "1d 1h", "1d 100ms", "0s", "23h 59m 59s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn what_can_be_off_reads_back_as_written() {
        for text in ["off", "8 MiB"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["off", "127.0.0.1:9184", "[::1]:9184"] {
            assert_eq!(text.parse::<Metrics>().unwrap().to_string(), text);
        }
        for text in ["", "on", "localhost:9184", "127.0.0.1", "::1:9184", ":9184"] {
            assert!(text.parse::<Metrics>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn percent_needs_its_sign() {
        assert_eq!("80 %".parse::<Percent>().unwrap(), Percent(80));
        assert_eq!("80%".parse::<Percent>().unwrap(), Percent(80));
        assert!("80".parse::<Percent>().is_err());
        assert!("300 %".parse::<Percent>().is_err());
    }

    #[test]
    fn percent_of_the_largest_size_does_not_overflow() {
        assert_eq!(Percent(100).of(ByteSize(u64::MAX)), ByteSize(u64::MAX));
        assert_eq!(Percent(80).of(ByteSize::gib(1)), ByteSize(858_993_459));
    }

    proptest! {
        #[test]
        fn every_size_reads_back_as_written(bytes: u64) {
            prop_assert_eq!(parse_size(&format_size(ByteSize(bytes))).unwrap(), ByteSize(bytes));
        }

        #[test]
        fn times_in_use_read_back_as_written(millis in 0_u64..=3_600_000) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(time)).unwrap(), time);
        }

        #[test]
        fn long_times_read_back_as_written(seconds in 0_u64..=3650 * 86_400) {
            let time = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&format_duration(time)).unwrap(), time);
        }

        #[test]
        fn no_text_makes_reading_panic(text in "[0-9smhdwyMuns .%-]{0,40}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
            let _ = text.parse::<Percent>();
        }
    }
}
