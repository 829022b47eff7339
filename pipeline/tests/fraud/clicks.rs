//! Clickstreams by seed.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

/// First moment of a stream: 2026-01-01 in milliseconds.
const START: i64 = 1_767_225_600_000;
/// Length of a stream in milliseconds.
const LENGTH: i64 = 6 * 3_600_000;
/// Kind of a view that counts.
const DEAR: &str = "dear";

/// A click as it arrives.
#[derive(Clone, Debug)]
pub struct Click {
    pub user: String,
    pub time: i64,
    pub is_dear_view: bool,
    pub is_coupon: bool,
    pub partition: i32,
    pub offset: i64,
    pub json: String,
}

/// Partition of a click.
#[derive(Clone, Copy, Debug)]
pub enum Spread {
    ByUser,
    AtRandom,
}

/// Some clicks of one visit: seconds after its start, and the kind.
fn visit(random: &mut StdRng) -> Vec<(f64, &'static str)> {
    let dear = |from: f64, step: f64, n: usize| (0..n).map(move |i| (from + i as f64 * step, DEAR));
    match random.random_range(0..10) {
        // Fraud, with the span at its limit.
        0 => dear(3.0, 24.0, 6).chain([(123.0, "coupon")]).collect(),
        1 => dear(1.0, 5.0, random.random_range(6..12))
            .chain([(90.0, "coupon"), (95.0, "coupon")])
            .collect(),
        // Near misses: a millisecond too slow, a view too few, the coupon first, cheap views.
        2 => dear(3.0, 24.000_2, 6).chain([(130.0, "coupon")]).collect(),
        3 => dear(3.0, 4.0, 5).chain([(60.0, "coupon")]).collect(),
        4 => std::iter::once((1.0, "coupon"))
            .chain(dear(3.0, 4.0, 7))
            .collect(),
        5 => (0..7)
            .map(|i| (f64::from(i), "cheap"))
            .chain([(20.0, "coupon")])
            .collect(),
        // Slow views, and then enough of them.
        6 => dear(0.0, 50.0, 12)
            .chain(dear(700.0, 10.0, 6))
            .chain([(800.0, "coupon")])
            .collect(),
        _ => {
            let kinds = ["page", "cheap", DEAR, "coupon"];
            let n = random.random_range(1..12);
            (0..n)
                .map(|_| (random.random_range(0.0..900.0), *kinds.choose(random).unwrap()))
                .collect()
        }
    }
}

/// Delay of a click on its way in milliseconds: a fifth comes out of order, one in a hundred too late.
fn delay(random: &mut StdRng) -> i64 {
    match random.random_range(0..100) {
        0 => random.random_range(200_000..900_000),
        1..=10 => random.random_range(1..10_000),
        11..=20 => random.random_range(10_000..69_000),
        _ => 0,
    }
}

/// A stream of about `events` clicks.
pub fn stream(seed: u64, events: usize, partitions: usize, spread: Spread) -> Vec<Click> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut arrivals: Vec<(i64, Click)> = Vec::new();
    let users = events / 40 + 1;
    while arrivals.len() < events {
        let number = random.random_range(0..users);
        let start = START + random.random_range(0..LENGTH);
        for (seconds, kind) in visit(&mut random) {
            let time = start + (seconds * 1_000.0).round() as i64;
            let click = click(format!("u{number}"), time, kind);
            arrivals.push((time + delay(&mut random), click));
        }
    }
    // Clicks of one moment come in any order.
    arrivals.shuffle(&mut random);
    arrivals.sort_by_key(|(at, _)| *at);
    let mut offsets = vec![0; partitions];
    let mut clicks = Vec::with_capacity(arrivals.len());
    for (_, mut click) in arrivals {
        let partition = match spread {
            Spread::ByUser => click.user.bytes().map(usize::from).sum::<usize>() % partitions,
            Spread::AtRandom => random.random_range(0..partitions),
        };
        click.partition = i32::try_from(partition).unwrap();
        click.offset = offsets[partition];
        offsets[partition] += 1;
        clicks.push(click);
    }
    clicks
}

fn click(user: String, time: i64, kind: &str) -> Click {
    let (event, price) = match kind {
        DEAR => ("item_view", 500.01),
        "cheap" => ("item_view", 500.0),
        "coupon" => ("coupon_attempt", 0.0),
        _ => ("page_view", 900.0),
    };
    let json = serde_json::json!({"user_id": user, "event_type": event, "timestamp": time, "price": price});
    Click {
        user,
        time,
        is_dear_view: kind == DEAR,
        is_coupon: kind == "coupon",
        partition: 0,
        offset: 0,
        json: json.to_string(),
    }
}
