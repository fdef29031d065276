//! Snapshots: what was on a heap at a moment, by type and by allocation site,
//! and what has changed between two moments.
//!
//! The rule that must hold: **a snapshot keeps nothing of the heap alive** and
//! may be sent anywhere. It costs what the types and sites cost, not what the
//! objects cost.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use super::census::{Census, TypeGrowth};
use super::heap::Heap;
use super::sites::{Site, Sites};

/// A place that allocates: where it is in the source, and under which frames it
/// was reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteName {
    /// The source file.
    pub file: &'static str,
    /// The line in it.
    pub line: u32,
    /// The column in it.
    pub column: u32,
    /// Names of the frames it was reached under, outermost first; see [`Heap::frame`].
    pub frames: Vec<String>,
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        for (number, frame) in self.frames.iter().enumerate() {
            let before = if number == 0 { " in " } else { " > " };
            write!(f, "{before}{frame}")?;
        }
        Ok(())
    }
}

/// What one site has allocated: estimated from a sample, and exact while
/// [`Heap::trace_allocations`] is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteCount {
    /// Which site.
    pub site: SiteName,
    /// Objects from there that are still there.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: u64,
    /// Bytes allocated there in all.
    pub total_bytes: u64,
}

/// How sites are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// All that one line allocates, whatever it was reached under.
    Line,
    /// A line under different frames counts as different sites.
    Frames,
}

/// What was on a heap at one moment; see [`Heap::snapshot`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What it was taken for.
    pub label: String,
    /// When.
    pub taken: Instant,
    /// Resident memory of the process in bytes, if it could be read.
    pub resident_bytes: Option<u64>,
    /// Bytes of slabs in use and external bytes.
    pub held_bytes: u64,
    /// Most bytes held since the start, or [`Heap::reset_peak`].
    pub peak_bytes: u64,
    /// By type.
    pub census: Census,
    sites: Vec<SiteCount>,
}

impl Snapshot {
    /// All sites; those of most bytes first.
    #[must_use]
    pub fn sites(&self, group: GroupBy) -> Vec<SiteCount> {
        let mut grouped: HashMap<SiteName, SiteCount> = HashMap::new();
        for count in &self.sites {
            let mut site = count.site.clone();
            if group == GroupBy::Line {
                site.frames.clear();
                site.column = 0;
            }
            let of = grouped.entry(site.clone()).or_insert(SiteCount {
                site,
                objects: 0,
                bytes: 0,
                total_bytes: 0,
            });
            of.objects += count.objects;
            of.bytes += count.bytes;
            of.total_bytes += count.total_bytes;
        }
        let mut sites: Vec<_> = grouped.into_values().collect();
        sites.sort_by(|a, b| (b.bytes, &a.site).cmp(&(a.bytes, &b.site)));
        sites
    }

    /// The `most` sites of most bytes.
    #[must_use]
    pub fn top(&self, group: GroupBy, most: usize) -> Vec<SiteCount> {
        let mut sites = self.sites(group);
        sites.truncate(most);
        sites
    }

    /// A snapshot of only those sites.
    #[must_use]
    pub fn filter(mut self, keep: impl Fn(&SiteName) -> bool) -> Self {
        self.sites.retain(|count| keep(&count.site));
        self
    }

    /// What has changed since an earlier snapshot.
    #[must_use]
    pub fn compare(&self, earlier: &Snapshot, group: GroupBy) -> Comparison {
        let signed = |now: u64, then: u64| now.wrapping_sub(then).cast_signed();
        let mut before: HashMap<SiteName, SiteCount> = earlier
            .sites(group)
            .into_iter()
            .map(|count| (count.site.clone(), count))
            .collect();
        let mut sites: Vec<SiteGrowth> = self
            .sites(group)
            .into_iter()
            .map(|count| {
                let then = before.remove(&count.site);
                SiteGrowth {
                    objects: signed(count.objects, then.as_ref().map_or(0, |then| then.objects)),
                    bytes: signed(count.bytes, then.as_ref().map_or(0, |then| then.bytes)),
                    site: count.site,
                }
            })
            .collect();
        sites.extend(before.into_values().map(|then| SiteGrowth {
            objects: signed(0, then.objects),
            bytes: signed(0, then.bytes),
            site: then.site,
        }));
        sites.retain(|growth| (growth.objects, growth.bytes) != (0, 0));
        sites.sort_by(|a, b| (Reverse(a.bytes), &a.site).cmp(&(Reverse(b.bytes), &b.site)));
        let resident = self.resident_bytes.zip(earlier.resident_bytes);
        Comparison {
            labels: [earlier.label.clone(), self.label.clone()],
            resident_bytes: resident.map(|(now, then)| signed(now, then)),
            held_bytes: signed(self.held_bytes, earlier.held_bytes),
            types: self.census.growth_since(&earlier.census),
            sites,
        }
    }
}

/// How a site has grown, or shrunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteGrowth {
    /// Which site.
    pub site: SiteName,
    /// Objects more.
    pub objects: i64,
    /// Bytes more.
    pub bytes: i64,
}

/// What has changed between two snapshots; see [`Snapshot::compare`].
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Labels of the earlier and the later one.
    pub labels: [String; 2],
    /// Resident memory more, in bytes.
    pub resident_bytes: Option<i64>,
    /// Bytes held more.
    pub held_bytes: i64,
    /// By type; what grew most comes first, what shrank most comes last.
    pub types: Vec<TypeGrowth>,
    /// By site, likewise.
    pub sites: Vec<SiteGrowth>,
}

impl Comparison {
    /// The `most` sites that grew most.
    pub fn grown(&self, most: usize) -> impl Iterator<Item = &SiteGrowth> {
        self.sites.iter().filter(|site| site.bytes > 0).take(most)
    }

    /// The `most` sites that shrank most.
    pub fn shrunk(&self, most: usize) -> impl Iterator<Item = &SiteGrowth> {
        let shrunk = self.sites.iter().rev().filter(|site| site.bytes < 0);
        shrunk.take(most)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [earlier, later] = &self.labels;
        write!(f, "{earlier} -> {later}: {:+} bytes held", self.held_bytes)?;
        if let Some(resident) = self.resident_bytes {
            write!(f, ", {resident:+} resident")?;
        }
        writeln!(f)?;
        for of in &self.types {
            writeln!(
                f,
                "{:+12} bytes {:+9} objects  {}",
                of.bytes, of.objects, of.name
            )?;
        }
        for of in &self.sites {
            writeln!(
                f,
                "{:+12} bytes {:+9} objects  {}",
                of.bytes, of.objects, of.site
            )?;
        }
        Ok(())
    }
}

impl Heap {
    /// Takes a snapshot.
    #[must_use]
    pub fn snapshot(&self, label: &str) -> Snapshot {
        let core = self.core();
        let sites = core.sites.table();
        Snapshot {
            label: label.to_owned(),
            taken: Instant::now(),
            resident_bytes: resident_bytes(),
            held_bytes: core.held_bytes(),
            peak_bytes: core.statistics.peak_bytes(),
            census: self.census(),
            sites: sites.iter().map(|site| core.sites.count(site)).collect(),
        }
    }

    /// Notes where every object is allocated from now on, and up to `frames`
    /// frames, innermost first: for finding leaks. Making nested records takes
    /// 1.3 times as long then, making bare ones of 16 bytes more than twice as
    /// long (`cargo bench --bench heap -- 10`); and four bytes an object.
    pub fn trace_allocations(&self, frames: u32) {
        self.set_tracing(true, frames);
    }

    /// Notes a sample of allocations only, as at first.
    pub fn stop_tracing(&self) {
        self.set_tracing(false, u32::MAX);
    }

    fn set_tracing(&self, all: bool, frames: u32) {
        let core = self.core();
        core.settle();
        core.sites.set_all(all, frames);
        core.arm();
    }

    /// Whether every allocation is noted.
    #[must_use]
    pub fn is_tracing(&self) -> bool {
        self.core().sites.all()
    }

    /// Sets the mean distance in bytes of sampled allocations; 0 for no sampling.
    pub fn set_sampling(&self, bytes: u64) {
        let core = self.core();
        core.settle();
        core.sites.set_rate(bytes);
        self.change_options(|options| options.sample_bytes = bytes);
        core.arm();
    }

    /// Names what is going on, such as a job or a stage of it, until the
    /// [`Frame`] is dropped: what is allocated meanwhile is noted under it.
    /// Frames nest, and must be dropped in the opposite order.
    ///
    /// The heap remembers each different name under each frame for good: a name
    /// says what kind of work is done and not which piece of it.
    pub fn frame(&self, name: &str) -> Frame {
        Frame {
            outer: self.core().sites.enter(name),
            heap: self.clone(),
        }
    }
}

/// Something that goes on; see [`Heap::frame`].
#[derive(Debug)]
#[must_use = "the frame ends when this is dropped"]
pub struct Frame {
    heap: Heap,
    outer: u32,
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.heap.core().sites.leave_to(self.outer);
    }
}

impl Sites {
    pub(super) fn name(&self, site: &Site) -> SiteName {
        let frames = self.names(site.frame);
        SiteName {
            file: site.location.file(),
            line: site.location.line(),
            column: site.location.column(),
            frames: frames.iter().map(|name| name.to_string()).collect(),
        }
    }

    fn count(&self, site: &Site) -> SiteCount {
        SiteCount {
            site: self.name(site),
            objects: site.sampled.objects + site.exact.objects,
            bytes: site.sampled.bytes + site.exact.bytes,
            total_bytes: site.sampled.total_bytes + site.exact.total_bytes,
        }
    }
}

/// Resident memory of the process, where the system says so.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
