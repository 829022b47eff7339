//! Tests of connections whose client is silent, at the beginning and during a shutdown.

use std::io::ErrorKind;

use axum::Router;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::super::listener::testing::{bounded, bounded_by};
use super::*;

fn refuse(full: &Rejection) -> Response<axum::body::Body> {
    let mut refused = Response::new(full.to_string().into());
    *refused.status_mut() = axum::http::StatusCode::SERVICE_UNAVAILABLE;
    refused
}

const LONG: Duration = Duration::from_secs(20);

const BOUNDS: Http2Bounds = Http2Bounds {
    streams_max: 8,
    handshake_timeout: LONG,
    drain_silence_max: Duration::from_millis(50),
};

const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

struct Running {
    addr: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

async fn start(app: Router, bounds: Http2Bounds) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    run(app, bounds, bounded(listener, 16))
}

fn run(app: Router, bounds: Http2Bounds, listener: BoundedListener) -> Running {
    let addr = listener.local_addr();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(accept(listener, app, bounds, refuse, async {
        let _ = stopped.await;
    }));
    Running { addr, stop, served }
}

async fn client(running: &Running, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(first).await.unwrap();
    stream
}

/// Waits for the end of the connection.
async fn ends(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut rest));
    match read.await.expect("the connection ends") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

fn preface(more: &[u8]) -> Vec<u8> {
    [PREFACE, more].concat()
}

#[test]
fn a_handshake_is_the_preface_and_a_whole_settings_frame() {
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
    let whole = preface(&settings);
    for end in 0..whole.len() {
        assert!(!has_begun(&whole[..end]), "{end} bytes");
    }
    assert!(has_begun(&whole));
    assert!(has_begun(&preface(EMPTY_SETTINGS)));
    assert!(has_begun(b"GET / HTTP/1.1\r\n"), "hyper refuses it");
    assert!(
        has_begun(&preface(&[1, 0, 0, 4, 0, 0, 0, 0, 0])),
        "hyper refuses it"
    );
}

#[tokio::test]
async fn a_client_that_does_not_finish_the_handshake_in_time_is_cut() {
    let bounds = Http2Bounds {
        handshake_timeout: Duration::from_millis(50),
        ..BOUNDS
    };
    let running = start(Router::new(), bounds).await;
    let begun = client(&running, &preface(EMPTY_SETTINGS)).await;
    for first in [
        &[][..],
        b"P",
        &PREFACE[..10],
        PREFACE,
        &preface(&EMPTY_SETTINGS[..5]),
    ] {
        ends(client(&running, first).await).await;
    }
    // The others took their time, and this one is still answered.
    let mut begun = begun;
    begun
        .write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
        .await
        .unwrap();
    let mut seen = Vec::new();
    while !seen.windows(8).any(|bytes| bytes == [1, 2, 3, 4, 5, 6, 7, 8]) {
        let read = timeout(LONG, begun.read_buf(&mut seen)).await;
        assert_ne!(read.expect("an answer to the ping").unwrap(), 0);
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_silent_clients() {
    let running = start(Router::new(), BOUNDS).await;
    let silent = client(&running, b"").await;
    let half = client(&running, &PREFACE[..10]).await;
    // Answers neither the GOAWAY nor the ping that comes with it.
    let mut idle = client(&running, &preface(EMPTY_SETTINGS)).await;
    idle.read_u8().await.unwrap();
    running.stop.send(()).unwrap();
    timeout(LONG, running.served).await.expect("it ends").unwrap();
    for stream in [silent, half, idle] {
        ends(stream).await;
    }
}

/// HEADERS of a POST to `/`, all fields from the static table or literal.
fn post_headers(flags: u8) -> Vec<u8> {
    // :method POST, :scheme http, :path /, :authority x
    let block = [0x83, 0x86, 0x84, 0x41, 0x01, b'x'];
    [&[0, 0, block.len() as u8, 1, 4 | flags, 0, 0, 0, 1], &block[..]].concat()
}

#[tokio::test]
async fn a_shutdown_waits_for_a_handler_and_not_for_a_body() {
    let (began, mut begun) = watch::channel(0);
    let (go, going) = watch::channel(false);
    let handler = move |body: axum::body::Body| {
        let (began, mut going) = (began.clone(), going.clone());
        async move {
            began.send_modify(|n| *n += 1);
            let read = axum::body::to_bytes(body, 1024).await;
            began.send_modify(|n| *n += 1);
            going.wait_for(|go| *go).await.unwrap();
            read.map(drop).map_err(|_| axum::http::StatusCode::BAD_REQUEST)
        }
    };
    let running = start(Router::new().route("/", post(handler)), BOUNDS).await;
    let working = client(&running, &[preface(EMPTY_SETTINGS), post_headers(1)].concat()).await;
    begun.wait_for(|n| *n == 2).await.unwrap();
    let half_sent = client(&running, &[preface(EMPTY_SETTINGS), post_headers(0)].concat()).await;
    begun.wait_for(|n| *n == 3).await.unwrap();
    running.stop.send(()).unwrap();
    ends(half_sent).await;
    // Its silence is as long; the handler is what it is waited for.
    assert!(!running.served.is_finished());
    go.send_replace(true);
    timeout(LONG, running.served).await.expect("it ends").unwrap();
    ends(working).await;
}

#[tokio::test]
async fn a_client_that_grants_no_window_is_cut() {
    let app = Router::new().route("/", post(|| async { vec![b'x'; 1 << 20] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = run(app, BOUNDS, bounded_by(listener, 16, 1 << 20));
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    let no_window = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    ends(client(&running, &[preface(&no_window), post_headers(1)].concat()).await).await;
}
