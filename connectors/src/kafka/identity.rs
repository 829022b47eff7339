//! Identity of the input topics, because a topic may be deleted and created again under its name. The client
//! would silently continue at the old position. The broker is therefore asked for the topics' ids at
//! intervals. Before a commit it is asked often enough that no position of one topic is committed for
//! another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::BaseProducer;
use tracing::{debug, info};

use super::client_shutdown::ClientShutdown;
use super::deliveries::Deliveries;
use super::native::{Asking, TopicAnswer, TopicId};

/// Longest age of an answer that permits a commit. The client waits half a second (`fetch.error.backoff.ms`)
/// before it reads a vanished topic again, so no record of another topic is included.
const FRESH: Duration = Duration::from_millis(400);

/// Intervals between questions: while a commit is due, and otherwise.
const AGAIN_BUSY: Duration = Duration::from_millis(300);
const AGAIN_IDLE: Duration = Duration::from_secs(2);

/// Longest wait of a commit for the answer; a silent broker must not stop the route. The first wait is
/// shorter, because nothing is known of the broker yet.
const HOLD_MAX: Duration = Duration::from_secs(1);
const HOLD_FIRST: Duration = Duration::from_millis(250);

/// Timeout of an answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Remembered topics, in addition to those that are read.
const KNOWN_MAX: usize = 1000;

/// A topic whose id has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remade {
    /// Its name.
    pub topic: String,
    /// The earlier id.
    pub was: TopicId,
    /// The present id.
    pub is: TopicId,
}

/// The ids of a consumer's input topics.
#[derive(Default)]
pub struct Identities {
    asking: Option<(Asking, Instant)>,
    asked: Option<Instant>,
    /// Time of the last question that was answered.
    heard: Option<Instant>,
    known: BTreeMap<String, Known>,
    telling: Telling,
    /// Time since which the commit waits.
    holding: Option<Instant>,
    /// Ask as soon as possible.
    hurry: bool,
}

/// Expectation of the broker's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Telling {
    /// It answers, as far as known.
    #[default]
    Soon,
    /// The commit has timed out, without an answer since.
    Late,
    /// The last question had no answer. librdkafka's mock cluster gives none, because it names a missing
    /// controller.
    Not,
    /// It has no topic ids, so recreated topics cannot be detected by them.
    Never,
}

/// One topic.
struct Known {
    id: TopicId,
    /// Time of the question with this answer.
    asked: Instant,
}

impl Identities {
    /// Requests a question soon, after an event that a recreated topic may cause.
    pub fn hurry(&mut self) {
        self.hurry = true;
    }

    /// Whether a question is due.
    pub fn is_due(&self, busy: bool, now: Instant) -> bool {
        let pause = if busy || self.hurry {
            AGAIN_BUSY
        } else {
            AGAIN_IDLE
        };
        let waits = self
            .asked
            .is_some_and(|asked| now.saturating_duration_since(asked) < pause);
        self.telling != Telling::Never && self.asking.is_none() && !waits
    }

    /// Asks for the ids of these topics.
    pub fn ask(
        &mut self,
        client: Arc<ClientShutdown<BaseProducer<Deliveries>>>,
        topics: &[String],
        now: Instant,
    ) {
        self.asked = Some(now);
        self.hurry = false;
        self.asking = Asking::start(client, topics, ANSWER_MAX).map(|asking| (asking, now));
    }

    /// Whether no question is outstanding.
    pub fn is_free(&self) -> bool {
        self.asking.is_none()
    }

    /// Whether a question from this time or later was answered; true if the broker never answers.
    pub fn heard_since(&self, time: Instant) -> bool {
        self.is_mute() || self.heard.is_some_and(|asked| asked >= time)
    }

    /// Polls for the answer. An error names a recreated topic, whose old id stays remembered.
    pub fn listen(&mut self, route: &str) -> Result<(), Remade> {
        let Some((asking, asked)) = &self.asking else {
            return Ok(());
        };
        let Some(answer) = asking.answer() else {
            return Ok(());
        };
        let asked = *asked;
        self.asking = None;
        match answer {
            Ok(told) => self.learn(told, asked, route),
            Err(RDKafkaErrorCode::UnsupportedFeature) => {
                self.go_without(route);
                Ok(())
            }
            Err(code) => {
                debug!(route, %code, "the ids of the topics are not told");
                self.unanswered(code, route);
                Ok(())
            }
        }
    }

    fn learn(&mut self, told: Vec<(String, TopicAnswer)>, asked: Instant, route: &str) -> Result<(), Remade> {
        self.heard = Some(asked);
        let mut remade = None;
        for (topic, told) in told {
            match (told, self.known.get_mut(&topic)) {
                (Ok(Some(is)), Some(known)) if known.id != is => {
                    let was = known.id;
                    remade.get_or_insert(Remade { topic, was, is });
                }
                (Ok(Some(_)), Some(known)) => known.asked = asked,
                (Ok(Some(id)), None) => drop(self.known.insert(topic, Known { id, asked })),
                (Ok(None), _) => self.go_without(route),
                // The topic may be deleted, or not yet known to the broker.
                (Err(code), _) => {
                    self.hurry = true;
                    debug!(route, topic, %code, "the id of the topic is not told");
                }
            }
        }
        if self.telling != Telling::Never {
            self.telling = Telling::Soon;
        }
        remade.map_or(Ok(()), Err)
    }

    fn unanswered(&mut self, code: RDKafkaErrorCode, route: &str) {
        let silent = code == RDKafkaErrorCode::OperationTimedOut;
        if silent && std::mem::replace(&mut self.telling, Telling::Not) != Telling::Not {
            info!(
                route,
                "the broker does not tell the ids of the topics: until it does, one that is made anew is told by its \
                 positions alone"
            );
        }
    }

    fn go_without(&mut self, route: &str) {
        if std::mem::replace(&mut self.telling, Telling::Never) != Telling::Never {
            info!(
                route,
                "the broker gives topics no ids: one that is made anew is told by its positions alone"
            );
        }
    }

    /// Whether no answer is to be waited for.
    fn is_mute(&self) -> bool {
        matches!(self.telling, Telling::Not | Telling::Never)
    }

    /// The id of a topic.
    pub fn id(&self, topic: &str) -> Option<TopicId> {
        self.known.get(topic).map(|known| known.id)
    }

    /// Whether [`Identities::id`] is final for this topic.
    pub fn is_settled(&self, topic: &str) -> bool {
        self.telling != Telling::Soon || self.known.contains_key(topic)
    }

    /// Whether records of these topics may be committed: each has its known id, or the broker does not
    /// answer.
    pub fn vouch<'a>(&mut self, mut topics: impl Iterator<Item = &'a str>, now: Instant) -> bool {
        let fresh = |known: &Known| now.saturating_duration_since(known.asked) <= FRESH;
        if self.is_mute() || topics.all(|topic| self.known.get(topic).is_some_and(fresh)) {
            self.holding = None;
            return true;
        }
        self.hurry = true;
        let since = *self.holding.get_or_insert(now);
        let most = if self.heard.is_some() {
            HOLD_MAX
        } else {
            HOLD_FIRST
        };
        let waited = now.saturating_duration_since(since) >= most;
        if waited {
            self.telling = Telling::Late;
        }
        waited
    }

    /// Bounds the topics that are no longer read. They stay while there is room, because the client continues
    /// with its own memory of a topic that returns.
    pub fn make_room(&mut self, is_read: impl Fn(&str) -> bool) {
        if self.known.len() > KNOWN_MAX {
            self.known.retain(|topic, _| is_read(topic));
        }
    }
}

/// Prefix of the metadata committed with a position: the topic's id.
const NOTE: &str = "topic-id=";

/// The metadata for a topic. It ends with a zero byte: confluent-kafka reads up to one, and past the end without it.
pub fn note(id: TopicId) -> String {
    format!("{NOTE}{id}\0")
}

/// The topic id in committed metadata. Positions that other programs commit have none.
pub fn noted(note: &str) -> Option<TopicId> {
    TopicId::parse(note.strip_prefix(NOTE)?.trim_end_matches('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
    const B: &str = "AAAAAAAAAAAAAAAAAAAAAg";

    fn id(text: &str) -> TopicId {
        TopicId::parse(text).unwrap()
    }

    fn learn(of: &mut Identities, topic: &str, told: TopicAnswer, asked: Instant) -> Result<(), Remade> {
        of.learn(vec![(topic.to_owned(), told)], asked, "r")
    }

    fn vouches(of: &mut Identities, now: Instant) -> bool {
        of.vouch(["t"].into_iter(), now)
    }

    #[test]
    fn a_topic_of_another_id_was_made_anew_and_stays_known_as_what_it_was() {
        let (mut of, now) = (Identities::default(), Instant::now());
        assert_eq!(learn(&mut of, "t", Ok(Some(id(A))), now), Ok(()));
        let remade = Remade {
            topic: "t".into(),
            was: id(A),
            is: id(B),
        };
        assert_eq!(learn(&mut of, "t", Ok(Some(id(B))), now), Err(remade));
        assert_eq!(of.id("t"), Some(id(A)));
    }

    #[test]
    fn only_what_was_asked_just_now_vouches_for_a_commit() {
        let (mut of, now) = (Identities::default(), Instant::now());
        assert!(!vouches(&mut of, now), "nothing is known");
        assert!(of.is_due(false, now), "and so it is asked");
        learn(&mut of, "t", Ok(Some(id(A))), now).unwrap();
        assert!(vouches(&mut of, now + FRESH));
        assert!(!vouches(&mut of, now + 2 * FRESH));
        learn(&mut of, "t", Ok(Some(id(A))), now + 2 * FRESH).unwrap();
        assert!(vouches(&mut of, now + 2 * FRESH));
        assert!(of.vouch(std::iter::empty(), now + 9 * FRESH));
    }

    #[test]
    fn a_broker_that_tells_nothing_holds_a_commit_for_a_while_only() {
        let (mut of, now) = (Identities::default(), Instant::now());
        learn(&mut of, "t", Err(RDKafkaErrorCode::UnknownTopicOrPartition), now).unwrap();
        assert!(!vouches(&mut of, now) && !of.is_settled("t"));
        assert!(!vouches(&mut of, now + HOLD_MAX / 2));
        assert!(vouches(&mut of, now + HOLD_MAX) && of.is_settled("t"));
        assert!(vouches(&mut of, now + 2 * HOLD_MAX));
        learn(&mut of, "t", Ok(Some(id(A))), now + 2 * HOLD_MAX).unwrap();
        assert!(vouches(&mut of, now + 2 * HOLD_MAX), "from now on it waits again");
        assert!(!vouches(&mut of, now + 4 * HOLD_MAX));
    }

    #[test]
    fn a_broker_that_never_answered_holds_nothing_until_it_does() {
        let (mut of, now) = (Identities::default(), Instant::now());
        assert!(!vouches(&mut of, now));
        assert!(!vouches(&mut of, now + HOLD_FIRST / 2));
        assert!(vouches(&mut of, now + HOLD_FIRST));
        let mut of = Identities::default();
        of.unanswered(RDKafkaErrorCode::BrokerTransportFailure, "r");
        assert!(!vouches(&mut of, now));
        of.unanswered(RDKafkaErrorCode::OperationTimedOut, "r");
        assert!(vouches(&mut of, now) && of.is_settled("t") && of.heard_since(now));
        learn(&mut of, "t", Ok(Some(id(A))), now).unwrap();
        assert!(!vouches(&mut of, now + 2 * FRESH));
    }

    #[test]
    fn a_broker_without_ids_is_asked_no_more() {
        let (mut of, now) = (Identities::default(), Instant::now());
        learn(&mut of, "t", Ok(None), now).unwrap();
        assert!(vouches(&mut of, now) && of.is_settled("t") && of.id("t").is_none());
        of.hurry();
        assert!(!of.is_due(true, now + AGAIN_IDLE));
    }

    #[test]
    fn it_is_asked_more_often_while_something_is_to_be_committed() {
        let now = Instant::now();
        let mut of = Identities {
            asked: Some(now),
            ..Identities::default()
        };
        assert!(!of.is_due(true, now + AGAIN_BUSY / 2) && of.is_due(true, now + AGAIN_BUSY));
        assert!(!of.is_due(false, now + AGAIN_BUSY) && of.is_due(false, now + AGAIN_IDLE));
        of.hurry();
        assert!(of.is_due(false, now + AGAIN_BUSY));
    }

    #[test]
    fn a_note_names_the_topic_and_no_other_does() {
        assert_eq!(noted(&note(id(A))), Some(id(A)));
        assert_eq!(noted(&format!("{NOTE}{A}")), Some(id(A)));
        for other in ["", "topic-id=", A, "topic-id=7"] {
            assert_eq!(noted(other), None, "{other}");
        }
    }
}
