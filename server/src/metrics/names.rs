//! Every metric: its name, type, unit, labels and meaning. `docs/metrics.md` has a row for each, which a
//! test compares with this table.

/// The Prometheus type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values by size.
    Histogram,
    /// Quantiles of the last minute.
    Summary,
}

impl Kind {
    /// The word in the exposition.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        }
    }
}

/// The unit of a family's values, and by what the recorded integer is divided to get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Recorded in nanoseconds.
    Seconds,
    /// Recorded in nanoseconds; Triton's own unit.
    Microseconds,
    /// Recorded in parts per million.
    Ratio,
}

impl Unit {
    /// What one unit is in recorded integers.
    pub(super) fn divisor(self) -> f64 {
        match self {
            Unit::Count => 1.0,
            Unit::Seconds => 1e9,
            Unit::Microseconds => 1e3,
            Unit::Ratio => 1e6,
        }
    }
}

/// All series of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The unit.
    pub unit: Unit,
    /// The names of the labels, in the order of their values. The `le` of a histogram and the `quantile`
    /// of a summary come on top.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// Declares the families and the list of all of them.
macro_rules! families {
    ($($id:ident = $kind:ident $unit:ident $name:literal $labels:tt $help:literal;)+) => {
        $(pub(super) const $id: Family = Family {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &$labels,
            help: $help,
        };)+

        /// Every family, in the order of the page.
        pub const FAMILIES: &[Family] = &[$($id),+];
    };
}

families! {
    BUILD_INFO = Gauge Count "penstock_build_info" ["version", "features"]
        "Always 1; the labels say which build runs.";
    REQUESTS = Counter Count "penstock_requests_total" ["model", "source", "class", "outcome"]
        "Requests that ended, by how they ended.";
    REQUEST_DURATION = Histogram Seconds "penstock_request_duration_seconds" ["model", "source", "class"]
        "From the request read to its response built, for every request that was let in.";
    REQUEST_LATENCY = Summary Seconds "penstock_request_latency_seconds" ["model", "source", "class"]
        "Quantiles of the request duration over the last minute, within 1 percent.";
    STAGE_DURATION = Histogram Seconds "penstock_stage_duration_seconds" ["model", "stage"]
        "Where the time of answered requests went; the four stages sum to the request duration.";
    QUEUE_DEPTH = Gauge Count "penstock_queue_depth" ["model", "class"]
        "Texts that were admitted and do not run yet.";
    QUEUE_TOKENS = Gauge Count "penstock_queue_tokens" ["model", "class"]
        "Tokens of the texts that were admitted and do not run yet.";
    BATCH_TEXTS = Histogram Count "penstock_batch_texts" ["model"]
        "Texts of a batch.";
    BATCH_TOKENS = Histogram Count "penstock_batch_tokens" ["model"]
        "Tokens of a batch.";
    BATCH_DURATION = Histogram Seconds "penstock_batch_duration_seconds" ["model"]
        "The forward pass of a batch.";
    BATCH_FILL = Histogram Ratio "penstock_batch_fill_ratio" ["model"]
        "Tokens of a batch over its token budget.";
    PADDING_TOKENS = Counter Count "penstock_padding_tokens_total" ["model"]
        "Tokens computed that belong to no text; packed batches have none.";
    DEVICE_BUSY = Gauge Ratio "penstock_device_busy_ratio" ["device"]
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
        "Triton's name: texts that were admitted and do not run yet.";
}

/// The values of `stage`, in the order in which a request passes them.
pub(super) const STAGES: [&str; 4] = ["tokenize", "queue", "execute", "respond"];

/// The quantiles published live, with their label values.
pub(super) const QUANTILES: [(f64, &str); 4] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (0.999, "0.999")];

/// The `model` of requests that named none that serves. No model can have this name: configured names
/// hold no parenthesis.
pub(super) const UNKNOWN_MODEL: &str = "(unknown)";
