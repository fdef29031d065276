//! Writing lines of text, fast: what `format!` does for us elsewhere would take most of the time
//! here.

use std::str;

use super::random::Random;

/// A line in the making, at the end of a buffer.
pub(super) struct Line<'a>(pub(super) &'a mut Vec<u8>);

impl Line<'_> {
    /// Appends `text` as it is.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Appends `number` in decimal.
    pub(super) fn decimal(&mut self, number: u64) -> &mut Self {
        self.padded(number, 1)
    }

    /// Appends `number` in decimal, with zeros in front up to `width` digits, at most 20.
    pub(super) fn padded(&mut self, mut number: u64, width: usize) -> &mut Self {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        while number > 0 {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        let start = start.min(digits.len() - width);
        self.0.extend_from_slice(&digits[start..]);
        self
    }

    /// Appends an amount in hundredths as `12.34`.
    pub(super) fn hundredths(&mut self, amount: u64) -> &mut Self {
        self.decimal(amount / 100).text(".").padded(amount % 100, 2)
    }

    /// Appends `number` in 16 hexadecimal digits.
    pub(super) fn hex(&mut self, number: u64) -> &mut Self {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let digits: [u8; 16] =
            std::array::from_fn(|at| DIGITS[(number >> (60 - 4 * at)) as usize & 15]);
        self.0.extend_from_slice(&digits);
        self
    }

    /// Appends an address of a private network.
    pub(super) fn address(&mut self, random: &mut Random) -> &mut Self {
        self.text("10.").decimal(random.mostly_small(8));
        self.text(".").decimal(random.mostly_small(64));
        self.text(".").decimal(random.below(256))
    }

    /// Appends the time of `clock` as `2026-03-01T00:00:00.000Z`.
    pub(super) fn time(&mut self, clock: &Clock) -> &mut Self {
        let seconds = clock.ms_of_day / 1000;
        self.text(clock.date_text());
        self.text("T").padded(seconds / 3600, 2);
        self.text(":").padded(seconds / 60 % 60, 2);
        self.text(":").padded(seconds % 60, 2);
        self.text(".").padded(clock.ms_of_day % 1000, 3).text("Z")
    }

    /// Appends the date of `clock` as `2026-03-01`.
    pub(super) fn date(&mut self, clock: &Clock) -> &mut Self {
        self.text(clock.date_text())
    }
}

/// The time in the data, which has nothing to do with the time it is made at.
pub(super) struct Clock {
    year: u64,
    month: u64,
    day: u64,
    ms_of_day: u64,
    date: [u8; DATE_BYTES],
}

const DATE_BYTES: usize = "2026-03-01".len();
const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

impl Clock {
    /// Midnight of a day that `random` chooses.
    pub(super) fn start(random: &mut Random) -> Clock {
        let mut clock = Clock {
            year: 2026,
            month: random.between(1, 12),
            day: random.between(1, 28),
            ms_of_day: 0,
            date: [0; DATE_BYTES],
        };
        clock.render_date();
        clock
    }

    /// Goes on by `ms` milliseconds.
    pub(super) fn advance(&mut self, ms: u64) {
        self.ms_of_day += ms;
        while self.ms_of_day >= MS_PER_DAY {
            self.ms_of_day -= MS_PER_DAY;
            self.begin_next_day();
        }
    }

    fn begin_next_day(&mut self) {
        self.day += 1;
        if self.day > days_in(self.year, self.month) {
            (self.month, self.day) = (self.month + 1, 1);
        }
        if self.month > 12 {
            (self.year, self.month) = (self.year + 1, 1);
        }
        self.render_date();
    }

    fn render_date(&mut self) {
        let mut text = Vec::with_capacity(DATE_BYTES);
        let mut line = Line(&mut text);
        line.padded(self.year % 10_000, 4)
            .text("-")
            .padded(self.month, 2);
        line.text("-").padded(self.day, 2);
        self.date.copy_from_slice(&text);
    }

    fn date_text(&self) -> &str {
        str::from_utf8(&self.date).expect("digits and hyphens are UTF-8")
    }
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(make: impl FnOnce(&mut Line<'_>)) -> String {
        let mut out = Vec::new();
        make(&mut Line(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_format_writes_them() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            assert_eq!(made(|line| _ = line.decimal(number)), format!("{number}"));
            assert_eq!(
                made(|line| _ = line.padded(number, 4)),
                format!("{number:04}")
            );
            assert_eq!(made(|line| _ = line.hex(number)), format!("{number:016x}"));
        }
        assert_eq!(made(|line| _ = line.hundredths(1205)), "12.05");
    }

    #[test]
    fn clock_knows_leap_years_and_the_end_of_the_year() {
        let mut clock = Clock {
            year: 2028,
            month: 2,
            day: 28,
            ..Clock::start(&mut Random::new(1))
        };
        clock.advance(MS_PER_DAY + 3_723_004);
        assert_eq!(
            made(|line| _ = line.time(&clock)),
            "2028-02-29T01:02:03.004Z"
        );
        clock.advance(MS_PER_DAY);
        assert_eq!(made(|line| _ = line.date(&clock)), "2028-03-01");
        clock.advance(306 * MS_PER_DAY);
        assert_eq!(made(|line| _ = line.date(&clock)), "2029-01-01");
    }
}
