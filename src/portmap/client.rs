//! Talking to one router: what does it offer, map a port, renew it, give it back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rand_core::{OsRng, RngCore};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::epoch::Epoch;
use super::nat_pmp;
use super::pcp::{self, MapRequest, Nonce};
use super::upnp::{Igd, ssdp};
use super::{Place, Protocol};

/// For how long a port is asked for, seconds.
const LIFETIME: u32 = 3600;

/// A router that grants less is asked again no sooner, and one that grants more no later.
const LIFETIMES: std::ops::RangeInclusive<u32> = 120..=86_400;

/// When a question is sent again while there is no answer, and how long the last is waited for.
const SENDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(750)];
const PATIENCE: Duration = Duration::from_millis(1750);

/// A mapping and what it takes to keep it.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// Outer address and port.
    pub external: SocketAddrV4,
    /// For how long.
    pub lifetime: Duration,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    Pcp(Epoch),
    NatPmp(Epoch),
    Upnp(Igd),
}

impl Mapping {
    /// The same, of which so much time is left.
    pub fn for_yet(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// By which protocol it was made.
    pub fn protocol(&self) -> Protocol {
        match self.how {
            How::Pcp(_) => Protocol::Pcp,
            How::NatPmp(_) => Protocol::NatPmp,
            How::Upnp(_) => Protocol::Upnp,
        }
    }
}

/// What a router offers.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    /// All protocols that it answered to.
    pub protocols: Vec<Protocol>,
    /// The port, if it was opened.
    pub mapping: Option<Mapping>,
}

/// One machine's wishes of one router.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    place: Place,
    port: u16,
    nonce: Nonce,
}

impl Client {
    /// For the tunnel's UDP port.
    pub fn new(place: Place, port: u16) -> Self {
        let mut nonce = Nonce::default();
        OsRng.fill_bytes(&mut nonce);
        Self { place, port, nonce }
    }

    /// Asks in all ways, a few times each, and has the port opened in the best one that is offered. `former` is the outer
    /// address that it would like to have again.
    pub async fn ask(&self, former: Option<SocketAddrV4>) -> Offers {
        let (by_port, igd) = tokio::join!(self.ask_port_control(former), self.find_igd());
        let mut offers = Offers::default();
        let PortControl { pcp, nat_pmp, .. } = by_port;
        offers.protocols.extend(pcp.as_ref().map(|_| Protocol::Pcp));
        offers.protocols.extend(nat_pmp.map(|_| Protocol::NatPmp));
        offers.protocols.extend(igd.as_ref().map(|_| Protocol::Upnp));
        offers.mapping = pcp.flatten();
        if let (None, Some(address)) = (&offers.mapping, nat_pmp) {
            offers.mapping = self.map_by_nat_pmp(address, former).await;
        }
        if let (None, Some(igd)) = (&offers.mapping, &igd) {
            offers.mapping = self.map_by_upnp(igd, former).await;
        }
        offers
    }

    /// Asks for the same port again; `None` when the router does not answer, or has nothing for this machine any more.
    pub async fn renew(&self, mapping: &Mapping) -> Option<Mapping> {
        let wanted = Some(mapping.external);
        match &mapping.how {
            How::Pcp(_) => self.ask_pcp_alone(wanted).await,
            How::NatPmp(_) => self.map_by_nat_pmp(*mapping.external.ip(), wanted).await,
            How::Upnp(igd) => self.map_by_upnp(igd, wanted).await,
        }
    }

    /// Whether a router's word that it has begun anew is to be believed.
    pub fn has_begun_anew(mapping: &Mapping, datagram: &[u8], now: Instant) -> bool {
        let told = match (pcp::response(datagram), nat_pmp::response(datagram)) {
            (Some(pcp::Response::Announced { epoch }), _)
            | (_, Some(nat_pmp::Response::Address { epoch, .. })) => epoch,
            _ => return false,
        };
        match &mapping.how {
            How::Pcp(epoch) | How::NatPmp(epoch) => {
                let mut epoch = *epoch;
                epoch.advance(told, now)
            }
            // The same router, by another protocol: its mappings are gone, too.
            How::Upnp(_) => true,
        }
    }

    /// Gives the port back; the router is told twice at most.
    pub async fn give_back(&self, mapping: &Mapping) {
        match &mapping.how {
            How::Upnp(igd) => igd.unmap(mapping.external.port()).await,
            How::Pcp(_) => self.say(&pcp::map_request(&self.request(None, 0))).await,
            How::NatPmp(_) => self.say(&nat_pmp::map_request(self.port, 0, 0)).await,
        }
    }

    async fn say(&self, datagram: &[u8]) {
        const AGAIN: Duration = Duration::from_millis(150);
        let Ok(socket) = self.port_control().await else { return };
        let mut buffer = [0; 128];
        for _ in 0..2 {
            if socket.send(datagram).await.is_err() {
                return;
            }
            if tokio::time::timeout(AGAIN, socket.recv(&mut buffer)).await.is_ok() {
                return;
            }
        }
    }

    /// A socket that hears the router alone, and learns at once when nobody listens there.
    async fn port_control(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(SocketAddr::from((self.place.own, 0))).await?;
        socket.connect(SocketAddr::from((self.place.router, pcp::PORT))).await?;
        Ok(socket)
    }

    fn request(&self, suggested: Option<SocketAddrV4>, lifetime: u32) -> MapRequest {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, self.port);
        let suggested = suggested.unwrap_or(any);
        MapRequest { client: self.place.own, internal: self.port, suggested, lifetime, nonce: self.nonce }
    }

    /// PCP and NAT-PMP listen at one port, so one socket asks both.
    async fn ask_port_control(&self, former: Option<SocketAddrV4>) -> PortControl {
        let mut found = PortControl::default();
        let Ok(socket) = self.port_control().await else { return found };
        let request = pcp::map_request(&self.request(former, LIFETIME));
        let begin = Instant::now();
        for (round, after) in SENDS.into_iter().enumerate() {
            sleep_until(begin + after).await;
            if found.pcp.is_none() && socket.send(&request).await.is_err() {
                return found;
            }
            if found.nat_pmp.is_none() && socket.send(&nat_pmp::ADDRESS_REQUEST).await.is_err() {
                return found;
            }
            let until = begin + SENDS.get(round + 1).copied().unwrap_or(PATIENCE);
            if self.listen(&socket, &mut found, until).await.is_err() || found.is_complete() {
                break;
            }
        }
        found
    }

    /// Takes answers until then; an error when nobody listens at the router.
    async fn listen(&self, socket: &UdpSocket, found: &mut PortControl, until: Instant) -> io::Result<()> {
        let mut buffer = [0; 1100];
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            let datagram = buffer.get(..received?).unwrap_or_default();
            if let Some(nat_pmp::Response::Address { external, .. }) = nat_pmp::response(datagram) {
                found.nat_pmp = Some(external);
            } else if let Some(answer) = pcp::response(datagram) {
                match answer {
                    pcp::Response::Mapped { .. } => {
                        found.pcp = self.mapped_by_pcp(answer).map(Some).or(found.pcp.take());
                    }
                    pcp::Response::Refused { .. } => _ = found.pcp.get_or_insert(None),
                    pcp::Response::OtherVersion => found.no_pcp = true,
                    pcp::Response::Announced { .. } => {}
                }
            }
            if found.is_complete() {
                break;
            }
        }
        Ok(())
    }

    async fn ask_pcp_alone(&self, wanted: Option<SocketAddrV4>) -> Option<Mapping> {
        let socket = self.port_control().await.ok()?;
        let request = pcp::map_request(&self.request(wanted, LIFETIME));
        self.exchange(&socket, &request, |datagram| {
            pcp::response(datagram).and_then(|answer| self.mapped_by_pcp(answer))
        })
        .await
    }

    fn mapped_by_pcp(&self, answer: pcp::Response) -> Option<Mapping> {
        let pcp::Response::Mapped { external, lifetime, epoch, nonce, internal } = answer else {
            return None;
        };
        let how = How::Pcp(Epoch::new(epoch, Instant::now()));
        let ours = nonce == self.nonce && internal == self.port && lifetime > 0;
        ours.then(|| Mapping { external, lifetime: bounded(lifetime), how })
    }

    async fn map_by_nat_pmp(&self, address: Ipv4Addr, wanted: Option<SocketAddrV4>) -> Option<Mapping> {
        let socket = self.port_control().await.ok()?;
        let port = wanted.map_or(self.port, |wanted| wanted.port());
        let request = nat_pmp::map_request(self.port, port, LIFETIME);
        self.exchange(&socket, &request, |datagram| match nat_pmp::response(datagram)? {
            nat_pmp::Response::Mapped { epoch, internal, external, lifetime }
                if internal == self.port && external != 0 && lifetime > 0 =>
            {
                let how = How::NatPmp(Epoch::new(epoch, Instant::now()));
                Some(Mapping {
                    external: SocketAddrV4::new(address, external),
                    lifetime: bounded(lifetime),
                    how,
                })
            }
            nat_pmp::Response::Mapped { .. }
            | nat_pmp::Response::Address { .. }
            | nat_pmp::Response::Refused { .. } => None,
        })
        .await
    }

    async fn exchange(
        &self,
        socket: &UdpSocket,
        request: &[u8],
        read: impl Fn(&[u8]) -> Option<Mapping>,
    ) -> Option<Mapping> {
        let begin = Instant::now();
        let mut buffer = [0; 1100];
        for (round, after) in SENDS.into_iter().enumerate() {
            sleep_until(begin + after).await;
            socket.send(request).await.ok()?;
            let until = begin + SENDS.get(round + 1).copied().unwrap_or(PATIENCE);
            while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
                if let Some(mapping) = read(buffer.get(..received.ok()?).unwrap_or_default()) {
                    return Some(mapping);
                }
            }
        }
        None
    }

    async fn find_igd(&self) -> Option<Igd> {
        let socket = UdpSocket::bind(SocketAddr::from((self.place.own, 0))).await.ok()?;
        let router = self.place.router;
        let begin = Instant::now();
        let mut buffer = [0; 2048];
        for (round, after) in SENDS.into_iter().enumerate() {
            sleep_until(begin + after).await;
            for device in ssdp::DEVICES {
                let question = ssdp::search(router, device);
                socket.send_to(question.as_bytes(), (router, ssdp::PORT)).await.ok()?;
            }
            let until = begin + SENDS.get(round + 1).copied().unwrap_or(PATIENCE);
            while let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await {
                // An error is an ICMP message: nobody listens there.
                let Ok((len, from)) = received else { return None };
                let page =
                    buffer.get(..len).filter(|_| from.ip() == router).and_then(|d| ssdp::location(d, router));
                if let Some(page) = page {
                    return Igd::describe(&page).await;
                }
            }
        }
        None
    }

    async fn map_by_upnp(&self, igd: &Igd, wanted: Option<SocketAddrV4>) -> Option<Mapping> {
        let port = wanted.map_or(self.port, |wanted| wanted.port());
        let mapped = igd.map(self.place.own, self.port, port, LIFETIME).await?;
        // A lease without end is looked after all the same: the router may have forgotten it.
        let lifetime = bounded(if mapped.lease == 0 { LIFETIME } else { mapped.lease });
        Some(Mapping { external: mapped.external, lifetime, how: How::Upnp(mapped.igd) })
    }
}

/// What came by the one port.
#[derive(Debug, Default)]
struct PortControl {
    /// An answer by PCP, and the mapping if it was granted.
    pcp: Option<Option<Mapping>>,
    /// PCP is not spoken.
    no_pcp: bool,
    /// The outer address by NAT-PMP.
    nat_pmp: Option<Ipv4Addr>,
}

impl PortControl {
    fn is_complete(&self) -> bool {
        (self.pcp.is_some() || self.no_pcp) && self.nat_pmp.is_some()
    }
}

fn bounded(lifetime: u32) -> Duration {
    Duration::from_secs(lifetime.clamp(*LIFETIMES.start(), *LIFETIMES.end()).into())
}
