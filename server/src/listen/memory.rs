//! Memory of arriving requests, shared by all connections of a port.
//!
//! Admission sees only complete requests, and clients may begin any number of them. Their receive buffers are
//! therefore counted here; one that would exceed a bound is refused.
//!
//! Three bounds keep a few clients from holding all of it. Small requests have a reserve that large ones cannot
//! take. One connection has a share. A request that holds much must arrive fast ([`super::progress`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use penstock_core::Rejection;

/// Bytes of a request that may use the reserve: most requests with a few texts.
pub const SMALL_BYTES_MAX: usize = 64 * 1024;

/// A number of bytes that is taken and returned by many threads.
#[derive(Debug, Default)]
struct Pool {
    used: AtomicUsize,
    bytes_max: usize,
}

impl Pool {
    fn take(&self, bytes: usize) -> bool {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = used.saturating_add(bytes) <= self.bytes_max;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn full(&self, what: &'static str) -> Rejection {
        Rejection::Overloaded {
            what,
            used: self.used.load(Ordering::Relaxed),
            bound: self.bytes_max,
            unit: "bytes",
        }
    }
}

/// Memory shared by all arriving requests of a port.
#[derive(Debug)]
pub struct ReceiveMemory {
    general: Pool,
    /// For requests of at most [`SMALL_BYTES_MAX`] alone.
    reserve: Pool,
    connection_max: usize,
}

impl ReceiveMemory {
    /// Memory of `bytes_max` bytes, a quarter of it for small requests. A request of `request_max` bytes fits
    /// when it is alone.
    pub fn new(bytes_max: usize, request_max: usize) -> Arc<ReceiveMemory> {
        let pool = |bytes_max| Pool {
            used: AtomicUsize::new(0),
            bytes_max,
        };
        Arc::new(ReceiveMemory {
            general: pool((bytes_max - bytes_max / 4).max(request_max)),
            reserve: pool((bytes_max / 4).max(SMALL_BYTES_MAX)),
            connection_max: (bytes_max / 4).max(request_max),
        })
    }

    /// The share of one connection.
    pub fn connection(self: &Arc<ReceiveMemory>, held: Arc<ConnectionBytes>) -> ConnectionMemory {
        ConnectionMemory {
            memory: Arc::clone(self),
            held,
        }
    }

    /// Bytes held now.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.general.used.load(Ordering::Relaxed) + self.reserve.used.load(Ordering::Relaxed)
    }
}

/// Bytes that the arriving requests of one connection hold.
#[derive(Debug, Default)]
pub struct ConnectionBytes(AtomicUsize);

/// The memory as one connection sees it.
#[derive(Clone, Debug)]
pub struct ConnectionMemory {
    memory: Arc<ReceiveMemory>,
    held: Arc<ConnectionBytes>,
}

/// The part of the memory that one request holds; dropping it returns the part.
#[derive(Debug)]
pub struct ReceiveShare {
    of: ConnectionMemory,
    general: usize,
    reserve: usize,
}

impl ReceiveShare {
    /// An empty share.
    pub fn new(of: &ConnectionMemory) -> ReceiveShare {
        ReceiveShare {
            of: of.clone(),
            general: 0,
            reserve: 0,
        }
    }

    /// The memory that it is a part of.
    pub fn memory(&self) -> &ConnectionMemory {
        &self.of
    }

    /// Grows to `bytes` in all; without enough memory the share keeps its size.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Rejection> {
        let more = bytes.saturating_sub(self.general + self.reserve);
        if more == 0 {
            return Ok(());
        }
        let ConnectionMemory { memory, held } = &self.of;
        let before = held.0.fetch_add(more, Ordering::Relaxed);
        let grown = if before.saturating_add(more) > memory.connection_max {
            Err(Rejection::Overloaded {
                what: "the receive memory of this connection",
                used: before,
                bound: memory.connection_max,
                unit: "bytes",
            })
        } else {
            self.take(bytes, more)
        };
        if grown.is_err() {
            self.of.held.0.fetch_sub(more, Ordering::Relaxed);
        }
        grown
    }

    fn take(&mut self, bytes: usize, more: usize) -> Result<(), Rejection> {
        let ReceiveMemory { general, reserve, .. } = &*self.of.memory;
        if bytes <= SMALL_BYTES_MAX {
            if general.take(more) {
                self.general += more;
            } else if reserve.take(more) {
                self.reserve += more;
            } else {
                return Err(reserve.full("the receive memory"));
            }
        } else {
            // A request that outgrows the reserve leaves it.
            if !general.take(more + self.reserve) {
                return Err(general.full("the receive memory"));
            }
            reserve.release(self.reserve);
            self.general += more + self.reserve;
            self.reserve = 0;
        }
        Ok(())
    }
}

impl Drop for ReceiveShare {
    fn drop(&mut self) {
        let ConnectionMemory { memory, held } = &self.of;
        memory.general.release(self.general);
        memory.reserve.release(self.reserve);
        held.0.fetch_sub(self.general + self.reserve, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn share(memory: &Arc<ReceiveMemory>) -> ReceiveShare {
        ReceiveShare::new(&memory.connection(Arc::default()))
    }

    fn is_full(grown: Result<(), Rejection>, text: &str) {
        let refused = grown.expect_err(text).to_string();
        assert!(refused.starts_with(text), "{refused}");
    }

    #[test]
    fn a_share_beyond_the_memory_is_refused_and_all_of_it_returns() {
        let memory = ReceiveMemory::new(4 * MIB, MIB);
        let (mut one, mut two) = (share(&memory), share(&memory));
        let mut three = share(&memory);
        for part in [&mut one, &mut two, &mut three] {
            assert_eq!(part.grow(MIB), Ok(()));
        }
        is_full(share(&memory).grow(MIB), "the receive memory is full");
        assert_eq!(one.grow(10), Ok(()), "a share never shrinks");
        assert_eq!(memory.held(), 3 * MIB);
        drop(one);
        assert_eq!(share(&memory).grow(MIB), Ok(()));
        drop((two, three));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn small_requests_have_a_reserve_that_large_ones_cannot_take() {
        let memory = ReceiveMemory::new(4 * MIB, MIB);
        let mut large: Vec<_> = (0..3).map(|_| share(&memory)).collect();
        for part in &mut large {
            part.grow(MIB).unwrap();
        }
        let mut small: Vec<_> = (0..16).map(|_| share(&memory)).collect();
        for part in &mut small {
            part.grow(SMALL_BYTES_MAX).unwrap();
        }
        is_full(share(&memory).grow(1), "the receive memory is full");
        is_full(small[0].grow(SMALL_BYTES_MAX + 1), "the receive memory is full");
        large.pop();
        assert_eq!(small[0].grow(SMALL_BYTES_MAX + 1), Ok(()));
        assert_eq!(small[0].reserve, 0, "what outgrows the reserve leaves it");
        assert_eq!(share(&memory).grow(SMALL_BYTES_MAX), Ok(()));
        drop((large, small));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn a_connection_has_a_quarter_or_one_request() {
        let memory = ReceiveMemory::new(8 * MIB, MIB);
        let connection = memory.connection(Arc::default());
        let (mut one, mut two) = (ReceiveShare::new(&connection), ReceiveShare::new(&connection));
        assert_eq!(one.grow(MIB), Ok(()));
        assert_eq!(two.grow(MIB), Ok(()));
        let mut three = ReceiveShare::new(&connection);
        is_full(three.grow(1), "the receive memory of this connection is full");
        drop(one);
        assert_eq!(three.grow(MIB), Ok(()));
        let memory = ReceiveMemory::new(MIB, MIB);
        assert_eq!(share(&memory).grow(MIB), Ok(()), "the largest request fits alone");
    }
}
