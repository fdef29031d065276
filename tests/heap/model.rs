//! The model test: random programs on a heap and on a naive model of it.
//!
//! A program is drawn from a seed and does everything that can be done with a
//! heap, finalizers, callbacks and drops that misbehave included; see
//! [`op::Op`]. What must hold is in [`machine`]: nothing that can be reached is
//! dropped, nothing unreachable is left, each finalizer runs once, weak
//! references, watches, counts and the census say what is so.
//!
//! No program looks at a clock for a decision, so a seed is the same program
//! each time. A failing one is cut down to few operations before it is told.
//! `HEAP_SEEDS` sets how many seeds are tried; `HEAP_SEED` runs one, and tells
//! every operation before it is done.

mod machine;
mod op;
mod oracle;
mod things;

use std::ops::Range;

use op::Op;

const OPERATIONS: usize = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// xorshift64*: Marsaglia, "Xorshift RNGs", 2003.
fn bytes(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::from_fn(move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        Some((state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8)
    })
}

fn program(seed: u64) -> (u8, Vec<Op>) {
    let mut bytes = bytes(seed);
    let config = bytes.next().unwrap_or(0);
    let ops = std::iter::from_fn(|| Op::decode(&mut bytes));
    (config, ops.take(OPERATIONS).collect())
}

/// Leaves out what a failure does not need.
fn cut_down(mut ops: Vec<Op>, config: u8) -> Vec<Op> {
    let mut step = ops.len() / 2;
    while step > 0 {
        let mut at = 0;
        while at < ops.len() {
            let range: Range<usize> = at..(at + step).min(ops.len());
            let mut fewer = ops.clone();
            fewer.drain(range);
            if machine::run(&fewer, config, false).is_err() {
                ops = fewer;
            } else {
                at += step;
            }
        }
        step /= 2;
    }
    ops
}

#[test]
fn random_programs_agree_with_the_model() {
    if let Some(seed) = number("HEAP_SEED") {
        let (config, ops) = program(seed);
        eprintln!("config {config}");
        machine::run(&ops, config, true).expect("heap and model agree");
        return;
    }
    let seeds = number("HEAP_SEEDS").unwrap_or(2_000);
    for seed in 1..=seeds {
        let (config, ops) = program(seed);
        if let Err(what) = machine::run(&ops, config, false) {
            let ops = cut_down(ops, config);
            let what = machine::run(&ops, config, false).err().unwrap_or(what);
            panic!("seed {seed}, config {config}:\n{what}\nby {ops:#?}");
        }
    }
}
