use super::*;
use crate::pipeline::{Fed, Status, Wanted};
use crate::store::format::Chunking;

const SETTINGS: DeskSettings = DeskSettings {
    most_open: 1000,
    attempts: 2,
    history: Duration::from_secs(3600),
    history_jobs: 1000,
};

fn desk() -> (tempfile::TempDir, Desk) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = Store::open_or_create(&root, Chunking::Fixed).unwrap();
    Jobs::open(store.database(), SETTINGS.attempts, 1).unwrap();
    let desk = Desk::new(Arc::new(store), Arc::default(), SETTINGS, Vec::new());
    (folder, desk)
}

fn job(path: &str, priority: i32, due_ns: i64) -> NewJob {
    NewJob {
        path: path.into(),
        priority,
        origin: "submit".to_owned(),
        due_ns,
    }
}

fn submit(desk: &Desk, job: NewJob) -> JobId {
    match desk.submit(&[job]).unwrap()[..] {
        [Accepted::Queued(id)] => id,
        ref other => panic!("{other:?}"),
    }
}

/// The number of the job that the data plane gets, once it gets one.
fn given(desk: &Desk) -> JobId {
    loop {
        match desk.next(Wanted::Any) {
            Fed::Found(_, tag) => return tag.number as JobId,
            Fed::NotYet => std::thread::sleep(Duration::from_millis(10)),
            Fed::Over => panic!("nothing more comes"),
        }
    }
}

/// What the data plane says of it.
fn end(desk: &Desk, id: JobId, status: Status) {
    desk.report(&FileReport {
        error: Some("why".to_owned()),
        number: id as u64,
        ..FileReport::of(status, "Cargo.toml".into(), None)
    });
}

#[test]
fn a_job_that_waits_is_not_forgotten_over_those_that_come() {
    let (_folder, desk) = desk();
    let due_ns = now_ns() + 300_000_000;
    let later = submit(&desk, job("later", 0, due_ns));
    let first = submit(&desk, job("now", 0, 0));
    // Not written down before it is looked for again.
    let order = [given(&desk), given(&desk)];
    // On a machine so slow that both were due at once, the one that came first goes first.
    let both_due = order == [later, first] && now_ns() > due_ns;
    assert!(both_due || order == [first, later], "{order:?}");
}

#[test]
fn what_is_more_urgent_goes_first_even_if_it_comes_last() {
    let (_folder, desk) = desk();
    let ids: Vec<_> = ["a", "b"].map(|path| submit(&desk, job(path, 0, 0))).into();
    assert_eq!(given(&desk), ids[0]);
    let urgent = submit(&desk, job("urgent", 1, 0));
    assert_eq!(given(&desk), urgent);
    assert_eq!(given(&desk), ids[1]);
}

#[test]
fn what_was_cancelled_is_not_handed_on_and_what_runs_is_stopped() {
    let (_folder, desk) = desk();
    let ids = ["a", "b", "c"].map(|path| submit(&desk, job(path, 0, 0)));
    let Fed::Found(_, tag) = desk.next(Wanted::Any) else {
        panic!("nothing is handed on");
    };
    assert!(desk.cancel(ids[0]).unwrap(), "it runs");
    assert!(tag.stop.unwrap().requested());
    assert!(desk.cancel(ids[1]).unwrap(), "it is on the short list");
    assert_eq!(given(&desk), ids[2]);
    assert!(!desk.cancel(ids[1]).unwrap(), "it has ended");
    assert_eq!(desk.ends().cancelled, 1);
    end(&desk, ids[0], Status::Failed);
    assert!(desk.write_down());
    let job = desk.jobs().get(ids[0]).unwrap().unwrap();
    let told = (job.state, job.reason.as_deref());
    assert_eq!(told, (JobState::Failed, Some("cancelled")));
    end(&desk, ids[2], Status::Stored);
    assert!(desk.write_down());
    let expected = Ends {
        stored: 1,
        cancelled: 2,
        failed: 0,
    };
    assert_eq!(desk.ends(), expected);
}

#[test]
fn a_failure_is_tried_again_then_given_up_and_the_store_is_blamed_for_nothing() {
    let (_folder, desk) = desk();
    let id = submit(&desk, job("Cargo.toml", 0, 0));
    assert_eq!(given(&desk), id);
    desk.report(&FileReport {
        blame: crate::pipeline::Blame::Store,
        number: id as u64,
        ..FileReport::of(Status::Failed, "Cargo.toml".into(), None)
    });
    let now = |desk: &Desk| {
        assert!(desk.write_down());
        desk.jobs().get(id).unwrap().unwrap()
    };
    let job = now(&desk);
    assert_eq!((job.state, job.attempts), (JobState::Queued, 0));
    // In the table it is queued again, and due.
    desk.look_again();
    assert_eq!(given(&desk), id);
    desk.state().running.get_mut(&id).unwrap().job.path = "Cargo.toml".into();
    end(&desk, id, Status::Failed);
    let job = now(&desk);
    assert_eq!(
        (job.state, job.reason.as_deref()),
        (JobState::Queued, Some("why"))
    );
    assert!(desk.retry(id).unwrap(), "it need not wait");
    for state in [JobState::Queued, JobState::Failed] {
        desk.look_again();
        if state == JobState::Failed {
            // Its time has come.
            let database = desk.store.database();
            let due = |change: &rusqlite::Transaction<'_>| {
                change.execute("UPDATE job SET due_ns = 0", [])
            };
            database.change("have it due", due).unwrap();
        }
        assert_eq!(given(&desk), id);
        assert_eq!(desk.ends(), Ends::default(), "it is tried again");
        end(&desk, id, Status::Failed);
        assert_eq!(now(&desk).state, state);
    }
    assert_eq!(desk.ends().failed, 1);
}

#[test]
fn nothing_is_handed_on_while_paused_and_nothing_ever_when_it_ends() {
    let (_folder, desk) = desk();
    submit(&desk, job("a", 0, 0));
    desk.set_flow(Flow::Paused);
    assert!(matches!(desk.next(Wanted::Any), Fed::Over));
    desk.set_flow(Flow::Open);
    // Files have no place now.
    assert!(matches!(desk.next(Wanted::Handed), Fed::NotYet));
    let id = given(&desk);
    // What is open goes on, and what comes after the pause is not to wait for its end.
    desk.set_flow(Flow::Paused);
    assert!(matches!(desk.next(Wanted::Any), Fed::NotYet));
    end(&desk, id, Status::Stored);
    assert!(matches!(desk.next(Wanted::Any), Fed::Over));
    desk.set_flow(Flow::Open);
    submit(&desk, job("b", 0, 0));
    let id = given(&desk);
    desk.renew();
    submit(&desk, job("c", 0, 0));
    assert!(matches!(desk.next(Wanted::Any), Fed::NotYet));
    end(&desk, id, Status::Stored);
    assert!(matches!(desk.next(Wanted::Any), Fed::Over));
    given(&desk);
    desk.set_flow(Flow::Draining);
    desk.set_flow(Flow::Open);
    assert_eq!(desk.flow(), Flow::Draining);
    assert!(matches!(desk.next(Wanted::Any), Fed::Over));
    assert!(!desk.wait_for_work());
}
