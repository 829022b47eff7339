//! Faults of a file, each with its place.

use std::path::Path;

use super::Pipeline;

/// The fraud example, which each case changes.
const FRAUD: &str = include_str!("../../../examples/fraud/pipeline.toml");
const COMMENTS: &str = include_str!("../../../examples/comments/pipeline.toml");

fn parse(text: &str, models: Option<&[String]>) -> Result<Pipeline, String> {
    Pipeline::parse(Path::new("p.toml"), text, models).map_err(|error| error.to_string())
}

/// Replaces a part of a file, and checks the error. Its place is the line and column of `at` in the new file.
fn refuses(base: &str, old: &str, new: &str, at: &str, message: &str) {
    assert!(base.contains(old), "the file has no `{old}`");
    let text = base.replacen(old, new, 1);
    let byte = text
        .find(at)
        .unwrap_or_else(|| panic!("the new file has no `{at}`"));
    let line = text[..byte].matches('\n').count() + 1;
    let column = byte - text[..byte].rfind('\n').map_or(0, |n| n + 1) + 1;
    let expected = format!("p.toml:{line}:{column}: {message}");
    assert_eq!(parse(&text, None).map(|_| ()), Err(expected), "{new}");
}

#[test]
fn names_that_are_unknown_are_named_with_the_nearest_one() {
    let f = |old, new, at, message| refuses(FRAUD, old, new, at, message);
    f(
        "replication = 1",
        "replicaton = 1",
        "replicaton",
        "unknown key `replicaton`; did you mean `replication`?",
    );
    f(
        "[step.by_user]",
        "[setp.by_user]",
        "setp",
        "unknown key `setp`; did you mean `step`?",
    );
    f(
        "from = \"by_user\"",
        "from = \"by_usr\"",
        "\"by_usr\"",
        "unknown node `by_usr`; did you mean `by_user`?",
    );
    f(
        "from = \"risk\"",
        "from = \"cases\"",
        "\"cases\"",
        "`cases` is a sink: nothing can read from it",
    );
    f(
        "gap = \"30m\"",
        "gep = \"30m\"",
        "gep",
        "`step.session.session` needs `gap`",
    );
    f(
        "\nconnection = \"main\"",
        "\nconnection = \"mian\"",
        "\"mian\"",
        "unknown connection `mian`; did you mean `main`?",
    );
    f(
        "event_time = \"timestamp\"",
        "event_time = \"time\"",
        "\"time\"",
        "unknown field `time`; known here are user_id, session_id, event_type, timestamp, item_id, price",
    );
    f(
        "late = \"dead_letter\"",
        "late = \"keep\"",
        "\"keep\"",
        "unknown `step.session.session.late` `keep`; known here are dead_letter, drop",
    );
    let message = "`step.by_user.gather` is not in this version";
    f("key = [\"click.user_id\"]", "gather = {}", "gather", message);
}

#[test]
fn values_out_of_bounds_say_the_bounds() {
    let f = |old, new, at, message| refuses(FRAUD, old, new, at, message);
    f(
        "partitions = 12",
        "partitions = 0",
        "0\nrep",
        "`partitions` is a whole number from 1 to 10000",
    );
    f(
        "gap = \"30m\"",
        "gap = \"half an hour\"",
        "\"half",
        "`step.session.session.gap` is a length of time such as 100ms, 30s or 5m",
    );
    f(
        "gap = \"30m\"",
        "gap = \"31d\"",
        "\"31d",
        "`step.session.session.gap` is `31d`, but goes from 1ms to 30days",
    );
    f(
        "name = \"fraud\"",
        "name = 7",
        "7",
        "`name` is a text in quotes, not a number",
    );
    f(
        "name = \"fraud\"",
        "name = \"a fraud\"",
        "\"a fraud",
        "`a fraud` is no name: a letter, then letters, digits, `_` and `-`, at most 64",
    );
    f(
        "price = \"double?\"",
        "price = \"number\"",
        "\"number",
        "unknown type `number`; known here are string, int, double, bool, timestamp, json; `[T]` is a list, `T?` may be absent",
    );
}

#[test]
fn expressions_are_placed_within_the_line() {
    let f = |old, new, at, message| refuses(FRAUD, old, new, at, message);
    let views = "where = \"click.event_type == 'item_view' && click.price > 500.0\"";
    f(
        views,
        "where = \"click.event_typ == 'item_view'\"",
        ".event_typ ",
        "`step.suspicious.pattern.stage.where`: unknown field `event_typ`; did you mean `event_type`?",
    );
    f(
        views,
        "where = \"click.price == 'dear'\"",
        "== 'dear'",
        "`step.suspicious.pattern.stage.where`: a double? cannot be compared with a string",
    );
    f(
        views,
        "where = \"click.price\"",
        "\"click.price\"",
        "`step.suspicious.pattern.stage.where` is a double?, but a bool is needed",
    );
    f(
        "key = [\"click.user_id\"]",
        "key = [\"click.price\"]",
        "\"click.price\"",
        "`step.by_user.key` is a double?, but string or int is needed",
    );
    f(
        "\"count()\"",
        "\"cuont()\"",
        "()\"",
        "`step.session.collect.events`: unknown function `cuont`; did you mean `count`?",
    );
    f(
        "\"count()\"",
        "\"click.price\"",
        "click.price\"\ncollect.views",
        "`step.session.collect.events`: `click` stands outside of an aggregate; write for example last(click…)",
    );
    refuses(
        COMMENTS,
        "size(comment.body) > 0",
        "count() > 0",
        "() > 0",
        "`step.spoken.filter`: `count` is an aggregate: it stands in `collect` and `fold`, and not inside of another one",
    );
}

#[test]
fn graphs_that_cannot_run_are_refused() {
    let f = |old, new, at, message| refuses(FRAUD, old, new, at, message);
    f(
        "from = \"click\"",
        "from = \"risk\"",
        "by_user]",
        "a cycle: by_user → session → suspicious → risk → by_user",
    );
    f(
        "[sink.cases]",
        "[sink.risk]",
        "risk]\nfrom = \"risk\"\nwebhook",
        "two nodes have the name `risk`: `step.risk` has it too",
    );
    f(
        "into = \"risk\"",
        "into = \"click\"",
        "\"click\" }",
        "`click` is already the name of something in these records",
    );
    f(
        "from = \"by_user\"",
        "from = \"click\"",
        "by_user]",
        "nothing reads `by_user`; a sink or a step has it in `from`",
    );
    f(
        "from = \"suspicious\"",
        "from = \"session\"",
        "\"session\"\nscore",
        "`session` emits no records; set `emit = \"close\"` there, or read it by a step with `pattern`",
    );
    f(
        "\"click.event_type == 'coupon_attempt'\"\n\n[step.risk]",
        "\"click.event_type == 'a' && click.event_type == 'b'\"\n\n[step.risk]",
        "\"click.event_type == 'a'",
        "stage `coupon` can never match: its condition is always false",
    );
    let message = "stage `views` can never match: it needs 300 events, but `kept` is 256";
    f(
        "at_least = 6",
        "at_least = 300",
        "[[step.suspicious.pattern.stage]]\nname = \"views\"",
        message,
    );
}

#[test]
fn keyed_steps_need_a_key() {
    let text = FRAUD.replacen("key = [\"click.user_id\"]", "filter = \"true\"", 1);
    let error = parse(&text, None).unwrap_err();
    assert!(
        error.ends_with("`step.session` needs a key: put a step with `key` before it"),
        "{error}"
    );
}

#[test]
fn models_are_compared_with_those_that_there_are() {
    let models = ["session-rsk".to_owned()];
    let error = parse(FRAUD, Some(&models)).unwrap_err();
    assert!(
        error.ends_with("unknown model `session-risk`; did you mean `session-rsk`?"),
        "{error}"
    );
    let models = ["session-risk".to_owned()];
    assert!(parse(FRAUD, Some(&models)).is_ok());
}

#[test]
fn tests_name_what_there_is() {
    let c = |old, new, at, message| refuses(COMMENTS, old, new, at, message);
    c(
        "input.comment",
        "input.coment",
        "coment = ",
        "unknown source `coment`; did you mean `comment`?",
    );
    c(
        "expect.table",
        "expect.tabel",
        "tabel",
        "unknown sink `tabel`; did you mean `table`?",
    );
    c(
        "model.sentiment = {",
        "model.sentimnt = {",
        "sentimnt = ",
        "unknown model `sentimnt`; did you mean `sentiment`?",
    );
    c(
        "label = \"POSITIVE\", created",
        "lable = \"POSITIVE\", created",
        "{ id = \"1\", lable",
        "unknown column `lable`; did you mean `label`?",
    );
    c(
        "reason = \"future\"",
        "reason = \"futur\"",
        "{ reason = \"futur\"",
        "unknown reason `futur`; did you mean `future`?",
    );
}

#[test]
fn any_fields_are_known_while_running_alone() {
    let text = COMMENTS
        .replacen("[source.comment.fields]\nid = \"string\"\nauthor = \"string\"\nlang = \"string?\"\nbody = \"string\"\ncreated_at = \"timestamp\"\n", "fields = \"any\"\n", 1);
    let message = "`event_time` needs a declared field; with `fields = \"any\"` it is the record's timestamp";
    let error = parse(&text, None).unwrap_err();
    assert!(error.ends_with(message), "{error}");
    let pipeline = parse(&text.replacen("event_time = \"created_at\"\n", "", 1), None);
    assert!(pipeline.is_ok(), "{pipeline:?}");
}
