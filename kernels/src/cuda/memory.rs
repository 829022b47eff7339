//! Memory on the device: activations that only grow, packed weights, tables, and the ring of inboxes.

use super::driver::{Driver, Dtype, ROWS_STEP};
use crate::ops::KernelError;

/// Columns are kept in whole runs of 16 bytes of a 16-bit format.
pub(super) const COLS_STEP: usize = 8;

/// Count of rows, and count of rows that work covers: the results of a bucket's surplus rows are never read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub count: usize,
    pub span: usize,
}

impl From<usize> for Rows {
    fn from(count: usize) -> Self {
        Self { count, span: count }
    }
}

/// Activations, row-major.
pub struct DeviceBuffer<D: Driver> {
    memory: Option<D::Memory>,
    capacity: usize,
    rows: Rows,
    cols: usize,
}

impl<D: Driver> Default for DeviceBuffer<D> {
    fn default() -> Self {
        Self {
            memory: None,
            capacity: 0,
            rows: Rows::default(),
            cols: 0,
        }
    }
}

impl<D: Driver> DeviceBuffer<D> {
    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows.count, self.cols)
    }

    pub(super) fn rows(&self) -> Rows {
        self.rows
    }

    /// Columns from one row to the next: the columns behind the last exist, and mean nothing.
    pub(super) fn stride(&self) -> usize {
        self.cols.next_multiple_of(COLS_STEP)
    }

    /// Bytes that it would have to grow to for this shape; none where it has room.
    pub(super) fn lacks(&self, dtype: Dtype, rows: Rows, cols: usize) -> Option<usize> {
        let stride = cols.next_multiple_of(COLS_STEP);
        let bytes = rows.span.next_multiple_of(ROWS_STEP) * stride * dtype.bytes();
        // Half as much again, so that slowly growing batches do not allocate each time.
        (bytes > self.capacity).then(|| bytes.max(self.capacity + self.capacity / 2))
    }

    /// Memory of another size. The old goes first: giving it back waits for the work that still uses it.
    pub(super) fn grow(&mut self, driver: &D, bytes: usize) -> Result<(), KernelError> {
        *self = Self::default();
        self.memory = Some(driver.allocate(bytes)?);
        self.capacity = bytes;
        Ok(())
    }

    /// Sets the shape, for which there is room. The buffer's values are unspecified afterwards.
    pub(super) fn shape_as(&mut self, rows: Rows, cols: usize) {
        (self.rows, self.cols) = (rows, cols);
    }

    pub(super) fn memory(&self) -> Option<&D::Memory> {
        self.memory.as_ref()
    }

    /// Address of the first row; 0 for a buffer that never held any, which every operation refuses.
    pub(super) fn address(&self, driver: &D) -> u64 {
        self.memory.as_ref().map_or(0, |memory| driver.address(memory))
    }
}

/// Read-only rows, always f32: tables are small beside the matrices, and their sums stay exact.
pub struct DeviceTable<D: Driver> {
    memory: D::Memory,
    rows: usize,
    cols: usize,
}

impl<D: Driver> DeviceTable<D> {
    pub(super) fn new(driver: &D, values: &[f32], rows: usize, cols: usize) -> Result<Self, KernelError> {
        let mut bytes = Vec::with_capacity(values.len() * 4);
        Dtype::F32.encode(values, &mut bytes);
        let memory = driver.allocate(bytes.len())?;
        driver.store(&memory, &bytes)?;
        Ok(Self { memory, rows, cols })
    }

    pub(super) fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    pub(super) fn address(&self, driver: &D) -> u64 {
        driver.address(&self.memory)
    }
}

/// Weights `[out, inp]` and their bias in the device's dtype, with rows of zeros up to a whole step.
pub struct DeviceMatrix<D: Driver> {
    pub(super) weight: D::Memory,
    pub(super) bias: D::Memory,
    out: usize,
    inp: usize,
}

impl<D: Driver> DeviceMatrix<D> {
    pub(super) fn new(
        driver: &D,
        dtype: Dtype,
        weight: &[f32],
        bias: Option<&[f32]>,
        (out, inp): (usize, usize),
    ) -> Result<Self, KernelError> {
        if !inp.is_multiple_of(COLS_STEP) {
            return Err(KernelError::Unsupported {
                kernel: "matrix",
                operand: "inputs",
                value: inp,
                supported: "multiples of 8",
            });
        }
        let padded = out.next_multiple_of(COLS_STEP);
        let store = |values: &[f32], count: usize| -> Result<D::Memory, KernelError> {
            let mut bytes = Vec::with_capacity(count * dtype.bytes());
            dtype.encode(values, &mut bytes);
            bytes.resize(count * dtype.bytes(), 0);
            let memory = driver.allocate(bytes.len())?;
            driver.store(&memory, &bytes)?;
            Ok(memory)
        };
        Ok(Self {
            weight: store(weight, padded * inp)?,
            bias: store(bias.unwrap_or_default(), padded)?,
            out,
            inp,
        })
    }

    pub(super) fn out(&self) -> usize {
        self.out
    }

    pub(super) fn inp(&self) -> usize {
        self.inp
    }
}

/// Ring of inboxes: one is filled while launches still read another.
pub(super) struct Inboxes<D: Driver> {
    turns: Vec<D::Inbox>,
    capacity: usize,
    next: usize,
    bytes: Vec<u8>,
}

/// One that is read, one that waits for the device, one that is filled.
const TURNS: usize = 3;

impl<D: Driver> Inboxes<D> {
    pub(super) fn new() -> Self {
        Self {
            turns: Vec::new(),
            capacity: 0,
            next: 0,
            bytes: Vec::new(),
        }
    }

    /// Posts the bytes that `fill` writes, and returns their address.
    pub(super) fn post(
        &mut self,
        driver: &mut D,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, KernelError> {
        self.bytes.clear();
        fill(&mut self.bytes);
        if self.bytes.len() > self.capacity || self.turns.len() < TURNS {
            // All inboxes are made at once, so that after the batches that warm a model none is left to be made.
            self.turns.clear();
            self.capacity = self.bytes.len().next_power_of_two();
            for _ in 0..TURNS {
                self.turns.push(driver.inbox(self.capacity)?);
            }
        }
        driver.release(&mut self.turns[self.next])?;
        self.next = (self.next + 1) % TURNS;
        driver.post(&mut self.turns[self.next], &self.bytes)
    }
}

/// The bytes of one operand struct, written field by field as `repr(C)` lays them out.
#[derive(Default)]
pub(super) struct Args(Vec<u8>);

impl Args {
    pub(super) fn address(mut self, address: u64) -> Self {
        self.0.extend(address.to_ne_bytes());
        self
    }

    pub(super) fn count(mut self, count: usize) -> Self {
        self.0.extend((count as u32).to_ne_bytes());
        self
    }

    pub(super) fn float(mut self, value: f32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }
}
