use super::*;

#[test]
fn new_folders_are_watched_and_what_is_in_them_already_is_found() {
    let (outside, root) = folder();
    let mut inbox = ByHand::new(vec![recursive(&root)]);
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(root.join("a/b/c/1"), "1").unwrap();
    fs::create_dir_all(outside.path().join("d/e")).unwrap();
    fs::write(outside.path().join("d/e/2"), "2").unwrap();
    fs::rename(outside.path().join("d"), root.join("d")).unwrap();
    inbox.turn_until(|inbox| inbox.names(&root) == ["a/b/c/1", "d/e/2"]);
    // Now by events alone, also in folders that have another name by now.
    fs::rename(root.join("a"), root.join("z")).unwrap();
    inbox.turn();
    fs::write(root.join("z/b/3"), "3").unwrap();
    fs::write(root.join("d/4"), "4").unwrap();
    inbox.turn();
    let found = ["a/b/c/1", "d/4", "d/e/2", "z/b/3"];
    assert!(
        found
            .iter()
            .all(|name| inbox.names(&root).contains(&(*name).to_owned()))
    );
    // What has left is of no interest.
    fs::rename(root.join("d"), outside.path().join("d")).unwrap();
    fs::write(outside.path().join("d/5"), "5").unwrap();
    inbox.turn();
    assert!(!inbox.names(&root).contains(&"d/5".to_owned()));
}

#[test]
fn folders_in_an_inbox_that_is_not_recursive_are_none_of_ours() {
    let (_outside, root) = folder();
    let mut inbox = ByHand::new(vec![options(&root)]);
    fs::create_dir(root.join("a")).unwrap();
    fs::write(root.join("a/1"), "1").unwrap();
    fs::write(root.join("2"), "2").unwrap();
    inbox.turn();
    inbox.walk();
    assert_eq!(inbox.names(&root), ["2"]);
}

#[test]
fn a_folder_that_comes_later_or_again_is_found_by_a_walk() {
    let (outside, root) = folder();
    fs::remove_dir(&root).unwrap();
    let queue = Arc::<Queue>::default();
    let recipient: Arc<dyn Recipient> = Arc::<Queue>::clone(&queue);
    let inboxes = Inboxes::start(vec![options(&root)], NEVER, recipient).unwrap();
    until(|| {
        inboxes
            .stats()
            .first()
            .is_some_and(|stats| stats.last_error.is_some())
    });
    fs::create_dir(&root).unwrap();
    fs::write(root.join("1"), "1").unwrap();
    inboxes.rescan_now();
    until(|| queue.names(&root) == ["1"]);
    fs::rename(&root, outside.path().join("gone")).unwrap();
    fs::create_dir(&root).unwrap();
    inboxes.rescan_now();
    fs::write(root.join("2"), "2").unwrap();
    until(|| queue.names(&root) == ["1", "2"]);
    inboxes.stop();
}

#[test]
fn a_reload_leaves_alone_what_stays_and_lets_go_of_what_does_not() {
    let (outside, root) = folder();
    let other = outside.path().join("other");
    fs::create_dir(&other).unwrap();
    let waits = |path: &Path| InboxOptions {
        settle: NEVER,
        ..options(path)
    };
    let mut inbox = ByHand::new(vec![waits(&other), waits(&root)]);
    fs::write(root.join("a"), "a").unwrap();
    fs::write(other.join("b"), "b").unwrap();
    inbox.turn();
    let replace = |inbox: &mut ByHand, options: Vec<InboxOptions>| {
        let replace = Some((options, Duration::ZERO));
        inbox.shared.tell(|mail| mail.replace = replace);
        inbox.turn();
    };
    replace(&mut inbox, vec![waits(&root)]);
    assert_eq!(inbox.stats().path, root);
    assert_eq!(inbox.stats().waiting, 1);
    replace(&mut inbox, vec![options(&root)]);
    inbox.turn_until(|inbox| inbox.names(&root) == ["a"]);
    fs::write(other.join("c"), "c").unwrap();
    inbox.turn();
    assert_eq!(inbox.stats().submitted, 1);
    // Without walks, nothing at all wakes the thread.
    assert_eq!(inbox.worker.inboxes[0].next(), None);
    let endless = InboxOptions {
        settle: Duration::MAX,
        ..options(&root)
    };
    let replace = Some((vec![endless], Duration::MAX));
    inbox.shared.tell(|mail| mail.replace = replace);
    fs::write(root.join("d"), "d").unwrap();
    inbox.turn();
    // The other is in work.
    assert_eq!(inbox.stats().waiting, 1);
}

#[test]
fn that_an_inbox_is_gone_is_heard_of() {
    let (_outside, root) = folder();
    let mut inbox = ByHand::new(vec![options(&root)]);
    fs::remove_dir(&root).unwrap();
    fs::create_dir(&root).unwrap();
    inbox.turn_until(|inbox| inbox.worker.inboxes[0].next() > Some(Instant::now() + NEVER / 2));
    fs::write(root.join("a"), "a").unwrap();
    inbox.turn();
    assert_eq!(inbox.names(&root), ["a"]);
    fs::remove_file(root.join("a")).unwrap();
    fs::remove_dir(&root).unwrap();
    inbox.turn_until(|inbox| inbox.stats().last_error.is_some());
    // It is looked for again soon.
    assert!(inbox.worker.inboxes[0].next() < Some(Instant::now() + NEVER / 2));
}
