//! Expressions: their types, their values, and the interpreter of crate `cel` as oracle.

use std::borrow::Cow;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Env, Expression, Value};
use crate::section::Placed;
use crate::types::{Field, Kind, Scope, Type};

fn scope() -> Scope {
    let field = |name: &str, of: &str| Field {
        name: name.to_owned(),
        of: Type::parse(of).unwrap(),
    };
    let fields = [
        field("i", "int"),
        field("j", "int"),
        field("d", "double"),
        field("s", "string"),
        field("b", "bool"),
        field("n", "int?"),
        field("t", "timestamp"),
        field("l", "[int]"),
        field("json", "json?"),
    ];
    Scope::default()
        .with("r", Kind::Record(fields.into()).needed())
        .unwrap()
}

fn row() -> Vec<Value> {
    let list: Vec<Value> = [1, 2, 3].map(Value::Int).into();
    let json = serde_json::json!({"a": {"b": 5}, "list": [1, "x"]});
    let fields = [
        Value::Int(6),
        Value::Int(0),
        Value::Double(1.5),
        Value::String("Some Text".into()),
        Value::Bool(true),
        Value::Null,
        Value::Timestamp(1_000),
        Value::List(list.into()),
        Value::from_json(&json),
    ];
    vec![Value::Record(fields.into())]
}

fn build(text: &str) -> Result<Expression, String> {
    let source = Placed {
        span: 0..text.len() + 2,
        value: text.to_owned(),
    };
    Expression::check("x", &source, &scope()).map_err(|fault| fault.message)
}

fn check(text: &str, expected: Result<Value, &str>) {
    let expression = build(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let row = row();
    let found = expression.value(Env::row(&row)).map(Cow::into_owned);
    let found = found.as_ref().map_err(|error| error.message.as_str());
    assert_eq!(found, expected.as_ref().map_err(|e| *e), "{text}");
}

fn refused(text: &str, part: &str) {
    let error = build(text).map(|e| e.of.to_string()).unwrap_err();
    assert!(error.contains(part), "{text}: {error}");
}

#[test]
fn values_follow_cel() {
    for (text, holds) in [
        ("r.i > 5 && r.s != ''", true),
        ("r.i < r.d", false),
        ("r.i in [1, 6]", true),
        (
            "r.s.startsWith('Some') && r.s.endsWith('Text') && r.s.contains(' ')",
            true,
        ),
        ("r.s.matches('^[A-Z].*t$')", true),
        ("r.s.lower() == 'some text'", true),
        ("size(r.s) == 9 && size(r.l) == 3", true),
        ("r.l.exists(x, x == 2) && !r.l.all(x, x == 2)", true),
        ("r.l.exists(x, r.l.exists(y, x + y == 5))", true),
        ("r.json.a.b == 5 && has(r.json.a) && !has(r.json.c)", true),
        ("r.json.list.exists(x, x == 'x')", true),
        ("(r.b ? r.i : r.j) == 6", true),
        ("r.i / 4 == 1 && r.i % 4 == 2 && -r.i == -6", true),
        ("r.s + '!' == 'Some Text!'", true),
        ("r.t - r.t < r.t - r.t", false),
    ] {
        check(text, Ok(Value::Bool(holds)));
    }
}

#[test]
fn absent_values_stay_absent_and_meet_no_condition() {
    check("r.n + 1", Ok(Value::Null));
    for (text, holds) in [
        ("r.n > 0", false),
        ("r.n <= 0", false),
        ("r.n == null", true),
        ("r.n in [1]", false),
        ("has(r.n)", false),
        ("!(r.n > 0)", true),
        ("r.json.x.y == 1", false),
    ] {
        check(text, Ok(Value::Bool(holds)));
    }
}

#[test]
fn errors_name_the_reason_and_one_side_may_settle_a_condition() {
    check("r.i / r.j", Err("6 is divided by zero"));
    check(
        "9223372036854775807 + r.i",
        Err("the result leaves the range of whole numbers"),
    );
    check("r.json.a + 1", Err("a object and a int cannot be computed with"));
    check("r.i / r.j == 1 || r.b", Ok(Value::Bool(true)));
    check("r.i / r.j == 1 && r.b", Err("6 is divided by zero"));
    check("false && r.i / r.j == 1", Ok(Value::Bool(false)));
}

#[test]
fn types_are_checked_when_the_file_is_read() {
    refused("r.s > 1", "a string cannot be compared with a int");
    refused("r.s + 1", "`+` does not take a string and a int");
    refused("r.n && true", "a bool is needed here, not a int?");
    refused("r.x", "unknown field `x`");
    refused("q.i", "unknown name `q`");
    refused("r.i.j", "a int has no field `j`");
    refused("r.i in r.s", "cannot be `in`");
    refused("r.s.matches('(')", "`(` is no regular expression");
    refused("r.s.matches(r.s)", "written in the file");
    refused("r.l.map(x, x + 1)", "only `exists` and `all`");
    refused("{'a': 1}", "maps and messages are not supported");
    refused("1u + 2u", "unsigned numbers");
    refused("[1, 'a']", "list of int also has a string");
    refused("count()", "is an aggregate");
    refused("r.i >", "not a CEL expression");
    refused("now()", "unknown function `now`");
}

#[test]
fn costs_are_bounded() {
    refused("r.l.all(x, r.l.all(y, x == y))", "expression may take");
    refused(&"(".repeat(200), "nested deeper");
    refused(&"!".repeat(2_000), "nested deeper");
    refused(&vec!["1"; 1_500].join("+"), "levels");
    refused(&format!("'{}' == r.s", "x".repeat(5_000)), "longer than");
}

/// A random expression over whole numbers, doubles and texts, as CEL spells it.
fn condition() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        Just("i".to_owned()),
        Just("j".to_owned()),
        (-9_i64..9).prop_map(|n| n.to_string()),
        Just("9223372036854775807".to_owned()),
    ];
    let number = number.prop_recursive(3, 12, 2, |inner| {
        (inner.clone(), inner, prop_oneof!["\\+", "-", "\\*", "/", "%"])
            .prop_map(|(a, b, op)| format!("({a} {} {b})", op.trim_start_matches('\\')))
    });
    let text = prop_oneof![Just("s".to_owned()), "[a-c]{0,2}".prop_map(|t| format!("'{t}'"))];
    let compare = prop_oneof![
        Just("=="),
        Just("!="),
        Just("<"),
        Just("<="),
        Just(">"),
        Just(">=")
    ];
    let leaf = prop_oneof![
        (number.clone(), number.clone(), compare.clone()).prop_map(|(a, b, op)| format!("{a} {op} {b}")),
        (text.clone(), text.clone(), compare).prop_map(|(a, b, op)| format!("{a} {op} {b}")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a}.startsWith({b})")),
        (text.clone(), text).prop_map(|(a, b)| format!("{a}.contains({b})")),
        number.clone().prop_map(|n| format!("{n} in [1, 2, i]")),
        number.prop_map(|n| format!("[1, 2, j].exists(x, x == {n})")),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_interpreter_of_cel_agrees(text in condition(), i in -9_i64..9, j in -9_i64..9, s in "[a-c]{0,3}") {
        let scope = Scope::default()
            .with("i", Kind::Int.needed()).unwrap()
            .with("j", Kind::Int.needed()).unwrap()
            .with("s", Kind::String.needed()).unwrap();
        let source = Placed { span: 0..text.len() + 2, value: text.clone() };
        let ours = Expression::check("x", &source, &scope).unwrap();
        let row = [Value::Int(i), Value::Int(j), Value::String(Arc::from(s.as_str()))];
        let found = ours.holds(Env::row(&row)).ok();

        let mut context = cel::Context::default();
        context.add_variable_from_value("i", i);
        context.add_variable_from_value("j", j);
        context.add_variable_from_value("s", s);
        let program = cel::Program::compile(&text).unwrap();
        let expected = match program.execute(&context) {
            Ok(cel::Value::Bool(b)) => Some(b),
            Ok(other) => panic!("{text}: {other:?}"),
            Err(_) => None,
        };
        prop_assert_eq!(found, expected, "{}", text);
    }
}
