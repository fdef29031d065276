//! The layers as a whole. `Place` is each place a value can stand in, lowest first, so that every
//! rule is tried in every layer.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use tempfile::TempDir;

use super::rule::KEYS;
use super::{Config, FlagValue, Limit, Loaded, Memory, Origin, Sources, load};

mod inbox;
mod keys;
mod mistakes;
mod random;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Etc,
    DropIn,
    User,
    Explicit,
    Environment,
    Flag,
}

const PLACES: [Place; 6] = [
    Place::Etc,
    Place::DropIn,
    Place::User,
    Place::Explicit,
    Place::Environment,
    Place::Flag,
];
const FILES: [Place; 4] = [Place::Etc, Place::DropIn, Place::User, Place::Explicit];

struct Machine {
    root: TempDir,
    sources: Sources,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/conf.d")).unwrap();
        let sources = Sources {
            etc: root.path().join("etc"),
            user: Some(root.path().join("user.toml")),
            explicit: None,
            environment: vec![("PATH".into(), "/bin".into())],
            flags: Vec::new(),
        };
        Self { root, sources }
    }

    fn path(&self, place: Place) -> PathBuf {
        self.root.path().join(match place {
            Place::Etc => "etc/filed.toml",
            Place::DropIn => "etc/conf.d/50-site.toml",
            Place::User => "user.toml",
            Place::Explicit => "explicit.toml",
            Place::Environment | Place::Flag => unreachable!("not a file"),
        })
    }

    fn write(&mut self, place: Place, content: impl AsRef<[u8]>) {
        let path = self.path(place);
        fs::write(&path, content).unwrap();
        if place == Place::Explicit {
            self.sources.explicit = Some(path);
        }
    }

    /// Sets `key` in `place` and gives the name errors must use for it.
    fn set(&mut self, place: Place, key: &'static str, value: &str) -> String {
        match place {
            Place::Environment => {
                let name = format!("FILED_{}", key.to_uppercase().replace('.', "__"));
                let variable = (name.clone().into(), value.into());
                self.sources.environment.push(variable);
                name
            }
            Place::Flag => {
                let value = value.to_owned();
                let flag = "--some-flag";
                self.sources.flags.push(FlagValue { key, value, flag });
                flag.to_owned()
            }
            file => {
                self.write(file, format!("{key} = '{value}'\n"));
                self.path(file).display().to_string()
            }
        }
    }

    fn load(&self) -> Loaded {
        load(&self.sources).unwrap()
    }

    fn error(&self) -> String {
        load(&self.sources).unwrap_err().to_string()
    }
}

#[test]
fn without_any_layer_all_is_built_in() {
    let mut machine = Machine::new();
    machine.sources.etc = PathBuf::from("/nonexistent/filed");
    let loaded = machine.load();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.files, Vec::<PathBuf>::new());
    assert_eq!(loaded.origin.len(), KEYS.len());
    assert!(
        loaded
            .origin
            .values()
            .all(|origin| *origin == Origin::BuiltIn)
    );
}

#[test]
fn each_layer_wins_over_all_below_and_is_named_as_the_origin() {
    let mut machine = Machine::new();
    for (index, place) in PLACES.into_iter().enumerate() {
        let mib = 100 + index as u64;
        let name = machine.set(place, "memory.threshold", &format!("{mib} MiB"));
        let loaded = machine.load();
        assert_eq!(loaded.config.memory.threshold, ByteSize::mib(mib));
        assert_eq!(loaded.origin["memory.threshold"].to_string(), name);
        assert_eq!(loaded.origin["memory.limit"], Origin::BuiltIn);
    }
    assert_eq!(machine.load().files, FILES.map(|place| machine.path(place)));
}

#[test]
fn layers_merge_key_by_key() {
    let mut machine = Machine::new();
    machine.write(Place::Etc, "[memory]\nlimit = '2 GiB'\ndwell = '3s'\n");
    machine.write(Place::User, "[memory]\ndwell = '4s'\n");
    let memory = machine.load().config.memory;
    assert_eq!(memory.limit, Limit::Size(ByteSize::gib(2)));
    assert_eq!(memory.dwell, Duration::from_secs(4));
    assert_eq!(memory.threshold, Memory::default().threshold);
}

#[test]
fn plain_number_is_bytes_for_a_size() {
    let mut machine = Machine::new();
    machine.write(Place::Etc, "store.pack_size = 2097152");
    assert_eq!(machine.load().config.store.pack_size, ByteSize::mib(2));
}

#[test]
fn drop_ins_are_read_in_the_order_of_their_names() {
    let machine = Machine::new();
    let directory = machine.sources.etc.join("conf.d");
    for (name, level) in [("9.toml", 9), ("10.toml", 1), ("80.toml", 8), ("a.txt", 2)] {
        fs::write(directory.join(name), format!("compression.level = {level}")).unwrap();
    }
    fs::write(directory.join(".9.toml"), "an editor's backup").unwrap();
    let loaded = machine.load();
    assert_eq!(loaded.config.compression.level, 9);
    let names: Vec<_> = loaded
        .files
        .iter()
        .map(|f| f.file_name().unwrap())
        .collect();
    assert_eq!(names, ["10.toml", "80.toml", "9.toml"]);
}

#[test]
fn variables_of_others_are_not_looked_at() {
    let mut machine = Machine::new();
    for name in ["FILED", "FILEDX_A", "MY_FILED_MEMORY__LIMIT", "filed_x"] {
        let variable = (name.into(), OsString::from_vec(vec![0xff]));
        machine.sources.environment.push(variable);
    }
    assert_eq!(machine.load().config, Config::default());
}

#[test]
fn empty_variable_sets_an_empty_value_and_does_not_unset() {
    let mut machine = Machine::new();
    machine.set(Place::Etc, "store.path", "/srv/store");
    machine.set(Place::Environment, "store.path", "");
    assert_eq!(machine.load().config.store.path, None);
    machine.set(Place::Environment, "memory.limit", "");
    assert!(machine.error().starts_with("FILED_MEMORY__LIMIT: "));
}

#[test]
fn of_a_flag_given_twice_the_last_counts() {
    let mut machine = Machine::new();
    machine.set(Place::Flag, "compression.level", "5");
    machine.set(Place::Flag, "compression.level", "7");
    assert_eq!(machine.load().config.compression.level, 7);
}
