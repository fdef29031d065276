//! A day of a service in minutes: files of all sizes dropped into three inboxes, submitted and streamed
//! in, files read out again and compared, the configuration reloaded, memory collected and trimmed, and
//! all that is stored checked in the background, all at once.
//!
//! What must hold: no error anywhere, everything that was handed in is stored, what is read out is what
//! went in, and memory, descriptors and threads do not grow: their slopes over the run are printed.
//!
//!     cargo bench --bench load                     one minute
//!     LOAD_SECONDS=600 cargo bench --bench load    ten

mod content;
mod course;
mod http;
mod service;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use content::{Content, Random};
use course::Course;
use service::Service;

/// A file comes, or something else is asked for, this often on average.
const EVENT_EVERY: Duration = Duration::from_millis(60);

/// After the last event the service has this long for what is left.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::var("LOAD_SECONDS").ok();
    let seconds = seconds.map_or(Ok(60), |text| text.parse())?;
    let load = Load::new(Duration::from_secs(seconds))?;
    load.run()
}

/// What the threads share.
struct Load {
    service: Service,
    lasts: Duration,
    began: Instant,
    over: AtomicBool,
    /// Names of what was stored for certain, with what it is.
    stored: Mutex<BTreeMap<String, Content>>,
    counts: Counts,
    errors: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Counts {
    dropped: AtomicU64,
    submitted: AtomicU64,
    sent: AtomicU64,
    read: AtomicU64,
    orders: AtomicU64,
    bytes: AtomicU64,
}

impl Load {
    fn new(lasts: Duration) -> Result<Load, Box<dyn Error>> {
        Ok(Load {
            service: Service::start()?,
            lasts,
            began: Instant::now(),
            over: AtomicBool::new(false),
            stored: Mutex::default(),
            counts: Counts::default(),
            errors: Mutex::default(),
        })
    }

    fn run(self) -> Result<(), Box<dyn Error>> {
        let mut course = Course::default();
        std::thread::scope(|scope| {
            for inbox in 0..self.service.inboxes().len() {
                let load = &self;
                scope.spawn(move || load.try_to("fill an inbox", || load.drop_files(inbox)));
            }
            scope.spawn(|| self.try_to("submit", || self.submit()));
            scope.spawn(|| self.try_to("send", || self.send()));
            scope.spawn(|| self.try_to("read", || self.read_back()));
            scope.spawn(|| self.try_to("order", || self.order()));
            while self.began.elapsed() < self.lasts {
                std::thread::sleep(Duration::from_secs(1));
                if let Err(error) = course.look(self.began.elapsed(), &self.service) {
                    self.fail(format!("look at the service: {error}"));
                    break;
                }
            }
            self.over.store(true, Ordering::Relaxed);
        });
        self.try_to("wait for the end", || self.settle());
        self.report(&course)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn try_to(&self, what: &str, act: impl FnOnce() -> Result<(), Box<dyn Error>>) {
        if let Err(error) = act() {
            self.fail(format!("{what}: {error}"));
        }
    }

    fn fail(&self, error: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.push(error);
    }

    /// A file of its own at that path.
    fn make(&self, path: &Path, random: &mut Random) -> Result<Content, Box<dyn Error>> {
        let content = Content::any(random);
        // In pieces, as a slow writer would.
        let hidden = path.with_file_name(format!(".{}", name_of(path)));
        content.write(&mut fs::File::create(&hidden)?)?;
        fs::rename(&hidden, path)?;
        self.counts
            .bytes
            .fetch_add(content.bytes(), Ordering::Relaxed);
        Ok(content)
    }

    fn drop_files(&self, inbox: usize) -> Result<(), Box<dyn Error>> {
        let folder = &self.service.inboxes()[inbox];
        let mut random = Random::new(1000 + inbox as u64);
        for number in 0.. {
            if self.is_over() {
                break;
            }
            let path = folder.join(format!("file-{number}"));
            let content = self.make(&path, &mut random)?;
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            self.remember(&path, content);
            random.rest(EVENT_EVERY * 4);
        }
        Ok(())
    }

    fn remember(&self, path: &Path, content: Content) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.insert(path.to_string_lossy().into_owned(), content);
    }

    fn submit(&self) -> Result<(), Box<dyn Error>> {
        let mut random = Random::new(2000);
        for number in 0.. {
            if self.is_over() {
                break;
            }
            let path = self.service.outside().join(format!("submitted-{number}"));
            let content = self.make(&path, &mut random)?;
            self.service.submit(&path)?;
            self.counts.submitted.fetch_add(1, Ordering::Relaxed);
            self.remember(&path, content);
            random.rest(EVENT_EVERY * 4);
        }
        Ok(())
    }

    fn send(&self) -> Result<(), Box<dyn Error>> {
        let mut random = Random::new(3000);
        for number in 0.. {
            if self.is_over() {
                break;
            }
            let name = format!("/sent/{number}");
            let content = Content::any(&mut random);
            self.service.send(&name, &content)?;
            self.counts.sent.fetch_add(1, Ordering::Relaxed);
            self.counts
                .bytes
                .fetch_add(content.bytes(), Ordering::Relaxed);
            self.remember(Path::new(&name), content);
            random.rest(EVENT_EVERY * 8);
        }
        Ok(())
    }

    /// Reads out what was sent in and compares it: that is stored when sending ends.
    fn read_back(&self) -> Result<(), Box<dyn Error>> {
        let mut random = Random::new(4000);
        while !self.is_over() {
            random.rest(EVENT_EVERY * 16);
            let sent: Vec<_> = {
                let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
                let sent = stored.iter().filter(|(name, _)| name.starts_with("/sent/"));
                sent.map(|(name, content)| (name.clone(), *content))
                    .collect()
            };
            if let Some((name, content)) = random.choose(&sent) {
                self.service.compare(name, content)?;
                self.counts.read.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Reloads with another configuration, collects, trims, takes snapshots and asks for everything.
    fn order(&self) -> Result<(), Box<dyn Error>> {
        let mut random = Random::new(5000);
        for number in 0.. {
            if self.is_over() {
                break;
            }
            self.service.configure(number % 2 == 1)?;
            self.service.order("POST", "/v1/reload")?;
            for path in ["/v1/collect", "/v1/trim", "/v1/heap/snapshots?label=load"] {
                self.service.order("POST", path)?;
            }
            for path in [
                "/v1/heap",
                "/v1/jobs?limit=100",
                "/v1/files?limit=100",
                "/v1/metrics",
            ] {
                self.service.order("GET", path)?;
            }
            self.counts.orders.fetch_add(8, Ordering::Relaxed);
            random.rest(Duration::from_secs(6));
        }
        Ok(())
    }

    /// Waits until nothing is left to do, and compares some of what is stored.
    fn settle(&self) -> Result<(), Box<dyn Error>> {
        let began = Instant::now();
        loop {
            let status = self.service.status()?;
            let open = status["jobs"]["queued"].as_u64().unwrap_or(1)
                + status["jobs"]["running"].as_u64().unwrap_or(1);
            let waiting: u64 = (status["inboxes"].as_array().into_iter().flatten())
                .map(|inbox| inbox["waiting"].as_u64().unwrap_or(1))
                .sum();
            if open + waiting == 0 {
                break;
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{open} jobs and {waiting} files are left").into());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        // What an inbox heard of last may not have been counted as waiting yet.
        std::thread::sleep(Duration::from_secs(3));
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, content) in stored.iter() {
            let row = self.service.newest(name)?;
            if row["size_bytes"].as_u64() != Some(content.bytes()) {
                return Err(format!("{name} is not stored as it was: {row}").into());
            }
        }
        for (name, content) in stored.iter().step_by(stored.len() / 50 + 1) {
            self.service.compare(name, content)?;
        }
        let status = self.service.status()?;
        match status["jobs"]["failed"].as_u64() {
            Some(0) => Ok(()),
            failed => Err(format!("{failed:?} jobs failed").into()),
        }
    }

    fn report(self, course: &Course) -> Result<(), Box<dyn Error>> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        println!(
            "{} s: {} files dropped, {} submitted, {} sent, {} MiB in all; {} read back and compared, {} \
             orders",
            self.lasts.as_secs(),
            count(&counts.dropped),
            count(&counts.submitted),
            count(&counts.sent),
            count(&counts.bytes) >> 20,
            count(&counts.read),
            count(&counts.orders),
        );
        let status = self.service.status().ok();
        course.print();
        let stopped = self.service.stop();
        let mut errors = self
            .errors
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match stopped {
            Ok(log) => errors.extend(log),
            Err(error) => errors.push(format!("stop: {error}")),
        }
        if let Some(status) = status {
            println!("mode changes: {}", status["memory"]["changes"]);
        }
        for error in errors.iter().take(20) {
            println!("ERROR: {error}");
        }
        match errors.len() {
            0 => Ok(()),
            errors => Err(format!("{errors} errors").into()),
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A folder for all of it; removed at the end.
fn folder() -> std::io::Result<(tempfile::TempDir, PathBuf)> {
    let root = match std::env::var_os("LOAD_DIR") {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let path = root.path().canonicalize()?;
    Ok((root, path))
}
