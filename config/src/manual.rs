//! The tables of docs/configuration.md, made from the rows.

use super::sections::{RawBatching, RawLimits, RawServer};
use super::table::{Flags, Row};

const HEAD: &str = "| key | environment | flag | default | meaning |\n| --- | --- | --- | --- | --- |\n";

/// Each section with its table in Markdown.
pub fn manual() -> Vec<(&'static str, String)> {
    [RawServer::rows(), RawLimits::rows(), RawBatching::rows()]
        .into_iter()
        .filter_map(|rows| Some((rows.first()?.section, table(rows))))
        .collect()
}

fn table(rows: &[Row]) -> String {
    rows.iter()
        .fold(HEAD.to_owned(), |table, row| table + &row.manual() + "\n")
}
