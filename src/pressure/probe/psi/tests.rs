use std::cell::RefCell;

use proptest::prelude::*;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

fn invalid() -> io::Error {
    rustix::io::Errno::INVAL.into()
}

#[test]
fn totals_are_read_from_both_lines() {
    let content = b"some avg10=1.00 avg60=0.50 avg300=0.10 total=110704\n\
        full avg10=0.00 avg60=0.00 avg300=0.00 total=90110\n";
    assert_eq!(
        parse_totals(content),
        Some(StallTotals {
            some: Duration::from_micros(110_704),
            full: Duration::from_micros(90_110),
        })
    );
}

#[test]
fn totals_without_full_are_without_full() {
    let totals = parse_totals(b"some avg10=0.00 total=5\n").expect("some");
    assert_eq!(totals.of(Stall::Some), Duration::from_micros(5));
    assert_eq!(totals.of(Stall::Full), Duration::ZERO);
}

#[test]
fn garbage_has_no_totals() {
    for content in [
        b"".as_slice(),
        b"some avg10=0.00 total=5",
        b"some avg10=0.00\n",
        b"some total=-5\n",
        b"some total=99999999999999999999999\n",
        b"something total=5\n",
        b"\xff\xfe\n",
    ] {
        assert_eq!(parse_totals(content), None, "{content:?}");
    }
    assert_eq!(stall_totals(Path::new("/nowhere/at/all")), None);
}

#[test]
fn triggers_are_understood_with_and_without_their_end() {
    let expected = Trigger {
        kind: Stall::Some,
        threshold: 200 * MILLISECOND,
        window: 2000 * MILLISECOND,
    };
    assert_eq!(Trigger::parse(DEFAULT_TRIGGER), Some(expected));
    assert_eq!(Trigger::parse(b"some 200000 2000000"), Some(expected));
    assert_eq!(expected.to_bytes(), DEFAULT_TRIGGER);
    for odd in [
        "",
        "some",
        "some 1",
        "some 1 2 3",
        "none 1 2",
        "some -1 2",
        "some 1 99999999999999999999",
    ] {
        assert_eq!(Trigger::parse(odd.as_bytes()), None, "{odd:?}");
    }
}

#[test]
fn a_refused_window_is_stretched_to_two_seconds() {
    let written = RefCell::new(Vec::new());
    let trigger = set_trigger(b"full 150000 1000000\0", |bytes| {
        written.borrow_mut().push(bytes.to_vec());
        if bytes.ends_with(b" 2000000\0") {
            Ok(())
        } else {
            Err(invalid())
        }
    })
    .expect("taken");
    assert_eq!(
        trigger,
        Some(Trigger {
            kind: Stall::Full,
            threshold: 300 * MILLISECOND,
            window: 2000 * MILLISECOND,
        })
    );
    assert_eq!(
        written.into_inner(),
        [
            b"full 150000 1000000\0".to_vec(),
            b"full 300000 2000000\0".to_vec()
        ]
    );
}

#[test]
fn what_stretching_cannot_help_is_not_tried_again() {
    for (trigger, error) in [
        ("some 200000 2000000\0", invalid()),
        ("nonsense", invalid()),
        ("some 1 0", invalid()),
        (
            "some 100000 1000000\0",
            io::Error::from(io::ErrorKind::PermissionDenied),
        ),
    ] {
        let mut writes = 0;
        let kind = error.kind();
        let mut error = Some(error);
        let result = set_trigger(trigger.as_bytes(), |_| {
            writes += 1;
            error.take().map_or(Ok(()), Err)
        });
        assert_eq!(result.expect_err("refused").kind(), kind, "{trigger:?}");
        assert_eq!(writes, 1, "{trigger:?}");
    }
}

#[test]
fn the_first_event_needs_half_the_stall_it_asks_for() {
    let threshold = 200 * MILLISECOND;
    let before = Some(5000 * MILLISECOND);
    for (now, confirmed) in [
        (Some(5000), false),
        (Some(5099), false),
        (Some(5100), true),
        (Some(9000), true),
        // Another file, or a group made anew.
        (Some(10), false),
        (None, false),
    ] {
        let now = now.map(Duration::from_millis);
        assert_eq!(is_confirmed(before, now, threshold), confirmed, "{now:?}");
    }
    assert!(!is_confirmed(None, Some(9000 * MILLISECOND), threshold));
}

#[test]
fn the_kernel_takes_the_default_and_a_stretched_window() {
    let path = Path::new("/proc/pressure/memory");
    if stall_totals(path).is_none() {
        println!("SKIPPED: this kernel does not count stalls");
        return;
    }
    match register(path, DEFAULT_TRIGGER) {
        Ok(registered) => assert_eq!(registered.trigger, Trigger::parse(DEFAULT_TRIGGER)),
        Err(error) => {
            println!("SKIPPED: no trigger may be set here: {error:?}");
            return;
        }
    }
    let registered = register(path, b"some 100000 1000000\0").expect("taken, stretched or not");
    let trigger = registered.trigger.expect("understood");
    assert!(
        [(100, 1000), (200, 2000)]
            .map(|(threshold, window)| (threshold * MILLISECOND, window * MILLISECOND))
            .contains(&(trigger.threshold, trigger.window))
    );
}

proptest! {
    #[test]
    fn any_trigger_is_taken_or_refused(bytes in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        "(some|full) [0-9]{0,21} [0-9]{0,21}\u{0}?".prop_map(String::into_bytes),
    ]) {
        let mut first = true;
        let _ = set_trigger(&bytes, |_| if std::mem::take(&mut first) { Err(invalid()) } else { Ok(()) });
        let _ = parse_totals(&bytes);
    }
}
