//! What filed does about memory, seen from outside: recordings, and limits that change while it works.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::world::{MIB, Outcome, World, noise, skipped};

/// Long enough for any machine; a test that waits for it in vain has found something.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the trace is: a process that grew by 80 MiB a second past a limit of 100 MiB and let go.
const TRACE: &str = "growth.jsonl";

fn trace(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli/traces")
        .join(name)
}

#[test]
fn a_recording_is_judged_as_it_always_was() {
    let world = World::new();
    let replayed = world.run([
        "pressure".as_ref(),
        "replay".as_ref(),
        trace(TRACE).as_os_str(),
    ]);
    let expected = fs::read_to_string(trace("growth.txt")).unwrap();
    assert_eq!(replayed.exits(0).text(), expected);
}

#[test]
fn a_replay_as_json_has_a_line_for_each_sample() {
    let world = World::new();
    let path = trace(TRACE);
    let samples = fs::read_to_string(&path)
        .unwrap()
        .matches("\"sample\"")
        .count();
    let replayed = world.run([
        "pressure".as_ref(),
        "replay".as_ref(),
        path.as_os_str(),
        "--json".as_ref(),
    ]);
    let lines = replayed.exits(0).lines();
    assert_eq!(lines.len(), samples);
    for line in &lines {
        assert_eq!((&line["v"], &line["type"]), (&1.into(), &"decision".into()));
        assert_eq!(line["why"].is_null(), line["from"].is_null(), "{line}");
    }
    let critical = lines
        .iter()
        .find(|line| line["mode"] == "critical")
        .unwrap();
    assert_eq!(critical["level"], "critical");
    assert!(
        critical["why"]
            .as_str()
            .unwrap()
            .contains("reached the critical mark")
    );
}

#[test]
fn what_is_no_recording_is_refused_with_its_line() {
    let world = World::new();
    world.write("text", b"hello\n");
    let message = |file: &str| {
        let outcome = world.run(["pressure", "replay", file]).exits(1);
        outcome.message().to_owned()
    };
    assert!(message("text").starts_with("replay text: line 1 is not of a recording: "));
    assert_eq!(
        message("/dev/zero"),
        "replay /dev/zero: line 1 is not of a recording: it is too long"
    );
    assert!(message("missing").starts_with("read missing: No such file"));
}

#[test]
fn a_process_is_recorded_until_time_is_up() {
    let world = World::new();
    let own = std::process::id().to_string();
    let outcome = world
        .run([
            "pressure", "record", "a", "--pid", &own, "--every", "10ms", "--for", "200ms",
        ])
        .exits(0);
    assert!(outcome.text().starts_with("a: "), "{outcome}");
    let replayed = world
        .run(["pressure", "replay", "a", "--json"])
        .exits(0)
        .lines();
    assert!(!replayed.is_empty());
    assert!(replayed[0]["measured_bytes"].as_u64().unwrap() > 0);

    let gone = world
        .run(["pressure", "record", "b", "--pid", "4194305"])
        .exits(1);
    assert!(gone.message().contains("/proc/4194305/statm"), "{gone}");
    assert!(!world.path("b").exists());
    let odd = world
        .run(["pressure", "record", "b", "--pid", &own, "--every", "soon"])
        .exits(2);
    assert_eq!(
        odd.message(),
        "--every soon: not a time such as 50ms or 10s"
    );
}

#[test]
fn a_run_records_what_it_saw() {
    let world = World::new();
    world.write("a", &noise("a", 3 * MIB));
    world
        .run(["process", "a", "--record", "seen", "--memory", "24MiB"])
        .exits(0);
    let first = fs::read_to_string(world.path("seen")).unwrap();
    assert!(first.starts_with("{\"rules\":{"), "{first}");
    assert!(first.contains("\"limit_bytes\":25165824"));
    let replayed = world
        .run(["pressure", "replay", "seen", "--json"])
        .exits(0)
        .lines();
    assert!(replayed.iter().all(|line| line["headroom_bytes"].is_u64()));

    let refused = world
        .run(["process", "a", "--record", "no/such/folder"])
        .exits(1);
    assert!(
        refused.message().starts_with("write no/such/folder: "),
        "{refused}"
    );
}

/// A run of `process -` that takes what it is given, and what it logs.
struct Streaming {
    command: Command,
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Streaming {
    fn start(world: &World) -> Streaming {
        Streaming::of(world.filed())
    }

    fn of(mut command: Command) -> Streaming {
        command
            .args(["process", "-", "--as", "stream", "--json", "--log", "info"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // With a terminal the signal says that the terminal is gone.
        let mut command = without_terminal(command);
        let mut child = command.spawn().unwrap();
        let log = follow(child.stderr.take().unwrap());
        Streaming {
            command,
            child,
            log,
        }
    }

    fn feed(&mut self, content: &[u8]) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(content)
            .unwrap();
    }

    fn reload(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }

    /// Waits for a line of the log that contains `text`.
    #[track_caller]
    fn logs(&self, text: &str) -> String {
        self.logs_while(text, &mut || ())
    }

    /// The same, doing something four times a second meanwhile.
    #[track_caller]
    fn logs_while(&self, text: &str, act: &mut dyn FnMut()) -> String {
        let (mut seen, began) = (Vec::new(), Instant::now());
        act();
        loop {
            match self.log.recv_timeout(Duration::from_millis(250)) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout) if began.elapsed() < PATIENCE => act(),
                Err(error) => panic!("{error}: no {text:?} in {seen:#?}"),
            }
        }
    }

    fn end(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        Outcome::of(&self.command, output)
    }
}

/// A session of its own has no terminal.
fn without_terminal(command: Command) -> Command {
    let mut alone = Command::new("setsid");
    alone
        .arg("--wait")
        .arg(command.get_program())
        .args(command.get_args());
    alone
        .env_clear()
        .current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            alone.env(name, value);
        }
    }
    alone
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    alone
}

fn follow(stderr: ChildStderr) -> mpsc::Receiver<String> {
    let (said, says) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    says
}

fn configure(world: &World, content: &str) {
    fs::create_dir_all(world.user_file().parent().unwrap()).unwrap();
    fs::write(world.user_file(), content).unwrap();
}

#[test]
fn a_new_limit_holds_in_the_middle_of_a_file() {
    if !Path::new("/usr/bin/setsid").exists() {
        return skipped("setsid is not there: limits that change are not tested");
    }
    let world = World::new();
    configure(&world, "[memory]\nlimit = \"256MiB\"\n");
    let content = noise("stream", 12 * MIB);
    let mut run = Streaming::start(&world);
    run.logs("limit 256 MiB");
    run.feed(&content[..4 * MIB]);

    configure(&world, "[memory]\nlimit = \"24MiB\"\n");
    run.reload();
    run.logs("limit 24 MiB");
    run.logs("memory planned");
    run.feed(&content[4 * MIB..8 * MIB]);

    configure(&world, "[memory]\nlimit = \"much\"\n");
    run.reload();
    let wrong = run.logs("going on with the one before");
    assert!(wrong.contains("filed.toml"), "{wrong}");
    let last = content.len() - 100;
    run.feed(&content[8 * MIB..last]);

    configure(&world, "[memory]\nlimit = \"2MiB\"\n");
    run.reload();
    run.logs("too small to work with: going on with one worker");
    run.feed(&content[last..]);
    // Nothing is ended for want of room at once: only what stays at the limit for ten seconds is.
    run.end().exits(0);
    configure(&world, "");
    let restored = world.run(["restore", "stream", "--stdout"]).exits(0);
    assert!(
        restored.stdout == content,
        "what comes out is not what went in"
    );
}

#[test]
fn what_systemd_says_is_heard_in_the_middle_of_a_file() {
    if !Path::new("/usr/bin/setsid").exists() {
        return skipped("setsid is not there: word of memory pressure is not tested");
    }
    let world = World::new();
    configure(&world, "[memory]\nlimit = \"22MiB\"\n");
    let fifo = world.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let mut command = world.filed();
    command.env("MEMORY_PRESSURE_WATCH", &fifo);
    let mut run = Streaming::of(command);
    run.logs("limit 22 MiB");
    let content = noise("stream", 8 * MIB);
    run.feed(&content[..6 * MIB]);
    // It is open: else the writer would wait for ever for somebody to read.
    let mut systemd = fs::OpenOptions::new()
        .write(true)
        .read(true)
        .open(&fifo)
        .unwrap();
    // Again and again, since a word that comes before there is anything to give changes nothing.
    let mut say = || systemd.write_all(b"x").unwrap();
    let why = run.logs_while("mode changed", &mut say);
    let reasons = ["asked for memory back", "reached the", "left around us"];
    assert!(reasons.iter().any(|reason| why.contains(reason)), "{why}");
    run.feed(&content[6 * MIB..]);
    run.end().exits(0);
    let restored = world.run(["restore", "stream", "--stdout"]).exits(0);
    assert!(
        restored.stdout == content,
        "what comes out is not what went in"
    );
}

#[test]
fn a_watch_that_cannot_be_used_is_told_of_once_and_work_goes_on() {
    let world = World::new();
    world.write("a", &noise("a", MIB));
    world.write("plain", b"not a PSI file");
    let plain = world.name("plain");
    for (watch, write, said) in [
        (
            "relative",
            "",
            "MEMORY_PRESSURE_WATCH is not an absolute path: relative",
        ),
        ("/nowhere", "", "watch /nowhere: No such file or directory"),
        (
            plain.as_str(),
            "",
            "neither a PSI file nor a FIFO nor a socket",
        ),
        (
            "/proc/pressure/memory",
            "%%%",
            "MEMORY_PRESSURE_WRITE is not Base64",
        ),
    ] {
        let mut command = world.filed();
        command.args(["process", "a", "--reread", "--quiet"]);
        command
            .env("MEMORY_PRESSURE_WATCH", watch)
            .env("MEMORY_PRESSURE_WRITE", write);
        let outcome = super::world::finish(&mut command).exits(0);
        assert_eq!(outcome.stderr.matches(said).count(), 1, "{outcome}");
    }
    assert_eq!(world.read("plain"), b"not a PSI file");
    let mut off = world.filed();
    off.args(["process", "a", "--reread", "--quiet"])
        .env("MEMORY_PRESSURE_WATCH", "/dev/null");
    assert_eq!(super::world::finish(&mut off).exits(0).stderr, "");
}
