//! `pause`, `resume`, `collect`, `trim`, `reload`: something said to all of the service.

use hyper::Method;
use serde_json::Value;

use super::Client;
use crate::cli::args::{Common, Form, Order};
use crate::cli::exit::Exit;
use crate::cli::output::{self, Count, Size};

pub(in crate::cli) fn pause(common: &Common, args: &Order) -> anyhow::Result<Exit> {
    Client::new(common, args.reach.socket.as_deref())?.tell(Method::POST, "/v1/pause")?;
    said(
        args,
        "paused",
        "paused: what runs goes on, nothing new begins\n",
    );
    Ok(Exit::Done)
}

pub(in crate::cli) fn resume(common: &Common, args: &Order) -> anyhow::Result<Exit> {
    Client::new(common, args.reach.socket.as_deref())?.tell(Method::POST, "/v1/resume")?;
    said(args, "open", "resumed\n");
    Ok(Exit::Done)
}

fn said(args: &Order, flow: &str, text: &str) {
    match Form::of_flag(args.json) {
        Form::Json => output::json_line(&serde_json::json!({ "v": 1, "flow": flow })),
        Form::Text => output::print(text),
    }
}

pub(in crate::cli) fn collect(common: &Common, args: &Order) -> anyhow::Result<Exit> {
    let done: Value =
        Client::new(common, args.reach.socket.as_deref())?.post("/v1/collect", None::<&()>)?;
    answer(args, &done, |done| {
        let number = |key: &str| done[key].as_u64().unwrap_or(0);
        format!(
            "{} objects collected, heap {} -> {}\n",
            Count(number("collected")),
            Size(number("held_before_bytes")),
            Size(number("held_after_bytes"))
        )
    });
    Ok(Exit::Done)
}

pub(in crate::cli) fn trim(common: &Common, args: &Order) -> anyhow::Result<Exit> {
    let done: Value =
        Client::new(common, args.reach.socket.as_deref())?.post("/v1/trim", None::<&()>)?;
    answer(args, &done, |done| {
        let number = |key: &str| done[key].as_u64().unwrap_or(0);
        format!(
            "resident {} -> {}, {} of buffers went back\n",
            Size(number("resident_before_bytes")),
            Size(number("resident_after_bytes")),
            Size(number("buffers_bytes"))
        )
    });
    Ok(Exit::Done)
}

pub(in crate::cli) fn reload(common: &Common, args: &Order) -> anyhow::Result<Exit> {
    let done: Value =
        Client::new(common, args.reach.socket.as_deref())?.post("/v1/reload", None::<&()>)?;
    answer(args, &done, |done| {
        let keys = |key: &str| {
            let keys = done[key].as_array().into_iter().flatten();
            let keys: Vec<&str> = keys.filter_map(Value::as_str).collect();
            keys.join(", ")
        };
        let mut text = match keys("applied") {
            applied if applied.is_empty() => {
                "nothing that applies at once has changed\n".to_owned()
            }
            applied => format!("applied: {applied}\n"),
        };
        let restart = keys("restart");
        if !restart.is_empty() {
            text.push_str(&format!("applies after a restart: {restart}\n"));
        }
        text
    });
    Ok(Exit::Done)
}

fn answer(args: &Order, done: &Value, text: impl FnOnce(&Value) -> String) {
    match Form::of_flag(args.json) {
        Form::Json => {
            let mut line = done.clone();
            line["v"] = 1.into();
            output::json_line(&line);
        }
        Form::Text => output::print(&text(done)),
    }
}
