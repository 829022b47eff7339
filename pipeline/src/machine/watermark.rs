//! Watermarks: of each partition, and the minimum over the inputs of a node. None of them goes back.

/// Watermarks of a source's partitions.
#[derive(Debug)]
pub(super) struct PartitionWatermarks {
    out_of_order_max: i64,
    partitions: Vec<i64>,
    lowest: i64,
}

impl PartitionWatermarks {
    pub(super) fn new(partitions: usize, out_of_order_max: i64) -> PartitionWatermarks {
        PartitionWatermarks {
            out_of_order_max,
            partitions: vec![i64::MIN; partitions],
            lowest: i64::MIN,
        }
    }

    /// Time by which an event is behind its partition's watermark; 0 if it is not.
    pub(super) fn behind(&self, partition: i32, time: i64) -> i64 {
        let watermark = self.at(partition).map_or(i64::MIN, |at| self.partitions[at]);
        watermark.saturating_sub(time).max(0)
    }

    /// Counts an event in. The result is the lowest watermark, if that has advanced.
    pub(super) fn advance(&mut self, partition: i32, time: i64) -> Option<i64> {
        let at = self.at(partition)?;
        let watermark = time.saturating_sub(self.out_of_order_max);
        let before = self.partitions[at];
        if watermark <= before {
            return None;
        }
        self.partitions[at] = watermark;
        if before > self.lowest {
            return None;
        }
        let lowest = self.partitions.iter().copied().min()?;
        (lowest > self.lowest).then(|| {
            self.lowest = lowest;
            lowest
        })
    }

    fn at(&self, partition: i32) -> Option<usize> {
        usize::try_from(partition)
            .ok()
            .filter(|at| *at < self.partitions.len())
    }
}

/// Watermarks of a node's inputs.
#[derive(Debug)]
pub(super) struct InputWatermarks {
    inputs: Vec<(usize, i64)>,
    lowest: i64,
}

impl InputWatermarks {
    pub(super) fn new(inputs: &[usize]) -> InputWatermarks {
        InputWatermarks {
            inputs: inputs.iter().map(|input| (*input, i64::MIN)).collect(),
            lowest: i64::MIN,
        }
    }

    /// Takes an input's watermark. The result is the lowest of all, if that has advanced.
    pub(super) fn advance(&mut self, input: usize, watermark: i64) -> Option<i64> {
        for (other, at) in &mut self.inputs {
            if *other == input {
                *at = watermark.max(*at);
            }
        }
        let lowest = self.inputs.iter().map(|(_, at)| *at).min()?;
        (lowest > self.lowest).then(|| {
            self.lowest = lowest;
            lowest
        })
    }
}
