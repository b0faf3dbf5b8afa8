//! One address family measured with STUN: does UDP pass, which relay is nearest, how does the NAT behave.
//!
//! ```text
//!  socket 1   asks every relay                       -> round-trip times, outer addresses
//!  socket 2   asks the nearest relay to answer from its other port and address   -> filtering
//!             then asks there                        -> mapping (the relay's own firewall has let it in by then)
//!  socket 3   and socket 1 send to each other's outer address -> hairpin
//!  socket 4   asks with long, unfragmented requests  -> packet size
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ria_api::state::{Answer, NatBehaviour};
use ria_protocol::behaviour::{CHANGE_IP, CHANGE_PORT, REQUEST_LEN};

use super::classify::{Seen, Uninvited, filtering, mapping};
use super::prober::{Heard, Prober, Question};

/// The relays' answers are waited for so long, ...
const FIRST: Duration = Duration::from_millis(1500);
/// ... and each later round's.
const LATER: Duration = Duration::from_millis(1000);

/// Sizes of IPv4 packets that are tried: Ethernet, PPPoE, tunnels, and what each path must carry (RFC 8200).
const SIZES: [u32; 5] = [1500, 1492, 1420, 1340, 1280];
/// Headers of IPv4 and UDP.
const HEADERS: u32 = 28;

/// An address of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The relay's name.
    pub relay: String,
    /// Where.
    pub address: SocketAddr,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Nat {
    /// Whether an answer came; unknown where nobody was asked.
    pub works: Answer,
    /// Round-trip time to each server, in their order.
    pub rtts: Vec<Option<Duration>>,
    /// The measuring socket's outer address.
    pub outer: Option<SocketAddr>,
    /// How outer ports are given out.
    pub mapping: NatBehaviour,
    /// Whose packets come in.
    pub filtering: NatBehaviour,
    /// Whether the NAT passes packets from inside to its own outer address.
    pub hairpin: Answer,
    /// Largest packet that reaches the nearest server whole.
    pub mtu: Option<u32>,
}

/// Measures with these servers, all of one family; `own` are this machine's addresses.
pub async fn measure(servers: &[Server], own: &[IpAddr]) -> Nat {
    let v6 = servers.first().is_some_and(|server| server.address.is_ipv6());
    let mut nat = Nat { rtts: vec![None; servers.len()], ..Nat::default() };
    if servers.is_empty() {
        return nat;
    }
    let Ok(first) = Prober::open(v6) else { return Nat { works: Answer::No, ..nat } };
    let answers = ask_all(&first, servers).await;
    nat.rtts = answers.iter().map(|answer| answer.map(|heard| heard.rtt)).collect();
    let seen: Vec<Seen> = servers
        .iter()
        .zip(&answers)
        .filter_map(|(server, heard)| {
            Some(Seen { server: server.address, mapped: heard.as_ref()?.reply.mapped })
        })
        .collect();
    let nearest = servers
        .iter()
        .zip(&answers)
        .filter_map(|(server, heard)| Some((server.address, (*heard)?)))
        .min_by_key(|(_, heard)| heard.rtt);
    let Some((nearest, heard)) = nearest else { return Nat { works: Answer::No, ..nat } };
    nat.works = Answer::Yes;
    nat.outer = Some(heard.reply.mapped);
    let translated = !own.contains(&heard.reply.mapped.ip());
    let hairpin = async {
        if translated { hairpin(&first, nearest, heard.reply.mapped).await } else { Answer::Unknown }
    };
    let (behaviour, hairpin, mtu) = tokio::join!(behaviour(nearest, heard), hairpin, packet_size(nearest));
    let (second, came) = behaviour;
    nat.mapping = if translated { mapping(&[seen, second]) } else { NatBehaviour::None };
    nat.filtering = filtering(came);
    nat.hairpin = hairpin;
    nat.mtu = mtu;
    nat
}

/// Asks each server plainly, and for its other places; the answer counts that came quicker, with what either says.
async fn ask_all(prober: &Prober, servers: &[Server]) -> Vec<Option<Heard>> {
    let questions: Vec<Question> = servers
        .iter()
        .flat_map(|server| {
            let telling = Question { to: server.address, change: Some(0), len: REQUEST_LEN };
            [telling, Question::plain(server.address)]
        })
        .collect();
    let answers = prober.ask(&questions, FIRST).await;
    answers
        .chunks(2)
        .map(|pair| {
            let [telling, plain] = pair else { return None };
            match (telling, plain) {
                (Some(telling), Some(plain)) => Some(Heard { rtt: telling.rtt.min(plain.rtt), ..*telling }),
                (one, other) => one.or(*other),
            }
        })
        .collect()
}

/// Filtering and mapping, with the help of a server that can answer from elsewhere.
async fn behaviour(server: SocketAddr, told: Heard) -> (Vec<Seen>, Uninvited) {
    let mut came = Uninvited::default();
    let Ok(prober) = Prober::open(server.is_ipv6()) else { return (Vec::new(), came) };
    let from_elsewhere = |change| Question { to: server, change: Some(change), len: REQUEST_LEN };
    let mut questions = vec![Question::plain(server)];
    let has_port = told.reply.alternate_port.is_some() || told.reply.other_address.is_some();
    if has_port {
        questions.push(from_elsewhere(CHANGE_PORT));
    }
    if told.reply.other_address.is_some() {
        questions.push(from_elsewhere(CHANGE_IP | CHANGE_PORT));
    }
    let mut answers = prober.ask(&questions, LATER).await.into_iter();
    let Some(plain) = answers.next().flatten() else { return (Vec::new(), came) };
    let by_port = if has_port { answers.next() } else { None };
    let by_address = answers.next();
    came.other_port = by_port.map(|heard| heard.is_some());
    came.other_address = by_address.map(|heard| heard.is_some());

    let announced = told.reply.alternate_port.or(told.reply.other_address.map(|other| other.port()));
    let seen_from = |answer: Option<Option<Heard>>| answer.flatten().map(|heard| heard.from);
    let port = seen_from(by_port).or(announced.map(|port| SocketAddr::new(server.ip(), port)));
    let address = seen_from(by_address).or(told.reply.other_address);
    let places: Vec<SocketAddr> = [port, address].into_iter().flatten().collect();
    let questions: Vec<Question> = places.iter().map(|place| Question::plain(*place)).collect();
    let answers = if questions.is_empty() { Vec::new() } else { prober.ask(&questions, LATER).await };
    let elsewhere = places.iter().zip(answers);
    let elsewhere =
        elsewhere.filter_map(|(place, heard)| Some(Seen { server: *place, mapped: heard?.reply.mapped }));
    let seen = [Seen { server, mapped: plain.reply.mapped }].into_iter().chain(elsewhere).collect();
    (seen, came)
}

/// Whether two sockets behind the NAT reach each other by its outer address.
async fn hairpin(first: &Prober, server: SocketAddr, outer: SocketAddr) -> Answer {
    let Ok(second) = Prober::open(server.is_ipv6()) else { return Answer::Unknown };
    let answers = second.ask(&[Question::plain(server)], LATER).await;
    match answers.first() {
        Some(Some(heard)) if first.meets(&second, [outer, heard.reply.mapped], LATER).await => Answer::Yes,
        Some(Some(_)) => Answer::No,
        Some(None) | None => Answer::Unknown,
    }
}

async fn packet_size(server: SocketAddr) -> Option<u32> {
    if server.is_ipv6() {
        return None;
    }
    let prober = Prober::open(false).ok()?;
    prober.forbid_fragments().ok()?;
    let question = |size: u32| Question { len: (size - HEADERS) as usize, ..Question::plain(server) };
    let answers = prober.ask(&SIZES.map(question), LATER).await;
    SIZES.into_iter().zip(answers).find(|(_, heard)| heard.is_some()).map(|(size, _)| size)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;

    /// A server without other places, as most are.
    async fn server() -> SocketAddr {
        use stun_types::attribute::XorMappedAddress;
        use stun_types::message::{BINDING, Message, MessageClass, MessageType, MessageWriteVec};
        use stun_types::prelude::{MessageWrite, MessageWriteExt};
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                let Some(id) = super::super::stun::request_id(&buffer[..len]) else { continue };
                let kind = MessageType::from_class_method(MessageClass::Success, BINDING);
                let mut message = Message::builder(kind, id.into(), MessageWriteVec::new());
                message.add_attribute(&XorMappedAddress::new(from, id.into())).unwrap();
                let _ = socket.send_to(&message.finish(), from).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_server_on_this_machine_is_reached_without_nat() {
        let servers = [
            Server { relay: "silent".into(), address: "127.0.0.1:9".parse().unwrap() },
            Server { relay: "near".into(), address: server().await },
        ];
        let nat = measure(&servers, &[Ipv4Addr::LOCALHOST.into()]).await;
        assert_eq!((nat.works, nat.mapping), (Answer::Yes, NatBehaviour::None));
        assert_eq!(nat.filtering, NatBehaviour::Unknown, "the server can't answer from elsewhere");
        assert!(nat.rtts[0].is_none() && nat.rtts[1].is_some());
        assert_eq!(nat.mtu, Some(1500));
    }

    #[tokio::test]
    async fn without_an_answer_udp_does_not_pass() {
        let closed = [Server { relay: "closed".into(), address: "127.0.0.1:9".parse().unwrap() }];
        assert_eq!(measure(&closed, &[]).await.works, Answer::No);
        assert_eq!(measure(&[], &[]).await.works, Answer::Unknown);
    }
}
