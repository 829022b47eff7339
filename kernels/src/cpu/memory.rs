//! Memory that starts on a cache line, and the three kinds of operand kept in it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Values that lines hold: of four bytes each.
pub(crate) trait Word: Copy + Default + Send + Sync + 'static {}

impl Word for f32 {}
impl Word for i32 {}
impl Word for u32 {}

/// One cache line, the width of the widest register.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line<W>([W; LINE]);

const LINE: usize = 16;

/// A run of words whose first starts a cache line, so that no aligned vector straddles two.
#[derive(Default)]
pub(crate) struct Lines<W = f32> {
    lines: Vec<Line<W>>,
    len: usize,
}

impl<W: Word> Lines<W> {
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut lines = Self::default();
        lines.resize(len);
        lines
    }

    /// Sets the length. The values are unspecified afterwards; memory is kept, never given back.
    pub(crate) fn resize(&mut self, len: usize) {
        let lines = len.div_ceil(LINE);
        if lines > self.lines.len() {
            // The old values are not wanted: without them there is nothing to copy while growing. The length goes
            // first, or it would outlive them where growing panics.
            self.len = 0;
            self.lines.clear();
            self.lines.resize(lines, Line([W::default(); LINE]));
        }
        self.len = len;
    }
}

impl<W: Word> Deref for Lines<W> {
    type Target = [W];

    fn deref(&self) -> &[W] {
        // SAFETY: `Line` is `repr(C)` over words without padding (16 · 4 = 64 bytes, its alignment), and
        // `resize` keeps `len` within the lines that `lines` holds, all of them initialised.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<W: Word> DerefMut for Lines<W> {
    fn deref_mut(&mut self) -> &mut [W] {
        // SAFETY: as in `deref`; the borrow of `self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// The bytes of `words`, in the order in which they lie in memory.
pub(crate) fn bytes_mut(words: &mut [u32]) -> &mut [u8] {
    // SAFETY: the slice is as many bytes long, bytes need no alignment, and any bits are a byte and a word.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

/// Activations, row-major, in memory that only grows.
#[derive(Default)]
pub struct Buffer {
    values: Lines,
    rows: usize,
    cols: usize,
}

impl Buffer {
    pub(crate) fn reshape(&mut self, rows: usize, cols: usize) {
        self.values.resize(rows * cols);
        (self.rows, self.cols) = (rows, cols);
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// All rows, one after the other.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

/// Read-only rows, shared by all clones.
#[derive(Clone)]
pub struct Table {
    values: Arc<[f32]>,
    rows: usize,
    cols: usize,
}

impl Table {
    pub(crate) fn new(values: &[f32], rows: usize, cols: usize) -> Self {
        Self {
            values: values.into(),
            rows,
            cols,
        }
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn row(&self, row: u32) -> &[f32] {
        let start = row as usize * self.cols;
        &self.values[start..start + self.cols]
    }
}

/// Cells of an output that several threads fill at once, each its own.
#[derive(Clone, Copy)]
pub(crate) struct Cells<W = f32> {
    start: *mut W,
    len: usize,
}

// SAFETY: nothing here reads or writes cells. A caller that does, through `slice` or the pointer of `at`, needs
// `unsafe` for it, and vouches that no other thread touches these cells meanwhile.
unsafe impl<W: Word> Send for Cells<W> {}
// SAFETY: as for `Send`.
unsafe impl<W: Word> Sync for Cells<W> {}

impl<W: Word> Cells<W> {
    pub(crate) fn new(values: &mut [W]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
        }
    }

    /// The pointer to cell `at`, from where `len` cells follow. Panics where they would not.
    pub(crate) fn at(self, at: usize, len: usize) -> *mut W {
        assert!(
            at <= self.len && len <= self.len - at,
            "{at} + {len} cells of {}",
            self.len
        );
        self.start.wrapping_add(at)
    }

    /// # Safety
    /// The slice that [`Cells::new`] was given is still borrowed for the cells' user, and no other code
    /// reads or writes these `len` cells while the result lives.
    pub(crate) unsafe fn slice<'a>(self, at: usize, len: usize) -> &'a mut [W] {
        // SAFETY: `at` checks the bounds; the caller vouches for exclusive use.
        unsafe { std::slice::from_raw_parts_mut(self.at(at, len), len) }
    }
}
