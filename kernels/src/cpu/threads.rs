//! The compute threads: regions of tasks that the threads take one by one, whoever is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::ops::KernelError;

/// A pool of threads of its own. With one thread there is none: the caller computes.
#[derive(Clone)]
pub(crate) struct Threads {
    pool: Option<Arc<ThreadPool>>,
    count: usize,
}

impl Threads {
    pub(crate) fn new(count: usize) -> Result<Self, KernelError> {
        let refused = |reason: String| KernelError::Threads {
            threads: count,
            reason,
        };
        if count == 0 {
            return Err(refused("at least one is needed".into()));
        }
        let mut pool = None;
        if count > 1 {
            let builder = ThreadPoolBuilder::new()
                .num_threads(count)
                .thread_name(|index| format!("compute-{index}"));
            pool = Some(Arc::new(
                builder.build().map_err(|error| refused(error.to_string()))?,
            ));
        }
        Ok(Self { pool, count })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Runs `work` on one of the pool's threads, from where regions start without a detour.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            None => work(),
            Some(pool) => pool.install(work),
        }
    }

    /// Runs tasks `0..tasks`, each once, and returns when all are done.
    pub(crate) fn each(&self, tasks: usize, run: impl Fn(usize) + Sync) {
        let mut nothing = vec![(); self.count];
        self.each_with(&mut nothing, tasks, |(), task| run(task));
    }

    /// The same, with something to work in for each thread that takes part.
    ///
    /// No thread waits for another to arrive: a thread that is late, because another process has its
    /// core, finds the tasks taken, and the others have lost nothing.
    pub(crate) fn each_with<T: Send>(
        &self,
        scratch: &mut [T],
        tasks: usize,
        run: impl Fn(&mut T, usize) + Sync,
    ) {
        let parts = self.count.min(tasks).min(scratch.len());
        let scratch = &mut scratch[..parts];
        match &self.pool {
            Some(pool) if parts > 1 => {
                let next = AtomicUsize::new(0);
                pool.install(|| share(scratch, &next, tasks, &run));
            }
            _ => {
                if let [scratch, ..] = scratch {
                    (0..tasks).for_each(|task| run(scratch, task));
                }
            }
        }
    }
}

/// `join` runs its second half itself where no other thread has taken it in the meantime.
fn share<T: Send>(
    scratch: &mut [T],
    next: &AtomicUsize,
    tasks: usize,
    run: &(impl Fn(&mut T, usize) + Sync),
) {
    if let [scratch] = scratch {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            run(scratch, task);
        }
    }
    let (left, right) = scratch.split_at_mut(scratch.len() / 2);
    rayon::join(
        || share(left, next, tasks, run),
        || share(right, next, tasks, run),
    );
}
