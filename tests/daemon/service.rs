//! Starting the program as a service in a folder of its own, looking at it, and ending it.
//!
//! A [`Place`] is that folder: store, socket, configuration, files. A [`Service`] is a process in it. Only
//! `/etc/filed` is shared with the machine.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{self, Answer};

/// Nothing is measured with this: it only keeps a test from hanging for ever.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// Between two looks at something that cannot be waited for.
const GLANCE: Duration = Duration::from_millis(5);

const FILED: &str = env!("CARGO_BIN_EXE_filed");

/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// A configuration that takes a second for a few MiB of text.
pub(crate) const SLOW: &str = "[compression]\nlevel = 19\n[pipeline]\nworkers = 1\n";

/// Waits until something is there, and gives it.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "waited in vain: {what}");
        std::thread::sleep(GLANCE);
    }
}

/// Waits until the clock has moved on so far from the file's last change that a version read from now on
/// proves what it holds, and is not taken in again.
pub(crate) fn settle(path: &Path) {
    let metadata = path.symlink_metadata().unwrap();
    let changed_ns =
        i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    wait_for("the clock moves on", || {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        (since.as_nanos() as i128 > changed_ns + 10_000_000).then_some(())
    });
}

/// Says, past what captures the output of tests, that something cannot be tested here.
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {why}");
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder with all that a service needs.
pub(crate) struct Place {
    root: PathBuf,
    store: PathBuf,
    program: PathBuf,
    logs: AtomicUsize,
    _folder: TempDir,
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// A new one.
    pub(crate) fn new() -> Place {
        let folder = tempfile::Builder::new()
            .prefix("filed-daemon-")
            .tempdir()
            .unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["home", "config", "data", "run", "files"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        Place {
            store: root.join("store"),
            root,
            program: FILED.into(),
            logs: AtomicUsize::new(0),
            _folder: folder,
        }
    }

    /// A new one with this configuration.
    pub(crate) fn configured(configuration: &str) -> Place {
        let place = Place::new();
        place.configure(configuration);
        place
    }

    /// Puts the store elsewhere.
    pub(crate) fn with_store(mut self, store: PathBuf) -> Place {
        self.store = store;
        self
    }

    /// Opens the folder, and the program, to other users.
    pub(crate) fn open_to_others(mut self) -> Place {
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o755)).unwrap();
        // Where the program was built, nobody else may have access.
        self.program = self.lend(Path::new(FILED), "filed");
        self
    }

    /// Makes a program usable for other users, and says where it is.
    pub(crate) fn lend(&self, program: &Path, name: &str) -> PathBuf {
        let lent = self.root.join(name);
        if fs::hard_link(program, &lent).is_err() {
            // Not written by this process: what another thread starts meanwhile would hold it open
            // for writing, and then it cannot be run.
            let copied = Command::new("cp").args([program, &lent]).status();
            assert!(copied.unwrap().success());
        }
        lent
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The store's folder.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("run/filed.sock")
    }

    /// The configuration file, which is there after [`configure`](Place::configure).
    pub(crate) fn configuration(&self) -> PathBuf {
        self.root.join("filed.toml")
    }

    /// Writes the configuration file.
    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.configuration(), text).unwrap();
    }

    /// The path of a file to be taken in.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join("files").join(name)
    }

    /// Writes a file to be taken in, with the folders that lead to it.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The program, without anything from the environment of whoever runs the tests.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.root.join("home"))
            .env("XDG_CONFIG_HOME", self.root.join("config"))
            .env("XDG_DATA_HOME", self.root.join("data"))
            .env("XDG_RUNTIME_DIR", self.root.join("run"))
            .current_dir(self.root.join("files"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// The command that starts a service here.
    pub(crate) fn serve(&self) -> Command {
        let mut command = self.command(&["serve"]);
        command.arg("--store").arg(&self.store);
        command.arg("--socket").arg(self.socket());
        if self.configuration().exists() {
            command.arg("--config").arg(self.configuration());
        }
        command
    }

    /// A command that talks to the service here.
    pub(crate) fn client<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = self.command(arguments);
        command.arg("--socket").arg(self.socket());
        command
    }

    /// Runs a command that talks to the service.
    pub(crate) fn tell<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        finish(&mut self.client(arguments))
    }

    /// Runs a command on the store itself.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        finish(self.command(arguments).arg("--store").arg(&self.store))
    }

    /// Verifies every byte of the store, which must be clean.
    #[track_caller]
    pub(crate) fn verify(&self) {
        self.run(&["verify", "--quiet"]).exits(0);
    }

    /// Starts a service and waits until it answers.
    pub(crate) fn start(&self) -> Service<'_> {
        self.start_by(self.serve())
    }

    /// Starts a service by this command, made with [`serve`](Place::serve).
    pub(crate) fn start_by(&self, command: Command) -> Service<'_> {
        let mut service = self.spawn(command);
        wait_for("the service answers", || {
            if let Some(status) = service.child.try_wait().unwrap() {
                panic!("the service ended ({status}): {}", service.log());
            }
            let answer = service.try_ask("GET", "/v1/live", b"").ok()?;
            (answer.code == 200).then_some(())
        });
        service
    }

    /// Starts a service that may never answer.
    pub(crate) fn spawn(&self, mut command: Command) -> Service<'_> {
        let number = self.logs.fetch_add(1, Ordering::Relaxed) + 1;
        let log = self.root.join(format!("log-{number}"));
        let child = command
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Service {
            place: self,
            child,
            log,
        }
    }
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ended {
    /// Goes on with a command that ended with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Ended {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    /// Whether it said this on standard error.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Ended {
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// The lines of JSON on standard output.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap();
        self.stdout.lines().map(parse).collect()
    }
}

/// A running service. Dropped, it is killed.
pub(crate) struct Service<'place> {
    place: &'place Place,
    child: Child,
    log: PathBuf,
}

impl Service<'_> {
    /// Asks for something over the socket.
    pub(crate) fn try_ask(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        http::ask(&self.place.socket(), method, path, body)
    }

    /// Asks for something over the socket, and is answered.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        match self.try_ask(method, path, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}\n{}", self.log()),
        }
    }

    /// Asks for JSON.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        self.ask("GET", path, b"").is(200).json()
    }

    /// How it is.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.get("/v1/status")
    }

    /// Submits these paths and gives what came of each.
    #[track_caller]
    pub(crate) fn submit<P: AsRef<Path>>(&self, paths: &[P], priority: i32) -> Vec<Value> {
        let paths: Vec<_> = (paths.iter())
            .map(|path| json!({ "path": path.as_ref().to_str().unwrap() }))
            .collect();
        let body = json!({ "paths": paths, "priority": priority }).to_string();
        let answer = self.ask("POST", "/v1/jobs", body.as_bytes()).is(200).json();
        answer["submitted"].as_array().unwrap().clone()
    }

    /// Submits one file and gives the number of its job.
    #[track_caller]
    pub(crate) fn submit_file(&self, path: &Path) -> i64 {
        let submitted = &self.submit(&[path], 0)[0];
        let id = submitted["id"].as_i64();
        id.unwrap_or_else(|| panic!("not accepted: {submitted}"))
    }

    /// A job.
    #[track_caller]
    pub(crate) fn job(&self, id: i64) -> Value {
        self.get(&format!("/v1/jobs/{id}"))
    }

    /// All jobs, the newest first.
    #[track_caller]
    pub(crate) fn jobs(&self) -> Vec<Value> {
        let mut jobs = Vec::new();
        let mut before = i64::MAX;
        loop {
            let page = self.get(&format!("/v1/jobs?limit=1000&before={before}"));
            jobs.extend(page["jobs"].as_array().unwrap().iter().cloned());
            match page["before"].as_i64() {
                Some(last) => before = last,
                None => return jobs,
            }
        }
    }

    /// Waits until a job is in this state, and gives it.
    #[track_caller]
    pub(crate) fn wait_for_job(&self, id: i64, state: &str) -> Value {
        wait_for(&format!("job {id} is {state}"), || {
            let job = self.job(id);
            let ended = ["stored", "failed"].contains(&job["state"].as_str().unwrap());
            assert!(job["state"] == state || !ended, "{job}\n{}", self.log());
            (job["state"] == state).then_some(job)
        })
    }

    /// Waits until no job is open.
    #[track_caller]
    pub(crate) fn wait_until_done(&self) {
        let began = Instant::now();
        loop {
            let status = self.status();
            if status["jobs"]["queued"] == 0 && status["jobs"]["running"] == 0 {
                return;
            }
            assert!(began.elapsed() < LIMIT, "{status}\n{}", self.log());
            std::thread::sleep(GLANCE);
        }
    }

    /// Waits until so many bytes of files were dealt with and something is in work.
    #[track_caller]
    pub(crate) fn wait_until_working(&self, bytes: u64) {
        wait_for("a file is being taken in", || {
            let status = self.status();
            let working = !status["in_work"].as_array().unwrap().is_empty();
            (working && status["done"]["bytes"].as_u64().unwrap() >= bytes).then_some(())
        });
    }

    /// Waits until this is in the log.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_for(text, || self.log().contains(text).then_some(()));
    }

    /// All stored files: their names, digests, numbers of versions.
    #[track_caller]
    pub(crate) fn stored(&self) -> Vec<(String, String, u64)> {
        let mut stored: Vec<(String, String, u64)> = Vec::new();
        loop {
            let after = stored.last().map_or_else(String::new, |(name, ..)| {
                format!("&after={}", http::in_query(name))
            });
            let page = self.get(&format!("/v1/files?limit=1000{after}"));
            for file in page["versions"].as_array().unwrap() {
                stored.push((
                    file["name"].as_str().unwrap().to_owned(),
                    file["digest"].as_str().unwrap().to_owned(),
                    file["versions"].as_u64().unwrap(),
                ));
            }
            if page["more"] == false {
                return stored;
            }
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A line of what the kernel says of it, such as `VmRSS`, in bytes.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let found = status.lines().find_map(|text| text.strip_prefix(line));
        let number = found.unwrap().trim_matches([':', '\t', ' ', 'k', 'B']);
        number.parse::<u64>().unwrap() * 1024
    }

    /// How many entries a folder of `/proc` has for it: `fd`, or `task`.
    pub(crate) fn count(&self, folder: &str) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/{folder}", self.pid())).unwrap();
        // Packs that are not full stay open, up to one for each worker.
        let is_pack = |path: &Path| {
            fs::read_link(path)
                .is_ok_and(|target| target.extension().is_some_and(|end| end == "pack"))
        };
        let entries = entries.map(|entry| entry.unwrap().path());
        entries.filter(|path| !is_pack(path)).count()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and gives its exit code and its log.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = wait_for("the service ends", || self.child.try_wait().unwrap());
        (status.code(), self.log())
    }

    /// Asks it to end, and it does so as it should.
    #[track_caller]
    pub(crate) fn stop(self) -> String {
        self.signal(Signal::TERM);
        self.stop_already_asked()
    }

    /// It ends as it should, having been asked to.
    #[track_caller]
    pub(crate) fn stop_already_asked(self) -> String {
        let (code, log) = self.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        log
    }

    /// Kills it.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
