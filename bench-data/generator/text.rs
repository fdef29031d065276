//! Log lines of a service that takes in files: a few shapes of line that come again and again, with
//! numbers, addresses and identifiers that do not.

use super::Stream;
use super::line::{Clock, Line};
use super::random::Random;

const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const RESOURCES: [&str; 6] = [
    "orders",
    "customers",
    "invoices",
    "images",
    "sessions",
    "reports",
];
const STATUSES: [&str; 8] = ["200", "200", "200", "201", "304", "404", "403", "500"];
const QUEUES: [&str; 4] = ["thumbnails", "mail", "billing", "search-index"];
const STATES: [&str; 4] = ["finished", "started", "queued", "retried"];
const USERS: [&str; 8] = [
    "anna", "bela", "chen", "dara", "emil", "femi", "gita", "hugo",
];
const REASONS: [&str; 3] = ["wrong password", "account locked", "token expired"];
const ENDINGS: [&str; 5] = ["pdf", "jpg", "csv", "tar.zst", "mp4"];
const QUERIES: [&str; 3] = [
    "SELECT id, state, total FROM orders WHERE customer = $1 ORDER BY created DESC LIMIT 50",
    "UPDATE invoices SET state = $1, changed = now() WHERE id = $2 AND state <> $1",
    "SELECT c.id, c.name, sum(o.total) FROM customers c JOIN orders o ON o.customer = c.id",
];
const FAILURES: [&str; 3] = [
    "connection reset by peer",
    "no space left on device",
    "deadline exceeded after 30 s",
];
const FRAMES: [&str; 6] = [
    "    at queue::worker::run (src/queue/worker.rs:",
    "    at orders::checkout::confirm (src/orders/checkout.rs:",
    "    at storage::upload::finish (src/storage/upload.rs:",
    "    at billing::invoice::render (src/billing/invoice.rs:",
    "    at http::connection::serve (src/http/connection.rs:",
    "    at database::pool::acquire (src/database/pool.rs:",
];

/// The log of one service.
pub(super) struct Text {
    random: Random,
    clock: Clock,
    /// Identifier of the last job begun.
    job: u64,
}

impl Text {
    pub(super) fn new(mut random: Random) -> Text {
        let clock = Clock::start(&mut random);
        Text {
            random,
            clock,
            job: 48_000,
        }
    }

    fn request(&mut self, mut line: Line<'_>) {
        let random = &mut self.random;
        line.text(" INFO  gateway[1873]: request=")
            .hex(random.number());
        line.text(" client=").address(random);
        line.text(" method=").text(random.pick_early(&METHODS));
        line.text(" path=/api/v1/")
            .text(random.pick_early(&RESOURCES));
        line.text("/").decimal(random.mostly_small(100_000));
        line.text(" status=").text(random.pick_early(&STATUSES));
        line.text(" bytes=").decimal(random.mostly_small(200_000));
        line.text(" duration_us=")
            .decimal(300 + random.mostly_small(90_000))
            .text("\n");
    }

    fn upload(&mut self, mut line: Line<'_>) {
        let random = &mut self.random;
        line.text(" INFO  ingest[2044]: stored path=\"/srv/uploads/")
            .date(&self.clock);
        line.text("/").text(random.pick_early(&USERS));
        line.text("/").decimal(random.below(1_000_000));
        line.text(".").text(random.pick_early(&ENDINGS));
        line.text("\" bytes=")
            .decimal(random.mostly_small(4_000_000_000));
        line.text(" new_bytes=")
            .decimal(random.mostly_small(100_000_000));
        line.text(" digest=").hex(random.number()).text("\n");
    }

    fn job(&mut self, mut line: Line<'_>) {
        let random = &mut self.random;
        self.job += random.below(3);
        line.text(" DEBUG worker[").decimal(3300 + random.below(8));
        line.text("]: job=").decimal(self.job);
        line.text(" queue=").text(random.pick_early(&QUEUES));
        line.text(" state=").text(random.pick_early(&STATES));
        line.text(" waited_ms=").decimal(random.mostly_small(2000));
        line.text(" ran_ms=")
            .decimal(random.mostly_small(30_000))
            .text("\n");
    }

    fn slow_query(&mut self, mut line: Line<'_>) {
        let random = &mut self.random;
        line.text(" WARN  database[1201]: slow query took_ms=");
        line.decimal(200 + random.mostly_small(5000));
        line.text(" rows=").decimal(random.mostly_small(10_000));
        line.text(" query=\"")
            .text(random.pick(&QUERIES))
            .text("\"\n");
    }

    fn refused_login(&mut self, mut line: Line<'_>) {
        let random = &mut self.random;
        line.text(" WARN  auth[977]: login refused user=")
            .text(random.pick(&USERS));
        line.text(" client=").address(random);
        line.text(" attempt=").decimal(random.between(1, 9));
        line.text(" reason=\"")
            .text(random.pick_early(&REASONS))
            .text("\"\n");
    }

    /// A failure, and where in the program it happened, on lines of their own.
    fn failure(&mut self, mut line: Line<'_>) {
        let random = &mut self.random;
        line.text(" ERROR worker[").decimal(3300 + random.below(8));
        line.text("]: job=").decimal(self.job);
        line.text(" failed: ")
            .text(random.pick(&FAILURES))
            .text("\n");
        for _ in 0..random.between(3, 8) {
            line.text(random.pick(&FRAMES))
                .decimal(random.between(10, 400))
                .text(")\n");
        }
    }
}

impl Stream for Text {
    fn append(&mut self, out: &mut Vec<u8>) {
        self.clock.advance(self.random.mostly_small(40));
        let mut line = Line(out);
        line.time(&self.clock);
        match self.random.below(100) {
            0..62 => self.request(line),
            62..74 => self.upload(line),
            74..88 => self.job(line),
            88..94 => self.slow_query(line),
            94..99 => self.refused_login(line),
            _ => self.failure(line),
        }
    }
}
