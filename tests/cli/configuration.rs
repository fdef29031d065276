//! Configuration: every layer, every kind of mistake in it, and what is said about it.

use std::fs;
use std::path::Path;

use super::world::{Outcome, World, finish, noise};

const DEFAULT: &str = include_str!("../../config/filed.toml");

/// Writes the user's own file.
fn write_user_file(world: &World, content: &str) {
    let path = world.user_file();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The value and the origin of a key as `config show --json` tells them.
fn shown(outcome: &Outcome, key: &str) -> (String, String) {
    let line = outcome.lines().into_iter().find(|line| line["key"] == key);
    let line = line.unwrap_or_else(|| panic!("{key} is not shown\n{outcome}"));
    assert_eq!(line["type"], "setting", "{line}");
    let text = |field: &str| line[field].as_str().unwrap().to_owned();
    (text("value"), text("origin"))
}

/// A size as `config show` writes it.
fn size_bytes(text: &str) -> u64 {
    let (number, unit) = text.split_once(' ').unwrap();
    let doublings = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        other => panic!("{other}"),
    };
    number.parse::<u64>().unwrap() << doublings
}

/// Checks that a mistake is told in one line that holds all of these, and stops everything.
#[track_caller]
fn assert_refused(world: &World, outcome: Outcome, said: &[&str]) {
    let outcome = outcome.exits(78);
    let message = outcome.message();
    for part in said {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(outcome.stdout.is_empty(), "{outcome}");
    assert!(!world.store().exists(), "a store was created");
}

#[test]
fn the_recipes_are_right_and_say_something() {
    let world = World::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recipes");
    let mut recipes = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        world
            .run(["config", "check", path.to_str().unwrap()])
            .exits(0);
        let config = format!("--config={}", path.display());
        let outcome = world.run(["config", "show", "--json", &config]).exits(0);
        let origin = shown(&outcome, "memory.limit").1;
        assert_eq!(origin, path.to_str().unwrap());
        // The unit as it is shipped has no network: with a port the service would not start.
        assert_eq!(shown(&outcome, "service.metrics").0, "off", "{path:?}");
        // More than half of the threshold is never used for fingerprints.
        let bytes = |key: &str| size_bytes(&shown(&outcome, key).0);
        assert!(
            bytes("heap.piece_cache") <= bytes("memory.threshold") / 2,
            "{path:?}"
        );
        recipes += 1;
    }
    assert!(recipes >= 3);
}

#[test]
fn the_default_file_is_the_documented_one_and_is_right() {
    let world = World::new();
    let outcome = world.run(["config", "default"]).exits(0);
    assert_eq!(outcome.text(), DEFAULT);
    world.write("filed.toml", DEFAULT.as_bytes());
    let outcome = world.run(["config", "check", "filed.toml"]).exits(0);
    assert_eq!(outcome.text(), "filed.toml: valid\n");
    // Whoever pipes it into the user's file changes nothing.
    let values = |outcome: &Outcome| -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let lines = outcome.lines();
        lines
            .iter()
            .map(|line| (text(&line["key"]), text(&line["value"])))
            .collect()
    };
    let built_in = world.run(["config", "show", "--json"]).exits(0);
    write_user_file(&world, DEFAULT);
    let from_file = world.run(["config", "show", "--json"]).exits(0);
    assert_eq!(values(&from_file), values(&built_in));
    for line in from_file.lines() {
        assert_eq!(
            line["origin"],
            world.user_file().to_str().unwrap(),
            "{line}"
        );
    }
}

/// The mistakes that a file can hold, and what must be said about each beside the file.
const MISTAKES: [(&str, &[&str]); 13] = [
    (
        "[memory]\nlimit = \"1 KiB\"\n",
        &["memory.limit", "\"1 KiB\"", "1 MiB to 1 PiB"],
    ),
    (
        "[memory]\nlimit = \"lots\"\n",
        &["memory.limit", "\"lots\"", "512 MiB"],
    ),
    (
        "[compression]\nlevel = 99\n",
        &["compression.level", "99", "1 to 19"],
    ),
    (
        "[chunking]\nmethod = \"random\"\n",
        &["chunking.method", "\"random\"", "content, fixed"],
    ),
    (
        "[memory]\ntreshold = \"1 GiB\"\n",
        &["memory.treshold", "did you mean `memory.threshold`?"],
    ),
    (
        "[memroy]\nlimit = \"1 GiB\"\n",
        &["memroy", "did you mean `memory`?"],
    ),
    (
        "limit = \"1 GiB\"\n",
        &["limit", "did you mean `memory.limit`?"],
    ),
    ("memory = 3\n", &["memory", "[memory]"]),
    (
        "[[inbox]]\npath = \"/a\"\n[[inbox]]\npath = \"/b\"\nsettle = \"2h\"\n",
        &["inbox[2].settle", "\"2h\"", "0s to 1h"],
    ),
    (
        "[[inbox]]\npath = \"/a\"\nsetle = \"2s\"\n",
        &["inbox[1].setle", "did you mean `inbox[1].settle`?"],
    ),
    (
        "[[inbox]]\npath = \"/a\"\nafter = \"/a/done\"\n",
        &["inbox[1].after", "\"/a/done\"", "inside \"/a\""],
    ),
    ("[inbox]\npath = \"/a\"\n", &["inbox", "[[inbox]]"]),
    ("[memory]\n\nlimit = \n", &["line 3"]),
];

#[test]
fn a_mistake_in_the_users_file_is_named_with_key_file_and_nearest_key() {
    let world = World::new();
    world.write("a", b"a");
    let file = world.user_file();
    for (content, said) in MISTAKES {
        write_user_file(&world, content);
        let said = [said, &[file.to_str().unwrap()]].concat();
        for args in [
            &["list"][..],
            &["process", "a"],
            &["config", "check"],
            &["config", "show"],
        ] {
            assert_refused(&world, world.run(args), &said);
        }
    }
    // It is only the user's file where it is the user's file.
    let mut list = world.filed();
    list.env("XDG_CONFIG_HOME", world.root().join("nowhere"))
        .arg("list");
    finish(&mut list).exits(10);
    fs::create_dir_all(world.root().join("home/.config/filed")).unwrap();
    fs::write(
        world.root().join("home/.config/filed/filed.toml"),
        MISTAKES[0].0,
    )
    .unwrap();
    list.env_remove("XDG_CONFIG_HOME");
    assert_refused(
        &world,
        finish(&mut list),
        &["home/.config/filed/filed.toml", "memory.limit"],
    );
}

#[test]
fn a_mistake_in_a_given_file_is_named_with_key_file_and_nearest_key() {
    let world = World::new();
    world.write("a", b"a");
    for (content, said) in MISTAKES {
        world.write("my.toml", content.as_bytes());
        let said = [said, &["my.toml"]].concat();
        for args in [&["list"][..], &["process", "a"], &["config", "check"]] {
            let args = [args, &["--config", "my.toml"]].concat();
            assert_refused(&world, world.run(args), &said);
        }
        assert_refused(&world, world.run(["config", "check", "my.toml"]), &said);
    }
}

#[test]
fn a_file_that_is_given_must_be_there_and_be_a_file_of_text() {
    let world = World::new();
    world.write("binary.toml", b"[memory]\nlimit = \"\xff\"\n");
    fs::create_dir(world.path("folder")).unwrap();
    for (file, said) in [
        ("missing.toml", "No such file"),
        ("folder", "directory"),
        ("binary.toml", "not UTF-8"),
        ("/dev/zero", "larger than"),
    ] {
        assert_refused(&world, world.run(["list", "--config", file]), &[file, said]);
        assert_refused(&world, world.run(["config", "check", file]), &[file, said]);
    }
}

#[test]
fn a_mistake_in_a_variable_is_named_with_the_variable_and_the_nearest() {
    let world = World::new();
    world.write("a", b"a");
    let mistakes: [(&str, &str, &[&str]); 8] = [
        (
            "FILED_MEMORY__LIMIT",
            "1K",
            &["memory.limit", "\"1K\"", "1 MiB"],
        ),
        (
            "FILED_COMPRESSION__LEVEL",
            "high",
            &["compression.level", "\"high\"", "1 to 19"],
        ),
        (
            "FILED_PIPELINE__WORKERS",
            "0",
            &["pipeline.workers", "\"0\""],
        ),
        (
            "FILED_LOG__LEVEL",
            "loud",
            &["log.level", "auto, error, warn"],
        ),
        (
            "FILED_MEMORY__RESUME",
            "100 %",
            &["memory.resume", "10 % to 95 %"],
        ),
        (
            "FILED_MEMORY__LIMT",
            "1 GiB",
            &["did you mean `FILED_MEMORY__LIMIT`?"],
        ),
        (
            "FILED_MEMORY_LIMIT",
            "1 GiB",
            &["did you mean `FILED_MEMORY__LIMIT`?"],
        ),
        ("FILED_", "", &["unknown variable"]),
    ];
    for (name, value, said) in mistakes {
        let said = [said, &[name]].concat();
        for args in [&["list"][..], &["process", "a"], &["config", "check"]] {
            let mut command = world.filed();
            let outcome = finish(command.args(args).env(name, value));
            assert_refused(&world, outcome, &said);
        }
    }
}

#[test]
fn a_mistake_in_a_flag_is_named_with_flag_and_key() {
    let world = World::new();
    world.write("a", b"a");
    for (flag, value, said) in [
        ("--memory", "1K", &["memory.limit", "1 MiB"][..]),
        ("--memory", "much", &["memory.limit", "\"much\""]),
        ("--memory", "", &["memory.limit", "\"\""]),
        ("--workers", "0", &["pipeline.workers", "1 to 256"]),
        ("--level", "20", &["compression.level", "1 to 19"]),
        (
            "--chunking",
            "random",
            &["chunking.method", "content, fixed"],
        ),
        ("--log", "loud", &["log.level", "warn"]),
        ("--store", "~/store", &["store.path", "not expanded"]),
    ] {
        let outcome = world.run(["process", "a", flag, value]);
        assert_refused(&world, outcome, &[said, &[flag]].concat());
    }
    assert!(!world.path("~").exists());
}

#[test]
fn the_lowest_mistake_is_told_even_if_a_higher_layer_sets_the_key() {
    let world = World::new();
    write_user_file(&world, "[compression]\nlevel = 99\n");
    let mut process = world.filed();
    process
        .env("FILED_COMPRESSION__LEVEL", "3")
        .args(["process", "a"]);
    assert_refused(&world, finish(&mut process), &["compression.level", "99"]);
}

#[test]
fn a_higher_layer_wins_and_show_says_where_each_value_comes_from() {
    let world = World::new();
    let mut show = world.filed();
    show.args(["config", "show", "--json"]);
    let level = |outcome: &Outcome| shown(outcome, "compression.level");
    let told = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(level(&finish(&mut show).exits(0)), told("3", "built in"));

    write_user_file(
        &world,
        "[compression]\nlevel = 4\n[log]\nlevel = \"info\"\n",
    );
    let user = world.user_file();
    let user = user.to_str().unwrap();
    let outcome = finish(&mut show).exits(0);
    assert_eq!(level(&outcome), told("4", user));

    world.write("my.toml", b"[compression]\nlevel = 5\n");
    show.args(["--config", "my.toml"]);
    assert_eq!(level(&finish(&mut show).exits(0)), told("5", "my.toml"));

    show.env("FILED_COMPRESSION__LEVEL", "6");
    let outcome = finish(&mut show).exits(0);
    assert_eq!(level(&outcome), told("6", "FILED_COMPRESSION__LEVEL"));
    assert_eq!(shown(&outcome, "log.level"), told("info", user));
    assert_eq!(shown(&outcome, "memory.limit"), told("auto", "built in"));

    // The flags that every command has are a layer of this one too.
    show.args(["--log", "debug", "--store", "/elsewhere"]);
    let outcome = finish(&mut show).exits(0);
    assert_eq!(shown(&outcome, "log.level"), told("debug", "--log"));
    assert_eq!(shown(&outcome, "store.path"), told("/elsewhere", "--store"));

    let mut text = world.filed();
    let outcome = finish(text.args(["config", "show"])).exits(0);
    let line = outcome
        .text()
        .lines()
        .find(|line| line.starts_with("compression.level"));
    assert!(line.unwrap().ends_with(user), "{outcome}");
}

#[test]
fn inboxes_of_all_files_are_shown_with_the_file_of_each() {
    let world = World::new();
    write_user_file(&world, "[[inbox]]\npath = \"/srv/a\"\n");
    world.write(
        "my.toml",
        b"[[inbox]]\npath = \"/srv/b\"\nafter = \"delete\"\n",
    );
    let args = ["config", "show", "--config", "my.toml"];
    let outcome = world.run([&args[..], &["--json"]].concat()).exits(0);
    let told = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    let user = world.user_file();
    let user = user.to_str().unwrap();
    assert_eq!(shown(&outcome, "inbox[1].path"), told("/srv/a", user));
    assert_eq!(shown(&outcome, "inbox[1].after"), told("keep", "built in"));
    assert_eq!(shown(&outcome, "inbox[2].path"), told("/srv/b", "my.toml"));
    assert_eq!(shown(&outcome, "inbox[2].after"), told("delete", "my.toml"));

    let outcome = world.run(args).exits(0);
    let text = outcome.text();
    let line = text.lines().find(|line| line.starts_with("inbox[2].path "));
    assert!(line.unwrap().ends_with("my.toml"), "{outcome}");

    // The same folder in both is told with both.
    world.write("my.toml", b"[[inbox]]\npath = \"/srv/a/\"\n");
    assert_refused(&world, world.run(args), &["my.toml", "inbox[1].path", user]);
}

#[test]
fn every_key_of_the_default_file_is_shown() {
    let world = World::new();
    let outcome = world.run(["config", "show", "--json"]).exits(0);
    let (mut section, mut keys) = (String::new(), Vec::new());
    for line in DEFAULT.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && !line.starts_with('#')
        {
            keys.push(format!("{section}.{key}"));
        }
    }
    let lines = outcome.lines();
    let shown: Vec<_> = lines
        .iter()
        .map(|line| line["key"].as_str().unwrap())
        .collect();
    assert_eq!(shown, keys);
}

#[test]
fn flags_win_over_variables_over_files() {
    let world = World::new();
    world.write("a", &noise("a", 3 << 20));
    let pieces = |store: &str, flags: &[&str], variable: Option<&str>| {
        let mut process = world.filed();
        process
            .args(["process", "--json", "--store", store, "a"])
            .args(flags);
        if let Some(value) = variable {
            process.env("FILED_CHUNKING__METHOD", value);
        }
        finish(&mut process).exits(0).file(&world.name("a"))["pieces"]
            .as_u64()
            .unwrap()
    };
    assert!(pieces("built-in", &[], None) > 3);
    write_user_file(&world, "[chunking]\nmethod = \"fixed\"\n");
    assert_eq!(pieces("file", &[], None), 3);
    assert!(pieces("variable", &[], Some("content")) > 3);
    assert_eq!(pieces("flag", &["--chunking", "fixed"], Some("content")), 3);
}

#[test]
fn check_says_which_files_are_read() {
    let world = World::new();
    write_user_file(&world, "[log]\nlevel = \"info\"\n");
    world.write("my.toml", b"[log]\nlevel = \"debug\"\n");
    let outcome = world
        .run(["config", "check", "--config", "my.toml"])
        .exits(0);
    let user = format!("{}: valid\n", world.user_file().display());
    assert!(outcome.text().contains(&user), "{outcome}");
    assert!(outcome.text().contains("my.toml: valid\n"), "{outcome}");
}

#[test]
fn default_works_whatever_is_configured() {
    let world = World::new();
    write_user_file(&world, "nonsense");
    let mut default = world.filed();
    let outcome = finish(
        default
            .args(["config", "default"])
            .env("FILED_NONSENSE", "1"),
    );
    assert_eq!(outcome.exits(0).text(), DEFAULT);
}

/// The smallest limit that a refusal names, in MiB.
#[track_caller]
fn smallest_named(outcome: &Outcome) -> u64 {
    let message = outcome.message();
    let (_, rest) = message
        .split_once("smallest limit that works here is ")
        .unwrap_or_else(|| {
            panic!("no smallest limit is named: {message}");
        });
    rest.strip_suffix(" MiB").unwrap().parse().unwrap()
}

#[test]
fn too_little_memory_names_the_smallest_that_works_and_that_works() {
    let world = World::new();
    world.write("a", &noise("memory", 5 << 20));
    // Each command with what makes it need more.
    type Command<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);
    let commands: [Command<'_>; 7] = [
        (&["process", "a"], &[]),
        (&["restore", "a", "--to", "b", "--force"], &[]),
        (&["verify"], &[]),
        (&["verify", "a"], &[]),
        (&["process", "a", "--reread", "--level", "9"], &[]),
        (
            &[
                "process",
                "a",
                "--reread",
                "--workers",
                "8",
                "--level",
                "19",
            ],
            &[],
        ),
        (
            &["process", "a", "--store", "other"],
            &[("FILED_CHUNKING__PIECE_SIZE", "256 KiB")],
        ),
    ];
    for (args, settings) in commands {
        let run = |memory: &str| {
            let mut command = world.filed();
            command
                .args(args)
                .args(["--memory", memory])
                .envs(settings.iter().copied());
            finish(&mut command)
        };
        let outcome = run("1M").exits(78);
        assert!(
            outcome.message().contains("limit 1 MiB (--memory)"),
            "{outcome}"
        );
        let smallest = smallest_named(&outcome);
        run(&format!("{}M", smallest - 1)).exits(78);
        assert!(!world.path("b").exists() && !world.path("other").exists());
        run(&format!("{smallest}M")).exits(0);
        if args[0] == "restore" {
            assert!(world.read("b") == world.read("a"));
            fs::remove_file(world.path("b")).unwrap();
        }
    }
    world.run(["verify"]).exits(0);
    world.run(["verify", "--store", "other"]).exits(0);
}

#[test]
fn every_command_works_within_24_mib() {
    let world = World::new();
    let content = noise("small", 20 << 20);
    world.write("a", &content);
    let small = ["--json", "--memory", "24M"];
    let process = world.run([&["process", "a"], &small[..]].concat()).exits(0);
    let summary = process.summary();
    assert_eq!(summary["limit"], 24 << 20);
    assert!(
        summary["threshold"].as_u64().unwrap() < 24 << 20,
        "{summary}"
    );
    world
        .run([&["restore", "a", "--to", "b"], &small[..]].concat())
        .exits(0);
    assert!(world.read("b") == content);
    for args in [&["verify"][..], &["verify", "a"], &["verify", "--quick"]] {
        world.run([args, &small].concat()).exits(0);
    }
}

#[test]
fn a_limit_from_any_layer_is_named_when_it_is_too_small() {
    let world = World::new();
    world.write("a", b"a");
    let mut process = world.filed();
    process.args(["process", "--level", "19", "a"]);
    write_user_file(&world, "[memory]\nlimit = \"25 MiB\"\n");
    let outcome = finish(&mut process).exits(78);
    assert!(
        outcome
            .message()
            .contains(world.user_file().to_str().unwrap()),
        "{outcome}"
    );
    process.env("FILED_MEMORY__LIMIT", "26 MiB");
    let outcome = finish(&mut process).exits(78);
    assert!(
        outcome.message().contains("FILED_MEMORY__LIMIT"),
        "{outcome}"
    );
    process.args(["--memory", "27M"]);
    let outcome = finish(&mut process).exits(78);
    assert!(outcome.message().contains("27 MiB (--memory)"), "{outcome}");
    assert!(!Path::new(&world.store()).exists());
}
