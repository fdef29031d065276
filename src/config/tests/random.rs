//! No file and no value makes loading panic.

use std::fs;

use proptest::prelude::*;

use super::Machine;
use crate::config::layer::Layer;
use crate::config::rule::KEYS;
use crate::config::{ConfigError, FlagValue, check_file, load};

/// Lines that look like configuration, so that random files get past the parser.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
    let value = prop_oneof![
        "'[a-z0-9 %.]{0,12}'",
        "-?[0-9]{1,20}",
        "\\[?\\{?[a-z]{0,4}",
        ".*"
    ];
    prop_oneof![
        (key, value.clone()).prop_map(|(key, value)| format!("{key} = {value}\n")),
        ("\"?[a-z.\\[\\]0-9-]{0,20}\"?", value)
            .prop_map(|(key, value)| format!("{key} = {value}\n")),
        "\\[[a-z.]{0,12}\\]\n",
    ]
}

fn check_bytes(content: &[u8]) -> Result<(), ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    check_file(file.path())
}

proptest! {
    #[test]
    fn no_bytes_in_a_file_make_it_panic(content: Vec<u8>) {
        let _ = check_bytes(&content);
    }

    #[test]
    fn no_lines_in_a_file_make_it_panic(lines in prop::collection::vec(line(), 0..6)) {
        let _ = check_bytes(lines.concat().as_bytes());
    }

    #[test]
    fn what_passes_the_check_always_merges(
        index in 0..KEYS.len(),
        value in prop_oneof!["[ +]?[0-9]{1,4}( ?([KMG]i?B?|m?s|%|h))? ?", "[a-z ]{0,9}", ".*"],
    ) {
        let flag = FlagValue { key: KEYS[index].name, value, flag: "--flag" };
        if Layer::from_flags(std::slice::from_ref(&flag)).is_ok() {
            let mut machine = Machine::new();
            machine.sources.flags.push(flag);
            let loaded = load(&machine.sources);
            prop_assert!(loaded.is_ok(), "{loaded:?}");
        }
    }
}
