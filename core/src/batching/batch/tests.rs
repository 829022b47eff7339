//! Rows reach the requests they belong to, whatever the model returns, and stage times add up.

use std::sync::Arc;

use super::*;
use crate::batching::reply::Stages;
use crate::batching::request::Class;
use crate::testing::{Answers, millis, request};

fn batch(answers: &Arc<Answers>, lens: &[usize]) -> Batch {
    let rows = lens.iter().zip(0..);
    let requests = rows.map(|(&len, row)| request(answers, row, Class::Interactive, len, 0));
    Batch::pack(requests.collect(), None)
}

#[test]
fn a_batch_with_an_interactive_text_is_not_bulk() {
    let of = |classes: &[Class]| {
        let answers = Arc::default();
        let rows = classes.iter().zip(0..);
        let requests = rows.map(|(&class, row)| request(&answers, row, class, 1, 0));
        Batch::pack(requests.collect(), None).is_bulk()
    };
    assert!(of(&[Class::Bulk, Class::Bulk]));
    assert!(!of(&[Class::Bulk, Class::Interactive]) && !of(&[Class::Interactive]));
}

fn embedding(x: f32) -> Reply {
    Reply::Embedding(vec![x])
}

#[test]
fn texts_are_packed_back_to_back() {
    let packed = PackedTokens::from_texts([&[7, 8, 9][..], &[1], &[4, 5]]);
    assert_eq!(packed.ids, [7, 8, 9, 1, 4, 5]);
    assert_eq!(packed.cu_seqlens, [0, 3, 4, 6]);
    assert_eq!((packed.sequences(), packed.tokens()), (3, 6));
    assert_eq!(packed.lengths().collect::<Vec<_>>(), [3, 1, 2]);
    assert_eq!(
        packed.shape(),
        BatchShape {
            tokens: 6,
            sum_len_sq: 14,
            texts: 3
        }
    );
    assert_eq!(PackedTokens::default().sequences(), 0);
}

#[test]
fn a_part_holds_its_texts_alone() {
    let packed = PackedTokens::from_texts([&[7, 8, 9][..], &[1], &[4, 5]]);
    assert_eq!(packed.part(1..3), PackedTokens::from_texts([&[1][..], &[4, 5]]));
    assert_eq!(packed.part(0..0), PackedTokens::default());
}

#[test]
fn removing_a_text_undoes_adding_it() {
    let shape = BatchShape::default().with(5).with(7);
    assert_eq!(shape.without(5), BatchShape::default().with(7));
}

#[test]
fn each_request_gets_its_row_and_its_times() {
    let answers = Arc::new(Answers::default());
    let mut batch = batch(&answers, &[2, 3]);
    assert_eq!(batch.tokens.ids, [0, 0, 1, 1, 1]);
    batch.started(millis(4));
    let failed = Rejection::NotFinite { model: "m".into() };
    batch.answer_rows(vec![Ok(embedding(1.0)), Err(failed.clone())], millis(9));
    let stages = Stages {
        tokenize: Duration::ZERO,
        queue: Duration::from_millis(4),
        execute: Duration::from_millis(5),
        finished: millis(9),
        tokens: 2,
    };
    assert_eq!(answers.get(0), Some((Ok(embedding(1.0)), stages)));
    assert_eq!(
        answers.get(1),
        Some((Err(failed), Stages { tokens: 3, ..stages }))
    );
}

#[test]
fn stages_sum_to_the_total_when_the_clock_runs_backwards() {
    let answers = Arc::new(Answers::default());
    let mut late = request(&answers, 0, Class::Bulk, 1, 5);
    late.tokenized = millis(8);
    let mut batch = Batch::pack(vec![late], None);
    batch.started(millis(6));
    batch.answer(Ok(vec![embedding(0.0)]), millis(2));
    let (_, stages) = answers.get(0).unwrap();
    let total = stages.finished.since(millis(5));
    assert_eq!(stages.tokenize + stages.queue + stages.execute, total);
}

#[test]
fn a_wrong_number_of_rows_fails_every_request() {
    let answers = Arc::new(Answers::default());
    batch(&answers, &[1, 1, 1]).answer(Ok(vec![embedding(1.0), embedding(2.0)]), millis(1));
    for row in 0..3 {
        let why = Rejection::Model("the model answered 2 rows for 3 texts".into());
        assert_eq!(answers.rejection(row), Some(why));
    }
}

#[test]
fn a_failed_batch_and_a_dropped_one_answer_every_request() {
    let answers = Arc::new(Answers::default());
    batch(&answers, &[1, 2]).answer(Err(Rejection::Cancelled), millis(1));
    assert_eq!(answers.rejection(1), Some(Rejection::Cancelled));
    let answers = Arc::new(Answers::default());
    drop(batch(&answers, &[1, 2]));
    assert_eq!(answers.rejection(0), Some(Rejection::Lost));
    assert_eq!(answers.count(), 2);
}

#[test]
fn the_middle_halves_the_tokens() {
    let check = |lengths: &[usize], expected: usize| {
        let texts: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![1; length]).collect();
        let tokens = PackedTokens::from_texts(texts.iter().map(Vec::as_slice));
        assert_eq!(tokens.middle(), expected, "{lengths:?}");
    };
    check(&[], 0);
    check(&[9], 0);
    check(&[1, 9], 1);
    check(&[9, 1], 1);
    check(&[5, 5, 5, 5], 2);
    check(&[1, 1, 1, 1, 16], 4);
    check(&[16, 1, 1, 1, 1], 1);
}

#[test]
fn requests_that_died_while_the_batch_waited_do_not_run() {
    let answers = Arc::new(Answers::default());
    let gone = Arc::new(Answers::default());
    let mut requests: Vec<Request> = (0..4)
        .map(|row| request(&answers, row, Class::Interactive, 2, 0))
        .collect();
    requests.push(request(&gone, 4, Class::Interactive, 2, 0));
    requests[1].context.deadline = Some(millis(10));
    requests[2].context.deadline = Some(millis(14));
    requests[3].context.deadline = Some(millis(15));
    let mut batch = Batch::pack(requests, Some(Duration::from_millis(5)));
    gone.cancel();
    assert_eq!(batch.shed(millis(10)), 2);
    assert_eq!(batch.tokens.ids, [0, 0, 3, 3]);
    assert_eq!(gone.rejection(4), Some(Rejection::Cancelled));
    assert!(matches!(
        answers.rejection(1),
        Some(Rejection::DeadlineExceeded(_))
    ));
    assert!(matches!(
        answers.rejection(2),
        Some(Rejection::DeadlineExceeded(_))
    ));
    assert_eq!(answers.count(), 2);
}
