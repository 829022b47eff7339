//! Tests of the whole engine with a small real model: version changes, cancelled clients, and a shutdown
//! during work.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_core::{Nanos, Rejection, Reply, RequestContext, Source};
use penstock_engine::engine::Engine;
use penstock_engine::placement;
use penstock_engine::placement::choice::{DeviceChoice, DtypeChoice};
use penstock_engine::repository::ModelState;
use penstock_engine::request::{InferenceRequest, Input};
use penstock_engine::served_model::WhenFull;
use penstock_engine::service::InferenceService;
use penstock_engine::settings::{Batching, EngineSettings, Limits, ModelConfig};
use penstock_models::Task;

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
        self.add_of("bert-embedding-mean", version);
    }

    fn add_of(&self, family: &str, version: u64) {
        let families = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/families"));
        copy(&families.join(family), &self.version(version));
    }

    async fn serve(&self) -> Engine {
        let settings = EngineSettings {
            threads: 1,
            pin_threads: false,
            tokenizer_threads: 1,
            cuda_graphs: false,
            limits: Limits::default(),
            models: vec![ModelConfig {
                name: "m".into(),
                source: self.0.path().join("m").display().to_string(),
                task: None,
                max_length: None,
                batching: Batching::default(),
                check_parity: true,
                allow_pickle: false,
            }],
        };
        let placement =
            placement::place(&DeviceChoice::Cpu, DtypeChoice::Auto, penstock_models::probe).expect("a cpu");
        Engine::start(&settings, &placement)
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

fn context(service: &InferenceService) -> RequestContext {
    RequestContext::new(Source::Grpc, service.clock().now())
}

fn try_call(service: &InferenceService, texts: &[&str]) -> Result<InferenceRequest, Rejection> {
    let context = context(service);
    Ok(InferenceRequest {
        served: service.find("m", "", &context)?,
        inputs: texts.iter().map(|&text| Input::Text(text.to_owned())).collect(),
        context,
        room: WhenFull::Reject,
    })
}

fn call(service: &InferenceService, texts: &[&str]) -> InferenceRequest {
    try_call(service, texts).expect("served")
}

async fn version_of_one(service: &InferenceService) -> Result<String, Rejection> {
    let scored = service.score(try_call(service, &["one text"])?).await?;
    scored.all().map_err(Clone::clone)?;
    Ok(scored.served.version.clone())
}

/// Scores without a pause until it is told to stop; returns every version that answered.
async fn traffic(service: Arc<InferenceService>, stop: Arc<AtomicBool>) -> Result<Vec<String>, Rejection> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let version = version_of_one(&service).await?;
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
    let service = engine.service();
    let stop = Arc::new(AtomicBool::new(false));
    let running = tokio::spawn(traffic(Arc::clone(service), Arc::clone(&stop)));
    version_of_one(service).await.expect("version 1 serves");
    models.add(2);
    service.repository().load("m").await.expect("version 2 loads");
    assert_eq!(version_of_one(service).await.expect("served"), "2");
    stop.store(true, Ordering::SeqCst);
    let seen = running.await.expect("no panic").expect("no request failed");
    assert!(seen == ["1", "2"] || seen == ["1"], "{seen:?}");
    assert_eq!(service.repository().versions("m").expect("known"), ["2"]);
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn a_version_swapped_in_after_validation_does_not_score_the_request() {
    let models = Models::new();
    let engine = models.serve().await;
    let service = engine.service();
    let validated = call(service, &["one text"]);
    assert_eq!(validated.served.spec.task, Task::Embedding);
    models.add_of("bert", 2);
    service.repository().load("m").await.expect("version 2 loads");
    let newer = call(service, &["one text"]);
    assert_eq!(newer.served.spec.task, Task::SequenceClassification);
    for (request, version) in [(validated, "1"), (newer, "2")] {
        let scored = service.score(request).await.expect("scored");
        assert_eq!(scored.served.version, version);
        let replies = scored.all().expect("a reply");
        let is_embedding = matches!(replies[0], Reply::Embedding(_));
        assert_eq!(is_embedding, scored.served.spec.task == Task::Embedding);
    }
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn token_ids_of_a_text_score_as_the_text() {
    let models = Models::new();
    let engine = models.serve().await;
    let service = engine.service();
    let text = "one text of some words";
    let mut request = call(service, &[text]);
    let served = Arc::clone(&request.served);
    let ids = served
        .tokenizer
        .encode(text, true)
        .expect("tokens")
        .as_slice()
        .to_vec();
    let long = ids
        .iter()
        .copied()
        .cycle()
        .take(served.spec.max_length + 1)
        .collect();
    for ids in [ids, long, vec![1 << 30], Vec::new()] {
        request.inputs.push(Input::TokenIds(ids));
    }
    request.context.truncate = false;
    let scored = service.score(request).await.expect("scored");
    assert_eq!(scored.rows[0], scored.rows[1]);
    for (row, expected) in scored.rows[2..]
        .iter()
        .zip(["more than the model's", "1073741824", "empty"])
    {
        let refused = row.as_ref().err().map_or_else(String::new, ToString::to_string);
        assert!(
            refused.contains(expected),
            "{refused:?} does not say {expected:?}"
        );
    }
    drop((scored, served));
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn a_version_that_cannot_load_leaves_the_old_one_serving() {
    let models = Models::new();
    let engine = models.serve().await;
    let service = engine.service();
    models.add(3);
    let weights = models.version(3).join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("weights");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).expect("cut");
    let refused = service.repository().load("m").await.expect_err("half a file");
    assert!(refused.to_string().contains("model.safetensors"), "{refused}");
    assert_eq!(version_of_one(service).await.expect("still served"), "1");
    assert!(service.is_ready());
    let broken = service
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
async fn one_load_runs_one_waits_and_a_third_is_refused() {
    let models = Models::new();
    let engine = models.serve().await;
    let repository = engine.service().repository();
    let (running, waiting, refused) =
        tokio::join!(repository.load("m"), repository.load("m"), repository.load("m"));
    assert_eq!((running, waiting), (Ok(()), Ok(())));
    let refused = refused.expect_err("a third load");
    assert_eq!(
        refused.to_string(),
        "the line of loads of this model is full: 2 of 2 loads are taken"
    );
    repository.load("m").await.expect("there is room again");
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn an_unloaded_model_is_not_ready_until_it_is_loaded_again() {
    let models = Models::new();
    let engine = models.serve().await;
    let service = engine.service();
    service.repository().unload("m").await.expect("known");
    assert!(matches!(
        version_of_one(service).await,
        Err(Rejection::NotReady(_))
    ));
    assert!(!service.is_ready());
    service.repository().load("m").await.expect("loads again");
    assert_eq!(version_of_one(service).await.expect("served"), "1");
    assert!(service.is_ready());
    let unknown = service.repository().load("n").await.expect_err("not configured");
    assert!(
        matches!(&unknown, Rejection::NotFound(why) if why.contains("\"m\"")),
        "{unknown}"
    );
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn a_shutdown_answers_requests_in_flight_and_refuses_new_ones() {
    let models = Models::new();
    let engine = models.serve().await;
    let service = Arc::clone(engine.service());
    let inside = tokio::spawn({
        let service = Arc::clone(&service);
        async move {
            let texts = vec!["a text that takes its time"; 2000];
            let scored = service.score(call(&service, &texts)).await?;
            scored.all().map(|rows| rows.len()).map_err(Clone::clone)
        }
    });
    while service.drain().inside() == 0 {
        tokio::task::yield_now().await;
    }
    let stopping = engine.stop(Duration::from_secs(30));
    tokio::pin!(stopping);
    assert!(
        tokio::time::timeout(Duration::ZERO, &mut stopping).await.is_err(),
        "work is inside"
    );
    let refused = service.score(call(&service, &["late"])).await.err();
    assert_eq!(refused, Some(Rejection::ShuttingDown));
    // The threads end with the last sender.
    drop(service);
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
    let service = engine.service();
    let texts = vec!["a text"; 500];
    let leaving = service.score(call(service, &texts));
    assert!(
        tokio::time::timeout(Duration::ZERO, leaving).await.is_err(),
        "dropped unfinished"
    );
    let page = service.metrics().render();
    let counted = page.lines().any(|line| {
        line.starts_with("penstock_requests_total{") && line.contains("cancelled") && line.ends_with(" 1")
    });
    assert!(counted, "{page}");
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}

#[tokio::test]
async fn impossible_settings_are_refused_with_possible_ones() {
    let models = Models::new();
    let engine = models.serve().await;
    let service = engine.service();
    let check = async |call: InferenceRequest, expected: &str| {
        let refused = service
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
    check(call(service, &[]), "send at least one").await;
    check(call(service, &vec!["x"; 8193]), "max_request_texts = 8192").await;
    let late = InferenceRequest {
        context: context(service).due(Some(Nanos(0))),
        ..call(service, &["x"])
    };
    check(late, "deadline exceeded").await;
    for (name, version, expected) in [
        ("other", "", "configured are [\"m\"]"),
        ("m", "7", "no version 7"),
        ("m", "newest", "neither a number nor latest"),
    ] {
        let refused = service.find(name, version, &context(service)).err();
        let refused = refused.map_or_else(String::new, |rejection| rejection.to_string());
        assert!(
            refused.contains(expected),
            "{refused:?} does not say {expected:?}"
        );
    }
    engine.stop(Duration::from_secs(10)).await.expect("drained");
}
