//! The memory of the host.
//!
//! The limit goes by what was available at start: what is available later
//! includes what filed gives back itself, so a limit that followed it would
//! chase its own tail. Later it is only asked whether there is room left.

use sysinfo::{MemoryRefreshKind, System};

/// The memory of the host, as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What could be had without swapping, in bytes.
    pub available_bytes: u64,
}

/// Asks for the memory of the host. `None` if the kernel does not tell, as
/// under `ProcSubset=pid`, where `/proc/meminfo` is hidden.
pub fn memory() -> Option<HostMemory> {
    HostProbe::open()?.memory()
}

/// Asks for the memory of the host again and again, without finding out each
/// time what the host is.
pub struct HostProbe(System);

impl HostProbe {
    /// `None` if the kernel does not tell what the host is.
    pub fn open() -> Option<HostProbe> {
        System::new().ok().map(HostProbe)
    }

    /// As [`memory`].
    pub fn memory(&mut self) -> Option<HostMemory> {
        let system = &mut self.0;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        known(system.total_memory(), system.available_memory())
    }
}

/// Zeros are what an unread `/proc/meminfo` leaves.
fn known(total_bytes: u64, available_bytes: u64) -> Option<HostMemory> {
    (total_bytes > 0 && available_bytes > 0).then_some(HostMemory {
        total_bytes,
        available_bytes: available_bytes.min(total_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_mean_unknown() {
        assert_eq!(known(0, 0), None);
        assert_eq!(known(10, 0), None);
    }

    #[test]
    fn no_more_is_available_than_there_is() {
        let host = known(10, 12).expect("known");
        assert_eq!(host.available_bytes, 10);
    }

    #[test]
    fn this_host_has_memory_where_meminfo_is_visible() {
        let visible = std::fs::read("/proc/meminfo").is_ok_and(|content| !content.is_empty());
        assert_eq!(memory().is_some(), visible);
    }
}
