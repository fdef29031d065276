//! What the cache's thread is asked and told.
//!
//! Bounded by itself: an asker waits for its answer before it asks again, and orders of one kind are
//! one order. Orders go before questions, so that one waits for the chunk at hand at most. Looks at the
//! heap, which may walk all of it, take turns with questions: however many there are, files go on.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Pacing;
use crate::heap::{Heap, Trim};
use crate::store::{PackId, PieceId, PiecePlace, StoreError};

type Answer = Result<Vec<Option<PiecePlace>>, StoreError>;

/// Questions of one chunk.
pub(super) struct Ask {
    pub pieces: Vec<PieceId>,
    pub reply: Arc<Reply>,
}

/// What is to be done besides answering.
#[derive(Default)]
pub(super) struct Orders {
    pub limit_changed: bool,
    pub collect: bool,
    pub renew: bool,
    pub pacing: Option<Pacing>,
    pub trim: Option<Trim>,
    /// Packs whose lists are not to be believed any more, each once.
    pub forget: Vec<PackId>,
    given: bool,
}

/// Something to look at on the heap, or to do with it, on its thread.
pub type Examine = Box<dyn FnOnce(&Heap) + Send>;

/// What the thread does next.
pub(super) enum Task {
    Ask(Ask),
    Orders(Orders),
    Examine(Examine),
}

/// Where an asker waits.
#[derive(Default)]
pub(super) struct Reply {
    answer: Mutex<Option<Option<Answer>>>,
    given: Condvar,
}

impl Reply {
    pub(super) fn give(&self, answer: Answer) {
        self.put(Some(answer));
    }

    fn put(&self, answer: Option<Answer>) {
        *lock(&self.answer) = Some(answer);
        self.given.notify_one();
    }

    /// Waits for the answer; none if nobody will give it any more.
    pub(super) fn wait(&self) -> Option<Answer> {
        let mut answer = lock(&self.answer);
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            answer = self
                .given
                .wait(answer)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The queue between askers, those who give orders, and the thread.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    asks: VecDeque<Ask>,
    orders: Orders,
    examine: VecDeque<Examine>,
    /// The last turn was a look at the heap: the next is a question's.
    examined: bool,
    open: bool,
}

impl Inbox {
    /// Begins to take questions.
    pub(super) fn open(&self) {
        lock(&self.state).open = true;
    }

    /// Ends the service: whoever waits or asks from now on is told so.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.open = false;
        let asks = std::mem::take(&mut state.asks);
        let examine = std::mem::take(&mut state.examine);
        drop(state);
        drop(examine);
        for ask in asks {
            ask.reply.put(None);
        }
        self.came.notify_all();
    }

    /// Asks; the answer is to be waited for. False if nobody will answer any more.
    pub(super) fn ask(&self, pieces: Vec<PieceId>, reply: &Arc<Reply>) -> bool {
        let mut state = lock(&self.state);
        if !state.open {
            return false;
        }
        state.asks.push_back(Ask {
            pieces,
            reply: Arc::clone(reply),
        });
        drop(state);
        self.came.notify_one();
        true
    }

    /// Has the heap examined; not at all if the thread has ended.
    pub(super) fn examine(&self, examine: Examine) {
        let mut state = lock(&self.state);
        if state.open {
            state.examine.push_back(examine);
        }
        drop(state);
        self.came.notify_one();
    }

    /// Adds to the orders that have not been carried out yet.
    pub(super) fn order(&self, add: impl FnOnce(&mut Orders)) {
        let mut state = lock(&self.state);
        add(&mut state.orders);
        state.orders.given = true;
        drop(state);
        self.came.notify_one();
    }

    /// Waits for the next task; none when the service has ended.
    pub(super) fn next(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            if !state.open {
                return None;
            }
            if state.orders.given {
                return Some(Task::Orders(std::mem::take(&mut state.orders)));
            }
            let asked = !state.asks.is_empty();
            if !(state.examined && asked)
                && let Some(examine) = state.examine.pop_front()
            {
                state.examined = true;
                return Some(Task::Examine(examine));
            }
            if let Some(ask) = state.asks.pop_front() {
                state.examined = false;
                return Some(Task::Ask(ask));
            }
            state = self
                .came
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Nothing that can panic happens while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_the_heap_take_turns_with_questions_and_orders_go_first() {
        let inbox = Inbox::default();
        inbox.open();
        for _ in 0..3 {
            inbox.examine(Box::new(|_| ()));
        }
        for _ in 0..2 {
            assert!(inbox.ask(Vec::new(), &Arc::default()));
        }
        inbox.order(|orders| orders.collect = true);
        let turns = (0..6).map(|_| match inbox.next() {
            Some(Task::Orders(_)) => "order",
            Some(Task::Examine(_)) => "look",
            Some(Task::Ask(_)) => "question",
            None => "end",
        });
        let turns: Vec<_> = turns.collect();
        assert_eq!(
            turns,
            ["order", "look", "question", "look", "question", "look"]
        );
        // With nobody to take turns with, they do not wait.
        for _ in 0..2 {
            inbox.examine(Box::new(|_| ()));
            assert!(matches!(inbox.next(), Some(Task::Examine(_))));
        }
    }
}
