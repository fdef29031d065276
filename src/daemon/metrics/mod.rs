//! What monitoring reads: the counters of the service as OpenMetrics text.
//!
//! ```text
//!   board, pool, heap, progress, table of jobs ──> Seen (one scrape) ──> families ──> text
//! ```
//!
//! The rule: **nothing is counted here.** What a scrape says is read from the counters that exist anyway,
//! at that moment, each right by itself; so asking often changes nothing, and nobody who works waits for
//! whoever asks. What cannot be told (the table of jobs on a disk that fails) is left out, and the rest is
//! told all the same: that is when somebody looks.
//!
//! Names, units and meanings are in `config/monitoring/README.md`, which a test holds against this, as it
//! does the rules and the dashboard beside it. A name once given keeps its meaning.

mod page;
mod seen;
#[cfg(test)]
mod tests;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::service::Service;
use seen::Seen;

/// What the text says of itself.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of the service at this moment. May wait for the disk.
pub fn text(service: &Service) -> String {
    text_of(Seen::of(service))
}

fn text_of(seen: Seen) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(seen));
    let mut text = String::new();
    // Writing into memory does not fail.
    let _ = encode(&mut text, &registry);
    text
}
