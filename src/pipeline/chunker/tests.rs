use proptest::prelude::*;

use super::gear::{GEAR, roll};
use super::{CONTEXT_BYTES, Candidate, ContentParams, CutEnd, Cutter, ExtentEnd, Method, scan};

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;

pub(super) fn average(bytes: usize) -> ContentParams {
    ContentParams::from_average(bytes).expect("an average on offer")
}

pub(super) fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    let mut stream = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof();
    stream.fill(&mut data);
    data
}

/// Four byte values only, and every second kilobyte a repetition of its first 40 bytes.
fn low_entropy(seed: u64, len: usize) -> Vec<u8> {
    let mut data = random(seed, len);
    data.iter_mut()
        .for_each(|byte| *byte = b"\0\n a"[usize::from(*byte & 3)]);
    for block in data.chunks_mut(KIB).step_by(2) {
        for i in 40..block.len() {
            block[i] = block[i - 40];
        }
    }
    data
}

/// Random but for the bytes that would make a position match, so that every cut is forced.
fn matchless(seed: u64, len: usize) -> Vec<u8> {
    let mut data = random(seed, len);
    remove_matches(&mut data);
    data
}

/// Forced cuts and others take turns: stretches of 350 KB without a match between random ones.
fn partly_matchless(seed: u64, len: usize) -> Vec<u8> {
    let mut data = random(seed, len);
    for stretch in data.chunks_mut(400_000) {
        let len = stretch.len().min(350_000);
        remove_matches(&mut stretch[..len]);
    }
    data
}

fn remove_matches(data: &mut [u8]) {
    let mut hash = 0;
    for byte in data {
        while roll(hash, *byte) < average(16 * KIB).loose_ceiling() {
            *byte = byte.wrapping_add(1);
        }
        hash = roll(hash, *byte);
    }
}

/// So many bytes among which nothing matches when they are repeated.
fn period_without_match(len: usize) -> Vec<u8> {
    let matches = |period: &[u8]| {
        let mut found = Vec::new();
        let repeated: Vec<u8> = period.iter().copied().cycle().take(len + 64).collect();
        scan(&[], &repeated, average(16 * KIB), &mut found);
        !found.is_empty()
    };
    (0..)
        .map(|seed| random(seed, len))
        .find(|period| !matches(period))
        .expect("one of the first few")
}

/// Two bytes that match each time they are repeated.
pub(super) fn matching_pair(params: ContentParams) -> [u8; 2] {
    let steady = |pair: [u8; 2]| pair.repeat(32).into_iter().fold(0, roll);
    (0..=u16::MAX)
        .map(u16::to_le_bytes)
        .find(|&pair| steady(pair) < params.loose_ceiling())
        .expect("one pair in 4096 matches")
}

/// What the method knows of a position.
struct Position {
    hash: u64,
    loose: bool,
    strict: bool,
}

/// Rules 2 to 4, one byte at a time.
fn reference_positions(data: &[u8], params: ContentParams) -> Vec<Position> {
    let loose_bits = params.average_bytes().ilog2() - 2;
    let strict_bits = params.average_bytes().ilog2() + 2;
    let (mut hash, mut last_match) = (0_u64, None);
    let position = |(i, &byte): (usize, &u8)| {
        hash = hash.wrapping_mul(2).wrapping_add(GEAR[byte as usize]);
        let matches = hash.leading_zeros() >= loose_bits;
        let loose = matches && last_match.is_none_or(|last| i - last > 63);
        if matches {
            last_match = Some(i);
        }
        Position {
            hash,
            loose,
            strict: loose && hash.leading_zeros() >= strict_bits,
        }
    };
    data.iter().enumerate().map(position).collect()
}

/// The method written down as plainly as possible: one extent, one piece after the other.
fn reference_cuts(data: &[u8], params: ContentParams) -> Vec<usize> {
    let (min, mean, max) = (
        params.min_bytes(),
        params.average_bytes(),
        params.max_bytes(),
    );
    let positions = reference_positions(data, params);
    let (mut start, mut cuts) = (0, Vec::new());
    while start < data.len() {
        let after = |len: usize| &positions[start + len - 1];
        let longest = max.min(data.len() - start);
        let wanted = (1..=longest).find(|&len| {
            let position = after(len);
            (position.strict && len >= min) || (position.loose && len >= mean)
        });
        let forced = || {
            // Of equals `min_by_key` takes the first, and the last position comes first.
            let range = (max - 4095..=max).rev();
            (longest == max).then(|| range.min_by_key(|&len| after(len).hash))?
        };
        start += wanted.or_else(forced).unwrap_or(longest);
        cuts.push(start);
    }
    cuts
}

/// Cuts of one extent that arrives in chunks of these lengths, over and over.
fn chunked_cuts(data: &[u8], params: ContentParams, chunk_lens: &[usize]) -> Vec<usize> {
    let mut cutter = Cutter::new(Method::Content(params));
    let (mut found, mut cuts, mut all) = (Vec::new(), Vec::new(), Vec::<usize>::new());
    let (mut start, mut lens) = (0, chunk_lens.iter().cycle());
    while start < data.len() {
        let end = data
            .len()
            .min(start + lens.next().expect("at least one length"));
        let context = &data[start.saturating_sub(CONTEXT_BYTES)..start];
        scan(context, &data[start..end], params, &mut found);
        let extent = if end == data.len() {
            ExtentEnd::Ends
        } else {
            ExtentEnd::More
        };
        let base = start - cutter.pending_bytes();
        assert_eq!(base, all.last().copied().unwrap_or(0));
        cutter.cut(&data[base..end], &found, extent, &mut cuts);
        assert!(cutter.pending_bytes() < params.max_bytes());
        all.extend(cuts.iter().map(|cut| base + cut.0));
        start = end;
    }
    assert_eq!(cutter.pending_bytes(), 0);
    all
}

fn pieces<'data>(data: &'data [u8], cuts: &[usize]) -> Vec<&'data [u8]> {
    let starts = [0].into_iter().chain(cuts.iter().copied());
    cuts.iter()
        .zip(starts)
        .map(|(&end, start)| &data[start..end])
        .collect()
}

fn any_data() -> impl Strategy<Value = Vec<u8>> {
    let len = 0_usize..600_000;
    prop_oneof![
        4 => (any::<u64>(), len.clone()).prop_map(|(seed, len)| random(seed, len)),
        3 => (any::<u64>(), len.clone()).prop_map(|(seed, len)| low_entropy(seed, len)),
        2 => (any::<u64>(), len.clone()).prop_map(|(seed, len)| matchless(seed, len)),
        2 => (any::<u64>(), len.clone()).prop_map(|(seed, len)| partly_matchless(seed, len)),
        1 => len.clone().prop_map(|len| vec![0; len]),
        3 => (any::<u64>(), prop_oneof![1_usize..300, 300_usize..6_000], len.clone()).prop_map(|(seed, period, len)| {
            random(seed, period).into_iter().cycle().take(len).collect()
        }),
        2 => (any::<u64>(), len, 0_usize..5_000).prop_map(|(seed, len, run)| {
            let pair = matching_pair(average(16 * KIB));
            let mut data = random(seed, len);
            for block in data.chunks_mut(8_000) {
                block.iter_mut().zip(pair.into_iter().cycle()).take(run).for_each(|(to, from)| *to = from);
            }
            data
        }),
    ]
}

fn any_chunk_lens() -> impl Strategy<Value = Vec<usize>> {
    let len = prop_oneof![1_usize..200, 300_usize..5_000, 30_000_usize..400_000];
    prop_oneof![
        prop::collection::vec(len, 1..6),
        prop::collection::vec(65_usize..1_500, 1..9)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn cuts_do_not_depend_on_the_split_into_chunks(
        data in any_data(),
        chunk_lens in any_chunk_lens(),
        params in prop_oneof![Just(average(16 * KIB)), Just(average(64 * KIB))],
    ) {
        let expected = reference_cuts(&data, params);
        prop_assert_eq!(&chunked_cuts(&data, params, &chunk_lens), &expected);
        prop_assert_eq!(&chunked_cuts(&data, params, &[MIB]), &expected);

        let mut candidates = Vec::new();
        scan(&[], &data, params, &mut candidates);
        let pieces = pieces(&data, &expected);
        if let Some((last, others)) = pieces.split_last() {
            prop_assert!((1..=params.max_bytes()).contains(&last.len()));
            for (piece, &end) in others.iter().zip(&expected) {
                let forced = candidates.iter().all(|candidate| candidate.end as usize != end);
                let least = if forced { params.max_bytes() - 4095 } else { params.min_bytes() };
                prop_assert!((least..=params.max_bytes()).contains(&piece.len()));
            }
        }
    }
}

#[test]
fn chunks_of_one_mebibyte_cut_as_one_stream() {
    let params = average(64 * KIB);
    for data in [
        random(1, 5 * MIB + 17),
        low_entropy(2, 3 * MIB),
        matchless(10, 3 * MIB + 5),
        partly_matchless(16, 3 * MIB),
        vec![0; 3 * MIB + 1],
    ] {
        assert_eq!(
            chunked_cuts(&data, params, &[MIB]),
            reference_cuts(&data, params)
        );
    }
}

#[test]
fn mean_piece_is_near_the_average() {
    for average_bytes in [16 * KIB, 64 * KIB, 256 * KIB] {
        let data = random(4, average_bytes * 400);
        let cuts = chunked_cuts(&data, average(average_bytes), &[MIB]);
        let ratio = data.len() as f64 / cuts.len() as f64 / average_bytes as f64;
        assert!((0.8..1.4).contains(&ratio), "{ratio:.3} of {average_bytes}");
    }
}

#[test]
fn byte_inserted_in_front_changes_the_first_pieces_only() {
    let params = average(64 * KIB);
    let data = random(5, 8 * MIB);
    let before = chunked_cuts(&data, params, &[MIB]);
    let after = chunked_cuts(&[&[42], data.as_slice()].concat(), params, &[MIB]);
    let known: Vec<_> = after
        .iter()
        .filter(|&&cut| before.contains(&(cut - 1)))
        .collect();
    assert!(
        before.len() - known.len() <= 5,
        "{} of {} cuts found again",
        known.len(),
        before.len()
    );
}

#[test]
fn forced_cuts_do_not_depend_on_the_split_into_chunks() {
    let params = average(16 * KIB);
    let max = params.max_bytes();
    let data = matchless(11, 5 * max);
    let expected = reference_cuts(&data, params);
    let first = expected[0];
    assert!((max - 4095..max).contains(&first), "forced at {first}");
    for edge in [max - 4096, max - 4095, first - 64, first - 63, first - 1] {
        assert_eq!(chunked_cuts(&data, params, &[edge]), expected, "{edge}");
    }
    for edge in [first, first + 1, max - 1, max, max + 1] {
        assert_eq!(chunked_cuts(&data, params, &[edge]), expected, "{edge}");
    }
    assert_eq!(chunked_cuts(&data, params, &[first + 1, 1]), expected);
}

#[test]
fn forced_cut_can_lie_before_the_data_that_force_it() {
    let params = average(16 * KIB);
    let max = params.max_bytes();
    let data = matchless(11, max);
    let mut cutter = Cutter::new(Method::Content(params));
    let mut cuts = Vec::new();
    cutter.cut(&data[..max - 1], &[], ExtentEnd::More, &mut cuts);
    assert_eq!(
        (cuts.as_slice(), cutter.pending_bytes()),
        (&[][..], max - 1)
    );
    cutter.cut(&data, &[], ExtentEnd::More, &mut cuts);
    let end = reference_cuts(&data, params)[0];
    assert!(end < max - 1);
    assert_eq!(cuts, [CutEnd(end)]);
    assert_eq!(cutter.pending_bytes(), max - end);
}

#[test]
fn data_with_a_period_become_the_same_piece_over_and_over() {
    let line = b"appended log line\n".to_vec();
    let periods = [1, 2, 7, 18, 64, 1000, 4095, 4096].map(period_without_match);
    for (params, period) in [average(16 * KIB), average(64 * KIB)]
        .into_iter()
        .flat_map(|params| periods.iter().chain([&line]).map(move |p| (params, p)))
    {
        let repeated: Vec<u8> = period.iter().copied().cycle().take(2 * MIB).collect();
        let mut kept = Vec::new();
        for prefix in [0, 1, 777, 30_000] {
            let data = [random(13, prefix), repeated.clone()].concat();
            let cuts = chunked_cuts(&data, params, &[MIB]);
            let pieces = pieces(&data, &cuts);
            let alike = &pieces[2..pieces.len() - 1];
            let what = format!("period {}, prefix {prefix}, {params:?}", period.len());
            assert!(alike.len() >= 5, "{what}: {} pieces", pieces.len());
            assert!(alike.iter().all(|piece| *piece == alike[0]), "{what}");
            assert_eq!(alike[0].len() % period.len(), 0, "{what}");
            kept.push(alike[0].to_vec());
        }
        // Whatever is in front of them: they are known from another file as well.
        kept.dedup();
        assert_eq!(kept.len(), 1, "period {}, {params:?}", period.len());
    }
}

#[test]
fn zeros_become_pieces_of_the_greatest_size() {
    for params in [16, 64, 256].map(|kib| average(kib * KIB)) {
        let max = params.max_bytes();
        let data = vec![0; 5 * max + 1000];
        let cuts = chunked_cuts(&data, params, &[MIB]);
        assert_eq!(
            cuts,
            [max, 2 * max, 3 * max, 4 * max, 5 * max, data.len()],
            "{params:?}"
        );
    }
}

#[test]
fn byte_inserted_where_nothing_matches_changes_few_pieces() {
    let params = average(16 * KIB);
    let data = matchless(14, 8 * MIB);
    let before = chunked_cuts(&data, params, &[MIB]);
    let changed = [&data[..50_000], b"+".as_slice(), &data[50_000..]].concat();
    let after = chunked_cuts(&changed, params, &[MIB]);
    let known = after
        .iter()
        .filter(|&&cut| before.contains(&(cut - 1)))
        .count();
    assert!(
        before.len() - known <= 5,
        "{known} of {} cuts found again",
        before.len()
    );
}

#[test]
fn hole_starts_cutting_afresh() {
    let params = average(16 * KIB);
    let extent = random(6, 700_000);
    let mut cutter = Cutter::new(Method::Content(params));
    let mut found = Vec::new();
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let mut cuts = Vec::new();
        scan(&[], &extent, params, &mut found);
        cutter.cut(&extent, &found, ExtentEnd::Ends, &mut cuts);
        rounds.push(cuts.iter().map(|cut| cut.0).collect::<Vec<_>>());
    }
    assert_eq!(rounds[0], reference_cuts(&extent, params));
    assert_eq!(rounds[0], rounds[1]);
}

#[test]
fn extent_that_turns_out_to_be_over_ends_its_pending_piece() {
    let mut cutter = Cutter::new(Method::Content(average(16 * KIB)));
    let mut cuts = Vec::new();
    let data = [7; 1000];
    cutter.cut(&data, &[], ExtentEnd::More, &mut cuts);
    assert_eq!((cuts.as_slice(), cutter.pending_bytes()), (&[][..], 1000));
    cutter.cut(&data, &[], ExtentEnd::Ends, &mut cuts);
    assert_eq!(
        (cuts.as_slice(), cutter.pending_bytes()),
        (&[CutEnd(1000)][..], 0)
    );
    cutter.cut(&[], &[], ExtentEnd::Ends, &mut cuts);
    assert_eq!(cuts, []);
}

#[test]
fn candidates_count_from_the_sizes_of_the_piece_they_would_end() {
    let params = average(16 * KIB);
    let (min, mean, max) = (
        params.min_bytes(),
        params.average_bytes(),
        params.max_bytes(),
    );
    let ends_at = |end: usize, strict: bool| {
        let mut cuts = Vec::new();
        let candidate = Candidate {
            end: end as u32,
            strict,
        };
        let zeros = vec![0; max + 1];
        Cutter::new(Method::Content(params)).cut(&zeros, &[candidate], ExtentEnd::More, &mut cuts);
        cuts[0].0
    };
    assert_eq!(ends_at(min - 1, true), max);
    assert_eq!(ends_at(min, true), min);
    assert_eq!(ends_at(mean - 1, false), max);
    assert_eq!(ends_at(mean, false), mean);
    assert_eq!(ends_at(max + 1, true), max);
}

#[test]
fn fixed_makes_one_piece_of_each_chunk_or_extent() {
    let mut cutter = Cutter::new(Method::Fixed);
    let (mut found, mut cuts) = (Vec::new(), Vec::new());
    let data = random(7, MIB);
    for (len, extent) in [
        (MIB, ExtentEnd::More),
        (500, ExtentEnd::Ends),
        (MIB, ExtentEnd::More),
    ] {
        Method::Fixed.scan(&[], &data[..len], &mut found);
        cutter.cut(&data[..len], &found, extent, &mut cuts);
        assert_eq!(
            (cuts.as_slice(), cutter.pending_bytes()),
            (&[CutEnd(len)][..], 0)
        );
    }
    cutter.cut(&[], &[], ExtentEnd::Ends, &mut cuts);
    assert_eq!(cuts, []);
}

#[test]
fn averages_are_powers_of_two_within_the_range() {
    for good in [16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB] {
        assert_eq!(average(good).min_bytes() * 16, average(good).max_bytes());
    }
    for bad in [0, 1, 8 * KIB, 48 * KIB, 64 * KIB + 1, 512 * KIB, usize::MAX] {
        assert_eq!(
            ContentParams::from_average(bad)
                .expect_err("no such average")
                .average_bytes,
            bad
        );
    }
}

#[test]
fn table_and_cuts_of_filed_gear_1_never_change() {
    let hash_of = |numbers: &mut dyn Iterator<Item = u64>| {
        let bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        blake3::hash(&bytes).to_hex().to_string()
    };
    assert_eq!(GEAR[0], 0x3a74_ddd5_f26c_60a5);
    assert_eq!(
        hash_of(&mut GEAR.iter().copied()),
        "876e9f504b4b0cb9a5be2b411873f56ed3b478d4b3f66fc8c7b103f2c4a76866"
    );
    let data = [
        random(8, 4 * MIB),
        low_entropy(9, 4 * MIB),
        partly_matchless(15, 4 * MIB),
        b"one line again and again\n".repeat(4 * MIB / 25),
    ]
    .concat();
    for (average_bytes, expected) in [
        (
            16 * KIB,
            "8054d6b94a956017c2e90fc5eee10dbe62fea87fdee986f8e5ac13146987fea3",
        ),
        (
            64 * KIB,
            "4d93597c94e7e7d411d3a26a2e32aa9b11b51c158664a6cc4e442ac0e7507f9a",
        ),
        (
            256 * KIB,
            "255b1acde27aa2a33eaceb35fb806b689dbbec226786842a71c46c193a1dda4a",
        ),
    ] {
        let cuts = chunked_cuts(&data, average(average_bytes), &[MIB]);
        assert_eq!(
            hash_of(&mut cuts.iter().map(|&cut| cut as u64)),
            expected,
            "{average_bytes}"
        );
    }
}
