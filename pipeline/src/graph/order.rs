//! Order of the nodes: each after its inputs. A cycle is refused.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::fault::{Fault, unknown};
use crate::section::{Placed, Section};

/// Most nodes of a pipeline; records pass them one inside of the other.
const NODES_MAX: usize = 128;

/// A node that is named and not yet checked.
pub(super) struct Draft<'a> {
    pub(super) name: String,
    pub(super) span: Range<usize>,
    pub(super) kind: Drafted,
    pub(super) section: Section<'a>,
    pub(super) from: Vec<Placed<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Drafted {
    Source,
    Step,
    Sink,
}

/// The drafts in order, with the places of their inputs in it.
pub(super) fn sort(drafts: Vec<Draft<'_>>) -> Result<Vec<(Draft<'_>, Vec<usize>)>, Fault> {
    if let Some(over) = drafts.get(NODES_MAX) {
        return Err(Fault::new(
            over.span.clone(),
            format!("a pipeline has at most {NODES_MAX} nodes"),
        ));
    }
    let names: BTreeMap<String, Drafted> = drafts.iter().map(|d| (d.name.clone(), d.kind)).collect();
    for draft in &drafts {
        for from in &draft.from {
            match names.get(&from.value) {
                None => {
                    let known = names.iter().filter(|(_, kind)| **kind != Drafted::Sink);
                    let known = known
                        .map(|(name, _)| name.as_str())
                        .filter(|name| *name != draft.name);
                    return Err(Fault::new(from.span.clone(), unknown("node", &from.value, known)));
                }
                Some(Drafted::Sink) => {
                    let message = format!("`{}` is a sink: nothing can read from it", from.value);
                    return Err(Fault::new(from.span.clone(), message));
                }
                Some(_) => {}
            }
        }
    }
    let mut sorted: Vec<(Draft<'_>, Vec<usize>)> = Vec::with_capacity(drafts.len());
    let mut left = drafts;
    while !left.is_empty() {
        let at = |name: &str| sorted.iter().position(|(done, _)| done.name == name);
        let ready = left
            .iter()
            .position(|draft| draft.from.iter().all(|from| at(&from.value).is_some()));
        let Some(ready) = ready else {
            return Err(cycle(&left));
        };
        let draft = left.remove(ready);
        let inputs = draft.from.iter().filter_map(|from| at(&from.value)).collect();
        sorted.push((draft, inputs));
    }
    Ok(sorted)
}

/// Names the nodes of a cycle. Each of `left` waits for another of them.
fn cycle(left: &[Draft<'_>]) -> Fault {
    let mut path: Vec<&Draft<'_>> = vec![&left[0]];
    loop {
        let last = path[path.len() - 1];
        let next = last
            .from
            .iter()
            .find_map(|from| left.iter().find(|draft| draft.name == from.value));
        let Some(next) = next else {
            return Fault::new(last.span.clone(), format!("`{}` reads itself", last.name));
        };
        if let Some(start) = path.iter().position(|draft| draft.name == next.name) {
            let mut names: Vec<&str> = path[start..].iter().map(|draft| draft.name.as_str()).collect();
            names.push(&next.name);
            names.reverse();
            return Fault::new(next.span.clone(), format!("a cycle: {}", names.join(" → ")));
        }
        path.push(next);
    }
}
