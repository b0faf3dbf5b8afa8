//! The ROS log: console, file and `/rosout`.
//!
//! Console and file are rcl's. Since Jazzy a client library has to see to `/rosout` itself, which r2r does not.

use std::sync::{Mutex, OnceLock, PoisonError};

use r2r::qos::QosProfile;
use r2r::rcl_interfaces::msg::Log;
use r2r::{LogSeverity, Node, Publisher};

use crate::convert::time;
use crate::ros::{NODE, unix_now};

/// Name of the node's logger, once it has one, and where its lines go besides.
static LOGGER: OnceLock<(String, Option<Mutex<Publisher<Log>>>)> = OnceLock::new();

const TOPIC: &str = "/rosout";
const QOS: QosProfile = QosProfile::default().reliable().transient_local().keep_last(100);

/// Logs in the name of a node from now on.
pub fn begin(node: &mut Node) -> r2r::Result<()> {
    let name = node.logger().to_owned();
    let publisher = if has_publisher(node)? { None } else { Some(node.create_publisher(TOPIC, QOS)?) };
    let _ = LOGGER.set((name, publisher.map(Mutex::new)));
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
    write(text.as_ref(), LogSeverity::Warn, 30);
}

pub fn error(text: impl AsRef<str>) {
    write(text.as_ref(), LogSeverity::Error, 40);
}

/// `level` is that of `rcl_interfaces/Log`.
fn write(text: &str, severity: LogSeverity, level: u8) {
    let (name, publisher) = LOGGER.get().map_or((NODE, None), |(name, p)| (name.as_str(), p.as_ref()));
    // A zero byte would be a panic in r2r.
    let text = text.replace('\0', " ");
    r2r::log(&text, name, file!(), line!(), severity);
    let Some(publisher) = publisher else { return };
    let message = Log { stamp: time(unix_now()), level, name: name.into(), msg: text, ..Log::default() };
    // There is nowhere left to complain.
    let _ = publisher.lock().unwrap_or_else(PoisonError::into_inner).publish(&message);
}
