//! The whole engine behind the wire, with a small real model: versions that come and go, clients that
//! leave, a shutdown in the middle of work.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock::app::Engine;
use penstock::config::{self, DeviceChoice, Settings};
use penstock::device;
use penstock::front::{Call, Front};
use penstock::lane::Room;
use penstock::metrics::Source;
use penstock::repository::ModelState;
use penstock_core::{Class, Rejection};

/// A model repository in Triton's form with one model `m`.
struct Models(tempfile::TempDir);

impl Models {
    fn new() -> Models {
        let models = Models(tempfile::tempdir().expect("a folder"));
        models.add(1);
        models
    }

    fn version(&self, version: u64) -> PathBuf {
        self.0.path().join("m").join(version.to_string())
    }

    fn add(&self, version: u64) {
        let family = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/tests/families/bert-embedding-mean"
        ));
        copy(family, &self.version(version));
    }

    async fn serve(&self) -> Engine {
        let file = self.0.path().join("penstock.toml");
        let path = self.0.path().join("m");
        let text = format!("[[model]]\nname = \"m\"\npath = '{}'\n", path.display());
        std::fs::write(&file, text).expect("written");
        let config = config::load(Some(&file), Settings::default()).expect("a valid configuration");
        let placement =
            device::place(&DeviceChoice::Cpu, config.dtype, penstock_models::probe).expect("a cpu");
        Engine::start(&config, &placement)
            .await
            .expect("a model that loads")
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn call(front: &Front, texts: &[&str]) -> Call {
    Call {
        model: "m".into(),
        version: String::new(),
        texts: texts.iter().map(|&text| text.to_owned()).collect(),
        class: Class::Interactive,
        source: Source::Grpc,
        timeout: None,
        truncate: true,
        room: Room::Refuse,
        received: front.clock().now(),
    }
}

async fn version_of_one(front: &Front) -> Result<String, Rejection> {
    let scored = front.score(call(front, &["one text"])).await?;
    scored.all().map_err(Clone::clone)?;
    Ok(scored.lane.version.clone())
}

/// Scores without a pause until it is told to stop; every version that answered.
async fn traffic(front: Arc<Front>, stop: Arc<AtomicBool>) -> Result<Vec<String>, Rejection> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let version = version_of_one(&front).await?;
        if seen.last() != Some(&version) {
            seen.push(version);
        }
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_takes_over_under_traffic_and_no_request_fails() {
    let models = Models::new();
    let engine = models.serve().await;
    let front = engine.front();
    let stop = Arc::new(AtomicBool::new(false));
    let running = tokio::spawn(traffic(Arc::clone(front), Arc::clone(&stop)));
    version_of_one(front).await.expect("version 1 serves");
    models.add(2);
    front.repository().load("m").await.expect("version 2 loads");
    assert_eq!(version_of_one(front).await.expect("served"), "2");
    stop.store(true, Ordering::SeqCst);
    let seen = running.await.expect("no panic").expect("no request failed");
    assert!(seen == ["1", "2"] || seen == ["1"], "{seen:?}");
    assert_eq!(front.repository().versions("m").expect("known"), ["2"]);
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn a_version_that_cannot_load_leaves_the_old_one_serving() {
    let models = Models::new();
    let engine = models.serve().await;
    let front = engine.front();
    models.add(3);
    let weights = models.version(3).join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("weights");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).expect("cut");
    let refused = front.repository().load("m").await.expect_err("half a file");
    assert!(refused.to_string().contains("model.safetensors"), "{refused}");
    assert_eq!(version_of_one(front).await.expect("still served"), "1");
    assert!(front.is_ready());
    let broken = front
        .repository()
        .index()
        .into_iter()
        .find(|entry| entry.version == "3");
    let broken = broken.expect("the index tells of it");
    assert_eq!(broken.state, ModelState::Unavailable);
    assert!(broken.reason.contains("model.safetensors"), "{broken:?}");
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn an_unloaded_model_is_not_ready_until_it_is_loaded_again() {
    let models = Models::new();
    let engine = models.serve().await;
    let front = engine.front();
    front.repository().unload("m").await.expect("known");
    assert!(matches!(version_of_one(front).await, Err(Rejection::NotReady(_))));
    assert!(!front.is_ready());
    front.repository().load("m").await.expect("loads again");
    assert_eq!(version_of_one(front).await.expect("served"), "1");
    assert!(front.is_ready());
    let unknown = front.repository().load("n").await.expect_err("not configured");
    assert!(
        matches!(&unknown, Rejection::NotFound(why) if why.contains("\"m\"")),
        "{unknown}"
    );
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn a_shutdown_answers_what_is_inside_and_refuses_what_comes() {
    let models = Models::new();
    let engine = models.serve().await;
    let front = Arc::clone(engine.front());
    let inside = tokio::spawn({
        let front = Arc::clone(&front);
        async move {
            let texts = vec!["a text that takes its time"; 2000];
            let scored = front.score(call(&front, &texts)).await?;
            scored.all().map(|rows| rows.len()).map_err(Clone::clone)
        }
    });
    while front.drain().inside() == 0 {
        tokio::task::yield_now().await;
    }
    let stopping = engine.stop(Duration::from_secs(30));
    tokio::pin!(stopping);
    assert!(
        tokio::time::timeout(Duration::ZERO, &mut stopping).await.is_err(),
        "work is inside"
    );
    let refused = front.score(call(&front, &["late"])).await.err();
    assert_eq!(refused, Some(Rejection::ShuttingDown));
    // The threads end with the last who can send them work.
    drop(front);
    let (scored, stopped) = tokio::join!(inside, stopping);
    assert_eq!(
        scored.expect("no panic"),
        Ok(2000),
        "accepted before the shutdown"
    );
    stopped.expect("drained");
}

#[tokio::test]
async fn a_client_that_leaves_is_counted() {
    let models = Models::new();
    let engine = models.serve().await;
    let front = engine.front();
    let texts = vec!["a text"; 500];
    let leaving = front.score(call(front, &texts));
    assert!(
        tokio::time::timeout(Duration::ZERO, leaving).await.is_err(),
        "dropped unfinished"
    );
    let page = front.metrics().render();
    let counted = page.lines().any(|line| {
        line.starts_with("penstock_requests_total{") && line.contains("cancelled") && line.ends_with(" 1")
    });
    assert!(counted, "{page}");
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn what_can_never_work_is_refused_with_what_would() {
    let models = Models::new();
    let engine = models.serve().await;
    let front = engine.front();
    let check = async |call: Call, expected: &str| {
        let refused = front
            .score(call)
            .await
            .err()
            .map(|rejection| rejection.to_string());
        let refused = refused.unwrap_or_else(|| "nothing was refused".into());
        assert!(
            refused.contains(expected),
            "{refused:?} does not say {expected:?}"
        );
    };
    check(call(front, &[]), "send at least one").await;
    check(call(front, &vec!["x"; 8193]), "max_request_texts = 8192").await;
    check(
        Call {
            model: "other".into(),
            ..call(front, &["x"])
        },
        "configured are [\"m\"]",
    )
    .await;
    check(
        Call {
            version: "7".into(),
            ..call(front, &["x"])
        },
        "no version 7",
    )
    .await;
    check(
        Call {
            version: "newest".into(),
            ..call(front, &["x"])
        },
        "neither a number nor latest",
    )
    .await;
    check(
        Call {
            timeout: Some(Duration::ZERO),
            ..call(front, &["x"])
        },
        "deadline exceeded",
    )
    .await;
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}
