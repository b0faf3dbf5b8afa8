//! Periods in which a rule holds: `2026-12-01 14:00..16:00`, `2026-12-01 14:00..2026-12-03 12:00`, in UTC or with an offset
//! (`2026-12-01 14:00..16:00 +01:00`).

use std::fmt;
use std::str::FromStr;

use ria_protocol::time::UnixTime;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// From when until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub from: UnixTime,
    pub until: UnixTime,
}

/// A text is no period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    #[error(
        "{0:?} is no period; write it as 2026-12-01 14:00..16:00, or 2026-12-01 14:00..2026-12-03 12:00, in UTC or with an \
         offset behind it (+01:00)"
    )]
    Form(String),
    #[error("{0:?} ends before it begins")]
    Order(String),
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PeriodError::Form(text.to_owned());
        let (whole, offset) = split_offset(text.trim()).ok_or_else(wrong)?;
        let (from, until) = whole.split_once("..").ok_or_else(wrong)?;
        let (from, until) = (from.trim(), until.trim());
        let until = if until.contains(' ') {
            until.to_owned()
        } else {
            let (date, _) = from.split_once(' ').ok_or_else(wrong)?;
            format!("{date} {until}")
        };
        let minutes = format_description!("[year]-[month]-[day] [hour]:[minute]");
        let seconds = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
        let read = |text: &str| {
            let local = PrimitiveDateTime::parse(text, minutes);
            let local =
                local.or_else(|_| PrimitiveDateTime::parse(text, seconds)).ok()?.assume_offset(offset);
            u64::try_from(local.unix_timestamp()).ok().map(UnixTime)
        };
        let period = Self { from: read(from).ok_or_else(wrong)?, until: read(&until).ok_or_else(wrong)? };
        if period.from < period.until { Ok(period) } else { Err(PeriodError::Order(text.to_owned())) }
    }
}

/// The text without the offset behind it, and the offset.
fn split_offset(text: &str) -> Option<(&str, UtcOffset)> {
    if let Some(whole) = text.strip_suffix("UTC").or_else(|| text.strip_suffix('Z')) {
        return Some((whole.trim_end(), UtcOffset::UTC));
    }
    let Some((whole, last)) = text.rsplit_once(' ') else { return Some((text, UtcOffset::UTC)) };
    let (sign, digits) = match (last.strip_prefix('+'), last.strip_prefix('-')) {
        (Some(digits), _) => (1, digits),
        (_, Some(digits)) => (-1, digits),
        (None, None) => return Some((text, UtcOffset::UTC)),
    };
    let (hours, minutes) = digits.split_once(':')?;
    let (hours, minutes): (i8, i8) = (hours.parse().ok()?, minutes.parse().ok()?);
    Some((whole.trim_end(), UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()?))
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = format_description!("[year]-[month]-[day] [hour]:[minute]");
        let seconds = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
        let shown = |time: UnixTime| {
            let date = i64::try_from(time.0).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
            let format = |date: OffsetDateTime| {
                if date.second() == 0 { date.format(minutes) } else { date.format(seconds) }.ok()
            };
            date.and_then(format).unwrap_or_else(|| time.0.to_string())
        };
        let (from, until) = (shown(self.from), shown(self.until));
        let same_day = from.split_once(' ').zip(until.split_once(' ')).filter(|(a, b)| a.0 == b.0);
        let until = same_day.map_or(until.as_str(), |(_, (_, clock))| clock);
        write!(f, "{from}..{until}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_in_utc_or_with_an_offset() {
        let read = |text: &str| text.parse::<Period>().unwrap();
        let two_hours = read("2026-12-01 14:00..16:00");
        assert_eq!((two_hours.from, two_hours.until), (UnixTime(1_796_133_600), UnixTime(1_796_140_800)));
        assert_eq!(read("2026-12-01 15:00..17:00 +01:00"), two_hours);
        assert_eq!(read("2026-12-01 08:30..10:30 -05:30"), two_hours);
        assert_eq!(read(" 2026-12-01 14:00 .. 2026-12-01 16:00 UTC"), two_hours);
        assert_eq!(two_hours.to_string(), "2026-12-01 14:00..16:00");
        let short = read("2026-12-01 23:59:30..2026-12-02 00:00:10");
        assert_eq!((short.until.0 - short.from.0, read(&short.to_string())), (40, short));
    }

    #[test]
    fn what_is_no_period_is_refused_with_an_example() {
        for text in [
            "",
            "tomorrow",
            "14:00..16:00",
            "2026-12-01 14:00",
            "2026-13-01 14:00..16:00",
            "2026-12-01 14:00..16:00 +1",
        ] {
            assert!(
                text.parse::<Period>().unwrap_err().to_string().contains("2026-12-01 14:00..16:00"),
                "{text}"
            );
        }
        assert!(matches!("2026-12-01 16:00..14:00".parse::<Period>(), Err(PeriodError::Order(_))));
    }
}
