//! Word that memory is short, from whoever has it before the next sample would.
//!
//! Owns the thread `filed-pressure` and everything it polls: the watch of
//! [`notify`], the `memory.events` of v2 groups
//! with a limit, and of a v1 group marks on its usage and word that it is out of
//! memory. The rule: a push says only "look now". It may come late, twice or
//! never, so nothing may depend on it, and no source may keep the thread busy:
//! after an event it rests for 100 ms, and what cannot be had or fails is dropped
//! with one warning. What a group gets or loses later, a limit or its files, is
//! for the samples to find.
//!
//! ```text
//!  systemd, PSI ────┐
//!  memory.events ───┼─> poll, filed-pressure ──> channel of 16 ──> control loop
//!  v1 marks, OOM ───┤                             (full: dropped)
//!  end (eventfd) ───┘
//! ```

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::pressure::probe::group::GroupProbe;
use crate::pressure::probe::notify::{self, Drained, PsiWatch, Stream, Watch};
use crate::pressure::probe::psi::{self, Stall};

/// Who has this many to look at has enough of them.
const QUEUE: usize = 16;
/// How long a source is not polled after an event. Whoever writes without end
/// costs ten readings a second, and no more.
const REST: Duration = Duration::from_millis(100);
/// Where marks are set on the usage of a v1 group, in percent of its limit.
const MARKS_PERCENT: [u64; 2] = [70, 85];
/// The threshold of a trigger that was accepted without being understood: what
/// systemd asks for.
const USUAL_THRESHOLD: Duration = Duration::from_millis(200);

/// Why memory is to be looked at now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// systemd says so, or the kernel counted enough stalls.
    Notified,
    /// A v2 group met a limit or lost a process, or a v1 group is out of memory.
    GroupEvents,
    /// The usage of a v1 group rose to this many bytes.
    UsageMark(u64),
}

/// The thread that waits for pushes. Dropping it ends the thread and waits
/// until it has ended.
#[derive(Debug)]
pub struct Pushes {
    thread: Option<(Arc<OwnedFd>, JoinHandle<()>)>,
}

impl Pushes {
    /// Opens what can tell, with `/proc` and `/sys` below `root` and variables
    /// as `lookup` gives them, and waits on a thread of its own.
    ///
    /// Where there is nothing to wait for there is no thread, and the channel
    /// is closed from the start; it is also closed when the last source failed.
    pub fn start(
        root: &Path,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> (Pushes, mpsc::Receiver<Push>) {
        let (pushes, pushed) = mpsc::channel(QUEUE);
        let (sources, problems) = sources(root, lookup);
        for problem in problems {
            let what = "no word of memory pressure from here";
            // A group that is not ours to write to is what most users start in.
            if is_denied(&problem) {
                tracing::debug!(error = %problem, "{what}");
            } else {
                warn(&problem, what);
            }
        }
        if sources.is_empty() {
            return (Pushes { thread: None }, pushed);
        }
        let thread = spawn(sources, pushes)
            .inspect_err(|error| warn(&error, "word of memory pressure cannot be waited for"))
            .ok();
        (Pushes { thread }, pushed)
    }

    /// Whether anything was there to wait for when this was started.
    pub fn is_waiting(&self) -> bool {
        self.thread.is_some()
    }
}

impl Drop for Pushes {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            // A thread that cannot be told to end must not be waited for.
            if rustix::io::write(&*end, &1_u64.to_ne_bytes()).is_ok() {
                let _ = thread.join();
            }
        }
    }
}

fn spawn(
    sources: Vec<Source>,
    pushes: mpsc::Sender<Push>,
) -> io::Result<(Arc<OwnedFd>, JoinHandle<()>)> {
    let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let ends = Arc::clone(&end);
    let thread = thread::Builder::new()
        .name("filed-pressure".to_owned())
        .spawn(move || wait(sources, &ends, &pushes))?;
    Ok((end, thread))
}

/// Waits until it is told to end, nobody listens any more or no source is left.
fn wait(mut sources: Vec<Source>, end: &OwnedFd, pushes: &mpsc::Sender<Push>) {
    while !sources.is_empty() {
        let (ready, is_end) = match ready(&sources, end) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(error) => {
                return warn(&error, "word of memory pressure is not waited for any more");
            }
        };
        if is_end {
            return;
        }
        let now = Instant::now();
        // From the last to the first, so that removing one moves none to come.
        for (index, events) in ready.into_iter().rev() {
            let Some(source) = sources.get_mut(index) else {
                continue;
            };
            source.rests_until = Some(now + REST);
            match source.kind.take(events) {
                Ok(None) => {}
                Ok(Some(push)) => match pushes.try_send(push) {
                    Ok(()) | Err(TrySendError::Full(_)) => {}
                    Err(TrySendError::Closed(_)) => return,
                },
                Err(error) => {
                    let source = sources.swap_remove(index);
                    let from = source.path.display();
                    tracing::warn!(%from, %error, "no more word of memory pressure from here");
                }
            }
        }
    }
}

/// Waits for those that do not rest, or until the first of the others has
/// rested. Gives which are ready, and whether to end.
fn ready(sources: &[Source], end: &OwnedFd) -> Result<(Vec<(usize, PollFlags)>, bool), Errno> {
    let now = Instant::now();
    let rest = |source: &Source| source.rests_until?.checked_duration_since(now);
    let awake: Vec<_> = (0..)
        .zip(sources)
        .filter(|(_, source)| rest(source).is_none_or(|rest| rest.is_zero()))
        .collect();
    let timeout = sources
        .iter()
        .filter_map(rest)
        .filter(|rest| !rest.is_zero())
        .min()
        .and_then(|rest| Timespec::try_from(rest).ok());
    let mut polled = vec![PollFd::new(end, PollFlags::IN)];
    polled.extend(
        awake
            .iter()
            .map(|(_, source)| PollFd::from_borrowed_fd(source.kind.as_fd(), source.kind.event())),
    );
    poll(&mut polled, timeout.as_ref())?;
    let mut events = polled.iter().map(PollFd::revents);
    let is_end = events.next().is_some_and(|events| !events.is_empty());
    let ready = awake
        .iter()
        .map(|(index, _)| *index)
        .zip(events)
        .filter(|(_, events)| !events.is_empty())
        .collect();
    Ok((ready, is_end))
}

/// Something that is polled.
#[derive(Debug)]
struct Source {
    kind: Kind,
    path: PathBuf,
    rests_until: Option<Instant>,
}

impl Source {
    fn new(kind: Kind, path: PathBuf) -> Self {
        Self {
            kind,
            path,
            rests_until: None,
        }
    }
}

#[derive(Debug)]
enum Kind {
    Psi { watch: PsiWatch, had_event: bool },
    Stream(Stream),
    GroupEvents(File),
    V1(V1Event),
}

impl Kind {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Kind::Psi { watch, .. } => watch.registered.file.as_fd(),
            Kind::Stream(stream) => stream.as_fd(),
            Kind::GroupEvents(file) => file.as_fd(),
            Kind::V1(event) => event.told.as_fd(),
        }
    }

    fn event(&self) -> PollFlags {
        match self {
            Kind::Psi { .. } | Kind::GroupEvents(_) => PollFlags::PRI,
            Kind::Stream(_) | Kind::V1(_) => PollFlags::IN,
        }
    }

    /// Takes in what happened, so that the next poll waits for what is new.
    ///
    /// An error means that there is nothing more to come.
    fn take(&mut self, events: PollFlags) -> io::Result<Option<Push>> {
        let failed = match self {
            // The kernel sets both for a file that changed; whether it is still
            // there, reading it will tell.
            Kind::GroupEvents(_) => events.contains(PollFlags::NVAL),
            // What was said before the other side left is still to be read.
            Kind::Stream(_) if events.contains(PollFlags::IN) => false,
            _ => events.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL),
        };
        if failed {
            return Err(gone());
        }
        match self {
            Kind::Psi { watch, had_event } => {
                let is_first = !std::mem::replace(had_event, true);
                Ok((!is_first || is_first_one(watch)).then_some(Push::Notified))
            }
            Kind::Stream(stream) => match stream.drain().map_err(io::Error::other)? {
                Drained::Event => Ok(Some(Push::Notified)),
                Drained::Nothing => Ok(None),
                Drained::End => Err(gone()),
            },
            Kind::GroupEvents(file) => {
                see(file)?;
                Ok(Some(Push::GroupEvents))
            }
            Kind::V1(event) => event.take(),
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other side is gone")
}

/// Whether the first event of a trigger is one.
fn is_first_one(watch: &PsiWatch) -> bool {
    let trigger = watch.registered.trigger;
    let kind = trigger.map_or(Stall::Some, |trigger| trigger.kind);
    let threshold = trigger.map_or(USUAL_THRESHOLD, |trigger| trigger.threshold);
    let now = psi::stall_totals(&watch.path);
    psi::is_confirmed(
        watch.totals.map(|totals| totals.of(kind)),
        now.map(|totals| totals.of(kind)),
        threshold,
    )
}

/// Reads the file from its start: only then does the kernel take the present
/// content for known.
fn see(file: &File) -> io::Result<()> {
    file.read_at(&mut [0; 4096], 0).map(drop)
}

/// Something a v1 group tells of through an eventfd.
#[derive(Debug)]
struct V1Event {
    told: OwnedFd,
    /// Read when there is word: it fails once the group is removed.
    file: File,
    of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// The usage crossed this many bytes, up or down.
    Usage(u64),
    /// Nothing is left, and a process is about to be killed.
    OutOfMemory,
}

impl V1Event {
    fn set(directory: &Path, of: Of) -> io::Result<Self> {
        let (name, argument) = match of {
            Of::Usage(bytes) => ("memory.usage_in_bytes", format!(" {bytes}")),
            Of::OutOfMemory => ("memory.oom_control", String::new()),
        };
        let file = File::open(directory.join(name))?;
        let told = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let order = format!("{} {}{argument}", told.as_raw_fd(), file.as_raw_fd());
        OpenOptions::new()
            .write(true)
            .open(directory.join("cgroup.event_control"))?
            .write_all(order.as_bytes())?;
        Ok(Self { told, file, of })
    }

    /// The kernel tells of each crossing, and once more when the group is
    /// removed; only a rise is worth a push.
    fn take(&self) -> io::Result<Option<Push>> {
        match rustix::io::read(&self.told, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0; 128];
        let length = self.file.read_at(&mut buffer, 0)?;
        Ok(match self.of {
            Of::OutOfMemory => Some(Push::GroupEvents),
            Of::Usage(mark) => {
                let content = buffer.get(..length).unwrap_or_default();
                let used_bytes = std::str::from_utf8(content)
                    .ok()
                    .and_then(|text| text.trim().parse::<u64>().ok());
                // A usage that cannot be understood is for the sample to tell of.
                let is_above = used_bytes.is_none_or(|used| used >= mark);
                is_above.then_some(Push::UsageMark(mark))
            }
        })
    }
}

/// Opens everything that can tell. Gives also what was wrong with the rest,
/// worth a warning each; what is not there is not wrong.
///
/// `/dev/null` switches off what others may tell us, not our own limits.
fn sources(
    root: &Path,
    lookup: &dyn Fn(&str) -> Option<OsString>,
) -> (Vec<Source>, Vec<anyhow::Error>) {
    let opened = notify::open(root, lookup);
    let mut problems: Vec<_> = opened.problems.into_iter().map(Into::into).collect();
    let mut sources = Vec::new();
    match opened.watch {
        Watch::Off | Watch::Nothing => {}
        Watch::Psi(watch) => {
            let path = watch.path.clone();
            let had_event = false;
            sources.push(Source::new(Kind::Psi { watch, had_event }, path));
        }
        Watch::Stream(stream) => {
            let path = stream.path.clone();
            sources.push(Source::new(Kind::Stream(stream), path));
        }
    }
    // What cannot be read of the groups is told of by who samples them.
    let groups = GroupProbe::open(root);
    for path in groups.event_files() {
        // Read once, or the first poll would tell of what happened before.
        match File::open(&path).and_then(|file| see(&file).map(|()| file)) {
            Ok(file) => sources.push(Source::new(Kind::GroupEvents(file), path)),
            Err(error) => problems.extend(refused(&path, error)),
        }
    }
    if let Some((directory, limit_bytes)) = groups.lowest_v1_limit() {
        let marks = MARKS_PERCENT.map(|percent| Of::Usage(limit_bytes / 100 * percent));
        let mut first_refusal = None;
        for of in marks.into_iter().chain([Of::OutOfMemory]) {
            match V1Event::set(directory, of) {
                Ok(event) => sources.push(Source::new(Kind::V1(event), directory.to_owned())),
                Err(error) => first_refusal = first_refusal.or(refused(directory, error)),
            }
        }
        // They are refused together.
        problems.extend(first_refusal);
    }
    (sources, problems)
}

/// What is wrong with a file that does not tell of changes; nothing if it is
/// not there.
fn refused(path: &Path, error: io::Error) -> Option<anyhow::Error> {
    let is_absent = error.kind() == io::ErrorKind::NotFound;
    (!is_absent).then(|| anyhow::Error::from(error).context(format!("watch {}", path.display())))
}

/// Whether we may not look there.
fn is_denied(problem: &anyhow::Error) -> bool {
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    let mut causes = problem.chain();
    causes.any(|cause| cause.downcast_ref().is_some_and(denied))
}

fn warn(error: &dyn std::fmt::Display, what: &str) {
    tracing::warn!(error = format!("{error:#}"), "{what}");
}

#[cfg(test)]
mod tests;
