//! Is the coordinator reached by TCP, directly and by the proxy; and if not, does something else answer in its place?
//!
//! Nobody is asked but the lab's own coordinator: a captive portal shows by answering for it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{HOST, LOCATION, USER_AGENT};
use hyper_util::rt::TokioIo;
use ria_api::state::Answer;
use tokio::time::timeout;

use crate::coordinator::dial::{DialError, dial, parse_url};
use crate::coordinator::reach::Reach;
use crate::coordinator::tls::CoordinatorTls;

/// A TCP connection, TLS and the upgrade together.
const DIAL_PATIENCE: Duration = Duration::from_millis(3500);
/// The plain question and its answer.
const HTTP_PATIENCE: Duration = Duration::from_millis(1200);

/// What a portal answers to something else. The coordinator has nothing there, and usually no plain HTTP at all.
const PATH: &str = "/generate_204";

/// What it takes to find the coordinator.
pub struct Places {
    /// With the proxy, where one is set.
    pub reach: Reach,
    /// Where it may be.
    pub urls: Vec<String>,
    /// How it is known; `None` when this machine's keys are of no use.
    pub tls: Option<CoordinatorTls>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Reached by TCP without a proxy.
    pub direct: Answer,
    /// Reached by the proxy.
    pub proxy: Answer,
    /// Whether somebody else answers in its place.
    pub portal: Answer,
    /// Why it is not reached, in words.
    pub trouble: String,
}

impl Found {
    /// Whether it is reached somehow.
    pub fn reached(&self) -> bool {
        self.direct == Answer::Yes || self.proxy == Answer::Yes
    }
}

/// Looks for the coordinator.
pub async fn measure(places: &Places) -> Found {
    let Some(tls) = &places.tls else { return Found::default() };
    let direct = places.reach.without_proxy();
    let try_by = async |reach: &Reach| {
        let dialled = timeout(DIAL_PATIENCE, dial(reach, &places.urls, &tls.config)).await;
        dialled.map(|done| done.map(drop))
    };
    let (directly, by_proxy) = tokio::join!(try_by(&direct), async {
        match places.reach.by_proxy_alone() {
            Some(reach) => Some(try_by(&reach).await),
            None => None,
        }
    });
    let mut found = Found { direct: yes_or_no(matches!(directly, Ok(Ok(())))), ..Found::default() };
    if let Some(by_proxy) = by_proxy {
        found.proxy = yes_or_no(matches!(by_proxy, Ok(Ok(()))));
    }
    if found.reached() {
        found.portal = Answer::No;
        return found;
    }
    let foreign = match &directly {
        Ok(Err(error)) => matches!(error, DialError::OtherAuthority(_) | DialError::NotRia { .. }),
        Ok(Ok(())) | Err(_) => false,
    };
    found.trouble = match directly {
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(())) | Err(_) => "it does not answer".into(),
    };
    let hosts = places.urls.iter().filter_map(|url| parse_url(url)).map(|(host, _)| host);
    for host in hosts.take(1) {
        let answer = timeout(HTTP_PATIENCE, ask_plainly(&direct, &host)).await.ok().flatten();
        found.portal = judge(foreign, &host, answer.as_ref());
    }
    found
}

fn yes_or_no(yes: bool) -> Answer {
    if yes { Answer::Yes } else { Answer::No }
}

/// An answer by plain HTTP in the coordinator's place.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    status: u16,
    /// To which host it sends the browser.
    elsewhere: Option<String>,
}

async fn ask_plainly(reach: &Reach, host: &str) -> Option<Plain> {
    let stream = reach.connect(host, 80).await.ok()?.stream;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let shown = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let request = Request::get(PATH).header(HOST, shown).header(USER_AGENT, "ria");
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?).await;
    connection.abort();
    let answer = answer.ok()?;
    let location = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
    let elsewhere =
        location.and_then(|to| to.parse::<hyper::Uri>().ok()).and_then(|uri| uri.host().map(str::to_owned));
    Some(Plain { status: answer.status().as_u16(), elsewhere })
}

/// Whether a portal is in between, when the coordinator itself was not reached; `foreign` when something answered to TLS
/// that is not the coordinator.
fn judge(foreign: bool, host: &str, plain: Option<&Plain>) -> Answer {
    match plain {
        // RFC 6585, section 6: made for this.
        Some(Plain { status: 511, .. }) => Answer::Yes,
        Some(Plain { status: 300..=399, elsewhere: Some(other) }) if other != host => Answer::Yes,
        Some(_) if foreign => Answer::Yes,
        Some(_) | None => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_is_told_from_a_server_that_is_merely_down() {
        let sent =
            |status, elsewhere: Option<&str>| Plain { status, elsewhere: elsewhere.map(str::to_owned) };
        for (foreign, plain, wanted) in [
            (false, None, Answer::Unknown),
            (true, None, Answer::Unknown),
            (false, Some(sent(404, None)), Answer::Unknown),
            (false, Some(sent(301, Some("ria.lab"))), Answer::Unknown),
            (false, Some(sent(302, Some("login.example"))), Answer::Yes),
            (false, Some(sent(511, None)), Answer::Yes),
            (true, Some(sent(200, None)), Answer::Yes),
        ] {
            assert_eq!(judge(foreign, "ria.lab", plain.as_ref()), wanted, "{foreign} {plain:?}");
        }
    }
}
