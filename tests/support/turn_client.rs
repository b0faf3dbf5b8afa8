//! The clients that come with coturn, run on a host of a lab.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use netlab::Host;
use ria_protocol::id::{NetworkId, NodeId};
use ring::hmac;

use super::Ended;

/// What a member shows a relay.
pub struct Credentials {
    username: String,
    password: String,
}

/// As they are made with the key of a relay, to end then.
pub fn credentials(key: &[u8], ends: Duration) -> Credentials {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let (network, node) = (NetworkId::from_bytes([1; 10]), NodeId::from_bytes([1; 10]));
    let username = format!("{}:{network}:{node}", ends.as_secs());
    let password = BASE64.encode(hmac::sign(&key, username.as_bytes()).as_ref());
    Credentials { username, password }
}

/// The time, since 1970.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// An hour from now.
pub fn later() -> Duration {
    now() + Duration::from_secs(3600)
}

/// Runs a program that may hang.
pub fn run(host: &Host, line: &[&str]) -> Ended {
    let output = host.output(&[&["timeout", "60"], line].concat()).unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Fifty messages of each client, to the relay at this address and back.
pub fn uclient(host: &Host, relay: &str, with: &Credentials, options: &[&str]) -> Ended {
    let own = ["turnutils_uclient", "-u", &with.username, "-w", &with.password, "-c", "-n", "50", "-z", "5"];
    run(host, &[&own, options, &[relay]].concat())
}

/// Whether all messages of all clients came back, and there were some.
pub fn is_lossless(ended: &Ended, messages: u32) -> bool {
    ended.code == 0
        && ended.out.contains("Total lost packets 0 ")
        && ended.out.contains(&format!("tot_recv_msgs={messages}"))
}

/// Whether it did not even come to an allocation.
pub fn is_kept_out(ended: &Ended) -> bool {
    ended.code != 0
        && ended.out.contains("Cannot complete Allocation")
        && !ended.out.contains("Total lost packets")
}
