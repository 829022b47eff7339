//! Headers with options of a record, if the route honours them: model, class, deadline.

use penstock_core::Class;

use crate::chunk::HeaderOptions;
use crate::record::Headers;
use crate::route::Honour;

/// Another configured model.
const MODEL: &str = "model";
/// `interactive` or `bulk`, or Triton's numbers.
const PRIORITY: &str = "priority";
/// Time after which the score is worthless, in milliseconds since 1970.
const DEADLINE: &str = "deadline-ms";

/// Deadlines are rounded up to a multiple of these milliseconds, so that neighbouring records share a call.
const DEADLINE_GRID_MS: i64 = 10;

/// Options of a record: the route's defaults, changed by honoured headers. The last one of duplicate headers
/// counts. The error names an invalid header.
pub fn wish(wish: &HeaderOptions, honour: Honour, headers: &Headers) -> Result<HeaderOptions, String> {
    let mut wish = wish.clone();
    for header in headers {
        let value = header.value.as_deref();
        match header.name.as_str() {
            MODEL if honour.model => wish.model = model(value)?.into(),
            PRIORITY if honour.priority => wish.class = class(value)?,
            DEADLINE if honour.deadline => wish.deadline = Some(deadline(value)?),
            _ => {}
        }
    }
    Ok(wish)
}

fn model(value: Option<&[u8]>) -> Result<&str, String> {
    text(value)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| wrong(MODEL, value, "the name of a model"))
}

fn class(value: Option<&[u8]>) -> Result<Class, String> {
    let known = text(value).and_then(|text| {
        let named = Class::ALL.into_iter().find(|class| class.name() == text);
        named.or_else(|| match text.parse::<u64>() {
            Ok(0 | 1) => Some(Class::Interactive),
            Ok(_) => Some(Class::Bulk),
            Err(_) => None,
        })
    });
    known.ok_or_else(|| {
        wrong(
            PRIORITY,
            value,
            "`interactive`, `bulk` or Triton's number: 0 and 1 are interactive, 2 and more bulk",
        )
    })
}

fn deadline(value: Option<&[u8]>) -> Result<i64, String> {
    let given = text(value).and_then(|text| text.parse::<i64>().ok());
    given
        .filter(|at| *at > 0)
        .and_then(|at| at.checked_add(DEADLINE_GRID_MS - 1))
        .map(|at| at / DEADLINE_GRID_MS * DEADLINE_GRID_MS)
        .ok_or_else(|| wrong(DEADLINE, value, "a point in time in milliseconds since 1970"))
}

fn text(value: Option<&[u8]>) -> Option<&str> {
    value.and_then(|value| std::str::from_utf8(value).ok())
}

fn wrong(header: &str, value: Option<&[u8]>, right: &str) -> String {
    let value = value.map_or_else(
        || "null".into(),
        |value| format!("`{}`", value[..value.len().min(64)].escape_ascii()),
    );
    format!("the header `{header}` is {value}; it holds {right}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Honour = Honour {
        model: true,
        priority: true,
        deadline: true,
    };

    fn route() -> HeaderOptions {
        HeaderOptions {
            model: "m".into(),
            class: Class::Bulk,
            deadline: None,
        }
    }

    fn read(honour: Honour, headers: &[(&str, &str)]) -> Result<HeaderOptions, String> {
        let mut given = Headers::default();
        for (name, value) in headers {
            given.push(*name, Some(*value));
        }
        wish(&route(), honour, &given)
    }

    #[test]
    fn headers_count_where_the_route_lets_them() {
        let headers = [
            ("model", "other"),
            ("priority", "interactive"),
            ("deadline-ms", "1764000000001"),
        ];
        let wished = HeaderOptions {
            model: "other".into(),
            class: Class::Interactive,
            deadline: Some(1_764_000_000_010),
        };
        assert_eq!(read(ALL, &headers), Ok(wished));
        assert_eq!(read(Honour::default(), &headers), Ok(route()));
        assert_eq!(wish(&route(), ALL, &Headers::default()), Ok(route()));
    }

    #[test]
    fn a_priority_is_a_name_or_tritons_number() {
        let class = |value| read(ALL, &[("priority", value)]).map(|wish| wish.class);
        assert_eq!(class("bulk"), Ok(Class::Bulk));
        assert_eq!(class("0"), Ok(Class::Interactive));
        assert_eq!(class("1"), Ok(Class::Interactive));
        assert_eq!(class("2"), Ok(Class::Bulk));
        assert!(class("urgent").is_err() && class("").is_err());
    }

    #[test]
    fn a_header_that_means_nothing_is_named_with_its_value() {
        let message = read(ALL, &[("deadline-ms", "tomorrow")]).unwrap_err();
        assert_eq!(
            message,
            "the header `deadline-ms` is `tomorrow`; it holds a point in time in milliseconds since 1970"
        );
        assert!(read(ALL, &[("deadline-ms", "-5")]).is_err());
        assert!(read(ALL, &[("deadline-ms", "9223372036854775807")]).is_err());
        assert!(read(ALL, &[("model", "")]).is_err());
        assert!(read(Honour::default(), &[("deadline-ms", "tomorrow")]).is_ok());
    }
}
