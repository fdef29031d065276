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

/// Two bytes that match each time they are repeated.
pub(super) fn matching_pair(params: ContentParams) -> [u8; 2] {
    let steady = |pair: [u8; 2]| pair.repeat(32).into_iter().fold(0, roll);
    (0..=u16::MAX)
        .map(u16::to_le_bytes)
        .find(|&pair| steady(pair) < params.loose_ceiling())
        .expect("one pair in 4096 matches")
}

/// The method written down as plainly as possible: one byte at a time, one extent at a time.
fn reference_cuts(data: &[u8], params: ContentParams) -> Vec<usize> {
    let loose_bits = params.average_bytes().ilog2() - 2;
    let strict_bits = params.average_bytes().ilog2() + 2;
    let (mut hash, mut start, mut cuts) = (0_u64, 0, Vec::new());
    let mut last_match = None;
    for (i, &byte) in data.iter().enumerate() {
        hash = hash.wrapping_mul(2).wrapping_add(GEAR[byte as usize]);
        let (mut loose, mut strict) = (false, false);
        if hash.leading_zeros() >= loose_bits {
            loose = last_match.is_none_or(|last| i - last > 63);
            strict = loose && hash.leading_zeros() >= strict_bits;
            last_match = Some(i);
        }
        let len = i + 1 - start;
        if len == params.max_bytes()
            || (loose && len >= params.average_bytes())
            || (strict && len >= params.min_bytes())
        {
            start = i + 1;
            cuts.push(start);
        }
    }
    if start < data.len() {
        cuts.push(data.len());
    }
    cuts
}

/// Cuts of one extent that arrives in chunks of these lengths, over and over.
fn chunked_cuts(data: &[u8], params: ContentParams, chunk_lens: &[usize]) -> Vec<usize> {
    let mut cutter = Cutter::new(Method::Content(params));
    let (mut found, mut cuts, mut all) = (Vec::new(), Vec::new(), Vec::new());
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
        cutter.cut(&found, end - start, extent, &mut cuts);
        assert!(cutter.pending_bytes() < params.max_bytes());
        all.extend(cuts.iter().map(|cut| start + cut.0));
        start = end;
    }
    assert_eq!(cutter.pending_bytes(), 0);
    all
}

fn sizes(cuts: &[usize]) -> Vec<usize> {
    let starts = [0].into_iter().chain(cuts.iter().copied());
    cuts.iter()
        .zip(starts)
        .map(|(end, start)| end - start)
        .collect()
}

fn any_data() -> impl Strategy<Value = Vec<u8>> {
    let len = 0_usize..600_000;
    prop_oneof![
        4 => (any::<u64>(), len.clone()).prop_map(|(seed, len)| random(seed, len)),
        3 => (any::<u64>(), len.clone()).prop_map(|(seed, len)| low_entropy(seed, len)),
        1 => len.clone().prop_map(|len| vec![0; len]),
        2 => (any::<u64>(), 1_usize..300, len.clone()).prop_map(|(seed, period, len)| {
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

        let sizes = sizes(&expected);
        if let Some((last, pieces)) = sizes.split_last() {
            prop_assert!(*last >= 1 && *last <= params.max_bytes());
            for size in pieces {
                prop_assert!((params.min_bytes()..=params.max_bytes()).contains(size));
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
fn hole_starts_cutting_afresh() {
    let params = average(16 * KIB);
    let extent = random(6, 700_000);
    let mut cutter = Cutter::new(Method::Content(params));
    let mut found = Vec::new();
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let mut cuts = Vec::new();
        scan(&[], &extent, params, &mut found);
        cutter.cut(&found, extent.len(), ExtentEnd::Ends, &mut cuts);
        rounds.push(cuts.iter().map(|cut| cut.0).collect::<Vec<_>>());
    }
    assert_eq!(rounds[0], reference_cuts(&extent, params));
    assert_eq!(rounds[0], rounds[1]);
}

#[test]
fn extent_that_turns_out_to_be_over_ends_its_pending_piece() {
    let mut cutter = Cutter::new(Method::Content(average(16 * KIB)));
    let mut cuts = Vec::new();
    cutter.cut(&[], 1000, ExtentEnd::More, &mut cuts);
    assert_eq!((cuts.as_slice(), cutter.pending_bytes()), (&[][..], 1000));
    cutter.cut(&[], 0, ExtentEnd::Ends, &mut cuts);
    assert_eq!(
        (cuts.as_slice(), cutter.pending_bytes()),
        (&[CutEnd(0)][..], 0)
    );
    cutter.cut(&[], 0, ExtentEnd::Ends, &mut cuts);
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
        Cutter::new(Method::Content(params)).cut(&[candidate], max + 1, ExtentEnd::More, &mut cuts);
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
        cutter.cut(&found, len, extent, &mut cuts);
        assert_eq!(
            (cuts.as_slice(), cutter.pending_bytes()),
            (&[CutEnd(len)][..], 0)
        );
    }
    cutter.cut(&[], 0, ExtentEnd::Ends, &mut cuts);
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
    let data = [random(8, 4 * MIB), low_entropy(9, 4 * MIB)].concat();
    for (average_bytes, expected) in [
        (
            16 * KIB,
            "b44a3604bf557b7112dddbdf875753f786053942c8ee7a387096bfa5f74623a9",
        ),
        (
            64 * KIB,
            "e5557db4a1b8297e32544832f8196dedd642eee1332bed6b4d892097e21fe768",
        ),
        (
            256 * KIB,
            "ce96fff4085a3878476373f3f5b17d6af606edac62f42a7372f63f81b755073c",
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
