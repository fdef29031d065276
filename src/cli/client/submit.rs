//! `filed submit`: handing files to the service.
//!
//! The service reads a file itself where it can see it. Where it cannot (another user's, another mount
//! namespace, a private `/tmp`), the bytes are sent over the socket: that is found out from its answer.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use serde::Serialize;

use super::{Client, ClientError, in_query};
use crate::cli::args::{Common, Form, Submit as Args};
use crate::cli::exit::{self, Exit, UsageError};
use crate::cli::names;
use crate::cli::output::{self, Count};
use crate::daemon::socket::wire::{Job, Stored, Submit, SubmitAnswer, SubmitPath, Submitted};
use crate::pipeline::{Found, Input, Walk};
use crate::store::{FileName, show_path};

/// Paths handed in together.
const BATCH: usize = 1000;

/// Jobs that are waited for are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A busy service is asked again for so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(in crate::cli) fn run(common: &Common, args: &Args) -> anyhow::Result<Exit> {
    let client = Client::new(common, args.reach.socket.as_deref())?;
    let form = Form::of_flag(args.json);
    let mut tally = Tally::new(form);
    let mut wanted = Vec::new();
    for path in &args.paths {
        if path == OsStr::new("-") {
            let Some(name) = &args.name else {
                let why = "standard input has no name: give it one with --as NAME";
                return Err(UsageError(why.to_owned()).into());
            };
            let name = FileName::new(name.as_bytes())
                .map_err(|error| UsageError(format!("--as: {error}")))?;
            let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::stdin())) };
            tally.sent(&name, send(&client, &name, &open, Again::Never));
            continue;
        }
        if args.name.is_some() {
            let why = "--as names standard input: give `-` with it";
            return Err(UsageError(why.to_owned()).into());
        }
        let path = names::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
        match path.symlink_metadata() {
            Ok(metadata) => wanted.push((path, metadata)),
            Err(error) => tally.failed(&path, &error.to_string()),
        }
    }
    let mut ids = BTreeSet::new();
    for batch in wanted.chunks(BATCH) {
        let submit = Submit {
            paths: batch
                .iter()
                .map(|(path, metadata)| SubmitPath {
                    path: show_path(path).to_string(),
                    device: Some(metadata.dev()),
                    inode: Some(metadata.ino()),
                })
                .collect(),
            priority: args.priority,
        };
        let answer: SubmitAnswer = client.post("/v1/jobs", Some(&submit))?;
        for ((path, _), submitted) in batch.iter().zip(answer.submitted) {
            ids.extend(submitted.id);
            if submitted.unseen.is_some() {
                stream(&client, path, &mut tally);
            } else {
                tally.submitted(path, &submitted);
            }
        }
    }
    if args.wait {
        wait(&client, ids, &mut tally)?;
    }
    tally.finish();
    Ok(tally.exit())
}

/// Sends the file, or all files below the folder, over the socket.
fn stream(client: &Client, path: &Path, tally: &mut Tally) {
    let input = Input::Path {
        path: path.to_owned(),
        name: None,
    };
    // There is no store here to be left out.
    for found in Walk::new(vec![input], Path::new("")) {
        match found {
            Found::File { path, .. } => {
                let name = FileName::new(path.as_os_str().as_bytes());
                let open = || -> io::Result<Box<dyn Read + Send>> {
                    Ok(Box::new(Unchanging::open(&path)?))
                };
                match name {
                    Ok(name) => tally.sent(&name, send(client, &name, &open, Again::WhileBusy)),
                    Err(error) => tally.failed(&path, &error.to_string()),
                }
            }
            Found::Skipped { path, why } => tally.failed(&path, why),
            Found::Failed { path, why } => tally.failed(&path, &why),
            Found::Stdin { .. } | Found::Handed { .. } => {}
        }
    }
}

/// Whether a stream can be sent once more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Never,
    WhileBusy,
}

type Open<'a> = &'a dyn Fn() -> io::Result<Box<dyn Read + Send>>;

fn send(
    client: &Client,
    name: &FileName,
    open: Open<'_>,
    again: Again,
) -> Result<Stored, ClientError> {
    let path = format!("/v1/files/content?name={}", in_query(&name.to_string()));
    let began = std::time::Instant::now();
    loop {
        let content = open().map_err(ClientError::Content)?;
        match client.put(&path, content) {
            Err(ClientError::Busy { after, .. })
                if again == Again::WhileBusy && began.elapsed() < PATIENCE =>
            {
                std::thread::sleep(after);
            }
            outcome => return outcome,
        }
    }
}

/// A file whose end is an error if it is not as it was when it was opened: what was read may never have
/// been its content then.
struct Unchanging {
    file: File,
    before: Metadata,
}

impl Unchanging {
    fn open(path: &Path) -> io::Result<Unchanging> {
        // A FIFO that took the place of the file since must not hold anybody up.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        let before = file.metadata()?;
        if before.is_file() {
            Ok(Unchanging { file, before })
        } else {
            Err(io::Error::other("it is no longer a regular file"))
        }
    }
}

impl Read for Unchanging {
    fn read(&mut self, part: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(part)?;
        if read == 0 && !part.is_empty() {
            let now = self.file.metadata()?;
            let times = |of: &Metadata| (of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec());
            if (now.len(), times(&now)) != (self.before.len(), times(&self.before)) {
                return Err(io::Error::other(
                    "it changed while it was read: nothing of it is stored, submit it again",
                ));
            }
        }
        Ok(read)
    }
}

/// Waits until all these jobs have ended.
fn wait(client: &Client, mut ids: BTreeSet<i64>, tally: &mut Tally) -> anyhow::Result<()> {
    while let Some(id) = ids.first().copied() {
        let job: Job = client.get(&format!("/v1/jobs/{id}"))?;
        match job.state.as_str() {
            "stored" => {}
            "failed" => {
                let reason = job.reason.as_deref().unwrap_or("failed");
                tally.failed_name(&job.path, reason);
            }
            _ => {
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
        }
        ids.remove(&id);
    }
    Ok(())
}

#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    v: u8,
    r#type: &'static str,
    #[serde(flatten)]
    what: &'a T,
}

/// What came of all of it.
struct Tally {
    form: Form,
    queued: u64,
    already: u64,
    sent: u64,
    failed: u64,
    /// Something failed that another attempt may do.
    busy: bool,
}

impl Tally {
    fn new(form: Form) -> Tally {
        Tally {
            form,
            queued: 0,
            already: 0,
            sent: 0,
            failed: 0,
            busy: false,
        }
    }

    fn line<T: Serialize>(&self, kind: &'static str, what: &T) {
        if self.form == Form::Json {
            output::json_line(&Line {
                v: 1,
                r#type: kind,
                what,
            });
        }
    }

    fn submitted(&mut self, path: &Path, submitted: &Submitted) {
        self.line("submitted", submitted);
        self.queued += submitted.queued;
        self.already += submitted.already;
        self.failed += submitted.refused + submitted.skipped;
        if submitted.refused > 0 {
            self.busy = true;
            output::warn(&format_args!(
                "{}: the queue is full: {} files were not queued (hint: submit it again later, or \
                 raise service.queue)",
                show_path(path),
                Count(submitted.refused)
            ));
        }
        if submitted.skipped > 0 {
            output::warn(&format_args!(
                "{}: skipped: {} links or special files",
                show_path(path),
                Count(submitted.skipped)
            ));
        }
    }

    fn sent(&mut self, name: &FileName, outcome: Result<Stored, ClientError>) {
        match outcome {
            Ok(stored) => {
                self.sent += 1;
                self.line("stored", &stored);
            }
            Err(error) => {
                let (exit, hint) = exit::of_client(&error);
                self.busy |= exit == Exit::Unreachable;
                let hint = hint.map_or_else(String::new, |hint| format!(" (hint: {hint})"));
                self.failed_name(&name.to_string(), &format!("{error}{hint}"));
            }
        }
    }

    fn failed(&mut self, path: &Path, why: &str) {
        self.failed_name(&show_path(path).to_string(), why);
    }

    fn failed_name(&mut self, name: &str, why: &str) {
        self.failed += 1;
        #[derive(Serialize)]
        struct Failed<'a> {
            name: &'a str,
            error: &'a str,
        }
        self.line("failed", &Failed { name, error: why });
        if self.form == Form::Text {
            output::warn(&format_args!("{name}: {why}"));
        }
    }

    fn finish(&self) {
        if self.form == Form::Json {
            return;
        }
        let mut parts = Vec::new();
        for (count, what) in [
            (self.queued, "queued"),
            (self.already, "queued before"),
            (self.sent, "sent and stored"),
            (self.failed, "failed or skipped"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", Count(count)));
            }
        }
        let parts = if parts.is_empty() {
            "nothing to do".to_owned()
        } else {
            parts.join(", ")
        };
        output::print(&format!("{parts}\n"));
    }

    fn exit(&self) -> Exit {
        match (self.queued + self.already + self.sent, self.failed) {
            (_, 0) => Exit::Done,
            (0, _) if self.busy => Exit::Unreachable,
            (0, _) => Exit::Failed,
            _ => Exit::Partly,
        }
    }
}
