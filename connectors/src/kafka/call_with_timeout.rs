//! Client calls that may never return, made on a separate thread with a timeout.
//!
//! librdkafka documents timeouts for most of its calls, but some do not keep them.
//! `send_offsets_to_transaction` waits for the group's coordinator without a bound (librdkafka issues 5456
//! and 5511). A client's end waits for its own threads.

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

/// Interval between two calls of `meanwhile`.
const LOOK: Duration = Duration::from_millis(100);

type Call = Box<dyn FnOnce() + Send>;

/// A thread that makes one call after the other.
pub struct TimedCalls {
    calls: Sender<Call>,
}

/// A call that has not returned, or whose thread died. Its captures stay until it returns.
#[derive(Clone, Copy, Debug)]
pub struct Stuck;

impl TimedCalls {
    /// Starts the thread. It ends when its handle is dropped and its last call has returned.
    pub fn start(name: String) -> std::io::Result<TimedCalls> {
        let (calls, waiting) = bounded::<Call>(1);
        let each = move || waiting.iter().for_each(|call| call());
        std::thread::Builder::new().name(name).spawn(each)?;
        Ok(TimedCalls { calls })
    }

    /// Result of `call`, unless it takes longer than `bound`. `meanwhile` runs at intervals until then.
    pub fn call<T: Send + 'static>(
        &self,
        bound: Duration,
        call: impl FnOnce() -> T + Send + 'static,
        mut meanwhile: impl FnMut(),
    ) -> Result<T, Stuck> {
        let (done, returned) = bounded(1);
        // After a timeout the receiver is gone.
        let call = move || drop(done.send(call()));
        self.calls.try_send(Box::new(call)).map_err(|_| Stuck)?;
        let by = Instant::now() + bound;
        loop {
            let left = by.saturating_duration_since(Instant::now());
            match returned.recv_timeout(left.min(LOOK)) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => meanwhile(),
                Err(_) => return Err(Stuck),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_return_have_a_result_and_others_are_abandoned() {
        let apart = TimedCalls::start("apart".into()).unwrap();
        assert_eq!(apart.call(Duration::from_mins(1), || 7, || ()).unwrap(), 7);
        let (open, gate) = bounded::<()>(0);
        let mut looks = 0;
        let wait = move || gate.recv().is_ok();
        let stuck = apart.call(Duration::from_millis(250), wait, || looks += 1);
        assert!(stuck.is_err() && looks > 0);
        // Its thread takes the next call as soon as this one returns.
        open.send(()).unwrap();
        assert_eq!(apart.call(Duration::from_mins(1), || 8, || ()).unwrap(), 8);
    }

    #[test]
    fn a_call_that_panics_is_no_hang() {
        let apart = TimedCalls::start("apart".into()).unwrap();
        let dies = || panic!("on purpose");
        let since = Instant::now();
        assert!(apart.call(Duration::from_mins(1), dies, || ()).is_err());
        assert!(since.elapsed() < Duration::from_secs(30));
    }
}
