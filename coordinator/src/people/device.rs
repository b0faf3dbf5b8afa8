//! Laptops that ask to be let in by their person (RFC 8628): a short code that somebody types on a page, and a long one by
//! which the laptop learns what came of it. Bounded, each good once and for ten minutes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ria_protocol::id::NetworkId;
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::secret;
use super::shelf::{Id, Kept, Kind, Shelf};
use crate::site::whole_site;
use crate::state::people::UserName;
use crate::store::StoreError;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// What people type.
    pub code: String,
    /// What it calls itself.
    pub name: String,
    /// The network that it asks for, if it says.
    pub network: Option<String>,
    pub from: IpAddr,
    decision: Option<Decision>,
}

/// What somebody has decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    Denied,
    /// It may have a join key as a laptop of theirs.
    Granted {
        user: UserName,
        network: NetworkId,
    },
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
#[derive(Debug)]
pub struct Devices {
    shelf: Arc<Shelf>,
    /// Who has asked here when.
    polled: watch::Sender<BTreeMap<Id, UnixTime>>,
}

impl Devices {
    pub fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf, polled: watch::Sender::default() }
    }

    /// A laptop asks: its long code, and the short one. `None`: too many ask at the moment.
    pub async fn begin(
        &self,
        (name, network): (&str, Option<&str>),
        from: IpAddr,
        now: UnixTime,
    ) -> Result<Option<(String, String)>, StoreError> {
        let (long, code) = (secret::fresh(), short_code());
        let site = whole_site(from).to_string();
        let all = self.all(now).await?;
        let crowded = all.iter().filter(|(_, kept, _)| kept.owner == site).count() >= PER_SITE;
        if crowded || all.len() >= MOST || all.iter().any(|(.., asking)| asking.code == code) {
            return Ok(None);
        }
        let (name, network) = (name.to_owned(), network.map(str::to_owned));
        let asking = Asking { code: code.clone(), name, network, from, decision: None };
        let kept = Kept { owner: site, value: text(&asking), made: now, expires: now.plus(LIFE) };
        self.shelf.add(Kind::Device, secret::digest(long.as_bytes()), kept, now).await?;
        Ok(Some((long, code)))
    }

    async fn all(&self, now: UnixTime) -> Result<Vec<(Id, Kept, Asking)>, StoreError> {
        let all = self.shelf.all(Kind::Device, None, now).await?;
        Ok(all.into_iter().filter_map(|(id, kept)| read(&kept).map(|asking| (id, kept, asking))).collect())
    }

    async fn open(&self, typed: &str, now: UnixTime) -> Result<Option<(Id, Kept, Asking)>, StoreError> {
        let code = plain_code(typed);
        let mut all = self.all(now).await?.into_iter();
        Ok(all.find(|(.., asking)| asking.code == code && asking.decision.is_none()))
    }

    /// The laptop whose code somebody has typed, as long as nobody has decided.
    pub async fn find(&self, typed: &str, now: UnixTime) -> Result<Option<Asking>, StoreError> {
        Ok(self.open(typed, now).await?.map(|(.., asking)| asking))
    }

    /// Somebody has decided; whether there was anything to decide.
    pub async fn decide(&self, typed: &str, decision: Decision, now: UnixTime) -> Result<bool, StoreError> {
        let Some((id, seen, asking)) = self.open(typed, now).await? else { return Ok(false) };
        let value = text(&Asking { decision: Some(decision), ..asking });
        self.shelf.replace(Kind::Device, id, &seen, Kept { value, ..seen.clone() }).await
    }

    /// A laptop asks what came of it; it is told a decision once.
    pub async fn poll(&self, long: &str, now: UnixTime) -> Result<Told, StoreError> {
        let key = secret::digest(long.as_bytes());
        let Some(kept) = self.shelf.get(Kind::Device, key, now).await? else { return Ok(Told::Expired) };
        let Some(asking) = read(&kept) else { return Ok(Told::Expired) };
        if let Some(decision) = asking.decision {
            // Of all who ask with the code, at whichever coordinator, one is told.
            let taken = self.shelf.take(Kind::Device, key, &kept).await?;
            return Ok(if taken { Told::Decided(decision) } else { Told::Expired });
        }
        let mut early = false;
        self.polled.send_modify(|polled| {
            polled.retain(|_, last| now.since(*last) < LIFE);
            let last = polled.insert(key, now);
            early = last.is_some_and(|last| now.since(last) + Duration::from_secs(1) < INTERVAL);
        });
        Ok(if early { Told::SlowDown } else { Told::Pending })
    }
}

fn text(asking: &Asking) -> String {
    // Names, numbers and addresses can always be written.
    serde_json::to_string(asking).unwrap_or_default()
}

fn read(kept: &Kept) -> Option<Asking> {
    serde_json::from_str(&kept.value).ok()
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
        Decision::Granted { user: "ada".parse().unwrap(), network: NetworkId::from_bytes([1; 10]) }
    }

    #[tokio::test]
    async fn a_laptop_hears_once_what_its_person_decided() {
        let devices = Devices::new(Arc::default());
        let (long, code) = devices.begin(("laptop", None), site(1), NOW).await.unwrap().unwrap();
        assert_eq!((code.len(), shown_code(&code).len()), (8, 9));
        assert_eq!(devices.poll("guessed", NOW).await.unwrap(), Told::Expired);
        assert_eq!(devices.poll(&long, NOW).await.unwrap(), Told::Pending);
        assert_eq!(devices.poll(&long, NOW).await.unwrap(), Told::SlowDown);
        assert_eq!(devices.poll(&long, UnixTime(NOW.0 + 2)).await.unwrap(), Told::Pending);
        let typed = shown_code(&code).to_lowercase();
        assert_eq!(devices.find(&typed, NOW).await.unwrap().unwrap().name, "laptop");
        assert!(devices.decide(&typed, granted(), NOW).await.unwrap());
        assert!(!devices.decide(&typed, Decision::Denied, NOW).await.unwrap());
        assert_eq!(devices.find(&typed, NOW).await.unwrap(), None);
        assert_eq!(devices.poll(&long, NOW).await.unwrap(), Told::Decided(granted()));
        assert_eq!(devices.poll(&long, NOW).await.unwrap(), Told::Expired);
    }

    #[tokio::test]
    async fn codes_end_and_a_crowd_is_bounded() {
        let devices = Devices::new(Arc::default());
        let (long, code) = devices.begin(("laptop", None), site(1), NOW).await.unwrap().unwrap();
        let late = NOW.plus(LIFE);
        assert!(devices.find(&code, late).await.unwrap().is_none());
        assert!(!devices.decide(&code, granted(), late).await.unwrap());
        assert_eq!(devices.poll(&long, late).await.unwrap(), Told::Expired);
        let mut begun = 0;
        for _ in 0..100 {
            begun += usize::from(devices.begin(("x", None), site(1), NOW).await.unwrap().is_some());
        }
        assert!(begun < PER_SITE, "{begun}");
        assert!(devices.begin(("x", None), site(2), NOW).await.unwrap().is_some());
    }
}
