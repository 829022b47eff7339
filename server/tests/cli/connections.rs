//! Tests of a server whose clients hold connections and say nothing, or too little.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::serving::{ONE_TEXT, Serving, connect, serve};

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
