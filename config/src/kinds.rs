//! Kinds of values: how each is read from a file, from a flag or a variable, and shown again.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use clap::Arg;
use clap::builder::ValueParser;
use penstock_engine::placement::choice::{DeviceChoice, DtypeChoice};
use penstock_telemetry::logging::LogFormat;

use super::control::ModelControl;
use super::show::quoted;
pub(super) use super::values::{Address, Size, Time};

/// A kind of value. The type itself is the raw value.
pub(super) trait Kind: Clone + Send + Sync + 'static {
    /// The checked value.
    type Checked;
    /// Placeholder of the value in `--help`.
    const PLACEHOLDER: &'static str;
    /// Whether the value is a string in TOML.
    const QUOTED: bool = true;

    /// Parser of the flag and of the variable.
    fn parser() -> ValueParser;

    fn checked(self) -> Self::Checked;

    /// The value as a flag takes it.
    fn text(checked: &Self::Checked) -> String;

    /// The number that an upper bound limits.
    fn number(&self) -> Option<usize> {
        None
    }

    /// Further properties of the flag.
    fn flag(arg: Arg) -> Arg {
        arg
    }

    /// The value in TOML.
    fn toml(checked: &Self::Checked) -> String {
        let text = Self::text(checked);
        if Self::QUOTED { quoted(text) } else { text }
    }
}

fn parser<T>() -> ValueParser
where
    T: FromStr<Err: Into<Box<dyn Error + Send + Sync>>> + Clone + Send + Sync + 'static,
{
    ValueParser::new(|text: &str| text.parse::<T>())
}

/// Declares kinds whose raw value holds the checked one.
macro_rules! kinds {
    ($($kind:ty => $checked:ty, $placeholder:literal, |$raw:ident| $from:expr, |$shown:ident| $text:expr;)+) => { $(
        impl Kind for $kind {
            type Checked = $checked;
            const PLACEHOLDER: &'static str = $placeholder;
            fn parser() -> ValueParser {
                parser::<$kind>()
            }
            fn checked(self) -> $checked {
                let $raw = self;
                $from
            }
            fn text($shown: &$checked) -> String {
                $text.to_string()
            }
        }
    )+ };
}

kinds! {
    Control => ModelControl, "off|on", |raw| raw, |control| control;
    Address => SocketAddr, "ADDR:PORT", |raw| raw.0, |addr| addr;
    Device => DeviceChoice, "DEVICE", |raw| raw, |device| device;
    Dtype => DtypeChoice, "DTYPE", |raw| raw, |dtype| dtype;
    Format => LogFormat, "FORMAT", |raw| raw, |format| format;
    Size => usize, "SIZE", |raw| raw.0, |bytes| Size(*bytes);
    Time => Duration, "TIME", |raw| raw.0, |time| Time(*time);
    Text => String, "TEXT", |raw| raw, |text| text;
}

pub(super) type Control = ModelControl;
pub(super) type Device = DeviceChoice;
pub(super) type Dtype = DtypeChoice;
pub(super) type Format = LogFormat;
pub(super) type Text = String;
/// A number of at least one.
pub(super) type Count = NonZeroUsize;
/// A number that may be zero.
pub(super) type Number = usize;
pub(super) type Switch = bool;

impl Kind for Count {
    type Checked = usize;
    const PLACEHOLDER: &'static str = "N";
    const QUOTED: bool = false;

    fn parser() -> ValueParser {
        parser::<Count>()
    }

    fn checked(self) -> usize {
        self.get()
    }

    fn text(checked: &usize) -> String {
        checked.to_string()
    }

    fn number(&self) -> Option<usize> {
        Some(self.get())
    }
}

impl Kind for Number {
    type Checked = usize;
    const PLACEHOLDER: &'static str = "N";
    const QUOTED: bool = false;

    fn parser() -> ValueParser {
        parser::<Number>()
    }

    fn checked(self) -> usize {
        self
    }

    fn text(checked: &usize) -> String {
        checked.to_string()
    }

    fn number(&self) -> Option<usize> {
        Some(*self)
    }
}

impl Kind for Switch {
    type Checked = bool;
    const PLACEHOLDER: &'static str = "BOOL";
    const QUOTED: bool = false;

    fn parser() -> ValueParser {
        ValueParser::bool()
    }

    fn checked(self) -> bool {
        self
    }

    fn text(checked: &bool) -> String {
        checked.to_string()
    }

    /// The flag alone turns it on.
    fn flag(arg: Arg) -> Arg {
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    }
}
