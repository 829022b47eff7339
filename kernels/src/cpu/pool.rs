//! One row for each text: its first, or the mean of all.

use super::vector::Vector;
use crate::dispatch::Kernel;
use crate::ops::Pooling;

/// Fills `out`, one row wide, from the rows of one text.
pub(crate) struct Pool<'a> {
    pub rows: &'a [f32],
    pub pooling: Pooling,
    pub out: &'a mut [f32],
}

impl Kernel for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let mut rows = self.rows.chunks_exact(self.out.len());
        if let Some(first) = rows.next() {
            self.out.copy_from_slice(first);
        }
        if self.pooling == Pooling::Mean {
            let scale = 1.0 / (self.rows.len() / self.out.len()) as f32;
            for row in rows {
                for (sum, value) in self.out.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            for sum in self.out {
                *sum *= scale;
            }
        }
    }
}
