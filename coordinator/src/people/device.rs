//! Laptops that ask to be let in by their person (RFC 8628): a short code that somebody types on a page, and a long one by
//! which the laptop learns what came of it. In memory, bounded, each good once and for ten minutes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ria_protocol::time::UnixTime;
use tokio::sync::watch;

use super::secret;
use crate::site::whole_site;
use crate::state::people::UserName;

/// Somebody has so long to type the code.
pub const LIFE: Duration = Duration::from_secs(600);
/// A laptop asks no more often than that what came of it.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// Open requests of one address, and in all.
const PER_SITE: usize = 16;
const MOST: usize = 1024;
/// Letters that are not taken for others and make no words (RFC 8628, section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LENGTH: usize = 8;

/// A laptop that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// What people type.
    pub code: String,
    /// What it calls itself.
    pub name: String,
    /// The network that it asks for, if it says.
    pub network: Option<String>,
    pub from: IpAddr,
    began: UnixTime,
    polled: Option<UnixTime>,
    decision: Option<Decision>,
}

/// What somebody has decided.
#[derive(Clone, PartialEq, Eq)]
pub enum Decision {
    Denied,
    /// A join key for it.
    Granted {
        key: String,
        user: UserName,
        network: String,
    },
}

impl std::fmt::Debug for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Denied { "Denied" } else { "Granted" })
    }
}

/// What a laptop is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Pending,
    SlowDown,
    Decided(Decision),
    /// Too old, unknown, or told before.
    Expired,
}

/// All of them, by the digest of the long code.
#[derive(Debug, Default)]
pub struct Devices {
    all: watch::Sender<BTreeMap<[u8; 32], Asking>>,
}

impl Devices {
    /// A laptop asks: its long code, and the short one. `None`: too many ask at the moment.
    pub fn begin(
        &self,
        (name, network): (&str, Option<&str>),
        from: IpAddr,
        now: UnixTime,
    ) -> Option<(String, String)> {
        let (long, code) = (secret::fresh(), short_code());
        let asking = Asking {
            code: code.clone(),
            name: name.to_owned(),
            network: network.map(str::to_owned),
            from,
            began: now,
            polled: None,
            decision: None,
        };
        let begun = self.all.send_if_modified(|all| {
            all.retain(|_, asking| now.since(asking.began) < LIFE);
            let site = whole_site(from);
            let crowded = all.values().filter(|asking| whole_site(asking.from) == site).count() >= PER_SITE;
            if crowded || all.len() >= MOST || all.values().any(|asking| asking.code == code) {
                return false;
            }
            all.insert(secret::digest(long.as_bytes()), asking);
            true
        });
        begun.then_some((long, code))
    }

    /// The laptop whose code somebody has typed, as long as nobody has decided.
    pub fn find(&self, typed: &str, now: UnixTime) -> Option<Asking> {
        let code = plain_code(typed);
        let all = self.all.borrow();
        let open = |asking: &&Asking| {
            asking.code == code && asking.decision.is_none() && now.since(asking.began) < LIFE
        };
        all.values().find(open).cloned()
    }

    /// Somebody has decided; whether there was anything to decide.
    pub fn decide(&self, typed: &str, decision: Decision, now: UnixTime) -> bool {
        let code = plain_code(typed);
        self.all.send_if_modified(|all| {
            let open = all.values_mut().find(|asking| {
                asking.code == code && asking.decision.is_none() && now.since(asking.began) < LIFE
            });
            let Some(asking) = open else { return false };
            asking.decision = Some(decision);
            true
        })
    }

    /// A laptop asks what came of it; it is told a decision once.
    pub fn poll(&self, long: &str, now: UnixTime) -> Told {
        let key = secret::digest(long.as_bytes());
        let mut told = Told::Expired;
        self.all.send_if_modified(|all| {
            let Some(asking) = all.get_mut(&key).filter(|asking| now.since(asking.began) < LIFE) else {
                return all.remove(&key).is_some();
            };
            if let Some(decision) = asking.decision.take() {
                told = Told::Decided(decision);
                all.remove(&key);
                return true;
            }
            let early = asking.polled.is_some_and(|last| now.since(last) + Duration::from_secs(1) < INTERVAL);
            told = if early { Told::SlowDown } else { Told::Pending };
            asking.polled = Some(now);
            false
        });
        told
    }
}

fn short_code() -> String {
    // 20 letters of 256 values: the last sixteen are drawn again, so that none is likelier than another.
    let mut code = String::new();
    while code.len() < LENGTH {
        let [byte] = crate::random::bytes::<1>();
        if let Some(letter) = (byte < 240).then(|| LETTERS.get(usize::from(byte) % LETTERS.len())).flatten() {
            code.push(char::from(*letter));
        }
    }
    code
}

/// As people type it: with blanks, dashes and small letters.
fn plain_code(typed: &str) -> String {
    typed.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase()).take(LENGTH + 1).collect()
}

/// As people read it.
pub fn shown_code(code: &str) -> String {
    match code.split_at_checked(LENGTH / 2) {
        Some((first, second)) => format!("{first}-{second}"),
        None => code.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);

    fn site(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn granted() -> Decision {
        Decision::Granted { key: "ria1_x".into(), user: "ada".parse().unwrap(), network: "lab".into() }
    }

    #[test]
    fn a_laptop_hears_once_what_its_person_decided() {
        let devices = Devices::default();
        let (long, code) = devices.begin(("laptop", None), site(1), NOW).unwrap();
        assert_eq!((code.len(), shown_code(&code).len()), (8, 9));
        assert_eq!(devices.poll("guessed", NOW), Told::Expired);
        assert_eq!(devices.poll(&long, NOW), Told::Pending);
        assert_eq!(devices.poll(&long, NOW), Told::SlowDown);
        assert_eq!(devices.poll(&long, UnixTime(NOW.0 + 2)), Told::Pending);
        let typed = shown_code(&code).to_lowercase();
        assert_eq!(devices.find(&typed, NOW).unwrap().name, "laptop");
        assert!(devices.decide(&typed, granted(), NOW) && !devices.decide(&typed, Decision::Denied, NOW));
        assert_eq!(devices.find(&typed, NOW), None);
        assert_eq!(devices.poll(&long, NOW), Told::Decided(granted()));
        assert_eq!(devices.poll(&long, NOW), Told::Expired);
    }

    #[test]
    fn codes_end_and_a_crowd_is_bounded() {
        let devices = Devices::default();
        let (long, code) = devices.begin(("laptop", None), site(1), NOW).unwrap();
        let late = NOW.plus(LIFE);
        assert!(devices.find(&code, late).is_none() && !devices.decide(&code, granted(), late));
        assert_eq!(devices.poll(&long, late), Told::Expired);
        let begun = (0..100).filter(|_| devices.begin(("x", None), site(1), NOW).is_some()).count();
        assert!(begun <= PER_SITE, "{begun}");
        assert!(devices.begin(("x", None), site(2), NOW).is_some());
    }
}
