//! The command line, as clap reads it. Nothing here acts.

mod service;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(super) use service::{Heap, HeapAction, Jobs, JobsAction, Order, Serve, Status, Submit};

/// Takes in large files under a memory budget: streamed, deduplicated, compressed, stored once.
#[derive(Debug, Parser)]
#[command(name = "filed", version, max_term_width = 100)]
#[command(after_help = "\
Names that are not plain text are shown with \\xHH for a byte and \\\\ for a backslash, \
and are accepted so.

Exit codes: 0 done; 1 failed; 2 usage; 3 finished, but some files were skipped or failed; \
4 damage found; 10 no store there; 11 store in use; \
75 no service answers, or it is busy; 78 configuration invalid; 128+n on signal n.")]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: Common,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// The store's folder
    #[arg(long, value_name = "PATH", global = true)]
    pub store: Option<PathBuf>,
    /// Read this configuration file too, above the system's and the user's
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What is logged to stderr: auto, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log: Option<String>,
}

/// Options of commands that work on data.
#[derive(Debug, Args)]
pub(super) struct Working {
    /// The most memory this run may use, such as 24M
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// The most threads to work with
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// Show neither progress nor the summary, only what went wrong
    #[arg(long, short)]
    pub quiet: bool,
    /// Print JSON Lines on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Process(Process),
    Restore(Restore),
    Verify(Verify),
    List(List),
    Show(Show),
    Config(Config),
    Pressure(Pressure),
    Serve(Serve),
    Status(Status),
    Submit(Submit),
    Jobs(Jobs),
    /// Have the service begin no new work
    Pause(Order),
    /// Have a paused service go on
    Resume(Order),
    /// Have the service collect its heap, all generations
    Collect(Order),
    /// Have the service give back all memory that nobody uses
    Trim(Order),
    /// Have the service read its configuration again
    ///
    /// If anything in it is wrong, all of it stays as it was.
    Reload(Order),
    Heap(Heap),
}

/// Take in files, folders, or standard input
///
/// Each file is stored under its absolute path, as a new version if it is there already. A file that
/// has not changed since its last version is not read again. Links and special files are skipped.
#[derive(Debug, Args)]
pub(super) struct Process {
    /// Files and folders, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Store the one file, or standard input, under this name
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<OsString>,
    /// Read files even if they seem unchanged since their last version
    #[arg(long)]
    pub reread: bool,
    /// How a new store cuts files: `content` finds shifted data again, `fixed` cuts every 1 MiB
    #[arg(long, value_name = "METHOD")]
    pub chunking: Option<String>,
    /// zstd level, 1 to 19
    #[arg(long, value_name = "N")]
    pub level: Option<String>,
    /// Record what is seen of memory in FILE, for `filed pressure replay`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Write a report on the run into FILE, which ends in `.html` or `.json`
    ///
    /// A page with memory by owner, modes and what was done about memory, throughput and pauses over
    /// time, or the same numbers as JSON. A file that is there is replaced.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub working: Working,
}

/// Give stored files out again
///
/// Every byte is checked on the way. A file is written under a temporary name and only put in its
/// place when it is complete. Without --to it goes back to where it came from.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The file's name in the store, or its path
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub name: Option<OsString>,
    /// This version, not the newest
    #[arg(long, value_name = "N", conflicts_with = "all", value_parser = clap::value_parser!(u64).range(1..))]
    pub version: Option<u64>,
    /// Write to this file, or into this folder
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
    /// Write to standard output
    #[arg(long, conflicts_with_all = ["to", "all", "json", "force"])]
    pub stdout: bool,
    /// Restore the newest version of every file, as a tree below the folder given by --to
    #[arg(long, conflicts_with = "name", requires = "to")]
    pub all: bool,
    /// Replace what is there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub working: Working,
}

/// Check that everything stored can be restored
///
/// Without names, every byte in the store is checked; with names, these files are restored to nowhere.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Check only these files, all versions
    #[arg(value_name = "NAME")]
    pub names: Vec<OsString>,
    /// Check structure only: headers, lists and manifests, not the data
    #[arg(long)]
    pub quick: bool,
    #[command(flatten)]
    pub working: Working,
}

/// List stored files with their newest versions
#[derive(Debug, Args)]
pub(super) struct List {
    /// Print JSON Lines
    #[arg(long)]
    pub json: bool,
}

/// Show a file's versions, what they are made of and how well they packed
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The file's name in the store, or its path
    #[arg(value_name = "NAME")]
    pub name: OsString,
    /// Print JSON Lines
    #[arg(long)]
    pub json: bool,
}

/// Show or check the configuration
#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(subcommand)]
    pub action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigAction {
    /// Print the documented default file
    Default,
    /// Check one file, or everything that applies here
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show every value and where it comes from
    Show {
        /// Print JSON Lines
        #[arg(long)]
        json: bool,
    },
}

/// Record what memory does, and judge a recording again
#[derive(Debug, Args)]
pub(super) struct Pressure {
    #[command(subcommand)]
    pub action: PressureAction,
}

#[derive(Debug, Subcommand)]
pub(super) enum PressureAction {
    /// Look at the memory of a process until it ends, and write what is seen to a file
    ///
    /// The limits that filed finds here are written with it. What filed itself saw in a run is written by
    /// `filed process --record`.
    Record {
        /// The file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The process
        #[arg(long, value_name = "PID")]
        pid: u32,
        /// Look this often
        #[arg(long, value_name = "TIME", default_value = "50ms")]
        every: String,
        /// End after this long
        #[arg(long = "for", value_name = "TIME")]
        time: Option<String>,
    },
    /// Print what filed decides on a recording, and why
    Replay {
        /// The recording
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print every decision, not only those that change or ask for something
        #[arg(long)]
        all: bool,
        /// Print every decision as JSON Lines
        #[arg(long)]
        json: bool,
    },
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// JSON Lines.
    Json,
}

impl Form {
    pub(super) fn of_flag(json: bool) -> Form {
        if json { Form::Json } else { Form::Text }
    }
}
