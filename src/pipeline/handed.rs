//! A stream that another thread hands in, chunk by chunk, in buffers of the heap.
//!
//! The giving end fills a buffer and pushes it; the taking end is a stream of the data plane. At most one
//! whole chunk waits between the two, so whoever gives is held back by whoever takes, and a giver that is
//! slow keeps no worker waiting: its stream has a chunk for them or is passed over. The rule: content
//! counts as whole only if the giver said so; one that went away has handed in nothing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::source::ReadError;
use crate::heap::Buffer;

/// A pair: who gives and who takes.
pub fn handing() -> (Giving, Taking) {
    let shared = Arc::new(Shared::default());
    (Giving(Arc::clone(&shared)), Taking(shared))
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The chunk was taken, or never will be.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    /// A chunk and how much of the buffer is content.
    chunk: Option<(Buffer, usize)>,
    /// No chunk comes after this one.
    ended: bool,
    /// The giver went away before the end.
    broken: bool,
    /// Nobody takes any more.
    refused: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The giving end. Dropped before [`finish`](Giving::finish), the stream is broken off.
pub struct Giving(Arc<Shared>);

/// Nobody takes any more: the stream has failed, or was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("nobody takes the stream any more")]
pub struct Refused;

impl Giving {
    /// Gives the first `length` bytes of a buffer: a whole chunk, but for the last. Waits until the chunk
    /// before has been taken.
    ///
    /// # Errors
    ///
    /// When nobody takes it any more.
    pub fn give(&self, buffer: Buffer, length: usize) -> Result<(), Refused> {
        let mut state = self.0.state();
        while state.chunk.is_some() && !state.refused {
            let waited = self.0.taken.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if state.refused {
            return Err(Refused);
        }
        state.chunk = Some((buffer, length));
        Ok(())
    }

    /// Says that all has been offered.
    pub fn finish(self) {
        self.0.state().ended = true;
    }
}

impl Drop for Giving {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.broken |= !state.ended;
    }
}

/// The taking end.
pub struct Taking(Arc<Shared>);

impl std::fmt::Debug for Taking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Taking")
    }
}

impl Taking {
    /// Whether the next chunk, or the end, is there.
    pub(super) fn is_ready(&self) -> bool {
        let state = self.0.state();
        state.chunk.is_some() || state.ended || state.broken
    }

    /// Takes the chunk that is there into the beginning of `room`; gives its length, 0 at the end.
    pub(super) fn take(&self, room: &mut [u8]) -> Result<usize, ReadError> {
        let mut state = self.0.state();
        match state.chunk.take() {
            Some((buffer, length)) => {
                drop(state);
                self.0.taken.notify_all();
                room[..length].copy_from_slice(&buffer[..length]);
                Ok(length)
            }
            None if state.ended => Ok(0),
            // It is asked only when something is there, so a giver that is neither has gone.
            None => Err(ReadError::BrokenOff),
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.refused = true;
        let chunk = state.chunk.take();
        drop(state);
        self.0.taken.notify_all();
        drop(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Pool;

    fn chunk(pool: &Pool, byte: u8) -> Buffer {
        let mut buffer = pool.account("test").take(16).unwrap();
        buffer.fill(byte);
        buffer
    }

    #[test]
    fn a_second_chunk_waits_for_the_first_to_be_taken() {
        let pool = Pool::new(1 << 20);
        let (giving, taking) = handing();
        assert!(!taking.is_ready());
        giving.give(chunk(&pool, 1), 16).unwrap();
        let giver = std::thread::spawn(move || {
            giving.give(chunk(&pool, 2), 3).unwrap();
            giving.finish();
        });
        let mut room = [0; 32];
        assert_eq!(taking.take(&mut room).unwrap(), 16);
        assert_eq!(room[..16], [1; 16]);
        giver.join().unwrap();
        assert_eq!(taking.take(&mut room).unwrap(), 3);
        assert_eq!(taking.take(&mut room).unwrap(), 0);
    }

    #[test]
    fn a_giver_that_goes_away_has_handed_in_nothing() {
        let (giving, taking) = handing();
        drop(giving);
        assert!(taking.is_ready());
        assert!(matches!(
            taking.take(&mut [0; 4]),
            Err(ReadError::BrokenOff)
        ));
    }

    #[test]
    fn who_gives_hears_that_nobody_takes_any_more() {
        let pool = Pool::new(1 << 20);
        let (giving, taking) = handing();
        giving.give(chunk(&pool, 1), 16).unwrap();
        drop(taking);
        assert_eq!(giving.give(chunk(&pool, 1), 16), Err(Refused));
        assert_eq!(pool.stats().held_bytes, 0);
    }
}
