//! One trial: files taken in by `filed` in a group, and whether the store then holds what it should.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::bench::{Bench, Scratch};
use crate::data::{Digests, Inputs, difference};
use crate::group::Group;
use crate::run::{End, Fallible, Finished, Running, filed, finish, start};

/// Nothing here takes longer than this by itself; what does is thrashing or stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What the catalog says of each file: name, bytes, digest.
pub(crate) type Listing = BTreeSet<(String, u64, String)>;

/// Files that have been taken in, or not.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) run: Finished,
    pub(crate) store: Scratch,
}

impl Taken {
    /// The summary that filed printed.
    pub(crate) fn summary(&self) -> Fallible<Value> {
        let last = self.run.stdout.lines().last();
        Ok(serde_json::from_str(last.ok_or("filed printed nothing")?)?)
    }
}

/// `filed process` on a new store, quiet and with a summary.
pub(crate) fn process(bench: &Bench, group: &Group, store: &Path, inputs: &Inputs) -> Command {
    let mut command = filed(bench, group, store);
    command.args(["process", "--json", "--quiet"]);
    command.arg(inputs.folder());
    command
}

/// Takes the files in, cold, into a new store.
pub(crate) fn take_in(
    bench: &Bench,
    group: &Group,
    inputs: &Inputs,
    patience: Duration,
    look: impl FnMut(&Running<'_>),
) -> Fallible<Taken> {
    let store = Scratch(bench.fresh("store"));
    let mut command = process(bench, group, &store.0, inputs);
    inputs.cool()?;
    let run = start(bench, &mut command)?.watch(patience, Duration::from_millis(4), look)?;
    Ok(Taken { run, store })
}

/// What is in the store, as the catalog has it.
pub(crate) fn listing(bench: &Bench, store: &Path) -> Fallible<Listing> {
    let group = bench.group(None)?;
    let mut list = filed(bench, &group, store);
    let run = finish(bench, list.args(["list", "--json"]), PATIENCE)?.well()?;
    let files = run.stdout.lines().map(|line| {
        let file: Value = serde_json::from_str(line)?;
        let text = |key: &str| file[key].as_str().unwrap_or_default().to_owned();
        let bytes = file["bytes"].as_u64().unwrap_or(0);
        Ok((text("name"), bytes, text("digest")))
    });
    files.collect()
}

/// Restores everything, in the group too, and says what is wrong with it.
pub(crate) fn restored_wrongly(
    bench: &Bench,
    group: &Group,
    store: &Path,
    expected: &Digests,
) -> Fallible<Option<String>> {
    let to = Scratch(bench.fresh("restored"));
    let mut restore = filed(bench, group, store);
    restore
        .args(["restore", "--all", "--quiet", "--to"])
        .arg(&to.0);
    let run = finish(bench, &mut restore, PATIENCE)?;
    if run.end != End::Code(0) {
        return Ok(Some(format!("restore: {}", run.story())));
    }
    difference(&to.0, expected)
}
