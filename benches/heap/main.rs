//! `cargo bench --bench heap [-- TARGET...] [--no-python]`: the heap against its anchors.
//!
//! ```text
//! speed    1 making, dropping, cloning   2 churn of a small heap   3 cycles
//! pauses   4 one graph of ten million    5 the bound on garbage    6 large drops
//! memory   7 given back                  8 bytes of an object
//! seeing   9 weak map                   10 sites
//! use     11 requests                   12 records, collector on and off
//! ```
//!
//! Rust anchors run in this process in turns with ours; whatever is about memory, or builds
//! millions of objects, in a process of its own; CPython in one too, if `python3` is there.
//! Columns with two numbers are median and minimum. Nothing fails here: a target missed is in the
//! table.

mod child;
mod cycles;
mod drops;
mod measure;
mod pauses;
mod peers;
mod python;
mod records;
mod requests;
mod returned;
mod sites;
mod small;
mod table;
mod weak;

use std::error::Error;

use child::Numbers;
use table::Table;

type Fallible = Result<(), Box<dyn Error>>;

fn main() -> Fallible {
    // cargo passes --bench before what is ours.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    if let [flag, case] = &*arguments
        && flag == "--case"
    {
        return run_case(case);
    }
    let with_python = !arguments.iter().any(|argument| argument == "--no-python");
    let mut targets = Vec::new();
    for argument in arguments
        .iter()
        .filter(|argument| *argument != "--no-python")
    {
        targets.push(
            argument
                .parse::<u8>()
                .map_err(|_| format!("no target: {argument}"))?,
        );
    }
    if targets.is_empty() {
        targets.extend(1..=12);
    }
    let mut table = Table::default();
    let mut printed = 0;
    for target in targets {
        let python = if with_python {
            python::numbers(target)?
        } else {
            Numbers::default()
        };
        table.start(target);
        run_target(target, &mut table, &python)?;
        printed = table.print_from(printed);
    }
    let (aims, met) = table.verdict();
    println!("{met} of {aims} met");
    Ok(())
}

fn run_target(target: u8, table: &mut Table, python: &Numbers) -> Fallible {
    match target {
        1 => small::making(table, python),
        2 => small::churn(table),
        3 => cycles::target(table, python)?,
        4 => pauses::target(table, python)?,
        5 => pauses::bound(table)?,
        6 => drops::target(table)?,
        7 => returned::target(table, python)?,
        8 => returned::sizes(table, python)?,
        9 => weak::target(table, python),
        10 => sites::target(table, python),
        11 => requests::target(table, python),
        12 => records::target(table, python),
        _ => return Err(format!("there is no target {target}: 1 to 12").into()),
    }
    Ok(())
}

/// A case in its own process; the name says whose it is.
fn run_case(case: &str) -> Fallible {
    // As filed does.
    filed::heap::malloc::configure();
    let mut numbers = Numbers::default();
    match case.split_once('-').unwrap_or((case, "")) {
        ("cycles", which) => cycles::case(which, &mut numbers),
        ("graph", which) => pauses::graph(which, &mut numbers),
        ("bound", which) => pauses::bound_case(which, &mut numbers),
        ("drop", which) => drops::case(which, &mut numbers),
        ("returned", which) => returned::case(which, &mut numbers)?,
        ("size", which) => returned::size_case(which, &mut numbers),
        _ => return Err(format!("no case: {case}").into()),
    }
    numbers.print()
}
