//! The device and the number format that settings ask for.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Requested device of the models.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DeviceChoice {
    /// The first usable GPU, otherwise the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// GPUs with these numbers: at least one, no duplicates.
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

/// Requested number format of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DtypeChoice {
    /// The best format of the device.
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

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(s: String) -> Result<DeviceChoice, String> {
        s.parse()
    }
}

impl TryFrom<String> for DtypeChoice {
    type Error = String;

    fn try_from(s: String) -> Result<DtypeChoice, String> {
        s.parse()
    }
}
