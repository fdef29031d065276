//! Any sequence of calls against a naive model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::{GRANULE, MIB, granules};
use crate::heap::{Buffer, Pool, Trim};

#[derive(Clone, Debug)]
enum Step {
    Take { bytes: usize },
    Drop { nth: usize },
    Trim { what: Trim },
    SetBudget { granules: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![0..5 * GRANULE, 0..6 * MIB];
    let what = prop_oneof![
        Just(Trim::All),
        (0..3_u64).prop_map(|s| Trim::IdleSince(Duration::from_secs(s)))
    ];
    let step = prop_oneof![
        6 => bytes.prop_map(|bytes| Step::Take { bytes }),
        5 => any::<usize>().prop_map(|nth| Step::Drop { nth }),
        1 => what.prop_map(|what| Step::Trim { what }),
        1 => (100..300_u64).prop_map(|granules| Step::SetBudget { granules }),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// The model is a list of buffers: what they hold is what the pool must
    /// count, what was written at both ends of each must still be there.
    #[test]
    fn any_sequence_keeps_counters_exact_and_contents_apart(steps in steps()) {
        let start = Instant::now();
        let mut budget = 200 * GRANULE as u64;
        let pool = Pool::new(budget);
        let account = pool.account("test");
        let mut buffers: Vec<(Buffer, u8)> = Vec::new();
        let held = |buffers: &[(Buffer, u8)]| -> u64 {
            buffers.iter().map(|(buffer, _)| granules(buffer.len())).sum()
        };
        for (number, step) in steps.into_iter().enumerate() {
            let resident_before = pool.stats().held_bytes + pool.stats().idle_resident_bytes;
            match step {
                Step::Take { bytes } => {
                    let fits = held(&buffers) + granules(bytes) <= budget;
                    let taken = account.try_take(bytes).unwrap();
                    prop_assert_eq!(taken.is_some(), fits);
                    if let Some(mut buffer) = taken {
                        let id = number as u8 + 1;
                        if let [first, .., last] = &mut *buffer {
                            (*first, *last) = (id, id);
                        }
                        buffers.push((buffer, id));
                    }
                }
                Step::Drop { nth } if !buffers.is_empty() => {
                    buffers.swap_remove(nth % buffers.len());
                }
                Step::Drop { .. } => {}
                Step::Trim { what } => {
                    pool.trim(what, start + Duration::from_secs(number as u64));
                    if what == Trim::All {
                        prop_assert_eq!(pool.stats().idle_resident_bytes, 0);
                    }
                }
                Step::SetBudget { granules } => {
                    budget = granules * GRANULE as u64;
                    pool.set_budget(budget);
                }
            }
            let stats = pool.stats();
            prop_assert_eq!(stats.held_bytes, held(&buffers));
            prop_assert_eq!(stats.accounts[0].held_bytes, stats.held_bytes);
            let resident = stats.held_bytes + stats.idle_resident_bytes;
            prop_assert!(resident <= budget.max(resident_before), "{:?}", stats);
            prop_assert!(resident <= stats.mapped_bytes, "{:?}", stats);
            for (buffer, id) in &buffers {
                if let [first, .., last] = &**buffer {
                    prop_assert_eq!((first, last), (id, id));
                }
            }
        }
        drop(buffers);
        pool.trim(Trim::All, start);
        prop_assert_eq!(pool.stats().mapped_bytes, 0);
    }
}
