//! Cases that need a process of their own: what one leaves in memory must not
//! be seen in another. The process is this program again, which is told the case
//! and answers with one line of numbers by name.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::{Command, Stdio};

/// Numbers of a case, by name.
#[derive(Debug, Default)]
pub(crate) struct Numbers(BTreeMap<String, f64>);

impl Numbers {
    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.into(), value);
    }

    pub(crate) fn find(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The number with this name; NaN, which is no aim met, if it is missing.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.find(name).unwrap_or(f64::NAN)
    }

    pub(crate) fn print(&self) -> Result<(), Box<dyn Error>> {
        println!("{}", serde_json::to_string(&self.0)?);
        Ok(())
    }

    /// Takes in all numbers of what a program printed: objects of JSON, one a line.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), Box<dyn Error>> {
        for line in text.lines().filter(|line| line.starts_with('{')) {
            self.0
                .extend(serde_json::from_str::<BTreeMap<String, f64>>(line)?);
        }
        Ok(())
    }
}

/// The numbers of a case, from a new process.
pub(crate) fn run(case: &str) -> Result<Numbers, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--case", case]);
    output(&mut command)
}

/// The numbers that a program prints.
pub(crate) fn output(command: &mut Command) -> Result<Numbers, Box<dyn Error>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status).into());
    }
    let mut numbers = Numbers::default();
    numbers.read(&String::from_utf8(output.stdout)?)?;
    Ok(numbers)
}
