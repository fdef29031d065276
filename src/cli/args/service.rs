//! The command line of the service and of the commands that talk to it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Run as a service: take in what comes in over the socket and in inboxes, until told to stop
///
/// It stays in the foreground. SIGTERM and SIGINT let running files finish, a second one ends it at once;
/// SIGHUP reads the configuration again, SIGUSR1 gives memory back, SIGUSR2 writes its state to the log.
#[derive(Debug, Args)]
pub(in crate::cli) struct Serve {
    /// The control socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The most memory the service may use, such as 64M
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// The most threads to work with
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
}

/// How a service is reached.
#[derive(Debug, Args)]
pub(in crate::cli) struct Reach {
    /// The service's control socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Something said to all of the service.
#[derive(Debug, Args)]
pub(in crate::cli) struct Order {
    #[command(flatten)]
    pub reach: Reach,
    /// Print JSON Lines
    #[arg(long)]
    pub json: bool,
}

/// Show how the service is: memory by owner, mode, jobs, rates
#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    /// Again and again, this often
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", require_equals = true)]
    pub watch: Option<String>,
    /// Print JSON Lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

/// Hand files, folders, or standard input to the service
///
/// The service reads what it can see itself, later. What it cannot see is sent to it, and stored when
/// this ends.
#[derive(Debug, Args)]
pub(in crate::cli) struct Submit {
    /// Files and folders, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Store standard input under this name
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<OsString>,
    /// The greater, the sooner
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub priority: i32,
    /// Wait until the files are stored or given up; for those below folders, only until they are queued
    #[arg(long)]
    pub wait: bool,
    /// Print JSON Lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

/// List jobs, the newest first, or do something with some
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct Jobs {
    /// Only those in this state: queued, running, stored or failed
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Print JSON Lines
    #[arg(long, global = true)]
    pub json: bool,
    #[arg(
        long,
        value_name = "PATH",
        global = true,
        help = "The service's control socket"
    )]
    pub socket: Option<PathBuf>,
    #[command(subcommand)]
    pub action: Option<JobsAction>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum JobsAction {
    /// Show everything about a job
    Show {
        /// Its number
        #[arg(value_name = "ID")]
        id: i64,
    },
    /// Give jobs up: queued ones at once, running ones at their next chunk
    Cancel {
        /// Their numbers
        #[arg(value_name = "ID", required = true)]
        ids: Vec<i64>,
    },
    /// Try failed jobs again, or at once those that wait for their next attempt
    Retry {
        /// Their numbers
        #[arg(value_name = "ID", required_unless_present = "failed")]
        ids: Vec<i64>,
        /// All that have failed
        #[arg(long)]
        failed: bool,
    },
    /// Tell what happens to jobs as it happens
    Watch,
}

/// Look at the heap of the fingerprint cache
#[derive(Debug, Args)]
pub(in crate::cli) struct Heap {
    /// Print JSON Lines
    #[arg(long, global = true)]
    pub json: bool,
    #[arg(
        long,
        value_name = "PATH",
        global = true,
        help = "The service's control socket"
    )]
    pub socket: Option<PathBuf>,
    #[command(subcommand)]
    pub action: HeapAction,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum HeapAction {
    /// Objects by type
    Census,
    /// Take a snapshot, to be compared with later
    Snapshot {
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        label: String,
    },
    /// List the snapshots that are kept
    Snapshots,
    /// Show what has changed since a snapshot
    Compare {
        /// Number of the earlier one
        #[arg(value_name = "SINCE")]
        since: u64,
        /// Number of the later one; without it, the heap as it is now
        #[arg(value_name = "TO")]
        to: Option<u64>,
    },
    /// Show what grew since a snapshot and what keeps it alive, and what only cycles hold
    Leaks {
        /// Number of the snapshot
        #[arg(value_name = "SINCE")]
        since: u64,
    },
}
