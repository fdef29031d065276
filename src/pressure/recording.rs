//! Recordings: what was seen and by what rules it was judged, one JSON object a line.
//!
//! A line is either `{"rules": ...}`, which applies from there on and comes
//! first, or `{"sample": ...}`. The decisions are not in it: a replay makes them
//! anew, which is what a recording is for.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::pressure::mode::{Controller, Decision, Rules};
use crate::pressure::sample::Sample;

/// The longest line that is read, in bytes; one that is written has less than 600.
const LINE_MAX_BYTES: u64 = 64 << 10;

/// A line of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// Samples are judged by these from here on.
    Rules(Rules),
    /// What was seen.
    Sample(Sample),
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is not one of a recording.
    #[error("line {line} is not of a recording: {why}")]
    Malformed {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A sample comes before any rules.
    #[error("line {line} is a sample, and no rules come before it")]
    NoRules {
        /// Its number, from 1.
        line: u64,
    },
}

/// Writes one line.
///
/// # Errors
///
/// If `to` cannot be written.
pub fn write(to: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// The decisions on a recording's samples, one after the other. Ends with the
/// first error.
pub struct Replay<R> {
    from: R,
    line: u64,
    controller: Option<Controller>,
}

impl<R: BufRead> Replay<R> {
    /// Begins at the first line.
    pub fn new(from: R) -> Self {
        Self {
            from,
            line: 0,
            controller: None,
        }
    }

    /// The rules that apply at present.
    pub fn rules(&self) -> Option<&Rules> {
        self.controller.as_ref().map(Controller::rules)
    }

    fn entry(&mut self) -> Result<Option<Entry>, ReplayError> {
        let mut line = Vec::new();
        let mut bounded = io::Read::take(&mut self.from, LINE_MAX_BYTES);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let malformed = |why: String| ReplayError::Malformed {
            line: self.line,
            why,
        };
        if line.last() != Some(&b'\n') && line.len() as u64 == LINE_MAX_BYTES {
            return Err(malformed("it is too long".to_owned()));
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| malformed(error.to_string()))
    }

    fn decide(&mut self) -> Result<Option<(Sample, Decision)>, ReplayError> {
        while let Some(entry) = self.entry()? {
            match (entry, &mut self.controller) {
                (Entry::Rules(rules), None) => self.controller = Some(Controller::new(rules)),
                (Entry::Rules(rules), Some(controller)) => {
                    controller.set_limits(rules.thresholds, rules.need_bytes);
                }
                (Entry::Sample(sample), Some(controller)) => {
                    return Ok(Some((sample, controller.observe(&sample))));
                }
                (Entry::Sample(_), None) => return Err(ReplayError::NoRules { line: self.line }),
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for Replay<R> {
    type Item = Result<(Sample, Decision), ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.decide().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::dwell::Dwell;
    use crate::pressure::level::Thresholds;
    use crate::pressure::mode::Mode;
    use crate::pressure::sample::Measure;
    use proptest::prelude::*;
    use std::time::Duration;

    fn rules(limit: u64) -> Rules {
        let part = |percent| limit * percent / 100;
        Rules {
            thresholds: Thresholds::new(part(56), part(70), part(85), limit).expect("in order"),
            measure: Measure::Rss,
            dwell: Dwell::default(),
            need_bytes: 5,
        }
    }

    fn sample(millis: u64, bytes: u64) -> Sample {
        Sample::of_counters(Duration::from_millis(millis), bytes)
    }

    #[test]
    fn a_replay_decides_as_the_run_did() {
        let mut controller = Controller::new(rules(1000));
        let mut recording = Vec::new();
        write(&mut recording, &Entry::Rules(rules(1000))).expect("in memory");
        let mut decided = Vec::new();
        for step in 0..200 {
            if step == 100 {
                controller.set_limits(rules(500).thresholds, 5);
                write(&mut recording, &Entry::Rules(rules(500))).expect("in memory");
            }
            let sample = sample(step * 100, step * 7 % 900);
            write(&mut recording, &Entry::Sample(sample)).expect("in memory");
            decided.push((sample, controller.observe(&sample)));
        }
        let replayed: Vec<_> = Replay::new(&recording[..])
            .collect::<Result<_, _>>()
            .expect("own lines");
        assert_eq!(replayed, decided);
        assert!(
            replayed
                .iter()
                .any(|(_, decision)| decision.mode == Mode::Critical)
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let error = |text: &str| {
            let failed = Replay::new(text.as_bytes()).find_map(Result::err);
            failed.expect("wrong").to_string()
        };
        let first = r#"{"sample":{"us":1,"resident_bytes":1,"anonymous_bytes":1}}"#;
        assert_eq!(
            error(first),
            "line 1 is a sample, and no rules come before it"
        );
        assert!(error("{}\n").starts_with("line 1 is not of a recording: "));
        let rules = serde_json::to_string(&Entry::Rules(rules(1000))).expect("numbers");
        let upside_down = rules.replace("700", "7000");
        assert!(
            error(&upside_down).contains("threshold (7000 bytes) must be below"),
            "{upside_down}"
        );
        let long = format!("{rules}\n{}", "x".repeat(100_000));
        assert_eq!(error(&long), "line 2 is not of a recording: it is too long");
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Replay::new(&bytes[..]).take_while(Result::is_ok).for_each(drop);
        }
    }
}
