//! Products on operands that end before a page without access rights: no sanitizer sees the reads of tiles.

use std::io::Write;

use super::*;

const PAGE: usize = 4096;

/// Words that end with a page; the next one may not be read or written.
struct Guarded {
    start: *mut u32,
    pages: usize,
    len: usize,
}

impl Guarded {
    fn new(words: &[u32]) -> Self {
        let pages = size_of_val(words).div_ceil(PAGE);
        // SAFETY: a new mapping, of which the last page is shut and the rest is written within its bounds.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let map = libc::mmap(std::ptr::null_mut(), (pages + 1) * PAGE, access, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            assert_eq!(
                libc::mprotect(map.byte_add(pages * PAGE), PAGE, libc::PROT_NONE),
                0
            );
            let start = map.cast::<u32>();
            let first = start.add(pages * PAGE / size_of::<u32>() - words.len());
            first.copy_from_nonoverlapping(words.as_ptr(), words.len());
            Self {
                start,
                pages,
                len: words.len(),
            }
        }
    }

    fn words(&self) -> &[u32] {
        // SAFETY: `new` wrote so many words, up to the end of the last open page; the mapping lives with `self`.
        unsafe {
            let end = self.start.add(self.pages * PAGE / size_of::<u32>());
            std::slice::from_raw_parts(end.sub(self.len), self.len)
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, as large as it was made.
        unsafe { libc::munmap(self.start.cast(), (self.pages + 1) * PAGE) };
    }
}

/// Small integers, as bytes or as bfloat16: their sums are exact in both.
fn operand(words: WordFormat, count: usize, seed: usize) -> (Vec<u32>, Vec<Vec<i32>>) {
    let each = if words == WordFormat::Bytes { 4 } else { 2 };
    let values = |word: usize| -> Vec<i32> {
        (0..each)
            .map(|i| ((word * 7 + i * 5 + seed) % 11) as i32)
            .collect()
    };
    let pack = |values: &Vec<i32>| match words {
        WordFormat::Bytes => u32::from_ne_bytes([0, 1, 2, 3].map(|i| values[i] as u8)),
        WordFormat::Halves => {
            let half = |i: usize| u32::from(half::bf16::from_f32(values[i] as f32).to_bits());
            half(0) | half(1) << 16
        }
    };
    let values: Vec<Vec<i32>> = (0..count).map(values).collect();
    (values.iter().map(pack).collect(), values)
}

fn check(amx: Amx, words: WordFormat, rows: usize, k: usize) {
    let ((a, a_values), (b, b_values)) = (operand(words, rows * k, 3), operand(words, k * PANEL, 1));
    let (a, b) = (Guarded::new(&a), Guarded::new(&b));
    let untouched = 0xdead_beef;
    let mut sums = Sums([untouched; ROWS_MAX * PANEL]);
    {
        // SAFETY: this thread has no other tiles.
        let tiles = unsafe { ThreadTiles::shaped(amx, rows) };
        tiles.multiply(words, a.words(), b.words(), k, &mut sums);
    }
    for (at, &found) in sums.0.iter().enumerate() {
        let (row, column) = (at / PANEL, at % PANEL);
        if row >= rows {
            assert_eq!(found, untouched, "{words:?}: row {row} of {rows}");
            continue;
        }
        let word = |s: usize| a_values[row * k + s].iter().zip(&b_values[s * PANEL + column]);
        let sum: i32 = (0..k).map(|s| word(s).map(|(a, b)| a * b).sum::<i32>()).sum();
        let found = match words {
            WordFormat::Bytes => found.cast_signed(),
            WordFormat::Halves => f32::from_bits(found) as i32,
        };
        assert_eq!(
            found, sum,
            "{words:?}: row {row} of {rows}, column {column}, k {k}"
        );
    }
}

#[test]
fn products_on_tiles_read_and_write_their_rows_alone() {
    let Some(amx) = Amx::detect() else {
        // Written past the capture of a passing test's output: a skip is said aloud.
        let _ = writeln!(std::io::stderr(), "SKIPPED: no amx, or the system refuses it");
        return;
    };
    let short = std::panic::catch_unwind(|| {
        // SAFETY: this thread has no other tiles.
        let tiles = unsafe { ThreadTiles::shaped(amx, 3) };
        let (a, b) = ([0; 3 * STEP - 1], [0; PANEL * STEP]);
        tiles.multiply(WordFormat::Bytes, &a, &b, STEP, &mut Sums::ZERO.clone());
    });
    assert!(short.is_err(), "an operand that is too short is refused");
    for words in [WordFormat::Bytes, WordFormat::Halves] {
        for rows in 1..=ROWS_MAX {
            for k in [STEP, 3 * STEP] {
                check(amx, words, rows, k);
            }
        }
    }
}
