//! Signals that ask the process to stop or to read its configuration again, heard on a thread of their
//! own.

use std::fs::{self, File};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tokio::sync::mpsc;

/// More signals than this at once are as good as this many.
const QUEUE: usize = 4;

/// Ends the listening, and the thread, when dropped.
pub(super) struct Listening {
    handle: Handle,
    has_terminal: bool,
}

impl Listening {
    /// Whether this signal asks for the configuration to be read again. To a process that was started
    /// with a terminal it says that the terminal is gone, which ends it.
    pub(super) fn is_reload(&self, signal: i32) -> bool {
        signal == SIGHUP && !self.has_terminal
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Starts listening, to `more` signals too. Each signal arrives once. Hanging up is left alone where whoever started us wants
/// that, as nohup does.
pub(super) fn listen(more: &[i32]) -> std::io::Result<(Listening, mpsc::Receiver<i32>)> {
    // Once it has hung up there is no telling any more.
    let has_terminal = File::open("/dev/tty").is_ok();
    let mut wanted = vec![SIGINT, SIGTERM];
    wanted.extend_from_slice(more);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !ignores_hangup(&status) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted)?;
    let (heard, hears) = mpsc::channel(QUEUE);
    let listening = Listening {
        handle: signals.handle(),
        has_terminal,
    };
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

/// What `/proc/self/status` says of SIGHUP: the lowest bit is that of signal 1.
fn ignores_hangup(status: &str) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u128::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_that_is_ignored_is_known_from_its_bit() {
        assert!(ignores_hangup("SigBlk:\t0\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup("SigIgn:\tx\n"));
        assert!(!ignores_hangup(""));
    }
}
