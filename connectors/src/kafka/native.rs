//! Parts of librdkafka that the crate does not wrap. A topic's id differs after the topic is deleted and
//! created again. The epoch of a record's leader tells whether a log still has the record. Only this file and
//! the kernels have `unsafe`, because it calls librdkafka itself.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::bindings as c;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::client_shutdown::ClientShutdown;
use super::deliveries::Deliveries;

/// A topic id, displayed as Kafka's own tools do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// Parses the displayed form.
    pub fn parse(text: &str) -> Option<TopicId> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(TopicId)
    }

    fn new(high: i64, low: i64) -> Option<TopicId> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        (bytes != [0; 16]).then_some(TopicId(bytes))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The broker's answer about a topic: its id, `None` without ids, or an error.
pub type TopicAnswer = Result<Option<TopicId>, RDKafkaErrorCode>;

/// A librdkafka object that is freed when dropped.
struct Owned<T> {
    pointer: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// # Safety
    ///
    /// The pointer is null, or is owned by the caller and freed by `free`.
    unsafe fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Owned<T>> {
        NonNull::new(pointer).map(|pointer| Owned { pointer, free })
    }

    fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the creator guarantees exclusive ownership and the right `free`; the object is not used
        // after this.
        unsafe { (self.free)(self.pointer.as_ptr()) }
    }
}

/// An outstanding question. The answer comes within the given timeout; this thread never waits for it.
pub struct Asking {
    // Dropped before the client it belongs to.
    queue: Owned<c::rd_kafka_queue_t>,
    _client: Arc<ClientShutdown<BaseProducer<Deliveries>>>,
}

impl Asking {
    /// Asks for the ids of these topics, each named once. The producer asks: on the consumer's connection the answer
    /// waits behind a fetch, up to half a second. `None` if the client refuses the question.
    pub fn start(
        client: Arc<ClientShutdown<BaseProducer<Deliveries>>>,
        topics: &[String],
        timeout: Duration,
    ) -> Option<Asking> {
        let names: Vec<CString> = topics
            .iter()
            .map(|topic| CString::new(topic.as_str()).ok())
            .collect::<Option<_>>()?;
        let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let producer: &BaseProducer<Deliveries> = &client;
        let handle = producer.client().native_ptr();
        let timeout = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        let mut reason = [0; 64];
        // SAFETY: the handle belongs to a client that outlives this function, because `client` holds it. The
        // names are strings that end with a zero and also live until its end. The collection copies them, and
        // the question copies the collection and the options. Each created object is null or owned here, and
        // is freed by the function that librdkafka names for it. The length of the reason is its buffer's
        // own.
        unsafe {
            let queue = Owned::new(c::rd_kafka_queue_new(handle), c::rd_kafka_queue_destroy)?;
            let kind = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = Owned::new(
                c::rd_kafka_AdminOptions_new(handle, kind),
                c::rd_kafka_AdminOptions_destroy,
            )?;
            let bounded = c::rd_kafka_AdminOptions_set_request_timeout(
                options.as_ptr(),
                timeout,
                reason.as_mut_ptr(),
                reason.len(),
            );
            if bounded != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            let topics = Owned::new(
                c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
                c::rd_kafka_TopicCollection_destroy,
            )?;
            c::rd_kafka_DescribeTopics(handle, topics.as_ptr(), options.as_ptr(), queue.as_ptr());
            Some(Asking {
                queue,
                _client: client,
            })
        }
    }

    /// The answer, once it has arrived: an answer for each topic, or an error. It is returned once.
    pub fn answer(&self) -> Option<Result<Vec<(String, TopicAnswer)>, RDKafkaErrorCode>> {
        // SAFETY: the queue is owned here, and its client outlives it. The event is null or owned here.
        let event = unsafe {
            Owned::new(
                c::rd_kafka_queue_poll(self.queue.as_ptr(), 0),
                c::rd_kafka_event_destroy,
            )
        }?;
        // SAFETY: the event exists. Its result is null, or lives as long as the event. The function that
        // returns the topics returns that many pointers, to objects that live as long.
        unsafe {
            let code = c::rd_kafka_event_error(event.as_ptr());
            let result = c::rd_kafka_event_DescribeTopics_result(event.as_ptr());
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || result.is_null() {
                return Some(Err(code.into()));
            }
            let mut count = 0;
            let first = c::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            let topics = (0..if first.is_null() { 0 } else { count }).map(|at| *first.add(at));
            Some(Ok(topics
                .filter(|topic| !topic.is_null())
                .map(|topic| told(topic))
                .collect()))
        }
    }
}

/// # Safety
///
/// The topic lives during the call.
unsafe fn told(topic: *const c::rd_kafka_TopicDescription_t) -> (String, TopicAnswer) {
    // SAFETY: the topic lives, and its name, error and id with it. The name ends with a zero.
    unsafe {
        let name = CStr::from_ptr(c::rd_kafka_TopicDescription_name(topic));
        let name = name.to_string_lossy().into_owned();
        // A topic without an error has a null error, whose code the function defines as zero.
        let code = c::rd_kafka_error_code(c::rd_kafka_TopicDescription_error(topic));
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return (name, Err(code.into()));
        }
        let id = c::rd_kafka_TopicDescription_topic_id(topic);
        let (high, low) = (
            c::rd_kafka_Uuid_most_significant_bits(id),
            c::rd_kafka_Uuid_least_significant_bits(id),
        );
        (name, Ok(TopicId::new(high, low)))
    }
}

/// Epoch of the leader that wrote a record, if the broker reports it.
pub fn leader_epoch(message: &BorrowedMessage<'_>) -> Option<i32> {
    // SAFETY: the message lives while it is borrowed, and comes from a consumer.
    let epoch = unsafe { c::rd_kafka_message_leader_epoch(message.ptr()) };
    (epoch >= 0).then_some(epoch)
}

/// Metadata committed with a position.
#[derive(Debug, PartialEq, Eq)]
pub struct Beside {
    /// Text of the program that committed it.
    pub note: Option<String>,
    /// Leader epoch of the record before the position.
    pub leader_epoch: Option<i32>,
}

/// Metadata committed with each position of a list, in order. The crate's own accessor panics on text that is
/// not UTF-8, which another program may have committed.
pub fn beside(list: &TopicPartitionList) -> Vec<Beside> {
    // SAFETY: the list lives while it is borrowed, and is not changed meanwhile. Its `cnt` elements are
    // contiguous. Metadata that is not null has as many bytes as its size says.
    unsafe {
        let raw = &*list.ptr();
        let count = usize::try_from(raw.cnt).unwrap_or(0);
        let one = |at| {
            let element = raw.elems.add(at);
            let epoch = c::rd_kafka_topic_partition_get_leader_epoch(element);
            let (note, size) = ((*element).metadata, (*element).metadata_size);
            let note = (!note.is_null()).then(|| std::slice::from_raw_parts(note.cast::<u8>(), size));
            Beside {
                note: note.and_then(|note| std::str::from_utf8(note).ok().map(str::to_owned)),
                leader_epoch: (epoch >= 0).then_some(epoch),
            }
        };
        (0..count).map(one).collect()
    }
}

/// Sets the leader epoch of the record before the last position of a list. A seek to the position then
/// detects whether the log still has that record; a commit passes the epoch to the next consumer.
pub fn set_leader_epoch(list: &mut TopicPartitionList, leader_epoch: Option<i32>) {
    let Some(epoch) = leader_epoch else {
        return;
    };
    // SAFETY: the list is borrowed exclusively for this call. The element is its last one, within its count.
    unsafe {
        let raw = &*list.ptr();
        let last = usize::try_from(raw.cnt)
            .ok()
            .and_then(|count| count.checked_sub(1));
        if let Some(last) = last {
            c::rd_kafka_topic_partition_set_leader_epoch(raw.elems.add(last), epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_kafka_writes_it_and_read_again() {
        let id = TopicId::new(0x0102_0304_0506_0708, -1).unwrap();
        assert_eq!(id.to_string(), "AQIDBAUGBwj__________w");
        assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        assert_eq!(TopicId::new(0, 0), None, "a broker that has no ids says 0");
        for nonsense in ["", "AQID", "not base64 !", "AQIDBAUGBwj__________w=="] {
            assert_eq!(TopicId::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn metadata_of_a_position_is_read_whatever_its_bytes() {
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0).set_metadata("a note");
        set_leader_epoch(&mut list, Some(7));
        list.add_partition("t", 1);
        set_leader_epoch(&mut list, None);
        let noted = |note: Option<&str>, leader_epoch| Beside {
            note: note.map(str::to_owned),
            leader_epoch,
        };
        assert_eq!(beside(&list), [noted(Some("a note"), Some(7)), noted(None, None)]);
        let mut none = TopicPartitionList::new();
        set_leader_epoch(&mut none, Some(7));
        assert_eq!(beside(&none), []);
    }
}
