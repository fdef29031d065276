//! The known name nearest to an unknown one, for "did you mean".
//!
//! Distance is optimal string alignment: insert, delete, replace a character, or swap two
//! neighbours. A name is offered only if it is close enough to be a slip of the hand: a wrong
//! hint is worse than none.

/// The longest name looked at; every known one is far shorter, and the work grows with the square.
const LONGEST_NAME: usize = 64;

/// The candidate nearest to `unknown`, if one is near.
///
/// A candidate whose last component is exactly `unknown`'s is near whatever comes before: the
/// section was forgotten or mistaken. Of several such the one with the nearest section is taken.
pub(super) fn nearest(
    unknown: &str,
    candidates: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    if unknown.len() > LONGEST_NAME {
        return None;
    }
    let slip = (unknown.len() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (distance(unknown, candidate), candidate))
        .filter(|(steps, candidate)| *steps <= slip || leaf(unknown) == leaf(candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

fn leaf(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Steps from `a` to `b`. Three rows of the table are enough, as a swap looks two rows back.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut row = vec![0; b.len() + 1];
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        std::mem::swap(&mut before_last, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = [
        "memory.threshold",
        "memory.limit",
        "compression.level",
        "log.level",
    ];

    #[test]
    fn distance_counts_single_steps() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("limit", "limit"), 0);
        assert_eq!(distance("limt", "limit"), 1);
        assert_eq!(distance("limmit", "limit"), 1);
        assert_eq!(distance("lemit", "limit"), 1);
        assert_eq!(distance("ilmit", "limit"), 1);
        assert_eq!(distance("größe", "grösse"), 2);
    }

    #[test]
    fn slip_finds_the_key() {
        assert_eq!(nearest("memory.treshold", NAMES), Some("memory.threshold"));
        assert_eq!(nearest("memroy.limit", NAMES), Some("memory.limit"));
    }

    #[test]
    fn forgotten_section_finds_the_key() {
        assert_eq!(nearest("threshold", NAMES), Some("memory.threshold"));
        assert_eq!(nearest("heap.threshold", NAMES), Some("memory.threshold"));
    }

    #[test]
    fn of_two_keys_with_the_same_end_the_nearer_section_wins() {
        assert_eq!(nearest("logs.level", NAMES), Some("log.level"));
        assert_eq!(nearest("compress.level", NAMES), Some("compression.level"));
    }

    #[test]
    fn far_and_endless_names_find_nothing() {
        assert_eq!(nearest("colour.scheme", NAMES), None);
        assert_eq!(nearest("", NAMES), None);
        assert_eq!(nearest(&"log.level".repeat(1000), NAMES), None);
    }
}
