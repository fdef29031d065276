//! No file and no value makes loading panic.

use std::fs;

use proptest::prelude::*;

use super::Machine;
use crate::config::layer::Layer;
use crate::config::rule::{self, KEYS};
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
        inbox_line(),
    ]
}

/// The same for inboxes; most of what follows a header belongs to them.
fn inbox_line() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(rule::inbox_leaves().collect::<Vec<_>>());
    let value = prop_oneof![
        "'/?[a-c*/.]{0,4}'",
        "\\['[a-z*/]{0,3}'(, '[a-z*]')?\\]",
        "-?[0-9]{1,20}",
        "true"
    ];
    prop_oneof![
        Just("[[inbox]]\n".to_owned()),
        "\\[\\[inbox\\]\\]\npath = '/[abc]'\n",
        (leaf, value).prop_map(|(leaf, value)| format!("{leaf} = {value}\n")),
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
    fn inboxes_are_loaded_or_refused_but_never_fail_to_merge(
        lines in prop::collection::vec(inbox_line(), 0..6)
    ) {
        let checked = check_bytes(lines.concat().as_bytes());
        prop_assert!(!matches!(checked, Err(ConfigError::Merge(_))), "{checked:?}");
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
