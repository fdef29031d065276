//! The command line itself.

use super::world::World;

#[test]
fn a_command_line_that_makes_no_sense_is_refused_and_does_nothing() {
    let world = World::new();
    world.write("a", b"a");
    for args in [
        &[][..],
        &["frobnicate"],
        &["--frobnicate"],
        &["process"],
        &["process", "--frobnicate", "a"],
        &["process", "a", "--memory"],
        &["process", "a", "--report"],
        &["restore"],
        &["restore", "a", "b"],
        &["restore", "a", "--all", "--to", "out"],
        &["restore", "a", "--version", "0"],
        &["restore", "a", "--version", "newest"],
        &["restore", "--all", "--version", "1", "--to", "out"],
        &["restore", "--all", "--stdout"],
        &["restore", "a", "--stdout", "--to", "b"],
        &["restore", "a", "--stdout", "--json"],
        &["show"],
        &["list", "a"],
        &["config"],
        &["config", "frobnicate"],
    ] {
        let outcome = world.run(args).exits(2);
        assert!(outcome.stdout.is_empty(), "{outcome}");
        assert!(!outcome.stderr.is_empty(), "{outcome}");
    }
    assert!(!world.store().exists());
}

#[test]
fn help_and_version_are_data() {
    let world = World::new();
    let outcome = world.run(["--version"]).exits(0);
    let version = concat!("filed ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(outcome.text(), version);
    for args in [
        &["--help"][..],
        &["help"],
        &["process", "--help"],
        &["restore", "--help"],
        &["verify", "--help"],
        &["list", "--help"],
        &["show", "--help"],
        &["config", "--help"],
    ] {
        let outcome = world.run(args).exits(0);
        assert!(outcome.text().contains("Usage: filed"), "{outcome}");
        assert_eq!(outcome.stderr, "");
    }
    let help = world.run(["--help"]).exits(0);
    for command in ["process", "restore", "verify", "list", "show", "config"] {
        assert!(help.text().contains(command), "{command}: {help}");
    }
    for code in [
        "0 done",
        "3 finished",
        "4 damage",
        "10 no store",
        "11 store in use",
        "78 conf",
    ] {
        let unwrapped = help.text().replace('\n', " ");
        assert!(unwrapped.contains(code), "{code}: {help}");
    }
}

#[test]
fn paths_that_begin_with_a_dash_come_behind_two() {
    let world = World::new();
    world.write("-strange", b"strange");
    let outcome = world.run(["process", "--json", "--", "-strange"]).exits(0);
    assert_eq!(outcome.file(&world.name("-strange"))["status"], "stored");
    let given = world
        .run(["restore", "--stdout", "--", "-strange"])
        .exits(0);
    assert_eq!(given.text(), "strange");
}

#[test]
fn a_file_called_dash_is_reached_by_its_folder() {
    let world = World::new();
    world.write("-", b"a file");
    let outcome = world.run(["process", "--json", "./-"]).exits(0);
    assert_eq!(outcome.file(&world.name("-"))["bytes"], 6);
}
