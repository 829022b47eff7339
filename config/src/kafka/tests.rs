//! Tests of routes: settings, defaults and error messages.

mod relations;

use std::io::Write;
use std::time::Duration;

use super::*;
use crate::tests::{read, refused};

const MODEL: &str = "[[model]]\nname = \"sentiment\"\npath = \"models/sentiment\"\n";

/// The shortest valid route; the table begins in line 4.
const ROUTE: &str = r#"[[kafka]]
name = "reviews"
brokers = "127.0.0.1:9092"
group = "penstock-reviews"
input = ["reviews"]
output = "reviews-scored"
dead_letter = "reviews-dead"
model = "sentiment"
"#;

fn with(more: &str) -> String {
    format!("{MODEL}{ROUTE}{more}")
}

/// The route with one of its lines replaced.
fn replaced(key: &str, line: &str) -> String {
    let lines = with("");
    let lines = lines.lines().enumerate();
    let lines = lines.map(|(number, old)| {
        let own = number >= 3 && old.starts_with(&format!("{key} "));
        if own { line } else { old }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn route(text: &str) -> KafkaRoute {
    read(text, &[]).unwrap().kafka.remove(0)
}

/// `message` without the file's name.
fn wrong(text: &str, message: &str) {
    refused(text, &[], &format!("penstock.toml:{message}"));
}

const FULL: &str = r#"
version = "3"
field = "review.text"
delivery = "at-least-once"
class = "interactive"
consumers = 2
commit_interval = "50ms"
commit_interval_max = "250ms"
commit_records_max = 500
in_flight_records_max = 1000
in_flight_bytes_max = "8MiB"
partition_in_flight_records_max = 100
partition_in_flight_bytes_max = "3MiB"
record_bytes_max = "2MiB"
revoke_timeout = "2s"
transaction_timeout = "20s"
honour = ["model", "deadline"]
truncate = false
topics_max = 7

[kafka.client]
"client.id" = "penstock"
session.timeout.ms = 30000
sasl.mechanisms = "PLAIN"
"socket.keepalive.enable" = true
"#;

#[test]
fn every_setting_of_a_route_arrives() {
    let route = route(&with(FULL));
    assert_eq!(route.input, KafkaInput::Topics(vec!["reviews".to_owned()]));
    assert_eq!(
        (route.output.as_str(), route.dead_letter.as_str()),
        ("reviews-scored", "reviews-dead")
    );
    assert_eq!((route.model.as_str(), route.version.as_str()), ("sentiment", "3"));
    assert_eq!(route.field.as_deref(), Some("review.text"));
    assert_eq!(
        (route.delivery, route.class),
        (Delivery::AtLeastOnce, Class::Interactive)
    );
    assert_eq!((route.consumers, route.commit_records_max), (2, 500));
    assert_eq!(
        (route.in_flight_records_max, route.partition_in_flight_records_max),
        (1000, 100)
    );
    assert_eq!(
        (
            route.in_flight_bytes_max,
            route.partition_in_flight_bytes_max,
            route.record_bytes_max
        ),
        (8 << 20, 3 << 20, 2 << 20)
    );
    assert_eq!(
        (route.commit_interval, route.commit_interval_max),
        (Duration::from_millis(50), Duration::from_millis(250))
    );
    assert_eq!(
        (route.revoke_timeout, route.transaction_timeout),
        (Duration::from_secs(2), Duration::from_secs(20))
    );
    let honour = Honour {
        model: true,
        priority: false,
        deadline: true,
    };
    assert_eq!(
        (route.honour, route.truncate, route.topics_max),
        (honour, false, 7)
    );
    let client: Vec<_> = route
        .client
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose().as_str()))
        .collect();
    let expected = [
        ("client.id", "penstock"),
        ("sasl.mechanisms", "PLAIN"),
        ("session.timeout.ms", "30000"),
        ("socket.keepalive.enable", "true"),
    ];
    assert_eq!(client, expected);
}

#[test]
fn the_default_is_exactly_once_in_bulk() {
    let route = route(&with(""));
    assert_eq!(
        (route.delivery, route.class),
        (Delivery::ExactlyOnce, Class::Bulk)
    );
    assert_eq!((route.consumers, route.version.as_str()), (1, ""));
    assert_eq!(
        (
            route.commit_interval,
            route.commit_interval_max,
            route.revoke_timeout
        ),
        (
            Duration::from_millis(100),
            Duration::from_millis(500),
            Duration::from_millis(1500)
        )
    );
    assert_eq!(
        (route.in_flight_records_max, route.partition_in_flight_records_max),
        (8192, 2048)
    );
    assert_eq!(
        (route.in_flight_bytes_max, route.partition_in_flight_bytes_max),
        (64 << 20, 16 << 20)
    );
    assert_eq!(route.honour, Honour::default());
    assert!(route.truncate && route.client.is_empty());
    // The name is constant within a process and differs between processes.
    assert_eq!(route.instance, super::tests::route(&with("")).instance);
    assert_eq!((route.instance.len(), route.instance_given), (16, false));
}

#[test]
fn a_table_of_the_client_belongs_to_the_route_above_it() {
    let second = ROUTE
        .replace("\"reviews", "\"films")
        .replace("penstock-reviews", "penstock-films");
    let text = with(&format!("[kafka.client]\n\"client.id\" = \"one\"\n{second}"));
    let routes = read(&text, &[]).unwrap().kafka;
    assert_eq!(routes.iter().map(|r| r.client.len()).collect::<Vec<_>>(), [1, 0]);
    let inline = route(&with("client = { \"client.id\" = \"one\", linger.ms = 5 }"));
    assert_eq!(inline.client["linger.ms"].expose(), "5");
}

#[test]
fn an_instance_is_one_name_for_all_routes() {
    let text = format!("[server]\ninstance = \"penstock-0\"\n{}", with(""));
    let given = route(&text);
    assert_eq!(
        (given.instance.as_str(), given.instance_given),
        ("penstock-0", true)
    );
    let flag = read(&text, &["--instance", "penstock-1"]).unwrap();
    assert_eq!(flag.kafka[0].instance, "penstock-1");
    wrong(
        "[server]\ninstance = \"a b\"",
        "2:12: instance name `a b` holds ' '; letters, digits, `-`, `_` and `.` are allowed",
    );
}

#[test]
fn shown_settings_give_the_same_routes() {
    for text in [
        with(""),
        with(FULL),
        replaced("input", "input_pattern = \"^reviews$\""),
    ] {
        let config = read(&text, &[]).unwrap();
        let again = read(&config.to_toml(), &[]).unwrap();
        assert_eq!(again.kafka, config.kafka, "{}", config.to_toml());
    }
}

#[test]
fn a_secret_is_read_and_never_shown() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "from-a-file").unwrap();
    let path = file.path().display();
    let text = with(&format!(
        "client_files.\"ssl.key.password\" = \"{path}\"\nclient_env = {{ sasl.password = \"CARGO_PKG_NAME\" }}\n\
         [kafka.client]\n\"sasl.username\" = \"ann\"\n\"sasl.oauthbearer.client.secret\" = \"in-the-file\"\n"
    ));
    let config = read(&text, &[]).unwrap();
    let route = &config.kafka[0];
    assert_eq!(route.client["ssl.key.password"].expose(), "from-a-file");
    assert_eq!(route.client["sasl.password"].expose(), env!("CARGO_PKG_NAME"));
    let (shown, debugged) = (config.to_toml(), format!("{config:?}"));
    for secret in ["from-a-file", "in-the-file"] {
        assert!(!shown.contains(secret) && !debugged.contains(secret), "{shown}");
    }
    let lines = [
        "\"sasl.oauthbearer.client.secret\" = \"***\"",
        "\"sasl.username\" = \"ann\"",
        "\"sasl.password\" = \"CARGO_PKG_NAME\"",
        &format!("\"ssl.key.password\" = \"{path}\""),
    ];
    for line in lines {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} is not in {shown}"
        );
    }
    assert_eq!(format!("{}", route.client["sasl.username"]), "***");
}

#[test]
fn properties_that_settings_decide_are_refused() {
    for (property, instead) in [
        (
            "enable.auto.commit",
            "offsets are committed with the outputs; use `delivery` and `commit_interval`",
        ),
        ("bootstrap.servers", "use `brokers`"),
        ("group.id", "use `group`"),
        ("transactional.id", "use `instance` under [server]"),
        (
            "enable.idempotence",
            "the producer is always idempotent; use `delivery`",
        ),
    ] {
        let text = with(&format!("[kafka.client]\n\"{property}\" = \"x\""));
        wrong(
            &text,
            &format!(
                "13:{}: `{property}` is not for the client: {instead}",
                property.len() + 6
            ),
        );
    }
    let nested = with("client = { enable.auto.commit = true }");
    wrong(
        &nested,
        "12:33: `enable.auto.commit` is not for the client: offsets are committed with the outputs; \
         use `delivery` and `commit_interval`",
    );
}

#[test]
fn an_invalid_property_is_reported_without_its_value() {
    wrong(
        &with("client = \"sasl.password=hunter2\""),
        "12:10: a table of properties is expected here, such as { \"client.id\" = \"reviews\" }",
    );
    wrong(
        &with("client = { \"sasl.password\" = [\"hunter2\"] }"),
        "12:30: `sasl.password` is an array; a property is a string, a number or a bool",
    );
    wrong(
        &with("client_files = { \"sasl.password\" = \"/does/not/exist\" }"),
        "12:36: `sasl.password`: /does/not/exist: No such file or directory (os error 2)",
    );
    wrong(
        &with("client_env = { \"sasl.password\" = \"PENSTOCK_NOT_SET\" }"),
        "12:34: `sasl.password`: the environment variable PENSTOCK_NOT_SET is not set, or no text",
    );
    wrong(
        &with("client = { a.b = 1 }\nclient_env = { \"a.b\" = \"PATH\" }"),
        "13:24: `a.b` is set twice in this route",
    );
}

#[test]
fn secrets_are_told_by_their_names() {
    for name in [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
    ] {
        assert!(client::is_secret(name), "{name}");
    }
    for name in [
        "sasl.username",
        "ssl.ca.location",
        "ssl.key.location",
        "sasl.oauthbearer.token.endpoint.url",
        "client.id",
    ] {
        assert!(!client::is_secret(name), "{name}");
    }
}

#[test]
fn unknown_keys_get_a_suggestion() {
    wrong(
        &with("dead_leter = \"x\""),
        "12:1: unknown key `dead_leter`; did you mean `dead_letter`?",
    );
    wrong(&replaced("brokers", ""), "4:1: missing field `brokers`");
    wrong(
        &with("delivery = \"at-most-once\""),
        "12:12: unknown delivery `at-most-once`; known are exactly-once, at-least-once",
    );
    wrong(
        &with("class = \"batch\""),
        "12:9: unknown class `batch`; known are interactive, bulk",
    );
    wrong(
        &with("honour = [\"model\", \"colour\"]"),
        "12:10: unknown header to honour `colour`; known are model, priority, deadline",
    );
}

#[test]
fn topics_are_valid_and_never_the_routes_own() {
    for (key, line, message) in [
        ("input", "input = []", "8:9: the list of input topics is empty"),
        (
            "input",
            "input = [\"a\", \"a\"]",
            "8:9: the topic `a` stands twice in the input",
        ),
        (
            "input",
            "input = [\"^a\"]",
            "8:9: `^a` is a pattern, not a topic; use input_pattern",
        ),
        (
            "input",
            "",
            "4:1: a route without input reads nothing; give input = [\"TOPIC\"] or input_pattern = \"^…\"",
        ),
        (
            "output",
            "output = \"a b\"",
            "9:10: topic `a b` holds ' '; letters, digits, `-`, `_` and `.` are allowed",
        ),
        ("output", "output = \"..\"", "9:10: `..` cannot be a topic"),
        (
            "output",
            "output = \"reviews\"",
            "9:10: route `reviews` would read its own output `reviews`",
        ),
        (
            "dead_letter",
            "dead_letter = \"reviews\"",
            "10:15: route `reviews` would read its own dead_letter `reviews`",
        ),
        (
            "dead_letter",
            "dead_letter = \"reviews-scored\"",
            "10:15: output and dead_letter are both `reviews-scored`; scores and failures need a topic each",
        ),
        (
            "input",
            "input_pattern = \"^reviews-s.*\"",
            "9:10: route `reviews` would read its own output `reviews-scored`",
        ),
        (
            "input",
            "input_pattern = \"reviews\"",
            "8:17: the pattern `reviews` does not begin with `^`, by which Kafka's clients tell a pattern from a topic",
        ),
        (
            "input",
            "input_pattern = \"^a(\"",
            "8:17: the pattern `^a(` is no regular expression: unclosed group",
        ),
        (
            "model",
            "model = \"sentimant\"",
            "11:9: route `reviews` asks for the model `sentimant`; configured: sentiment",
        ),
        (
            "name",
            "name = \"\"",
            "5:8: the name of a route has 1 to 128 characters, this one has 0",
        ),
    ] {
        wrong(&replaced(key, line), message);
    }
}

#[test]
fn input_version_and_field_say_what_they_are() {
    wrong(
        &replaced("group", "group = \" \""),
        "7:9: `group` of route `reviews` is empty",
    );
    wrong(
        &with("input_pattern = \"^a\""),
        "12:17: input and input_pattern exclude each other; give one of them",
    );
    wrong(
        &with("version = \"0\""),
        "12:11: version `0` is no number from 1 on; leave it out for the newest",
    );
    wrong(
        &with("field = \"\""),
        "12:9: an empty field names nothing; leave `field` out where the value itself is the text",
    );
    assert_eq!(route(&with("version = \"latest\"")).version, "");
}

#[test]
fn routes_keep_apart() {
    let second = |name: &str, group: &str, input: &str, output: &str| {
        let text = ROUTE.replace("\"reviews\"\nbrokers", &format!("\"{name}\"\nbrokers"));
        let text = text.replace("penstock-reviews", group);
        let text = text.replace("reviews-scored", output);
        let text = text.replace("reviews-dead", "second-dead");
        with(&text.replace("[\"reviews\"]", &format!("[\"{input}\"]")))
    };
    wrong(
        &second("reviews", "g", "a", "b"),
        "13:8: two routes are named `reviews`",
    );
    wrong(
        &second("second", "penstock-reviews", "a", "b"),
        "15:9: the routes `reviews` and `second` share the group `penstock-reviews`: each would get a part of the \
         other's partitions",
    );
    // `penstock-reviews` and `reviews` make the same id as `penstock` and `reviews-reviews`.
    wrong(
        &second("reviews-reviews", "penstock", "a", "b"),
        "13:8: the routes `reviews` and `reviews-reviews` would both write as `penstock-reviews-reviews` and fence \
         each other; rename one or its group",
    );
    // A chain of routes is a pipeline; a circle would never end.
    assert!(read(&second("second", "g", "reviews-scored", "b"), &[]).is_ok());
    wrong(
        &second("second", "g", "reviews-dead", "reviews"),
        "9:10: the routes reviews, second pass records round in a circle",
    );
    // A topic of the same name in another cluster is another topic.
    let elsewhere =
        second("second", "g", "reviews-dead", "reviews").replacen("127.0.0.1:9092", "other:9092", 1);
    assert!(read(&elsewhere, &[]).is_ok());
}
