//! Each rule of the batcher by an example; `tests/simulation.rs` mixes them.

use std::sync::Arc;

use super::*;
use crate::testing::{Answers, millis, request};

const MS: Duration = Duration::from_millis(1);

struct World {
    batcher: Batcher,
    answers: Arc<Answers>,
    row: u32,
}

fn policy(tokens_max: usize, requests_max: usize) -> BatchPolicy {
    BatchPolicy::new(
        tokens_max,
        requests_max,
        100 * MS,
        tokens_max,
        Duration::ZERO,
        None,
    )
    .unwrap()
}

/// A cost model that has seen a device of 1 ms a batch and 1 ms a token.
fn one_ms_a_token() -> CostModel {
    let mut cost = CostModel::new();
    for len in [1_usize, 4, 9, 2, 30, 17, 5, 60, 3, 12] {
        cost.observe(BatchShape::default().with(len).with(1), (2 + len as u32) * MS);
        cost.observe(BatchShape::default().with(len), (1 + len as u32) * MS);
    }
    cost
}

impl World {
    fn new(policy: BatchPolicy, cost: CostModel) -> World {
        World {
            batcher: Batcher::new(policy, cost, 1),
            answers: Arc::default(),
            row: 0,
        }
    }

    /// Offers a text and returns its row.
    fn offer(&mut self, class: Class, len: usize, at_ms: u64) -> u32 {
        self.offer_until(class, len, at_ms, None)
    }

    fn offer_until(&mut self, class: Class, len: usize, at_ms: u64, deadline_ms: Option<u64>) -> u32 {
        let row = self.row;
        self.row += 1;
        let mut request = request(&self.answers, row, class, len, at_ms);
        request.context.deadline = deadline_ms.map(millis);
        self.batcher.offer(request);
        row
    }

    /// Rows of the next batch.
    fn run(&mut self, at_ms: u64) -> Vec<u32> {
        rows(self.batcher.poll(millis(at_ms)))
    }

    /// Rows of the next urgent batch.
    fn run_urgent(&mut self, at_ms: u64) -> Vec<u32> {
        rows(self.batcher.poll_urgent(millis(at_ms)))
    }

    fn idle_until(&mut self, at_ms: u64) -> Option<Nanos> {
        match self.batcher.poll(millis(at_ms)) {
            Poll::Run(batch) => panic!("a batch of {} runs", batch.len()),
            Poll::IdleUntil(at) => at,
        }
    }
}

fn rows(poll: Poll) -> Vec<u32> {
    match poll {
        Poll::Run(batch) => batch.requests().iter().map(|r| r.tokens.as_slice()[0]).collect(),
        Poll::IdleUntil(_) => Vec::new(),
    }
}

use Class::{Bulk, Interactive};

#[test]
fn a_batch_is_cut_by_tokens_and_by_texts() {
    let mut world = World::new(policy(10, 3), CostModel::new());
    for len in [4, 6, 1, 1, 1, 1, 10] {
        world.offer(Interactive, len, 0);
    }
    assert_eq!(world.run(0), [0, 1]);
    assert_eq!(world.run(0), [2, 3, 4]);
    assert_eq!(world.run(0), [5]);
    assert_eq!(world.run(0), [6]);
    assert_eq!(world.idle_until(0), None);
}

#[test]
fn interactive_goes_first_and_bulk_fills_what_is_left() {
    let mut world = World::new(policy(10, 8), CostModel::new());
    let bulk = [world.offer(Bulk, 3, 0), world.offer(Bulk, 4, 0)];
    let interactive = [world.offer(Interactive, 3, 1), world.offer(Interactive, 3, 1)];
    assert_eq!(world.run(2), [interactive[0], interactive[1], bulk[0]]);
    assert_eq!(world.run(2), [bulk[1]]);
}

#[test]
fn aged_bulk_goes_first_with_a_quarter_of_the_batch() {
    let mut world = World::new(policy(40, 40), CostModel::new());
    let bulk: Vec<u32> = (0..6).map(|_| world.offer(Bulk, 5, 0)).collect();
    let interactive: Vec<u32> = (0..6).map(|_| world.offer(Interactive, 5, 90)).collect();
    let expected = [&bulk[..2], &interactive[..]].concat();
    assert_eq!(world.run(100), expected);
    assert_eq!(world.run(100), bulk[2..]);
}

#[test]
fn aged_bulk_that_fills_the_batch_alone_gives_way_the_next_time() {
    let mut world = World::new(policy(10, 1), CostModel::new());
    for _ in 0..3 {
        world.offer(Bulk, 10, 0);
        world.offer(Interactive, 10, 0);
    }
    let order: Vec<u32> = (0..6).flat_map(|_| world.run(500)).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn cancelled_and_late_texts_are_answered_without_running() {
    let mut world = World::new(policy(10, 8), CostModel::new());
    let late = world.offer_until(Interactive, 1, 0, Some(5));
    let timely = world.offer_until(Interactive, 1, 0, Some(6));
    assert_eq!(world.run(5), [timely]);
    assert!(matches!(
        world.answers.rejection(late),
        Some(Rejection::DeadlineExceeded(_))
    ));
    let gone = world.offer(Bulk, 1, 6);
    world.answers.cancel();
    assert_eq!(world.idle_until(6), None);
    assert_eq!(world.answers.rejection(gone), Some(Rejection::Cancelled));
}

#[test]
fn a_text_that_would_be_late_is_refused_before_it_runs() {
    let mut world = World::new(policy(100, 8), one_ms_a_token());
    let hopeless = world.offer_until(Interactive, 20, 0, Some(15));
    let timely = world.offer_until(Interactive, 20, 0, Some(30));
    assert_eq!(world.run(0), [timely]);
    assert!(matches!(
        world.answers.rejection(hopeless),
        Some(Rejection::DeadlineExceeded(_))
    ));
}

#[test]
fn a_text_that_joins_makes_no_other_late() {
    let mut world = World::new(policy(100, 8), one_ms_a_token());
    let tight = world.offer_until(Interactive, 5, 0, Some(12));
    let long = world.offer(Interactive, 50, 0);
    assert_eq!(world.run(0), [tight]);
    assert_eq!(world.run(0), [long]);
}

#[test]
fn a_pessimistic_forecast_is_corrected() {
    let mut world = World::new(policy(100, 8), one_ms_a_token());
    // The device is a hundred times as fast now; by the old forecast every text would be late.
    let mut ran = 0;
    for at in 0..4000 {
        world.offer_until(Interactive, 50, at * 10, Some(at * 10 + 5));
        if let Poll::Run(batch) = world.batcher.poll(millis(at * 10)) {
            ran += 1;
            world.batcher.observe(batch.shape(), Duration::from_micros(500));
        }
    }
    assert!(ran > 1000, "{ran} of 4000 ran");
}

#[test]
fn a_forecast_that_is_checked_by_batches_is_not_probed() {
    let mut world = World::new(policy(100, 8), one_ms_a_token());
    for at in 0..100 {
        world.offer_until(Interactive, 50, at * 10, Some(at * 10 + 5));
        assert!(world.run(at * 10).is_empty());
        world.batcher.observe(BatchShape::default().with(4), 5 * MS);
    }
}

#[test]
fn a_probe_runs_alone() {
    let mut world = World::new(policy(100, 8), one_ms_a_token());
    for _ in 0..PROBE_AFTER {
        world.offer_until(Interactive, 50, 0, Some(5));
    }
    let probe = world.offer_until(Interactive, 50, 0, Some(5));
    let next = world.offer(Interactive, 1, 0);
    assert_eq!(world.run(0), [probe]);
    assert_eq!(world.run(0), [next]);
}

#[test]
fn batches_stay_short_while_interactive_work_is_recent() {
    let policy = BatchPolicy::new(100, 100, MS * 1000, 100, Duration::ZERO, Some(30 * MS)).unwrap();
    let mut world = World::new(policy, one_ms_a_token());
    for _ in 0..60 {
        world.offer(Bulk, 2, 0);
    }
    assert_eq!(world.run(1).len(), 50);
    for _ in 0..60 {
        world.offer(Bulk, 2, 1);
    }
    let interactive = world.offer(Interactive, 2, 1);
    let batch = world.run(2);
    assert_eq!((batch[0], batch.len()), (interactive, 4));
    assert_eq!(world.run(5000).len(), 4);
    assert_eq!(world.run(10_001).len(), 50);
}

#[test]
fn without_prefetching_a_batch_may_take_half_of_the_target() {
    let policy = BatchPolicy::new(100, 100, MS * 1000, 100, Duration::ZERO, Some(31 * MS)).unwrap();
    let mut world = World::new(policy.clone(), one_ms_a_token());
    world.batcher = Batcher::new(policy, one_ms_a_token(), 0);
    let interactive = world.offer(Interactive, 2, 0);
    for _ in 0..60 {
        world.offer(Bulk, 2, 0);
    }
    let batch = world.run(1);
    assert_eq!((batch[0], batch.len()), (interactive, 7));
}

#[test]
fn with_preemption_bulk_batches_may_be_longer() {
    let policy = BatchPolicy::new(100, 100, MS * 1000, 100, Duration::ZERO, Some(30 * MS)).unwrap();
    let mut world = World::new(policy.clone(), one_ms_a_token());
    world.batcher = Batcher::new(policy, one_ms_a_token(), 1).with_preemption_points(4);
    let interactive = world.offer(Interactive, 2, 0);
    for _ in 0..60 {
        world.offer(Bulk, 2, 0);
    }
    let batch = world.run(1);
    assert_eq!(
        (batch[0], batch.len()),
        (interactive, 4),
        "the interactive text waits for this batch"
    );
    assert_eq!(
        world.run(1).len(),
        19,
        "40 ms, of which an interactive text waits for a quarter"
    );
}

#[test]
fn an_urgent_batch_holds_interactive_work_alone() {
    let mut world = World::new(policy(10, 8), CostModel::new());
    world.offer(Bulk, 3, 0);
    assert!(world.run_urgent(0).is_empty());
    let interactive = [world.offer(Interactive, 6, 0), world.offer(Interactive, 4, 0)];
    world.offer(Interactive, 1, 0);
    assert_eq!(world.run_urgent(0), interactive);
    assert_eq!(world.run(0), [3, 0]);
}

#[test]
fn urgent_work_waits_for_its_delay_too() {
    let policy = BatchPolicy::new(10, 3, 100 * MS, 10, 20 * MS, None).unwrap();
    let mut world = World::new(policy, CostModel::new());
    world.offer(Interactive, 2, 5);
    let early = world.batcher.poll_urgent(millis(24));
    assert!(matches!(early, Poll::IdleUntil(Some(at)) if at == millis(25)));
    assert_eq!(world.run_urgent(25), [0]);
}

#[test]
fn interactive_work_alone_is_not_cut() {
    let policy = BatchPolicy::new(100, 100, MS * 1000, 100, Duration::ZERO, Some(30 * MS)).unwrap();
    let mut world = World::new(policy, one_ms_a_token());
    for _ in 0..60 {
        world.offer(Interactive, 2, 0);
    }
    let bulk = world.offer(Bulk, 2, 0);
    assert_eq!(world.run(1).len(), 50);
    assert_eq!(world.run(1).len(), 10, "bulk work does not join a batch of 21 ms");
    assert_eq!(world.run(1), [bulk]);
}

#[test]
fn the_longest_text_runs_even_if_it_misses_the_target() {
    let policy = BatchPolicy::new(100, 100, MS * 1000, 100, Duration::ZERO, Some(30 * MS)).unwrap();
    let mut world = World::new(policy, one_ms_a_token());
    let longest = world.offer(Interactive, 100, 0);
    assert_eq!(world.run(0), [longest]);
}

#[test]
fn a_batch_that_is_not_full_waits_for_its_delay() {
    let policy = BatchPolicy::new(10, 3, 100 * MS, 10, 20 * MS, None).unwrap();
    let mut world = World::new(policy, CostModel::new());
    assert_eq!(world.idle_until(0), None);
    world.offer(Interactive, 2, 5);
    assert_eq!(world.idle_until(6), Some(millis(25)));
    world.offer(Bulk, 2, 7);
    assert_eq!(world.idle_until(8), Some(millis(25)));
    assert_eq!(world.run(25), [0, 1]);
    for len in [2, 3, 5] {
        world.offer(Interactive, len, 30);
    }
    assert_eq!(world.run(30).len(), 3);
    let tight = world.offer_until(Interactive, 1, 40, Some(65));
    assert_eq!(world.idle_until(40), Some(millis(45)));
    assert_eq!(world.run(46), [tight]);
}

#[test]
fn a_text_longer_than_the_window_is_refused() {
    let policy = BatchPolicy::new(10, 3, 100 * MS, 8, Duration::ZERO, None).unwrap();
    let mut world = World::new(policy, CostModel::new());
    let row = world.offer(Interactive, 9, 0);
    let why = Rejection::Invalid("text of 9 tokens exceeds the window of 8".into());
    assert_eq!(world.answers.rejection(row), Some(why));
    assert!(world.batcher.is_empty());
}

#[test]
fn a_device_without_memory_gets_smaller_batches_and_still_the_longest_text() {
    let policy = BatchPolicy::new(64, 64, 100 * MS, 10, Duration::ZERO, None).unwrap();
    let mut world = World::new(policy, CostModel::new());
    let mut check = |tokens: usize, expected: Option<(usize, usize)>| {
        let lowered = world.batcher.out_of_memory(tokens);
        assert_eq!(lowered.map(|l| (l.from, l.to)), expected, "{tokens}");
    };
    check(60, Some((64, 30)));
    // Batches that were packed before may exceed the new budget.
    check(64, None);
    check(30, Some((30, 15)));
    check(15, Some((15, 10)));
    check(10, None);
    for _ in 0..3 {
        world.offer(Class::Interactive, 5, 0);
    }
    let Poll::Run(batch) = world.batcher.poll(millis(0)) else {
        panic!("there is work");
    };
    assert_eq!(batch.tokens.tokens(), 10);
}
