//! Where the files to take in come from, one after the other.
//!
//! A [`Walk`] knows them all in advance and is over when it has found them. A service's feed goes on
//! for as long as it likes, has nothing for a while, and marks what it gives out with a [`Tag`], by
//! which it knows the report again and can still stop that one file.

use std::sync::Arc;

use super::limits::Stop;
use super::walk::{Found, Walk};

/// Gives out what is to be taken in. Asked by one worker at a time.
pub trait Feed: Send {
    /// What comes next. It may take as long as looking at a path does, and does not wait for more.
    fn ask(&mut self, wanted: Wanted) -> Fed;
}

/// What there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Anything.
    Any,
    /// Streams that are handed in: they take no place of a file.
    Handed,
}

/// What a feed has.
#[derive(Debug)]
pub enum Fed {
    /// This.
    Found(Box<Found>, Tag),
    /// Nothing now; more may come, so it is asked again soon.
    NotYet,
    /// Nothing more, ever.
    Over,
}

/// What the feed knows a file by.
#[derive(Clone, Debug, Default)]
pub struct Tag {
    /// Its number, which comes back in the report.
    pub number: u64,
    /// Stops this one file, if somebody may want that.
    pub stop: Option<Arc<Stop>>,
}

impl Tag {
    /// Whether somebody stopped this file.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.requested())
    }
}

impl Feed for Walk {
    fn ask(&mut self, wanted: Wanted) -> Fed {
        if wanted == Wanted::Handed {
            return Fed::NotYet;
        }
        match Iterator::next(self) {
            Some(found) => Fed::Found(Box::new(found), Tag::default()),
            None => Fed::Over,
        }
    }
}
