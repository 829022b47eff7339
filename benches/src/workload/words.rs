//! The vocabulary and the sentence patterns of the generated workload: notes from a water mill's logbook.
//!
//! Every plain word is one piece in the English uncased BERT vocabulary; the long words carry their
//! number of pieces, so that a text of a wanted token length can be built without a tokenizer.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// A pattern is words and slots: `A` adjective, `N` noun, `V` verb, `P` preposition, `D` adverb, `L` long
/// word, `I` number. Everything else stands for itself.
pub const SENTENCES: &[&str] = &[
    "the A N V P the N .",
    "D the N V , and the A N V P the L .",
    "a A N V P our N after I days , but the N V D .",
    "when the N V , the L V D .",
    "we asked the N about the A L , and nobody knew why the N V .",
    "I of the I N V P the A N .",
    "it was a A N , a A L and a very A N .",
    "please check the N P the L before the N V .",
    "no N V D without a A N .",
    "the L V the N P a A N ; the N D V .",
    "my N is A , the N is D A .",
    "this N cost I , that L only I .",
];

const ADJECTIVES: &[&str] = &[
    "old",
    "new",
    "heavy",
    "quiet",
    "broken",
    "bright",
    "cold",
    "narrow",
    "deep",
    "strange",
    "simple",
    "dry",
    "clean",
    "rough",
    "steady",
    "loud",
    "green",
    "empty",
    "full",
    "late",
    "early",
    "honest",
    "cheap",
    "fine",
    "awful",
    "wonderful",
    "perfect",
    "terrible",
    "happy",
    "angry",
    "small",
    "large",
    "wooden",
    "iron",
];

const NOUNS: &[&str] = &[
    "gate", "wheel", "river", "mill", "water", "pump", "stone", "bridge", "valve", "pipe", "engine", "tower",
    "field", "storm", "flood", "winter", "summer", "guard", "worker", "master", "letter", "book", "report",
    "clock", "chain", "rope", "boat", "market", "road", "house", "door", "wall", "roof", "lamp", "fire",
    "grain", "bread", "flour", "horse", "dog", "child", "family", "village", "town", "office", "company",
    "product", "price", "service", "story", "movie", "actor", "song", "meeting", "council", "plan", "map",
];

const VERBS: &[&str] = &[
    "turns", "stops", "opens", "closes", "runs", "falls", "rises", "holds", "moves", "stands", "waits",
    "breaks", "works", "fails", "grows", "sinks", "remains", "leads", "follows", "returns", "starts", "ends",
    "carries", "needs", "wants", "shows", "hides", "keeps", "takes", "gives", "finds", "loses",
];

const PREPOSITIONS: &[&str] = &[
    "above", "below", "behind", "near", "beside", "through", "across", "under", "over", "along", "with",
    "for",
];

const ADVERBS: &[&str] = &[
    "slowly", "quickly", "often", "rarely", "never", "always", "finally", "quietly", "almost", "again",
    "soon", "still", "really", "simply", "perhaps", "suddenly", "usually", "nearly",
];

const NUMBERS: &[&str] = &[
    "two", "three", "four", "five", "six", "seven", "12", "20", "50", "100", "1999", "2020",
];

const LONG_WORDS: &[(&str, usize)] = &[
    ("penstock", 2),
    ("millwright", 2),
    ("sluice", 3),
    ("headrace", 2),
    ("waterwheel", 2),
    ("floodgate", 2),
    ("spillway", 2),
    ("turbidity", 4),
    ("driveshaft", 3),
    ("lubrication", 3),
    ("flowmeter", 2),
    ("watermark", 2),
    ("throughput", 2),
    ("backlog", 2),
    ("crankcase", 2),
];

/// The word for a slot and how many pieces it has.
pub fn draw(slot: &str, rng: &mut StdRng) -> (String, usize) {
    let plain = match slot {
        "A" => ADJECTIVES,
        "N" => NOUNS,
        "V" => VERBS,
        "P" => PREPOSITIONS,
        "D" => ADVERBS,
        "I" => NUMBERS,
        "L" => {
            let (word, pieces) = LONG_WORDS[rng.random_range(0..LONG_WORDS.len())];
            return (word.to_owned(), pieces);
        }
        literal => return (literal.to_owned(), 1),
    };
    (plain.choose(rng).copied().unwrap_or("water").to_owned(), 1)
}
