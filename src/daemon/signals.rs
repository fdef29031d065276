//! Signals that ask the process to stop or to read its configuration again, heard on a thread of their
//! own.

use std::fs::File;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tokio::sync::mpsc;

/// More signals than this at once are as good as this many.
const QUEUE: usize = 4;

/// Ends the listening, and the thread, when dropped.
pub(super) struct Listening(Handle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Starts listening. Each signal arrives once.
pub(super) fn listen() -> std::io::Result<(Listening, mpsc::Receiver<i32>)> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let listening = Listening(signals.handle());
    let (heard, hears) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name("filed-signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                // Full or closed: those who could act have enough signals already, or none is left.
                let _ = heard.try_send(signal);
            }
        })?;
    Ok((listening, hears))
}

/// Whether this signal asks for the configuration to be read again. To a process with a terminal it
/// says that the terminal is gone, which ends it.
pub(super) fn is_reload(signal: i32) -> bool {
    signal == SIGHUP && File::open("/dev/tty").is_err()
}
