//! The memory limits of this process itself (`ulimit`, `LimitAS=`, `LimitDATA=`).

use rustix::process::{Resource, getrlimit};

/// The soft limits in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rlimits {
    /// `RLIMIT_DATA` in bytes: heap and private writable mappings.
    pub data_bytes: Option<u64>,
    /// `RLIMIT_AS` in bytes: the whole address space.
    pub address_space_bytes: Option<u64>,
}

/// Asks the kernel for the limits of this process; `None` is unlimited.
pub fn limits() -> Rlimits {
    Rlimits {
        data_bytes: getrlimit(Resource::Data).current,
        address_space_bytes: getrlimit(Resource::As).current,
    }
}
