//! Choice of the executor for the next batch: the one that holds the fewest. No executor is given a second batch
//! while another is idle.

/// Batches in the hands of each executor of a model.
#[derive(Clone, Debug)]
pub struct LeastLoaded {
    /// Batches that each executor holds; `None` once it is gone.
    held: Vec<Option<usize>>,
    held_max: usize,
    /// Executor that is preferred among equals.
    first: usize,
}

impl LeastLoaded {
    /// `executors` that hold at most `held_max` batches each, the running one included.
    pub fn new(executors: usize, held_max: usize) -> LeastLoaded {
        LeastLoaded {
            held: vec![Some(0); executors],
            held_max,
            first: 0,
        }
    }

    /// The executor for the next batch; `None` where all hold as many as they may.
    pub fn next(&self) -> Option<usize> {
        let in_order = (self.first..self.held.len()).chain(0..self.first);
        let has_room =
            in_order.filter_map(|at| self.held[at].filter(|&n| n < self.held_max).map(|n| (n, at)));
        has_room.min_by_key(|(held, _)| *held).map(|(_, at)| at)
    }

    /// Records that `executor` was given a batch.
    pub fn given(&mut self, executor: usize) {
        if let Some(Some(held)) = self.held.get_mut(executor) {
            *held += 1;
            self.first = (executor + 1) % self.held.len();
        }
    }

    /// Records that `executor` has finished a batch.
    pub fn done(&mut self, executor: usize) {
        if let Some(Some(held)) = self.held.get_mut(executor) {
            *held = held.saturating_sub(1);
        }
    }

    /// Records that `executor` takes no further batch.
    pub fn gone(&mut self, executor: usize) {
        if let Some(held) = self.held.get_mut(executor) {
            *held = None;
        }
    }

    /// True when every executor is gone.
    pub fn all_gone(&self) -> bool {
        self.held.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives batches until every executor is full, and returns who got them.
    fn fill(executors: &mut LeastLoaded) -> Vec<usize> {
        std::iter::from_fn(|| {
            let executor = executors.next()?;
            executors.given(executor);
            Some(executor)
        })
        .collect()
    }

    #[test]
    fn idle_executors_come_first_and_equals_alternate() {
        let mut executors = LeastLoaded::new(3, 2);
        assert_eq!(fill(&mut executors), [0, 1, 2, 0, 1, 2]);
        executors.done(1);
        executors.done(1);
        executors.done(2);
        assert_eq!(fill(&mut executors), [1, 2, 1]);
        let mut one = LeastLoaded::new(1, 1);
        assert_eq!(fill(&mut one), [0]);
        one.done(0);
        assert_eq!(fill(&mut one), [0]);
    }

    #[test]
    fn idle_executors_share_the_work() {
        let mut executors = LeastLoaded::new(2, 2);
        let mut seen = [0; 2];
        for _ in 0..10 {
            let executor = executors.next().unwrap();
            executors.given(executor);
            executors.done(executor);
            seen[executor] += 1;
        }
        assert_eq!(seen, [5, 5]);
    }

    #[test]
    fn an_executor_that_is_gone_gets_nothing() {
        let mut executors = LeastLoaded::new(2, 2);
        executors.given(0);
        executors.gone(0);
        executors.done(0);
        assert_eq!(fill(&mut executors), [1, 1]);
        assert!(!executors.all_gone());
        executors.gone(1);
        assert!(executors.all_gone() && executors.next().is_none());
        // An unknown number is ignored.
        executors.done(7);
        executors.gone(7);
    }
}
