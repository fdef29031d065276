use super::*;

/// An inbox with files that have been submitted.
fn with_files(options: InboxOptions, names: &[&str]) -> ByHand {
    let root = options.path.clone();
    let mut inbox = ByHand::new(vec![options]);
    for name in names {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        inbox.turn();
        fs::write(root.join(name), name).unwrap();
    }
    inbox.turn_until(|inbox| inbox.stats().submitted == names.len() as u64);
    inbox
}

fn store(inbox: &mut ByHand, path: &Path) {
    let stored = inbox.queue.store(path);
    inbox.ended(path, stored);
}

/// The same with a file that has just been written, and is dealt with a moment later.
fn store_new(inbox: &mut ByHand, path: &Path) {
    store(inbox, path);
    inbox.turn_until(|inbox| inbox.stats().waiting == 0);
}

fn fail(inbox: &mut ByHand, path: &Path) {
    let failed = inbox.queue.fail(path);
    inbox.ended(path, failed);
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_stored_file_is_kept_or_removed() {
    for (after, is_kept) in [(After::Keep, true), (After::Delete, false)] {
        let (_outside, root) = folder();
        let mut inbox = with_files(
            InboxOptions {
                after,
                ..options(&root)
            },
            &["a", "b"],
        );
        store_new(&mut inbox, &root.join("a"));
        assert_eq!(root.join("a").exists(), is_kept);
        assert!(root.join("b").exists());
        let stats = inbox.stats();
        assert_eq!((stats.stored, stats.failed), (1, 0));
        assert!(stats.last_success_ns.is_some());
        // It is not taken again.
        inbox.walk();
        assert_eq!(inbox.names(&root), ["a", "b"]);
    }
}

/// Found once more while its job runs, it would be queued again when that had just ended, and fail for
/// being gone.
#[test]
fn a_file_that_is_seen_again_while_its_job_runs_gets_no_other() {
    let (_outside, root) = folder();
    let mut inbox = with_files(
        InboxOptions {
            after: After::Delete,
            ..options(&root)
        },
        &["a"],
    );
    lock(&inbox.queue.state).about_to_end = Some(root.join("a"));
    fs::write(root.join("a"), "heard of").unwrap();
    inbox.turn();
    inbox.walk();
    inbox.turn_until(|inbox| inbox.stats().waiting == 0);
    assert_eq!(inbox.names(&root), ["a"]);
}

#[test]
fn a_stored_file_is_moved_with_its_folders_and_over_no_other() {
    for into in ["done", "../done"] {
        let (_outside, root) = folder();
        let mut inbox = with_files(
            InboxOptions {
                after: After::MoveTo(into.into()),
                ..recursive(&root)
            },
            &["a", "sub/deep/b"],
        );
        let into = root.join(into);
        store_new(&mut inbox, &root.join("a"));
        store_new(&mut inbox, &root.join("sub/deep/b"));
        assert_eq!(read(&into.join("a")), "a");
        assert_eq!(read(&into.join("sub/deep/b")), "sub/deep/b");
        for (n, content) in ["second", "third"].iter().enumerate() {
            fs::write(root.join("a"), content).unwrap();
            inbox.turn_until(|inbox| inbox.stats().submitted == 3 + n as u64);
            store_new(&mut inbox, &root.join("a"));
            assert!(!root.join("a").exists());
        }
        assert_eq!(read(&into.join("a")), "a");
        assert_eq!(read(&into.join("a.1")), "second");
        assert_eq!(read(&into.join("a.2")), "third");
        // What was moved is not taken again.
        inbox.walk();
        fs::write(into.join("c"), "c").unwrap();
        inbox.turn_until(|inbox| inbox.stats().waiting == 0);
        assert_eq!(inbox.stats().submitted, 4);
        assert_eq!(inbox.stats().last_error, None);
    }
}

#[test]
fn a_file_that_changed_since_it_was_stored_is_a_new_one() {
    let (_outside, root) = folder();
    let mut inbox = with_files(
        InboxOptions {
            after: After::Delete,
            ..options(&root)
        },
        &["a", "b"],
    );
    let [a, b] = ["a", "b"].map(|name| root.join(name));
    let stored = inbox.queue.store(&a);
    // Not even the size tells.
    fs::remove_file(&a).unwrap();
    fs::hard_link(&b, root.join(".b")).unwrap();
    fs::rename(root.join(".b"), &a).unwrap();
    inbox.ended(&a, stored);
    inbox.turn_until(|inbox| inbox.names(&root) == ["a", "a", "b"]);
    assert_eq!(read(&a), "b");
    // Removed by somebody else.
    let stored = inbox.queue.store(&b);
    fs::remove_file(&b).unwrap();
    inbox.ended(&b, stored);
    assert_eq!(inbox.stats().last_error, None);
}

#[test]
fn a_failed_file_is_put_aside_with_a_reason_and_over_no_other() {
    let (_outside, root) = folder();
    let mut inbox = with_files(recursive(&root), &["a", "sub/b"]);
    fail(&mut inbox, &root.join("a"));
    fail(&mut inbox, &root.join("sub/b"));
    assert_eq!(read(&root.join("sub/failed/b")), "sub/b");
    fs::write(root.join("a"), "second").unwrap();
    inbox.turn_until(|inbox| inbox.stats().submitted == 3);
    fail(&mut inbox, &root.join("a"));
    let failed = root.join("failed");
    assert_eq!(read(&failed.join("a")), "a");
    assert_eq!(read(&failed.join("a.1")), "second");
    assert!(!root.join("a").exists());
    let reason = read(&failed.join("a.1.reason.txt"));
    assert!(reason.contains("Why:       it is too strange"), "{reason}");
    assert!(
        reason.contains(root.join("a").to_str().unwrap()),
        "{reason}"
    );
    let stats = inbox.stats();
    assert_eq!((stats.stored, stats.failed), (0, 3));
    assert!(stats.last_error.unwrap().contains("strange"));
    inbox.walk();
    inbox.turn_until(|inbox| inbox.stats().waiting == 0);
    assert_eq!(inbox.stats().submitted, 3);
    // Moved back, it is tried again.
    fs::rename(failed.join("a.1"), root.join("a")).unwrap();
    inbox.turn();
    assert_eq!(inbox.stats().submitted, 4);
}

#[test]
fn what_failed_while_it_is_written_to_is_not_put_aside() {
    let (_outside, root) = folder();
    let mut inbox = ByHand::new(vec![InboxOptions {
        settle: NEVER,
        ..options(&root)
    }]);
    fs::write(root.join("a"), "a").unwrap();
    fail(&mut inbox, &root.join("a"));
    assert!(root.join("a").exists());
    assert_eq!((inbox.stats().failed, inbox.stats().waiting), (0, 1));
}

#[test]
fn what_cannot_be_put_aside_is_not_tried_again_until_it_changes() {
    let (_outside, root) = folder();
    fs::write(root.join("failed"), "in the way").unwrap();
    let patterns = vec!["a".to_owned()];
    let mut inbox = with_files(
        InboxOptions {
            patterns,
            ..options(&root)
        },
        &["a"],
    );
    fail(&mut inbox, &root.join("a"));
    assert!(inbox.stats().last_error.unwrap().contains("put aside"));
    inbox.walk();
    inbox.turn_until(|inbox| inbox.stats().waiting == 0);
    assert_eq!(inbox.stats().submitted, 1);
    fs::write(root.join("a"), "better").unwrap();
    inbox.turn_until(|inbox| inbox.stats().submitted == 2);
    assert_eq!(read(&root.join("failed")), "in the way");
}

#[test]
fn of_inboxes_within_each_other_the_inner_one_decides() {
    let (_outside, root) = folder();
    let inner = root.join("inner");
    fs::create_dir(&inner).unwrap();
    let mut inbox = ByHand::new(vec![
        recursive(&root),
        InboxOptions {
            after: After::Delete,
            ..options(&inner)
        },
    ]);
    for path in [root.join("a"), inner.join("b")] {
        fs::write(&path, "x").unwrap();
        inbox.turn();
        store(&mut inbox, &path);
    }
    inbox.turn_until(|_| !inner.join("b").exists());
    assert_eq!(inbox.names(&root), ["a", "inner/b"]);
    assert!(root.join("a").exists());
    assert_eq!(inbox.stats().stored, 1);
}
