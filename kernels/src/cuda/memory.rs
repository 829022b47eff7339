//! What lives on the device: activations that only grow, packed weights, tables, and the ring of inboxes.

use super::driver::{Driver, Dtype, ROWS_STEP};
use crate::ops::KernelError;

/// Columns are kept in whole runs of 16 bytes of a 16-bit format.
pub(super) const COLS_STEP: usize = 8;

/// Activations, row-major.
pub struct Buffer<D: Driver> {
    memory: Option<D::Memory>,
    capacity: usize,
    rows: usize,
    cols: usize,
}

impl<D: Driver> Default for Buffer<D> {
    fn default() -> Self {
        Self {
            memory: None,
            capacity: 0,
            rows: 0,
            cols: 0,
        }
    }
}

impl<D: Driver> Buffer<D> {
    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Columns from one row to the next: those behind the last are there, and mean nothing.
    pub(super) fn stride(&self) -> usize {
        self.cols.next_multiple_of(COLS_STEP)
    }

    /// Sets the shape. What the buffer holds afterwards is not said; memory is kept, never given back.
    pub(super) fn reshape(
        &mut self,
        driver: &D,
        dtype: Dtype,
        rows: usize,
        cols: usize,
    ) -> Result<(), KernelError> {
        let stride = cols.next_multiple_of(COLS_STEP);
        let bytes = rows.next_multiple_of(ROWS_STEP) * stride * dtype.bytes();
        if bytes > self.capacity {
            // Half as much again, so that slowly growing batches do not allocate each time. The old memory
            // goes first: giving it back waits for the work that still uses it.
            let wanted = bytes.max(self.capacity + self.capacity / 2);
            *self = Self::default();
            self.memory = Some(driver.allocate(wanted)?);
            self.capacity = wanted;
        }
        (self.rows, self.cols) = (rows, cols);
        Ok(())
    }

    pub(super) fn memory(&self) -> Option<&D::Memory> {
        self.memory.as_ref()
    }

    /// Where the first row lies; 0 for a buffer that never held any, which no operation lets through.
    pub(super) fn address(&self, driver: &D) -> u64 {
        self.memory.as_ref().map_or(0, |memory| driver.address(memory))
    }
}

/// Read-only rows, always f32: tables are small beside the matrices, and their sums stay exact.
pub struct Table<D: Driver> {
    memory: D::Memory,
    rows: usize,
    cols: usize,
}

impl<D: Driver> Table<D> {
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
pub struct Matrix<D: Driver> {
    pub(super) weight: D::Memory,
    pub(super) bias: D::Memory,
    out: usize,
    inp: usize,
}

impl<D: Driver> Matrix<D> {
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

/// Inboxes that take turns, so that one is filled while launches still read another.
pub(super) struct Inboxes<D: Driver> {
    turns: [Option<D::Inbox>; TURNS],
    capacity: usize,
    next: usize,
    bytes: Vec<u8>,
}

/// One that is read, one that waits for the device, one that is filled.
const TURNS: usize = 3;

impl<D: Driver> Inboxes<D> {
    pub(super) fn new() -> Self {
        Self {
            turns: [const { None }; TURNS],
            capacity: 0,
            next: 0,
            bytes: Vec::new(),
        }
    }

    /// Posts what `fill` writes, and says where it lies.
    pub(super) fn post(
        &mut self,
        driver: &mut D,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, KernelError> {
        self.bytes.clear();
        fill(&mut self.bytes);
        if self.bytes.len() > self.capacity {
            self.turns = [const { None }; TURNS];
            self.capacity = self.bytes.len().next_power_of_two();
        }
        if let Some(read) = &mut self.turns[self.next] {
            driver.release(read)?;
        }
        self.next = (self.next + 1) % TURNS;
        let turn = &mut self.turns[self.next];
        let inbox = match turn {
            Some(inbox) => inbox,
            None => turn.insert(driver.inbox(self.capacity)?),
        };
        driver.post(inbox, &self.bytes)
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

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
