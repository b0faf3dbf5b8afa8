//! UPnP IGD: the router is found by SSDP, described by a page, and called by SOAP. All of it is asked of the default
//! router by its address, and of nobody that it names.

pub mod soap;
pub mod ssdp;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::soap::{Call, Service};
use self::ssdp::Page;

/// Time for one page or call.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest page that is read.
const LONGEST: usize = 256 * 1024;

/// Only a lease without end is given (`OnlyPermanentLeasesSupported`).
const ONLY_PERMANENT: u16 = 725;

/// The outer port is somebody else's (`ConflictInMappingEntry`).
const CONFLICT: u16 = 718;

/// Other outer ports that are tried.
const OTHER_PORTS: u16 = 3;

/// A router that maps ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Igd {
    control: Page,
    service: Service,
}

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// The router.
    pub igd: Igd,
    /// Outer address and port.
    pub external: SocketAddrV4,
    /// For so many seconds; 0 for ever.
    pub lease: u32,
}

impl Igd {
    /// Reads the description that SSDP has found.
    pub async fn describe(page: &Page) -> Option<Self> {
        let (_, text) = fetch(page, None).await?;
        let service = soap::service(&text)?;
        Some(Self { control: page.join(&service.control_url)?, service })
    }

    /// Maps a port; `wanted` is the outer one that would be liked.
    pub async fn map(&self, client: Ipv4Addr, internal: u16, wanted: u16, lease: u32) -> Option<Mapped> {
        let mut external = wanted;
        for attempt in 0..=OTHER_PORTS {
            let add = |lease| Call::Add { external, internal, client, lease };
            let lease = match self.call(add(lease)).await? {
                Ok(_) => lease,
                Err(Some(ONLY_PERMANENT)) => {
                    self.call(add(0)).await?.ok()?;
                    0
                }
                Err(Some(CONFLICT)) if attempt < OTHER_PORTS => {
                    external = other_port(external);
                    continue;
                }
                Err(_) => return None,
            };
            let address = self.call(Call::ExternalAddress).await?.ok();
            let Some(address) = address.and_then(|answer| soap::external_address(&answer)) else {
                // Of no use to anybody.
                self.unmap(external).await;
                return None;
            };
            let external = SocketAddrV4::new(address, external);
            return Some(Mapped { igd: self.clone(), external, lease });
        }
        None
    }

    /// Gives a port back.
    pub async fn unmap(&self, external: u16) {
        // What can't be given back ends with its lease.
        let _ = self.call(Call::Delete { external }).await;
    }

    /// The answer, or the code of the router's error.
    async fn call(&self, call: Call) -> Option<Result<String, Option<u16>>> {
        let (status, text) = fetch(&self.control, Some((call, &self.service))).await?;
        Some(if status == StatusCode::OK { Ok(text) } else { Err(soap::error_code(&text)) })
    }
}

/// Another port that one may have, far from the first.
fn other_port(port: u16) -> u16 {
    const FIRST: u16 = 49_152;
    FIRST + port.wrapping_mul(31).wrapping_add(17) % (u16::MAX - FIRST)
}

/// Gets a page, or makes a call.
async fn fetch(page: &Page, call: Option<(Call, &Service)>) -> Option<(StatusCode, String)> {
    timeout(PATIENCE, exchange(page, call)).await.ok().flatten()
}

async fn exchange(page: &Page, call: Option<(Call, &Service)>) -> Option<(StatusCode, String)> {
    let stream = TcpStream::connect(page.server).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .uri(&page.path)
        .header(HOST, page.server.to_string())
        .header(USER_AGENT, concat!("ria/", env!("CARGO_PKG_VERSION"), " UPnP/1.1"));
    let request = match call {
        None => request.method(Method::GET).body(Full::new(Bytes::new())),
        Some((call, service)) => request
            .method(Method::POST)
            .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .header("SOAPAction", call.soap_action(service))
            .body(Full::new(Bytes::from(call.body(service)))),
    };
    let answer = sender.send_request(request.ok()?).await.ok();
    let read = async {
        let (parts, body) = answer?.into_parts();
        let bytes = Limited::new(body, LONGEST).collect().await.ok()?.to_bytes();
        Some((parts.status, String::from_utf8(bytes.to_vec()).ok()?))
    };
    let done = read.await;
    connection.abort();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_ports_are_dynamic_ones_and_differ() {
        let mut port = 41820;
        for _ in 0..OTHER_PORTS {
            let next = other_port(port);
            assert!(next >= 49_152 && next != port);
            port = next;
        }
    }
}
