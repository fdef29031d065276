//! Aggressive mode and the collector: crossing the threshold collects all three generations, then the
//! young one every ten chunks, with the real controller, probe and relief.

use std::time::Duration;

use filed::daemon::relief::Relief;
use filed::daemon::{self, Patience, Watch};
use filed::heap::Pool;
use filed::pipeline::{Limits, Progress, Stop};
use filed::pressure::level::Thresholds;
use filed::pressure::mode::Rules;

use super::cache::cache;
use super::many_pieces::{piece, store_of};

const MIB: u64 = 1 << 20;

/// More chunks than any machine gets through in the time until the second sample: then the test fails
/// instead of waiting for ever.
const MOST_CHUNKS: u32 = 50_000_000;

#[test]
fn crossing_the_threshold_collects_everything_then_the_young_every_ten_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_of(folder.path(), 1_000, 1_000).unwrap();
    let pool = Pool::new(MIB);
    let limits = Limits::new(2);
    let known = cache(&store, 4 * MIB);
    // Any process has more resident memory than this threshold.
    let thresholds = Thresholds::new(MIB / 2, MIB, 1 << 40, 1 << 41).unwrap();
    let rules = Rules::of_resident(thresholds);
    let relief = Relief::new(&pool, &limits, Some(&known), store.database());
    let watch = Watch {
        idle: Duration::from_secs(3600),
        ..Watch::new(rules, relief)
    };
    let stop = Stop::default();
    let run = daemon::run(
        watch,
        &stop,
        &Progress::default(),
        Patience::Unlimited,
        &mut |_| {},
        || {
            known.while_serving(|| {
                let asker = known.asker();
                let ids: Vec<_> = (0..16).map(piece).collect();
                let chunk = || {
                    asker.find(&ids).unwrap();
                    known.heap_totals()
                };
                let entered = (0..MOST_CHUNKS)
                    .map(|_| chunk())
                    .find(|totals| totals.whole_collections > 0)
                    .expect("the mode changes");
                assert_eq!(entered.collections[2], entered.whole_collections);
                // The pace is another order, which may come later.
                let entered = (0..MOST_CHUNKS)
                    .map(|_| chunk())
                    .find(|totals| totals.collections[0] > entered.collections[0])
                    .expect("the pace changes");
                for _ in 0..1000 {
                    chunk();
                }
                let young = known.heap_totals().collections[0] - entered.collections[0];
                assert!((99..=101).contains(&young), "{young} in 1000 chunks");
            });
            limits.workers()
        },
    )
    .unwrap();
    assert_eq!(run.mode_changes, 1);
    assert_eq!(run.outcome, 2, "far from critical all workers may work");
}
