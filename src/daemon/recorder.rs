//! Samples of a run, written to be replayed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::pressure::mode::Rules;
use crate::pressure::recording::{self, Entry};
use crate::pressure::sample::Sample;

/// The file that samples are written to. One that cannot be written any more is told of once, and the
/// run goes on without it.
pub struct Recorder {
    path: PathBuf,
    to: Option<BufWriter<File>>,
    rules: Option<Rules>,
}

impl Recorder {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn create(path: &Path) -> io::Result<Recorder> {
        Ok(Recorder {
            path: path.to_owned(),
            to: Some(BufWriter::new(File::create(path)?)),
            rules: None,
        })
    }

    /// Writes one sample, and before it the rules, if they are new.
    pub fn sample(&mut self, rules: &Rules, sample: &Sample) {
        if self.rules.as_ref() != Some(rules) {
            self.rules = Some(*rules);
            self.write(&Entry::Rules(*rules));
        }
        self.write(&Entry::Sample(*sample));
    }

    /// Writes out what is not written yet; whether all could be written.
    pub fn finish(&mut self) -> bool {
        let outcome = self.to.as_mut().map_or(Ok(()), BufWriter::flush);
        self.check(outcome);
        self.to.is_some()
    }

    fn write(&mut self, entry: &Entry) {
        let outcome = (self.to.as_mut()).map_or(Ok(()), |to| recording::write(to, entry));
        self.check(outcome);
    }

    fn check(&mut self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            let path = self.path.display();
            tracing::warn!(%path, %error, "samples are not recorded any more");
            self.to = None;
        }
    }
}
