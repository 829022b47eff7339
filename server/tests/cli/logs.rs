//! Tests of a server whose log lines cannot be written: it serves on, and loses no request at its end.

use std::fs::OpenOptions;
use std::io::{PipeReader, Read, pipe};
use std::process::{Command, Stdio};

use super::serving::{INFER, ONE_TEXT, Serving, exchange, get, post, serve};
use super::wait_for;

/// Health and requests are answered. A request that is inside when SIGTERM comes is answered, and the exit
/// code is 0.
fn check(mut command: Command, loses_lines: bool) {
    let mut server = Serving::start(&mut command);
    for _ in 0..20 {
        assert_eq!(server.infer(ONE_TEXT).0, 200);
        assert_eq!(get(&server.http, "/v2/health/live").0, 200);
        assert_eq!(get(&server.metrics, "/health").0, 200);
    }
    if loses_lines {
        wait_for(|| server.metric("penstock_log_lines_lost_total") > 0.0);
    }
    let text = format!("\"{}\"", "a fine film ".repeat(200));
    let data = vec![text; 16].join(",");
    let many = format!(r#"{{"inputs":[{{"name":"text","datatype":"BYTES","shape":[16],"data":[{data}]}}]}}"#);
    let request = post(INFER, &many);
    let addr = server.http.clone();
    let waiting = std::thread::spawn(move || exchange(&addr, &request).0);
    wait_for(|| {
        let (_, page) = get(&server.metrics, "/metrics");
        let inside = |line: &str| line.starts_with("penstock_queue_depth{") && !line.ends_with(" 0");
        page.lines().any(inside)
    });
    server.signal("TERM");
    assert_eq!(waiting.join().unwrap(), 200, "the accepted request is answered");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_full_disk_below_the_log_ends_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = serve(&["--log", "debug"]);
    command.stderr(full);
    check(command, true);
}

#[test]
fn a_pipe_that_nobody_reads_stops_nothing() {
    let (reader, writer) = pipe().unwrap();
    // Fills pipe and queue at once.
    let mut command = serve(&["--log", "trace"]);
    command.stderr(writer);
    check(command, true);
    drop::<PipeReader>(reader);
}

#[test]
fn a_log_reader_that_has_left_ends_nothing() {
    let (reader, writer) = pipe().unwrap();
    let mut command = serve(&[]);
    command.stderr(writer);
    drop(reader);
    check(command, true);
}

#[test]
fn a_closed_stderr_ends_nothing() {
    let served = serve(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&-", "sh"]);
    command.arg(served.get_program()).args(served.get_args());
    check(command, false);
}

#[test]
fn the_last_lines_are_written_before_the_process_ends() {
    let mut server = Serving::start(serve(&["--log-format", "json"]).stderr(Stdio::piped()));
    let mut stderr = server.child.stderr.take().unwrap();
    assert_eq!(server.infer(ONE_TEXT).0, 200);
    assert_eq!(server.stop(), Some(0));
    let mut log = String::new();
    stderr.read_to_string(&mut log).unwrap();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("\"drained\""), "{log}");
}
