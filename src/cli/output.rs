//! Printing: one line an error, sizes and rates a person reads, JSON Lines for programs.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

/// Prints a line of JSON on stdout. A reader that has gone away is no error of ours: it ends the
/// process quietly, as it would any filter.
pub(super) fn json_line(value: &impl Serialize) {
    let mut line = match serde_json::to_vec(value) {
        Ok(line) => line,
        Err(error) => return warn(&format_args!("cannot print as JSON: {error}")),
    };
    line.push(b'\n');
    print_bytes(&line);
}

/// Prints text on stdout.
pub(super) fn print(text: &str) {
    print_bytes(text.as_bytes());
}

fn print_bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            warn(&format_args!("write to standard output: {error}"));
        }
        std::process::exit(if error.kind() == io::ErrorKind::BrokenPipe {
            141
        } else {
            1
        });
    }
}

/// Prints a line on stderr, whatever is in it. It is written at once: stderr has no buffer, and what
/// several processes write to one journal or file must not run into each other.
pub(super) fn warn(message: &dyn Display) {
    let line = format!("filed: {}\n", OneLine(message));
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Text without characters that would break the line or command the terminal.
struct OneLine<'a>(&'a dyn Display);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.to_string().chars() {
            if character.is_control() {
                write!(f, "\\x{:02x}", u32::from(character))?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// A size in binary units, three digits or so.
pub(super) struct Size(pub u64);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// A rate in MB/s, as the peers of this field print it.
pub(super) struct Rate {
    /// Bytes.
    pub bytes: u64,
    /// In this time.
    pub took: Duration,
}

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64().max(1e-6);
        write!(f, "{:.0} MB/s", self.bytes as f64 / 1e6 / seconds)
    }
}

/// A count with thousands apart.
pub(super) struct Count(pub u64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// How much smaller `stored` is than `plain`; nothing where there is nothing to compare.
pub(super) fn ratio(plain: u64, stored: u64) -> String {
    if plain == 0 || stored == 0 {
        return String::new();
    }
    format!("{:.2} x smaller", plain as f64 / stored as f64)
}

/// Nanoseconds since 1970 as local time.
pub(super) fn time(ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(time) => {
            let local = time.to_zoned(jiff::tz::TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => ns.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stay_short() {
        let shown = |bytes| Size(bytes).to_string();
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(1024), "1.0 KiB");
        assert_eq!(shown((1 << 20) - 1), "1.0 MiB");
        assert_eq!(shown(1_361_950_720), "1.3 GiB");
        assert_eq!(shown(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(Count(0).to_string(), "0");
        assert_eq!(Count(999).to_string(), "999");
        assert_eq!(Count(1_234_567).to_string(), "1,234,567");
    }

    #[test]
    fn a_message_stays_on_one_line() {
        assert_eq!(OneLine(&"a\nb\u{1b}[2J").to_string(), "a\\x0ab\\x1b[2J");
    }
}
