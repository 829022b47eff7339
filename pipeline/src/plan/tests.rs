//! Cuts of the plan.

use std::path::Path;

use super::plan;
use crate::Pipeline;

const FRAUD: &str = include_str!("../../../examples/fraud/pipeline.toml");
const COMMENTS: &str = include_str!("../../../examples/comments/pipeline.toml");

/// What each stage reads, its nodes, and what it writes.
fn stages(text: &str) -> Vec<(String, String, String)> {
    let pipeline = Pipeline::parse(Path::new("p.toml"), text, None).unwrap();
    let plan = plan(&pipeline);
    let names = |nodes: &[usize]| {
        nodes
            .iter()
            .map(|n| pipeline.nodes[*n].name.to_string())
            .collect::<Vec<_>>()
    };
    plan.stages
        .iter()
        .map(|stage| {
            (
                stage.reads.join(" "),
                names(&stage.nodes).join(" "),
                stage.writes.join(" "),
            )
        })
        .collect()
}

fn check(text: &str, expected: &[(&str, &str, &str)]) {
    let found = stages(text);
    let found: Vec<(&str, &str, &str)> = found
        .iter()
        .map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn one_external_sink_without_state_is_one_stage() {
    check(
        COMMENTS,
        &[("social-comments", "comment spoken scored table", "")],
    );
}

#[test]
fn a_topic_that_has_the_key_needs_no_internal_one() {
    check(
        FRAUD,
        &[
            (
                "clickstream",
                "click by_user session suspicious",
                "penstock.fraud.suspicious.out",
            ),
            (
                "penstock.fraud.suspicious.out",
                "risk alerts",
                "penstock.fraud.cases.out",
            ),
            ("penstock.fraud.cases.out", "cases", ""),
        ],
    );
}

#[test]
fn a_key_that_the_topic_does_not_have_is_a_cut() {
    let text = FRAUD.replacen("keyed_by = \"click.user_id\"\n", "", 1);
    check(
        &text,
        &[
            ("clickstream", "click", "penstock.fraud.by_user.in"),
            (
                "penstock.fraud.by_user.in",
                "by_user session suspicious",
                "penstock.fraud.suspicious.out",
            ),
            (
                "penstock.fraud.suspicious.out",
                "risk alerts",
                "penstock.fraud.cases.out",
            ),
            ("penstock.fraud.cases.out", "cases", ""),
        ],
    );
}

#[test]
fn a_second_sink_takes_the_table_out_of_the_stage() {
    let text = COMMENTS.replacen(
        "[[test]]",
        "[sink.copy]\nfrom = \"scored\"\nconnection = \"main\"\ntopic = \"copy\"\nvalue = { id = \"comment.id\" }\n\n[[test]]",
        1,
    );
    check(
        &text,
        &[
            (
                "social-comments",
                "comment spoken scored copy",
                "penstock.comments.table.out",
            ),
            ("penstock.comments.table.out", "table", ""),
        ],
    );
}

#[test]
fn the_forms_of_a_plan_tell_the_same() {
    let pipeline = Pipeline::parse(Path::new("p.toml"), FRAUD, None).unwrap();
    let plan = plan(&pipeline);
    let text = plan.to_text();
    for part in [
        "pipeline fraud, version 1, group penstock.fraud\n",
        "state    penstock.fraud.session.state\n",
        "alerts  exactly once: rows and offsets are one transaction",
        "cases   at least once: a lost answer is tried again",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = plan.to_json();
    assert_eq!(json["stages"][1]["nodes"], serde_json::json!(["risk", "alerts"]));
    assert_eq!(json["sinks"][1]["guarantee"], "at least once");
    let drawing = plan.to_mermaid();
    assert!(
        drawing.starts_with("flowchart LR\n  subgraph stage1 [stage 1]\n    n0([click])\n"),
        "{drawing}"
    );
    assert!(drawing.contains("|penstock.fraud.suspicious.out|"), "{drawing}");
}
