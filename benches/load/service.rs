//! The service under load: the real binary, with three inboxes, in folders of its own.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::content::Content;
use super::http;

pub(crate) struct Service {
    root: PathBuf,
    inboxes: [PathBuf; 3],
    child: Child,
    _folder: tempfile::TempDir,
}

impl Service {
    pub(crate) fn start() -> Result<Service, Box<dyn Error>> {
        let (folder, root) = super::folder()?;
        let inboxes = ["keep", "delete", "move"].map(|name| root.join(name));
        for inbox in &inboxes {
            fs::create_dir(inbox)?;
        }
        for name in ["done", "outside"] {
            fs::create_dir(root.join(name))?;
        }
        fs::write(root.join("filed.toml"), configuration(&root, false))?;
        let child = Command::new(env!("CARGO_BIN_EXE_filed"))
            .arg("serve")
            .arg("--store")
            .arg(root.join("store"))
            .arg("--socket")
            .arg(root.join("socket"))
            .arg("--config")
            .arg(root.join("filed.toml"))
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::null())
            .stderr(File::create(root.join("log"))?)
            .spawn()?;
        let service = Service {
            root,
            inboxes,
            child,
            _folder: folder,
        };
        let began = Instant::now();
        while service.status().is_err() {
            if began.elapsed() > Duration::from_secs(30) {
                return Err(format!("it does not start: {:?}", service.log()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(service)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn inboxes(&self) -> &[PathBuf; 3] {
        &self.inboxes
    }

    /// A folder that is no inbox.
    pub(crate) fn outside(&self) -> PathBuf {
        self.root.join("outside")
    }

    /// Writes one of two configurations.
    pub(crate) fn configure(&self, other: bool) -> std::io::Result<()> {
        fs::write(
            self.root.join("filed.toml"),
            configuration(&self.root, other),
        )
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<String, Box<dyn Error>> {
        let length = body.len() as u64;
        let answer = http::ask(&self.socket(), method, path, length, &mut |out| {
            out.write_all(body)
        })?;
        let status = answer.status;
        let text = answer.text()?;
        match status {
            200..300 => Ok(text),
            status => Err(format!("{method} {path}: {status}: {text}").into()),
        }
    }

    fn socket(&self) -> PathBuf {
        self.root.join("socket")
    }

    pub(crate) fn order(&self, method: &str, path: &str) -> Result<(), Box<dyn Error>> {
        self.ask(method, path, b"").map(drop)
    }

    pub(crate) fn status(&self) -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_str(&self.ask(
            "GET",
            "/v1/status",
            b"",
        )?)?)
    }

    pub(crate) fn submit(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let body = json!({ "paths": [{ "path": path }] }).to_string();
        let answer: Value =
            serde_json::from_str(&self.ask("POST", "/v1/jobs", body.as_bytes())?)?;
        match answer["submitted"][0]["queued"].as_u64() {
            Some(1) => Ok(()),
            _ => Err(format!("not queued: {answer}").into()),
        }
    }

    pub(crate) fn send(&self, name: &str, content: &Content) -> Result<(), Box<dyn Error>> {
        let path = format!("/v1/files/content?name={name}");
        let answer = http::ask(&self.socket(), "PUT", &path, content.bytes(), &mut |out| {
            content.write(out)
        })?;
        match answer.status {
            201 => Ok(()),
            status => Err(format!("PUT {name}: {status}: {}", answer.text()?).into()),
        }
    }

    /// The newest version of a name.
    pub(crate) fn newest(&self, name: &str) -> Result<Value, Box<dyn Error>> {
        let text = self.ask("GET", &format!("/v1/files/versions?name={name}"), b"")?;
        let answer: Value = serde_json::from_str(&text)?;
        let versions = answer["versions"].as_array();
        Ok(versions
            .and_then(|all| all.last())
            .cloned()
            .unwrap_or_default())
    }

    /// Reads a file out and compares it with what went in.
    pub(crate) fn compare(&self, name: &str, content: &Content) -> Result<(), Box<dyn Error>> {
        let path = format!("/v1/files/content?name={name}");
        let answer = loop {
            let answer = http::ask(&self.socket(), "GET", &path, 0, &mut |_| Ok(()))?;
            match answer.status {
                200 => break answer,
                // Another stream goes out.
                503 => std::thread::sleep(Duration::from_millis(100)),
                status => return Err(format!("GET {name}: {status}: {}", answer.text()?).into()),
            }
        };
        let mut digest = blake3::Hasher::new();
        answer.read(&mut |part| {
            digest.update(part);
            Ok(())
        })?;
        let mut expected = blake3::Hasher::new();
        content.blocks(&mut |block| {
            expected.update(block);
            Ok(())
        })?;
        if digest.finalize() == expected.finalize() {
            Ok(())
        } else {
            Err(format!("{name}: what came out is not what went in").into())
        }
    }

    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.root.join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Stops the service; gives the lines of its log that tell of something wrong.
    pub(crate) fn stop(mut self) -> Result<Vec<String>, Box<dyn Error>> {
        self.order("POST", "/v1/stop")?;
        let status = self.child.wait()?;
        let wrong = |line: &String| {
            let is = |word: &str| line.contains(word);
            is(" WARN ") || is(" ERROR ") || is("panicked")
        };
        let mut wrong: Vec<String> = self.log().into_iter().filter(wrong).collect();
        if !status.success() {
            wrong.push(format!("the service ended with {status}"));
        }
        Ok(wrong)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(root: &Path, other: bool) -> String {
    let (level, limit) = if other { (1, 128) } else { (3, 256) };
    let inbox = |name: &str, more: &str| {
        let path = root.join(name);
        format!(
            "[[inbox]]\npath = \"{}\"\nsettle = \"300ms\"\n{more}\n",
            path.display()
        )
    };
    format!(
        "[memory]\nlimit = \"{limit} MiB\"\n[compression]\nlevel = {level}\n\
         [heap]\nidle = \"1s\"\n[service]\nrenew_after = \"1 GiB\"\nrescan = \"10s\"\n\
         [scrub]\nrate = \"16 MiB\"\nevery = \"1h\"\n{}{}{}",
        inbox("keep", ""),
        inbox("delete", "after = \"delete\"\npriority = 5"),
        inbox(
            "move",
            &format!("after = \"{}\"", root.join("done").display())
        )
    )
}
