//! Bound of what one evaluation costs, known when the file is read.

use super::Node;

/// Most elements of a list in a record; a longer one is a dead letter.
pub(crate) const LIST_MAX: usize = 1_024;
/// Most steps of one evaluation.
const COST_MAX: u64 = 100_000;
/// Steps of a search in a text.
const TEXT_COST: u64 = 32;

/// Refuses an expression that may take too many steps.
pub(super) fn bound(node: &Node) -> Result<(), String> {
    match cost(node) {
        cost if cost <= COST_MAX => Ok(()),
        cost => Err(format!(
            "expression may take {cost} steps, more than {COST_MAX}: lists inside of lists are searched"
        )),
    }
}

fn cost(node: &Node) -> u64 {
    let parts = || {
        node.parts()
            .into_iter()
            .map(cost)
            .fold(1_u64, u64::saturating_add)
    };
    match node {
        Node::Each(_, list, body) => {
            let rounds = length(list).saturating_mul(cost(body).saturating_add(1));
            cost(list).saturating_add(rounds)
        }
        Node::In(_, list) => parts().saturating_add(length(list)),
        Node::Text(..) | Node::Matches(..) | Node::Lower(_) => parts().saturating_add(TEXT_COST),
        _ => parts(),
    }
}

fn length(list: &Node) -> u64 {
    match list {
        Node::List(parts) => parts.len() as u64,
        Node::Literal(super::Value::List(values)) => values.len() as u64,
        _ => LIST_MAX as u64,
    }
}
