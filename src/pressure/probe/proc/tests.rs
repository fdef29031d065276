use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A root with the given content of `/proc/self/statm` and `status`.
fn root(statm: &[u8], status: &[u8]) -> TempDir {
    let root = tempfile::tempdir().expect("temporary directory");
    let directory = root.path().join("proc/self");
    fs::create_dir_all(&directory).expect("create proc/self");
    fs::write(directory.join("statm"), statm).expect("write statm");
    fs::write(directory.join("status"), status).expect("write status");
    root
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

#[test]
fn resident_and_shared_are_read_in_pages() {
    let root = root(b"5000 300 120 40 0 900 0\n", b"");
    let memory = ProcSelf::open(root.path())
        .expect("open")
        .memory()
        .expect("read");
    assert_eq!(memory.resident_bytes, 300 * page_bytes());
    assert_eq!(memory.shared_bytes, 120 * page_bytes());
    assert_eq!(memory.anonymous_bytes(), 180 * page_bytes());
}

#[test]
fn shared_memory_counts_with_the_anonymous_and_files_do_not() {
    let status = b"VmRSS:\t 900 kB\nRssAnon:\t     100 kB\nRssFile:\t 700 kB\nRssShmem:\t 100 kB\n";
    let root = root(b"5000 300 120 40 0 900 0\n", status);
    let proc = ProcSelf::open(root.path()).expect("open");
    assert_eq!(proc.anonymous_and_shared_bytes().expect("read"), 200 << 10);
    fs::write(root.path().join("proc/self/status"), b"RssAnon:\t 1 kB\n").expect("write");
    let error = proc.anonymous_and_shared_bytes().expect_err("half of it");
    assert!(
        error.to_string().contains("proc/self/status does not hold"),
        "{error}"
    );
}

#[test]
fn this_process_has_anonymous_memory_and_no_more_than_is_resident() {
    let proc = ProcSelf::open(Path::new("/")).expect("open");
    let resident = || proc.memory().expect("read").resident_bytes;
    // The files are not read at the same moment, and other tests take and give back memory meanwhile.
    let before = resident();
    let bytes = proc.anonymous_and_shared_bytes().expect("read");
    assert!(bytes > 0);
    assert!(bytes <= before.max(resident()) + (16 << 20));
}

#[test]
fn each_reading_sees_the_file_as_it_is_then() {
    let root = root(b"5000 300 120 40 0 900 0\n", b"");
    let proc = ProcSelf::open(root.path()).expect("open");
    proc.memory().expect("read");
    fs::write(
        root.path().join("proc/self/statm"),
        b"5000 400 120 40 0 900 0\n",
    )
    .expect("write");
    assert_eq!(
        proc.memory().expect("read").resident_bytes,
        400 * page_bytes()
    );
}

#[test]
fn more_shared_than_resident_is_no_anonymous_memory() {
    let root = root(b"5000 100 120 40 0 900 0\n", b"");
    let memory = ProcSelf::open(root.path())
        .expect("open")
        .memory()
        .expect("read");
    assert_eq!(memory.anonymous_bytes(), 0);
}

#[test]
fn odd_statm_is_an_error_that_names_the_file() {
    for statm in [
        &b""[..],
        b"\n",
        b"5000 300",
        b"5000 300 12",
        b"5000 -300 120 40 0 900 0",
        b"5000 +300 120 40 0 900 0",
        b"5000 300 120.5 40 0 900 0",
        b"5000 18446744073709551615 120 40 0 900 0",
        b"5000 99999999999999999999 120 40 0 900 0",
        b"\xff\xfe\x00",
    ] {
        let root = root(statm, b"");
        let error = ProcSelf::open(root.path())
            .expect("open")
            .memory()
            .expect_err("is odd");
        let path = root.path().join("proc/self/statm");
        assert_eq!(
            error.to_string(),
            format!(
                "{} does not hold the page counts of a process",
                path.display()
            )
        );
    }
}

#[test]
fn missing_statm_is_an_error_that_names_the_file() {
    let root = tempfile::tempdir().expect("temporary directory");
    let error = ProcSelf::open(root.path()).expect_err("is missing");
    assert!(matches!(&error, ProbeError::Read { path, .. } if path.ends_with("proc/self/statm")));
}

#[test]
fn peak_is_the_high_water_mark() {
    let root = root(
        b"1 1 1 1",
        b"Name:\tfiled\nVmPeak:\t  9000 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 10 kB\n",
    );
    let proc = ProcSelf::open(root.path()).expect("open");
    assert_eq!(proc.peak_resident_bytes().expect("read"), 2 << 20);
}

#[test]
fn status_without_a_usable_peak_is_an_error() {
    for status in [
        &b""[..],
        b"VmHWM:",
        b"VmHWM: kB",
        b"VmHWM: 12",
        b"VmHWM: 99999999999999999 MB",
        b"\xff",
    ] {
        let root = root(b"1 1 1 1", status);
        let proc = ProcSelf::open(root.path()).expect("open");
        assert!(
            matches!(
                proc.peak_resident_bytes(),
                Err(ProbeError::Malformed { .. })
            ),
            "{status:?}"
        );
    }
}

#[test]
fn this_process_has_memory_and_a_peak_not_below_it() {
    let proc = ProcSelf::open(Path::new("/")).expect("open");
    let memory = proc.memory().expect("read");
    assert!(memory.anonymous_bytes() > 0);
    // Counters batched per CPU may lag behind the peak by some pages.
    let slack_bytes = 16 << 20;
    assert!(proc.peak_resident_bytes().expect("read") + slack_bytes >= memory.resident_bytes);
}

proptest! {
    #[test]
    fn random_content_never_panics(content in vec(any::<u8>(), 0..400)) {
        let _ = statm_memory(&content, 4096);
        let _ = status_bytes(&content, b"VmHWM:");
        let _ = status_bytes(&[b"VmHWM:", &content[..]].concat(), b"VmHWM:");
    }

    #[test]
    fn any_page_counts_are_read_or_refused(size: u64, resident: u64, shared: u64) {
        let text = format!("{size} {resident} {shared} 1 0 1 0\n");
        let memory = statm_memory(text.as_bytes(), 4096);
        let fits = [size, resident, shared].iter().all(|pages| pages.checked_mul(4096).is_some());
        prop_assert_eq!(memory.is_some(), fits);
    }
}
