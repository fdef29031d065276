//! Inboxes: what a table may hold, how those of several files add up, and what is said about each
//! mistake.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{FILES, Machine, Place};
use crate::config::rule::{self, INBOX_KEYS, Rule};
use crate::config::{After, Config, DEFAULT_FILE, Inbox, Loaded, Origin, check_file, show};

/// The documented default file with its example of an inbox in force.
fn with_the_example() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(example) if !example.is_empty() && !example.starts_with(' ') => example,
        _ => line,
    };
    let lines: Vec<_> = DEFAULT_FILE.lines().map(line).collect();
    lines.join("\n")
}

fn load_file(content: &str) -> Loaded {
    let mut machine = Machine::new();
    machine.write(Place::Etc, content);
    machine.load()
}

fn only_inbox(content: &str) -> Inbox {
    let [inbox] = load_file(content).config.inbox.try_into().unwrap();
    inbox
}

fn shown(loaded: &Loaded, key: &str) -> (String, String) {
    let shown = show(loaded).unwrap();
    let line = shown.into_iter().find(|shown| shown.key == key).unwrap();
    (line.value, line.origin.to_string())
}

#[test]
fn what_a_table_leaves_out_is_as_documented() {
    let expected = Inbox {
        path: PathBuf::from("/srv/incoming"),
        patterns: vec!["*".to_owned()],
        recursive: false,
        settle: Duration::from_secs(2),
        after: After::Keep,
        priority: 0,
    };
    assert_eq!(only_inbox("[[inbox]]\npath = '/srv/incoming'\n"), expected);
    let loaded = load_file(&with_the_example());
    let config = Config {
        inbox: vec![expected],
        ..Config::default()
    };
    assert_eq!(loaded.config, config);
}

#[test]
fn every_key_can_be_set() {
    let inbox = only_inbox(
        "[[inbox]]\npath = '/in'\npatterns = ['*.iso', '*.img']\nrecursive = true\n\
         settle = '0s'\nafter = '/done'\npriority = -7\n",
    );
    let expected = Inbox {
        path: PathBuf::from("/in"),
        patterns: vec!["*.iso".to_owned(), "*.img".to_owned()],
        recursive: true,
        settle: Duration::ZERO,
        after: After::MoveTo(PathBuf::from("/done")),
        priority: -7,
    };
    assert_eq!(inbox, expected);
    let inbox = only_inbox("inbox = [{ path = '/in', patterns = '[a-c]', after = 'delete' }]");
    assert_eq!(inbox.patterns, ["[a-c]"]);
    assert_eq!(inbox.after, After::Delete);
}

#[test]
fn example_names_every_key_once_in_order_and_what_it_allows() {
    let file = with_the_example();
    let (_, example) = file.split_once("[[inbox]]\n").unwrap();
    let (mut comment, mut keys) = (String::new(), Vec::new());
    for line in example.lines() {
        if let Some((leaf, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let rule = &rule::find_in_inbox(leaf).unwrap().rule;
            let allowed = rule.allowed().to_lowercase();
            let said = comment.to_lowercase().contains(&allowed);
            assert!(said, "{leaf}: {allowed} not in {comment:?}");
            keys.push(leaf);
        }
        if line.starts_with('#') {
            comment.push_str(line);
        } else {
            comment.clear();
        }
    }
    assert!(keys.into_iter().eq(rule::inbox_leaves()));
}

#[test]
fn table_of_keys_and_inbox_have_the_same_keys() {
    let inbox = only_inbox("[[inbox]]\npath = '/in'\n");
    let fields = serde_json::to_value(&inbox).unwrap();
    let mut fields: Vec<_> = fields.as_object().unwrap().keys().cloned().collect();
    let mut leaves: Vec<_> = rule::inbox_leaves().collect();
    assert!(inbox.shown().iter().map(|(leaf, _)| leaf).eq(&leaves));
    fields.sort();
    leaves.sort();
    assert_eq!(fields, leaves);
}

#[test]
fn both_ends_of_every_range_are_allowed_and_shown() {
    for key in &INBOX_KEYS {
        let allowed = key.rule.allowed();
        let Some((least, most)) = allowed.split_once(" to ") else {
            continue;
        };
        for value in [least, most] {
            let leaf = key.leaf();
            let loaded = load_file(&format!("[[inbox]]\npath = '/in'\n{leaf} = '{value}'\n"));
            let (text, _) = shown(&loaded, &format!("inbox[1].{leaf}"));
            assert_eq!(text, value, "{leaf}");
        }
    }
    assert!(matches!(INBOX_KEYS[5].rule, Rule::Integer(_)));
}

#[test]
fn inboxes_of_all_files_add_up_and_show_says_where_each_value_stands() {
    let mut machine = Machine::new();
    for (index, place) in FILES.into_iter().enumerate() {
        machine.write(
            place,
            format!("[[inbox]]\npath = '/{index}'\nsettle = '5s'\n"),
        );
    }
    let loaded = machine.load();
    let paths: Vec<_> = loaded
        .config
        .inbox
        .iter()
        .map(|inbox| &inbox.path)
        .collect();
    assert_eq!(paths, ["/0", "/1", "/2", "/3"].map(Path::new));
    for (index, place) in FILES.into_iter().enumerate() {
        let file = machine.path(place).display().to_string();
        let key = |leaf| shown(&loaded, &format!("inbox[{}].{leaf}", index + 1));
        assert_eq!(key("path"), (format!("/{index}"), file.clone()));
        assert_eq!(key("settle"), ("5s".to_owned(), file));
        assert_eq!(key("after"), ("keep".to_owned(), "built in".to_owned()));
    }
    assert_eq!(loaded.inbox_origin.len(), 4);
    assert_eq!(loaded.inbox_origin[0]["priority"], Origin::BuiltIn);
}

#[test]
fn what_is_shown_of_an_inbox_can_be_pasted_into_a_file() {
    let patterns = "[\"*.iso\",\"a \\\"b\\\"\"]";
    let content = format!("[[inbox]]\npath = '/in'\npatterns = {patterns}\n");
    let loaded = load_file(&content);
    assert_eq!(shown(&loaded, "inbox[1].patterns").0, patterns);
}

#[test]
fn a_file_that_is_named_again_is_read_once() {
    let mut machine = Machine::new();
    machine.write(
        Place::Etc,
        "[[inbox]]\npath = '/in'\n[log]\nlevel = 'info'\n",
    );
    machine.write(Place::User, "[log]\nlevel = 'debug'\n");
    let again = machine.root.path().join("etc/conf.d/../filed.toml");
    machine.sources.explicit = Some(again.clone());
    let loaded = machine.load();
    assert_eq!(loaded.config.inbox.len(), 1);
    assert_eq!(loaded.files, [machine.path(Place::User), again.clone()]);
    assert_eq!(loaded.origin["log.level"], Origin::File(again));
}

#[test]
fn no_variable_sets_an_inbox() {
    for name in ["FILED_INBOX", "FILED_INBOX__PATH", "FILED_INBOX__0__PATH"] {
        let mut machine = Machine::new();
        let variable = (name.into(), "/in".into());
        machine.sources.environment.push(variable);
        assert_eq!(machine.error(), format!("unknown variable `{name}`"));
    }
}

/// What is said about an inbox with the path `/in` and this line, as the second of a file.
#[track_caller]
fn assert_second_refused(line: &str, expected: &str) {
    let content = format!("[[inbox]]\npath = '/first'\n[[inbox]]\npath = '/in'\n{line}\n");
    assert_refused(&content, expected);
}

#[track_caller]
fn assert_refused(content: &str, expected: &str) {
    let mut machine = Machine::new();
    machine.write(Place::Etc, content);
    let path = machine.path(Place::Etc);
    let expected = expected.replace("FILE", &path.display().to_string());
    assert_eq!(machine.error(), format!("{}: {expected}", path.display()));
    assert_eq!(check_file(&path).unwrap_err().to_string(), machine.error());
}

#[test]
fn a_wrong_value_is_named_with_the_number_of_its_inbox() {
    let cases = [
        (
            "settle = 5",
            "inbox[2].settle: \"5\" is not a time with its unit (examples: 500ms, 5s, 1m)",
        ),
        (
            "settle = '2h'",
            "inbox[2].settle: \"2h\" is out of range (0s to 1h)",
        ),
        (
            "setle = '2s'",
            "unknown key `inbox[2].setle` (did you mean `inbox[2].settle`?)",
        ),
        ("colour = 1", "unknown key `inbox[2].colour`"),
        (
            "recursive = 'yes'",
            "inbox[2].recursive: \"yes\" is not true or false",
        ),
        (
            "recursive = 1",
            "inbox[2].recursive: \"1\" is not true or false",
        ),
        (
            "priority = 1001",
            "inbox[2].priority: \"1001\" is out of range (-1000 to 1000)",
        ),
        (
            "priority = 1.5",
            "inbox[2].priority: 1.5 is not a whole number from -1000 to 1000",
        ),
        (
            "patterns = []",
            "inbox[2].patterns: an empty list matches no file; leave it out for all files",
        ),
        (
            "patterns = ['*.iso', '']",
            "inbox[2].patterns: \"\" is empty and matches no file",
        ),
        (
            "patterns = 'a/*'",
            "inbox[2].patterns: \"a/*\" holds a /, but a pattern is compared with the name of a \
             file alone",
        ),
        (
            "patterns = [5]",
            "inbox[2].patterns: 5 is not a pattern in quotes (example: *.iso) or a list of such",
        ),
        (
            "patterns = [['*']]",
            "inbox[2].patterns: a list is not a pattern in quotes (example: *.iso) or a list of \
             such",
        ),
        (
            "after = 'move'",
            "inbox[2].after: \"move\" is not \"keep\", \"delete\" or the absolute path of a folder \
             (example: /srv/done)",
        ),
        (
            "after = false",
            "inbox[2].after: false is not \"keep\", \"delete\" or the absolute path of a folder \
             (example: /srv/done)",
        ),
        (
            "after = '~/done'",
            "inbox[2].after: \"~/done\" starts with ~, which is not expanded; write the whole path",
        ),
        (
            "after = '/done/../in'",
            "inbox[2].after: \"/done/../in\" holds `..`; write the path without it",
        ),
    ];
    for (line, expected) in cases {
        assert_second_refused(line, expected);
    }
}

#[test]
fn a_path_is_there_and_absolute() {
    let cases = [
        (
            "",
            "inbox[1].path: missing; each inbox names its folder (example: /srv/incoming)",
        ),
        (
            "path = ''",
            "inbox[1].path: \"\" is not an absolute path in quotes (example: /srv/incoming)",
        ),
        (
            "path = 'in'",
            "inbox[1].path: \"in\" is not an absolute path in quotes (example: /srv/incoming)",
        ),
        (
            "path = 5",
            "inbox[1].path: 5 is not an absolute path in quotes (example: /srv/incoming)",
        ),
        (
            "path = '~/in'",
            "inbox[1].path: \"~/in\" starts with ~, which is not expanded; write the whole path",
        ),
        (
            "path = '/a/../in'",
            "inbox[1].path: \"/a/../in\" holds `..`; write the path without it",
        ),
    ];
    for (line, expected) in cases {
        assert_refused(&format!("[[inbox]]\n{line}\n"), expected);
    }
}

#[test]
fn what_is_no_list_of_inboxes_is_told_how_to_write_one() {
    let rest = "is not a list of inboxes; write [[inbox]], in double brackets, and the keys of \
                one below";
    for (content, expected) in [
        ("[inbox]\npath = '/in'", "inbox: a table"),
        ("[inbox.first]\npath = '/in'", "inbox: a table"),
        ("inbox = '/in'", "inbox: \"/in\""),
        ("inbox = ['/in']", "inbox[1]: \"/in\""),
    ] {
        assert_refused(content, &format!("{expected} {rest}"));
    }
    let unknown = "unknown section `inboxes` (did you mean `inbox`?)";
    assert_refused("[[inboxes]]\npath = '/in'", unknown);
    assert_refused("[inboxes]\npath = '/in'", unknown);
    let unknown = "unknown key `settle` (did you mean `inbox.settle`?)";
    assert_refused("settle = '2s'", unknown);
}

#[test]
fn a_folder_that_is_named_twice_names_both_files() {
    let mut machine = Machine::new();
    machine.write(
        Place::Etc,
        "[[inbox]]\npath = '/a'\n[[inbox]]\npath = '/in'\n",
    );
    machine.write(Place::User, "[[inbox]]\npath = '/./in/'\n");
    let [etc, user] = [Place::Etc, Place::User].map(|place| machine.path(place));
    let expected = format!(
        "{}: inbox[1].path: \"/./in/\" is the folder of inbox[2] in {} too",
        user.display(),
        etc.display()
    );
    assert_eq!(machine.error(), expected);
    fs::remove_file(&etc).unwrap();
    machine.load();
}

#[test]
fn no_file_may_belong_to_two_inboxes() {
    let around = "[[inbox]]\npath = '/in'\n";
    let inside = "[[inbox]]\npath = '/in/a/b'\n";
    let said = "\"/in/a/b\" lies inside \"/in\", the folder of";
    let both = "which is recursive: files in it would belong to both";
    assert_refused(
        &format!("{around}recursive = true\n{inside}"),
        &format!("inbox[2].path: {said} inbox[1] in FILE, {both}"),
    );
    assert_refused(
        &format!("{inside}{around}recursive = true\n"),
        &format!("inbox[1].path: {said} inbox[2] in FILE, {both}"),
    );
    load_file(&format!("{around}{inside}recursive = true\n"));
    load_file(&format!(
        "{around}recursive = true\n[[inbox]]\npath = '/in2'\n"
    ));
}

#[test]
fn no_file_may_come_back_to_an_inbox() {
    let other = "[[inbox]]\npath = '/other'\n";
    for (folder, inbox, number) in [
        ("/in", "/in", 2),
        ("/in/done", "/in", 2),
        ("/other/a/b", "/other", 1),
        ("/other/", "/other", 1),
    ] {
        assert_refused(
            &format!("{other}[[inbox]]\npath = '/in'\nafter = '{folder}'\n"),
            &format!(
                "inbox[2].after: \"{folder}\" lies inside \"{inbox}\", the folder of \
                 inbox[{number}] in FILE: files that were taken in must not come back to an inbox"
            ),
        );
    }
    load_file(&format!(
        "{other}[[inbox]]\npath = '/in'\nafter = '/in-done'\n"
    ));
}
