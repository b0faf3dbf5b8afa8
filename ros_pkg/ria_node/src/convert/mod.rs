//! What the agent tells, as ROS messages. Pure functions; no clock, no node.

mod event;
mod link_stats;
mod peer;
mod report;
mod status;

use r2r::builtin_interfaces::msg::Time;
use r2r::diagnostic_msgs::msg::KeyValue;
use r2r::ria_msgs::msg;
use r2r::std_msgs::msg::Header;
use ria_api::state::{Condition, Severity};

use crate::constants::conditions;

pub use event::{agent_event, event};
pub use link_stats::Rates;
pub use peer::{path, peer, peer_array};
pub use report::{report, status_report};
pub use status::{Own, network_status, state, status_without_network};

/// Who reports, on top of what the agent says about a network.
#[derive(Debug, Clone, Default)]
pub struct Reporter {
    /// When the agent was asked.
    pub stamp: Time,
    /// Node name.
    pub name: String,
    /// Node id; empty before the first join.
    pub id: String,
}

impl Reporter {
    fn header(&self) -> Header {
        Header { stamp: self.stamp.clone(), frame_id: String::new() }
    }
}

/// Seconds since 1970 as a ROS time; what can't be one becomes 0, unknown.
pub fn time(seconds: f64) -> Time {
    let whole = seconds.floor();
    if !(0.0..=f64::from(i32::MAX)).contains(&whole) {
        return Time { sec: 0, nanosec: 0 };
    }
    let nanos = ((seconds - whole) * 1e9).round().min(999_999_999.0);
    Time { sec: whole as i32, nanosec: nanos as u32 }
}

/// NaN is unknown.
pub fn number(value: Option<f64>) -> f32 {
    value.map_or(f32::NAN, |v| v as f32)
}

pub fn key_value(key: impl Into<String>, value: impl ToString) -> KeyValue {
    KeyValue { key: key.into(), value: value.to_string() }
}

pub fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Info => conditions::SEVERITY_INFO,
        Severity::Warning => conditions::SEVERITY_WARNING,
        Severity::Error => conditions::SEVERITY_ERROR,
        Severity::Unknown => conditions::SEVERITY_UNKNOWN,
    }
}

pub fn condition(condition: &Condition) -> msg::Condition {
    msg::Condition {
        code: condition.code.clone(),
        severity: severity(condition.severity),
        text: condition.text.clone(),
        since: time(condition.since),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_fraction_and_nonsense_is_unknown() {
        assert_eq!(time(1.5), Time { sec: 1, nanosec: 500_000_000 });
        assert_eq!(time(1_800_000_000.25).nanosec, 250_000_000);
        for nonsense in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(time(nonsense), Time { sec: 0, nanosec: 0 }, "{nonsense}");
        }
    }

    #[test]
    fn an_absent_number_is_nan_and_a_present_zero_is_zero() {
        assert!(number(None).is_nan());
        assert_eq!(number(Some(0.0)), 0.0);
    }
}
