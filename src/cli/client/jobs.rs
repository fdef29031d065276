//! `filed jobs`: what was handed in, and what became of it.

use std::fmt::Write;

use hyper::Method;
use serde::Serialize;

use super::{Client, ClientError};
use crate::cli::args::{Common, Form, Jobs as Args, JobsAction};
use crate::cli::exit::Exit;
use crate::cli::output::{self, Size};
use crate::daemon::socket::wire::{Job, JobEvent, JobList};

/// Jobs asked for at a time.
const PAGE: u32 = 1000;

pub(in crate::cli) fn run(common: &Common, args: &Args) -> anyhow::Result<Exit> {
    let client = Client::new(common, args.socket.as_deref())?;
    let form = Form::of_flag(args.json);
    match &args.action {
        None => list(&client, form, args.state.as_deref(), args.limit),
        Some(JobsAction::Show { id }) => {
            let job: Job = client.get(&format!("/v1/jobs/{id}"))?;
            match form {
                Form::Json => output::json_line(&Line::of(&job)),
                Form::Text => output::print(&detail(&job)),
            }
            Ok(Exit::Done)
        }
        Some(JobsAction::Cancel { ids }) => each(ids, |id| {
            client.tell(Method::DELETE, &format!("/v1/jobs/{id}"))
        }),
        Some(JobsAction::Retry { ids, failed }) => {
            let mut ids = ids.clone();
            if *failed {
                let mut before = i64::MAX;
                loop {
                    let page: JobList = client.get(&format!(
                        "/v1/jobs?state=failed&limit={PAGE}&before={before}"
                    ))?;
                    ids.extend(page.jobs.iter().map(|job| job.id));
                    match page.before {
                        Some(last) => before = last,
                        None => break,
                    }
                }
            }
            each(&ids, |id| {
                client.tell(Method::POST, &format!("/v1/jobs/{id}/retry"))
            })
        }
        Some(JobsAction::Watch) => watch(&client, form),
    }
}

/// Does something with each job, whatever becomes of the others.
fn each(ids: &[i64], mut one: impl FnMut(i64) -> Result<(), ClientError>) -> anyhow::Result<Exit> {
    let mut refused = 0;
    for id in ids {
        match one(*id) {
            Err(error @ ClientError::Refused { .. }) => {
                refused += 1;
                output::warn(&error);
            }
            outcome => outcome?,
        }
    }
    Ok(match refused {
        0 => Exit::Done,
        refused if refused == ids.len() => Exit::Failed,
        _ => Exit::Partly,
    })
}

fn list(client: &Client, form: Form, state: Option<&str>, limit: u32) -> anyhow::Result<Exit> {
    let mut left = limit;
    let mut before = i64::MAX;
    while left > 0 {
        let mut path = format!("/v1/jobs?limit={}&before={before}", left.min(PAGE));
        if let Some(state) = state {
            let _ = write!(path, "&state={}", super::in_query(state));
        }
        let page: JobList = client.get(&path)?;
        for job in &page.jobs {
            match form {
                Form::Json => output::json_line(&Line::of(job)),
                Form::Text => output::print(&line(job)),
            }
        }
        left -= page.jobs.len().min(left as usize) as u32;
        match page.before {
            Some(last) => before = last,
            None => break,
        }
    }
    Ok(Exit::Done)
}

/// A job as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    r#type: &'static str,
    #[serde(flatten)]
    job: &'a Job,
}

impl<'a> Line<'a> {
    fn of(job: &'a Job) -> Line<'a> {
        Line {
            v: 1,
            r#type: "job",
            job,
        }
    }
}

fn line(job: &Job) -> String {
    let at = job.ended_ns.or(job.started_ns).unwrap_or(job.submitted_ns);
    let mut line = format!(
        "{:>8}  {:<7}  {}  {}",
        job.id,
        job.state,
        output::time(at),
        job.path
    );
    if job.state == "stored" {
        let _ = write!(line, "  {}", Size(job.size_bytes));
    } else if let Some(reason) = &job.reason {
        let _ = write!(line, "  ({reason})");
    }
    line.push('\n');
    line
}

fn detail(job: &Job) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    row("job", &job.id.to_string());
    row("path", &job.path);
    row("state", &job.state);
    row("from", &job.origin);
    row("priority", &job.priority.to_string());
    row("submitted", &output::time(job.submitted_ns));
    row("attempts", &job.attempts.to_string());
    if let Some(started_ns) = job.started_ns {
        row("started", &output::time(started_ns));
    }
    if let Some(ended_ns) = job.ended_ns {
        row("ended", &output::time(ended_ns));
    }
    if job.state == "queued" && job.due_ns > job.submitted_ns {
        row("next", &output::time(job.due_ns));
    }
    if let Some(version) = job.version {
        row("version", &version.to_string());
        row(
            "size",
            &format!(
                "{}, {} new, {} stored",
                Size(job.size_bytes),
                Size(job.new_bytes),
                Size(job.stored_bytes)
            ),
        );
    }
    if let Some(reason) = &job.reason {
        row("reason", reason);
    }
    text
}

fn watch(client: &Client, form: Form) -> anyhow::Result<Exit> {
    client.listen("/v1/jobs/events", &mut |heard| {
        let Some(data) = heard.strip_prefix("data: ") else {
            return true;
        };
        match (form, serde_json::from_str::<JobEvent>(data)) {
            (Form::Json, Ok(event)) => output::json_line(&serde_json::json!({
                "v": 1, "type": "event", "id": event.id, "state": event.state
            })),
            (Form::Text, Ok(event)) => {
                output::print(&format!("{:>8}  {}\n", event.id, event.state));
            }
            // That some were missed, for one.
            (_, Err(_)) => {}
        }
        true
    })?;
    Ok(Exit::Done)
}
