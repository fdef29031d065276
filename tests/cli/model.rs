//! A store against a model: whatever is done to some files, every version of each comes back.

use proptest::prelude::*;

use super::world::{World, digest, noise};

/// What is done to a file between two runs.
#[derive(Clone, Debug)]
enum Edit {
    Replace { seed: u8, length: usize },
    Insert { at: usize, seed: u8, length: usize },
    Remove { at: usize, length: usize },
    Append { seed: u8, length: usize },
    Repeat,
    Clear,
    Nothing,
}

fn edit() -> impl Strategy<Value = Edit> {
    let (seed, length) = (any::<u8>(), 0usize..400_000);
    prop_oneof![
        3 => (seed, 0usize..2_500_000).prop_map(|(seed, length)| Edit::Replace { seed, length }),
        3 => (any::<usize>(), seed, length.clone())
            .prop_map(|(at, seed, length)| Edit::Insert { at, seed, length }),
        3 => (any::<usize>(), length.clone()).prop_map(|(at, length)| Edit::Remove { at, length }),
        2 => (seed, length).prop_map(|(seed, length)| Edit::Append { seed, length }),
        1 => Just(Edit::Repeat),
        1 => Just(Edit::Clear),
        1 => Just(Edit::Nothing),
    ]
}

/// Data of which some shrink, some do not, and some come again elsewhere.
fn data(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = noise(&(seed % 5).to_string(), length);
    if seed.is_multiple_of(3) {
        bytes.iter_mut().for_each(|byte| *byte &= 0x11);
    }
    bytes
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match *self {
            Edit::Replace { seed, length } => *content = data(seed, length),
            Edit::Insert { at, seed, length } => {
                let at = at % (content.len() + 1);
                content.splice(at..at, data(seed, length));
            }
            Edit::Remove { at, length } => {
                let at = at % (content.len() + 1);
                let end = (at + length).min(content.len());
                content.drain(at..end);
            }
            Edit::Append { seed, length } => content.extend(data(seed, length)),
            Edit::Repeat => content.extend_from_within(..),
            Edit::Clear => content.clear(),
            Edit::Nothing => {}
        }
        content.truncate(4_000_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn every_version_of_every_file_comes_back(
        method in prop_oneof![Just("content"), Just("fixed")],
        steps in prop::collection::vec((0usize..3, edit()), 1..8),
    ) {
        let world = World::new();
        let mut files: Vec<(String, Vec<Vec<u8>>)> =
            ["a", "b", "c"].map(|name| (name.to_owned(), Vec::new())).to_vec();
        for (file, edit) in steps {
            let (name, versions) = &mut files[file];
            let mut content = versions.last().cloned().unwrap_or_default();
            edit.apply(&mut content);
            world.write(&name, &content);
            let args = ["process", "--json", "--reread", "--chunking", method, name];
            let line = world.run(args).exits(0).file(&world.name(name));
            versions.push(content);
            prop_assert_eq!(&line["version"], versions.len());
            let expected = digest(versions.last().unwrap());
            prop_assert_eq!(line["digest"].as_str(), Some(expected.as_str()));
        }
        for (name, versions) in &files {
            for (number, content) in versions.iter().enumerate() {
                let number = (number + 1).to_string();
                let args = ["restore", name, "--version", &number, "--stdout"];
                let given = world.run(args).exits(0);
                prop_assert!(given.stdout == *content, "version {} of {} differs", number, name);
            }
        }
        world.run(["verify"]).exits(0);
    }
}
