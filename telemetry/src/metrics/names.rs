//! Every metric: its name, type, unit, labels and meaning. `docs/metrics.md` has a row for each; a test
//! compares the two.

use metrics::Unit;

/// The Prometheus type.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values by size, under these upper bounds.
    Histogram(fn() -> Vec<f64>),
    /// Quantiles of the last minute.
    Summary,
}

/// All series of one name.
#[derive(Clone, Copy)]
pub(super) struct Family {
    /// The name, complete: the exporter appends nothing.
    pub(super) name: &'static str,
    /// The type.
    pub(super) kind: Kind,
    /// The unit; `Percent` is what the exporter calls a ratio.
    pub(super) unit: Unit,
    /// The names of the labels, in the order of their values. The `le` of a histogram and the `quantile`
    /// of a summary come on top.
    pub(super) labels: &'static [&'static str],
    /// Help text.
    pub(super) help: &'static str,
}

/// Declares the families and the list of all of them.
macro_rules! families {
    ($($id:ident = $kind:ident $(($bounds:ident))? $unit:ident $name:literal $labels:tt $help:literal;)+) => {
        $(pub(super) const $id: Family = Family {
            name: $name,
            kind: Kind::$kind $(($bounds))?,
            unit: Unit::$unit,
            labels: &$labels,
            help: $help,
        };)+

        /// Every family.
        pub(super) const FAMILIES: &[Family] = &[$($id),+];
    };
}

families! {
    BUILD_INFO = Gauge Count "penstock_build_info" ["version", "features"]
        "Always 1; the labels say which build runs.";
    LOG_LINES_LOST = Counter Count "penstock_log_lines_lost_total" []
        "Log lines that were not written, since stderr took no more.";
    CONNECTIONS = Gauge Count "penstock_connections" ["port"]
        "Open connections of a port.";
    CONNECTIONS_MAX = Gauge Count "penstock_connections_max" ["port"]
        "Connections that a port may have open; further ones wait.";
    CONNECTIONS_REFUSED = Counter Count "penstock_connections_refused_total" ["port"]
        "Connections closed at once, since their address has connections_per_address_max.";
    CONNECTIONS_CUT = Counter Count "penstock_connections_cut_total" ["port"]
        "Connections closed, since their client did not read its answers.";
    UNREAD_ANSWERS = Gauge Bytes "penstock_unread_answer_bytes" []
        "Bytes of answers that clients have not read.";
    REQUESTS = Counter Count "penstock_requests_total" ["model", "source", "class", "outcome"]
        "Requests that ended, by how they ended.";
    REQUEST_DURATION = Histogram(latency_bounds) Seconds "penstock_request_duration_seconds" ["model", "source", "class"]
        "From the request read to its response built, for every request that was let in.";
    REQUEST_LATENCY = Summary Seconds "penstock_request_latency_seconds" ["model", "source", "class"]
        "Quantiles of the request duration over the last minute.";
    STAGE_DURATION = Histogram(stage_bounds) Seconds "penstock_stage_duration_seconds" ["model", "stage"]
        "Where the time of answered requests went; the four stages sum to the request duration.";
    QUEUE_DEPTH = Gauge Count "penstock_queue_depth" ["model", "class"]
        "Texts that were admitted and are not answered yet, the running ones included.";
    QUEUE_TOKENS = Gauge Count "penstock_queue_tokens" ["model", "class"]
        "Tokens of the texts that were admitted and are not answered yet, the running ones included.";
    BATCH_TEXTS = Histogram(size_bounds) Count "penstock_batch_texts" ["model"]
        "Texts of a batch.";
    BATCH_TOKENS = Histogram(size_bounds) Count "penstock_batch_tokens" ["model"]
        "Tokens of a batch.";
    BATCH_DURATION = Histogram(stage_bounds) Seconds "penstock_batch_duration_seconds" ["model"]
        "The forward pass of a batch.";
    BATCH_FILL = Histogram(share_bounds) Percent "penstock_batch_fill_ratio" ["model"]
        "Tokens of a batch over its token budget.";
    BATCH_TOKENS_MAX = Gauge Count "penstock_batch_tokens_max" ["model", "version"]
        "Token budget of a batch; lowered where the device had no memory for a larger one, 0 where the version is not served.";
    PADDING_TOKENS = Counter Count "penstock_padding_tokens_total" ["model"]
        "Tokens computed that belong to no text; packed batches have none.";
    DEVICE_BUSY = Gauge Percent "penstock_device_busy_ratio" ["device"]
        "Share of the last minute in which the device ran a batch.";
    NV_SUCCESS = Counter Count "nv_inference_request_success" ["model", "version"]
        "Triton's name: requests that succeeded.";
    NV_FAILURE = Counter Count "nv_inference_request_failure" ["model", "version"]
        "Triton's name: requests that failed.";
    NV_COUNT = Counter Count "nv_inference_count" ["model", "version"]
        "Triton's name: texts scored.";
    NV_EXEC_COUNT = Counter Count "nv_inference_exec_count" ["model", "version"]
        "Triton's name: batches run.";
    NV_REQUEST_DURATION = Counter Microseconds "nv_inference_request_duration_us" ["model", "version"]
        "Triton's name: summed duration of requests that succeeded.";
    NV_QUEUE_DURATION = Counter Microseconds "nv_inference_queue_duration_us" ["model", "version"]
        "Triton's name: summed time in the queue.";
    NV_INPUT_DURATION = Counter Microseconds "nv_inference_compute_input_duration_us" ["model", "version"]
        "Triton's name: summed time to tokenize.";
    NV_INFER_DURATION = Counter Microseconds "nv_inference_compute_infer_duration_us" ["model", "version"]
        "Triton's name: summed time to execute.";
    NV_OUTPUT_DURATION = Counter Microseconds "nv_inference_compute_output_duration_us" ["model", "version"]
        "Triton's name: summed time to respond.";
    NV_PENDING = Gauge Count "nv_inference_pending_request_count" ["model", "version"]
        "Triton's name: texts that were admitted and are not answered yet, the running ones included.";
    KAFKA_LAG = Gauge Count "penstock_kafka_consumer_lag" ["topic", "partition"]
        "Records behind the last committed offset that readers of committed records may see.";
    KAFKA_DRAIN = Gauge Seconds "penstock_kafka_time_to_drain_seconds" ["topic"]
        "Lag over the throughput that was last seen with a backlog; at most a day.";
    KAFKA_RECORDS = Counter Count "penstock_kafka_records_total" ["topic", "outcome"]
        "Records whose offsets are committed, by what became of them.";
    KAFKA_BYTES = Counter Count "penstock_kafka_bytes_total" ["topic", "direction"]
        "Bytes of keys and values of those records as they were read, and of what was written for them.";
    DEAD_LETTERS = Counter Count "penstock_dead_letters_total" ["topic", "reason"]
        "Records that could not be scored, by the reason.";
    KAFKA_POSITION_RESETS = Counter Count "penstock_kafka_position_resets_total" ["topic", "reason"]
        "Positions of partitions that went back by themselves, by the reason.";
    KAFKA_REBALANCES = Counter Count "penstock_kafka_rebalances_total" ["route", "kind"]
        "Changes of the partitions that a consumer has.";
    KAFKA_TRANSACTIONS = Counter Count "penstock_kafka_transactions_total" ["route", "outcome"]
        "Transactions that ended; at least once, commits of offsets.";
    KAFKA_TRANSACTION_DURATION = Histogram(stage_bounds) Seconds "penstock_kafka_transaction_duration_seconds" ["route", "outcome"]
        "From the first record of a transaction to its end.";
    KAFKA_DURATION = Histogram(stream_bounds) Seconds "penstock_kafka_end_to_end_duration_seconds" ["route"]
        "From a record's timestamp to the commit of what was written for it.";
    KAFKA_LATENCY = Summary Seconds "penstock_kafka_end_to_end_latency_seconds" ["route"]
        "Quantiles of the same over the last minute.";
    KAFKA_IN_FLIGHT_RECORDS = Gauge Count "penstock_kafka_in_flight_records" ["route"]
        "Records that were read and have not left.";
    KAFKA_IN_FLIGHT_BYTES = Gauge Count "penstock_kafka_in_flight_bytes" ["route"]
        "What those records count as in bytes.";
    KAFKA_PAUSED = Gauge Count "penstock_kafka_paused_partitions" ["route"]
        "Partitions that are not read because too much of them is in flight.";
    KAFKA_UNREADY = Gauge Count "penstock_kafka_unready_consumers" ["route"]
        "Consumers that do not do their work: not connected, not taken, or nothing scored.";
}

/// The values of `stage`, in the order in which a request passes them.
pub(super) const STAGES: [&str; 4] = ["tokenize", "queue", "execute", "respond"];

/// The quantiles published live.
pub(super) const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// Value of `model` for requests that name no serving model. Configured names hold no parenthesis, so none
/// can equal it.
pub(super) const UNKNOWN_MODEL: &str = "(unknown)";

/// Value of `topic` for pattern topics beyond the bound. No topic can have this name.
pub(super) const OTHER_TOPICS: &str = "(other)";

/// Whole-request latencies in seconds, 50 µs to 60 s, each bound 4.8 % above the one before: 300 buckets.
///
/// A quantile interpolated linearly from buckets is off by up to a bucket's width where latencies crowd at
/// its edge. This happens where all requests take the same time, or where the slowest has just crossed a
/// bound. Smooth distributions are read within 2 % from buckets 10 % wide, but a uniform one was off by 8 %.
/// Only narrow buckets keep the promise of 5 % for every shape.
pub(super) fn latency_bounds() -> Vec<f64> {
    seconds(50_000, MINUTE_NS, 1.048)
}

/// Time from a record's timestamp to its commit, in seconds, 1 ms to a day: a backlog may be old.
fn stream_bounds() -> Vec<f64> {
    seconds(1_000_000, 24.0 * 60.0 * MINUTE_NS, 1.1)
}

/// Stages and batches in seconds, 10 µs to 60 s, each bound a tenth above the one before: 165 buckets.
///
/// A stage's p99 is read within 2 % where latencies spread, within 10 % where they crowd. Wider buckets gave
/// stages a p99 above the p99 of the whole request.
fn stage_bounds() -> Vec<f64> {
    seconds(10_000, MINUTE_NS, 1.1)
}

/// Texts or tokens of a batch: powers of two.
fn size_bounds() -> Vec<f64> {
    (0..=17).map(|n| f64::from(1 << n)).collect()
}

/// A ratio: steps of 5 %.
fn share_bounds() -> Vec<f64> {
    (1..=20).map(|n| f64::from(n) / 20.0).collect()
}

const MINUTE_NS: f64 = 60e9;

/// Bounds from `first_ns` to the first one at or above `last_ns`, each `ratio` times the one before. They are
/// rounded to four digits so that the page stays readable.
fn seconds(first_ns: u64, last_ns: f64, ratio: f64) -> Vec<f64> {
    let exact = std::iter::successors(Some(first_ns as f64), |bound| {
        (*bound < last_ns).then_some(bound * ratio)
    });
    let rounded = exact.map(|bound| {
        let step = 10_u64.pow((bound as u64).ilog10() - 3);
        (bound as u64 + step / 2) / step * step
    });
    rounded.map(|ns| ns as f64 / 1e9).collect()
}
