//! Makes data to try filed on and to measure it with: `cargo run --release --example generate`.
//!
//! The same kind, size and seed give the same bytes on every machine, so a number in a report can
//! be taken again elsewhere. Data is made in small blocks: a file of any size needs the same few
//! hundred KiB of memory. What is made is in `generator`; here are the arguments and the files.

mod generator;

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use generator::edit::{Edited, Edits};
use generator::{Failure, Kind, sparse, tree, write_stream};

const EXAMPLES: &str = "\
Sizes: 50MB, 1GiB or plain bytes; K, M, G, T alone are powers of 1024, KB, MB, GB, TB of 1000.
Exit codes: 0 done, 1 failed, 2 usage.

Examples:
  generate text 50MB bench-data/generated/text-50MB
  generate mixed 1GiB - --edit 100 | b3sum
  generate tree bench-data/generated/tree 10000";

/// Makes data to measure filed with: the same arguments give the same bytes everywhere
#[derive(Parser)]
#[command(name = "generate", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Log lines of a service
    Text(StreamArguments),
    /// Rows of CSV and of JSON Lines
    Records(StreamArguments),
    /// Tables of little-endian integers, with their strings
    Binary(StreamArguments),
    /// Bytes that do not shrink
    Random(StreamArguments),
    /// Nothing but zeros, written and not left as a hole
    Zeros(StreamArguments),
    /// Stretches of all of these, some of which come again later
    Mixed(StreamArguments),
    /// Extents of mixed data between holes, about a fifth of it data
    Sparse(SparseArguments),
    /// Many files of up to 64 KiB in nested folders, some with equal content
    Tree(TreeArguments),
}

#[derive(Args)]
struct StreamArguments {
    /// Bytes to make, exactly; a larger size begins with the bytes of a smaller one
    #[arg(value_parser = parse_size)]
    size: u64,
    /// File to write, replacing what is there; its folders are made; - is stdout
    file: PathBuf,
    /// Other numbers give other data
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Apply K small inserts, deletes and overwrites to the same data; the size stays, and what
    /// is pushed over the end is lost
    #[arg(long, value_name = "K", default_value_t = 0)]
    edit: u64,
}

#[derive(Args)]
struct SparseArguments {
    /// Length of the file in bytes, exactly
    #[arg(value_parser = parse_size)]
    size: u64,
    /// File to write, replacing what is there; its folders are made
    file: PathBuf,
    /// Other numbers give other data
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct TreeArguments {
    /// Folder to fill: made if it is not there, empty if it is
    folder: PathBuf,
    /// How many files to make
    count: u64,
    /// Other numbers give other files
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Text(arguments) => stream(Kind::Text, &arguments),
        What::Records(arguments) => stream(Kind::Records, &arguments),
        What::Binary(arguments) => stream(Kind::Binary, &arguments),
        What::Random(arguments) => stream(Kind::Random, &arguments),
        What::Zeros(arguments) => stream(Kind::Zeros, &arguments),
        What::Mixed(arguments) => stream(Kind::Mixed, &arguments),
        What::Sparse(arguments) => sparse_file(&arguments),
        What::Tree(arguments) => tree::write(&arguments.folder, arguments.count, arguments.seed),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let cause = failure.source().map(|source| format!(": {source}"));
            eprintln!("error: {failure}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn stream(kind: Kind, arguments: &StreamArguments) -> Result<(), Failure> {
    let StreamArguments {
        size,
        file: path,
        seed,
        edit,
    } = arguments;
    let edits = Edits::new(*size, *edit, *seed).unwrap_or_else(|error| usage(&error.to_string()));
    let mut file = open(path)?;
    let mut edited = Edited::new(kind.stream(*seed), edits);
    match write_stream(&mut edited, *size, &mut file) {
        // Whoever reads from us has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failure::to("write", path)),
    }
}

fn sparse_file(arguments: &SparseArguments) -> Result<(), Failure> {
    let path = &arguments.file;
    if is_stdout(path) {
        usage("sparse needs a file: a stream has no holes");
    }
    let mut file = open(path)?;
    sparse::write(&mut file, arguments.size, arguments.seed).map_err(Failure::to("write", path))
}

/// Stdout is taken as a file, past the line buffer that only delays blocks.
fn open(path: &Path) -> Result<File, Failure> {
    if is_stdout(path) {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        return stdout.map(File::from).map_err(Failure::to("open", path));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Failure::to("create folder", folder))?;
    }
    File::create(path).map_err(Failure::to("create", path))
}

fn is_stdout(path: &Path) -> bool {
    path == "-"
}

/// Ends the program as clap does for arguments it does not understand: exit code 2.
fn usage(message: &str) -> ! {
    Arguments::command()
        .error(ErrorKind::ValueValidation, message)
        .exit()
}

/// Bytes in `text`, as filed itself reads sizes: a whole number and a unit.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_bytes = match unit.trim_start().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "K" | "KIB" => 1 << 10,
        "M" | "MIB" => 1 << 20,
        "G" | "GIB" => 1 << 30,
        "T" | "TIB" => 1 << 40,
        _ => return Err("expected a number and a unit, like 50MB, 1GiB or 4096".to_owned()),
    };
    if number.is_empty() {
        return Err("expected a number before the unit, like 50MB".to_owned());
    }
    let number = number.parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(unit_bytes));
    bytes.ok_or_else(|| "more bytes than a file can have".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        let sizes = [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("50MB", 50_000_000),
            ("50 mb", 50_000_000),
            ("2M", 2 << 20),
            ("1GiB", 1 << 30),
            ("3T", 3 << 40),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_without_number_with_unknown_unit_or_too_large_are_refused() {
        for text in [
            "",
            "MB",
            "-1",
            "1.5G",
            "1 parsec",
            "99999999999999999999",
            "99999999T",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn arguments_are_declared_without_contradiction() {
        Arguments::command().debug_assert();
    }
}
