//! Tables of little-endian integers, with their strings: what databases, indexes and measuring
//! devices write.
//!
//! ```text
//! table    magic [8] · rows u32 · bytes of strings u32 · rows · strings · zeros up to 512 bytes
//! row      id u64 · time_ms u64 · value i32 · flags u16 · unit u16 · string u32 · noise u32
//! string   length u16 · UTF-8
//! ```

use super::Stream;
use super::line::Line;
use super::random::Random;

const MAGIC: &[u8; 8] = b"TABLE\0\0\x01";
const ALIGNMENT_BYTES: usize = 512;

const PLACES: [&str; 6] = ["hall", "roof", "cellar", "tank", "gate", "yard"];
const QUANTITIES: [&str; 5] = ["temperature", "humidity", "pressure", "flow", "voltage"];

/// What devices measured, table by table.
pub(super) struct Binary {
    random: Random,
    id: u64,
    time_ms: u64,
    value: i32,
    /// The strings of the table being made, and where each begins.
    strings: Vec<u8>,
    string_starts: Vec<u32>,
}

impl Binary {
    pub(super) fn new(mut random: Random) -> Binary {
        let id = random.below(1 << 32);
        let time_ms = 1_770_000_000_000 + random.below(1 << 34);
        Binary {
            random,
            id,
            time_ms,
            value: 0,
            strings: Vec::new(),
            string_starts: Vec::new(),
        }
    }

    fn choose_strings(&mut self) {
        self.strings.clear();
        self.string_starts.clear();
        for _ in 0..self.random.between(16, 128) {
            let start = self.strings.len();
            self.string_starts.push(start as u32);
            self.strings.extend_from_slice(&[0; 2]);
            let mut line = Line(&mut self.strings);
            line.text("site/").text(self.random.pick(&PLACES));
            line.text("-").decimal(self.random.below(40));
            line.text("/").text(self.random.pick(&QUANTITIES));
            let length = (self.strings.len() - start - 2) as u16;
            self.strings[start..start + 2].copy_from_slice(&length.to_le_bytes());
        }
    }

    fn row(&mut self) -> [u8; 32] {
        self.id += 1;
        self.time_ms += self.random.mostly_small(2000);
        self.value = self.value.wrapping_add(self.random.below(401) as i32 - 200);
        let flags = 1_u16 << self.random.mostly_small(6);
        let string = self.random.pick_early(&self.string_starts);

        let mut row = [0; 32];
        row[0..8].copy_from_slice(&self.id.to_le_bytes());
        row[8..16].copy_from_slice(&self.time_ms.to_le_bytes());
        row[16..20].copy_from_slice(&self.value.to_le_bytes());
        row[20..22].copy_from_slice(&flags.to_le_bytes());
        row[22..24].copy_from_slice(&(string as u16 % 5).to_le_bytes());
        row[24..28].copy_from_slice(&string.to_le_bytes());
        row[28..32].copy_from_slice(&(self.random.number() as u32).to_le_bytes());
        row
    }
}

impl Stream for Binary {
    fn append(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        self.choose_strings();
        let rows = self.random.between(256, 2048) as u32;
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&rows.to_le_bytes());
        out.extend_from_slice(&(self.strings.len() as u32).to_le_bytes());
        for _ in 0..rows {
            let row = self.row();
            out.extend_from_slice(&row);
        }
        out.extend_from_slice(&self.strings);
        let table_bytes = (out.len() - start).next_multiple_of(ALIGNMENT_BYTES);
        out.resize(start + table_bytes, 0);
    }
}
