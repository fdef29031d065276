//! A world for one test: a folder with its own home, configuration, data and files, in which the built
//! program runs without anything from the environment of whoever runs the tests.
//!
//! Only `/etc/filed` is shared with the machine: nothing can move that for a command.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A mebibyte, which is a chunk.
pub(crate) const MIB: usize = 1 << 20;

/// The program under test.
const FILED: &str = env!("CARGO_BIN_EXE_filed");

/// Somebody without privileges, where the tests run as root.
const NOBODY: u32 = 65_534;

/// A folder of its own and the program in it.
pub(crate) struct World {
    root: PathBuf,
    _folder: TempDir,
}

impl World {
    /// An empty world.
    pub(crate) fn new() -> World {
        let folder = tempfile::Builder::new()
            .prefix("filed-cli-")
            .tempdir()
            .unwrap();
        // Names in the store begin with what the kernel calls the working folder.
        let root = folder.path().canonicalize().unwrap();
        for name in ["home", "config", "data", "files"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        World {
            root,
            _folder: folder,
        }
    }

    /// The folder all of it is in.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of `name` in the working folder.
    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root.join("files").join(name.as_ref())
    }

    /// The absolute path of `name` as text.
    pub(crate) fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The user's own configuration file, which is not there yet.
    pub(crate) fn user_file(&self) -> PathBuf {
        self.root.join("config/filed/filed.toml")
    }

    /// The store that commands use if nothing else is said.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("data/filed/store")
    }

    /// The packs of that store in order.
    pub(crate) fn packs(&self) -> Vec<PathBuf> {
        let mut packs: Vec<_> = entries_below(&self.store().join("packs"))
            .into_iter()
            .filter(|path| path.extension() == Some(OsStr::new("pack")))
            .collect();
        packs.sort();
        packs
    }

    /// Writes a file into the working folder, creating folders on the way.
    pub(crate) fn write(&self, name: impl AsRef<OsStr>, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Reads a file in the working folder.
    pub(crate) fn read(&self, name: impl AsRef<OsStr>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    }

    /// The program, to be given arguments, a standard input, variables.
    pub(crate) fn filed(&self) -> Command {
        self.program(Path::new(FILED))
    }

    fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("HOME", self.root.join("home"))
            .env("XDG_CONFIG_HOME", self.root.join("config"))
            .env("XDG_DATA_HOME", self.root.join("data"))
            .current_dir(self.root.join("files"))
            .stdin(Stdio::null());
        command
    }

    /// The program run by somebody who may not do everything, to whom the whole world then belongs.
    pub(crate) fn filed_unprivileged(&self) -> Command {
        if !is_root() {
            return self.filed();
        }
        // Where the program was built, nobody else may have access.
        let copy = self.root.join("filed");
        if !copy.exists() {
            // Not written by this process: what another thread starts meanwhile would hold it open
            // for writing, and then it cannot be run.
            let copied = Command::new("cp").args([Path::new(FILED), &copy]).status();
            assert!(copied.unwrap().success());
        }
        for path in entries_below(&self.root).iter().chain([&self.root]) {
            // A file that is theirs already is not touched: that would change its times.
            if path.symlink_metadata().unwrap().uid() != NOBODY {
                std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let mut command = self.program(&copy);
        command.uid(NOBODY).gid(NOBODY);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: impl IntoIterator<Item: AsRef<OsStr>>) -> Outcome {
        finish(self.filed().args(args))
    }
}

/// Whether the tests run as root, to whom no permission is denied.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says, past what captures the output of tests, that something cannot be tested here.
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome::of(command, output)
}

/// How a run ended and what it said.
pub(crate) struct Outcome {
    command: String,
    code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// What came of `command`.
    pub(crate) fn of(command: &Command, output: std::process::Output) -> Outcome {
        Outcome {
            command: format!("{command:?}"),
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).expect("stderr is not UTF-8"),
        }
    }

    /// The exit code; a signal has none.
    pub(crate) fn code(&self) -> Option<i32> {
        self.code
    }

    /// Goes on with a run that ended with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Outcome {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Standard output as text.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout is not UTF-8")
    }

    /// The first words of standard output's lines: the rows of a table.
    #[track_caller]
    pub(crate) fn rows(&self) -> Vec<&str> {
        let lines = self.text().lines();
        lines.filter_map(|line| line.split(' ').next()).collect()
    }

    /// The messages on stderr, one in each line, without the program's name in front.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<&str> {
        let message = |line: &'_ str| line.strip_prefix("filed: ").map(str::len);
        self.stderr
            .lines()
            .map(|line| match message(line) {
                Some(length) => &line[line.len() - length..],
                None => panic!("no message of its own: {line:?}\n{self}"),
            })
            .collect()
    }

    /// The only message.
    #[track_caller]
    pub(crate) fn message(&self) -> &str {
        match self.messages()[..] {
            [message] => message,
            _ => panic!("there should be exactly one message\n{self}"),
        }
    }

    /// The lines of JSON on standard output, which holds nothing else.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = self.text();
        assert!(text.is_empty() || text.ends_with('\n'), "{self}");
        let parse = |line: &str| -> Value {
            let value: Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{error} in {line:?}\n{self}"));
            assert_eq!(value["v"], 1, "{line}");
            assert!(value["type"].is_string(), "{line}");
            value
        };
        text.lines().map(parse).collect()
    }

    /// The lines of JSON of one type.
    #[track_caller]
    pub(crate) fn lines_of(&self, kind: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["type"] == kind);
        lines
    }

    /// The one line of JSON about this file.
    #[track_caller]
    pub(crate) fn file(&self, name: &str) -> Value {
        let mut lines = self.lines();
        lines.retain(|line| line["name"] == name);
        assert_eq!(lines.len(), 1, "lines about {name}\n{self}");
        lines.remove(0)
    }

    /// The last line of JSON, which sums up.
    #[track_caller]
    pub(crate) fn summary(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!(self.lines_of("summary").len(), 1, "{self}");
        let last = lines.pop().unwrap();
        assert_eq!(last["type"], "summary", "the summary comes last\n{self}");
        last
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        let shown: String = stdout.chars().take(4000).collect();
        write!(
            f,
            "{}\nexit code {:?}\n--- stdout\n{shown}\n--- stderr\n{}",
            self.command, self.code, self.stderr
        )
    }
}

/// Bytes without any pattern, always the same for a seed.
pub(crate) fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(seed.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Lines of text that compress well, no two alike.
pub(crate) fn text(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 80);
    for number in 0.. {
        if bytes.len() >= length {
            break;
        }
        let word = ["disk", "network", "memory", "processor"][number % 4];
        let line = format!(
            "event {number:07} the {word} reports {} units\n",
            number * 37 % 1009
        );
        bytes.extend_from_slice(line.as_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The digest that `b3sum` prints.
pub(crate) fn digest(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

/// Everything below a folder, in no order.
pub(crate) fn entries_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

/// Names in a folder, sorted.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Waits until the clock has moved on so far from the file's last change that a version read from now
/// on proves what it holds: the file system's clock ticks every few milliseconds.
pub(crate) fn settle(path: &Path) {
    let metadata = path.symlink_metadata().unwrap();
    let changed = metadata.ctime() as i128 * 1_000_000_000 + metadata.ctime_nsec() as i128;
    let now = || {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        since.as_nanos() as i128
    };
    while now() < changed + 10_000_000 {
        std::thread::yield_now();
    }
}

/// Changes the byte at `offset` of a file; doing it again changes it back.
pub(crate) fn flip(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}
