//! A naive program that decides the same: at each event it sorts all that the user has done, by time.

use std::collections::HashMap;

use crate::clicks::Click;

const OUT_OF_ORDER_MAX: i64 = 10_000;
const LATENESS: i64 = 60_000;
const GAP: i64 = 30 * 60_000;
const LENGTH_MAX: i64 = 12 * 3_600_000;
const SPAN: i64 = 120_000;
const VIEWS: usize = 6;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alert {
    pub user: String,
    pub start: i64,
    pub end: i64,
    pub views: i64,
    pub coupon: i64,
}

#[derive(Default)]
struct User<'a> {
    clicks: Vec<&'a Click>,
    /// One click of each session that has alerted.
    alerted: Vec<(i32, i64)>,
}

/// The alerts and the late records, in the order of arrival.
pub fn decide(clicks: &[Click], partitions: usize) -> (Vec<Alert>, Vec<(i32, i64)>) {
    let mut watermarks = vec![i64::MIN; partitions];
    let mut users: HashMap<&str, User<'_>> = HashMap::new();
    let (mut alerts, mut late) = (Vec::new(), Vec::new());
    for click in clicks {
        let watermark = &mut watermarks[usize::try_from(click.partition).unwrap()];
        let is_late = click.time < watermark.saturating_sub(LATENESS);
        *watermark = (*watermark).max(click.time - OUT_OF_ORDER_MAX);
        if is_late {
            late.push((click.partition, click.offset));
            continue;
        }
        let user = users.entry(&click.user).or_default();
        user.clicks.push(click);
        user.clicks
            .sort_by_key(|click| (click.time, click.partition, click.offset));
        let session = session_of(&user.clicks, click);
        let has_alerted = session
            .iter()
            .any(|c| user.alerted.contains(&(c.partition, c.offset)));
        if let Some((views, coupon)) = matched(session).filter(|_| !has_alerted) {
            alerts.push(Alert {
                user: click.user.clone(),
                start: session[0].time,
                end: session[session.len() - 1].time,
                views,
                coupon,
            });
            user.alerted.push((click.partition, click.offset));
        }
    }
    (alerts, late)
}

/// The clicks of the session that has `click` in it.
fn session_of<'a, 'b>(sorted: &'b [&'a Click], click: &Click) -> &'b [&'a Click] {
    let is_gap = |pair: &[&Click]| pair[1].time - pair[0].time > GAP;
    let at = sorted
        .iter()
        .position(|c| (c.partition, c.offset) == (click.partition, click.offset))
        .unwrap();
    let mut first = at;
    while first > 0 && !is_gap(&sorted[first - 1..=first]) {
        first -= 1;
    }
    let mut last = at;
    while last + 1 < sorted.len() && !is_gap(&sorted[last..=last + 1]) {
        last += 1;
    }
    let session = &sorted[first..=last];
    assert!(
        session[session.len() - 1].time - session[0].time <= LENGTH_MAX,
        "the oracle knows no longest session"
    );
    session
}

/// Number of views before the earliest coupon that follows enough of them, and the coupon's time.
fn matched(session: &[&Click]) -> Option<(i64, i64)> {
    for (place, coupon) in session.iter().enumerate().filter(|(_, click)| click.is_coupon) {
        let views: Vec<i64> = session[..place]
            .iter()
            .filter(|c| c.is_dear_view)
            .map(|c| c.time)
            .collect();
        if views
            .windows(VIEWS)
            .any(|window| window[VIEWS - 1] - window[0] <= SPAN)
        {
            return Some((i64::try_from(views.len()).unwrap(), coupon.time));
        }
    }
    None
}
