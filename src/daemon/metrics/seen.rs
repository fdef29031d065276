//! What one scrape has seen, and which families say it.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit::{Bytes, Seconds};

use super::page::{Family, Page};
use crate::daemon::inbox::InboxStats;
use crate::daemon::jobs::Counts;
use crate::daemon::service::Service;
use crate::daemon::service::board::Shown;
use crate::daemon::service::desk::{Ends, Flow};
use crate::daemon::socket::wire::Owners;
use crate::heap::{HeapTotals, PoolStats};
use crate::pipeline::TimeCounts;
use crate::pipeline::scrub::{ScrubState, ScrubStatus};
use crate::store::error::Chain;
use crate::store::show_path;

/// Pauses shorter than 2 to this power of nanoseconds, about a microsecond, are one.
const SHORTEST_PAUSE: usize = 10;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) shown: Shown,
    pub(super) owners: Owners,
    pub(super) pool: PoolStats,
    pub(super) heap: HeapTotals,
    pub(super) jobs: Option<Queue>,
    pub(super) ends: Ends,
    pub(super) most_open: u64,
    pub(super) flow: Flow,
    pub(super) in_work: u64,
    pub(super) workers: u64,
    /// Files by [`Status`](crate::pipeline::Status).
    pub(super) outcomes: [u64; 4],
    pub(super) done_bytes: u64,
    pub(super) new_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) read_times: TimeCounts,
    pub(super) chunk_times: TimeCounts,
    pub(super) scrub: ScrubStatus,
    pub(super) inboxes: Vec<InboxStats>,
}

/// What the table of jobs says.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) counts: Counts,
    pub(super) oldest_ns: Option<i64>,
}

impl Seen {
    /// What there is to see at this moment.
    pub(super) fn of(service: &Service) -> Seen {
        let shown = service.board.read();
        let progress = &service.progress;
        let counts = service.desk.counts();
        let oldest_ns = service.desk.jobs().oldest_ns();
        let jobs = counts.and_then(|counts| {
            let oldest_ns = oldest_ns?;
            Ok(Queue { counts, oldest_ns })
        });
        Seen {
            owners: service.owners(shown.resident_bytes),
            pool: service.pool.stats(),
            heap: service.heap.now(),
            jobs: jobs
                .inspect_err(|error| {
                    tracing::debug!(error = %Chain(error), "metrics lack what is to be said of jobs");
                })
                .ok(),
            ends: service.desk.ends(),
            most_open: service.desk.settings().most_open,
            flow: service.desk.flow(),
            in_work: service.desk.in_work().len() as u64,
            workers: service.limits.workers() as u64,
            outcomes: (progress.outcomes.each_ref()).map(|count| count.load(Ordering::Relaxed)),
            done_bytes: progress.done_bytes.load(Ordering::Relaxed),
            new_bytes: progress.new_bytes.load(Ordering::Relaxed),
            stored_bytes: progress.stored_bytes.load(Ordering::Relaxed),
            read_times: progress.read_times.counts(),
            chunk_times: progress.chunk_times.counts(),
            scrub: service.scrub.status(),
            inboxes: (service.inboxes.get())
                .map(|inboxes| inboxes.stats())
                .unwrap_or_default(),
            shown,
        }
    }

    fn service(&self, page: &mut Page<'_>) -> fmt::Result {
        let shown = &self.shown;
        page.info(
            Family("filed_build", None, "The version of filed that serves."),
            &[("version", env!("CARGO_PKG_VERSION"))],
        )?;
        page.gauge(
            Family(
                "filed_start_time",
                Some(Seconds),
                "When the service began, seconds since 1970.",
            ),
            seconds(shown.started_ns),
        )?;
        page.gauge(
            Family(
                "filed_configured_timestamp",
                Some(Seconds),
                "When the configuration was last read successfully, seconds since 1970.",
            ),
            seconds(shown.configured_ns),
        )?;
        page.choice(
            Family(
                "filed_flow",
                None,
                "Whether work is handed on: 1 at open, paused or draining.",
            ),
            "flow",
            &["open", "paused", "draining"],
            match self.flow {
                Flow::Open => "open",
                Flow::Paused => "paused",
                Flow::Draining => "draining",
            },
        )?;
        page.gauge(
            Family(
                "filed_problem",
                None,
                "1 while something keeps the service from its work, as a store that cannot be written.",
            ),
            u64::from(shown.problem.is_some()),
        )
    }

    fn memory(&self, page: &mut Page<'_>) -> fmt::Result {
        let (shown, owners) = (&self.shown, &self.owners);
        let marks = &shown.thresholds;
        let bytes = [
            (
                "filed_memory_resident",
                shown.resident_bytes,
                "Resident memory of the service at the last sample.",
            ),
            (
                "filed_memory_anonymous",
                shown.anonymous_bytes,
                "Resident memory that no file backs, at the last sample.",
            ),
            (
                "filed_memory_resume",
                marks.resume_bytes(),
                "Below this much aggressive mode ends.",
            ),
            (
                "filed_memory_threshold",
                marks.threshold_bytes(),
                "At this much aggressive mode begins.",
            ),
            (
                "filed_memory_critical",
                marks.critical_bytes(),
                "At this much critical mode begins.",
            ),
            (
                "filed_memory_limit",
                marks.limit_bytes(),
                "The service never grows beyond this.",
            ),
        ];
        for (name, value, means) in bytes {
            page.gauge(Family(name, Some(Bytes), means), value)?;
        }
        if let Some(headroom_bytes) = shown.headroom_bytes {
            let means = "Room left around the service, in its cgroup or on the machine, at the last sample.";
            let family = Family("filed_memory_headroom", Some(Bytes), means);
            page.gauge(family, headroom_bytes)?;
        }
        page.gauges(
            Family(
                "filed_memory_owner",
                Some(Bytes),
                "Who holds how much of the resident memory.",
            ),
            "owner",
            &[
                ("chunks", owners.chunks_bytes),
                ("frames", owners.frames_bytes),
                ("transfers", owners.transfers_bytes),
                ("compression", owners.compression_bytes),
                ("fingerprints", owners.fingerprints_bytes),
                ("idle", owners.idle_bytes),
                ("database", owners.database_bytes),
                ("rest", owners.rest_bytes),
            ],
        )?;
        self.group(page)
    }

    fn group(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(group) = &self.shown.group else {
            return Ok(());
        };
        let bytes = [
            (
                "filed_cgroup_limit",
                group.limit_bytes,
                "Limit of the cgroup that is nearest to its limit.",
            ),
            (
                "filed_cgroup_used",
                group.used_bytes,
                "All that is charged to that cgroup, page cache included.",
            ),
            (
                "filed_cgroup_working",
                group.working_bytes,
                "The same without pages of files that were not used lately.",
            ),
            (
                "filed_cgroup_unreclaimable",
                group.unreclaimable_bytes,
                "Of it what the kernel cannot take back by itself.",
            ),
        ];
        for (name, value, means) in bytes {
            page.gauge(Family(name, Some(Bytes), means), value)?;
        }
        let counts = [
            (
                "filed_cgroup_oom_kills",
                group.oom_kills,
                "Processes that the kernel killed in cgroups around the service.",
            ),
            (
                "filed_cgroup_max_events",
                group.max_events,
                "How often that cgroup met its limit.",
            ),
            (
                "filed_cgroup_high_events",
                group.high_events,
                "How often that cgroup was above memory.high.",
            ),
        ];
        for (name, value, means) in counts {
            page.counter(Family(name, None, means), value)?;
        }
        Ok(())
    }

    fn mode(&self, page: &mut Page<'_>) -> fmt::Result {
        const MODES: [&str; 3] = ["normal", "aggressive", "critical"];
        let shown = &self.shown;
        page.choice(
            Family(
                "filed_mode",
                None,
                "What is done about memory: 1 at normal, aggressive or critical.",
            ),
            "mode",
            &MODES,
            MODES[shown.mode as usize],
        )?;
        page.gauge(
            Family(
                "filed_mode_since_timestamp",
                Some(Seconds),
                "Since when the mode has been this one, seconds since 1970.",
            ),
            seconds(shown.mode_since_ns),
        )?;
        page.counters(
            Family(
                "filed_mode_entered",
                None,
                "How often each mode was entered.",
            ),
            "mode",
            &std::array::from_fn::<_, 3, _>(|mode| (MODES[mode], shown.entered[mode])),
        )?;
        page.counter(
            Family(
                "filed_trims",
                None,
                "How often idle buffers were given back.",
            ),
            shown.trims.count,
        )?;
        page.counter(
            Family(
                "filed_trimmed",
                Some(Bytes),
                "Bytes that trims gave back, as far as that was seen.",
            ),
            shown.trims.bytes,
        )?;
        page.counter(
            Family(
                "filed_ordered_collections",
                None,
                "Collections of everything that were ordered, and shrinkings of the fingerprint cache.",
            ),
            shown.collections.count,
        )?;
        page.counter(
            Family(
                "filed_shrinks",
                None,
                "How often malloc and the database gave memory back.",
            ),
            shown.other.count,
        )?;
        page.counter(
            Family(
                "filed_shrunk",
                Some(Bytes),
                "Bytes that malloc and the database gave back, as far as that was seen.",
            ),
            shown.other.bytes,
        )
    }

    fn heap(&self, page: &mut Page<'_>) -> fmt::Result {
        let heap = &self.heap;
        page.gauge(
            Family(
                "filed_heap_objects",
                None,
                "Objects on the heap of the fingerprint cache.",
            ),
            heap.live_objects,
        )?;
        page.gauge(
            Family("filed_heap_held", Some(Bytes), "Bytes that the heap holds."),
            heap.held_bytes,
        )?;
        page.counters(
            Family(
                "filed_heap_collections",
                None,
                "Collections of the heap that ended, by generation.",
            ),
            "generation",
            &std::array::from_fn::<_, 3, _>(|generation| {
                (["0", "1", "2"][generation], heap.collections[generation])
            }),
        )?;
        page.counter(
            Family(
                "filed_heap_collected_objects",
                None,
                "Unreachable objects that collections found and freed.",
            ),
            heap.collected,
        )?;
        page.counter(
            Family(
                "filed_heap_trimmed",
                Some(Bytes),
                "Bytes that the heap gave back to the operating system.",
            ),
            heap.trimmed_bytes,
        )?;
        page.times(
            Family(
                "filed_heap_pause",
                Some(Seconds),
                "How long the heap's thread stood still for collections.",
            ),
            heap.total_pause,
            pauses(&heap.pauses),
        )?;
        page.gauge(
            Family(
                "filed_heap_longest_pause",
                Some(Seconds),
                "The longest such pause so far.",
            ),
            heap.longest_pause.as_secs_f64(),
        )
    }

    fn pool(&self, page: &mut Page<'_>) -> fmt::Result {
        let pool = &self.pool;
        let bytes = [
            (
                "filed_pool_budget",
                pool.budget_bytes,
                "Bytes that buffers may hold together.",
            ),
            ("filed_pool_held", pool.held_bytes, "Bytes in buffers."),
            (
                "filed_pool_idle",
                pool.idle_resident_bytes,
                "Bytes that buffers no longer hold and that are not given back yet.",
            ),
            (
                "filed_pool_mapped",
                pool.mapped_bytes,
                "Address space of buffers, resident or not.",
            ),
        ];
        for (name, value, means) in bytes {
            page.gauge(Family(name, Some(Bytes), means), value)?;
        }
        page.gauge(
            Family(
                "filed_pool_waiting",
                None,
                "Requests for a buffer that wait for memory now.",
            ),
            pool.queued as u64,
        )?;
        page.counter(
            Family(
                "filed_pool_waits",
                None,
                "Requests for a buffer that had to wait for memory.",
            ),
            pool.waits,
        )?;
        page.counter(
            Family(
                "filed_pool_returned",
                Some(Bytes),
                "Bytes of buffers given back to the operating system.",
            ),
            pool.returned_bytes,
        )
    }

    fn jobs(&self, page: &mut Page<'_>) -> fmt::Result {
        if let Some(Queue { counts, oldest_ns }) = &self.jobs {
            page.gauges(
                Family(
                    "filed_jobs",
                    None,
                    "Jobs by state; those that have ended as far as they are remembered.",
                ),
                "state",
                &[
                    ("queued", counts.queued),
                    ("running", counts.running),
                    ("stored", counts.stored),
                    ("failed", counts.failed),
                ],
            )?;
            if let Some(oldest_ns) = oldest_ns {
                let means = "When the queued job that has waited the longest was accepted, seconds since \
                             1970; absent if none is queued.";
                let family = Family("filed_job_oldest_timestamp", Some(Seconds), means);
                page.gauge(family, seconds(*oldest_ns))?;
            }
        }
        page.counters(
            Family(
                "filed_jobs_ended",
                None,
                "Jobs that have ended, by outcome; each counts once, however often it was tried.",
            ),
            "outcome",
            &[
                ("stored", self.ends.stored),
                ("failed", self.ends.failed),
                ("cancelled", self.ends.cancelled),
            ],
        )?;
        page.gauge(
            Family(
                "filed_jobs_limit",
                None,
                "Jobs that may be queued or running at once.",
            ),
            self.most_open,
        )?;
        page.gauge(
            Family(
                "filed_in_work",
                None,
                "Files and streams that are being taken in now.",
            ),
            self.in_work,
        )
    }

    fn work(&self, page: &mut Page<'_>) -> fmt::Result {
        let [stored, unchanged, failed, skipped] = self.outcomes;
        page.counters(
            Family(
                "filed_files",
                None,
                "Files and streams that were taken in, or were not, by outcome; each attempt counts.",
            ),
            "outcome",
            &[
                ("stored", stored),
                ("unchanged", unchanged),
                ("failed", failed),
                ("skipped", skipped),
            ],
        )?;
        let bytes = [
            (
                "filed_read",
                self.done_bytes,
                "Bytes of files that came in, holes and unchanged files included.",
            ),
            (
                "filed_new",
                self.new_bytes,
                "Bytes of them that were new to the store.",
            ),
            (
                "filed_stored",
                self.stored_bytes,
                "Bytes that they took in the store.",
            ),
        ];
        for (name, value, means) in bytes {
            page.counter(Family(name, Some(Bytes), means), value)?;
        }
        page.times(
            Family(
                "filed_read",
                Some(Seconds),
                "How long chunks of 1 MiB took to read.",
            ),
            self.read_times.sum(),
            self.read_times.doublings(),
        )?;
        page.times(
            Family(
                "filed_chunk",
                Some(Seconds),
                "How long chunks of 1 MiB took in all, from reading to the pack.",
            ),
            self.chunk_times.sum(),
            self.chunk_times.doublings(),
        )?;
        page.gauges(
            Family(
                "filed_workers",
                None,
                "Workers: allowed by the mode now, and planned under the limit.",
            ),
            "kind",
            &[
                ("allowed", self.workers),
                ("planned", self.shown.plan.workers as u64),
            ],
        )
    }

    fn inboxes(&self, page: &mut Page<'_>) -> fmt::Result {
        let paths: Vec<String> = (self.inboxes.iter())
            .map(|inbox| show_path(&inbox.path).to_string())
            .collect();
        let all = || paths.iter().map(String::as_str).zip(&self.inboxes);
        page.gauges(
            Family(
                "filed_inbox_waiting_files",
                None,
                "Files in an inbox that wait until they have settled.",
            ),
            "inbox",
            &all()
                .map(|(path, inbox)| (path, inbox.waiting))
                .collect::<Vec<_>>(),
        )?;
        let last = all().filter_map(|(path, inbox)| Some((path, seconds(inbox.last_success_ns?))));
        page.gauges(
            Family(
                "filed_inbox_last_success_timestamp",
                Some(Seconds),
                "When a file of an inbox was last stored, seconds since 1970; absent if none was since the \
                 service began.",
            ),
            "inbox",
            &last.collect::<Vec<_>>(),
        )?;
        type Count = fn(&InboxStats) -> u64;
        let counts: [(_, Count, _); 4] = [
            (
                "filed_inbox_submitted_files",
                |inbox| inbox.submitted,
                "Files of an inbox that were queued.",
            ),
            (
                "filed_inbox_stored_files",
                |inbox| inbox.stored,
                "Files of an inbox that were stored.",
            ),
            (
                "filed_inbox_failed_files",
                |inbox| inbox.failed,
                "Files of an inbox that could not be stored.",
            ),
            (
                "filed_inbox_overflows",
                |inbox| inbox.overflows,
                "How often more happened in an inbox than the kernel told of, so that it was looked through.",
            ),
        ];
        for (name, count, means) in counts {
            let values: Vec<_> = all().map(|(path, inbox)| (path, count(inbox))).collect();
            page.counters(Family(name, None, means), "inbox", &values)?;
        }
        Ok(())
    }

    fn scrub(&self, page: &mut Page<'_>) -> fmt::Result {
        let scrub = &self.scrub;
        page.choice(
            Family(
                "filed_scrub_state",
                None,
                "What the check of stored data does: 1 at off, idle, running or paused.",
            ),
            "state",
            &["off", "idle", "running", "paused"],
            match scrub.state {
                ScrubState::Off => "off",
                ScrubState::Idle => "idle",
                ScrubState::Running => "running",
                ScrubState::Paused => "paused",
            },
        )?;
        page.gauge(
            Family(
                "filed_scrub_checked",
                Some(Bytes),
                "Bytes of packs that the present pass has checked.",
            ),
            scrub.checked_bytes,
        )?;
        page.gauge(
            Family(
                "filed_scrub_pass",
                Some(Bytes),
                "Bytes of packs that a whole pass checks.",
            ),
            scrub.pass_total_bytes,
        )?;
        page.counter(
            Family(
                "filed_scrub_read",
                Some(Bytes),
                "Bytes that were read to check them.",
            ),
            scrub.read_bytes,
        )?;
        page.gauges(
            Family(
                "filed_damaged_places",
                None,
                "Damaged places in the store: open ones have lost something, replaced ones are stored \
                 elsewhere by now.",
            ),
            "state",
            &[
                ("open", scrub.damage.open),
                ("replaced", scrub.damage.replaced),
            ],
        )?;
        if let Some(ended_ns) = scrub.last_pass_ended_ns {
            let means =
                "When the last whole pass ended, seconds since 1970; absent before the first.";
            let family = Family("filed_scrub_last_pass_timestamp", Some(Seconds), means);
            page.gauge(family, seconds(ended_ns))?;
        }
        if let Some(expected) = scrub.expected_pass {
            let means = "How long a pass takes at the present rate.";
            let family = Family("filed_scrub_expected_pass", Some(Seconds), means);
            page.gauge(family, expected.as_secs_f64())?;
        }
        Ok(())
    }
}

impl Collector for Seen {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(encoder);
        self.service(page)?;
        self.memory(page)?;
        self.mode(page)?;
        self.heap(page)?;
        self.pool(page)?;
        self.jobs(page)?;
        self.work(page)?;
        self.inboxes(page)?;
        self.scrub(page)
    }
}

/// Nanoseconds since 1970 in seconds.
fn seconds(since_ns: i64) -> f64 {
    since_ns as f64 / 1e9
}

/// Pauses with the bound that they are below.
fn pauses(doublings: &[u64]) -> Vec<(Duration, u64)> {
    let (short, long) = doublings.split_at(SHORTEST_PAUSE);
    let below = |doublings: usize| Duration::from_nanos(1 << doublings);
    let mut pauses = vec![(below(SHORTEST_PAUSE), short.iter().sum())];
    let long = long.iter().zip(SHORTEST_PAUSE + 1..);
    pauses.extend(long.map(|(count, doublings)| (below(doublings), *count)));
    pauses
}
