//! Values of a link's settings, as they are written: shares, rates, spans of time, sizes, what is open for UDP.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::LinkError;

/// Hundredths of a percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u16);

impl Percent {
    /// Everything.
    pub const ALL: Self = Self(10_000);

    pub(crate) fn hundredths(self) -> u16 {
        self.0
    }

    /// As a probability.
    pub(crate) fn share(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl TryFrom<f64> for Percent {
    type Error = LinkError;

    fn try_from(percent: f64) -> Result<Self, LinkError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(LinkError::Percent(percent.to_string()));
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0..=10000 by the check above"
        )]
        Ok(Self((percent * 100.0).round() as u16))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 100.0)
    }
}

impl FromStr for Percent {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        text.trim_end_matches('%').parse::<f64>().map_err(|_| LinkError::Percent(text.to_owned()))?.try_into()
    }
}

/// Bits per second, written like `tc` does: `20mbit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u64);

const UNITS: [(&str, u64); 4] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

impl Rate {
    /// A rate of so many megabits per second.
    pub fn mbit(mbit: u32) -> Self {
        Self(u64::from(mbit) * 1_000_000)
    }

    /// How long so many bytes take.
    pub(crate) fn time_of(self, bytes: u64) -> Duration {
        Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 8_000_000_000 / u128::from(self.0)).unwrap_or(u64::MAX),
        )
    }

    /// How many bytes that long takes.
    pub(crate) fn bytes_in(self, time: Duration) -> u64 {
        u64::try_from(u128::from(self.0) * time.as_nanos() / 8_000_000_000).unwrap_or(u64::MAX)
    }

    /// The `tbf` arguments for this rate: 10 ms of burst, at most 100 ms of queue.
    pub(crate) fn tbf(self) -> String {
        let burst = (self.0 / 8 / 100).max(16_000);
        format!("tbf rate {}bit burst {burst} latency 100ms", self.0)
    }
}

impl FromStr for Rate {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let wrong = || LinkError::Rate(text.to_owned());
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
            .ok_or_else(wrong)?;
        let rate =
            number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)?;
        if rate < 8_000 { Err(wrong()) } else { Ok(Self(rate)) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit)).unwrap_or(&UNITS[3]);
        write!(f, "{}{name}", self.0 / unit)
    }
}

/// A span of time, written `20ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// Longest: more is a slip of the pen.
    const MAX: Duration = Duration::from_secs(60);

    pub(crate) fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let wrong = || LinkError::Span(text.to_owned());
        if text == "0" {
            return Ok(Self::default());
        }
        let (number, unit) = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)]
            .into_iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
            .ok_or_else(wrong)?;
        let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
        let span = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        // Whole microseconds, so that what is written is what was read.
        let span = Duration::from_micros(u64::try_from(span.as_micros()).map_err(|_| wrong())?);
        if span > Self::MAX { Err(wrong()) } else { Ok(Self(span)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        if us.is_multiple_of(1000) { write!(f, "{}ms", us / 1000) } else { write!(f, "{us}us") }
    }
}

/// So many bytes, written `64k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(u32);

impl Size {
    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.0)
    }
}

impl FromStr for Size {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (number, unit) = match (text.strip_suffix('k'), text.strip_suffix('m')) {
            (Some(number), _) => (number, 1 << 10),
            (_, Some(number)) => (number, 1 << 20),
            _ => (text, 1),
        };
        let bytes = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
        let bytes = bytes.filter(|bytes| (1..=64 << 20).contains(bytes));
        bytes.map(Self).ok_or_else(|| LinkError::Size(text.to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whether UDP passes a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Udp {
    /// It does.
    #[default]
    Open,
    /// It doesn't, but for these ports on the network's side.
    Blocked {
        /// Ports left open.
        except: Vec<u16>,
    },
}

impl FromStr for Udp {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        match text.split_once(':') {
            None if text == "open" => Ok(Self::Open),
            None if text == "blocked" => Ok(Self::Blocked { except: Vec::new() }),
            Some(("blocked", ports)) => {
                let except = ports.split(',').map(|port| port.trim().parse()).collect::<Result<_, _>>();
                Ok(Self::Blocked { except: except.map_err(|_| LinkError::Udp(text.to_owned()))? })
            }
            _ => Err(LinkError::Udp(text.to_owned())),
        }
    }
}

impl From<Udp> for String {
    fn from(udp: Udp) -> Self {
        match udp {
            Udp::Open => "open".to_owned(),
            Udp::Blocked { except } if except.is_empty() => "blocked".to_owned(),
            Udp::Blocked { except } => {
                let ports: Vec<String> = except.iter().map(u16::to_string).collect();
                format!("blocked:{}", ports.join(","))
            }
        }
    }
}
