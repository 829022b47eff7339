//! The thread that writes log lines. Its queue is bounded, so lines are lost rather than a caller made to wait.
//!
//! `tracing-appender` does the same with two differences that matter here. It does not count the lines that
//! fail to be written, and its guard prints to stdout where the queue is full, which panics without a stdout.

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written.
const LINES_MAX: usize = 8192;
/// Bytes of these lines.
const BYTES_MAX: usize = 8 << 20;
/// Wait for a descriptor that another process made non-blocking, and that is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

enum Entry {
    Line(Vec<u8>),
    /// Reports that every earlier line is written or lost.
    Flush(Sender<()>),
}

/// Counts of the lines of one writer.
#[derive(Debug, Default)]
struct Counts {
    queued_bytes: AtomicUsize,
    lost: AtomicU64,
}

/// A writer that never blocks and never fails. Clones share one thread.
#[derive(Clone, Debug)]
pub(super) struct LineWriter {
    lines: Sender<Entry>,
    counts: Arc<Counts>,
}

impl LineWriter {
    /// Starts a thread that writes to `out`.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<LineWriter> {
        let (lines, queue) = bounded(LINES_MAX);
        let counts = Arc::new(Counts::default());
        let written = Arc::clone(&counts);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&queue, out, &written))?;
        Ok(LineWriter { lines, counts })
    }

    /// Adds a line, or counts it as lost if the queue is full.
    pub fn line(&self, line: &[u8]) {
        let queued = self.counts.queued_bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = queued.saturating_add(line.len()) <= BYTES_MAX;
        if !fits || self.lines.try_send(Entry::Line(line.to_vec())).is_err() {
            self.counts.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were not written.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Waits until every earlier line is written or lost, for at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let (done, flushed) = bounded(1);
        if self.lines.send_deadline(Entry::Flush(done), until).is_ok() {
            // Lines that are not written by then end with the process.
            let _ = flushed.recv_deadline(until);
        }
    }
}

/// One call is one whole line, as tracing's formatter writes it.
impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        self.clone()
    }
}

fn write_lines(queue: &Receiver<Entry>, mut out: impl Write, counts: &Counts) {
    let mut told = 0;
    for entry in queue {
        match entry {
            Entry::Line(line) => {
                let written = write_whole(&mut out, &line);
                counts.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                if written.is_err() {
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                } else if queue.is_empty() {
                    // Lines arrive again, so the gap can be told. The line takes the usual way and has the usual form.
                    let lost = counts.lost.load(Ordering::Relaxed);
                    if lost > told {
                        tracing::warn!(lost = lost - told, "log lines were lost before this one");
                        told = lost;
                    }
                }
            }
            // A caller that has stopped waiting needs no report.
            Entry::Flush(done) => drop(done.try_send(())),
        }
    }
}

fn write_whole(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The standard error without its lock. A thread that panics takes that lock, and would wait for a blocked write.
pub(super) struct RawStderr;

impl Write for RawStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
