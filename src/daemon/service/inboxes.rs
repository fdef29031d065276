//! The service and its inboxes: what they submit, and what they are told.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Service;
use crate::daemon::inbox::{Ended, InboxOptions, Inboxes, Known, Recipient};
use crate::daemon::jobs::{Accepted, CANCELLED, End, Job, NewJob, Outcome};
use crate::pipeline::{is_lost, is_unchanged};
use crate::store::catalog::VersionRow;
use crate::store::{FileName, StoreError};

/// Jobs of inboxes come from this and the folder.
pub(super) const ORIGIN: &str = "inbox:";

/// Takes the inboxes' jobs to the desk. It does not keep the service alive: the service keeps them.
struct ToDesk(Weak<Service>);

impl Recipient for ToDesk {
    fn submit(&self, jobs: &[NewJob]) -> Result<Vec<Accepted>, StoreError> {
        match self.0.upgrade() {
            Some(service) => service.desk.submit(jobs),
            // The service is gone: somebody else finds the files later.
            None => Ok(vec![Accepted::Full; jobs.len()]),
        }
    }

    fn knows(&self, path: &Path, metadata: &Metadata) -> Result<Known, StoreError> {
        let Some(service) = self.0.upgrade() else {
            return Ok(Known::New);
        };
        // In this order: a job that ends between the two has stored what is asked for next.
        if service.desk.jobs().is_open(path)? {
            return Ok(Known::InWork);
        }
        match latest(&service, path)?.filter(|row| is_unchanged(row, metadata)) {
            // The file may be all that is left of it.
            Some(row) if !is_lost(&service.store, &row)? => Ok(Known::Stored),
            _ => Ok(Known::New),
        }
    }
}

/// Watches the folders from now on, and has them told of their jobs.
///
/// # Errors
///
/// When there can be no thread for it.
pub fn start(
    service: &Arc<Service>,
    options: Vec<InboxOptions>,
    rescan: Duration,
) -> std::io::Result<Arc<Inboxes>> {
    let recipient = Arc::new(ToDesk(Arc::downgrade(service)));
    let inboxes = Arc::new(Inboxes::start(options, rescan, recipient)?);
    let (told, asked) = (Arc::clone(&inboxes), Arc::downgrade(service));
    service.desk.tell(Box::new(move |job: &Job, end: &End| {
        if !job.origin.starts_with(ORIGIN) {
            return;
        }
        match end {
            End::Stored(outcome) => {
                let service = asked.upgrade();
                let seen =
                    service.and_then(|service| what_was_stored(&service, &job.path, outcome));
                if let Some(ended) = seen {
                    told.ended(job.path.clone(), ended);
                }
            }
            End::Failed(reason) => told.ended(job.path.clone(), Ended::Failed(reason.clone())),
            End::Cancelled => told.ended(job.path.clone(), Ended::Failed(CANCELLED.to_owned())),
            End::Again { .. } | End::Stopped => {}
        }
    }));
    // What was given up at the start has had nobody to tell, and would be found and begun anew.
    for job in service.desk.take_given_up() {
        if job.origin.starts_with(ORIGIN) {
            let reason = job.reason.unwrap_or_default();
            inboxes.ended(job.path, Ended::Failed(reason));
        }
    }
    Ok(inboxes)
}

/// How the file looked that was stored.
fn what_was_stored(service: &Service, path: &Path, outcome: &Outcome) -> Option<Ended> {
    let name = FileName::new(path.as_os_str().as_bytes()).ok()?;
    let row = service.store.database().version(&name, outcome.version?);
    let identity = row.ok()??.identity?;
    Some(Ended::Stored {
        size: outcome.size_bytes,
        mtime_ns: identity.mtime_ns,
        ctime_ns: identity.ctime_ns,
        inode: identity.inode,
        device: identity.device,
    })
}

/// The newest version of a path.
fn latest(service: &Service, path: &Path) -> Result<Option<VersionRow>, StoreError> {
    let name = FileName::new(path.as_os_str().as_bytes());
    match name {
        Ok(name) => service.store.database().latest(&name),
        Err(_) => Ok(None),
    }
}
