//! Forwards that preempt another on the same team.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

const WIDTH: usize = 8;

/// Flag that becomes true when this is dropped, by a panic too.
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

/// Rows of an urgent forward of one product.
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

/// Runs `urgent` while a preemptible forward computes: on its whole team, or in parts side by side.
fn check(urgent: impl Fn(&mut Cpu)) {
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
            urgent(&mut on(&team));
        });
    }
}

#[test]
fn rows_of_a_preempting_forward_reuse_one_buffer() {
    let expected = urgent(&mut Cpu::new(1).unwrap());
    check(|cpu| {
        for _ in 0..4 {
            assert_eq!(urgent(cpu), expected);
            assert!(cpu.sharing().inside && cpu.spare.len() == 1);
        }
    });
}

#[test]
fn a_device_preempts_again_after_a_panic() {
    check(|cpu| {
        let forward = |cpu: &mut Cpu| cpu.forward(&[0, 1], Priority::Urgent, |_| panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(|| forward(cpu))).is_err());
        urgent(cpu);
        assert!(cpu.sharing().inside);
    });
}
