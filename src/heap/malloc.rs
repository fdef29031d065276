//! The rest of the memory: what goes through malloc.
//!
//! The C library's allocator serves everything that is not a buffer. Left
//! alone, glibc grows with the number of threads (an arena each) and, once a
//! large block was freed, puts later ones where they cannot be returned. Fixed
//! settings, made once before there are threads, prevent both. Other C
//! libraries have no such settings; there everything in here does nothing.
#![expect(unsafe_code, reason = "the settings of the C library's allocator")]

/// Blocks from this size on get a map of their own and are returned when
/// freed. Setting it also keeps glibc from raising it by itself.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD_BYTES: libc::c_int = 256 << 10;

/// Free memory at the end of an arena beyond which it shrinks.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD_BYTES: libc::c_int = 1 << 20;

/// At most so many arenas: what is free in one is of no use to the others.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Sets the allocator up. To be called in main, before there are threads.
///
/// A setting that is refused costs memory and no more, so it is not an error.
pub fn configure() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in [
        (libc::M_ARENA_MAX, ARENAS),
        (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
        (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES),
    ] {
        // SAFETY: takes two numbers, and glibc locks its own state.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// Returns free memory inside the arenas to the kernel, and says whether there
/// was any. Walks all of them under their locks (34 ms with five million
/// small blocks): not for a timer, nor for a thread that has work to do.
pub fn trim() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number of bytes to keep, and glibc locks its own state.
    let returned = unsafe { libc::malloc_trim(0) } != 0;
    #[cfg(not(target_env = "gnu"))]
    let returned = false;
    returned
}

/// Bytes that are free inside the arenas, in pages or parts of pages that may
/// or may not have been returned to the kernel.
pub fn idle_bytes() -> u64 {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes nothing, returns plain numbers, and glibc locks its own
    // state.
    let bytes = unsafe { libc::mallinfo2() }.fordblks as u64;
    #[cfg(not(target_env = "gnu"))]
    let bytes = 0;
    bytes
}
