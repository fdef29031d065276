//! Starting a program in a group, watching it, and what became of it.
//!
//! The program enters the group before it begins: a copy of this benchmark moves itself there and
//! becomes it. What is printed goes to files, so that nobody waits for a reader. A run that is
//! dropped is killed.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::bench::{Bench, Scratch};
use crate::group::Group;

/// What may go wrong with measuring itself.
pub(crate) type Fallible<T> = Result<T, Box<dyn Error>>;

/// The argument that makes this program [`enter`] a group.
pub(crate) const ENTER: &str = "--enter";

/// Enters the group whose entrance is the first argument and becomes the program that follows.
pub(crate) fn enter(mut args: impl Iterator<Item = OsString>) -> io::Error {
    let (Some(entrance), Some(program)) = (args.next(), args.next()) else {
        return io::Error::other("an entrance and a program are needed");
    };
    // Nothing started here outlives the benchmark, even if that is killed.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    if let Err(error) = fs::write(entrance, std::process::id().to_string()) {
        return error;
    }
    Command::new(program).args(args).exec()
}

/// A command that runs `program` in the group, with nothing from the environment.
pub(crate) fn command_in(bench: &Bench, group: &Group, program: &Path) -> Command {
    let mut command = Command::new(bench.me());
    command.arg(ENTER).arg(group.entrance()).arg(program);
    command.env_clear().stdin(Stdio::null());
    command
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It did not: it was killed when its time was over.
    TimedOut,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) end: End,
    pub(crate) wall: Duration,
    /// The most resident memory there was, in bytes.
    pub(crate) peak_bytes: u64,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// How it ended, for people: with the last line it said, if that was not well.
    pub(crate) fn story(&self) -> String {
        let said = self.stderr.lines().last().unwrap_or("");
        match self.end {
            End::Code(0) => "finished".to_owned(),
            End::Code(code) => format!("exit code {code}: {said}"),
            End::Signal(signal) => format!("killed by signal {signal}"),
            End::TimedOut => format!("not finished after {:.0} s", self.wall.as_secs_f64()),
        }
    }

    /// An error, unless it ended well.
    pub(crate) fn well(self) -> Fallible<Finished> {
        match self.end {
            End::Code(0) => Ok(self),
            _ => Err(self.story().into()),
        }
    }
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    bench: &'a Bench,
    child: Child,
    began: Instant,
    peak_bytes: u64,
    stdout: Scratch,
    stderr: Scratch,
}

/// `filed` with its own configuration only, in the group; it works on `store`.
pub(crate) fn filed(bench: &Bench, group: &Group, store: &Path) -> Command {
    let mut command = command_in(bench, group, bench.filed());
    // It is nobody's home: there is neither configuration nor a store.
    command.env("HOME", store.join("home"));
    command.arg("--store").arg(store);
    command
}

/// Starts it.
pub(crate) fn start<'a>(bench: &'a Bench, command: &mut Command) -> Fallible<Running<'a>> {
    let (stdout, stderr) = (bench.fresh("stdout"), bench.fresh("stderr"));
    command.stdout(File::create(&stdout)?);
    command.stderr(File::create(&stderr)?);
    Ok(Running {
        bench,
        began: Instant::now(),
        child: command.spawn()?,
        peak_bytes: 0,
        stdout: Scratch(stdout),
        stderr: Scratch(stderr),
    })
}

/// Starts it and waits for its end.
pub(crate) fn finish(
    bench: &Bench,
    command: &mut Command,
    patience: Duration,
) -> Fallible<Finished> {
    start(bench, command)?.watch(patience, Duration::from_millis(4), |_| {})
}

impl Running<'_> {
    /// Waits for the end, looking every so often.
    pub(crate) fn watch(
        mut self,
        patience: Duration,
        every: Duration,
        mut look: impl FnMut(&Running<'_>),
    ) -> Fallible<Finished> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if self.bench.stopped() {
                return Err("stopped".into());
            }
            if self.began.elapsed() > patience {
                self.child.kill()?;
                self.child.wait()?;
                break None;
            }
            // The kernel keeps the peak: what is read last before the end is all but it.
            self.peak_bytes = self.peak_bytes.max(self.status_bytes("VmHWM:"));
            look(&self);
            sleep(every);
        };
        let wall = self.began.elapsed();
        let end = match status {
            None => End::TimedOut,
            Some(status) => match status.code() {
                Some(code) => End::Code(code),
                None => End::Signal(status.signal().unwrap_or(0)),
            },
        };
        Ok(Finished {
            end,
            wall,
            peak_bytes: self.peak_bytes,
            stdout: String::from_utf8_lossy(&fs::read(&self.stdout.0)?).into_owned(),
            stderr: String::from_utf8_lossy(&fs::read(&self.stderr.0)?).into_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; one that has ended does not mind.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Since it was started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Resident memory now, in bytes; 0 once it has ended.
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(&self.pid().to_string())
    }

    /// Bytes it has read so far with any system call; 0 once it has ended.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.field("io", "rchar:").unwrap_or(0)
    }

    fn status_bytes(&self, name: &str) -> u64 {
        self.field("status", name).unwrap_or(0) << 10
    }

    fn field(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.pid())).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().trim_end_matches(" kB").parse().ok()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process, in bytes; 0 if there is none.
pub(crate) fn resident_bytes(pid: &str) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|field| field.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
