//! filed as its users meet it: the built program, run in a world of its own, judged by its exit code,
//! by what it prints, and by the files it leaves.

#[cfg(test)]
mod changing;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod inputs;
#[cfg(test)]
mod json;
#[cfg(test)]
mod model;
#[cfg(test)]
mod names;
#[cfg(test)]
mod pressure;
#[cfg(test)]
mod report;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod sparse;
#[cfg(test)]
mod stdin;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod talk;
#[cfg(test)]
mod tree;
#[cfg(test)]
mod usage;
#[cfg(test)]
mod world;
