//! The command line: arguments in, text and exit codes out. It decides nothing.
//!
//! Data go to stdout, talk to stderr. Every error is one line that says what was being done, to
//! which path, why it did not work, and, where there is one, what to do about it.

mod args;
mod client;
mod config;
mod exit;
mod list;
mod logging;
mod names;
mod output;
mod pressure;
mod process;
mod report;
mod restore;
mod screen;
mod serve;
mod setup;
mod summary;
mod verify;

use clap::{CommandFactory, Parser};

pub use exit::Exit;

use args::{Cli, Command};

/// Runs the command that this process was called with.
pub fn run() -> Exit {
    let cli = Cli::parse();
    let common = &cli.common;
    let outcome = match &cli.command {
        Command::Process(args) => process::run(common, args),
        Command::Restore(args) => restore::run(common, args),
        Command::Verify(args) => verify::run(common, args),
        Command::List(args) => list::list(common, args),
        Command::Show(args) => list::show(common, args),
        Command::Config(args) => config::run(common, args),
        Command::Status(args) => client::status(common, args),
        Command::Submit(args) => client::submit(common, args),
        Command::Jobs(args) => client::jobs(common, args),
        Command::Pause(args) => client::pause(common, args),
        Command::Resume(args) => client::resume(common, args),
        Command::Collect(args) => client::collect(common, args),
        Command::Trim(args) => client::trim(common, args),
        Command::Reload(args) => client::reload(common, args),
        Command::Heap(args) => client::heap(common, args),
        Command::Serve(args) => serve::run(common, args),
        Command::Pressure(args) => pressure::run(common, args),
    };
    outcome.unwrap_or_else(|error| {
        let (exit, hint) = exit::classify(&error);
        let message = match hint {
            Some(hint) => format!("{error:#} (hint: {hint})"),
            None => format!("{error:#}"),
        };
        output::warn(&message);
        exit
    })
}

/// The definition of the command line, for documentation and tests.
pub fn command() -> clap::Command {
    Cli::command()
}
