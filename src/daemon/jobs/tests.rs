use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::store::Store;
use crate::store::format::Chunking;

const SECOND_NS: i64 = 1_000_000_000;
const PLENTY: u64 = 1000;

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(&folder.path().join("store"), Chunking::Fixed).unwrap();
    (folder, store)
}

fn new(path: &str) -> NewJob {
    NewJob {
        path: path.into(),
        priority: 0,
        origin: "submit".to_owned(),
        due_ns: 0,
    }
}

fn queued(accepted: &[Accepted]) -> Vec<JobId> {
    accepted
        .iter()
        .map(|accepted| match accepted {
            Accepted::Queued(id) => *id,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Begins the job whose turn it is, as the service does.
fn next(jobs: &Jobs<'_>, now_ns: i64) -> Result<Option<Job>, StoreError> {
    let Some(job) = jobs.due(now_ns, 1)?.pop() else {
        return Ok(None);
    };
    let id = job.id;
    jobs.record(&[Event::Begun { id, at_ns: now_ns }])?;
    jobs.get(id)
}

fn end(jobs: &Jobs<'_>, id: JobId, end: &End, now_ns: i64) -> Result<(), StoreError> {
    let end = end.clone();
    let at_ns = now_ns;
    jobs.record(&[Event::Ended { id, end, at_ns }])
}

#[test]
fn the_greater_priority_goes_first_then_who_came_first() {
    let (_folder, store) = store();
    let jobs = Jobs::open(store.database(), 5, 1).unwrap();
    let with = |path: &str, priority| NewJob {
        priority,
        ..new(path)
    };
    let wanted = [with("a", 0), with("b", 5), with("c", 0), with("d", 5)];
    jobs.submit(&wanted, PLENTY, 1).unwrap();
    let order: Vec<_> = std::iter::from_fn(|| next(&jobs, 2).unwrap())
        .map(|job| {
            assert_eq!(
                (job.state, job.attempts, job.started_ns),
                (State::Running, 1, Some(2))
            );
            job.path.to_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(order, ["b", "d", "a", "c"]);
}

#[test]
fn a_path_has_one_open_job_and_the_queue_has_an_end() {
    let (_folder, store) = store();
    let jobs = Jobs::open(store.database(), 5, 1).unwrap();
    let accepted = jobs
        .submit(&[new("a"), new("a"), new("b"), new("c")], 2, 1)
        .unwrap();
    let [
        Accepted::Queued(a),
        Accepted::Already(again),
        Accepted::Queued(_),
        Accepted::Full,
    ] = accepted[..]
    else {
        panic!("{accepted:?}")
    };
    assert_eq!(a, again);
    assert_eq!(next(&jobs, 1).unwrap().map(|job| job.id), Some(a));
    assert_eq!(
        jobs.submit(&[new("a")], 9, 1).unwrap(),
        [Accepted::Already(a)],
        "it runs"
    );
    end(&jobs, a, &End::Stored(Outcome::default()), 2).unwrap();
    let again = queued(&jobs.submit(&[new("a")], 9, 3).unwrap());
    assert_ne!(again, [a]);
}

#[test]
fn what_was_running_when_the_process_ended_is_queued_again() {
    let (folder, store) = store();
    let jobs = Jobs::open(store.database(), 5, 1).unwrap();
    let ids = queued(&jobs.submit(&[new("a"), new("b")], PLENTY, 1).unwrap());
    next(&jobs, 2).unwrap().unwrap();
    drop(store);
    let store = Store::open_or_create(&folder.path().join("store"), Chunking::Fixed).unwrap();
    let jobs = Jobs::open(store.database(), 5, 1).unwrap();
    let counts = Counts {
        queued: 2,
        ..Counts::default()
    };
    assert_eq!(jobs.counts().unwrap(), counts);
    let job = next(&jobs, 3).unwrap().unwrap();
    assert_eq!(
        (job.id, job.attempts),
        (ids[0], 2),
        "the attempt that was cut off counts"
    );
}

#[test]
fn a_job_that_ended_every_process_that_worked_on_it_is_given_up() {
    let (_folder, store) = store();
    let jobs = Jobs::open(store.database(), 2, 1).unwrap();
    let id = queued(&jobs.submit(&[new("a")], PLENTY, 1).unwrap())[0];
    for left in [State::Queued, State::Failed] {
        next(&jobs, 2).unwrap().unwrap();
        let opened = Jobs::open(store.database(), 2, 3).unwrap();
        assert_eq!(opened.given_up().len(), usize::from(left == State::Failed));
        assert_eq!(jobs.get(id).unwrap().unwrap().state, left);
    }
    let reason = jobs.get(id).unwrap().unwrap().reason.unwrap();
    assert!(reason.ends_with("2 times"), "{reason}");
}

#[test]
fn a_job_that_fails_is_due_later_and_one_that_was_stopped_at_once() {
    let (_folder, store) = store();
    let jobs = Jobs::open(store.database(), 5, 1).unwrap();
    let id = queued(&jobs.submit(&[new("a")], PLENTY, 0).unwrap())[0];
    next(&jobs, 0).unwrap().unwrap();
    let again = End::Again {
        reason: "busy".to_owned(),
        due_ns: 5 * SECOND_NS,
    };
    end(&jobs, id, &again, SECOND_NS).unwrap();
    assert_eq!(next(&jobs, 4 * SECOND_NS).unwrap(), None);
    assert_eq!(jobs.next_due_ns(SECOND_NS).unwrap(), Some(5 * SECOND_NS));
    let job = next(&jobs, 5 * SECOND_NS).unwrap().unwrap();
    assert_eq!((job.attempts, job.reason.as_deref()), (2, Some("busy")));
    end(&jobs, id, &End::Stopped, 6 * SECOND_NS).unwrap();
    assert_eq!(next(&jobs, 6 * SECOND_NS).unwrap().unwrap().attempts, 2);
    end(&jobs, id, &End::Failed("gone".to_owned()), 7 * SECOND_NS).unwrap();
    let failed = jobs.get(id).unwrap().unwrap();
    assert_eq!(
        (failed.state, failed.reason.as_deref()),
        (State::Failed, Some("gone"))
    );
    assert_eq!(failed.ended_ns, Some(7 * SECOND_NS));
    end(&jobs, id, &End::Stopped, 8 * SECOND_NS).unwrap();
    assert_eq!(
        jobs.get(id).unwrap().unwrap(),
        failed,
        "what has ended has ended"
    );
}

#[test]
fn only_what_waits_is_cancelled_and_only_what_failed_is_retried() {
    let (_folder, store) = store();
    let jobs = Jobs::open(store.database(), 5, 1).unwrap();
    let ids = queued(&jobs.submit(&[new("a"), new("b")], PLENTY, 1).unwrap());
    let running = next(&jobs, 1).unwrap().unwrap().id;
    assert!(!jobs.cancel(running, 2).unwrap());
    assert!(!jobs.retry(running, 2).unwrap());
    assert!(jobs.cancel(ids[1], 2).unwrap());
    let cancelled = jobs.get(ids[1]).unwrap().unwrap();
    assert_eq!(cancelled.reason.as_deref(), Some("cancelled"));
    let other = queued(&jobs.submit(&[new("b")], PLENTY, 3).unwrap())[0];
    assert!(!jobs.retry(ids[1], 3).unwrap(), "its path has another job");
    assert!(jobs.cancel(other, 4).unwrap());
    assert!(jobs.retry(ids[1], 5).unwrap());
    assert_eq!(jobs.get(ids[1]).unwrap().unwrap().attempts, 0);
    assert!(!jobs.cancel(4711, 5).unwrap());
    assert_eq!(jobs.get(4711).unwrap(), None);
}

#[test]
fn history_is_listed_newest_first_and_forgotten_by_age_and_number() {
    let (_folder, store) = store();
    let jobs = Jobs::open(store.database(), 5, 1).unwrap();
    let paths: Vec<_> = (0..10).map(|number| new(&format!("{number}"))).collect();
    let ids = queued(&jobs.submit(&paths, PLENTY, 0).unwrap());
    for id in &ids[..8] {
        assert_eq!(next(&jobs, 0).unwrap().unwrap().id, *id);
        end(&jobs, *id, &End::Stored(Outcome::default()), *id).unwrap();
    }
    let list = |state, before, most| -> Vec<_> {
        let listed = jobs.list(state, before, most).unwrap();
        listed.into_iter().map(|job| job.id).collect()
    };
    assert_eq!(list(None, JobId::MAX, 3), [ids[9], ids[8], ids[7]]);
    assert_eq!(list(Some(State::Stored), JobId::MAX, 2), [ids[7], ids[6]]);
    assert_eq!(list(Some(State::Stored), ids[1], 9), [ids[0]]);
    assert_eq!(jobs.prune(ids[2], PLENTY).unwrap(), 2);
    assert_eq!(jobs.prune(0, 4).unwrap(), 2);
    assert_eq!(
        list(Some(State::Stored), JobId::MAX, 9),
        [ids[7], ids[6], ids[5], ids[4]]
    );
    assert_eq!(jobs.counts().unwrap().queued, 2, "what has not ended stays");
}

#[test]
fn the_wait_doubles_up_to_an_hour() {
    let seconds = |attempts| back_off_ns(attempts) / SECOND_NS;
    assert_eq!([0, 1, 2, 3, 10].map(seconds), [5, 5, 10, 20, 2560]);
    assert_eq!([11, u32::MAX].map(seconds), [3600, 3600]);
}

/// What may be done to jobs, on few paths so that they meet.
#[derive(Clone, Copy, Debug)]
enum Step {
    Submit(u8, i32),
    Next,
    End(u8, u8),
    Cancel(u8),
    Retry(u8),
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6u8, -2..3).prop_map(|(path, priority)| Step::Submit(path, priority)),
        Just(Step::Next),
        (0..12u8, 0..4u8).prop_map(|(id, how)| Step::End(id, how)),
        (0..12u8).prop_map(Step::Cancel),
        (0..12u8).prop_map(Step::Retry),
        Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_done_no_path_has_two_open_jobs_and_none_is_lost(
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        let (_folder, store) = store();
        let mut jobs = Jobs::open(store.database(), 5, 1).unwrap();
        let mut accepted = 0;
        for (now, step) in steps.into_iter().enumerate() {
            let now = now as i64;
            match step {
                Step::Submit(path, priority) => {
                    let job = NewJob { priority, ..new(&path.to_string()) };
                    let outcome = jobs.submit(&[job], 4, now).unwrap();
                    accepted += u64::from(matches!(outcome[..], [Accepted::Queued(_)]));
                }
                Step::Next => drop(next(&jobs, now).unwrap()),
                Step::End(id, how) => {
                    let how = match how {
                        0 => End::Stored(Outcome::default()),
                        1 => End::Failed("why".to_owned()),
                        2 => End::Again { reason: "why".to_owned(), due_ns: now + 3 },
                        _ => End::Stopped,
                    };
                    end(&jobs, id.into(), &how, now).unwrap();
                }
                Step::Cancel(id) => drop(jobs.cancel(id.into(), now).unwrap()),
                Step::Retry(id) => drop(jobs.retry(id.into(), now).unwrap()),
                Step::Restart => jobs = Jobs::open(store.database(), 5, 1).unwrap(),
            }
            let all = jobs.list(None, JobId::MAX, 1000).unwrap();
            let mut open = BTreeMap::new();
            for job in &all {
                if matches!(job.state, State::Queued | State::Running) {
                    prop_assert!(open.insert(job.path.clone(), job.id).is_none(), "{:?}", job.path);
                    prop_assert_eq!(job.ended_ns, None);
                } else {
                    prop_assert!(job.ended_ns.is_some());
                }
            }
            let counts = jobs.counts().unwrap();
            let sum = counts.queued + counts.running + counts.stored + counts.failed;
            prop_assert_eq!(sum, accepted);
            // Retried jobs come back whatever the bound was.
            prop_assert_eq!(counts.queued + counts.running, open.len() as u64);
        }
    }
}

#[test]
fn jobs_in_a_state_are_listed_without_looking_at_the_others() {
    let (_folder, store) = store();
    Jobs::open(store.database(), 5, 1).unwrap();
    let plan = |in_state| {
        let sql = format!("EXPLAIN QUERY PLAN {}", list_sql(in_state));
        let steps = store.database().ask("explain", |connection| {
            let mut explained = connection.prepare(&sql)?;
            let steps = explained.raw_query().mapped(|row| row.get::<_, String>(3));
            steps.collect::<rusqlite::Result<Vec<_>>>()
        });
        steps.unwrap().join("; ")
    };
    // One step each: nothing is sorted, and the walk ends where the page is full.
    assert_eq!(
        plan(true),
        "SEARCH job USING INDEX job_state (state=? AND rowid<?)"
    );
    assert_eq!(
        plan(false),
        "SEARCH job USING INTEGER PRIMARY KEY (rowid<?)"
    );
}
