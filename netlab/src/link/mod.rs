//! The quality of one link (the cable or radio between a node and its network): loss, rate, delay, blocked UDP, cut.
//! "Up" is from the node to the network. Owns the settings and the rules made of them, not the interfaces.
//!
//! Loss by itself, rate, blocked UDP and a cut are made by the kernel (nftables, `tbf`). As soon as a setting asks for
//! more, all frames pass an emulator ([`lane`]), which then makes loss and rate, too.

pub mod lane;
mod values;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

pub use values::{Percent, Rate, Size, Span, Udp};

/// A link setting that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Loss is a percentage.
    #[error("'{0}' is no percentage between 0 and 100")]
    Percent(String),
    /// Rates look like `20mbit`.
    #[error("rate '{0}' is not understood: write a number and kbit, mbit or gbit (20mbit), or 'none'")]
    Rate(String),
    /// Spans look like `20ms`.
    #[error("time '{0}' is not understood: write a number and us, ms or s (20ms), at most 60s")]
    Span(String),
    /// Sizes look like `64k`.
    #[error(
        "size '{0}' is not understood: write bytes, or a number and k or m (64k), at most 64m, or 'none'"
    )]
    Size(String),
    /// A burst is so many frames long.
    #[error(
        "burst '{0}' is not understood: write how many frames long bursts are on average (1 to 10000), or 'none'"
    )]
    Burst(String),
    /// UDP policies look like `blocked:53`.
    #[error("udp '{0}' is not understood: write 'open', 'blocked', or 'blocked:53,3478' to leave ports open")]
    Udp(String),
    /// On or off.
    #[error("cut '{0}' is not understood: write 'on' or 'off'")]
    Cut(String),
    /// Where randomness begins.
    #[error("seed '{0}' is no whole number")]
    Seed(String),
    /// A name that no setting has.
    #[error(
        "no link setting '{0}'; there are: loss, burst, burst-loss, rate, queue, delay, jitter, reorder, reorder-by, \
         duplicate (each also with -up or -down), udp, cut, seed"
    )]
    Setting(String),
    /// A setting without a value.
    #[error("'{0}' is no setting: write NAME=VALUE, for example loss=3")]
    Form(String),
}

/// The quality of one direction; the default is perfect.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quality {
    /// Frames lost.
    pub loss: Percent,
    /// Frames are lost in bursts, so many frames long on average; singly when absent.
    pub burst: Option<u16>,
    /// Share lost within a burst; all when absent.
    pub burst_loss: Option<Percent>,
    /// Bits per second.
    pub rate: Option<Rate>,
    /// Bytes that wait at most for their turn at the rate; those of 100 ms when absent.
    pub queue: Option<Size>,
    /// Time under way.
    pub delay: Span,
    /// How much longer or shorter than that it may be. Frames stay in order.
    pub jitter: Span,
    /// Frames that are held back, so that later ones overtake them.
    pub reorder: Percent,
    /// How long they are held back; 5 ms when absent.
    pub reorder_by: Option<Span>,
    /// Frames that arrive twice.
    pub duplicate: Percent,
}

impl Quality {
    /// Changes one setting; false when none has this name.
    fn set(&mut self, setting: &str, value: &str) -> Result<bool, LinkError> {
        match setting {
            "loss" => self.loss = value.parse()?,
            "burst" => self.burst = unless_none(value, burst)?,
            "burst-loss" => self.burst_loss = unless_none(value, str::parse)?,
            "rate" => self.rate = unless_none(value, str::parse)?,
            "queue" => self.queue = unless_none(value, str::parse)?,
            "delay" => self.delay = value.parse()?,
            "jitter" => self.jitter = value.parse()?,
            "reorder" => self.reorder = value.parse()?,
            "reorder-by" => self.reorder_by = unless_none(value, str::parse)?,
            "duplicate" => self.duplicate = value.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The settings that differ from the default, by name.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let perfect = Self::default();
        let mut settings = Vec::new();
        let mut add = |name, value: Option<String>| settings.extend(value.map(|value| (name, value)));
        let unless = |is_default: bool, value: String| (!is_default).then_some(value);
        add("loss", unless(self.loss == perfect.loss, self.loss.to_string()));
        add("burst", self.burst.map(|frames| frames.to_string()));
        add("burst-loss", self.burst_loss.map(|share| share.to_string()));
        add("rate", self.rate.map(|rate| rate.to_string()));
        add("queue", self.queue.map(|size| size.to_string()));
        add("delay", unless(self.delay == perfect.delay, self.delay.to_string()));
        add("jitter", unless(self.jitter == perfect.jitter, self.jitter.to_string()));
        add("reorder", unless(self.reorder == perfect.reorder, self.reorder.to_string()));
        add("reorder-by", self.reorder_by.map(|span| span.to_string()));
        add("duplicate", unless(self.duplicate == perfect.duplicate, self.duplicate.to_string()));
        settings
    }

    /// Whether the kernel can't make it.
    fn needs_emulator(&self) -> bool {
        *self != Self { loss: self.loss, rate: self.rate, ..Self::default() }
    }
}

fn unless_none<T>(
    value: &str,
    read: impl FnOnce(&str) -> Result<T, LinkError>,
) -> Result<Option<T>, LinkError> {
    if value == "none" { Ok(None) } else { read(value).map(Some) }
}

fn burst(text: &str) -> Result<u16, LinkError> {
    let frames = text.parse().ok().filter(|frames| (1..=10_000).contains(frames));
    frames.ok_or_else(|| LinkError::Burst(text.to_owned()))
}

/// The quality of one link; the default is a perfect one.
///
/// As text, and in TOML, it is its settings by name: `loss = 3` (both ways), `delay-up = "20ms"`, `udp = "blocked"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Written>", into = "BTreeMap<String, String>")]
pub struct Link {
    /// From the node to the network.
    pub up: Quality,
    /// From the network to the node.
    pub down: Quality,
    /// Whether UDP passes.
    pub udp: Udp,
    /// Nothing passes, though the interface stays up.
    pub cut: bool,
    /// Where the emulator's randomness begins: the same seed and the same frames give the same losses.
    pub seed: u64,
}

impl Link {
    /// The same loss both ways.
    pub fn with_loss(self, percent: f64) -> Result<Self, LinkError> {
        self.with(&[&format!("loss={percent}")])
    }

    /// With settings written `NAME=VALUE`.
    pub fn with(mut self, settings: &[&str]) -> Result<Self, LinkError> {
        self.set_all(settings)?;
        Ok(self)
    }

    /// Changes one setting by its name on the command line (`loss`, `rate-up`, `udp`, `cut`, …).
    pub fn set(&mut self, setting: &str, value: &str) -> Result<(), LinkError> {
        match setting {
            "udp" => self.udp = value.parse()?,
            "seed" => self.seed = value.parse().map_err(|_| LinkError::Seed(value.to_owned()))?,
            "cut" => {
                self.cut = match value {
                    "on" => true,
                    "off" => false,
                    other => return Err(LinkError::Cut(other.to_owned())),
                }
            }
            other => {
                let is_known = match (other.strip_suffix("-up"), other.strip_suffix("-down")) {
                    (Some(setting), _) => self.up.set(setting, value)?,
                    (_, Some(setting)) => self.down.set(setting, value)?,
                    _ => self.up.set(other, value)? && self.down.set(other, value)?,
                };
                if !is_known {
                    return Err(LinkError::Setting(other.to_owned()));
                }
            }
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

    /// Whether an emulator has to carry its frames.
    pub(crate) fn is_emulated(&self) -> bool {
        self.up.needs_emulator() || self.down.needs_emulator()
    }

    fn is_perfect(&self) -> bool {
        *self == Self { seed: self.seed, ..Self::default() }
    }
}

/// A link, and whether an emulator makes its loss, rate and all the rest, or the kernel loss and rate.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Making {
    pub link: Link,
    pub emulated: bool,
}

impl Making {
    /// The nftables table that makes this link out of interface `port` of a switch; its ingress is the way up.
    pub(crate) fn rules(&self, port: &str) -> String {
        let (link, table) = (&self.link, format!("table netdev {port}"));
        let mut script = format!("{table}\ndelete {table}\n{table} {{\n");
        for (direction, hook, loss, own_side) in
            [("up", "ingress", link.up.loss, "dport"), ("down", "egress", link.down.loss, "sport")]
        {
            let mut rules = String::new();
            let lost = if self.emulated { 0 } else { loss.hundredths() };
            // A share of 10000 in 10000 is no rule that nft takes.
            let is_total = lost >= 10_000;
            if link.cut || is_total {
                rules.push_str("  drop\n");
            }
            if lost > 0 && !is_total {
                let _ = writeln!(rules, "  numgen random mod 10000 < {lost} drop");
            }
            if let Udp::Blocked { except } = &link.udp {
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

    /// The rate that the kernel is to make of one direction.
    pub(crate) fn kernel_rate(&self, direction: Direction) -> Option<Rate> {
        match direction {
            _ if self.emulated => None,
            Direction::Up => self.link.up.rate,
            Direction::Down => self.link.down.rate,
        }
    }

    /// Whether the link drops or delays frames, which then have to be single frames rather than offloaded batches.
    pub(crate) fn is_impaired(&self) -> bool {
        self.emulated || !self.link.is_perfect()
    }
}

/// One of the two ways of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the node to the network.
    Up,
    /// From the network to the node.
    Down,
}

/// A value of a setting in TOML.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Switch(bool),
    Whole(u64),
    Number(f64),
    Text(String),
}

impl TryFrom<BTreeMap<String, Written>> for Link {
    type Error = LinkError;

    fn try_from(settings: BTreeMap<String, Written>) -> Result<Self, LinkError> {
        let mut link = Self::default();
        for (name, value) in settings {
            let value = match value {
                Written::Switch(on) => if on { "on" } else { "off" }.to_owned(),
                Written::Whole(number) => number.to_string(),
                Written::Number(number) => number.to_string(),
                Written::Text(text) => text,
            };
            link.set(&name, &value)?;
        }
        Ok(link)
    }
}

impl From<Link> for BTreeMap<String, String> {
    fn from(link: Link) -> Self {
        let mut settings = Self::new();
        for (suffix, quality) in [("up", &link.up), ("down", &link.down)] {
            for (name, value) in quality.settings() {
                settings.insert(format!("{name}-{suffix}"), value);
            }
        }
        if link.udp != Udp::Open {
            settings.insert("udp".to_owned(), String::from(link.udp));
        }
        if link.cut {
            settings.insert("cut".to_owned(), "on".to_owned());
        }
        if link.seed != 0 {
            settings.insert("seed".to_owned(), link.seed.to_string());
        }
        settings
    }
}

#[cfg(test)]
mod tests;
