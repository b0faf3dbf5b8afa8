//! The quality of one link (the cable or radio between a node and its network): loss, rate, blocked UDP, cut.
//! "Up" is from the node to the network. Owns the settings and the rules made of them, not the interfaces.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A link setting that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Loss is a percentage.
    #[error("loss '{0}' is no percentage between 0 and 100")]
    Loss(String),
    /// Rates look like `20mbit`.
    #[error("rate '{0}' is not understood: write a number and kbit, mbit or gbit (20mbit), or 'none'")]
    Rate(String),
    /// UDP policies look like `blocked:53`.
    #[error("udp '{0}' is not understood: write 'open', 'blocked', or 'blocked:53,3478' to leave ports open")]
    Udp(String),
    /// On or off.
    #[error("cut '{0}' is not understood: write 'on' or 'off'")]
    Cut(String),
    /// A name that no setting has.
    #[error("no link setting '{0}'; there are: loss, loss-up, loss-down, rate, rate-up, rate-down, udp, cut")]
    Setting(String),
    /// A setting without a value.
    #[error("'{0}' is no setting: write NAME=VALUE, for example loss=3")]
    Form(String),
}

/// The quality of one link; the default is a perfect one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Link {
    /// Frames lost on the way up, in percent.
    pub loss_up: Percent,
    /// Frames lost on the way down, in percent.
    pub loss_down: Percent,
    /// Bits per second on the way up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_up: Option<Rate>,
    /// Bits per second on the way down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_down: Option<Rate>,
    /// Whether UDP passes.
    pub udp: Udp,
    /// Nothing passes, though the interface stays up.
    pub cut: bool,
}

impl Link {
    /// The same loss both ways.
    pub fn with_loss(mut self, percent: f64) -> Result<Self, LinkError> {
        self.set("loss", &percent.to_string())?;
        Ok(self)
    }

    /// Changes one setting by its name on the command line (`loss`, `rate-up`, `udp`, `cut`, …).
    pub fn set(&mut self, setting: &str, value: &str) -> Result<(), LinkError> {
        let rate = |value: &str| if value == "none" { Ok(None) } else { value.parse().map(Some) };
        match setting {
            "loss" => (self.loss_up, self.loss_down) = (value.parse()?, value.parse()?),
            "loss-up" => self.loss_up = value.parse()?,
            "loss-down" => self.loss_down = value.parse()?,
            "rate" => (self.rate_up, self.rate_down) = (rate(value)?, rate(value)?),
            "rate-up" => self.rate_up = rate(value)?,
            "rate-down" => self.rate_down = rate(value)?,
            "udp" => self.udp = value.parse()?,
            "cut" => {
                self.cut = match value {
                    "on" => true,
                    "off" => false,
                    other => return Err(LinkError::Cut(other.to_owned())),
                }
            }
            other => return Err(LinkError::Setting(other.to_owned())),
        }
        Ok(())
    }

    /// Changes settings written `NAME=VALUE`; all of them or, on an error, none.
    pub fn set_all<S: AsRef<str>>(&mut self, settings: &[S]) -> Result<(), LinkError> {
        let mut changed = self.clone();
        for setting in settings {
            let setting = setting.as_ref();
            let (name, value) = setting.split_once('=').ok_or_else(|| LinkError::Form(setting.to_owned()))?;
            changed.set(name, value)?;
        }
        *self = changed;
        Ok(())
    }

    /// The nftables table that makes this link out of interface `port` of a switch; its ingress is the way up.
    pub(crate) fn rules(&self, port: &str) -> String {
        let table = format!("table netdev {port}");
        let mut script = format!("{table}\ndelete {table}\n{table} {{\n");
        for (direction, hook, loss, own_side) in
            [("up", "ingress", self.loss_up, "dport"), ("down", "egress", self.loss_down, "sport")]
        {
            let mut rules = String::new();
            // A share of 10000 in 10000 is no rule that nft takes.
            let is_total = loss.0 >= 10_000;
            if self.cut || is_total {
                rules.push_str("  drop\n");
            }
            if loss.0 > 0 && !is_total {
                let _ = writeln!(rules, "  numgen random mod 10000 < {} drop", loss.0);
            }
            if let Udp::Blocked { except } = &self.udp {
                if !except.is_empty() {
                    let ports: Vec<String> = except.iter().map(u16::to_string).collect();
                    let _ = writeln!(rules, "  udp {own_side} {{ {} }} accept", ports.join(", "));
                }
                rules.push_str("  meta l4proto udp drop\n");
            }
            let _ = writeln!(
                script,
                " chain {direction} {{\n  type filter hook {hook} device \"{port}\" priority 0; policy accept;\n{rules} }}"
            );
        }
        script.push_str("}\n");
        script
    }

    /// Whether the link drops or delays frames, which then have to be single frames rather than offloaded batches.
    pub(crate) fn is_impaired(&self) -> bool {
        *self != Self::default()
    }
}

/// Hundredths of a percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Percent(u16);

impl TryFrom<f64> for Percent {
    type Error = LinkError;

    fn try_from(percent: f64) -> Result<Self, LinkError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(LinkError::Loss(percent.to_string()));
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0..=10000 by the check above"
        )]
        Ok(Self((percent * 100.0).round() as u16))
    }
}

impl From<Percent> for f64 {
    fn from(percent: Percent) -> Self {
        Self::from(percent.0) / 100.0
    }
}

impl FromStr for Percent {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        text.trim_end_matches('%').parse::<f64>().map_err(|_| LinkError::Loss(text.to_owned()))?.try_into()
    }
}

/// Bits per second, written like `tc` does: `20mbit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

const UNITS: [(&str, u64); 4] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

impl Rate {
    /// A rate of so many megabits per second.
    pub fn mbit(mbit: u32) -> Self {
        Self(u64::from(mbit) * 1_000_000)
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

impl TryFrom<String> for Rate {
    type Error = LinkError;

    fn try_from(text: String) -> Result<Self, LinkError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit)).unwrap_or(&UNITS[3]);
        write!(f, "{}{name}", self.0 / unit)
    }
}

/// Whether UDP passes a link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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

impl TryFrom<String> for Udp {
    type Error = LinkError;

    fn try_from(text: String) -> Result<Self, LinkError> {
        text.parse()
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
