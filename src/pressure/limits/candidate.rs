//! The limits that could rule, each with its margin taken off.
//!
//! A candidate says where it comes from in the words an admin would search
//! for, since it may end up as the one line that explains how filed behaves.

use crate::pressure::limits::{FoundLimit, LimitSource, THRESHOLD_PERCENT, Wanted};
use crate::pressure::probe::host::HostMemory;
use crate::pressure::probe::rlimit::Rlimits;
use crate::pressure::size::{Size, percent_of};

/// A limit that could rule.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) source: LimitSource,
    /// What filed may count on, in bytes.
    pub(super) usable_bytes: u64,
    /// Where it comes from, for people.
    pub(super) origin: String,
}

impl Candidate {
    fn new(source: LimitSource, bytes: u64, place: Option<String>) -> Self {
        let percent = source.usable_percent();
        let place = place.map(|place| format!(", {place}")).unwrap_or_default();
        Self {
            source,
            usable_bytes: percent_of(bytes, percent),
            origin: if percent < 100 {
                format!("{percent} % of {source} {}{place}", Size(bytes))
            } else {
                format!("{source}{place}")
            },
        }
    }
}

/// All limits that could rule, the least first.
pub(super) fn candidates(
    wanted: &Wanted,
    found: &[FoundLimit],
    rlimits: Rlimits,
    host: Option<HostMemory>,
) -> Vec<Candidate> {
    let configured = wanted.limit.iter().map(|limit| Candidate {
        source: LimitSource::Configured,
        usable_bytes: limit.bytes,
        origin: limit.origin.clone(),
    });
    let cgroups = found.iter().map(|limit| {
        Candidate::new(
            limit.source,
            limit.bytes,
            Some(limit.path.display().to_string()),
        )
    });
    let others = [
        (LimitSource::RlimitData, rlimits.data_bytes),
        (LimitSource::RlimitAddressSpace, rlimits.address_space_bytes),
        (
            LimitSource::HostAvailable,
            host.map(|host| host.available_bytes),
        ),
    ]
    .into_iter()
    .filter_map(|(source, bytes)| Some(Candidate::new(source, bytes?, None)));
    let mut all: Vec<_> = configured.chain(cgroups).chain(others).collect();
    // Stable: of two that are equal, what the user set is told first.
    all.sort_by_key(|candidate| candidate.usable_bytes);
    all
}

/// The limit of which the threshold is its greatest share.
pub(super) fn without_any(threshold_bytes: u64) -> Candidate {
    let usable = (u128::from(threshold_bytes) * 100).div_ceil(u128::from(THRESHOLD_PERCENT));
    Candidate {
        source: LimitSource::Threshold,
        usable_bytes: u64::try_from(usable).unwrap_or(u64::MAX),
        origin: format!("no limit found: the threshold is {THRESHOLD_PERCENT} % of it"),
    }
}
