//! The thread `filed-inbox`: one turn after the other, and sleep when there is nothing to do.
//!
//! The rule: it waits in one place only, for events, for word from its owner or for the time of the next
//! thing to do, and never by looking again and again. In a turn each inbox gets its share, so that a
//! walk over a large one holds up none of the others.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::batch::Batch;
use super::folder::{Drawn, Inbox};
use super::watch::BUFFER_BYTES;
use super::{Ended, InboxOptions, InboxStats, Recipient, Shared, lock};

/// Steps of a walk in one turn.
const STEPS: usize = 512;
/// Rest after an error that nothing explains, so that it cannot keep a processor busy.
const REST: Duration = Duration::from_secs(1);

pub(super) fn spawn(
    shared: Arc<Shared>,
    recipient: Arc<dyn Recipient>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("filed-inbox".to_owned())
        .spawn(move || Worker::new(shared, recipient).run())
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    pub(super) inboxes: Vec<Inbox>,
    pub(super) batch: Batch,
    buffer: Vec<MaybeUninit<u8>>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, recipient: Arc<dyn Recipient>) -> Worker {
        Worker {
            shared,
            inboxes: Vec::new(),
            batch: Batch::new(recipient),
            buffer: vec![MaybeUninit::uninit(); BUFFER_BYTES],
        }
    }

    fn run(mut self) {
        while !self.is_stopped() {
            if !self.turn() {
                self.wait();
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Does what there is to do; whether there is more at once.
    pub(super) fn turn(&mut self) -> bool {
        self.hear();
        let has_room = self.batch.submit(Instant::now());
        for inbox in &mut self.inboxes {
            if has_room || !inbox.waiting.is_half_full() {
                inbox.read_events(&mut self.buffer, &mut self.batch, &self.shared.stop);
            }
        }
        let is_more = has_room && self.draw();
        for inbox in &self.inboxes {
            lock(&inbox.stats).waiting = inbox.waiting.len() as u64;
        }
        is_more
    }

    /// Draws files from each inbox in turn and submits them.
    fn draw(&mut self) -> bool {
        let mut is_more = false;
        for inbox in &mut self.inboxes {
            let mut steps = STEPS;
            loop {
                match inbox.draw(&mut steps, &mut self.batch, &self.shared.stop) {
                    Drawn::Nothing => break,
                    Drawn::More => {
                        is_more = true;
                        break;
                    }
                    Drawn::NoRoom => {
                        if !self.batch.submit(Instant::now()) {
                            return false;
                        }
                    }
                }
            }
        }
        self.batch.submit(Instant::now()) && is_more
    }

    /// Does what the owner wants.
    fn hear(&mut self) {
        // It says only that there may be mail.
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        let mail = std::mem::take(&mut *lock(&self.shared.mail));
        if let Some((options, every)) = mail.replace {
            self.replace(options, every);
        }
        self.end(mail.ended);
        if mail.rescan {
            self.inboxes.iter_mut().for_each(Inbox::walk_now);
        }
    }

    fn end(&mut self, ended: VecDeque<(PathBuf, Ended)>) {
        for (path, ended) in ended {
            if self.is_stopped() {
                return;
            }
            self.batch.hear_of_room(Instant::now());
            let own = self.inboxes.iter_mut().filter_map(|inbox| {
                let path = inbox.own(&path)?;
                Some((inbox, path))
            });
            // Of inboxes within each other, the innermost.
            if let Some((inbox, path)) = own.min_by_key(|(_, path)| path.components().count()) {
                inbox.end(path, ended, &mut self.batch, &self.shared.stop);
            }
        }
    }

    /// Has these inboxes instead; what is counted of a folder goes on.
    fn replace(&mut self, options: Vec<InboxOptions>, every: Duration) {
        let mut before = std::mem::take(&mut self.inboxes);
        for options in options {
            let same = before.iter().position(|inbox| inbox.options == options);
            if let Some(same) = same {
                let mut inbox = before.swap_remove(same);
                inbox.set_every(every);
                self.inboxes.push(inbox);
                continue;
            }
            let changed = before
                .iter()
                .position(|inbox| inbox.options.path == options.path)
                .map(|changed| before.swap_remove(changed));
            let stats = changed.map_or_else(
                || {
                    let path = options.path.clone();
                    Arc::new(
                        InboxStats {
                            path,
                            ..InboxStats::default()
                        }
                        .into(),
                    )
                },
                |inbox| inbox.stats,
            );
            self.inboxes.push(Inbox::new(options, every, stats));
        }
        let inboxes = &self.inboxes;
        self.batch
            .retain(|job| inboxes.iter().any(|inbox| inbox.origin == job.origin));
        *lock(&self.shared.stats) = inboxes
            .iter()
            .map(|inbox| Arc::clone(&inbox.stats))
            .collect();
    }

    /// When there is something to do, if nothing happens before.
    fn next(&self) -> Option<Instant> {
        match self.batch.full_until() {
            Some(until) => Some(until),
            None => self.inboxes.iter().filter_map(Inbox::next).min(),
        }
    }

    fn wait(&self) {
        let timeout = self
            .next()
            .map(|next| next.saturating_duration_since(Instant::now()))
            .and_then(|wait| Timespec::try_from(wait).ok());
        let has_room = self.batch.full_until().is_none();
        let mut polled = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        polled.extend(
            self.inboxes
                .iter()
                .filter(|inbox| has_room || !inbox.waiting.is_half_full())
                .filter_map(|inbox| inbox.watch.as_ref())
                .map(|watch| PollFd::new(&watch.inotify, PollFlags::IN)),
        );
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "inboxes cannot be waited for");
                thread::sleep(REST);
            }
        }
    }
}
