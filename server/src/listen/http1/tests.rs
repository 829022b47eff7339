//! Tests of connections that stall, flood or end early.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::super::listener::testing::{bounded, bounded_by};
use super::*;

fn refuse(full: &Rejection) -> Response<axum::body::Body> {
    let mut refused = Response::new(full.to_string().into());
    *refused.status_mut() = axum::http::StatusCode::SERVICE_UNAVAILABLE;
    refused
}

const LONG: Duration = Duration::from_secs(20);

const BOUNDS: ConnectionBounds = ConnectionBounds {
    head_timeout: LONG,
    stall_timeout: LONG,
    drain_silence_max: Duration::from_millis(20),
};

/// A server on a free port, and the switch that shuts it down.
struct Running {
    addr: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

async fn start(app: Router, bounds: ConnectionBounds) -> Running {
    start_with(app, bounds, 8).await
}

async fn start_with(app: Router, bounds: ConnectionBounds, connections_max: usize) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    run(app, bounds, bounded(listener, connections_max))
}

fn run(app: Router, bounds: ConnectionBounds, listener: BoundedListener) -> Running {
    let addr = listener.local_addr();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(accept(listener, app, bounds, refuse, async {
        let _ = stopped.await;
    }));
    Running { addr, stop, served }
}

async fn send(stream: &TcpStream, bytes: &[u8]) {
    let mut left = bytes;
    while !left.is_empty() {
        stream.ready(Interest::WRITABLE).await.unwrap();
        match stream.try_write(left) {
            Ok(n) => left = &left[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// All bytes up to the end of the connection.
async fn drain(stream: &TcpStream) -> String {
    let mut all = Vec::new();
    let mut buf = [0; 4096];
    let read = async {
        loop {
            stream.ready(Interest::READABLE).await.unwrap();
            match stream.try_read(&mut buf) {
                Ok(0) => return,
                Ok(n) => all.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    timeout(LONG, read).await.expect("the connection ends");
    String::from_utf8_lossy(&all).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[tokio::test]
async fn a_head_that_is_never_complete_ends_the_connection() {
    let running = start(
        hello(),
        ConnectionBounds {
            head_timeout: Duration::from_millis(50),
            ..BOUNDS
        },
    )
    .await;
    let slow = TcpStream::connect(running.addr).await.unwrap();
    send(&slow, b"GET / HTTP/1.1\r\nx-slow: ").await;
    assert!(!drain(&slow).await.contains("200 OK"));
    let quick = TcpStream::connect(running.addr).await.unwrap();
    send(&quick, LAST).await;
    assert!(drain(&quick).await.ends_with("hello"));
}

#[tokio::test]
async fn a_connection_beyond_the_bound_waits_for_one_to_end() {
    let running = start_with(hello(), BOUNDS, 1).await;
    let first = TcpStream::connect(running.addr).await.unwrap();
    send(&first, GET).await;
    first.ready(Interest::READABLE).await.unwrap();
    let second = TcpStream::connect(running.addr).await.unwrap();
    send(&second, LAST).await;
    let early = timeout(Duration::from_millis(50), second.ready(Interest::READABLE)).await;
    assert!(early.is_err(), "the second must wait for the first");
    drop(first);
    assert!(drain(&second).await.ends_with("hello"));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let ended = watch::Sender::new(false);
    let endless = {
        let ended = ended.clone();
        move || {
            let guard = OnDrop(ended.clone());
            async move {
                let chunks = futures_util::stream::unfold(guard, |guard| async {
                    Some((Ok::<_, std::io::Error>(vec![b'x'; 1 << 16]), guard))
                });
                Body::from_stream(chunks)
            }
        }
    };
    let app = Router::new().route("/", get(endless));
    let running = start(
        app,
        ConnectionBounds {
            stall_timeout: Duration::from_millis(50),
            ..BOUNDS
        },
    )
    .await;
    let client = TcpStream::connect(running.addr).await.unwrap();
    send(&client, GET).await;
    let mut seen = ended.subscribe();
    timeout(LONG, seen.wait_for(|ended| *ended))
        .await
        .expect("the answer is given up")
        .unwrap();
    drop(client);
}

struct OnDrop(watch::Sender<bool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// A handler that reports its start and its drop, and answers on command.
fn patient() -> (
    Router,
    mpsc::Receiver<()>,
    watch::Sender<bool>,
    watch::Sender<bool>,
    Arc<AtomicUsize>,
) {
    let (began, begun) = mpsc::channel(4);
    let (go, dropped) = (watch::Sender::new(false), watch::Sender::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let app = {
        let (go, dropped, answered) = (go.clone(), dropped.clone(), Arc::clone(&answered));
        Router::new().route(
            "/",
            get(move || {
                let (began, mut go, answered) = (began.clone(), go.subscribe(), Arc::clone(&answered));
                let guard = OnDrop(dropped.clone());
                async move {
                    began.send(()).await.unwrap();
                    go.wait_for(|go| *go).await.unwrap();
                    answered.fetch_add(1, Ordering::SeqCst);
                    drop(guard);
                    "done"
                }
            }),
        )
    };
    (app, begun, go, dropped, answered)
}

#[tokio::test]
async fn a_client_that_leaves_drops_its_request() {
    let (app, mut begun, _go, dropped, answered) = patient();
    let running = start(app, BOUNDS).await;
    let client = TcpStream::connect(running.addr).await.unwrap();
    send(&client, GET).await;
    begun.recv().await.unwrap();
    drop(client);
    let mut seen = dropped.subscribe();
    timeout(LONG, seen.wait_for(|dropped| *dropped))
        .await
        .expect("the handler is dropped")
        .unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_shutdown_answers_read_requests_and_closes_idle_connections() {
    let (app, mut begun, go, _dropped, _answered) = patient();
    let running = start(app, BOUNDS).await;
    let idle = TcpStream::connect(running.addr).await.unwrap();
    let busy = TcpStream::connect(running.addr).await.unwrap();
    send(&busy, GET).await;
    begun.recv().await.unwrap();
    running.stop.send(()).unwrap();
    drain(&idle).await;
    let mut served = running.served;
    assert!(
        timeout(Duration::from_millis(50), &mut served).await.is_err(),
        "a request is still inside"
    );
    assert!(
        TcpStream::connect(running.addr).await.is_err(),
        "nothing new is accepted"
    );
    go.send_replace(true);
    assert!(drain(&busy).await.ends_with("done"));
    timeout(LONG, served).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_half_a_head_or_half_a_body() {
    let app = Router::new().route("/", axum::routing::post(|body: String| async { body }));
    let running = start(app, BOUNDS).await;
    let head = TcpStream::connect(running.addr).await.unwrap();
    send(&head, b"GET / HTTP/1.1\r\nHo").await;
    let body = TcpStream::connect(running.addr).await.unwrap();
    send(
        &body,
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    )
    .await;
    running.stop.send(()).unwrap();
    timeout(LONG, running.served).await.expect("it ends").unwrap();
    drain(&head).await;
    drain(&body).await;
}

#[tokio::test]
async fn while_unread_answers_fill_the_memory_requests_are_refused_until_their_client_is_cut() {
    const LARGE: usize = 64 << 20;
    let app = hello().route("/large", get(|| async { vec![b'x'; LARGE] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = run(app, BOUNDS, bounded_by(listener, 8, LARGE / 2));
    let idle = TcpStream::connect(running.addr).await.unwrap();
    send(&idle, b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.ready(Interest::READABLE).await.unwrap();
    let mut answers = vec![503, 200];
    let asked = async {
        while let Some(&wanted) = answers.first() {
            let client = TcpStream::connect(running.addr).await.unwrap();
            send(&client, LAST).await;
            let answer = drain(&client).await;
            if answer.starts_with(&format!("HTTP/1.1 {wanted} ")) {
                assert_eq!(
                    answer.contains("have not read is full"),
                    wanted == 503,
                    "{answer}"
                );
                answers.remove(0);
            }
        }
    };
    timeout(LONG, asked).await.expect("refused, and then answered");
    // The rest of the answer lies in the buffers of the system.
    assert!(drain(&idle).await.len() < LARGE);
}

#[tokio::test]
async fn an_answer_that_is_read_is_whole() {
    const LARGE: usize = 64 << 20;
    let app = Router::new().route("/", get(|| async { vec![b'x'; LARGE] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = run(app, BOUNDS, bounded_by(listener, 8, LARGE / 2));
    let client = TcpStream::connect(running.addr).await.unwrap();
    send(&client, LAST).await;
    let answer = drain(&client).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
    assert!(answer.contains("content-length: 67108864"));
    assert!(answer.len() > LARGE);
}

#[tokio::test]
async fn heads_that_other_parsers_read_otherwise_are_refused() {
    let large = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    let chunked = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let second = "GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\nhost: x\n\n";
    let running = start(hello(), BOUNDS).await;
    for (request, statuses) in [
        (std::str::from_utf8(LAST).unwrap(), &["200"][..]),
        ("GET / HTTP/1.0\r\n\r\n", &["200"]),
        ("GET / HTTP/1.1\r\n\r\n", &["503"]),
        (chunked, &["503"]),
        ("GET / HTTP/1.1\nhost: x\r\n\r\n", &["400"]),
        ("GET / HTTP/1.1\r\nhost: x\n\r\n", &["400"]),
        (second, &["200", "400"]),
        (&large, &["431"]),
    ] {
        let client = TcpStream::connect(running.addr).await.unwrap();
        send(&client, request.as_bytes()).await;
        let answer = drain(&client).await;
        // The text of a refusal names HTTP/1.1 too; a status is a number.
        let found: Vec<&str> = answer
            .split("HTTP/1.")
            .skip(1)
            .filter(|rest| rest.as_bytes()[2].is_ascii_digit())
            .map(|rest| &rest[2..5])
            .collect();
        // The refusal of these tests is always 503.
        assert_eq!(found, statuses, "{request:.100}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_has_the_id_of_its_request() {
    let running = start(hello(), BOUNDS).await;
    let client = TcpStream::connect(running.addr).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nx-request-id: abc-123\r\nconnection: close\r\n\r\n";
    send(&client, request).await;
    assert!(drain(&client).await.contains("\r\nx-request-id: abc-123\r\n"));
}
