//! Bounds the memory of arriving messages over all calls and connections.
//!
//! Admission sees only complete requests, and clients may begin any number of them. Their receive buffers are
//! therefore counted here; a message that would exceed the bound is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use penstock_core::Rejection;

/// Memory shared by all arriving messages.
#[derive(Debug)]
pub struct Arriving {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Arriving {
    /// Memory of `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Arc<Arriving> {
        Arc::new(Arriving {
            bytes: AtomicUsize::new(0),
            bytes_max,
        })
    }

    /// Bytes held now.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The part of the memory that one message holds; dropping it returns the part.
#[derive(Debug)]
pub struct Share {
    arriving: Arc<Arriving>,
    bytes: usize,
}

impl Share {
    /// An empty share.
    pub fn new(arriving: &Arc<Arriving>) -> Share {
        Share {
            arriving: Arc::clone(arriving),
            bytes: 0,
        }
    }

    /// The shared memory.
    pub fn arriving(&self) -> &Arc<Arriving> {
        &self.arriving
    }

    /// Grows to `bytes` in all; without enough memory the share keeps its size.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Rejection> {
        let more = bytes.saturating_sub(self.bytes);
        let Arriving {
            bytes: counted,
            bytes_max,
        } = &*self.arriving;
        let used = counted.fetch_add(more, Ordering::Relaxed);
        if used.saturating_add(more) > *bytes_max {
            counted.fetch_sub(more, Ordering::Relaxed);
            return Err(Rejection::Overloaded {
                what: "the receive memory",
                used,
                bound: *bytes_max,
                unit: "bytes",
            });
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.arriving.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_beyond_the_memory_is_refused_and_all_of_it_returns() {
        let arriving = Arriving::new(100);
        let (mut one, mut two) = (Share::new(&arriving), Share::new(&arriving));
        assert_eq!(one.grow(60), Ok(()));
        assert_eq!(two.grow(40), Ok(()));
        assert!(matches!(
            two.grow(41),
            Err(Rejection::Overloaded {
                used: 100,
                bound: 100,
                ..
            })
        ));
        assert_eq!(one.grow(10), Ok(()), "a share never shrinks");
        assert_eq!(arriving.held(), 100);
        drop(one);
        assert_eq!(two.grow(100), Ok(()));
        drop(two);
        assert_eq!(arriving.held(), 0);
    }
}
