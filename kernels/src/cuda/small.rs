//! A small batch: its work is listed first, then started by one call where a graph of the same list is there.
//!
//! The launches are the same either way. So a batch's rows do not depend on whether it met a graph.

use super::Cuda;
use super::bucket::Bucket;
use super::driver::{Driver, Launch, MatrixProduct, Work};
use super::graphs::Graphs;
use super::memory::Rows;
use crate::ops::{KernelError, Tokens};

/// State that small batches share.
pub(super) struct Small<D: Driver> {
    pub graphs: Graphs<D::Graph>,
    /// Inputs of every small batch, at one address: a graph reads from the addresses that it was recorded with.
    inbox: Option<D::Inbox>,
}

/// The small batch that is listed, and not started yet.
pub(super) struct Listed {
    pub bucket: Bucket,
    pub cu_seqlens: Vec<u32>,
    /// Address of `inputs` once posted.
    pub address: u64,
    /// Inputs to be posted, in the order of [`Bucket::layout`].
    pub inputs: Vec<u8>,
    /// `inputs` hold `cu_seqlens` and the tiles.
    pub is_cut: bool,
    work: Vec<Work>,
}

impl<D: Driver> Small<D> {
    pub fn new() -> Self {
        Self {
            graphs: Graphs::new(),
            inbox: None,
        }
    }
}

impl<D: Driver> Cuda<D> {
    /// An empty list for the batch that `cu_seqlens` cuts, if it is small.
    pub(super) fn list(&mut self, cu_seqlens: &[u32]) -> Result<Option<Listed>, KernelError> {
        let (Some(small), Some(bucket)) = (&mut self.small, Bucket::of(cu_seqlens, self.dtype)) else {
            return Ok(None);
        };
        let inbox = match &mut small.inbox {
            Some(inbox) => inbox,
            none => none.insert(self.driver.inbox(Bucket::bytes_max())?),
        };
        Ok(Some(Listed {
            bucket,
            cu_seqlens: cu_seqlens.to_vec(),
            address: self.driver.inbox_address(inbox),
            inputs: vec![0; bucket.layout().end],
            is_cut: false,
            work: Vec::with_capacity(128),
        }))
    }

    pub(super) fn launch(&mut self, launch: Launch) -> Result<(), KernelError> {
        match &mut self.listed {
            Some(listed) => {
                listed.work.push(Work::Launch(launch));
                Ok(())
            }
            None => self.driver.launch(&launch),
        }
    }

    pub(super) fn product(&mut self, product: MatrixProduct) -> Result<(), KernelError> {
        match &mut self.listed {
            Some(listed) => {
                listed.work.push(Work::Product(product));
                Ok(())
            }
            None => self.driver.multiply(&product),
        }
    }

    /// Starts the listed work, by its graph if there is one.
    pub(super) fn start(&mut self) -> Result<(), KernelError> {
        let Some((listed, bucket)) = self.posted()? else {
            return Ok(());
        };
        let Some(Small { graphs, .. }) = &mut self.small else {
            return self.run(&listed);
        };
        let driver = &mut self.driver;
        if let Some(graph) = graphs.of(bucket, &listed, |work| driver.record(work))? {
            match self.driver.replay(graph, &bucket) {
                Err(error) if !matches!(error, KernelError::DeviceLost { .. }) => {
                    graphs.refuse(bucket, &error);
                }
                done => return done,
            }
        }
        self.run(&listed)
    }

    /// Starts the listed work piece by piece; later work is not listed.
    pub(super) fn start_early(&mut self) -> Result<(), KernelError> {
        match self.posted()? {
            Some((listed, _)) => self.run(&listed),
            None => Ok(()),
        }
    }

    /// Ends the list and posts the inputs of its work.
    fn posted(&mut self) -> Result<Option<(Vec<Work>, Bucket)>, KernelError> {
        let (Some(listed), Some(small)) = (self.listed.take(), &mut self.small) else {
            return Ok(None);
        };
        if let Some(inbox) = &mut small.inbox {
            self.driver.post_in_turn(inbox, &listed.inputs)?;
        }
        Ok(Some((listed.work, listed.bucket)))
    }

    fn run(&mut self, work: &[Work]) -> Result<(), KernelError> {
        work.iter().try_for_each(|work| match work {
            Work::Launch(launch) => self.driver.launch(launch),
            Work::Product(product) => self.driver.multiply(product),
        })
    }

    /// The rows for `count` texts of the batch at hand.
    pub(super) fn text_rows(&self, count: usize) -> Rows {
        let span = self.listed.as_ref().map_or(count, |listed| listed.bucket.texts);
        Rows { count, span }
    }
}

impl Listed {
    /// Whether these are the tokens of this batch.
    pub fn is_for(&self, tokens: Tokens<'_>) -> bool {
        let count = self.cu_seqlens.last().map_or(0, |&end| end as usize);
        let optional = |list: &[u32]| list.is_empty() || list.len() == count;
        tokens.ids.len() == count && optional(tokens.positions) && optional(tokens.kinds)
    }

    /// Fills in ids, positions and types.
    pub fn tokens(&mut self, tokens: Tokens<'_>) {
        let layout = self.bucket.layout();
        let lists = [
            (0, tokens.ids),
            (layout.positions, tokens.positions),
            (layout.kinds, tokens.kinds),
        ];
        for (at, list) in lists {
            for (bytes, value) in self.inputs[at..].as_chunks_mut::<4>().0.iter_mut().zip(list) {
                *bytes = value.to_ne_bytes();
            }
        }
    }
}
