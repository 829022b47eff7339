//! The parser of crate `cel`, kept within bounds, with places of its errors.

use std::ops::Range;

use cel::IdedExpr;
use cel::common::ast::SourceInfo;
use cel::parser::Parser;

use crate::fault::Fault;
use crate::section::Placed;

/// Deepest nesting. The parser and the checks call themselves once a level.
const DEPTH_MAX: u16 = 48;

/// Fault of an expression, placed within its text.
#[derive(Debug)]
pub(super) struct Problem {
    /// Characters of the text, if they are known.
    pub(super) at: Option<usize>,
    pub(super) message: String,
}

impl Problem {
    /// The fault's place in the file. Escapes in the TOML text move it to the start of the text.
    pub(super) fn at(self, source: &Placed<String>) -> Fault {
        let Range { start, end } = source.span.clone();
        let width = end - start;
        let quotes = width.saturating_sub(source.value.len());
        let plain = quotes == 2;
        let start = match self.at {
            Some(character) if plain => {
                let bytes: usize = source.value.chars().take(character).map(char::len_utf8).sum();
                start + 1 + bytes
            }
            _ => start,
        };
        Fault::new(start..end, self.message)
    }
}

/// A parsed expression.
pub(super) struct Parsed {
    pub(super) root: IdedExpr,
    info: SourceInfo,
}

impl Parsed {
    /// Character at which a part begins.
    pub(super) fn place(&self, part: &IdedExpr) -> Option<usize> {
        self.info.offset_for(part.id).map(|(start, _)| start as usize)
    }
}

pub(super) fn parse(text: &str) -> Result<Parsed, Problem> {
    check_depth(text)?;
    let parser = Parser::new()
        .max_recursion_depth(DEPTH_MAX)
        .error_recovery_limit(1);
    match parser.parse_with_source_info(text) {
        Ok((root, info)) => Ok(Parsed { root, info }),
        Err(errors) => {
            let first = errors.errors.into_iter().next();
            let (at, message) = first.map_or((None, String::new()), |error| {
                let column = usize::try_from(error.pos.1).ok();
                let single = !text.contains('\n');
                (column.filter(|_| single), error.msg)
            });
            let message = message.lines().next().unwrap_or_default();
            Err(Problem {
                at,
                message: format!("not a CEL expression: {}", message.to_lowercase()),
            })
        }
    }
}

/// Refuses deep nesting before the parser, which is recursive, meets it.
fn check_depth(text: &str) -> Result<(), Problem> {
    let mut depth = 0_u16;
    let mut unary = 0_u16;
    for (at, c) in text.chars().enumerate() {
        match c {
            '(' | '[' | '{' | '?' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        unary = if matches!(c, '!' | '-') { unary + 1 } else { 0 };
        if depth > DEPTH_MAX || unary > DEPTH_MAX {
            return Err(Problem {
                at: Some(at),
                message: format!("expression is nested deeper than {DEPTH_MAX}"),
            });
        }
    }
    Ok(())
}
