//! Calls of the client that may never return, made on a thread apart and waited for only so long.
//!
//! librdkafka says of most of its calls how long they take at most, and is wrong about some: it waits without a bound
//! for the group's coordinator in `send_offsets_to_transaction` (its issues 5456 and 5511), and for its own threads
//! when a client ends.

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

/// Between two looks at what else there is to do while a call is out.
const LOOK: Duration = Duration::from_millis(100);

type Call = Box<dyn FnOnce() + Send>;

/// A thread that makes one call after the other.
pub struct TimedCalls {
    calls: Sender<Call>,
}

/// A call has not returned, or its thread died of it. What it holds stays until it returns.
#[derive(Clone, Copy, Debug)]
pub struct Stuck;

impl TimedCalls {
    /// Starts it. It ends when nobody can ask it any more, and its last call has returned.
    pub fn start(name: String) -> std::io::Result<TimedCalls> {
        let (calls, waiting) = bounded::<Call>(1);
        let each = move || waiting.iter().for_each(|call| call());
        std::thread::Builder::new().name(name).spawn(each)?;
        Ok(TimedCalls { calls })
    }

    /// What `call` returns, unless that takes longer than `bound`. `meanwhile` is done now and then until then.
    pub fn call<T: Send + 'static>(
        &self,
        bound: Duration,
        call: impl FnOnce() -> T + Send + 'static,
        mut meanwhile: impl FnMut(),
    ) -> Result<T, Stuck> {
        let (done, returned) = bounded(1);
        // Nobody listens any more where it took too long.
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
    fn what_returns_is_had_and_what_does_not_is_left() {
        let apart = TimedCalls::start("apart".into()).unwrap();
        assert_eq!(apart.call(Duration::from_mins(1), || 7, || ()).unwrap(), 7);
        let (open, gate) = bounded::<()>(0);
        let mut looks = 0;
        let wait = move || gate.recv().is_ok();
        let stuck = apart.call(Duration::from_millis(250), wait, || looks += 1);
        assert!(stuck.is_err() && looks > 0);
        // Its thread goes on with the next call as soon as this one returns.
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
