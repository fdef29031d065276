use super::*;

#[test]
fn what_events_do_not_tell_of_a_walk_finds() {
    let (outside, root) = folder();
    let mut inbox = ByHand::new(vec![options(&root)]);
    fs::write(outside.path().join("a"), "a").unwrap();
    // Of a link the kernel says nothing that we ask for.
    fs::hard_link(outside.path().join("a"), root.join("a")).unwrap();
    inbox.turn();
    assert_eq!((inbox.stats().waiting, inbox.stats().submitted), (0, 0));
    let worker = &mut inbox.worker;
    worker.inboxes[0].hear(Event::Overflow, &mut worker.batch, &AtomicBool::new(false));
    inbox.turn_until(|inbox| inbox.names(&root) == ["a"]);
    assert_eq!(inbox.stats().overflows, 1);
}

#[test]
fn a_full_queue_is_tried_again_until_everything_is_in_it() {
    let (_outside, root) = folder();
    let mut inbox = ByHand::new(vec![options(&root)]);
    lock(&inbox.queue.state).most_open = 3;
    for n in 0..10 {
        fs::write(root.join(n.to_string()), "x").unwrap();
    }
    inbox.turn();
    inbox.walk();
    assert_eq!(inbox.stats().submitted, 3);
    let calls = lock(&inbox.queue.state).calls;
    let until = inbox.worker.batch.full_until().unwrap();
    inbox.turn();
    if Instant::now() < until {
        assert_eq!(lock(&inbox.queue.state).calls, calls);
    }
    // Room for one more each time, of which it hears.
    for submitted in 4..=10 {
        let path = lock(&inbox.queue.state).open.iter().next().unwrap().clone();
        let stored = inbox.queue.store(&path);
        inbox.ended(&path, stored);
        inbox.turn_until(|inbox| inbox.stats().submitted == submitted);
    }
    // Room of which it does not hear.
    fs::write(root.join("last"), "x").unwrap();
    inbox.turn();
    assert_eq!(inbox.stats().submitted, 10);
    lock(&inbox.queue.state).most_open = 9;
    inbox.turn_until(|inbox| inbox.names(&root).contains(&"last".to_owned()));
}

#[test]
fn twenty_thousand_files_at_once_are_all_taken_in_bounded_memory() {
    const COUNT: usize = 20_000;
    for settle in [Duration::ZERO, Duration::from_secs(2)] {
        let (_outside, root) = folder();
        let mut inbox = ByHand::new(vec![InboxOptions {
            settle,
            ..options(&root)
        }]);
        for n in 0..COUNT {
            File::create(root.join(n.to_string())).unwrap();
        }
        let began = Instant::now();
        while inbox.stats().submitted < COUNT as u64 {
            if !inbox.worker.turn() {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(inbox.stats().waiting <= folder::MOST_WAITING as u64);
            assert!(began.elapsed() < PATIENCE);
        }
        let submitted: HashSet<_> = lock(&inbox.queue.state).submitted.drain(..).collect();
        assert_eq!(submitted.len(), COUNT);
    }
}

#[test]
fn after_a_restart_the_rest_is_found_and_what_was_stored_is_done_with() {
    let (_outside, root) = folder();
    let deleting = InboxOptions {
        after: After::Delete,
        ..options(&root)
    };
    let mut inbox = ByHand::new(vec![deleting.clone()]);
    for name in ["1", "2", "3"] {
        fs::write(root.join(name), name).unwrap();
    }
    inbox.turn();
    // Stored, and then the power fails.
    let queue = Arc::clone(&inbox.queue);
    let _ = queue.store(&root.join("1"));
    drop(inbox);
    fs::write(root.join("4"), "4").unwrap();
    let mut inbox = ByHand::with(vec![deleting], queue);
    inbox.turn_until(|inbox| inbox.names(&root) == ["1", "2", "3", "4"]);
    assert!(!root.join("1").exists());
    assert!(root.join("2").exists());
}

#[test]
fn more_ends_than_are_kept_are_found_out_by_a_walk() {
    let (_outside, root) = folder();
    let queue = Arc::<Queue>::default();
    let recipient: Arc<dyn Recipient> = Arc::<Queue>::clone(&queue);
    let shared = Arc::new(Shared::new(Vec::new(), NEVER).unwrap());
    let inboxes = Inboxes {
        shared: Arc::clone(&shared),
        thread: None,
    };
    for n in 0..=MOST_ENDED {
        let ended = Ended::Failed(String::new());
        inboxes.ended(root.join(n.to_string()), ended);
    }
    let mail = lock(&shared.mail);
    assert_eq!((mail.ended.len(), mail.rescan), (MOST_ENDED, true));
    drop(mail);
    Worker::new(shared, recipient).turn();
}
