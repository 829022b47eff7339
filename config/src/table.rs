//! The table of settings. A section is a list of rows; a row is one key with its type, default, bound and text.
//! The parser, the flags and variables, the checks, the output of `penstock check` and the manual follow from it.

use clap::{Arg, ArgMatches, Command};

use super::kinds::Kind;

/// One key, as `--help`, the manual and the tests need it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    /// Name of the flag without its dashes, for a section that has flags.
    pub(super) flag: String,
    pub(super) variable: String,
    pub(super) default: Unset,
    pub(super) most: Option<usize>,
    pub(super) text: &'static str,
    /// Further sentences of the manual.
    pub(super) more: Option<&'static str>,
}

/// Value of a key that is not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unset {
    /// This value.
    Value(String),
    /// A value that depends on the machine, the model or another key, in words.
    Depends(&'static str),
}

impl Row {
    pub(super) fn new(
        section: &'static str,
        prefix: &str,
        key: &'static str,
        [text, more]: [Option<&'static str>; 2],
        default: Unset,
        most: Option<usize>,
    ) -> Row {
        let name = format!("{prefix}{key}");
        Row {
            section,
            key,
            flag: name.replace('_', "-"),
            variable: format!("PENSTOCK_{}", name.to_uppercase()),
            default,
            most,
            text: text.unwrap_or_default(),
            more,
        }
    }

    /// The flag, with the variable it may come from.
    pub(super) fn arg<K: Kind>(&'static self) -> Arg {
        let default = match &self.default {
            Unset::Value(value) => value,
            Unset::Depends(words) => *words,
        };
        let arg = Arg::new(self.flag.as_str())
            .long(self.flag.as_str())
            .env(self.variable.as_str())
            .value_name(K::PLACEHOLDER)
            .value_parser(K::parser())
            .help(format!("{} [default: {default}]", self.text));
        K::flag(arg)
    }

    /// The value that the flag or the variable gave, if the command has the flag.
    pub(super) fn given<K: Kind>(&self, matches: &ArgMatches) -> Option<K> {
        matches.try_get_one::<K>(&self.flag).ok().flatten().cloned()
    }

    /// The row of the manual's table.
    pub(super) fn manual(&self) -> String {
        let Row {
            key,
            variable,
            flag,
            text,
            ..
        } = self;
        let default = match &self.default {
            Unset::Value(value) => format!("`{value}`"),
            Unset::Depends(words) => (*words).to_owned(),
        };
        let more = self.more.map_or(String::new(), |more| format!(". {more}"));
        format!("| `{key}` | `{variable}` | `--{flag}` | {default} | {text}{more} |")
    }
}

/// A value beyond its bound: the key, and the reason.
pub(super) type Beyond = (&'static str, String);

pub(super) fn at_most<K: Kind>(value: &K, row: &'static Row) -> Result<(), Beyond> {
    match (value.number(), row.most) {
        (Some(number), Some(most)) if number > most => {
            let key = row.key;
            Err((key, format!("{key} is {number}; {most} is the most")))
        }
        _ => Ok(()),
    }
}

/// A section whose keys are flags as well.
pub(super) trait Flags: Sized {
    fn rows() -> &'static [Row];

    /// Adds the flags whose keys are `wanted`.
    fn add(command: Command, wanted: impl Fn(&str) -> bool) -> Command;

    fn take(matches: &ArgMatches) -> Self;
}

/// Declares the raw section: the struct that serde reads, its rows, the checks of single values, and how the
/// checked section is made of it and shown.
macro_rules! section {
    (
        $(#[$about:meta])* $checked:ident, $raw:ident $section:literal $heading:literal $prefix:literal;
        { $($key:ident: $type:ty as $kind:ident [$($default:tt)*] $([..= $most:expr])? $text:literal $($more:literal)?;)* }
        { $($(#[$doc:meta])* $beside:ident: $beside_type:ty;)* }
    ) => {
        /// The section as it is written; `None` is a key that is not set.
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $raw {
            $(pub(super) $key: Option<$crate::kinds::$kind>,)*
        }

        impl $raw {
            /// This layer over the one below.
            pub(super) fn over(self, below: $raw) -> $raw {
                $raw { $($key: self.$key.or(below.$key),)* }
            }

            /// The checked section, with its defaults. `cpus` is the base of some.
            #[allow(unused_variables, reason = "not every section has defaults that depend on the CPUs")]
            pub(super) fn resolve(
                self,
                cpus: usize,
                $($beside: $beside_type,)*
            ) -> Result<$checked, $crate::table::Beyond> {
                let mut rows = <$raw as $crate::table::Flags>::rows().iter();
                $(if let (Some(row), Some(value)) = (rows.next(), &self.$key) {
                    $crate::table::at_most(value, row)?;
                })*
                Ok($checked {
                    $($key: section!(@resolve [$($default)*] self.$key, $kind, cpus),)*
                    $($beside,)*
                })
            }

            /// Keys and values as TOML.
            pub(super) fn shown(checked: &$checked) -> Vec<(&'static str, String)> {
                let mut shown = Vec::new();
                $(section!(@show [$($default)*] shown, checked.$key, $key, $kind);)*
                shown
            }
        }

        impl $crate::table::Flags for $raw {
            fn rows() -> &'static [$crate::table::Row] {
                static ROWS: std::sync::LazyLock<Vec<$crate::table::Row>> = std::sync::LazyLock::new(|| vec![
                    $($crate::table::Row::new(
                        $section,
                        $prefix,
                        stringify!($key),
                        [Some($text), section!(@first $($more)?)],
                        section!(@unset [$($default)*] $kind),
                        section!(@first $($most)?),
                    ),)*
                ]);
                &ROWS
            }

            fn add(command: clap::Command, wanted: impl Fn(&str) -> bool) -> clap::Command {
                let mut rows = Self::rows().iter();
                $(let command = match rows.next() {
                    Some(row) if wanted(row.key) => command.arg(row.arg::<$crate::kinds::$kind>()),
                    _ => command,
                };)*
                command
            }

            fn take(matches: &clap::ArgMatches) -> $raw {
                let mut rows = Self::rows().iter();
                $raw { $($key: rows.next().and_then(|row| row.given(matches)),)* }
            }
        }

        impl clap::FromArgMatches for $raw {
            fn from_arg_matches(matches: &clap::ArgMatches) -> Result<$raw, clap::Error> {
                Ok($crate::table::Flags::take(matches))
            }

            fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
                let flags: $raw = $crate::table::Flags::take(matches);
                *self = flags.over(std::mem::take(self));
                Ok(())
            }
        }

        impl clap::Args for $raw {
            fn augment_args(command: clap::Command) -> clap::Command {
                <$raw as $crate::table::Flags>::add(command.next_help_heading($heading), |_| true)
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                <$raw as clap::Args>::augment_args(command)
            }
        }
    };
    (@first) => { None };
    (@first $value:expr) => { Some($value) };
    (@resolve [= $value:expr] $raw:expr, $kind:ident, $cpus:ident) => {
        $raw.map_or_else(|| $value, $crate::kinds::Kind::checked)
    };
    (@resolve [none $text:literal] $raw:expr, $kind:ident, $cpus:ident) => {
        $raw.map($crate::kinds::Kind::checked)
    };
    (@resolve [cpus $default:expr, $text:literal] $raw:expr, $kind:ident, $cpus:ident) => {
        $raw.map_or_else(|| ($default)($cpus), $crate::kinds::Kind::checked)
    };
    (@unset [= $value:expr] $kind:ident) => {
        $crate::table::Unset::Value(<$crate::kinds::$kind as $crate::kinds::Kind>::text(&$value))
    };
    (@unset [none $text:literal] $kind:ident) => { $crate::table::Unset::Depends($text) };
    (@unset [cpus $default:expr, $text:literal] $kind:ident) => { $crate::table::Unset::Depends($text) };
    (@show [none $text:literal] $shown:ident, $value:expr, $key:ident, $kind:ident) => {
        if let Some(value) = &$value {
            $shown.push((stringify!($key), <$crate::kinds::$kind as $crate::kinds::Kind>::toml(value)));
        }
    };
    (@show [$($default:tt)*] $shown:ident, $value:expr, $key:ident, $kind:ident) => {
        $shown.push((stringify!($key), <$crate::kinds::$kind as $crate::kinds::Kind>::toml(&$value)));
    };
}
pub(super) use section;
