//! Forwards that run inside of another on the same team.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

const WIDTH: usize = 8;

/// Turns true when it goes, however that is.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn on(team: &Threads) -> Cpu {
    Cpu::on(team.clone(), Path::best(), Precision::F32)
}

/// One row times a matrix, as long as `goes_on`.
fn products(cpu: &mut Cpu, goes_on: impl Fn() -> bool) -> Result<Buffer, KernelError> {
    let w = cpu.matrix(&[0.5; WIDTH * WIDTH], None, WIDTH, WIDTH)?;
    let (mut x, mut out) = (cpu.buffer(), cpu.buffer());
    cpu.write(&[1.0; WIDTH], 1, WIDTH, &mut x)?;
    while goes_on() {
        cpu.linear(&x, &w, Activation::None, &mut out)?;
    }
    Ok(out)
}

/// An urgent forward of one product, and what it sent.
fn urgent(cpu: &mut Cpu) -> Vec<f32> {
    let forward = |cpu: &mut Cpu| {
        let left = AtomicBool::new(true);
        let out = products(cpu, || left.swap(false, Ordering::Relaxed))?;
        cpu.send(&out)
    };
    cpu.forward(&[0, 1], Priority::Urgent, forward).unwrap();
    let mut rows = Vec::new();
    cpu.receive(&mut rows).unwrap();
    rows
}

/// Runs `guest` while a forward computes that lets it in: on its whole team, or in parts side by side.
fn check(guest: impl Fn(&mut Cpu)) {
    for (threads, mut parts) in [(1, vec![]), (2, vec![]), (2, vec![(); 2]), (3, vec![(); 6])] {
        let team = Threads::new(threads).unwrap();
        let (began, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let part = |cpu: &mut Cpu| {
                    began.store(true, Ordering::Relaxed);
                    products(cpu, || !ended.load(Ordering::Relaxed)).map(drop)
                };
                let whole = |cpu: &mut Cpu| {
                    if parts.is_empty() {
                        return part(cpu);
                    }
                    cpu.side_by_side(&mut parts, |cpu, ()| part(cpu))
                };
                on(&team).forward(&[0, 1], Priority::Preemptible, whole).unwrap();
            });
            let _ended = Ended(&ended);
            while !began.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            guest(&mut on(&team));
        });
    }
}

#[test]
fn what_is_sent_inside_of_another_forward_takes_no_memory_twice() {
    let expected = urgent(&mut Cpu::new(1).unwrap());
    check(|cpu| {
        for _ in 0..4 {
            assert_eq!(urgent(cpu), expected);
            assert!(cpu.sharing().inside && cpu.spare.len() == 1);
        }
    });
}

#[test]
fn a_forward_that_panicked_is_let_in_again() {
    check(|cpu| {
        let forward = |cpu: &mut Cpu| cpu.forward(&[0, 1], Priority::Urgent, |_| panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(|| forward(cpu))).is_err());
        urgent(cpu);
        assert!(cpu.sharing().inside);
    });
}
