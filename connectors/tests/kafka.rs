//! Tests of routes from topic to topic: scores, tombstones, dead letters.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing"
)]

#[path = "kafka/rig.rs"]
mod rig;

#[path = "kafka/silence.rs"]
mod silence;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use rig::{Fault, In, Out, Rig, failing, text};

const LONG: &str = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen";

/// Topic of an output, and its outcome.
fn fate(out: &Out) -> (&str, &str) {
    match out.header("penstock-error-code") {
        Some(code) => {
            let number = out.key.as_deref().expect("a key");
            assert_eq!(out.header("penstock-source-topic"), Some("reviews"));
            assert_eq!(out.header("penstock-source-partition"), Some("1"));
            assert_eq!(out.header("penstock-source-offset"), Some(number));
            assert!(
                out.header("penstock-error-message")
                    .is_some_and(|message| !message.is_empty())
            );
            assert_eq!(out.header("penstock-model"), None);
            (&out.topic, code)
        }
        None if out.value.is_none() => (&out.topic, "tombstone"),
        None => (&out.topic, "score"),
    }
}

fn check(outs: &[Out], expected: &[(&str, &str)]) {
    let fates: Vec<_> = outs.iter().map(fate).collect();
    assert_eq!(fates, expected, "{outs:?}");
    // Every output keeps its record's partition, key and timestamp.
    for (number, out) in (0_i64..).zip(outs) {
        assert_eq!(out.partition, 1);
        assert_eq!(out.timestamp, Some(1000 + number));
    }
}

const SCORED: (&str, &str) = ("scored", "score");
const INVALID: (&str, &str) = ("dead", "INVALID_ARGUMENT");

#[tokio::test(flavor = "multi_thread")]
async fn every_record_becomes_a_score_a_tombstone_or_a_dead_letter() {
    let rig = Rig::start("field = \"text\"\nrecord_bytes_max = 200\n", None).await;
    let large = format!("{{\"text\": \"{LONG} {LONG} {LONG}\"}}");
    let traced = [
        ("traceparent", "00-1-2-01"),
        ("penstock-model", "of an earlier pass"),
        ("own", "kept"),
    ];
    let records = [
        In {
            value: Some(br#"{"text": "a good day"}"#),
            headers: &traced,
        },
        In {
            value: None,
            headers: &traced,
        },
        text(b"\xff"),
        text(b"{"),
        text(br#"{"body": "a"}"#),
        text(br#"{"text": 7}"#),
        text(large.as_bytes()),
        text(br#"{"text": "after all that"}"#),
    ];
    rig.send(&records);
    let outs = rig.receive(records.len());
    let expected = [
        SCORED,
        ("scored", "tombstone"),
        INVALID,
        INVALID,
        INVALID,
        INVALID,
        INVALID,
        SCORED,
    ];
    check(&outs, &expected);
    let json = outs[0].json();
    let names: Vec<&str> = json
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(names, ["label", "probabilities", "score"]);
    let headers =
        ["traceparent", "own", "penstock-model", "penstock-version"].map(|name| outs[0].header(name));
    assert_eq!(
        headers,
        [Some("00-1-2-01"), Some("kept"), Some("tiny"), Some("1")]
    );
    assert_eq!(outs[1].header("traceparent"), Some("00-1-2-01"));
    // A dead letter has its value, unless that was too large to be read.
    assert_eq!(outs[3].value.as_deref(), Some(&b"{"[..]));
    assert_eq!(outs[6].value, None);
    let reason = outs[6].header("penstock-error-message").expect("a reason");
    assert!(reason.contains("more than record_bytes_max = 200"), "{reason}");
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_too_large_to_write_are_left_out() {
    let rig = Rig::start("record_bytes_max = 1000\nfield = \"text\"\n", None).await;
    let [much, more] = [60_000, 70_000].map(|count| "h".repeat(count));
    let (much, more) = ([("much", much.as_str())], [("more", more.as_str())]);
    let body = format!("{{\"body\": \"{}\"}}", LONG.repeat(8));
    let records = [
        In {
            value: Some(br#"{"text": "a"}"#),
            headers: &much,
        },
        In {
            value: Some(br#"{"text": "b"}"#),
            headers: &more,
        },
        In {
            value: Some(body.as_bytes()),
            headers: &much,
        },
    ];
    rig.send(&records);
    let outs = rig.receive(records.len());
    let codes: Vec<_> = outs.iter().map(|out| out.header("penstock-error-code")).collect();
    assert_eq!(codes, [None, Some("INVALID_ARGUMENT"), Some("INVALID_ARGUMENT")]);
    assert!(outs[0].header("much").is_some());
    assert!(outs[1].header("more").is_none() && outs[1].key.is_none() && outs[1].value.is_none());
    assert_eq!(outs[1].header("penstock-source-offset"), Some("1"));
    assert!(outs[2].header("much").is_some() && outs[2].value.is_some());
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_count_where_the_route_lets_them() {
    let headers: [&[(&str, &str)]; 6] = [
        &[("model", "other")],
        &[("model", "missing")],
        &[("deadline-ms", "1000")],
        &[("deadline-ms", "99999999999999")],
        &[("priority", "interactive")],
        &[("priority", "urgent")],
    ];
    let records = headers.map(|headers| In {
        value: Some(b"a text"),
        headers,
    });
    let rig = Rig::start("honour = [\"model\", \"priority\", \"deadline\"]\n", None).await;
    rig.send(&records);
    let outs = rig.receive(records.len());
    let late = ("dead", "DEADLINE_EXCEEDED");
    check(
        &outs,
        &[SCORED, ("dead", "NOT_FOUND"), late, SCORED, SCORED, INVALID],
    );
    assert_eq!(outs[0].header("penstock-model"), Some("other"));
    assert!(outs[0].json()["embedding"].is_array());
    let page = rig.engine.service().metrics().render();
    assert!(page.contains(
        r#"penstock_requests_total{model="tiny",source="kafka",class="interactive",outcome="ok"} 1"#
    ));
    rig.close().await;
    let rig = Rig::start("", None).await;
    rig.send(&records);
    check(&rig.receive(records.len()), &[SCORED; 6]);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_on_which_the_model_fails_is_a_dead_letter_and_its_neighbours_are_scored() {
    for (fault, reason) in [
        (Fault::FailsAbove(8), "model"),
        (Fault::NanAbove(8), "not_finite"),
        // More tokens than the text that tests whether the model works at all.
        (Fault::NoMemoryAbove(12), "model"),
    ] {
        let armed = Arc::default();
        let rig = Rig::start("", Some(failing(fault, &armed))).await;
        armed.store(true, Ordering::SeqCst);
        let records = ["a", "b", LONG, "c"].map(|value| text(value.as_bytes()));
        rig.send(&records);
        let outs = rig.receive(records.len());
        check(&outs, &[SCORED, SCORED, ("dead", "INTERNAL"), SCORED]);
        assert_eq!(outs[2].value.as_deref(), Some(LONG.as_bytes()));
        let counted = format!(r#"penstock_dead_letters_total{{topic="reviews",reason="{reason}"}} 1"#);
        rig.until(&counted, |rig| {
            rig.engine.service().metrics().render().contains(&counted)
        })
        .await;
        rig.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fails_on_everything_buries_nothing() {
    let down = Arc::new(AtomicBool::new(false));
    let rig = Rig::start("", Some(failing(Fault::Down, &down))).await;
    rig.send(&[text(b"before")]);
    check(&rig.receive(1), &[SCORED]);
    rig.until("ready", |rig| rig.engine.service().is_ready()).await;
    down.store(true, Ordering::SeqCst);
    rig.send(&[text(b"a"), text(b"b")]);
    rig.until("not ready", |rig| !rig.engine.service().is_ready())
        .await;
    assert!(rig.is_silent());
    down.store(false, Ordering::SeqCst);
    check(&rig.receive(2), &[SCORED, SCORED]);
    rig.until("ready again", |rig| rig.engine.service().is_ready())
        .await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_counted() {
    let rig = Rig::start("delivery = \"at-least-once\"\n", None).await;
    rig.send(&[text(b"a"), text(b"\xff"), text(b"b")]);
    check(&rig.receive(3), &[SCORED, INVALID, SCORED]);
    for line in [
        r#"penstock_kafka_records_total{topic="reviews",outcome="scored"} 2"#,
        r#"penstock_kafka_records_total{topic="reviews",outcome="dead_letter"} 1"#,
        r#"penstock_dead_letters_total{topic="reviews",reason="not_utf8"} 1"#,
        // Three keys and three values of a byte each.
        r#"penstock_kafka_bytes_total{topic="reviews",direction="read"} 6"#,
        r#"penstock_kafka_end_to_end_duration_seconds_count{route="reviews"} 3"#,
        r#"penstock_kafka_consumer_lag{topic="reviews",partition="1"} 0"#,
        r#"penstock_kafka_time_to_drain_seconds{topic="reviews"} 0"#,
        r#"penstock_kafka_unready_consumers{route="reviews"} 0"#,
        r#"penstock_kafka_in_flight_records{route="reviews"} 0"#,
    ] {
        rig.until(line, |rig| {
            rig.engine
                .service()
                .metrics()
                .render()
                .lines()
                .any(|one| one == line)
        })
        .await;
    }
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn far_behind_there_are_fewer_transactions() {
    let slow = Arc::new(AtomicBool::new(true));
    let wrap = failing(Fault::Slow(Duration::from_millis(5)), &slow);
    let one = "in_flight_records_max = 1\ncommit_interval_max = \"2s\"\n";
    let rig = Rig::start(one, Some(wrap)).await;
    rig.send(&vec![text(b"a text"); 10_000]);
    let drain = r#"penstock_kafka_time_to_drain_seconds{topic="reviews"}"#;
    // A day stands for an unknown rate.
    let behind = |rig: &Rig| (20.0..3600.0).contains(&rig.value(drain));
    rig.until("it is behind by 20 s", behind).await;
    let commits = r#"penstock_kafka_transactions_total{route="reviews",outcome="committed"}"#;
    let before = rig.value(commits);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let made = rig.value(commits) - before;
    // At a commit_interval of 100 ms it would be up to thirty.
    assert!((1.0..=3.0).contains(&made), "{made} transactions in 3 s");
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_slower_than_the_poll_interval_keeps_its_place_in_the_group() {
    let slow = Arc::new(AtomicBool::new(false));
    let wrap = failing(Fault::Slow(Duration::from_secs(5)), &slow);
    // With full bounds, nothing is polled while the model computes.
    let impatient = format!(
        "in_flight_records_max = 1\n{}\"max.poll.interval.ms\" = \"4000\"\n",
        attentive()
    );
    let rig = Rig::start(&impatient, Some(wrap)).await;
    slow.store(true, Ordering::SeqCst);
    rig.send(&[text(b"a"), text(b"b"), text(b"c")]);
    check(&rig.receive(3), &[SCORED; 3]);
    assert!(rig.is_silent(), "a record was scored twice");
    for kind in ["revoked", "lost"] {
        let changes = format!("penstock_kafka_rebalances_total{{route=\"reviews\",kind=\"{kind}\"}}");
        assert!(rig.value(&changes) < 0.5, "{kind}");
    }
    slow.store(false, Ordering::SeqCst);
    rig.close().await;
}

/// Properties of a client that soon notices changes of its group.
fn attentive() -> String {
    let session = rig::SESSION_MS;
    format!(
        "transaction_timeout = \"{session}ms\"\n[kafka.client]\n\"heartbeat.interval.ms\" = \"100\"\n\
         \"session.timeout.ms\" = \"{session}\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_went_while_it_was_paused_is_read_when_it_comes_back() {
    let down = Arc::new(AtomicBool::new(false));
    let few = "in_flight_records_max = 8\nrevoke_timeout = \"100ms\"\n".to_owned() + &attentive();
    let rig = Rig::start(&few, Some(failing(Fault::Down, &down))).await;
    down.store(true, Ordering::SeqCst);
    let records = [text(b"a text"); 20];
    rig.send_to(0, &records);
    rig.send_to(1, &records);
    let paused = r#"penstock_kafka_paused_partitions{route="reviews"} 2"#;
    rig.until(paused, |rig| rig.counts(paused)).await;
    let rival = rig.rival();
    rig.until("a partition has gone", |_| rival.has_partition()).await;
    drop(rival);
    down.store(false, Ordering::SeqCst);
    assert_eq!(rig.receive(40).len(), 40);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_during_a_revocation_still_releases_the_partitions() {
    // The interval is longer than the group's change, so that the failing commit is the one of the
    // revocation.
    let late = "commit_interval = \"3900ms\"\n".to_owned() + &attentive();
    let mut rig = Rig::start(&late, None).await;
    rig.send(&[text(b"a text")]);
    let scored = r#"penstock_requests_total{model="tiny",source="kafka",class="bulk",outcome="ok"} 1"#;
    rig.until(scored, |rig| rig.counts(scored)).await;
    rig.refuse(
        RDKafkaApiKey::EndTxn,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH; 20],
    );
    let rival = rig.rival();
    let reason = rig.ended().await;
    assert!(reason.contains("commit_transaction failed"), "{reason}");
    let revoked = r#"penstock_kafka_rebalances_total{route="reviews",kind="revoked"} 1"#;
    assert!(rig.counts(revoked), "it ended for another reason");
    drop(rival);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_and_many_headers_count_with_all_that_is_written_of_them() {
    let rig = Rig::start("record_bytes_max = 1000\n", None).await;
    let more = "h".repeat(70_000);
    let more = [("more", more.as_str())];
    let many = vec![("a", ""); 8_000];
    let records = [
        In {
            value: None,
            headers: &more,
        },
        In {
            value: Some(b"a text"),
            headers: &many,
        },
    ];
    rig.send(&records);
    let outs = rig.receive(records.len());
    let codes: Vec<_> = outs.iter().map(|out| out.header("penstock-error-code")).collect();
    assert_eq!(codes, [Some("INVALID_ARGUMENT"); 2]);
    assert!(outs[0].header("more").is_none() && outs[1].header("a").is_none());
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_fails_for_good_is_replaced() {
    let rig = Rig::start("delivery = \"at-least-once\"\n", None).await;
    rig.send(&[text(b"before")]);
    assert_eq!(rig.receive(1).len(), 1);
    // The first error is for the input record, the second for the output.
    rig.refuse(
        RDKafkaApiKey::Produce,
        &[
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        ],
    );
    rig.send(&[text(b"after")]);
    assert_eq!(rig.receive(1).len(), 1);
    // The aborted transaction, and the one that the failed producer left open.
    let aborted = r#"penstock_kafka_transactions_total{route="reviews",outcome="aborted"}"#;
    assert!(rig.value(aborted) >= 2.0, "{}", rig.value(aborted));
    rig.close().await;
}

/// The mock refuses a batch without naming the record that it means.
#[tokio::test(flavor = "multi_thread")]
async fn the_refused_records_of_a_batch_are_found() {
    for (refused, reason) in [
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD, "refused"),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "too_large"),
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
            "too_large",
        ),
    ] {
        search(refused, reason).await;
    }
}

async fn search(refused: RDKafkaRespErr, reason: &str) {
    let rig = Rig::start("", None).await;
    rig.send(&[text(b"before")]);
    assert_eq!(rig.receive(1).len(), 1);
    let fine = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    // One batch goes in; one comes out and is refused. The client then fails once on its own sequence
    // numbers, and sends each record alone. The second of these is refused.
    rig.refuse(RDKafkaApiKey::Produce, &[fine, refused, fine, fine, refused]);
    rig.send(&[text(b"one"), text(b"two"), text(b"three")]);
    // The mock shows aborted records as well: here the first, from the attempt before.
    let outs = rig.receive(4);
    let came: Vec<_> = outs
        .iter()
        .map(|out| (out.topic.as_str(), out.key.as_deref()))
        .collect();
    let expected = [
        ("scored", Some("0")),
        ("scored", Some("0")),
        ("dead", Some("1")),
        ("scored", Some("2")),
    ];
    assert_eq!(came, expected);
    assert_eq!(outs[2].header("penstock-error-code"), Some("INVALID_ARGUMENT"));
    let message = outs[2].header("penstock-error-message").expect("a reason");
    assert!(
        message.contains("topic scored does not take what becomes of it"),
        "{message}"
    );
    let counted = format!(r#"penstock_dead_letters_total{{topic="reviews",reason="{reason}"}} 1"#);
    rig.until(&counted, |rig| rig.counts(&counted)).await;
    rig.close().await;
}

/// The client itself refuses the record, so it reaches no broker.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_large_for_the_client_is_a_dead_letter_without_its_value() {
    for delivery in ["exactly-once", "at-least-once"] {
        let narrow = format!(
            "delivery = \"{delivery}\"\nfield = \"text\"\nclient = {{ \"message.max.bytes\" = \"1000\" }}\n"
        );
        let rig = Rig::start(&narrow, None).await;
        let much = "h".repeat(2000);
        let much = [("much", much.as_str())];
        let value = "v".repeat(2000);
        let records = [
            text(br#"{"text": "a"}"#),
            In {
                value: Some(br#"{"text": "b"}"#),
                headers: &much,
            },
            text(value.as_bytes()),
            text(br#"{"text": "c"}"#),
        ];
        rig.send(&records);
        // With at-least-once delivery, records before a refused one come again.
        let mut outs = Vec::new();
        let of =
            |outs: &[Out], number: i64| outs.iter().rposition(|out| out.timestamp == Some(1000 + number));
        while (0..4).any(|number| of(&outs, number).is_none()) {
            outs.extend(rig.receive(1));
        }
        let of = |number: i64| &outs[of(&outs, number).expect("it has come")];
        assert_eq!((fate(of(0)), fate(of(3))), (SCORED, SCORED));
        let [headers, value] = [of(1), of(2)];
        assert_eq!((headers.header("much"), headers.key.as_deref()), (None, None));
        let said = headers.header("penstock-error-message").expect("a reason");
        assert!(
            said.starts_with("its key, headers and value are left out, because dead"),
            "{said}"
        );
        assert!(said.contains("message.max.bytes"), "{said}");
        assert_eq!((&value.value, value.key.as_deref()), (&None, Some("2")));
        let said = value.header("penstock-error-message").expect("a reason");
        assert!(
            said.starts_with("its value of 2000 bytes is left out, because dead"),
            "{said}"
        );
        assert!(said.contains("the value is not JSON"), "{said}");
        rig.close().await;
    }
}
