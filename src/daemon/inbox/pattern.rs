//! Which names an inbox takes: `*` stands for anything, `?` for one character, `[a-z]` for one of a set
//! and `[!a-z]` for one that is not of it.
//!
//! A name is a string of bytes: what of it is not UTF-8 counts as characters of one byte each. A bracket
//! that is not closed stands for itself.

/// Patterns, of which a name has to fit one; without any, all names do.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns(Vec<Vec<u32>>);

impl Patterns {
    pub(super) fn new(patterns: &[String]) -> Patterns {
        let characters = |pattern: &String| characters(pattern.as_bytes());
        Patterns(patterns.iter().map(characters).collect())
    }

    pub(super) fn fit(&self, name: &[u8]) -> bool {
        let name = characters(name);
        self.0.is_empty() || self.0.iter().any(|pattern| fits(pattern, &name))
    }
}

/// Characters as numbers; a byte that belongs to none is a number above all of them.
fn characters(bytes: &[u8]) -> Vec<u32> {
    const ABOVE_ALL: u32 = 0x11_0000;
    let mut characters = Vec::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        characters.extend(part.valid().chars().map(u32::from));
        let stray = part.invalid().iter();
        characters.extend(stray.map(|byte| ABOVE_ALL + u32::from(*byte)));
    }
    characters
}

const fn is(found: u32, wanted: char) -> bool {
    found == wanted as u32
}

/// Only the last `*` is ever tried again, so the time is at most the product of both lengths.
fn fits(mut pattern: &[u32], mut name: &[u32]) -> bool {
    let mut last_star: Option<(&[u32], &[u32])> = None;
    loop {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => return true,
            (Some((&first, rest)), _) if is(first, '*') => {
                last_star = Some((rest, name));
                pattern = rest;
                continue;
            }
            (Some((&first, rest)), Some((&character, rest_of_name))) => {
                if let Some(rest) = fits_one(first, rest, character) {
                    (pattern, name) = (rest, rest_of_name);
                    continue;
                }
            }
            (Some(_), None) => return false,
            (None, Some(_)) => {}
        }
        // The last star takes one character more.
        let Some((after, [_, taken @ ..])) = last_star else {
            return false;
        };
        last_star = Some((after, taken));
        (pattern, name) = (after, taken);
    }
}

/// What is left of the pattern if its first part fits the character.
fn fits_one(first: u32, rest: &[u32], character: u32) -> Option<&[u32]> {
    if is(first, '[')
        && let Some((is_in, rest)) = set(rest, character)
    {
        return is_in.then_some(rest);
    }
    (is(first, '?') || first == character).then_some(rest)
}

/// Whether the character is in the set that begins here, and what comes after it; `None` if it has no
/// end. A `]` that comes first belongs to the set.
fn set(pattern: &[u32], character: u32) -> Option<(bool, &[u32])> {
    let (is_negated, mut rest) = match pattern {
        [first, rest @ ..] if is(*first, '!') || is(*first, '^') => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    let mut is_first = true;
    loop {
        rest = match rest {
            [end, rest @ ..] if is(*end, ']') && !is_first => {
                return Some((found != is_negated, rest));
            }
            [low, dash, high, rest @ ..] if is(*dash, '-') && !is(*high, ']') => {
                found |= (*low..=*high).contains(&character);
                rest
            }
            [one, rest @ ..] => {
                found |= *one == character;
                rest
            }
            [] => return None,
        };
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(pattern: &str, name: &[u8]) -> bool {
        Patterns::new(&[pattern.to_owned()]).fit(name)
    }

    #[test]
    fn stars_question_marks_and_sets() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.tar", "a.tar", true),
            ("*.tar", "a.tar.gz", false),
            ("*a*b*", "xxaxxabx", true),
            ("*a*b*", "xxbxxa", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("?", "ä", true),
            ("[a-c]1", "b1", true),
            ("[a-c]1", "d1", false),
            ("[!a-c]1", "d1", true),
            ("[^a-c]1", "a1", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[ä-ö]", "ä", true),
            ("[a", "[a", true),
            ("[a", "a", false),
            ("", "", true),
            ("", "a", false),
            ("A*", "a", false),
        ] {
            assert_eq!(fit(pattern, name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn no_name_is_too_strange_and_no_pattern_too_slow() {
        assert!(fit("a?b*", b"a\xffb\xfe\xc3"));
        assert!(!fit("[!x]", b"\xff\xff"));
        assert!(Patterns::new(&[]).fit(b"\xff"));
        assert!(!fit(&"*a".repeat(60), &[b'a'; 59]));
        assert!(!fit(&format!("{}b", "*a".repeat(60)), &[b'a'; 255]));
    }
}
