//! What goes over the socket as JSON, for both ends.
//!
//! Fields are only ever added within a version of the paths (`/v1`), and a reader ignores what it does not
//! know. Paths and names are text in the escape of [`crate::store::FileName`]; times are nanoseconds
//! since 1970, sizes bytes.

use serde::{Deserialize, Serialize};

/// `GET /v1/status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of this form: 1.
    pub v: u8,
    /// Version of filed.
    pub version: String,
    /// The service's process.
    pub pid: u32,
    /// The store's folder.
    pub store: String,
    /// When the service began.
    pub started_ns: i64,
    /// When its configuration was last read.
    pub configured_ns: i64,
    /// Whether work is handed on: `open`, `paused` or `draining`.
    pub flow: String,
    /// What keeps the service from its work at present.
    pub problem: Option<String>,
    /// Memory.
    pub memory: Memory,
    /// Jobs by state.
    pub jobs: JobCounts,
    /// What is being taken in at present.
    pub in_work: Vec<InWork>,
    /// What was done since the service began.
    pub done: Done,
    /// The heap of the fingerprint cache.
    pub heap: Heap,
    /// The check of what is stored, in the background.
    pub scrub: Scrub,
    /// Folders that files are taken in from.
    pub inboxes: Vec<Inbox>,
}

/// How far the check of what is stored is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scrub {
    /// `off`, `idle`, `running` or `paused`.
    pub state: String,
    /// When the present pass over everything began; nothing between two.
    pub pass_began_ns: Option<i64>,
    /// Bytes checked in this pass.
    pub checked_bytes: u64,
    /// Bytes there are to check.
    pub total_bytes: u64,
    /// How long the last whole pass took.
    pub last_pass_seconds: Option<f64>,
    /// When it ended.
    pub last_pass_ended_ns: Option<i64>,
    /// How long a pass takes at the present rate.
    pub expected_pass_seconds: Option<f64>,
    /// Bytes read since the service began.
    pub read_bytes: u64,
    /// Damaged places that have lost something.
    pub damaged_places: u64,
    /// Damaged places whose content is stored elsewhere by now.
    pub replaced_places: u64,
}

/// What a folder that files are taken in from has done since the service began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inbox {
    /// The folder.
    pub path: String,
    /// Files that wait until they have settled.
    pub waiting: u64,
    /// Files that were queued.
    pub submitted: u64,
    /// Files that were stored.
    pub stored: u64,
    /// Files that could not be stored.
    pub failed: u64,
    /// When the last one was stored.
    pub last_success_ns: Option<i64>,
    /// What last went wrong.
    pub last_error: Option<String>,
    /// How often more came than could be heard of, so that the folder was looked through.
    pub overflows: u64,
}

/// Memory of the service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// `normal`, `aggressive` or `critical`.
    pub mode: String,
    /// Since when.
    pub mode_since_ns: i64,
    /// Why it is in this mode; nothing before the first change.
    pub why: Option<String>,
    /// What the last sample says by itself: `normal`, `high` or `critical`.
    pub level: String,
    /// All resident pages.
    pub resident_bytes: u64,
    /// Of them those that no file backs.
    pub anonymous_bytes: u64,
    /// At this much aggressive mode begins.
    pub threshold_bytes: u64,
    /// The service never grows beyond this.
    pub limit_bytes: u64,
    /// Which limit rules, and why.
    pub limits: Vec<String>,
    /// Workers that may work now.
    pub workers: u64,
    /// Workers that the limit allows.
    pub workers_planned: u64,
    /// Who holds how much.
    pub owners: Owners,
    /// The last changes of mode, the newest last.
    pub changes: Vec<Change>,
    /// Idle buffers given back.
    pub trims: Given,
    /// Collections that were ordered, and shrinkings of the cache.
    pub collections: Given,
    /// What malloc and the database gave back.
    pub other: Given,
}

/// Who holds how much of the resident memory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Owners {
    /// Buffers with chunks of files.
    pub chunks_bytes: u64,
    /// Buffers with frames and records of the store.
    pub frames_bytes: u64,
    /// Buffers of streams on the socket.
    pub transfers_bytes: u64,
    /// Contexts of the compressor.
    pub compression_bytes: u64,
    /// The cache of known pieces.
    pub fingerprints_bytes: u64,
    /// Buffers that nobody uses.
    pub idle_bytes: u64,
    /// The database's page cache.
    pub database_bytes: u64,
    /// All that is resident beside these.
    pub rest_bytes: u64,
}

/// A change of mode.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at_ns: i64,
    /// The mode that was left.
    pub from: String,
    /// The mode that was entered.
    pub to: String,
    /// The numbers that caused it.
    pub why: String,
    /// What was resident less after what followed at once.
    pub freed_bytes: u64,
}

/// A kind of relief.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Given {
    /// How often.
    pub count: u64,
    /// What came back, as far as that was seen.
    pub bytes: u64,
    /// When the last was; 0 if never.
    pub last_ns: i64,
    /// What came back then.
    pub last_bytes: u64,
}

/// Jobs by state.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct JobCounts {
    /// Queued.
    pub queued: u64,
    /// Running.
    pub running: u64,
    /// Stored, as far as they are remembered.
    pub stored: u64,
    /// Failed, as far as they are remembered.
    pub failed: u64,
}

/// Something in work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InWork {
    /// A path, or the name of a stream.
    pub what: String,
    /// Since so many seconds.
    pub seconds: f64,
}

/// What was done since the service began.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Files with an outcome.
    pub files: u64,
    /// Bytes of files dealt with, unchanged ones and holes included.
    pub bytes: u64,
    /// Bytes that were new to the store.
    pub new_bytes: u64,
    /// Bytes appended to packs.
    pub stored_bytes: u64,
    /// Bytes of files dealt with in a second, over the last seconds.
    pub bytes_per_second: u64,
}

/// A heap of objects.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Heap {
    /// Objects that are there.
    pub objects: u64,
    /// Bytes that it holds.
    pub held_bytes: u64,
    /// Collections so far, by generation.
    pub collections: [u64; 3],
    /// Unreachable objects found and freed.
    pub collected: u64,
    /// The longest pause, in seconds.
    pub longest_pause_seconds: f64,
}

/// A job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// `queued`, `running`, `stored` or `failed`.
    pub state: String,
    /// The greater, the sooner.
    pub priority: i32,
    /// The file.
    pub path: String,
    /// Who wanted it: `submit`, or `inbox:` and its folder.
    pub origin: String,
    /// When it was accepted.
    pub submitted_ns: i64,
    /// It is not tried before this.
    pub due_ns: i64,
    /// When the last attempt began.
    pub started_ns: Option<i64>,
    /// When it ended.
    pub ended_ns: Option<i64>,
    /// Attempts so far.
    pub attempts: u32,
    /// Length of the file, once it is stored.
    pub size_bytes: u64,
    /// Bytes that were new to the store.
    pub new_bytes: u64,
    /// Bytes they took in the store.
    pub stored_bytes: u64,
    /// The version that it became, or was already.
    pub version: Option<u64>,
    /// Why the last attempt failed.
    pub reason: Option<String>,
}

/// `GET /v1/jobs`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobList {
    /// The newest first.
    pub jobs: Vec<Job>,
    /// Ask again with `before` set to this for older ones; none if there are none.
    pub before: Option<i64>,
}

/// `POST /v1/jobs`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// Files and folders, absolute.
    pub paths: Vec<SubmitPath>,
    /// The greater, the sooner.
    #[serde(default)]
    pub priority: i32,
}

/// Something to be taken in, and by what the service can tell that it sees the same thing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitPath {
    /// The path.
    pub path: String,
    /// Its device, as the client sees it.
    #[serde(default)]
    pub device: Option<u64>,
    /// Its inode.
    #[serde(default)]
    pub inode: Option<u64>,
}

/// What came of a [`SubmitPath`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Submitted {
    /// The path.
    pub path: String,
    /// The job, if it is a single file.
    pub id: Option<i64>,
    /// Files queued.
    pub queued: u64,
    /// Files that have an open job already.
    pub already: u64,
    /// Files for which the queue had no room.
    pub refused: u64,
    /// Things found that are no files, or could not be looked at.
    pub skipped: u64,
    /// The service cannot see or read it, and why: the bytes can be sent instead.
    pub unseen: Option<String>,
}

/// The answer to [`Submit`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubmitAnswer {
    /// One for each path, in their order.
    pub submitted: Vec<Submitted>,
}

/// An event of `GET /v1/jobs/events`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobEvent {
    /// The job.
    pub id: i64,
    /// Where it stands now.
    pub state: String,
}

/// A file that was sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// The version that it became.
    pub version: Option<u64>,
    /// Its length.
    pub size_bytes: u64,
    /// Bytes that were new to the store.
    pub new_bytes: u64,
    /// Bytes they took in the store.
    pub stored_bytes: u64,
    /// BLAKE3 digest of the content.
    pub digest: Option<String>,
}

/// A version of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The file's name.
    pub name: String,
    /// Number of the version.
    pub version: u64,
    /// Its length.
    pub size_bytes: u64,
    /// BLAKE3 digest of the content.
    pub digest: String,
    /// When it was read.
    pub read_at_ns: i64,
    /// Bytes that were new to the store.
    pub new_bytes: u64,
    /// Bytes they took in the store.
    pub stored_bytes: u64,
    /// How many versions the file has, where files are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<u64>,
}

/// `GET /v1/files` and `GET /v1/files/versions`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionList {
    /// In ascending order.
    pub versions: Vec<Version>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// What failed, and what to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What failed and why.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
