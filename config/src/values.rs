//! Types of values: each is read the same way from the file, the environment and a flag.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// An address to listen on: `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`, or `:8000` for every IPv4 interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Address(pub(super) SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(s: &str) -> Result<Address, String> {
        let wrong = || {
            format!(
                "`{s}` is no address to listen on; write ADDR:PORT, such as 127.0.0.1:8000, localhost:8000, or :8000 for every IPv4 interface"
            )
        };
        let host = match s.rsplit_once(':') {
            Some(("", _)) => Ipv4Addr::UNSPECIFIED,
            Some((host, _)) if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST,
            _ => return s.parse().map(Address).map_err(|_| wrong()),
        };
        let port = s.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        port.map(|port| Address((host, port).into())).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(s: String) -> Result<Address, String> {
        s.parse()
    }
}

/// A duration such as `100ms`, `5s` or `2m`; the unit is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(s: &str) -> Result<Time, String> {
        humantime::parse_duration(s).map(Time).map_err(|_| {
            format!("`{s}` is no length of time; write a number and a unit, such as 100ms, 5s or 2m")
        })
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

/// A number of bytes: a plain integer, or a string with `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "SizeText")]
pub struct Size(pub usize);

#[derive(Deserialize)]
#[serde(untagged)]
enum SizeText {
    Bytes(usize),
    Text(String),
}

impl TryFrom<SizeText> for Size {
    type Error = String;

    fn try_from(text: SizeText) -> Result<Size, String> {
        match text {
            SizeText::Bytes(0) => Err("a size of 0 bytes holds nothing".to_owned()),
            SizeText::Bytes(bytes) => Ok(Size(bytes)),
            SizeText::Text(text) => text.parse(),
        }
    }
}

const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Size, String> {
        let wrong =
            || format!("`{s}` is no size; write bytes as an integer, or with KiB, MiB or GiB, such as 64MiB");
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| s.strip_suffix(name).map(|number| (number, *unit)))
            .unwrap_or((s, 1));
        let number: usize = number.trim_end().parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(unit).ok_or_else(wrong)?;
        SizeText::Bytes(bytes).try_into()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size(bytes) = *self;
        match UNITS.iter().find(|(_, unit)| bytes % unit == 0) {
            Some((name, unit)) if *unit > 1 => write!(f, "{}{name}", bytes / unit),
            _ => write!(f, "{bytes}"),
        }
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(s: String) -> Result<Time, String> {
        s.parse()
    }
}
