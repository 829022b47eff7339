//! Tests of a writer whose output is full, gone, or unread.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;

use super::*;

const LONG: Duration = Duration::from_mins(1);

/// An output that reports each write and waits for leave to finish it.
struct Guarded {
    begun: SyncSender<()>,
    leave: Receiver<()>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Guarded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.send(()).unwrap();
        // A dropped sender is leave for all further writes.
        let _ = self.leave.recv();
        self.written.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_takes_nothing_holds_up_nobody_and_the_lost_lines_are_counted() {
    let (begun, begins) = sync_channel(LINES_MAX + 2);
    let (go, leave) = sync_channel(0);
    let written = Arc::new(Mutex::new(Vec::new()));
    let out = Guarded {
        begun,
        leave,
        written: Arc::clone(&written),
    };
    let writer = LineWriter::start(out).unwrap();
    writer.line(b"first\n");
    begins.recv().unwrap();
    for _ in 0..LINES_MAX + 10 {
        writer.line(b"x\n");
    }
    assert_eq!(writer.lost(), 10);
    writer.flush(Duration::from_millis(20));
    assert!(written.lock().is_empty(), "the flush gives up");
    drop(go);
    writer.flush(LONG);
    let text = String::from_utf8(written.lock().clone()).unwrap();
    assert_eq!(text.lines().count(), 1 + LINES_MAX);
    assert_eq!(writer.lost(), 10);
}

#[test]
fn bytes_are_bounded_as_well_as_lines() {
    let (begun, begins) = sync_channel(16);
    let (go, leave) = sync_channel(0);
    let out = Guarded {
        begun,
        leave,
        written: Arc::default(),
    };
    let writer = LineWriter::start(out).unwrap();
    writer.line(&vec![b'a'; BYTES_MAX / 2]);
    begins.recv().unwrap();
    writer.line(&vec![b'b'; BYTES_MAX / 2]);
    writer.line(b"c");
    assert_eq!(writer.lost(), 1);
    drop(go);
    writer.flush(LONG);
    writer.line(b"d");
    writer.flush(LONG);
    assert_eq!(writer.lost(), 1, "written bytes return");
}

struct Failing(ErrorKind, usize, Arc<Mutex<Vec<u8>>>);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1 > 0 {
            self.1 -= 1;
            return Err(self.0.into());
        }
        // A pipe takes part of a line, too.
        let part = bytes.len().div_ceil(2);
        self.2.lock().extend_from_slice(&bytes[..part]);
        Ok(part)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_cannot_be_written_is_lost_and_the_next_one_is_tried() {
    for (kind, lost, expected) in [
        (ErrorKind::StorageFull, 3, "four\n"),
        (ErrorKind::BrokenPipe, 3, "four\n"),
        (ErrorKind::WouldBlock, 0, "one\ntwo\nthree\nfour\n"),
        (ErrorKind::Interrupted, 0, "one\ntwo\nthree\nfour\n"),
    ] {
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = LineWriter::start(Failing(kind, 3, Arc::clone(&written))).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            writer.line(line.as_bytes());
        }
        writer.flush(LONG);
        assert_eq!(writer.lost(), lost, "{kind:?}");
        assert_eq!(
            String::from_utf8(written.lock().clone()).unwrap(),
            expected,
            "{kind:?}"
        );
    }
}
