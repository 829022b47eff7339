//! A model whose bulk batches end only after an urgent batch has run.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use penstock_core::{PackedTokens, Reply};
use penstock_models::{Model, ModelError};

use super::bench::lengths;

#[derive(Clone, Default)]
pub struct Letting {
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    bulk_began: bool,
    urgent_ran: bool,
}

impl Letting {
    /// Blocks until a bulk batch runs.
    pub fn wait_for_bulk(&self) {
        self.wait(|state| state.bulk_began);
    }

    fn set(&self, set: impl FnOnce(&mut State)) {
        set(&mut self.state.0.lock());
        self.state.1.notify_all();
    }

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let mut state = self.state.0.lock();
        while !until(&state) {
            self.state.1.wait(&mut state);
        }
    }
}

impl Model for Letting {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        self.set(|state| state.urgent_ran = true);
        Ok(lengths(batch))
    }

    fn forward_preemptible(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        self.set(|state| state.bulk_began = true);
        self.wait(|state| state.urgent_ran);
        Ok(lengths(batch))
    }

    fn preemption_points(&self) -> usize {
        1
    }

    fn window(&self) -> usize {
        usize::MAX
    }
}
