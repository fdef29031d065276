//! Every mistake is refused, and the message says where it is and what would be right.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::{FILES, Machine, PLACES, Place};
use crate::config::{ConfigError, check_file, load};

#[test]
fn wrong_value_is_an_error_in_every_layer_even_below_a_right_one() {
    for place in PLACES {
        let mut machine = Machine::new();
        if place != Place::Flag {
            machine.set(Place::Flag, "memory.threshold", "1 GiB");
        }
        let name = machine.set(place, "memory.threshold", "lots");
        assert_eq!(
            machine.error(),
            format!("{name}: memory.threshold: \"lots\" is not a size (examples: 512 MiB, 1 GiB)"),
        );
    }
}

#[test]
fn unknown_key_is_an_error_with_the_nearest_key_in_every_layer() {
    for place in PLACES {
        let mut machine = Machine::new();
        let name = machine.set(place, "memory.treshold", "1 GiB");
        let expected = if place == Place::Environment {
            "unknown variable `FILED_MEMORY__TRESHOLD` (did you mean `FILED_MEMORY__THRESHOLD`?)"
                .to_owned()
        } else {
            format!("{name}: unknown key `memory.treshold` (did you mean `memory.threshold`?)")
        };
        assert_eq!(machine.error(), expected);
    }
}

#[test]
fn syntax_error_names_file_and_line_in_every_file() {
    for place in FILES {
        let mut machine = Machine::new();
        machine.write(place, "[memory]\nlimit = 'auto'\ndwell = tru\n");
        let error = machine.error();
        let start = format!("{}: line 3: ", machine.path(place).display());
        assert!(error.starts_with(&start), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn line_of_what_is_not_utf8_is_named() {
    let mut machine = Machine::new();
    machine.write(Place::Etc, b"[log]\nlevel = '\xff'\n");
    let error = machine.error();
    assert!(
        error.ends_with("etc/filed.toml: line 2: not UTF-8"),
        "{error}"
    );
}

#[test]
fn messages_say_what_is_allowed() {
    let cases = [
        (
            "memory = 5",
            "memory: 5 is not a section; write [memory] and its keys below",
        ),
        (
            "[memroy]",
            "unknown section `memroy` (did you mean `memory`?)",
        ),
        (
            "threshold = 1",
            "unknown key `threshold` (did you mean `memory.threshold`?)",
        ),
        (
            "'memory.limit' = '1 GiB'",
            "unknown key `\"memory.limit\"` (did you mean `memory.limit`?)",
        ),
        ("colour.scheme = 1", "unknown section `colour`"),
        (
            "[memory.limit]",
            "memory.limit: a table is not \"auto\" or a size (examples: 512 MiB, 1 GiB)",
        ),
        (
            "memory.limit = true",
            "memory.limit: true is not \"auto\" or a size (examples: 512 MiB, 1 GiB)",
        ),
        (
            "memory.limit = '1 KiB'",
            "memory.limit: \"1 KiB\" is out of range (1 MiB to 1 PiB)",
        ),
        (
            "memory.resume = '100 %'",
            "memory.resume: \"100 %\" is out of range (10 % to 95 %)",
        ),
        (
            "memory.resume = 0.8",
            "memory.resume: 0.8 is not a percentage (example: 80 %)",
        ),
        (
            "memory.dwell = 2",
            "memory.dwell: \"2\" is not a time with its unit (examples: 500ms, 5s, 1m)",
        ),
        (
            "memory.dwell = '2m'",
            "memory.dwell: \"2m\" is out of range (100ms to 1m)",
        ),
        (
            "chunking.piece_size = '100 KiB'",
            "chunking.piece_size: \"100 KiB\" is not a power of two (examples: 32 KiB, 64 KiB)",
        ),
        (
            "chunking.method = 'Content'",
            "chunking.method: \"Content\" is not one of: content, fixed",
        ),
        (
            "chunking.method = ['content']",
            "chunking.method: a list is not one of: content, fixed",
        ),
        (
            "compression.level = 20",
            "compression.level: \"20\" is out of range (1 to 19)",
        ),
        (
            "compression.level = 'fast'",
            "compression.level: \"fast\" is not a number from 1 to 19",
        ),
        (
            "pipeline.workers = 0",
            "pipeline.workers: \"0\" is out of range (1 to 256)",
        ),
        (
            "service.queue = 4294967296",
            "service.queue: \"4294967296\" is not a number from 1 to 10000000",
        ),
        (
            "service.history = '4000d'",
            "service.history: \"4000d\" is out of range (1m to 3650d)",
        ),
        (
            "scrub.rate = '1 B'",
            "scrub.rate: \"1 B\" is out of range (1 KiB to 1 TiB)",
        ),
        (
            "scrub.rate = 'slow'",
            "scrub.rate: \"slow\" is not \"off\" or a size per second (example: 8 MiB)",
        ),
        (
            "service.metrics = 9184",
            "service.metrics: \"9184\" is not \"off\" or an address with its port (examples: \
             127.0.0.1:9184, [::1]:9184)",
        ),
        (
            "service.metrics = '0.0.0.0:9184'",
            "service.metrics: \"0.0.0.0:9184\" is not a loopback address: other machines could \
             reach it, and metrics have no authentication (examples: 127.0.0.1:9184, [::1]:9184)",
        ),
        (
            "service.socket = '~/filed.sock'",
            "service.socket: \"~/filed.sock\" starts with ~, which is not expanded; write the \
             whole path",
        ),
        (
            "store.path = 5",
            "store.path: 5 is not a path; write it in quotes",
        ),
        (
            "store.path = '~/s'",
            "store.path: \"~/s\" starts with ~, which is not expanded; write the whole path",
        ),
    ];
    for (content, expected) in cases {
        let mut machine = Machine::new();
        machine.write(Place::Etc, content);
        let path = machine.path(Place::Etc);
        assert_eq!(machine.error(), format!("{}: {expected}", path.display()));
    }
}

#[test]
fn explicit_file_must_exist() {
    let mut machine = Machine::new();
    machine.sources.explicit = Some(machine.root.path().join("typo.toml"));
    let error = machine.error();
    assert!(error.ends_with("typo.toml"), "{error}");
}

#[test]
fn default_file_that_is_there_but_unreadable_is_an_error() {
    for place in FILES {
        let mut machine = Machine::new();
        fs::create_dir(machine.path(place)).unwrap();
        machine.sources.explicit = Some(machine.path(place));
        assert!(
            matches!(load(&machine.sources), Err(ConfigError::Read { path, .. }) if path == machine.path(place))
        );
    }
}

#[test]
fn link_that_leads_nowhere_is_an_error() {
    for place in [Place::Etc, Place::DropIn, Place::User] {
        let machine = Machine::new();
        std::os::unix::fs::symlink("/nonexistent/filed.toml", machine.path(place)).unwrap();
        assert!(matches!(
            load(&machine.sources),
            Err(ConfigError::Read { .. })
        ));
    }
}

#[test]
fn endless_file_is_refused() {
    let error = check_file(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(error, ConfigError::TooLarge { .. }), "{error}");
}

#[test]
fn variables_are_taken_exactly() {
    let unknown = [
        ("FILED_MEMORY_LIMIT", Some("FILED_MEMORY__LIMIT")),
        ("FILED_LIMIT", Some("FILED_MEMORY__LIMIT")),
        ("FILED_memory__limit", Some("FILED_MEMORY__LIMIT")),
        ("FILED_", None),
        ("FILED_COLOUR", None),
    ];
    for (name, nearest) in unknown {
        let mut machine = Machine::new();
        let variable = (name.into(), "1 GiB".into());
        machine.sources.environment.push(variable);
        let hint = nearest.map(|name| format!(" (did you mean `{name}`?)"));
        let expected = format!("unknown variable `{name}`{}", hint.unwrap_or_default());
        assert_eq!(machine.error(), expected);
    }
}

#[test]
fn variable_that_is_not_utf8_is_named() {
    let cases: [(&[u8], &[u8], &str); 2] = [
        (b"FILED_STORE__PATH", b"/srv/\xff", "FILED_STORE__PATH"),
        (b"FILED_\xff", b"", "FILED_\u{fffd}"),
    ];
    for (name, value, shown) in cases {
        let mut machine = Machine::new();
        let [name, value] = [name, value].map(|bytes| OsString::from_vec(bytes.to_vec()));
        machine.sources.environment.push((name, value));
        assert_eq!(
            machine.error(),
            format!("{shown}: the variable is not UTF-8")
        );
    }
}

#[test]
fn key_that_the_merge_would_take_for_an_index_is_only_unknown() {
    for key in [
        "store[999999999999]",
        "store[-9223372036854775808]",
        "store.path[9]",
    ] {
        let mut machine = Machine::new();
        machine.write(Place::Etc, format!("\"{key}\" = 1\n"));
        assert!(machine.error().contains("unknown key"), "{key}");
    }
}

#[test]
fn what_a_message_repeats_is_short_and_cannot_move_the_cursor() {
    let mut machine = Machine::new();
    let value = format!("\u{1b}[2J{}", "x".repeat(10_000));
    machine.set(Place::Flag, "log.level", &value);
    let error = machine.error();
    assert!(error.len() < 300 && !error.contains('\u{1b}'), "{error}");
}
