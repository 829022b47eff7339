//! Tests with a broker that never answers a request of the client.

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Code};

use crate::rig::{Rig, text};

/// Errors for one request more than the client's own retries. After them only a new or lost connection causes
/// another request, whatever timeout the call has: librdkafka's issue 5456.
const UNANSWERED: [Code; 3] = [Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE; 3];

/// A short transaction timeout and session, so that a missing member is noticed soon.
const SHORT: &str = "transaction_timeout = \"5s\"\nclient = { \"session.timeout.ms\" = \"6000\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_never_found_costs_the_clients_and_not_the_stream() {
    let rig = Rig::start(SHORT, None).await;
    rig.send(&[text(b"before")]);
    rig.receive(1);
    rig.until("ready", |rig| rig.engine.service().is_ready()).await;
    rig.cluster
        .request_errors(Api::TxnOffsetCommit, &[Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR]);
    rig.cluster.request_errors(Api::FindCoordinator, &UNANSWERED);
    rig.send(&[text(b"after")]);
    // The mock aborts no transaction, so the records of the earlier clients appear as well.
    rig.receive(2);
    rig.until("ready again", |rig| rig.engine.service().is_ready())
        .await;
    rig.close().await;
}

/// Longer than any test, and than the client's own timeout of an answer.
const NEVER: Duration = Duration::from_mins(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_offsets_that_never_returns_costs_the_clients_and_not_the_stream() {
    // A commit this late meets a silent broker.
    let settings = "delivery = \"at-least-once\"\ncommit_interval = \"3s\"\nclient = { \"session.timeout.ms\" = \
                    \"6000\", \"socket.timeout.ms\" = \"300000\" }\n";
    let rig = Rig::start(settings, None).await;
    rig.until("ready", |rig| rig.engine.service().is_ready()).await;
    rig.send(&[text(b"before")]);
    rig.receive(1);
    let silent = |delay| rig.cluster.broker_round_trip_time(1, delay).expect("a broker");
    silent(NEVER);
    rig.until("given up", |rig| !rig.engine.service().is_ready())
        .await;
    // Other members that have asked meanwhile need no wait either.
    silent(Duration::ZERO);
    rig.cluster.broker_down(1).expect("a broker");
    rig.cluster.broker_up(1).expect("a broker");
    rig.send(&[text(b"after")]);
    // The mock has received the commit, and only its answer is late: nothing is sent again.
    rig.receive(1);
    rig.until("ready again", |rig| rig.engine.service().is_ready())
        .await;
    rig.close().await;
}
