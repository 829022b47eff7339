//! Tests of the metrics page: names follow Prometheus' conventions, the format parses, the values are right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::metrics::Unit;
use penstock_core::{Class, Nanos, Source, Stages};

use super::names::{FAMILIES, Family, Kind};
use super::*;

impl Kind {
    /// The type's name in the exposition format.
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
            Kind::Summary => "summary",
        }
    }
}

/// A parsed page: each sample's name and labels, with its value.
pub(super) struct Read {
    pub(super) samples: BTreeMap<String, f64>,
    /// Type and help by family.
    families: BTreeMap<String, (String, String)>,
}

impl Read {
    /// Parses the text format strictly: a family's lines are contiguous, under one HELP and one TYPE, and no
    /// series comes twice.
    fn parse(page: &str) -> Read {
        let mut read = Read {
            samples: BTreeMap::new(),
            families: BTreeMap::new(),
        };
        let mut current = String::new();
        let mut help = String::new();
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, text) = rest.split_once(' ').unwrap();
                (current, help) = (name.to_owned(), text.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, current);
                let before = read
                    .families
                    .insert(name.to_owned(), (kind.to_owned(), help.clone()));
                assert_eq!(before, None, "{name} stands twice");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let family = ["_bucket", "_sum", "_count"]
                    .into_iter()
                    .find_map(|s| name.strip_suffix(s));
                let has_parts = ["histogram", "summary"].contains(&read.families[&current].0.as_str());
                let family = family.filter(|_| has_parts).unwrap_or(name);
                assert_eq!(family, current, "{line}");
                let value: f64 = value.parse().unwrap();
                assert_eq!(
                    read.samples.insert(series.to_owned(), value),
                    None,
                    "{series} stands twice"
                );
            }
        }
        read
    }

    pub(super) fn value(&self, series: &str) -> f64 {
        *self
            .samples
            .get(series)
            .unwrap_or_else(|| panic!("no series {series}"))
    }

    /// Within 1 %.
    pub(super) fn near(&self, series: &str, value: f64) {
        let found = self.value(series);
        assert!(
            (found - value).abs() <= value.abs() * 0.01 + 1e-12,
            "{series} is {found}, not {value}"
        );
    }

    pub(super) fn has(&self, prefix: &str) -> bool {
        self.samples.keys().any(|series| series.starts_with(prefix))
    }
}

pub(super) fn read(metrics: &Metrics) -> Read {
    Read::parse(&metrics.render())
}

pub(super) const MS: Duration = Duration::from_millis(1);

/// One request of each kind on model `m`, 10 ms for each that was admitted.
fn some_traffic(metrics: &Metrics) {
    let handles = metrics.model("m", "1");
    let stages = Stages {
        tokenize: MS,
        queue: 2 * MS,
        execute: 4 * MS,
        finished: Nanos(0),
        tokens: 0,
    };
    for source in Source::ALL {
        for outcome in OutcomeLabel::ALL {
            handles.request_done(
                source,
                Class::Interactive,
                outcome,
                3,
                Some(&stages),
                3 * MS,
                10 * MS,
            );
        }
    }
    handles.batch_done(6, 120, 480, 4 * MS);
    handles.queue(Class::Bulk, 7, 70);
    handles.batch_budget(480);
    metrics.unknown_model(Source::Grpc, Class::Bulk, OutcomeLabel::NotFound);
    metrics.device_busy("cpu").add(4 * MS);
    super::kafka::tests::some_stream(metrics);
}

#[test]
fn names_follow_the_practice() {
    let mut names = BTreeSet::new();
    for Family {
        name,
        kind,
        unit,
        labels,
        help,
    } in FAMILIES
    {
        assert!(names.insert(name), "{name} is declared twice");
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        assert!(
            help.len() > 10 && help.ends_with('.') && !help.contains(['\n', '\\']),
            "{name}: {help}"
        );
        let closed = [
            "model",
            "version",
            "source",
            "class",
            "outcome",
            "stage",
            "device",
            "features",
            "route",
            "kind",
            "direction",
            "reason",
            // Bounded by the configuration, or by `topics_max`; a topic's partitions are bounded by Kafka.
            "topic",
            "partition",
        ];
        assert!(
            labels.iter().all(|label| closed.contains(label)),
            "{name}: {labels:?} holds a label from input"
        );
        if name.starts_with("nv_inference_") {
            // Triton's names are kept as they are.
            assert_eq!(*labels, ["model", "version"], "{name}");
            continue;
        }
        assert!(name.starts_with("penstock_"), "{name}");
        assert_eq!(name.ends_with("_total"), matches!(kind, Kind::Counter), "{name}");
        assert_eq!(name.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
        assert_eq!(name.ends_with("_ratio"), *unit == Unit::Percent, "{name}");
        assert!(*unit != Unit::Microseconds, "{name} is not in a base unit");
        let wrong = [
            "_ms",
            "_us",
            "_ns",
            "_percent",
            "_milliseconds",
            "_bucket",
            "_sum",
            "_count",
        ];
        assert!(!wrong.iter().any(|suffix| name.ends_with(suffix)), "{name}");
    }
}

#[test]
fn the_manual_has_every_metric_with_its_type_and_labels() {
    let manual = include_str!("../../../docs/metrics.md");
    let rows: BTreeSet<&str> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(name, _)| name))
        .collect();
    for Family {
        name, kind, labels, ..
    } in FAMILIES
    {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{name}` | {} | {} |", kind.name(), labels.join(", "));
        assert!(
            manual.lines().any(|line| line.starts_with(&row)),
            "docs/metrics.md lacks the row {row}"
        );
    }
    let known: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(
        rows.difference(&known).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "documented, but not there"
    );
}

#[test]
fn every_family_is_on_the_page() {
    let metrics = Metrics::new(Clock::start());
    some_traffic(&metrics);
    let read = read(&metrics);
    for Family { name, kind, help, .. } in FAMILIES {
        assert_eq!(
            read.families.get(*name),
            Some(&(kind.name().to_owned(), (*help).to_owned())),
            "{name}"
        );
        assert!(read.has(name), "{name} has no sample");
    }
    assert_eq!(read.families.len(), FAMILIES.len());
}

#[test]
fn figures_are_what_was_reported() {
    let metrics = Metrics::new(Clock::start());
    some_traffic(&metrics);
    let read = read(&metrics);
    let near = |series: &str, value: f64| read.near(series, value);
    let origin = r#"model="m",source="grpc",class="interactive""#;
    near(
        &format!(r#"penstock_requests_total{{{origin},outcome="ok"}}"#),
        1.0,
    );
    near(
        &format!(r#"penstock_requests_total{{{origin},outcome="overloaded"}}"#),
        1.0,
    );
    near(
        r#"penstock_requests_total{model="(unknown)",source="grpc",class="bulk",outcome="not_found"}"#,
        1.0,
    );
    // Four of the eight outcomes are refusals before admission; they have no latency.
    near(
        &format!("penstock_request_duration_seconds_count{{{origin}}}"),
        4.0,
    );
    near(
        &format!("penstock_request_duration_seconds_sum{{{origin}}}"),
        0.04,
    );
    near(
        &format!(r#"penstock_request_latency_seconds{{{origin},quantile="0.99"}}"#),
        0.01,
    );
    // The stages are those of the answered requests, one a source, and sum to their durations.
    let answered = Source::ALL.len() as f64;
    for (stage, seconds) in [
        ("tokenize", 0.001),
        ("queue", 0.002),
        ("execute", 0.004),
        ("respond", 0.003),
    ] {
        near(
            &format!(r#"penstock_stage_duration_seconds_sum{{model="m",stage="{stage}"}}"#),
            answered * seconds,
        );
        near(
            &format!(r#"penstock_stage_duration_seconds_count{{model="m",stage="{stage}"}}"#),
            answered,
        );
    }
}

#[test]
fn queues_batches_and_triton_say_the_same() {
    let metrics = Metrics::new(Clock::start());
    some_traffic(&metrics);
    let read = read(&metrics);
    let near = |series: &str, value: f64| read.near(series, value);
    near(r#"penstock_queue_depth{model="m",class="bulk"}"#, 7.0);
    near(r#"penstock_queue_tokens{model="m",class="bulk"}"#, 70.0);
    near(r#"penstock_batch_texts_bucket{model="m",le="8"}"#, 1.0);
    near(r#"penstock_batch_texts_bucket{model="m",le="4"}"#, 0.0);
    near(r#"penstock_batch_fill_ratio_sum{model="m"}"#, 0.25);
    near(r#"penstock_batch_tokens_max{model="m",version="1"}"#, 480.0);
    near(r#"penstock_padding_tokens_total{model="m"}"#, 0.0);
    let version = r#"{model="m",version="1"}"#;
    // Each source has one answered request, and one failed request for each other outcome.
    let answered = Source::ALL.len() as u64;
    let failed = answered * (OutcomeLabel::ALL.len() as u64 - 1);
    let is = |name: &str, value: u64| near(&format!("{name}{version}"), value as f64);
    is("nv_inference_request_success", answered);
    is("nv_inference_request_failure", failed);
    is("nv_inference_count", answered * 3);
    is("nv_inference_exec_count", 1);
    is("nv_inference_request_duration_us", answered * 10_000);
    is("nv_inference_queue_duration_us", answered * 2_000);
    near(&format!("nv_inference_pending_request_count{version}"), 7.0);
    let statistics = metrics.model("m", "1").statistics();
    assert_eq!(
        statistics.success,
        Tally {
            count: answered,
            ns: answered * 10_000_000
        }
    );
    assert_eq!(
        statistics.compute_input,
        Tally {
            count: answered,
            ns: answered * 1_000_000
        }
    );
    assert_eq!(
        (statistics.inference_count, statistics.execution_count),
        (answered * 3, 1)
    );
    assert!(statistics.last_inference_ms > 1_700_000_000_000);
}

#[test]
fn a_series_exists_once_it_was_seen() {
    let metrics = Metrics::new(Clock::start());
    metrics.model("m", "1");
    let read = read(&metrics);
    assert!(!read.has("penstock_requests_total") && !read.has("penstock_request_latency_seconds"));
    assert!(read.has("penstock_build_info") && read.has("penstock_queue_depth"));
}

#[test]
fn versions_of_a_model_share_series_and_a_reload_takes_nothing_back() {
    let metrics = Metrics::new(Clock::start());
    for version in ["1", "2", "1"] {
        let done = |outcome| {
            let handles = metrics.model("m", version);
            handles.request_done(Source::Http, Class::Bulk, outcome, 1, None, MS, 5 * MS);
            handles.queue(Class::Bulk, 2, 20);
        };
        done(OutcomeLabel::Ok);
        done(OutcomeLabel::Error);
    }
    let read = read(&metrics);
    let origin = r#"model="m",source="http",class="bulk""#;
    let is = |series: &str, value: f64| assert!((read.value(series) - value).abs() < 1e-9, "{series}");
    is(
        &format!(r#"penstock_requests_total{{{origin},outcome="ok"}}"#),
        3.0,
    );
    is(
        &format!("penstock_request_duration_seconds_count{{{origin}}}"),
        6.0,
    );
    is(r#"penstock_queue_depth{model="m",class="bulk"}"#, 4.0);
    is(r#"nv_inference_request_success{model="m",version="1"}"#, 2.0);
    is(r#"nv_inference_request_success{model="m",version="2"}"#, 1.0);
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new(Clock::start());
    metrics.device_busy("a\\b\"c\nd");
    let page = metrics.render();
    assert!(
        page.contains(r#"penstock_device_busy_ratio{device="a\\b\"c\nd"} 0"#),
        "{page}"
    );
}
