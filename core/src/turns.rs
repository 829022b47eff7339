//! Which of several executors gets the next batch: the one that holds the fewest. So none is given a second batch
//! while another has nothing to do.

/// How many batches each executor of a model holds.
#[derive(Clone, Debug)]
pub struct Turns {
    /// Batches in each one's hands; none where it is gone.
    held: Vec<Option<usize>>,
    held_max: usize,
    /// Who is asked first among equals.
    first: usize,
}

impl Turns {
    /// `executors` that hold at most `held_max` batches each, the running one included.
    pub fn new(executors: usize, held_max: usize) -> Turns {
        Turns {
            held: vec![Some(0); executors],
            held_max,
            first: 0,
        }
    }

    /// Who gets the next batch; none where every executor has as many as it may hold.
    pub fn next(&self) -> Option<usize> {
        let in_turn = (self.first..self.held.len()).chain(0..self.first);
        let has_room = in_turn.filter_map(|at| self.held[at].filter(|&n| n < self.held_max).map(|n| (n, at)));
        has_room.min_by_key(|(held, _)| *held).map(|(_, at)| at)
    }

    /// `executor` was given a batch.
    pub fn given(&mut self, executor: usize) {
        if let Some(Some(held)) = self.held.get_mut(executor) {
            *held += 1;
            self.first = (executor + 1) % self.held.len();
        }
    }

    /// `executor` has done one.
    pub fn done(&mut self, executor: usize) {
        if let Some(Some(held)) = self.held.get_mut(executor) {
            *held = held.saturating_sub(1);
        }
    }

    /// `executor` takes no more, for ever.
    pub fn gone(&mut self, executor: usize) {
        if let Some(held) = self.held.get_mut(executor) {
            *held = None;
        }
    }

    /// True when nobody is left.
    pub fn all_gone(&self) -> bool {
        self.held.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives batches until nobody has room, and says to whom.
    fn fill(turns: &mut Turns) -> Vec<usize> {
        std::iter::from_fn(|| {
            let executor = turns.next()?;
            turns.given(executor);
            Some(executor)
        })
        .collect()
    }

    #[test]
    fn the_idle_come_first_and_equals_take_turns() {
        let mut turns = Turns::new(3, 2);
        assert_eq!(fill(&mut turns), [0, 1, 2, 0, 1, 2]);
        turns.done(1);
        turns.done(1);
        turns.done(2);
        assert_eq!(fill(&mut turns), [1, 2, 1]);
        let mut one = Turns::new(1, 1);
        assert_eq!(fill(&mut one), [0]);
        one.done(0);
        assert_eq!(fill(&mut one), [0]);
    }

    #[test]
    fn among_the_idle_the_same_one_does_not_do_all_the_work() {
        let mut turns = Turns::new(2, 2);
        let mut seen = [0; 2];
        for _ in 0..10 {
            let executor = turns.next().unwrap();
            turns.given(executor);
            turns.done(executor);
            seen[executor] += 1;
        }
        assert_eq!(seen, [5, 5]);
    }

    #[test]
    fn who_is_gone_gets_nothing_and_the_others_do() {
        let mut turns = Turns::new(2, 2);
        turns.given(0);
        turns.gone(0);
        turns.done(0);
        assert_eq!(fill(&mut turns), [1, 1]);
        assert!(!turns.all_gone());
        turns.gone(1);
        assert!(turns.all_gone() && turns.next().is_none());
        // A number that nobody has is nobody.
        turns.done(7);
        turns.gone(7);
    }
}
