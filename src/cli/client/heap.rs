//! `filed heap`: what is on the heap of the fingerprint cache.

use std::fmt::Write;

use serde_json::Value;

use super::{Client, in_query};
use crate::cli::args::{Common, Form, Heap as Args, HeapAction};
use crate::cli::exit::Exit;
use crate::cli::output::{self, Count, Size};

pub(in crate::cli) fn run(common: &Common, args: &Args) -> anyhow::Result<Exit> {
    let client = Client::new(common, args.socket.as_deref())?;
    let mut answer: Value = match &args.action {
        HeapAction::Census => client.get("/v1/heap")?,
        HeapAction::Snapshot { label } => {
            let path = format!("/v1/heap/snapshots?label={}", in_query(label));
            client.post(&path, None::<&()>)?
        }
        HeapAction::Snapshots => client.get("/v1/heap/snapshots")?,
        HeapAction::Compare { since, to } => {
            let to = to.map_or_else(String::new, |to| format!("&to={to}"));
            client.get(&format!("/v1/heap/compare?since={since}{to}"))?
        }
        HeapAction::Leaks { since } => client.get(&format!("/v1/heap/leaks?since={since}"))?,
    };
    if Form::of_flag(args.json) == Form::Json {
        answer["v"] = 1.into();
        output::json_line(&answer);
        return Ok(Exit::Done);
    }
    output::print(&match &args.action {
        HeapAction::Census => census(&answer),
        HeapAction::Snapshot { .. } => snapshot(&answer),
        HeapAction::Snapshots => rows(&answer["snapshots"]).map(snapshot).collect(),
        HeapAction::Compare { .. } => compared(&answer),
        HeapAction::Leaks { .. } => leaks(&answer),
    });
    Ok(Exit::Done)
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or(0)
}

fn text_of<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or("-")
}

fn census(answer: &Value) -> String {
    let mut text = format!(
        "{} objects, {} held\n",
        Count(number(answer, "objects")),
        Size(number(answer, "held_bytes"))
    );
    for row in rows(&answer["types"]) {
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "{:>10}  {:>10}  {}",
            Count(number(row, "objects")).to_string(),
            Size(number(row, "bytes") + number(row, "external_bytes")).to_string(),
            text_of(row, "type")
        );
    }
    text
}

fn snapshot(row: &Value) -> String {
    format!(
        "snapshot {}: {} objects, {} held, {:.0} s ago  {}\n",
        number(row, "id"),
        Count(number(row, "objects")),
        Size(number(row, "held_bytes")),
        row["seconds_ago"].as_f64().unwrap_or(0.0),
        text_of(row, "label")
    )
}

/// `+12 objects, +768 bytes  name`
fn growth(row: &Value, name: &str) -> String {
    format!(
        "{:>+10} objects  {:>+12} bytes  {name}\n",
        row["objects"].as_i64().unwrap_or(0),
        row["bytes"].as_i64().unwrap_or(0)
    )
}

fn site(row: &Value) -> String {
    format!("{}:{}", text_of(row, "file"), number(row, "line"))
}

fn compared(answer: &Value) -> String {
    let mut text = String::new();
    for row in rows(&answer["types"]) {
        text.push_str(&growth(row, text_of(row, "type")));
    }
    for list in ["grown", "shrunk"] {
        for row in rows(&answer[list]) {
            text.push_str(&growth(row, &site(row)));
        }
    }
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    text
}

fn leaks(answer: &Value) -> String {
    let mut text = String::new();
    for row in rows(&answer["grown"]) {
        text.push_str(&growth(row, text_of(row, "type")));
        for held in rows(&row["held_by"]) {
            let types: Vec<&str> = rows(&held["types"]).filter_map(Value::as_str).collect();
            // Writing to a text cannot fail.
            let _ = writeln!(
                text,
                "            {} held by {}",
                Count(number(held, "objects")),
                types.join(" <- ")
            );
        }
    }
    for row in rows(&answer["cycles"]) {
        let _ = writeln!(
            text,
            "{:>10} objects  {:>12} bytes  {} (only cycles hold them)",
            number(row, "objects"),
            number(row, "bytes"),
            text_of(row, "type")
        );
    }
    if text.is_empty() {
        text.push_str("nothing grew, and nothing is held by cycles only\n");
    }
    text
}
