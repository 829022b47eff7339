//! Bounds are never passed, all room returns, and every text that fits is admitted in the end.

use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;

use super::*;

const BOUNDS: AdmissionBounds = AdmissionBounds {
    tokens_max: 100,
    bytes_max: 1000,
    texts_max: 10,
};

fn gate() -> Arc<Admission> {
    Admission::new(BOUNDS).unwrap()
}

fn check(admitted: Result<Permit, Rejection>, expected: &str) {
    assert_eq!(
        admitted.err().map_or("admitted".into(), |e| e.to_string()),
        expected
    );
}

#[test]
fn each_bound_refuses_with_its_own_figures() {
    let gate = gate();
    let _held = gate.admit(Class::Interactive, 60, 10).unwrap();
    check(gate.admit(Class::Interactive, 40, 10), "admitted");
    check(
        gate.admit(Class::Interactive, 41, 10),
        "the queue is full: 60 of 100 tokens are taken",
    );
    check(
        gate.admit(Class::Interactive, 1, 991),
        "the queue is full: 10 of 1000 bytes are taken",
    );
    let _more: Vec<Permit> = (0..9)
        .map(|_| gate.admit(Class::Interactive, 1, 1).unwrap())
        .collect();
    check(
        gate.admit(Class::Interactive, 1, 1),
        "the queue is full: 10 of 10 texts are taken",
    );
    check(
        gate.admit(Class::Interactive, usize::MAX, 1),
        "the queue is full: 69 of 100 tokens are taken",
    );
}

#[test]
fn bulk_leaves_an_eighth_unless_it_is_alone() {
    let gate = gate();
    let alone = gate.admit(Class::Bulk, 88, 1).unwrap();
    check(
        gate.admit(Class::Bulk, 1, 1),
        "the queue for bulk work is full: 88 of 88 tokens are taken",
    );
    check(gate.admit(Class::Interactive, 12, 1), "admitted");
    drop(alone);
    check(gate.admit(Class::Bulk, 100, 1), "admitted");
}

#[test]
fn all_or_nothing() {
    let gate = gate();
    let permits = gate.admit_all(Class::Interactive, &[(30, 5), (30, 5)]).unwrap();
    assert_eq!(
        (gate.depth(Class::Interactive), gate.tokens(Class::Interactive)),
        (2, 60)
    );
    assert!(gate.admit_all(Class::Interactive, &[(20, 5), (21, 5)]).is_err());
    assert!(
        gate.admit_all(Class::Interactive, &[(usize::MAX, 5), (21, 5)])
            .is_err()
    );
    assert_eq!(
        (gate.depth(Class::Interactive), gate.tokens(Class::Interactive)),
        (2, 60)
    );
    drop(permits);
    check_empty(&gate);
}

#[test]
fn a_settled_permit_keeps_its_real_count_and_never_grows() {
    let gate = gate();
    let mut permit = gate.admit(Class::Interactive, 50, 900).unwrap();
    permit.settle(20);
    assert_eq!((permit.tokens(), gate.tokens(Class::Interactive)), (20, 20));
    check(gate.admit(Class::Interactive, 80, 1000), "admitted");
    permit.settle(60);
    assert_eq!((permit.tokens(), gate.tokens(Class::Interactive)), (20, 20));
    drop(permit);
    check_empty(&gate);
}

#[test]
fn unusable_bounds_are_refused() {
    for zero in [
        AdmissionBounds {
            tokens_max: 0,
            ..BOUNDS
        },
        AdmissionBounds {
            bytes_max: 0,
            ..BOUNDS
        },
        AdmissionBounds {
            texts_max: 0,
            ..BOUNDS
        },
    ] {
        assert!(matches!(
            Admission::new(zero).err(),
            Some(PolicyError::Zero { .. })
        ));
    }
    assert_eq!(BOUNDS.check_window(100), Ok(()));
    let small = BOUNDS.check_window(101).unwrap_err();
    assert_eq!(
        small.to_string(),
        "queue of 100 tokens cannot hold one text of 101"
    );
}

fn check_empty(gate: &Admission) {
    assert_eq!(
        Class::ALL.map(|class| (gate.depth(class), gate.tokens(class))),
        [(0, 0), (0, 0)]
    );
    assert_eq!(
        [&gate.tokens, &gate.bytes, &gate.texts].map(|counter| counter.load(SeqCst)),
        [0, 0, 0]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Threads admit, settle, hold and drop at random. A second count is raised after admission and lowered
    /// before release, so it may be below the gate's count and never above.
    #[test]
    fn threads_never_get_past_a_bound(
        plans in prop::collection::vec(
            prop::collection::vec((any::<bool>(), 1..60_usize, 1..500_usize, 0..4_usize), 50..200),
            2..5,
        ),
    ) {
        let gate = gate();
        let held = [const { AtomicUsize::new(0) }; 3];
        let broken = AtomicBool::new(false);
        let add = |amounts: [usize; 3]| {
            let bounds = [BOUNDS.tokens_max, BOUNDS.bytes_max, BOUNDS.texts_max];
            for ((counter, amount), bound) in held.iter().zip(amounts).zip(bounds) {
                if counter.fetch_add(amount, SeqCst) + amount > bound {
                    broken.store(true, SeqCst);
                }
            }
        };
        let sub = |amounts: [usize; 3]| {
            for (counter, amount) in held.iter().zip(amounts) {
                counter.fetch_sub(amount, SeqCst);
            }
        };
        thread::scope(|scope| {
            for plan in &plans {
                let (gate, add, sub) = (&gate, &add, &sub);
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    for &(bulk, tokens, bytes, keep) in plan {
                        let class = if bulk { Class::Bulk } else { Class::Interactive };
                        if let Ok(mut permit) = gate.admit(class, tokens, bytes) {
                            add([tokens, bytes, 1]);
                            let real = tokens / 2 + 1;
                            sub([tokens - real, bytes, 0]);
                            permit.settle(real);
                            mine.push((permit, real));
                        }
                        while mine.len() > keep {
                            let (permit, real) = mine.swap_remove(0);
                            sub([real, 0, 1]);
                            drop(permit);
                        }
                    }
                    for (permit, real) in mine {
                        sub([real, 0, 1]);
                        drop(permit);
                    }
                });
            }
        });
        prop_assert!(!broken.load(SeqCst), "the threads held more than a bound");
        check_empty(&gate);
    }
}

/// Plays the race between looking and taking without threads: the look is left out.
#[test]
fn the_loser_of_a_race_returns_what_it_took_and_wakes_waiters() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let counting = move || {
        count.fetch_add(1, SeqCst);
    };
    let gate = Admission::with_release(BOUNDS, Box::new(counting)).unwrap();
    let _held = gate.admit(Class::Interactive, 10, 900).unwrap();
    let counters = [
        Counter {
            used: &gate.tokens,
            amount: 5,
            bound: BOUNDS.tokens_max,
            unit: "tokens",
        },
        Counter {
            used: &gate.bytes,
            amount: 200,
            bound: BOUNDS.bytes_max,
            unit: "bytes",
        },
    ];
    let (full, used) = gate.take(&counters).unwrap_err();
    assert_eq!((full.unit, used), ("bytes", 900));
    assert_eq!((gate.tokens.load(SeqCst), gate.bytes.load(SeqCst)), (10, 900));
    assert_eq!(told.load(SeqCst), 1);
}

/// Waiting submissions try again only when woken: a missed wake-up hangs the test.
#[test]
fn waiters_are_woken_when_room_returns() {
    let (wake, woken) = (
        Arc::new(std::sync::Condvar::new()),
        Arc::new(std::sync::Mutex::new(0_u64)),
    );
    let told = {
        let (wake, woken) = (Arc::clone(&wake), Arc::clone(&woken));
        Box::new(move || {
            *woken.lock().unwrap() += 1;
            wake.notify_all();
        })
    };
    let gate = Admission::with_release(BOUNDS, told).unwrap();
    thread::scope(|scope| {
        for worker in 0..4_usize {
            let (gate, wake, woken) = (&gate, &wake, &woken);
            scope.spawn(move || {
                let class = Class::ALL[worker % 2];
                for i in 0..500 {
                    // Sizes that exclude each other, by tokens or by bytes in turn.
                    let (tokens, bytes) = if (i + worker) % 2 == 0 {
                        (70, 10)
                    } else {
                        (10, 700)
                    };
                    loop {
                        let seen = *woken.lock().unwrap();
                        if let Ok(permit) = gate.admit(class, tokens, bytes) {
                            drop(permit);
                            break;
                        }
                        let guard = woken.lock().unwrap();
                        drop(wake.wait_while(guard, |count| *count == seen).unwrap());
                    }
                }
            });
        }
    });
    check_empty(&gate);
}
