//! The vector of f32 that every kernel is written against, of any width.

/// A family of vector instructions. The value itself is the proof that the processor has them.
///
/// The minimum and maximum of a NaN and a number are the *second* operand, as on x86: put the data
/// second and NaN stays NaN.
pub(crate) trait Vector: Copy + Send + Sync {
    /// One register of f32.
    type F: Copy;
    /// Values in a register; divides [`crate::cpu::gemm::PANEL`].
    const LANES: usize;
    /// Rows of the largest tile of a matrix product: with two registers a row, one for each of the
    /// panel's and one broadcast value, the tile fills the register file.
    const TILE_ROWS: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// # Safety
    /// `from` is valid for reading [`Vector::LANES`] values.
    unsafe fn load_at(self, from: *const f32) -> Self::F;
    /// # Safety
    /// `to` is valid for writing [`Vector::LANES`] values.
    unsafe fn store_at(self, value: Self::F, to: *mut f32);
    /// Writes each value, rounded to the nearest integer, ties to even, as a byte with 128 added: values within
    /// ±127.5. Others leave bytes of no meaning. Panics where `to` has no room for a register of bytes.
    fn store_bytes(self, value: Self::F, to: &mut [u8]);
    /// Asks the second cache level for the line at `from`; nothing is accessed, so any address will do.
    fn prefetch(self, from: *const f32);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a − b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once where the hardware can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller one.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger one.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integer, ties to even, for |x| < 2²².
    fn round(self, x: Self::F) -> Self::F;
    /// `x · 2ⁿ` for integers −126 ≤ n ≤ 127.
    fn scale(self, x: Self::F, n: Self::F) -> Self::F;

    /// Reads the first [`Vector::LANES`] values.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        let from = &from[..Self::LANES];
        // SAFETY: the slice has LANES values.
        unsafe { self.load_at(from.as_ptr()) }
    }

    /// Writes the first [`Vector::LANES`] values.
    #[inline(always)]
    fn store(self, value: Self::F, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice has LANES values.
        unsafe { self.store_at(value, to.as_mut_ptr()) }
    }

    /// Reads fewer values than a register has; the other lanes are `rest`.
    #[inline(always)]
    fn load_part(self, from: &[f32], rest: f32) -> Self::F {
        let mut lanes = [rest; LANES_MAX];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// Writes fewer values than a register has.
    #[inline(always)]
    fn store_part(self, value: Self::F, to: &mut [f32]) {
        let lanes = self.lanes(value);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    /// The lanes of a register, followed by zeros.
    #[inline(always)]
    fn lanes(self, value: Self::F) -> [f32; LANES_MAX] {
        let mut lanes = [0.0; LANES_MAX];
        self.store(value, &mut lanes);
        lanes
    }

    /// The sum of all lanes.
    fn sum(self, value: Self::F) -> f32;

    /// The largest lane. A lane that is NaN may be lost.
    fn top(self, value: Self::F) -> f32;

    /// `2ˣ` with a relative error below 2e-7; 0 for x below −126, at most 2¹²⁷, NaN for NaN.
    #[inline(always)]
    fn exp2(self, x: Self::F) -> Self::F {
        let x = self.min(self.splat(127.0), self.max(self.splat(-126.0), x));
        let n = self.round(x);
        let f = self.sub(x, n);
        let mut p = self.splat(EXP2[0]);
        for &coefficient in &EXP2[1..] {
            p = self.fma(p, f, self.splat(coefficient));
        }
        self.scale(p, n)
    }
}

/// Lanes of the widest register.
pub(crate) const LANES_MAX: usize = 16;

/// Minimax polynomial of 2ˣ over [−½, ½], highest power first; relative error 2e-9 before rounding.
const EXP2: [f32; 7] = [
    1.534_581_2e-4,
    1.339_993_1e-3,
    9.618_489e-3,
    5.550_328_8e-2,
    0.240_226_47,
    std::f32::consts::LN_2,
    1.0,
];
