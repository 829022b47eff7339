//! A model on a simulated device: it takes batches ahead, has limited memory, and can be lost.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use penstock_core::{PackedTokens, Reply};
use penstock_models::{KernelError, Model, ModelError, Pipelined};

/// Controls and observations of a device.
#[derive(Clone, Default)]
pub struct Device {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    /// Whether submitted batches finish.
    runs: bool,
    /// Tokens of a batch from which on memory is too small; `None` is never.
    memory: Option<usize>,
    /// The fault of the next received rows.
    next: Option<Mishap>,
    is_lost: bool,
    /// Tokens of each submitted batch.
    submitted: Vec<usize>,
    in_flight: usize,
}

#[derive(Clone, Copy)]
pub enum Mishap {
    Lost,
    Panic,
}

impl Device {
    /// From now on, finishes its batches.
    pub fn run(&self) {
        self.change(|state| state.runs = true);
    }

    pub fn has_memory_for(&self, tokens: usize) {
        self.change(|state| state.memory = Some(tokens));
    }

    pub fn will(&self, mishap: Mishap) {
        self.change(|state| state.next = Some(mishap));
    }

    /// Tokens of every submitted batch.
    pub fn submitted(&self) -> Vec<usize> {
        self.shared.0.lock().submitted.clone()
    }

    /// Blocks until so many batches are in flight at once.
    pub fn wait_for(&self, in_flight: usize) {
        let mut state = self.shared.0.lock();
        while state.in_flight < in_flight {
            self.shared.1.wait(&mut state);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock());
        self.shared.1.notify_all();
    }

    /// The model on it.
    pub fn model(&self) -> Box<dyn Model> {
        Box::new(Fake {
            device: self.clone(),
            sent: VecDeque::new(),
        })
    }
}

struct Fake {
    device: Device,
    sent: VecDeque<PackedTokens>,
}

fn lost() -> ModelError {
    let (device, work) = ("fake:0".to_owned(), "kernel attention over 7 x 64".to_owned());
    let reason = "an illegal address".to_owned();
    KernelError::DeviceLost { device, work, reason }.into()
}

impl Model for Fake {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        assert!(self.sent.is_empty(), "batches are still on their way");
        self.submit(batch)?;
        self.receive()
    }

    fn window(&self) -> usize {
        usize::MAX
    }

    fn pipelined(&mut self) -> Option<&mut dyn Pipelined> {
        Some(self)
    }
}

impl Pipelined for Fake {
    fn in_flight_max(&self) -> usize {
        2
    }

    fn submit(&mut self, batch: &PackedTokens) -> Result<(), ModelError> {
        let mut state = self.device.shared.0.lock();
        if state.is_lost {
            return Err(lost());
        }
        state.submitted.push(batch.tokens());
        if state.memory.is_some_and(|memory| batch.tokens() > memory) {
            let (device, bytes) = ("fake:0".to_owned(), batch.tokens());
            return Err(KernelError::OutOfMemory { device, bytes }.into());
        }
        state.in_flight += 1;
        assert!(state.in_flight <= 2, "more than it takes");
        self.sent.push_back(batch.clone());
        self.device.shared.1.notify_all();
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.device.shared.0.lock().runs
    }

    fn receive(&mut self) -> Result<Vec<Reply>, ModelError> {
        let batch = self.sent.pop_front().expect("a batch is on its way");
        let mut state = self.device.shared.0.lock();
        while !state.runs {
            self.device.shared.1.wait(&mut state);
        }
        state.in_flight -= 1;
        match state.next.take() {
            Some(Mishap::Panic) => panic!("panicked on purpose"),
            Some(Mishap::Lost) => state.is_lost = true,
            None => {}
        }
        if state.is_lost {
            return Err(lost());
        }
        Ok(super::bench::lengths(&batch))
    }
}
