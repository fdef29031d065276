//! Very many traces, with everything a sample can say: what must hold on any of them.

use super::*;

/// As many as a test takes in a second or so; `FILED_TRACES` asks for another number.
const TRACES: u64 = 20_000;

/// What work needs at once in these traces, in bytes.
const NEED_BYTES: u64 = 50_000;

/// splitmix64 (Steele, Lea and Flood, 2014): small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// Anywhere, and often close to a mark, where modes change.
    fn bytes(&mut self) -> u64 {
        let marks = [700_000, 800_000, 860_000, 920_000, LIMIT_BYTES];
        match self.below(4) {
            0 => marks[self.below(5) as usize] + self.below(5) - 2,
            1 => 0,
            _ => self.below(1_200_000),
        }
    }

    fn sample(&mut self, at: Duration) -> Sample {
        Sample {
            at,
            in_flight_bytes: if self.one_in(8) { self.bytes() } else { 0 },
            headroom_bytes: (!self.one_in(3)).then(|| self.below(8 * NEED_BYTES)),
            notified: self.one_in(16),
            oom_killed: self.one_in(64),
            slow_reads: self.one_in(16),
            ..sample(at, self.bytes())
        }
    }
}

/// Where a rule did not hold; written only then.
struct Case<'a>(u64, &'a Sample);

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {:?}", self.0, self.1)
    }
}

#[test]
fn the_rules_hold_on_very_many_random_traces() {
    let traces = std::env::var("FILED_TRACES").map_or(TRACES, |traces| {
        traces.parse().expect("FILED_TRACES is a number")
    });
    for seed in 0..traces {
        keeps_the_rules(seed);
    }
}

fn keeps_the_rules(seed: u64) {
    let mut random = Random(seed);
    let mut c = with_need(NEED_BYTES);
    let mut at = Duration::ZERO;
    let (mut changes, mut trimmed_at): (Vec<Duration>, Option<Duration>) = (Vec::new(), None);
    for _ in 0..8 + random.below(24) {
        let held = random.sample(at);
        for _ in 0..1 + random.below(12) {
            at += ms([4, 50, 250, 1000, random.below(3000)][random.below(5) as usize]);
            let sample = Sample { at, ..held };
            let (before, share) = (c.mode(), c.share());
            let decision = c.observe(&sample);
            let case = Case(seed, &sample);

            if decision.level == Level::Critical {
                assert_eq!(c.mode(), Mode::Critical, "not within one sample: {case}");
            }
            assert_ne!((before, c.mode()), (Mode::Critical, Mode::Normal), "{case}");
            assert!(
                c.share().percent() <= share.percent() + 25 || c.mode() == Mode::Normal,
                "the share jumped up: {case}"
            );
            if c.mode() == Mode::Normal {
                assert_eq!(c.share(), WorkerShare::ALL, "{case}");
                assert!(
                    decision.change.is_some()
                        || decision
                            .actions
                            .iter()
                            .all(|action| matches!(action, Action::ReadFiles(_))),
                    "{case}"
                );
            }
            assert!(decision.next_sample_in <= secs(1), "{case}");
            if decision.change.is_some() {
                changes.retain(|change| at - *change <= secs(60));
                changes.push(at);
                assert!(changes.len() <= 4, "{changes:?}, {case}");
            }
            if decision.actions.contains(&Action::TrimMalloc) {
                assert!(
                    trimmed_at.is_none_or(|trimmed| at - trimmed >= secs(30)),
                    "{case}"
                );
                trimmed_at = Some(at);
            }
        }
    }
    let calm = at;
    while at < calm + secs(130) {
        at += ms(250);
        let decision = c.observe(&room(at, 8 * NEED_BYTES));
        let frees = decision.actions.iter().any(|action| action.is_optional());
        assert!(!frees, "seed {seed}: {:?} once calm", decision.actions);
    }
    assert_eq!(c.mode(), Mode::Normal, "seed {seed}");
}
