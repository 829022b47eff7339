//! Tests of the options of `penstock.v1`: accepted and refused ones.

use penstock_core::{Nanos, Source};

use super::*;
use penstock_models::Task;
use penstock_models::testing::spec;

fn options() -> ScoreOptions {
    ScoreOptions {
        model: "m".into(),
        ..ScoreOptions::default()
    }
}

fn refused_with(task: Task, options: &ScoreOptions, words: &[&str]) {
    let message = check(options, &spec(task, &["bad", "good"]))
        .unwrap_err()
        .to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not name {word:?}");
    }
}

#[test]
fn defaults_are_interactive_truncated_and_the_models_own() {
    let plan = check(&options(), &spec(Task::Embedding, &[])).unwrap();
    assert_eq!(
        (plan.class, plan.order, plan.timeout),
        (Class::Interactive, Order::Completion, None)
    );
    assert!(plan.truncate);
    assert_eq!(
        plan.wish.shape,
        Shape {
            normalize: false,
            dimensions: None
        }
    );
}

#[test]
fn everything_said_is_heard() {
    let said = ScoreOptions {
        class: text::Class::Bulk.into(),
        order: text::Order::Input.into(),
        timeout: Some(prost_types::Duration {
            seconds: 1,
            nanos: 500_000_000,
        }),
        truncate: Some(false),
        normalize: Some(true),
        dimensions: Some(3),
        timings: true,
        ..options()
    };
    let plan = check(&said, &spec(Task::Embedding, &[])).unwrap();
    assert_eq!((plan.class, plan.order), (Class::Bulk, Order::Input));
    assert_eq!(plan.timeout, Some(Duration::from_millis(1500)));
    assert!(!plan.truncate && plan.wish.timings);
    assert_eq!(
        plan.wish.shape,
        Shape {
            normalize: true,
            dimensions: Some(3)
        }
    );
    let second = Nanos(0) + Duration::from_secs(1);
    let context = RequestContext::new(Source::Grpc, Nanos(0)).due(Some(second));
    let context = plan.apply(context);
    assert_eq!((context.class, context.truncate), (Class::Bulk, false));
    assert_eq!(context.deadline, Some(second), "the earlier of the two");
}

#[test]
fn options_that_do_not_fit_the_model_are_refused() {
    refused_with(
        Task::Embedding,
        &ScoreOptions {
            logits: true,
            ..options()
        },
        &["logits", "embeddings"],
    );
    refused_with(
        Task::Embedding,
        &ScoreOptions {
            dimensions: Some(5),
            ..options()
        },
        &["5", "1 to 4"],
    );
    refused_with(
        Task::Embedding,
        &ScoreOptions {
            dimensions: Some(0),
            ..options()
        },
        &["1 to 4"],
    );
    let classifier = Task::SequenceClassification;
    refused_with(
        classifier,
        &ScoreOptions {
            normalize: Some(false),
            ..options()
        },
        &["normalize", "m"],
    );
    refused_with(
        classifier,
        &ScoreOptions {
            class: 9,
            ..options()
        },
        &["unknown class 9"],
    );
    refused_with(
        classifier,
        &ScoreOptions {
            order: -1,
            ..options()
        },
        &["unknown order -1"],
    );
    let timeout = Some(prost_types::Duration {
        seconds: -1,
        nanos: 0,
    });
    refused_with(classifier, &ScoreOptions { timeout, ..options() }, &["timeout"]);
}
