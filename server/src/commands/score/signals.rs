//! Signals that stop a job: the first one orderly, the second one at once.

use std::fmt;
use std::future::{pending, poll_fn};
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::output::Unfinished;
use super::say;
use crate::app::AppError;

/// A signal that stops a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// The terminal was closed.
    Hangup,
    /// Ctrl-C.
    Interrupt,
    /// The usual stop request of a supervisor.
    Terminate,
}

impl StopSignal {
    const ALL: [StopSignal; 3] = [StopSignal::Hangup, StopSignal::Interrupt, StopSignal::Terminate];

    fn kind(self) -> SignalKind {
        match self {
            StopSignal::Hangup => SignalKind::hangup(),
            StopSignal::Interrupt => SignalKind::interrupt(),
            StopSignal::Terminate => SignalKind::terminate(),
        }
    }

    /// 128 plus the signal's number, as a shell reports it.
    pub fn exit_code(self) -> u8 {
        128 + match self {
            StopSignal::Hangup => 1,
            StopSignal::Interrupt => 2,
            StopSignal::Terminate => 15,
        }
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopSignal::Hangup => "SIGHUP",
            StopSignal::Interrupt => "SIGINT",
            StopSignal::Terminate => "SIGTERM",
        })
    }
}

/// Stop signals of this process. While this value exists, they do not end the process by themselves.
pub(super) struct Signals {
    stops: Vec<(StopSignal, Signal)>,
    /// With a handler, a file that reaches its size limit is an error of the write, not the end of the process.
    _file_size: Signal,
}

impl Signals {
    /// Takes over the signals that are not ignored. A signal that comes from now on is not lost.
    pub(super) fn take_over() -> Result<Signals, AppError> {
        let ignored = ignored();
        let failed = |source| AppError::Start {
            what: "the signal handlers",
            source,
        };
        let file_size = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        let _file_size = signal(file_size).map_err(failed)?;
        let stops = StopSignal::ALL
            .into_iter()
            .filter(|stop| ignored & (1 << (stop.kind().as_raw_value() - 1)) == 0)
            .map(|stop| Ok((stop, signal(stop.kind())?)))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(failed)?;
        Ok(Signals { stops, _file_size })
    }

    /// Forwards the first signal. The second one removes the `unfinished` file and ends the process.
    pub(super) fn listen(mut self, unfinished: Unfinished) -> StopReceiver {
        let (stop, requested) = watch::channel(None);
        tokio::spawn(async move {
            let first = self.next().await;
            say(&format!(
                "penstock: stopping after {first}; a second signal ends the job at once"
            ));
            // The receiver is gone when the job is done.
            let _ = stop.send(Some(first));
            let second = self.next().await;
            unfinished.remove();
            say(&format!("penstock: ended at once by a second signal, {second}"));
            std::process::exit(second.exit_code().into());
        });
        StopReceiver(requested)
    }

    async fn next(&mut self) -> StopSignal {
        poll_fn(|context| {
            for (stop, signal) in &mut self.stops {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*stop);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Request to stop.
pub(super) struct StopReceiver(watch::Receiver<Option<StopSignal>>);

impl StopReceiver {
    /// Waits for the first signal; later calls return at once.
    pub(super) async fn requested(&mut self) -> StopSignal {
        if let Ok(stop) = self.0.wait_for(Option::is_some).await
            && let Some(stop) = *stop
        {
            return stop;
        }
        // The listener is gone without a signal.
        pending().await
    }
}

/// Bit `n - 1` is set if signal `n` is ignored. `nohup` ignores SIGHUP, and a script's shell ignores SIGINT
/// for background jobs; such jobs must continue. A system without this information ignores none.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
