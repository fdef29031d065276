use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use super::super::chunker::{ContentParams, CutEnd, Cutter, ExtentEnd, Method, scan};
use super::super::source::Extent;
use super::super::stream::{Origin, Sequence, SequenceState, Stream};
use super::{Plan, Step, head_bytes};
use crate::store::FileName;

/// Random bytes, a hole, and lines in which nothing matches: all their cuts are forced.
struct Sample {
    data: Vec<u8>,
    extents: [Range<usize>; 2],
}

impl Sample {
    fn new() -> Sample {
        let mut data = vec![0; 850_000];
        blake3::Hasher::new()
            .finalize_xof()
            .fill(&mut data[..700_000]);
        data.extend_from_slice(&b"appended log line\n".repeat(40_000));
        let extents = [0..700_000, 850_000..data.len()];
        Sample { data, extents }
    }

    /// The pieces when each extent is cut as a whole.
    fn pieces(&self, params: ContentParams) -> Vec<&[u8]> {
        let mut pieces = Vec::new();
        for extent in &self.extents {
            let data = &self.data[extent.clone()];
            let (mut found, mut cuts, mut start) = (Vec::new(), Vec::new(), 0);
            scan(&[], data, params, &mut found);
            Cutter::new(Method::Content(params)).cut(data, &found, ExtentEnd::Ends, &mut cuts);
            for CutEnd(end) in cuts {
                pieces.push(&data[start..end]);
                start = end;
            }
        }
        pieces
    }
}

fn stream(method: &Method) -> Stream {
    let input = tempfile::tempfile().expect("a file to read from");
    let state = SequenceState {
        input: Sequence::Stdin(input),
        before: Vec::new(),
    };
    Stream::new(
        PathBuf::from("-"),
        FileName::new("sample").expect("a name"),
        Origin::Sequence(Mutex::new(state)),
        method,
        Instant::now(),
        0,
    )
}

#[test]
fn chunks_are_cut_as_their_extents_would_be_as_a_whole() {
    let params = ContentParams::from_average(16 << 10).expect("an average on offer");
    let method = Method::Content(params);
    let head = head_bytes(&method);
    let sample = Sample::new();
    let expected = sample.pieces(params);
    for chunk_bytes in [1 << 20, 100_000, 65_537, 65_536, 65_535, 62_000, 3_000] {
        let stream = stream(&method);
        let mut plan = Plan::default();
        let (mut pieces, mut rebuilt) = (Vec::new(), Vec::new());
        for (index, chunk) in sample.data.chunks(chunk_bytes).enumerate() {
            let offset = index * chunk_bytes;
            plan.look(&sample, offset..offset + chunk.len(), params);
            let mut room = vec![0; head];
            room.extend_from_slice(chunk);
            let last = offset + chunk.len() == sample.data.len();
            stream
                .in_turn(index as u64, |cutting| {
                    plan.cut(cutting, &mut room, head, last);
                })
                .expect("nobody fails");
            for step in &plan.steps {
                match *step {
                    Step::Piece { start, end, .. } => {
                        pieces.push(room[start..end].to_vec());
                        rebuilt.extend_from_slice(&room[start..end]);
                    }
                    Step::Hole(bytes) => rebuilt.resize(rebuilt.len() + bytes, 0),
                }
            }
        }
        assert!(
            pieces == expected,
            "pieces of chunks of {chunk_bytes} bytes"
        );
        assert!(
            rebuilt == sample.data,
            "order in chunks of {chunk_bytes} bytes"
        );
    }
}

impl Plan {
    /// Notes the extents and candidates of a chunk, as reading and scanning it would.
    fn look(&mut self, sample: &Sample, chunk: Range<usize>, params: ContentParams) {
        self.extents.clear();
        self.candidates.clear();
        self.ends.clear();
        for extent in &sample.extents {
            let (start, end) = (extent.start.max(chunk.start), extent.end.min(chunk.end));
            if start < end {
                let mut found = Vec::new();
                let context = &sample.data[extent.start..start];
                scan(context, &sample.data[start..end], params, &mut found);
                self.candidates.append(&mut found);
                self.ends.push(self.candidates.len());
                self.extents.push(Extent {
                    start: start - chunk.start,
                    end: end - chunk.start,
                });
            }
        }
    }
}
