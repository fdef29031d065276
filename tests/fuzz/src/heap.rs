//! Fuzzes the managed heap with the programs of its model test.
//!
//! The first byte is the configuration, the others are operations. The rule
//! that must hold is that of the model test, whose machine runs here.
#![no_main]

#[path = "../../heap/model"]
mod model {
    mod machine;
    mod op;
    mod oracle;
    mod things;

    /// Most operations of one program.
    const MOST: usize = 1000;

    /// Runs the program that these bytes are.
    pub(super) fn run(config: u8, bytes: &[u8]) {
        let mut bytes = bytes.iter().copied();
        let ops = std::iter::from_fn(|| op::Op::decode(&mut bytes));
        let ops: Vec<_> = ops.take(MOST).collect();
        if let Err(what) = machine::run(&ops, config, false) {
            panic!("config {config}:\n{what}\nby {ops:#?}");
        }
    }
}

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((&config, bytes)) = bytes.split_first() else {
        return Corpus::Reject;
    };
    model::run(config, bytes);
    Corpus::Keep
});
