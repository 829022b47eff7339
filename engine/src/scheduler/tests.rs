//! Tests of the scheduler: executors that end, and an executor for urgent batches.

use std::sync::Arc;

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use penstock_core::{
    Admission, AdmissionBounds, BatchPolicy, Class, CostModel, Outcome, Rejection, RequestContext, Responder,
    Sink, Source, Stages, TokenIds,
};

use super::*;

#[derive(Default)]
struct Answers(Mutex<Vec<(u32, Outcome)>>);

impl Sink for Answers {
    fn answer(&self, row: u32, outcome: Outcome, _: Stages) {
        self.0.lock().push((row, outcome));
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

fn request(admission: &Arc<Admission>, answers: &Arc<Answers>, row: u32) -> Request {
    request_of(Class::Interactive, admission, answers, row)
}

fn request_of(class: Class, admission: &Arc<Admission>, answers: &Arc<Answers>, row: u32) -> Request {
    let sink: Arc<dyn Sink> = Arc::clone(answers) as _;
    Request {
        tokens: TokenIds::new(vec![1, 2]).unwrap(),
        context: RequestContext {
            class,
            ..RequestContext::new(Source::Grpc, Nanos(0))
        },
        tokenized: Nanos(0),
        permit: admission.admit(class, 2, 2).unwrap(),
        responder: Responder::new(sink, row),
    }
}

fn rig() -> (Batcher, Arc<Admission>, Arc<Answers>) {
    let policy = BatchPolicy::new(8, 4, Duration::from_secs(1), 8, Duration::ZERO, None).unwrap();
    let bounds = AdmissionBounds {
        tokens_max: 64,
        bytes_max: 64,
        texts_max: 64,
    };
    (
        Batcher::new(policy, CostModel::default(), 1),
        Admission::new(bounds).unwrap(),
        Arc::default(),
    )
}

/// Channels to executors, without one for urgent batches.
fn wires(requests: Receiver<Request>, reports: Receiver<Report>, batches: Vec<Sender<Batch>>) -> Wires {
    Wires {
        requests,
        reports,
        batches,
        urgent: false,
    }
}

/// Report of a batch without a valid duration.
fn ran_once(executor: usize, shape: BatchShape) -> Ran {
    Ran {
        executor,
        shape,
        took: None,
        too_large: None,
    }
}

#[test]
fn without_executors_everything_is_answered_and_the_thread_ends() {
    let (batcher, admission, answers) = rig();
    let (requests, requests_out) = bounded(8);
    let (batches, batches_out) = bounded::<Batch>(1);
    let (ran_in, ran) = bounded(1);
    for row in 0..8 {
        requests.send(request(&admission, &answers, row)).unwrap();
    }
    drop((ran_in, batches_out));
    // Returns although the requests' sender still exists.
    let _ = run(
        "model",
        batcher,
        wires(requests_out, ran, vec![batches]),
        1,
        Clock::start(),
        |_| {},
    );
    let answers = answers.0.lock();
    assert_eq!(answers.len(), 8);
    assert!(
        answers
            .iter()
            .all(|(_, outcome)| *outcome == Err(Rejection::Lost)),
        "{answers:?}"
    );
    assert_eq!(admission.depth(Class::Interactive), 0);
}

#[test]
fn requests_sent_before_the_senders_close_still_run() {
    let (batcher, admission, answers) = rig();
    let (requests, requests_out) = bounded(8);
    let (batches, batches_out) = bounded::<Batch>(1);
    let (report, ran) = bounded(1);
    for row in 0..8 {
        requests.send(request(&admission, &answers, row)).unwrap();
    }
    drop(requests);
    let executor = std::thread::spawn(move || {
        let mut texts = 0;
        for batch in batches_out {
            texts += batch.len();
            let shape = batch.shape();
            batch.answer(Err(Rejection::Cancelled), Nanos(1));
            let report_one = ran_once(0, shape);
            if report.send(Report::Ran(report_one)).is_err() {
                break;
            }
        }
        texts
    });
    let _ = run(
        "model",
        batcher,
        wires(requests_out, ran, vec![batches]),
        1,
        Clock::start(),
        |_| {},
    );
    assert_eq!(executor.join().unwrap(), 8);
    assert_eq!(answers.0.lock().len(), 8);
}

#[test]
fn a_batch_that_an_executor_left_behind_is_answered_while_others_go_on() {
    let (batcher, admission, answers) = rig();
    let (requests, requests_out) = bounded(8);
    let (gone, gone_out) = bounded::<Batch>(1);
    let (other, _other_out) = bounded::<Batch>(1);
    let (report, reports) = bounded(2);
    for row in 0..4 {
        requests.send(request(&admission, &answers, row)).unwrap();
    }
    let wires = wires(requests_out, reports, vec![gone, other]);
    let scheduler = std::thread::spawn(move || drop(run("model", batcher, wires, 1, Clock::start(), |_| {})));
    // The executor has a batch that will never be taken out.
    while gone_out.is_empty() {
        std::thread::yield_now();
    }
    drop(gone_out);
    report.send(Report::Gone(0)).unwrap();
    while answers.0.lock().is_empty() {
        std::thread::yield_now();
    }
    assert!(
        answers
            .0
            .lock()
            .iter()
            .all(|(_, outcome)| *outcome == Err(Rejection::Lost))
    );
    drop((requests, report));
    scheduler.join().unwrap();
}

#[test]
fn a_batch_for_an_executor_that_is_gone_goes_to_another() {
    let (batcher, admission, answers) = rig();
    let (requests, requests_out) = bounded(8);
    let (gone, gone_out) = bounded::<Batch>(1);
    let (batches, batches_out) = bounded::<Batch>(1);
    let (report, ran) = bounded(1);
    for row in 0..8 {
        requests.send(request(&admission, &answers, row)).unwrap();
    }
    drop((requests, gone_out));
    let executor = std::thread::spawn(move || {
        for batch in batches_out {
            let shape = batch.shape();
            batch.answer(Err(Rejection::Cancelled), Nanos(1));
            let _ = report.send(Report::Ran(Ran {
                executor: 1,
                shape,
                took: None,
                too_large: Some(shape.tokens),
            }));
        }
    });
    let wires = wires(requests_out, ran, vec![gone, batches]);
    let _ = run("model", batcher, wires, 1, Clock::start(), |_| {});
    executor.join().unwrap();
    let answers = answers.0.lock();
    let told = |outcome: &Outcome| *outcome == Err(Rejection::Cancelled);
    assert!(
        answers.len() == 8 && answers.iter().all(|(_, outcome)| told(outcome)),
        "{answers:?}"
    );
}

#[test]
fn an_urgent_batch_whose_executor_is_gone_goes_to_another() {
    let (batcher, admission, answers) = rig();
    let (requests, requests_out) = bounded(8);
    let (batches, batches_out) = bounded::<Batch>(1);
    let (urgent, urgent_out) = bounded::<Batch>(1);
    let (report, reports) = bounded(2);
    let wires = Wires {
        requests: requests_out,
        reports,
        batches: vec![batches, urgent],
        urgent: true,
    };
    drop(urgent_out);
    let scheduler = std::thread::spawn(move || drop(run("model", batcher, wires, 1, Clock::start(), |_| {})));
    let classes = [Class::Bulk, Class::Interactive];
    for (class, row) in classes.into_iter().zip(0..) {
        requests
            .send(request_of(class, &admission, &answers, row))
            .unwrap();
        // The second batch comes while the first is held, and leaves the queue for the executor that is gone.
        if class == Class::Bulk {
            while batches_out.is_empty() {
                std::thread::yield_now();
            }
        }
    }
    drop(requests);
    for class in classes {
        let batch = batches_out.recv().unwrap();
        assert_eq!(batch.is_bulk(), class == Class::Bulk);
        let shape = batch.shape();
        batch.answer(Err(Rejection::Cancelled), Nanos(1));
        let ran = ran_once(0, shape);
        // An error means that the scheduler has ended.
        let _ = report.send(Report::Ran(ran));
    }
    scheduler.join().unwrap();
    assert_eq!(answers.0.lock().len(), 2);
}

/// Holds a bulk batch on an executor of `held_max` batches; later texts wait at most `delay`.
fn check_urgent(held_max: usize, delay: Duration) {
    let (_, admission, answers) = rig();
    let policy = BatchPolicy::new(8, 4, Duration::from_secs(1), 8, delay, None).unwrap();
    let batcher = Batcher::new(policy, CostModel::default(), held_max - 1);
    let (requests, requests_out) = bounded(8);
    let (batches, batches_out) = bounded::<Batch>(held_max);
    let (urgent, urgent_out) = bounded::<Batch>(held_max);
    let (_report, reports) = bounded(1);
    let wires = Wires {
        requests: requests_out,
        reports,
        batches: vec![batches, urgent],
        urgent: true,
    };
    let clock = Clock::start();
    let run = move || drop(run("model", batcher, wires, held_max, clock, |_| {}));
    let scheduler = std::thread::spawn(run);
    let request = |class, row| request_of(class, &admission, &answers, row);
    requests.send(request(Class::Bulk, 0)).unwrap();
    while batches_out.is_empty() {
        std::thread::yield_now();
    }
    let tokenized = clock.now();
    let late = Request {
        tokenized,
        ..request(Class::Interactive, 1)
    };
    requests.send(late).unwrap();
    drop(requests);
    let batch = urgent_out.recv().unwrap();
    let waited = clock.now().since(tokenized);
    assert!(!batch.is_bulk() && waited < PUBLISH, "{waited:?}");
    drop(batch);
    scheduler.join().unwrap();
}

#[test]
fn an_urgent_batch_is_not_prepared_behind_the_batch_it_preempts() {
    check_urgent(2, Duration::ZERO);
}

#[test]
fn an_urgent_batch_is_due_without_an_event() {
    check_urgent(1, Duration::from_millis(20));
}
