//! The ROS log: console, file and `/rosout`.
//!
//! Console and file are rcl's. Since Jazzy a client library has to see to `/rosout` itself, which r2r does not. All three
//! get what the logger's level lets through (`--log-level`).
//! The same warning or error is said at most once in a while, so that a fault which goes on and on fills no disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use r2r::qos::QosProfile;
use r2r::rcl_interfaces::msg::Log;
use r2r::{LogSeverity, Node, Publisher};

use crate::convert::time;
use crate::log_level;
use crate::ros::{NODE, unix_now};

/// The node's logger, once it has one.
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Which lines were said lately.
static SAID: Mutex<Throttle> = Mutex::new(Throttle(BTreeMap::new()));

/// The same line comes at most once in this time.
const AGAIN: Duration = Duration::from_secs(10);

/// How many lines are remembered.
const REMEMBERED: usize = 64;

const TOPIC: &str = "/rosout";
const QOS: QosProfile = QosProfile::default().reliable().transient_local().keep_last(100);

/// A node's logger.
struct Logger {
    name: String,
    /// Where its lines go besides.
    rosout: Option<Rosout>,
}

struct Rosout {
    publisher: Mutex<Publisher<Log>>,
    /// The lowest level that goes there, in the numbers of `rcl_interfaces/Log`. Nothing changes it while the node runs.
    from: u8,
}

/// Logs in the name of a node from now on. Before a second thread has to do with ROS.
pub fn begin(node: &mut Node) -> r2r::Result<()> {
    let name = node.logger().to_owned();
    let rosout = if has_publisher(node)? {
        None
    } else {
        let publisher = Mutex::new(node.create_publisher(TOPIC, QOS)?);
        Some(Rosout { publisher, from: log_level::of(&name).unwrap_or_default() })
    };
    let _ = LOGGER.set(Logger { name, rosout });
    Ok(())
}

/// Whether rcl has made one for this node, as it did before Jazzy.
fn has_publisher(node: &Node) -> r2r::Result<bool> {
    let (name, namespace) = (node.name()?, node.namespace()?);
    let publishers = node.get_publishers_info_by_topic(TOPIC, false)?;
    Ok(publishers.iter().any(|p| p.node_name == name && p.node_namespace == namespace))
}

pub fn info(text: impl AsRef<str>) {
    write(text.as_ref(), LogSeverity::Info, 20);
}

pub fn warn(text: impl AsRef<str>) {
    throttled(text.as_ref(), LogSeverity::Warn, 30);
}

pub fn error(text: impl AsRef<str>) {
    throttled(text.as_ref(), LogSeverity::Error, 40);
}

fn throttled(text: &str, severity: LogSeverity, level: u8) {
    let passed = SAID.lock().unwrap_or_else(PoisonError::into_inner).pass(text, Instant::now());
    if let Some(text) = passed {
        write(&text, severity, level);
    }
}

/// Lines with the time when they were said last, and how often they were left out since.
struct Throttle(BTreeMap<String, (Instant, u32)>);

impl Throttle {
    /// The line as it is to be said now, if it is.
    fn pass(&mut self, text: &str, now: Instant) -> Option<String> {
        if let Some((last, left_out)) = self.0.get_mut(text) {
            if now.saturating_duration_since(*last) < AGAIN {
                *left_out += 1;
                return None;
            }
            *last = now;
            return Some(match std::mem::take(left_out) {
                0 => text.to_owned(),
                times => format!("{text} (and {times} times since this was said last)"),
            });
        }
        if self.0.len() >= REMEMBERED
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, (last, _))| *last).map(|(text, _)| text.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(text.to_owned(), (now, 0));
        Some(text.to_owned())
    }
}

/// `level` is that of `rcl_interfaces/Log`.
fn write(text: &str, severity: LogSeverity, level: u8) {
    let (name, rosout) = LOGGER.get().map_or((NODE, None), |l| (l.name.as_str(), l.rosout.as_ref()));
    // A zero byte would be a panic in r2r.
    let text = text.replace('\0', " ");
    r2r::log(&text, name, file!(), line!(), severity);
    let Some(Rosout { publisher, from }) = rosout else { return };
    if level < *from {
        return;
    }
    let message = Log { stamp: time(unix_now()), level, name: name.into(), msg: text, ..Log::default() };
    // There is nowhere left to complain.
    let _ = publisher.lock().unwrap_or_else(PoisonError::into_inner).publish(&message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_and_again_is_said_rarely_and_counted() {
        let (mut throttle, begin) = (Throttle(BTreeMap::new()), Instant::now());
        let said: Vec<String> = (0..250)
            .filter_map(|n| throttle.pass("broken", begin + Duration::from_millis(100) * n))
            .collect();
        let again = "broken (and 99 times since this was said last)";
        assert_eq!(said, ["broken", again, again]);
        assert_eq!(throttle.pass("something else", begin).as_deref(), Some("something else"));
        let later = begin + Duration::from_secs(100);
        assert_eq!(throttle.pass("something else", later).as_deref(), Some("something else"));
    }

    #[test]
    fn lines_that_all_differ_take_bounded_memory() {
        let (mut throttle, begin) = (Throttle(BTreeMap::new()), Instant::now());
        for n in 0..1000 {
            assert!(throttle.pass(&format!("line {n}"), begin + Duration::from_millis(n)).is_some());
        }
        assert_eq!(throttle.0.len(), REMEMBERED);
        assert!(throttle.pass("line 999", begin + Duration::from_secs(1)).is_none(), "the oldest go first");
    }
}
