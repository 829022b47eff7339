//! Tests of the data path from the service to the answer, with failing models and a real one.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing"
)]

#[path = "line/bench.rs"]
mod bench;
#[path = "line/device.rs"]
mod device;
#[path = "line/urgent.rs"]
mod urgent;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bench::{FailsAt, Gate, Poisoned, Rig, texts};
use device::{Device, Mishap};
use penstock_core::{Class, Rejection, Reply, Retry};
use penstock_engine::served_model::WhenFull;
use urgent::Letting;

#[tokio::test]
async fn every_text_of_a_request_is_answered_in_its_place() {
    let rig = Rig::with_gate(Gate::open(), |_| {});
    let rows = rig
        .submit(texts(100), WhenFull::Reject, None)
        .await
        .expect("admitted")
        .await
        .rows;
    let lengths: Vec<f32> = rows.iter().map(bench::first).collect();
    let expected: Vec<f32> = texts(100).iter().map(|text| rig.tokens(text) as f32).collect();
    assert_eq!(lengths, expected);
    rig.close();
}

#[tokio::test]
async fn a_model_that_panics_answers_its_batch_and_lives_on() {
    let rig = Rig::with(Box::new(Poisoned::default()), |_| {});
    let rows = rig
        .submit(texts(1), WhenFull::Reject, None)
        .await
        .expect("admitted")
        .await
        .rows;
    assert!(matches!(rows[0], Err(Rejection::Model(_))), "{rows:?}");
    let rows = rig
        .submit(texts(1), WhenFull::Reject, None)
        .await
        .expect("admitted")
        .await
        .rows;
    assert!(rows[0].is_ok(), "{rows:?}");
    assert!(rig.served.is_alive());
    rig.close();
}

#[tokio::test]
async fn a_text_that_makes_the_model_fail_spoils_no_neighbour() {
    for panics in [true, false] {
        let probe = Rig::with_gate(Gate::open(), |_| {});
        let guilty = "a b c d e f g".to_owned();
        let tokens = probe.tokens(&guilty);
        probe.close();
        let rig = Rig::with(Box::new(FailsAt { tokens, panics }), |_| {});
        let mut batch = vec!["a b".to_owned(); 30];
        batch[17] = guilty;
        let rows = rig
            .submit(batch, WhenFull::Reject, None)
            .await
            .expect("admitted")
            .await
            .rows;
        for (row, outcome) in rows.iter().enumerate() {
            assert_eq!(outcome.is_ok(), row != 17, "row {row}: {outcome:?}");
        }
        assert!(matches!(rows[17], Err(Rejection::Model(_))), "{:?}", rows[17]);
        rig.close();
    }
}

#[tokio::test]
async fn a_row_that_is_not_finite_does_not_spoil_its_neighbours() {
    // The three are tokenized by two threads and may come in one batch or in several.
    let rig = Rig::with(Box::new(bench::NanAbove(4)), |_| {});
    let batch = vec!["a".to_owned(), "a b c d e f".to_owned(), "a b".to_owned()];
    let rows = rig
        .submit(batch, WhenFull::Reject, None)
        .await
        .expect("admitted")
        .await
        .rows;
    assert!(rows[0].is_ok() && rows[2].is_ok(), "{rows:?}");
    assert!(matches!(rows[1], Err(Rejection::NotFinite { .. })), "{rows:?}");
    rig.close();
}

#[tokio::test]
async fn a_full_queue_refuses_a_request_and_holds_a_stream() {
    let gate = Gate::shut();
    let rig = Rig::with_gate(gate.clone(), |limits| limits.queue_texts_max = 4);
    let held = rig
        .submit(texts(4), WhenFull::Reject, None)
        .await
        .expect("admitted");
    let refused = rig.submit(texts(1), WhenFull::Reject, None).await.err();
    assert!(
        matches!(refused, Some(Rejection::Overloaded { .. })),
        "{refused:?}"
    );

    let mut waiting = Box::pin(rig.submit(texts(1), WhenFull::Block, None));
    let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
    assert!(
        early.is_err(),
        "a stream is read no further while the queue is full"
    );
    gate.release();
    let rows = waiting.await.expect("admitted in the end").await.rows;
    assert!(rows[0].is_ok());
    assert_eq!(held.await.rows.len(), 4);
    rig.close();
}

#[tokio::test]
async fn a_request_larger_than_the_queue_enters_piece_by_piece() {
    let rig = Rig::with_gate(Gate::open(), |limits| limits.queue_texts_max = 8);
    let rows = rig
        .submit(texts(100), WhenFull::Reject, None)
        .await
        .expect("admitted")
        .await
        .rows;
    assert_eq!(rows.iter().filter(|row| row.is_ok()).count(), 100);
    rig.close();
}

#[tokio::test]
async fn a_client_that_is_gone_costs_no_compute() {
    let gate = Gate::shut();
    let rig = Rig::with_gate(gate.clone(), |_| {});
    let first = rig
        .submit(texts(1), WhenFull::Reject, None)
        .await
        .expect("admitted");
    gate.wait_for_batch();
    let doomed = rig
        .submit(texts(5), WhenFull::Reject, None)
        .await
        .expect("admitted");
    drop(doomed);
    gate.release();
    assert!(first.await.rows[0].is_ok());
    assert!(
        rig.submit(texts(1), WhenFull::Reject, None)
            .await
            .expect("admitted")
            .await
            .rows[0]
            .is_ok()
    );
    assert_eq!(
        gate.texts.load(Ordering::SeqCst),
        2,
        "the five texts never reached the model"
    );
    rig.close();
}

#[tokio::test]
async fn a_deadline_that_passed_costs_no_compute() {
    let gate = Gate::shut();
    let rig = Rig::with_gate(gate.clone(), |_| {});
    let first = rig
        .submit(texts(1), WhenFull::Reject, None)
        .await
        .expect("admitted");
    gate.wait_for_batch();
    let late = rig
        .submit(texts(5), WhenFull::Reject, Some(Duration::from_millis(5)))
        .await
        .expect("admitted");
    tokio::time::sleep(Duration::from_millis(10)).await;
    gate.release();
    let rows = late.await.rows;
    assert!(
        rows.iter()
            .all(|row| matches!(row, Err(Rejection::DeadlineExceeded(_)))),
        "{rows:?}"
    );
    assert!(first.await.rows[0].is_ok());
    assert_eq!(gate.texts.load(Ordering::SeqCst), 1);
    rig.close();
}

#[tokio::test]
async fn a_long_text_is_cut_or_refused_as_asked_and_spoils_no_other() {
    let rig = Rig::with_gate(Gate::open(), |_| {});
    let long = "word ".repeat(100_000);
    let rows = rig
        .submit_as(vec![long.clone(), "short".into()], false)
        .await
        .rows;
    assert!(
        matches!(&rows[0], Err(Rejection::Invalid(why)) if why.contains("tokens")),
        "{:?}",
        rows[0]
    );
    assert!(rows[1].is_ok());
    let rows = rig.submit_as(vec![long], true).await.rows;
    let Ok(Reply::Embedding(values)) = &rows[0] else {
        panic!("{rows:?}")
    };
    assert_eq!(values[0] as usize, rig.served.tokenizer.max_length());
    rig.close();
}

#[tokio::test]
async fn stages_are_told_apart_and_in_order() {
    let rig = Rig::with_gate(Gate::open(), |_| {});
    let started = rig.clock.now();
    let gathered = rig
        .submit(texts(1), WhenFull::Reject, None)
        .await
        .expect("admitted")
        .await;
    let stages = gathered.stages;
    assert!(stages.tokenize > Duration::ZERO && stages.queue > Duration::ZERO);
    let sum = stages.tokenize + stages.queue + stages.execute;
    assert!(
        sum <= stages.finished.since(started),
        "{stages:?} sum to more than the whole"
    );
    rig.close();
}

/// Rows of `count` texts that are sent at once.
async fn rows(rig: &Rig, count: usize) -> Vec<penstock_core::Outcome> {
    let sent = rig.submit(texts(count), WhenFull::Reject, None).await;
    sent.expect("admitted").await.rows
}

#[tokio::test]
async fn the_next_batch_is_on_the_device_while_one_runs() {
    let device = Device::default();
    let rig = Rig::with_executors(vec![device.model()]);
    let first = rig
        .submit(texts(1), WhenFull::Reject, None)
        .await
        .expect("admitted");
    device.wait_for(1);
    let second = rig
        .submit(texts(2), WhenFull::Reject, None)
        .await
        .expect("admitted");
    device.wait_for(2);
    device.run();
    let lengths = |rows: &[penstock_core::Outcome]| rows.iter().map(bench::first).collect::<Vec<_>>();
    let expected = |count| -> Vec<f32> { texts(count).iter().map(|text| rig.tokens(text) as f32).collect() };
    let (first, second) = (first.await, second.await);
    assert_eq!(lengths(&first.rows), expected(1));
    assert_eq!(lengths(&second.rows), expected(2));
    // Time spent waiting for the batch before it is queue time, not execution time.
    assert!(second.stages.execute <= second.stages.finished.since(first.stages.finished));
    let many = rows(&rig, 500).await;
    assert_eq!(lengths(&many), expected(500));
    rig.close();
}

/// The published token budget of a batch.
fn budget(rig: &Rig) -> f64 {
    let page = rig.metrics.render();
    let series = r#"penstock_batch_tokens_max{model="rig",version="1"} "#;
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.expect("a budget").parse().expect("a number")
}

#[tokio::test]
async fn a_batch_without_memory_runs_in_halves_and_those_after_it_are_smaller() {
    let device = Device::default();
    let rig = Rig::with_executors(vec![device.model()]);
    // While the device is held, the remaining texts form batches of sixty-four.
    let first = rig
        .submit(texts(64), WhenFull::Reject, None)
        .await
        .expect("admitted");
    device.wait_for(1);
    let full = budget(&rig);
    let rest = rig
        .submit(texts(640), WhenFull::Reject, None)
        .await
        .expect("admitted");
    device.wait_for(2);
    let whole: usize = texts(64).iter().map(|text| rig.tokens(text)).sum();
    device.has_memory_for(whole * 3 / 4);
    device.run();
    assert!(first.await.rows.iter().all(Result::is_ok));
    assert!(rest.await.rows.iter().all(Result::is_ok));
    let before = device.submitted().len();
    assert!(rows(&rig, 640).await.iter().all(Result::is_ok));
    let after = &device.submitted()[before..];
    assert!(after.iter().all(|&tokens| tokens <= whole * 3 / 4), "{after:?}");
    assert!(budget(&rig) < full, "what is published is what is left");
    assert!(rig.served.is_alive() && !rig.fault.is_raised());
    rig.close();
}

#[tokio::test]
async fn on_a_lost_device_texts_are_told_to_try_another() {
    for mishap in [Mishap::Lost, Mishap::Panic] {
        let device = Device::default();
        let rig = Rig::with_executors(vec![device.model()]);
        let first = rig
            .submit(texts(1), WhenFull::Reject, None)
            .await
            .expect("admitted");
        device.wait_for(1);
        let second = rig
            .submit(texts(1), WhenFull::Reject, None)
            .await
            .expect("admitted");
        device.wait_for(2);
        let waiting = rig
            .submit(texts(100), WhenFull::Reject, None)
            .await
            .expect("admitted");
        device.will(mishap);
        device.run();
        for rows in [first.await.rows, second.await.rows, waiting.await.rows] {
            for row in rows {
                let why = row.expect_err("the device is lost");
                assert!(
                    matches!(why.retry(), Retry::After(_)),
                    "{why}: another replica may score it"
                );
            }
        }
        let why = rig.fault.raised().await;
        let expected = match mishap {
            Mishap::Lost => "kernel attention over 7 x 64",
            Mishap::Panic => "panicked",
        };
        assert!(why.contains(expected), "{why}");
        rig.close();
    }
}

#[tokio::test]
async fn executors_take_turns_and_one_that_is_lost_leaves_its_work_to_the_other() {
    let devices = [Device::default(), Device::default()];
    let rig = Rig::with_executors(devices.iter().map(Device::model).collect());
    let first = rig
        .submit(texts(1), WhenFull::Reject, None)
        .await
        .expect("admitted");
    devices[0].wait_for(1);
    let second = rig
        .submit(texts(1), WhenFull::Reject, None)
        .await
        .expect("admitted");
    // An idle executor goes before one that could only prepare the batch.
    devices[1].wait_for(1);
    devices[0].will(Mishap::Lost);
    devices.iter().for_each(Device::run);
    assert!(matches!(first.await.rows[0], Err(Rejection::NotReady(_))));
    assert!(second.await.rows[0].is_ok());
    rig.fault.raised().await;
    for _ in 0..4 {
        assert!(rows(&rig, 50).await.iter().all(Result::is_ok));
    }
    assert!(rig.served.is_alive());
    rig.close();
}

#[tokio::test]
async fn an_interactive_text_runs_while_a_bulk_batch_does() {
    let model = Letting::default();
    let rig = Rig::with_urgent(Box::new(model.clone()), Box::new(model.clone()));
    let bulk = rig
        .submit_class(Class::Bulk, texts(20), WhenFull::Reject, None)
        .await;
    let bulk = bulk.expect("admitted");
    model.wait_for_bulk();
    let interactive = rig
        .submit(texts(3), WhenFull::Reject, None)
        .await
        .expect("admitted");
    assert!(interactive.await.rows.iter().all(Result::is_ok));
    assert!(bulk.await.rows.iter().all(Result::is_ok));
    rig.close();
}
