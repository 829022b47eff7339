//! AMX: registers of 16 rows of 64 bytes, the system's permission to use them, and the product that fills four of them.
//!
//! The compiler knows nothing of these registers, so all that a product does with them happens within one block of
//! assembly. Their shape is the one thing that stays between blocks: it belongs to the thread, is set by
//! [`ThreadTiles::shaped`] and given back with that value, so that a thread which computes something else has no tiles to save.

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::gemm::PANEL;

/// Words of a row that one step multiplies: the width of a tile. Rows are padded to a multiple of it.
pub(crate) const STEP: usize = 16;

/// Rows of a tile.
const HEIGHT: usize = 16;

/// Rows of the largest product: two tiles.
pub(crate) const ROWS_MAX: usize = 2 * HEIGHT;

/// Proof that the processor has tiles, with the products of both formats, and that the system lets this process use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amx(());

impl Amx {
    /// Asks the system once; a refusal is logged.
    pub(crate) fn detect() -> Option<Self> {
        static FOUND: OnceLock<Option<Amx>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            if !has_tiles() {
                return None;
            }
            permission()
                .inspect_err(|error| {
                    tracing::warn!(%error, "the system does not let this process use amx: products take the next instructions");
                })
                .ok()
                .map(|()| Amx(()))
        })
    }
}

/// Whether the processor has tiles of this shape, and products of bytes and of bfloat16 on them.
fn has_tiles() -> bool {
    use std::arch::x86_64::__cpuid_count;

    const EXTENDED: u32 = 7;
    const TILES: u32 = 0x1d;
    /// `AMX-BF16`, `AMX-TILE` and `AMX-INT8` in EDX of the leaf.
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    // An interpreter has no such leaves.
    if cfg!(miri) || __cpuid_count(0, 0).eax < TILES || __cpuid_count(EXTENDED, 0).edx & FEATURES != FEATURES
    {
        return false;
    }
    // Palette 1: bytes of a row and number of tiles, and rows of each.
    let palette = __cpuid_count(TILES, 1);
    let (row, names, rows) = (palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    row as usize == STEP * size_of::<u32>() && names >= 8 && rows as usize == HEIGHT
}

/// Asks the system to let this process use tiles: their 8 KiB a thread are saved for no other.
#[cfg(target_os = "linux")]
fn permission() -> std::io::Result<()> {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two integers and touches no memory of this process.
    let outcome = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn permission() -> std::io::Result<()> {
    Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "amx is used on Linux alone",
    ))
}

/// The sums of one product: up to 32 rows of 32, in f32 or i32.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub [u32; ROWS_MAX * PANEL]);

impl Sums {
    pub(crate) const ZERO: Self = Self([0; ROWS_MAX * PANEL]);

    /// The 32 sums of a row, where they are f32.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32; PANEL] {
        let words = &mut self.0[row * PANEL..(row + 1) * PANEL];
        // SAFETY: the slice has 32 words; f32 has their size and alignment, and any bits are one; the borrow is
        // exclusive.
        unsafe { &mut *words.as_mut_ptr().cast() }
    }
}

/// Format of both operands' words, and of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WordFormat {
    /// Four bytes, the rows' unsigned and the weights' signed, summed to i32.
    Bytes,
    /// Two bfloat16, summed to f32.
    Halves,
}

/// Tiles in the shape for products of a number of rows, on this thread.
pub(crate) struct ThreadTiles {
    rows: usize,
    /// Shape and tiles are the thread's, so this stays with it.
    _thread: PhantomData<*const ()>,
}

/// Operand of `ldtilecfg`: rows and bytes of each tile.
#[repr(C, align(64))]
struct Shape {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shape {
    /// Tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 weights.
    fn new(rows: usize) -> Self {
        let upper = rows.min(HEIGHT);
        let lower = rows - upper;
        let mut shape = Self {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        let heights = [upper, upper, lower, lower, upper, lower, STEP, STEP];
        for (tile, height) in heights.into_iter().enumerate().filter(|&(_, height)| height > 0) {
            shape.rows[tile] = height as u8;
            shape.row_bytes[tile] = (STEP * size_of::<u32>()) as u16;
        }
        shape
    }
}

impl ThreadTiles {
    /// Tiles for products of `rows` rows: 1 to [`ROWS_MAX`]. They are given back when the value goes.
    ///
    /// # Safety
    /// The calling thread has no other tiles meanwhile: it has one shape at a time.
    #[inline(always)]
    pub(crate) unsafe fn shaped(_: Amx, rows: usize) -> Self {
        assert!((1..=ROWS_MAX).contains(&rows), "products of {rows} rows");
        let shape = Shape::new(rows);
        // SAFETY: the processor has tiles of this shape and the system lets this process use them, which `Amx` proves;
        // `shape` is the 64 bytes that are read, with no more rows and bytes a tile than palette 1 has.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const shape, options(readonly, nostack, preserves_flags));
        }
        Self {
            rows,
            _thread: PhantomData,
        }
    }

    /// The products of all rows with a panel: `a` has as many rows of `k` words as these tiles are for, `b` is a panel
    /// `[k][32]`. Sums of row r and column c land in `sums` at 32·r + c. Panics where an operand is too short, or `k`
    /// no multiple of [`STEP`].
    #[inline(always)]
    pub(crate) fn multiply(&self, words: WordFormat, a: &[u32], b: &[u32], k: usize, sums: &mut Sums) {
        assert!(k > 0 && k.is_multiple_of(STEP) && a.len() >= self.rows * k && b.len() >= PANEL * k);
        let (a, b, sums) = (a.as_ptr(), b.as_ptr(), sums.0.as_mut_ptr());
        // SAFETY: `a`, `b` and `sums` hold all values that each product reads and writes, by the assertion and by type; the tiles
        // have the shape for `rows` rows, which is above 16 where the second pair takes part.
        unsafe {
            match (words, self.rows > HEIGHT) {
                (WordFormat::Bytes, false) => bytes_of_one(a, b, k, sums),
                (WordFormat::Bytes, true) => bytes_of_two(a, b, k, sums),
                (WordFormat::Halves, false) => halves_of_one(a, b, k, sums),
                (WordFormat::Halves, true) => halves_of_two(a, b, k, sums),
            }
        }
    }
}

impl Drop for ThreadTiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: a value exists only where the instruction does.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// The products of one tile of rows and of two, by `$instruction`.
macro_rules! products {
    ($one:ident $two:ident $instruction:literal) => {
        /// # Safety
        /// The tiles have the shape for at most 16 rows; `a` holds as many rows of `k` words, `b` 32 · k and `sums` 32
        /// a row; `k` is a multiple of 16 above 0.
        #[inline(always)]
        unsafe fn $one(a: *const u32, b: *const u32, k: usize, sums: *mut u32) {
            // SAFETY: step s reads words 16·s to 16·s + 15 of each row of `a` and rows 16·s to 16·s + 15 of `b`; the
            // rest is as the caller vouches.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "2:",
                    "tileloadd tmm4, [{a} + {row}]",
                    "tileloadd tmm6, [{b} + {line}]",
                    "tileloadd tmm7, [{b} + {line} + 64]",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    "add {a}, 64",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 64], tmm1",
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) k / STEP => _,
                    row = in(reg) k * size_of::<u32>(),
                    line = in(reg) PANEL * size_of::<u32>(),
                    sums = in(reg) sums,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }

        /// # Safety
        /// As for one tile, with a shape for 17 to 32 rows.
        #[inline(always)]
        unsafe fn $two(a: *const u32, b: *const u32, k: usize, sums: *mut u32) {
            // SAFETY: as for one tile; the second one's rows begin at the 17th.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{a} + {row}]",
                    "tileloadd tmm6, [{b} + {line}]",
                    "tileloadd tmm7, [{b} + {line} + 64]",
                    "tileloadd tmm5, [{lower} + {row}]",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "add {a}, 64",
                    "add {lower}, 64",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 64], tmm1",
                    "tilestored [{sums} + {line} + 2048], tmm2",
                    "tilestored [{sums} + {line} + 2112], tmm3",
                    a = inout(reg) a => _,
                    lower = inout(reg) a.wrapping_add(HEIGHT * k) => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) k / STEP => _,
                    row = in(reg) k * size_of::<u32>(),
                    line = in(reg) PANEL * size_of::<u32>(),
                    sums = in(reg) sums,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

products!(bytes_of_one bytes_of_two "tdpbusd");
products!(halves_of_one halves_of_two "tdpbf16ps");

/// Multiplies tiles of zeros `rounds` times eight, to measure the processor's peak. Returns the words multiplied.
pub(crate) fn burst(proof: Amx, words: WordFormat, rounds: usize) -> usize {
    macro_rules! burst {
        ($instruction:literal) => {
            // SAFETY: `ThreadTiles::shaped` set the shape of all tiles; no memory is touched.
            unsafe {
                asm!(
                    "2:",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "dec {rounds}",
                    "jnz 2b",
                    rounds = inout(reg) rounds.max(1) => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nomem, nostack),
                );
            }
        };
    }
    // SAFETY: nothing that is called before they go sets another shape.
    let _tiles = unsafe { ThreadTiles::shaped(proof, ROWS_MAX) };
    match words {
        WordFormat::Bytes => burst!("tdpbusd"),
        WordFormat::Halves => burst!("tdpbf16ps"),
    }
    8 * rounds.max(1) * HEIGHT * HEIGHT * STEP
}

#[cfg(test)]
mod tests;
