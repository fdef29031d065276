//! The table of keys, [`Config`], the documented default file and `show` say the same.

use super::{Machine, Place};
use crate::config::rule::{self, KEYS, Rule};
use crate::config::{Config, DEFAULT_FILE, Origin, check_file, show};

#[test]
fn both_ends_of_every_range_are_allowed() {
    for key in KEYS
        .iter()
        .filter(|key| key.rule.allowed().contains(" to "))
    {
        let allowed = key.rule.allowed();
        let (least, most) = allowed.split_once(" to ").unwrap();
        for value in [least, most] {
            let mut machine = Machine::new();
            machine.set(Place::Flag, key.name, value);
            let shown = show(&machine.load()).unwrap();
            let shown = shown.iter().find(|shown| shown.key == key.name).unwrap();
            assert_eq!(shown.value, value, "{}", key.name);
        }
    }
}

#[test]
fn every_choice_loads_and_shows_as_itself() {
    for key in &KEYS {
        let Rule::Choice(choices) = &key.rule else {
            continue;
        };
        for choice in *choices {
            let mut machine = Machine::new();
            machine.set(Place::Environment, key.name, choice);
            let shown = show(&machine.load()).unwrap();
            assert!(
                shown
                    .iter()
                    .any(|s| s.key == key.name && s.value == *choice)
            );
        }
    }
}

#[test]
fn off_and_every_loopback_address_load_and_show_as_themselves() {
    for (key, value) in [
        ("scrub.rate", "off"),
        ("service.metrics", "off"),
        ("service.metrics", "127.0.0.1:9184"),
        ("service.metrics", "127.8.8.8:1"),
        ("service.metrics", "[::1]:9184"),
    ] {
        let mut machine = Machine::new();
        machine.set(Place::Environment, key, value);
        let shown = show(&machine.load()).unwrap();
        assert!(shown.iter().any(|s| s.key == key && s.value == value));
    }
}

#[test]
fn shown_values_are_in_the_form_of_the_file_and_serialize() {
    let mut machine = Machine::new();
    machine.set(Place::Flag, "memory.limit", "1536M");
    let shown = show(&machine.load()).unwrap();
    let line = shown.iter().find(|s| s.key == "memory.limit").unwrap();
    assert_eq!(
        serde_json::to_string(line).unwrap(),
        r#"{"key":"memory.limit","value":"1536 MiB","origin":"--some-flag"}"#
    );
    let built_in = serde_json::to_string(&shown[1]).unwrap();
    assert_eq!(
        built_in,
        r#"{"key":"store.pack_size","value":"64 MiB","origin":"built in"}"#
    );
}

#[test]
fn default_file_names_every_key_once_in_order_with_its_default() {
    let machine = Machine::new();
    let shown = show(&machine.load()).unwrap();
    let mut section = "";
    let mut written = Vec::new();
    for line in DEFAULT_FILE.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((leaf, value)) = line.split_once(" = ") {
            written.push((
                format!("{section}.{leaf}"),
                value.trim_matches('"').to_owned(),
            ));
        }
    }
    let expected: Vec<_> = shown.into_iter().map(|s| (s.key, s.value)).collect();
    assert_eq!(written, expected);
}

#[test]
fn default_file_loads_as_the_defaults_with_no_key_missing() {
    let mut machine = Machine::new();
    machine.write(Place::Explicit, DEFAULT_FILE);
    let loaded = machine.load();
    assert_eq!(loaded.config, Config::default());
    let from = Origin::File(machine.path(Place::Explicit));
    assert!(loaded.origin.values().all(|origin| *origin == from));
    check_file(&machine.path(Place::Explicit)).unwrap();
}

#[test]
fn default_file_says_what_each_key_allows() {
    let mut section = "";
    let mut comment = String::new();
    for line in DEFAULT_FILE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((leaf, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let name = format!("{section}.{leaf}");
            let rule = &rule::find(&name).unwrap().rule;
            let said = comment.contains(&rule.allowed()) || matches!(rule, Rule::Path);
            assert!(said, "{name}: {} not in {comment:?}", rule.allowed());
        }
        if line.starts_with('#') {
            comment.push_str(line);
        } else {
            comment.clear();
        }
    }
}

#[test]
fn table_of_keys_and_config_have_the_same_keys() {
    let config = serde_json::to_value(Config::default()).unwrap();
    let mut fields: Vec<String> = Vec::new();
    for (section, keys) in config.as_object().unwrap() {
        if section == rule::INBOX {
            continue;
        }
        fields.extend(
            keys.as_object()
                .unwrap()
                .keys()
                .map(|k| format!("{section}.{k}")),
        );
    }
    let mut names: Vec<_> = rule::names().collect();
    fields.sort();
    names.sort();
    assert_eq!(fields, names);
}
