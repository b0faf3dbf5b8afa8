//! Durations and times as people write and read them.

use std::time::Duration;

use ria_protocol::time::UnixTime;
use time::OffsetDateTime;
use time::macros::format_description;

/// How long something is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    For(Duration),
    Forever,
}

/// A text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration; write it as 30m, 12h, 7d or never")]
pub struct ParseLifetimeError(String);

impl std::str::FromStr for Lifetime {
    type Err = ParseLifetimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseLifetimeError(text.to_owned());
        if text == "never" {
            return Ok(Self::Forever);
        }
        let unit = text.chars().last().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            'w' => 7 * 24 * 3600,
            _ => return Err(wrong()),
        };
        let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        if number == 0 {
            return Err(wrong());
        }
        Ok(Self::For(Duration::from_secs(u64::from(number) * seconds)))
    }
}

impl Lifetime {
    /// In seconds; `None` is for ever.
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::For(duration) => Some(duration.as_secs()),
            Self::Forever => None,
        }
    }
}

/// A time as people read it, in UTC.
pub fn shown(at: UnixTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    let date = i64::try_from(at.0).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    date.and_then(|date| date.format(&format).ok()).unwrap_or_else(|| at.0.to_string())
}

/// A duration as it is typed: `10m`, in the largest unit that fits it.
pub fn shown_span(seconds: u64) -> String {
    let units = [(7 * 86_400, 'w'), (86_400, 'd'), (3600, 'h'), (60, 'm')];
    let fits = units.into_iter().find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length));
    fits.map_or_else(|| format!("{seconds}s"), |(length, unit)| format!("{}{unit}", seconds / length))
}

/// How far a time is from now, roughly: `3 min ago`, `in 6 days`.
pub fn shown_relative(at: UnixTime, now: UnixTime) -> String {
    let (seconds, past) = if at <= now { (now.0 - at.0, true) } else { (at.0 - now.0, false) };
    let (number, unit) = match seconds {
        0..5 => return "now".to_owned(),
        5..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    if past { format!("{number} {unit} ago") } else { format!("in {number} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let seconds = |text: &str| text.parse::<Lifetime>().map(Lifetime::seconds);
        assert_eq!(seconds("90s"), Ok(Some(90)));
        assert_eq!(seconds("7d"), Ok(Some(604_800)));
        assert_eq!(seconds("never"), Ok(None));
        for bad in ["", "7", "d", "0h", "-1d", "1y", "1.5h", "7 d", "9999999999d", "1ä"] {
            assert!(seconds(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn times_are_shown() {
        assert_eq!(shown(UnixTime(1_000_000_000)), "2001-09-09 01:46:40 UTC");
        assert_eq!(shown_relative(UnixTime(1000), UnixTime(1300)), "5 min ago");
        assert_eq!(shown_relative(UnixTime(1000 + 604_800), UnixTime(1000)), "in 7 days");
        assert_eq!(shown_relative(UnixTime(1000), UnixTime(1002)), "now");
        assert_eq!([600, 5400, 7200, 604_800, 61].map(shown_span), ["10m", "90m", "2h", "1w", "61s"]);
    }
}
