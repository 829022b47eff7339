//! Batches: packed token ids, and the requests that wait for their rows.

use std::time::Duration;

use super::reply::{Outcome, Rejection, Reply};
use super::request::{Class, Request};
use crate::time::Nanos;

/// The token ids of several texts back to back, without padding.
///
/// `cu_seqlens` starts with 0, never falls and ends with `ids.len()`: text `i` is
/// `ids[cu_seqlens[i]..cu_seqlens[i + 1]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedTokens {
    /// Every text's ids, in batch order.
    pub ids: Vec<u32>,
    /// Start of each text, and the end of the last one: one entry more than there are texts.
    pub cu_seqlens: Vec<u32>,
}

impl PackedTokens {
    /// An empty pack with room for `texts` texts and `tokens` ids, so that packing a batch of known size
    /// allocates each buffer once.
    pub fn with_capacity(texts: usize, tokens: usize) -> PackedTokens {
        let mut cu_seqlens = Vec::with_capacity(texts + 1);
        cu_seqlens.push(0);
        PackedTokens {
            ids: Vec::with_capacity(tokens),
            cu_seqlens,
        }
    }

    /// Packs `texts` in their order.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> PackedTokens {
        let mut packed = PackedTokens::with_capacity(0, 0);
        for text in texts {
            packed.push(text);
        }
        packed
    }

    /// A copy of the given range of texts.
    #[must_use]
    pub fn part(&self, texts: std::ops::Range<usize>) -> PackedTokens {
        let ends = self.cu_seqlens.windows(2).skip(texts.start).take(texts.len());
        PackedTokens::from_texts(ends.map(|ends| &self.ids[ends[0] as usize..ends[1] as usize]))
    }

    /// Number of texts in the first of two halves with about equally many tokens. At least 1, but 0 where
    /// there is only one text.
    pub fn middle(&self) -> usize {
        let within = |&end: &u32| 2 * end as usize <= self.tokens();
        let texts = self.cu_seqlens.partition_point(within).saturating_sub(1);
        texts.max(1).min(self.sequences().saturating_sub(1))
    }

    /// The ids of one text.
    pub fn text(&self, text: usize) -> &[u32] {
        &self.ids[self.cu_seqlens[text] as usize..self.cu_seqlens[text + 1] as usize]
    }

    /// Appends one text.
    pub fn push(&mut self, text: &[u32]) {
        self.ids.extend_from_slice(text);
        self.cu_seqlens.push(self.ids.len() as u32);
    }

    /// Number of texts.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// Number of token ids.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Each text's length, in batch order.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> + Clone + '_ {
        self.cu_seqlens
            .windows(2)
            .map(|ends| (ends[1] - ends[0]) as usize)
    }

    /// The shape that determines the cost.
    pub fn shape(&self) -> BatchShape {
        self.lengths().fold(BatchShape::default(), BatchShape::with)
    }
}

impl Default for PackedTokens {
    fn default() -> PackedTokens {
        PackedTokens::with_capacity(0, 0)
    }
}

/// Sizes that determine a batch's time: linear layers cost by token, attention by the square of each length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchShape {
    /// Token ids of all texts.
    pub tokens: usize,
    /// The sum of the squares of the texts' lengths.
    pub sum_len_sq: u64,
    /// Texts.
    pub texts: usize,
}

impl BatchShape {
    /// The shape with one more text of `len` tokens.
    #[must_use]
    pub fn with(self, len: usize) -> BatchShape {
        let square = (len as u64).saturating_mul(len as u64);
        BatchShape {
            tokens: self.tokens + len,
            sum_len_sq: self.sum_len_sq.saturating_add(square),
            texts: self.texts + 1,
        }
    }

    /// The shape with one text of `len` tokens less.
    #[must_use]
    pub fn without(self, len: usize) -> BatchShape {
        let square = (len as u64).saturating_mul(len as u64);
        BatchShape {
            tokens: self.tokens.saturating_sub(len),
            sum_len_sq: self.sum_len_sq.saturating_sub(square),
            texts: self.texts.saturating_sub(1),
        }
    }
}

/// Requests that run together. Each request is answered exactly once: by [`Batch::answer`], or as lost where
/// the batch is dropped.
pub struct Batch {
    /// The texts of the requests, packed, in the order in which their rows are expected.
    pub tokens: PackedTokens,
    requests: Vec<Request>,
    predicted: Option<Duration>,
    started: Option<Nanos>,
}

impl Batch {
    /// Packs `requests`. `predicted` is the forecast of their run time, where there is one.
    pub fn pack(requests: Vec<Request>, predicted: Option<Duration>) -> Batch {
        Batch {
            tokens: pack(&requests),
            requests,
            predicted,
            started: None,
        }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// True when [`Batch::shed`] left nothing to run.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The shape that determines the cost.
    pub fn shape(&self) -> BatchShape {
        self.tokens.shape()
    }

    /// True where every request is bulk work.
    pub fn is_bulk(&self) -> bool {
        self.requests.iter().all(|r| r.context.class == Class::Bulk)
    }

    /// The requests, in row order.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Forecast of the run time. `None` where there is none, or where the batch is a probe that checks a
    /// pessimistic forecast.
    pub fn predicted(&self) -> Option<Duration> {
        self.predicted
    }

    /// Answers the requests that died while the batch waited for the device, and returns the number that is
    /// left to run. Call it right before the batch runs.
    pub fn shed(&mut self, now: Nanos) -> usize {
        let late = |r: &Request| {
            let end = now + self.predicted.unwrap_or_default();
            r.dead(now).or_else(|| {
                let misses = r.context.deadline.is_some_and(|deadline| deadline < end);
                misses.then_some(Rejection::DeadlineExceeded("it would pass before the batch ends"))
            })
        };
        // Dead requests are rare: look before anything is moved.
        if self.requests.iter().any(|r| late(r).is_some()) {
            let all = std::mem::take(&mut self.requests);
            self.requests.reserve(all.len());
            for request in all {
                match late(&request) {
                    Some(why) => request.refuse(why, now),
                    None => self.requests.push(request),
                }
            }
            self.tokens = pack(&self.requests);
        }
        self.requests.len()
    }

    /// Notes that the device starts the batch.
    pub fn started(&mut self, now: Nanos) {
        self.started = Some(now);
    }

    /// Answers every request: row `i` belongs to request `i`. A model that returns another number of rows is
    /// broken: no row can be assigned, so every request fails.
    pub fn answer(self, rows: Result<Vec<Reply>, Rejection>, finished: Nanos) {
        match rows {
            Ok(rows) => self.answer_rows(rows.into_iter().map(Ok).collect(), finished),
            Err(why) => self.answer_with(finished, std::iter::repeat_with(|| Err(why.clone()))),
        }
    }

    /// Like [`Batch::answer`], for rows that may have failed one by one.
    pub fn answer_rows(self, rows: Vec<Outcome>, finished: Nanos) {
        if rows.len() == self.requests.len() {
            self.answer_with(finished, rows.into_iter());
        } else {
            let why = format!(
                "the model answered {} rows for {} texts",
                rows.len(),
                self.requests.len()
            );
            self.answer(Err(Rejection::Model(why)), finished);
        }
    }

    fn answer_with(self, finished: Nanos, rows: impl Iterator<Item = Outcome>) {
        let started = self.started.unwrap_or(finished);
        for (request, row) in self.requests.into_iter().zip(rows) {
            request.answer(row, started, finished);
        }
    }
}

fn pack(requests: &[Request]) -> PackedTokens {
    let tokens = requests.iter().map(|r| r.tokens.len()).sum();
    let mut packed = PackedTokens::with_capacity(requests.len(), tokens);
    for request in requests {
        packed.push(request.tokens.as_slice());
    }
    packed
}

#[cfg(test)]
mod tests;
