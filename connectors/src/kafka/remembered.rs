//! Topics and positions that outlive the clients of a pump.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::native::TopicId;
use penstock_runtime::record::TopicPartition;

/// Partitions remembered across clients.
const REMEMBERED_MAX: usize = 1 << 16;

/// Topics and positions that a consumer read before its clients were created again. The broker forgets a
/// group's positions when it deletes a topic.
#[derive(Default)]
pub struct Remembered(Mutex<BTreeMap<TopicPartition, Read>>);

/// One partition.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Id of its topic.
    pub id: TopicId,
    /// Its committed position.
    pub committed: Option<i64>,
}

impl Remembered {
    /// Remembers a partition.
    pub fn add(&self, partition: &TopicPartition, read: Read) {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED_MAX {
            // The loss costs a log line and a count only.
            all.clear();
        }
        all.insert(partition.clone(), read);
    }

    /// Takes a partition out of the memory.
    pub fn take(&self, partition: &TopicPartition) -> Option<Read> {
        self.0.lock().remove(partition)
    }
}
