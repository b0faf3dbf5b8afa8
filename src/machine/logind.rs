//! logind: the machine goes to sleep, and wakes up. A delay lock gives the agent a moment for its good-byes.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::oneshot;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;
use zbus::{Connection, OwnedFd, Proxy};

use super::{News, RETRY, connect};

/// Its name on the bus.
pub const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const INTERFACE: &str = "org.freedesktop.login1.Manager";

/// logind waits for five seconds in all, unless it is told otherwise (`InhibitDelayMaxSec`).
const LONGEST: Duration = Duration::from_secs(3);

/// Tells of sleep, for ever.
pub async fn follow(tell: impl Fn(News) + Send + Sync) {
    loop {
        let Err(error) = watch(&tell).await;
        tracing::debug!(%error, "logind is looked for again later");
        tokio::time::sleep(RETRY).await;
    }
}

/// One connection to the bus, from its beginning to its end.
async fn watch(tell: &impl Fn(News)) -> zbus::Result<Infallible> {
    let connection = connect().await?;
    let bus = DBusProxy::new(&connection).await?;
    let mut owners = bus.receive_name_owner_changed_with_args(&[(0, NAME)]).await?;
    let logind = Proxy::new(&connection, NAME, PATH, INTERFACE).await?;
    let mut sleeps = logind.receive_signal("PrepareForSleep").await?;
    let lost = || zbus::Error::Failure("the connection to the bus was closed".into());
    let mut lock = None;
    if bus.name_has_owner(BusName::from_static_str(NAME)?).await? {
        lock = delay(&connection).await;
    }
    loop {
        tokio::select! {
            owner = owners.next() => {
                // A logind that was started again knows of no lock.
                let owner = owner.ok_or_else(lost)?;
                let is_there = owner.args()?.new_owner.is_some();
                lock = if is_there { delay(&connection).await } else { None };
            }
            sleep = sleeps.next() => {
                let starts: bool = sleep.ok_or_else(lost)?.body().deserialize()?;
                if starts {
                    let (answer, done) = oneshot::channel();
                    tell(News::GoesToSleep(answer));
                    let _ = tokio::time::timeout(LONGEST, done).await;
                    // From here the machine may fall asleep.
                    drop(lock.take());
                } else {
                    tell(News::IsAwake);
                    lock = delay(&connection).await;
                }
            }
        }
    }
}

/// Has logind wait before each sleep; `None` where it does not.
async fn delay(connection: &Connection) -> Option<OwnedFd> {
    let why = "the coordinator is told that this machine goes away";
    let asked = connection
        .call_method(Some(NAME), PATH, Some(INTERFACE), "Inhibit", &("sleep", "Ria", why, "delay"))
        .await
        .and_then(|answer| answer.body().deserialize::<OwnedFd>());
    asked
        .inspect_err(|error| tracing::debug!(%error, "logind does not wait for this agent before a sleep"))
        .ok()
}
