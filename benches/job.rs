//! One run of the library over some files, as `filed process` does it: what benchmarks use that watch
//! a process over several runs.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use filed::daemon::memory::MemorySeen;
use filed::daemon::relief::Relief;
use filed::daemon::{self, Patience, Watch};
use filed::heap::Pool;
use filed::pipeline::fingerprints::{Fingerprints, Settings};
use filed::pipeline::{self, Input, Limits, Options, Progress, Stop, Walk};
use filed::pressure::level::Thresholds;
use filed::pressure::mode::Rules;
use filed::store::Store;
use filed::store::format::Chunking;

const WORKERS: usize = 2;
const MIB: u64 = 1 << 20;

/// Takes the files in with two workers, and says what was seen of memory.
pub(crate) fn take_in(files: &[PathBuf], store: &Path) -> Result<MemorySeen, Box<dyn Error>> {
    let store = Store::open_or_create(
        store,
        Chunking::Content {
            average_bytes: 64 << 10,
        },
    )?;
    let method = pipeline::method(&store.format().chunking, store.root())?;
    let pool = Pool::new(WORKERS as u64 * pipeline::worker_buffer_bytes(&method));
    let limits = Limits::new(WORKERS);
    let settings = Settings {
        limit_bytes: 4 * MIB,
        long_pause: Duration::from_millis(5),
    };
    let known = Fingerprints::new(&store, settings, pool.account("fingerprints"));
    let options = Options {
        workers: WORKERS,
        level: 3,
        pack_bytes: 64 * MIB,
        reread: false,
    };
    let (stop, progress) = (Stop::default(), Progress::default());
    let inputs = files.iter().map(|file| Input::Path {
        path: file.clone(),
        name: None,
    });
    let walk = Walk::new(inputs.collect(), store.root());
    let rules = Rules::of_resident(Thresholds::new(
        800 * MIB,
        1024 * MIB,
        1200 * MIB,
        1400 * MIB,
    )?);
    let relief = Relief::new(&pool, &limits, Some(&known), store.database());
    let watch = Watch::new(rules, relief);
    let patience = Patience::Unlimited;
    let run = daemon::run(watch, &stop, &progress, patience, &mut |_| {}, || {
        let report = |_| {};
        let (feed, bell) = (Box::new(walk), Arc::default());
        let taken = known.while_serving(|| {
            pipeline::take_in(
                &store, &pool, feed, &bell, &options, &known, None, &limits, &stop, &progress,
                &report,
            )
        });
        taken.map_err(|error| error.to_string())
    })?;
    run.outcome?;
    Ok(run.memory)
}
