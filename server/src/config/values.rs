//! The values that settings take: each is read the same way from the file, the environment and a flag.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Where the models run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DeviceChoice {
    /// The first GPU where there is one that can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPUs of these numbers: at least one, none twice.
    Cuda(Vec<usize>),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<DeviceChoice, String> {
        let unknown = || format!("unknown device `{s}`; known are auto, cpu, cuda, cuda:N and cuda:N,M,…");
        let ordinals = match s {
            "auto" => return Ok(DeviceChoice::Auto),
            "cpu" => return Ok(DeviceChoice::Cpu),
            "cuda" => "0",
            _ => s.strip_prefix("cuda:").ok_or_else(unknown)?,
        };
        let gpus: Vec<usize> = ordinals
            .split(',')
            .map(|n| n.parse().map_err(|_| unknown()))
            .collect::<Result<_, _>>()?;
        match gpus.iter().enumerate().find(|(i, gpu)| gpus[..*i].contains(gpu)) {
            Some((_, twice)) => Err(format!("device `{s}` names cuda:{twice} twice")),
            None => Ok(DeviceChoice::Cuda(gpus)),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(gpus) => {
                let numbers: Vec<String> = gpus.iter().map(ToString::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

/// The number format that the models compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DtypeChoice {
    /// The best one of the device.
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats of 16 bits.
    Bf16,
    /// 8-bit integers with f32 scales.
    Int8,
}

impl DtypeChoice {
    const ALL: [DtypeChoice; 5] = [
        DtypeChoice::Auto,
        DtypeChoice::F32,
        DtypeChoice::F16,
        DtypeChoice::Bf16,
        DtypeChoice::Int8,
    ];

    /// The name in configuration and logs.
    pub fn name(self) -> &'static str {
        match self {
            DtypeChoice::Auto => "auto",
            DtypeChoice::F32 => "f32",
            DtypeChoice::F16 => "f16",
            DtypeChoice::Bf16 => "bf16",
            DtypeChoice::Int8 => "int8",
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<DtypeChoice, String> {
        DtypeChoice::ALL
            .into_iter()
            .find(|d| d.name() == s)
            .ok_or_else(|| format!("unknown dtype `{s}`; known are auto, f32, f16, bf16 and int8"))
    }
}

impl fmt::Display for DtypeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<LogFormat, String> {
        match s {
            "auto" => Ok(LogFormat::Auto),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("unknown log format `{s}`; known are auto, text and json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// A length of time such as `100ms`, `5s` or `2m`: a unit is always said.
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

/// `TryFrom<String>`, which serde asks for, by way of `FromStr`, which clap asks for.
macro_rules! try_from_string {
    ($($t:ty),+) => {$(
        impl TryFrom<String> for $t {
            type Error = String;

            fn try_from(s: String) -> Result<$t, String> {
                s.parse()
            }
        }
    )+};
}

try_from_string!(DeviceChoice, DtypeChoice, LogFormat, Time);
