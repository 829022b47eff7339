//! Tests of a server whose clients hold connections and say nothing, or too little.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::serving::{ONE_TEXT, Serving, connect, get, serve};
use super::wait_for;

/// A client that begins HTTP/2 with an empty SETTINGS frame.
const HTTP2_BEGUN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn hold(addr: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(addr);
    stream.write_all(bytes).unwrap();
    stream
}

#[test]
fn a_shutdown_does_not_wait_for_clients_that_say_nothing() {
    let server = Serving::start(&mut serve(&["--drain-timeout", "10m"]));
    let half_body = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let held = [
        hold(&server.grpc, b""),
        hold(&server.grpc, b"P"),
        hold(&server.grpc, HTTP2_BEGUN),
        hold(&server.http, b""),
        hold(&server.http, b"GET / HTTP/1.1\r\nHo"),
        hold(&server.http, half_body),
        hold(&server.metrics, b"GET /metrics HTTP/1.1\r\n"),
    ];
    assert_eq!(server.infer(ONE_TEXT).0, 200);
    let stopping = Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(stopping.elapsed() < Duration::from_mins(5), "the drain waited");
    drop(held);
}

/// The server under a limit of open files; `limit` is an argument of `ulimit`.
fn limited(limit: &str) -> Command {
    let served = serve(&["--log-format", "json"]);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"]);
    command.arg(served.get_program()).args(served.get_args());
    command
}

#[test]
fn the_metrics_port_is_reachable_while_clients_hold_all_other_connections() {
    let mut server = Serving::start(limited("-n 256").stderr(Stdio::piped()));
    let held: Vec<TcpStream> = (0..200).map(|_| connect(&server.http)).collect();
    // 256 files less 32 for others and 32 for the metrics port, on two ports; the rest waits in the backlog.
    wait_for(|| (server.metric("penstock_connections{port=\"http\"}") - 96.0).abs() < 0.5);
    for path in ["/v2/health/live", "/v2/health/ready", "/health", "/metrics"] {
        assert_eq!(get(&server.metrics, path).0, 200, "{path}");
    }
    drop(held);
    assert_eq!(server.infer(ONE_TEXT).0, 200);
    let mut stderr = server.child.stderr.take().unwrap();
    assert_eq!(server.stop(), Some(0));
    let mut log = String::new();
    stderr.read_to_string(&mut log).unwrap();
    let warned = log
        .lines()
        .find(|line| line.contains("too few files"))
        .unwrap_or_default();
    for number in [
        "\"limit\":256",
        "\"connections_max\":1024",
        "\"needed\":2144",
        "\"connections\":96",
    ] {
        assert!(warned.contains(number), "{number} is not in {warned:?} of {log}");
    }
    assert!(!log.contains("no connection can be accepted"), "{log}");
}

#[test]
fn the_soft_limit_of_open_files_is_raised() {
    let server = Serving::start(&mut limited("-Sn 128"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let [soft, hard] = [3, 4].map(|column| files.split_whitespace().nth(column).unwrap());
    assert_eq!(soft, hard, "{files}");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn an_address_has_no_more_connections_than_its_setting_allows() {
    let server = Serving::start(&mut serve(&["--connections-per-address-max", "2"]));
    let (first, second) = (connect(&server.http), connect(&server.http));
    wait_for(|| server.metric("penstock_connections{port=\"http\"}") > 1.5);
    assert_eq!(
        connect(&server.http).read(&mut [0; 1]).unwrap(),
        0,
        "the third is closed"
    );
    assert!(server.metric("penstock_connections_refused_total{port=\"http\"}") > 0.5);
    drop(first);
    wait_for(|| server.metric("penstock_connections{port=\"http\"}") < 1.5);
    assert_eq!(server.infer(ONE_TEXT).0, 200);
    drop(second);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn half_sent_bodies_hold_no_memory_that_others_need() {
    let limits = ["--queue-bytes-max", "4MiB", "--max-request-bytes", "1MiB"];
    let server = Serving::start(&mut serve(&limits));
    let head = b"POST /v2/models/sentiment/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n";
    let half = [&head[..], &vec![b' '; (1 << 20) - 1]].concat();
    let mut held: Vec<TcpStream> = (0..3).map(|_| hold(&server.http, &half)).collect();
    // Three of them take what is not reserved for small requests; a fourth is refused.
    let mut refused = String::new();
    while !refused.contains("the receive memory is full") {
        refused.clear();
        hold(&server.http, &half).read_to_string(&mut refused).unwrap();
    }
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert_eq!(server.infer(ONE_TEXT).0, 200, "small requests have a reserve");
    for stream in &mut held {
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_eq!(server.stop(), Some(0));
}
