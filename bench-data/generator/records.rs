//! Rows of CSV and of JSON Lines, in sections: what an export of a database looks like.

use super::Stream;
use super::line::{Clock, Line};
use super::random::Random;

const HEADER: &str = "id,created,customer,country,product,quantity,price,currency,state\n";
const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "JP", "BR", "IN", "KE", "NZ"];
const CURRENCIES: [&str; 4] = ["EUR", "USD", "JPY", "INR"];
const STATES: [&str; 4] = ["paid", "shipped", "open", "returned"];
const PRODUCTS: [&str; 8] = [
    "desk lamp",
    "\"cable, 2 m\"",
    "notebook A5",
    "keyboard",
    "water bottle",
    "\"shelf, oak\"",
    "backpack",
    "monitor arm",
];

/// How the rows of a section are written.
#[derive(Clone, Copy)]
enum Format {
    Csv,
    Json,
}

/// An export of orders.
pub(super) struct Records {
    random: Random,
    clock: Clock,
    /// Identifier of the last row.
    id: u64,
    format: Format,
    /// Rows until the section ends.
    rows_left: u64,
}

impl Records {
    pub(super) fn new(mut random: Random) -> Records {
        let clock = Clock::start(&mut random);
        let id = random.below(1_000_000);
        Records {
            random,
            clock,
            id,
            format: Format::Json,
            rows_left: 0,
        }
    }

    fn begin_section(&mut self, out: &mut Vec<u8>) {
        self.rows_left = self.random.between(500, 4000);
        self.format = match self.format {
            Format::Csv => Format::Json,
            Format::Json => {
                out.extend_from_slice(HEADER.as_bytes());
                Format::Csv
            }
        };
    }

    fn csv_row(&mut self, mut line: Line<'_>) {
        let random = &mut self.random;
        line.decimal(self.id).text(",").time(&self.clock);
        line.text(",").decimal(random.mostly_small(50_000));
        line.text(",").text(random.pick_early(&COUNTRIES));
        line.text(",").text(random.pick_early(&PRODUCTS));
        line.text(",").decimal(random.mostly_small(12) + 1);
        line.text(",").hundredths(random.mostly_small(90_000));
        line.text(",").text(random.pick_early(&CURRENCIES));
        line.text(",").text(random.pick_early(&STATES)).text("\n");
    }

    fn json_row(&mut self, mut line: Line<'_>) {
        let random = &mut self.random;
        line.text("{\"id\":")
            .decimal(self.id)
            .text(",\"created\":\"")
            .time(&self.clock);
        line.text("\",\"customer\":{\"id\":")
            .decimal(random.mostly_small(50_000));
        line.text(",\"country\":\"")
            .text(random.pick_early(&COUNTRIES))
            .text("\"},\"items\":[");
        for item in 0..random.between(1, 4) {
            line.text(if item == 0 { "" } else { "," });
            line.text("{\"product\":\"")
                .text(random.pick_early(&PRODUCTS).trim_matches('"'));
            line.text("\",\"quantity\":")
                .decimal(random.mostly_small(12) + 1);
            line.text(",\"price\":")
                .hundredths(random.mostly_small(90_000))
                .text("}");
        }
        line.text("],\"currency\":\"")
            .text(random.pick_early(&CURRENCIES));
        line.text("\",\"state\":\"")
            .text(random.pick_early(&STATES))
            .text("\"}\n");
    }
}

impl Stream for Records {
    fn append(&mut self, out: &mut Vec<u8>) {
        if self.rows_left == 0 {
            self.begin_section(out);
        }
        self.rows_left -= 1;
        self.id += self.random.between(1, 3);
        self.clock.advance(self.random.mostly_small(20_000));
        match self.format {
            Format::Csv => self.csv_row(Line(out)),
            Format::Json => self.json_row(Line(out)),
        }
    }
}
