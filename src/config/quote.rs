//! Somebody else's text in our messages.
//!
//! What a message repeats is kept short and cannot move the cursor of the terminal it ends on.

/// The most characters of a value or name that a message repeats.
const LONGEST_QUOTE: usize = 60;

/// The most characters of a parser's message that are passed on.
const LONGEST_REASON: usize = 200;

/// `text` in quotes: shortened, with control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", readable(text))
}

/// As [`quoted`], without the quotes.
pub(super) fn readable(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(LONGEST_QUOTE).collect();
    let rest = if chars.next().is_some() { "…" } else { "" };
    format!("{}{rest}", head.escape_debug())
}

/// A parser's message: shortened, without control characters.
pub(super) fn printable(reason: &str) -> String {
    let clean = reason.chars().filter(|c| !c.is_control());
    clean.take(LONGEST_REASON).collect()
}
