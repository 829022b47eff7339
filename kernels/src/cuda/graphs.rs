//! The graphs of an executor: which small batches are recorded, and which recording a batch may use.

use std::collections::HashMap;

use super::bucket::Bucket;
use super::driver::Work;
use crate::ops::KernelError;

/// Graphs that are kept; the one used longest ago makes room. The driver keeps each launch of a graph in memory.
const GRAPHS_MAX: usize = 64;
/// Batches of a bucket that run one by one before it is recorded. Recording costs about as much as several times
/// starting the launches, so buckets that hardly come again must not be recorded.
const SEEN_MIN: u32 = 8;

/// State of each bucket, of at most [`GRAPHS_MAX`].
pub(super) struct Graphs<G> {
    known: HashMap<Bucket, Known<G>>,
    /// Batches so far.
    batches: u64,
    /// Nothing more is recorded, because the device refused to.
    refused: bool,
}

struct Known<G> {
    /// Batches that ran one by one.
    seen: u32,
    /// The number of the last batch.
    last: u64,
    recorded: Option<Recorded<G>>,
}

struct Recorded<G> {
    work: Vec<Work>,
    graph: G,
}

impl<G> Default for Known<G> {
    fn default() -> Self {
        Self {
            seen: 0,
            last: 0,
            recorded: None,
        }
    }
}

impl<G> Graphs<G> {
    pub fn new() -> Self {
        Self {
            known: HashMap::new(),
            batches: 0,
            refused: false,
        }
    }

    /// Graphs there are.
    pub fn count(&self) -> usize {
        self.known
            .values()
            .filter(|known| known.recorded.is_some())
            .count()
    }

    /// The graph of exactly this `work`, recorded now if it is time to; none where it is to be started piece by
    /// piece.
    ///
    /// A graph is never used for anything else: a buffer that has moved since makes another list, and the bucket is
    /// recorded anew.
    pub fn of(
        &mut self,
        bucket: Bucket,
        work: &[Work],
        record: impl FnOnce(&[Work]) -> Result<G, KernelError>,
    ) -> Result<Option<&G>, KernelError> {
        self.batches += 1;
        if !self.known.contains_key(&bucket) && self.known.len() >= GRAPHS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.last);
            if let Some(oldest) = oldest.map(|(&oldest, _)| oldest) {
                self.known.remove(&oldest);
            }
        }
        let known = self.known.entry(bucket).or_default();
        if known
            .recorded
            .as_ref()
            .is_some_and(|recorded| recorded.work != work)
        {
            *known = Known::default();
        }
        known.last = self.batches;
        if known.recorded.is_none() && known.seen >= SEEN_MIN && !self.refused {
            match record(work) {
                Ok(graph) => {
                    known.recorded = Some(Recorded {
                        work: work.to_vec(),
                        graph,
                    });
                }
                Err(lost @ KernelError::DeviceLost { .. }) => return Err(lost),
                Err(error) => {
                    self.refused = true;
                    tracing::warn!(%bucket, %error, "no cuda graph: small batches are started launch by launch");
                }
            }
        }
        if known.recorded.is_none() {
            known.seen = known.seen.saturating_add(1);
        }
        Ok(known.recorded.as_ref().map(|recorded| &recorded.graph))
    }

    /// The graph of this bucket could not be used: it goes, and no other is made.
    pub fn refuse(&mut self, bucket: Bucket, error: &KernelError) {
        self.refused = true;
        self.known.remove(&bucket);
        tracing::warn!(%bucket, %error, "no cuda graph: small batches are started launch by launch");
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::{Dtype, Launch};
    use super::*;

    /// The bucket of one text.
    fn bucket(tokens: u32) -> Bucket {
        Bucket::of(&[0, tokens], Dtype::F16).unwrap()
    }

    /// Work over a buffer at `address`.
    fn work(address: u8) -> Vec<Work> {
        vec![Work::Launch(Launch {
            kernel: "pool".to_owned(),
            grid: (1, 1),
            threads: 32,
            shared: 0,
            args: vec![address],
            shape: (1, 1),
        })]
    }

    /// Count of `batches` alike that had a graph, and count of graphs made for them.
    fn run(graphs: &mut Graphs<u8>, bucket: Bucket, address: u8, batches: usize) -> (usize, usize) {
        let mut made = 0;
        let mut one = || {
            let graph = graphs.of(bucket, &work(address), |work| {
                made += 1;
                assert_eq!(work.len(), 1);
                Ok(address)
            });
            let graph = graph.unwrap();
            assert!(
                graph.is_none_or(|&graph| graph == address),
                "a graph of other work"
            );
            usize::from(graph.is_some())
        };
        ((0..batches).map(|_| one()).sum(), made)
    }

    #[test]
    fn a_bucket_is_recorded_once_it_has_come_often() {
        let mut graphs = Graphs::new();
        assert_eq!(run(&mut graphs, bucket(5), 1, 8), (0, 0));
        assert_eq!(run(&mut graphs, bucket(5), 1, 10), (10, 1));
        assert_eq!(run(&mut graphs, bucket(100), 1, 3), (0, 0), "another bucket");
        assert_eq!(graphs.count(), 1);
    }

    #[test]
    fn a_buffer_that_moved_makes_a_new_graph() {
        let mut graphs = Graphs::new();
        run(&mut graphs, bucket(5), 1, 9);
        assert_eq!(run(&mut graphs, bucket(5), 2, 8), (0, 0));
        assert_eq!(run(&mut graphs, bucket(5), 2, 2), (2, 1));
        assert_eq!(graphs.count(), 1);
    }

    #[test]
    fn the_graph_used_longest_ago_makes_room() {
        let mut graphs = Graphs::new();
        // 16 buckets of tokens by texts in several numbers: more than are kept.
        let many = (1..=6).flat_map(|texts| (1..=16).map(move |step| (1 << (texts - 1), 32 * step)));
        let many = many.filter(|(texts, tokens)| texts <= tokens);
        let mut buckets: Vec<Bucket> = many
            .filter_map(|(texts, tokens): (u32, u32)| {
                let mut cu_seqlens: Vec<u32> = (0..texts).collect();
                cu_seqlens.push(tokens);
                Bucket::of(&cu_seqlens, Dtype::F32)
            })
            .collect();
        buckets.dedup();
        assert!(buckets.len() > GRAPHS_MAX + 1);
        let first = buckets[0];
        for &bucket in &buckets {
            run(&mut graphs, bucket, 1, 9);
            assert_eq!(run(&mut graphs, first, 1, 1), (1, 0), "always in use");
            assert!(graphs.known.len() <= GRAPHS_MAX);
        }
        assert_eq!(graphs.count(), GRAPHS_MAX);
        assert_eq!(run(&mut graphs, buckets[1], 1, 1), (0, 0), "long not used");
    }

    #[test]
    fn a_device_that_refuses_is_not_asked_again() {
        let error = |lost: bool| {
            let (device, work, reason) = (String::new(), String::new(), String::new());
            if lost {
                KernelError::DeviceLost { device, work, reason }
            } else {
                KernelError::Device { device, work, reason }
            }
        };
        let mut graphs = Graphs::<u8>::new();
        run(&mut graphs, bucket(5), 1, 9);
        run(&mut graphs, bucket(100), 1, 8);
        let lost = graphs.of(bucket(100), &work(1), |_| Err(error(true)));
        assert!(lost.is_err());
        assert!(matches!(
            graphs.of(bucket(100), &work(1), |_| Err(error(false))),
            Ok(None)
        ));
        assert_eq!(run(&mut graphs, bucket(100), 1, 20), (0, 0));
        assert_eq!(run(&mut graphs, bucket(5), 1, 1), (1, 0), "existing graphs stay");
        graphs.refuse(bucket(5), &error(false));
        assert_eq!(run(&mut graphs, bucket(5), 1, 20), (0, 0));
    }
}
