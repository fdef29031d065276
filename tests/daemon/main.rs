//! `filed serve` as its users meet it: the built program, started as a service in a folder of its own, and
//! talked to over its socket, by hand and with its own commands.
//!
//! * `life`: start, stop, and what keeps a service from starting.
//! * `drain`: what a stop does to files that are being taken in.
//! * `reload`: a changed configuration, good and bad.
//! * `killed`: SIGKILL in every state of a job, and again and again.
//! * `jobs`: many of them, priorities, cancelling, retrying, failing, the bounds of queue and history.
//! * `rights`: who may do what (needs root, says so if it is not).
//! * `hostile`: clients that are slow, many, or make no sense.
//! * `streams`: one large file in and out; 1 GiB, or 4 GiB where `FILED_TEST_FULL=1` is set.
//! * `disk`: a store that cannot be written for a while (in part needs root, says so if it is not).
//! * `beside`: `filed process` in the same store, pausing, signals.
//! * `inbox`: folders whose files are taken in by themselves, 100,000 at once among them.
//! * `scrub`: damage that is found, told of and healed; a heap that is renewed.
//! * `idle`: what a service costs that has nothing to do.
//!
//! The rest is what these are made with: `service` starts the program and looks at it, `http` talks to its
//! socket, `content` makes files.
//!
//! Nothing here fails because a machine is slow: what is waited for is waited for until it is there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod beside;
#[path = "../crash/content.rs"]
mod content;
mod disk;
mod drain;
mod hostile;
mod http;
mod idle;
mod inbox;
mod jobs;
mod killed;
mod life;
mod reload;
mod rights;
mod scrub;
mod service;
mod streams;
