//! The task that keeps the port open: asks once per place, renews, listens for a router that has begun anew, gives back.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol as Transport, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Client, Mapping};
use super::pcp::ANNOUNCEMENTS;
use super::{Place, Protocol, State};

/// A renewal that fails is tried again at half of what is left, down to this.
const LEAST_WAIT: Duration = Duration::from_secs(10);

/// After a router has said that it began anew: it may say so several times, and to many machines at once.
const AFTER_RESTART: Duration = Duration::from_secs(1);

/// How long giving back may take.
const FAREWELL: Duration = Duration::from_millis(800);

enum Order {
    Place(Option<Place>),
    GiveBack(oneshot::Sender<()>),
}

/// The door to the task. Dropping it ends the task without giving back.
pub struct Mapper {
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Mapper {
    /// Starts the task for a UDP port; it tells each new state.
    pub fn start(port: u16, tell: impl Fn(State) + Send + 'static) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let tell = Box::new(tell);
        let keeper =
            Keeper { port, tell, inbox, client: None, place: None, former: None, due: None, state: None };
        Self { orders, task: tokio::spawn(keeper.run()) }
    }

    /// This machine is there now; `None` where no port is wanted.
    pub fn set_place(&self, place: Option<Place>) {
        // Only fails while the agent stops.
        let _ = self.orders.send(Order::Place(place));
    }

    /// Gives the port back; does not take long.
    pub async fn give_back(&self) {
        let (reply, done) = oneshot::channel();
        if self.orders.send(Order::GiveBack(reply)).is_ok() {
            let _ = timeout(FAREWELL, done).await;
        }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    port: u16,
    tell: Box<dyn Fn(State) + Send>,
    inbox: mpsc::UnboundedReceiver<Order>,
    place: Option<Place>,
    client: Option<(Client, Option<Mapping>)>,
    /// The outer address that was had before, which peers may know.
    former: Option<SocketAddrV4>,
    /// When there is something to do.
    due: Option<Instant>,
    /// What was told last.
    state: Option<State>,
}

enum Turn {
    Order(Option<Order>),
    Due,
    Announced(Vec<u8>),
}

impl Keeper {
    async fn run(mut self) {
        let mut announcements = None;
        loop {
            let turn = tokio::select! {
                order = self.inbox.recv() => Turn::Order(order),
                () = at(self.due) => Turn::Due,
                datagram = announced(announcements.as_ref(), self.place) => Turn::Announced(datagram),
            };
            match turn {
                Turn::Order(Some(Order::Place(place))) if place == self.place => {}
                Turn::Order(Some(Order::Place(place))) => {
                    self.move_to(place);
                    announcements = self.place.and_then(|place| listen(place).ok());
                }
                Turn::Order(Some(Order::GiveBack(reply))) => {
                    self.give_back().await;
                    // Who waited may have gone on.
                    let _ = reply.send(());
                }
                Turn::Order(None) => return,
                Turn::Due => self.work().await,
                Turn::Announced(datagram) => self.handle_announcement(&datagram),
            }
        }
    }

    fn move_to(&mut self, place: Option<Place>) {
        // The router of the place before is out of reach, as a rule; its mapping ends by itself.
        self.place = place;
        let asked = place.filter(Place::is_behind_nat);
        self.client = asked.map(|place| (Client::new(place, self.port), None));
        self.former = None;
        self.due = asked.map(|_| Instant::now());
        self.note(State::default());
    }

    /// Asks, or renews. An order that comes meanwhile waits for a few seconds at most.
    async fn work(&mut self) {
        self.due = None;
        let Some((client, mapping)) = &self.client else { return };
        let (client, before) = (*client, mapping.clone());
        let renewed = match &before {
            Some(mapping) => client.renew(mapping).await,
            None => None,
        };
        let mapping = match (renewed, before) {
            (Some(renewed), _) => Some(renewed),
            (None, Some(old)) => return self.renewal_failed(client, old).await,
            (None, None) => return self.ask(client).await,
        };
        self.keep(client, mapping);
        let offered = self.state.clone().unwrap_or_default().offered;
        self.note(State { asked: true, offered, mapped: self.mapped() });
    }

    async fn ask(&mut self, client: Client) {
        let offers = client.ask(self.former).await;
        self.keep(client, offers.mapping);
        tracing::debug!(offered = ?offers.protocols, mapped = ?self.mapped(), "the router was asked for a port");
        self.note(State { asked: true, offered: offers.protocols, mapped: self.mapped() });
    }

    /// Until the mapping has lapsed it is asked for again; then the router is asked from the start, once.
    async fn renewal_failed(&mut self, client: Client, old: Mapping) {
        let left = old.lifetime / 2;
        if left > LEAST_WAIT {
            self.client = Some((client, Some(old.for_yet(left))));
            self.due = Some(Instant::now() + left / 2);
            return;
        }
        self.client = Some((client, None));
        self.ask(client).await;
    }

    fn keep(&mut self, client: Client, mapping: Option<Mapping>) {
        if let Some(mapping) = &mapping {
            self.former = Some(mapping.external);
            self.due = Some(Instant::now() + mapping.lifetime / 2);
        }
        self.client = Some((client, mapping));
    }

    fn mapped(&self) -> Option<(Protocol, SocketAddrV4)> {
        let (_, mapping) = self.client.as_ref()?;
        mapping.as_ref().map(|mapping| (mapping.protocol(), mapping.external))
    }

    fn handle_announcement(&mut self, datagram: &[u8]) {
        let Some((_, Some(mapping))) = &self.client else { return };
        if Client::has_begun_anew(mapping, datagram, Instant::now()) {
            tracing::debug!("the router has begun anew; it is asked again");
            let soon = Instant::now() + AFTER_RESTART;
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    async fn give_back(&mut self) {
        if let Some((client, Some(mapping))) = self.client.take() {
            client.give_back(&mapping).await;
        }
        self.due = None;
        self.place = None;
    }

    fn note(&mut self, state: State) {
        if self.state.as_ref() != Some(&state) {
            self.state = Some(state.clone());
            (self.tell)(state);
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// A socket that hears what routers announce on this machine's link.
fn listen(place: Place) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Transport::UDP))?;
    // Other programs listen there, too.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, ANNOUNCEMENTS.port())).into())?;
    socket.join_multicast_v4(ANNOUNCEMENTS.ip(), &place.own)?;
    UdpSocket::from_std(socket.into())
}

/// The next datagram from the router of this place.
async fn announced(socket: Option<&UdpSocket>, place: Option<Place>) -> Vec<u8> {
    let (Some(socket), Some(place)) = (socket, place) else { return std::future::pending().await };
    let mut buffer = [0; 128];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((len, from)) if from.ip() == place.router => {
                return buffer.get(..len).unwrap_or_default().to_vec();
            }
            Ok(_) => {}
            // It is gone with its interface.
            Err(_) => return std::future::pending().await,
        }
    }
}
