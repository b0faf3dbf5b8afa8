//! The standing session of one network with its coordinator: a task that connects, resumes, and connects again.
//!
//! It owns the connection and the revision that it last passed on; everything else belongs to the agent's loop, to which
//! it sends [`SessionEvent`]s and from which it takes [`Order`]s. The overlay never waits for it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ria_protocol::demand::Sought;
use ria_protocol::enrol::MembershipNews;
use ria_protocol::enrol::{Authority, Certificate};
use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::links::LinkNews;
use ria_protocol::map::{Candidate, PatchSet, Relay, Revision, Snapshot};
use ria_protocol::message::{CoordinatorMessage, LiveUpdate, NodeMessage, Resume};
use ria_protocol::prefix::Prefix;
use ria_protocol::requester::{LocalChange, LocalDeed, Requester};
use ria_protocol::rotation::{self, Rotate};
use ria_protocol::time::UnixTime;
use ria_protocol::version::Protocol;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff::{Backoff, jitter};
use super::enrol::certificate_request;
use super::finding::{self, FindError};
use super::greet::{CoordinatorTime, GreetError, Greeted};
use super::reach::Reach;
use super::stream::{Stream, StreamError, unexpected};
use super::tls::{self, Trust};
use crate::state::kept::Kept;
use crate::state::membership::{NodeKeys, WgKey};
use crate::state::untold::Note;

/// Candidates change in bursts (an interface brings several addresses); one report follows after this quiet time.
const REPORT_DELAY: Duration = Duration::from_millis(50);

/// How long a farewell may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the answer to a request for a new certificate is waited for before it is asked for again.
const RENEWAL_RETRY: Duration = Duration::from_secs(3600);

/// Between attempts when the coordinator knows this node but refuses it for a reason that only people can mend.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// The same for a node that is disabled: one command of an administrator brings it back, and somebody waits for that.
const DISABLED_WAIT: Duration = Duration::from_secs(4);

/// A sleep that did not come about, and that nobody has called off, ends by this. Time asleep does not count.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a session needs to begin.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// How this machine gets out.
    pub reach: Reach,
    /// The network.
    pub network: NetworkId,
    /// This node in it.
    pub node: NodeId,
    /// This run.
    pub boot: BootId,
    /// Where the coordinator answers, best first.
    pub urls: Vec<String>,
    /// The node's keys.
    pub keys: NodeKeys,
    /// Its certificate and whom to trust.
    pub certificate: Certificate,
    /// Revision of the stored map.
    pub revision: Option<Revision>,
    /// Whom it lists beside this node, in an on-demand network.
    pub holds: Option<Vec<NodeId>>,
    /// The coordinator's clock at the last contact.
    pub time: UnixTime,
    /// What is kept for the coordinator.
    pub kept: Kept,
    /// Local networks that this node offers to forward to.
    pub routes: Vec<Prefix>,
}

/// From the agent's loop.
#[derive(Debug)]
pub enum Order {
    /// This revision is applied and stored.
    Acknowledge(Revision),
    /// This node can be reached here now.
    Report(Vec<Candidate>),
    /// The network under the stream has changed: connect anew, at once.
    Reconnect,
    /// The map does not fit any more: ask for a whole one.
    Resynchronise,
    /// The coordinator may be found at these URLs from now on.
    Urls(Vec<String>),
    /// In an on-demand network this node holds these members; absent: its network is another one.
    Holds(Option<Vec<NodeId>>),
    /// The network has become on-demand, and of all members this node goes on holding these.
    Hold(Vec<NodeId>),
    /// There is something to say to this member, in an on-demand network. Without a stream this is nothing: whoever has
    /// something to say orders it again.
    Seek(Sought),
    /// There was nothing to say to these members for a while. Without a stream this is nothing: the next one begins with
    /// whom this node holds.
    Release(Vec<NodeId>),
    /// Tell the coordinator what was changed on this machine. Without a stream this is nothing: whoever orders it does
    /// so again when there is one.
    Note(Note),
    /// This machine goes to sleep: close the stream, say so, and stay away until the network is told to be another one.
    Pause(oneshot::Sender<()>),
    /// End, after all that was ordered before.
    Retire,
    /// This is new of the node's links, up to what happened with this number. Without a stream it is nothing.
    Links(LinkNews, u64),
    /// This node wants to be known by this WireGuard key.
    Rotate(WgKey),
    /// Tell the coordinator that the node leaves for good, and who wants that; answers whether it heard.
    Leave(Requester, oneshot::Sender<bool>),
}

/// To the agent's loop.
#[derive(Debug)]
pub enum SessionEvent {
    /// The stream is open.
    Connected {
        /// Which URL answered.
        url: String,
        /// Its address, unless a proxy hides it.
        address: Option<IpAddr>,
        /// Version of the coordinator.
        version: String,
        /// Its clock.
        time: CoordinatorTime,
        /// What this connection speaks.
        protocol: Protocol,
    },
    /// The stream is lost or can't be opened; it is tried again.
    Lost(String),
    /// The coordinator refuses this node.
    Refused(Refusal),
    /// A whole map.
    Snapshot(Snapshot),
    /// Changes of the map.
    Patches(PatchSet),
    /// News about this node's own membership.
    Membership(MembershipNews),
    /// News of members.
    Live(LiveUpdate),
    /// Relays.
    Relays(Vec<Relay>),
    /// A new certificate.
    Renewed(Certificate),
    /// What the coordinator has given to keep.
    Kept(Box<Kept>),
    /// Whom to trust from now on.
    Authorities(Vec<Authority>),
    /// The coordinator was told of what had happened to links up to this number.
    LinksTold(u64),
    /// Nobody is there whom this node sought, or may have to do with.
    Absent(Sought),
    /// The coordinator was told of all notes up to this number.
    Told(u64),
}

/// The door to a session's task. The task ends when this is dropped.
#[derive(Debug)]
pub struct Session {
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Session {
    /// Starts the task.
    pub fn start(config: SessionConfig, events: mpsc::Sender<(NetworkId, SessionEvent)>) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let runner = Runner {
            known: Known { revision: config.revision, holds: config.holds.clone() },
            config,
            events,
            inbox,
            report: None,
            report_at: None,
            clock: None,
            new_urls: None,
            told: 0,
            challenge: None,
            proved: None,
        };
        Self { orders, task: tokio::spawn(runner.run()) }
    }

    /// Gives an order.
    pub fn order(&self, order: Order) {
        // A task that has ended (the node was removed) has no use for orders.
        let _ = self.orders.send(order);
    }

    /// Ends the session in good order, when what was ordered is told.
    pub async fn retire(mut self) {
        self.order(Order::Retire);
        let _ = timeout(LEAVE_TIMEOUT, &mut self.task).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Runner {
    config: SessionConfig,
    events: mpsc::Sender<(NetworkId, SessionEvent)>,
    inbox: mpsc::UnboundedReceiver<Order>,
    known: Known,
    report: Option<Vec<Candidate>>,
    /// When the report is to be sent; `None` while the coordinator has it.
    report_at: Option<Instant>,
    /// The coordinator's clock at the beginning of this connection.
    clock: Option<CoordinatorTime>,
    /// For one proof of another key on this connection.
    challenge: Option<Challenge>,
    /// The key that was proved on this connection.
    proved: Option<WgPublicKey>,
    /// Where the coordinator may be found from now on, said while no stream was open.
    new_urls: Option<Vec<String>>,
    /// The last note that was told.
    told: u64,
}

/// What this node knows of the network.
#[derive(Debug, Clone)]
struct Known {
    /// Revision passed on to the agent's loop.
    revision: Option<Revision>,
    /// Whom this node holds, in an on-demand network.
    holds: Option<Vec<NodeId>>,
}

/// What a proof is bound to.
struct Challenge {
    public: WgPublicKey,
    exporter: [u8; 32],
}

/// Why a connection ended.
enum End {
    Failed(String),
    Drained(Duration),
    Reconnect,
    Paused(oneshot::Sender<()>),
    Refused(Refusal),
    Stop,
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Refused(refusal) => Self::Refused(refusal),
            other @ (StreamError::Closed
            | StreamError::Broken(_)
            | StreamError::Silent
            | StreamError::Malformed(_)) => Self::Failed(other.to_string()),
        }
    }
}

impl From<FindError> for End {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Greet(GreetError::Stream(error)) => error.into(),
            other
            @ (FindError::Greet(GreetError::Dial(_)) | FindError::Outdated(_) | FindError::Setup(_)) => {
                Self::Failed(other.to_string())
            }
        }
    }
}

impl Runner {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let (end, was_open) = self.connect_and_serve().await;
            if was_open {
                backoff.reset();
            }
            let wait = match end {
                End::Stop => return,
                End::Reconnect => {
                    backoff.reset();
                    Duration::ZERO
                }
                End::Paused(closed) => {
                    let _ = closed.send(());
                    LONGEST_PAUSE
                }
                End::Drained(after) => {
                    self.tell(SessionEvent::Lost("the coordinator is restarting".into())).await;
                    after + jitter(after)
                }
                End::Failed(reason) => {
                    self.tell(SessionEvent::Lost(reason)).await;
                    backoff.next()
                }
                End::Refused(refusal) => {
                    let code = refusal.code;
                    self.tell(SessionEvent::Refused(refusal)).await;
                    if matches!(code, ErrorCode::NotAMember | ErrorCode::MembershipEnded) {
                        return;
                    }
                    let soon = matches!(code, ErrorCode::Disabled | ErrorCode::LoginDue);
                    let patience = if soon { DISABLED_WAIT } else { REFUSED_WAIT };
                    if code.is_temporary() { backoff.next() } else { patience / 2 + jitter(patience / 2) }
                }
            };
            match self.wait(wait).await {
                Some(End::Stop) => return,
                Some(_) => backoff.reset(),
                None => {}
            }
        }
    }

    /// One connection from beginning to end; also tells whether the session was open.
    async fn connect_and_serve(&mut self) -> (End, bool) {
        if let Some(urls) = self.new_urls.take() {
            self.config.urls = urls;
        }
        let opened = tokio::select! {
            opened = open(&self.config, self.known.clone()) => opened,
            end = orders_while_away(&mut self.inbox, &mut self.report, &mut self.known, &mut self.new_urls) => {
                return (end, false);
            }
        };
        let (mut stream, connected, challenge) = match opened {
            Ok(opened) => opened,
            Err(end) => return (end, false),
        };
        if let SessionEvent::Connected { time, .. } = &connected {
            self.config.time = time.remembered(self.config.time, Instant::now());
            self.clock = Some(*time);
            (self.challenge, self.proved) = (Some(challenge), None);
        }
        self.tell(connected).await;
        self.report_at = self.report.is_some().then(Instant::now);
        let end = self.serve(&mut stream).await.err().unwrap_or(End::Stop);
        stream.close().await;
        (end, true)
    }

    async fn serve(&mut self, stream: &mut Stream) -> Result<(), End> {
        let mut renew_at = self.renewal();
        loop {
            let report_at = self.report_at.unwrap_or_else(far_away);
            tokio::select! {
                message = stream.receive() => {
                    let message = message?;
                    let renewed = matches!(message, CoordinatorMessage::Renewed(_));
                    self.take(message).await?;
                    if renewed {
                        renew_at = self.renewal();
                    }
                }
                order = self.inbox.recv() => match order {
                    Some(order) => self.obey(order, stream).await?,
                    None => return Ok(()),
                },
                () = sleep_until(report_at) => {
                    self.report_at = None;
                    if let Some(report) = &self.report {
                        stream.send(&NodeMessage::Report(report.clone())).await?;
                    }
                }
                () = sleep_until(renew_at) => {
                    let request = certificate_request(&self.config.keys).map_err(|e| End::Failed(e.to_string()))?;
                    stream.send(&NodeMessage::Renew(request)).await?;
                    // The answer sets the next time; ask again should it get lost.
                    renew_at = Instant::now() + RENEWAL_RETRY;
                }
            }
        }
    }

    async fn take(&mut self, message: CoordinatorMessage) -> Result<(), End> {
        let event = match message {
            CoordinatorMessage::Snapshot(mut snapshot) => {
                self.config.kept.sift(&mut snapshot);
                self.known.revision = Some(snapshot.revision);
                SessionEvent::Snapshot(snapshot)
            }
            CoordinatorMessage::Patches(mut patches) => {
                self.config.kept.sift_patches(&mut patches);
                self.known.revision = Some(patches.to);
                SessionEvent::Patches(patches)
            }
            CoordinatorMessage::Live(update) => SessionEvent::Live(update),
            CoordinatorMessage::Relays(relays) => SessionEvent::Relays(relays),
            CoordinatorMessage::Renewed(certificate) => {
                self.config.certificate = certificate.clone();
                SessionEvent::Renewed(certificate)
            }
            CoordinatorMessage::Authorities(authorities) if authorities.is_empty() => return Ok(()),
            CoordinatorMessage::Authorities(authorities) => {
                self.config.certificate.authorities.clone_from(&authorities);
                SessionEvent::Authorities(authorities)
            }
            CoordinatorMessage::Drain(after) => {
                return Err(End::Drained(Duration::from_millis(after.into())));
            }
            CoordinatorMessage::Keep(keep) => {
                if !self.config.kept.take(self.config.network, keep) {
                    return Ok(());
                }
                SessionEvent::Kept(Box::new(self.config.kept.clone()))
            }
            CoordinatorMessage::Refused(refusal) => return Err(End::Refused(refusal)),
            CoordinatorMessage::Membership(news) => SessionEvent::Membership(news),
            CoordinatorMessage::Absent(sought) => SessionEvent::Absent(sought),
            CoordinatorMessage::Welcome(_) | CoordinatorMessage::Enrolled(_) | CoordinatorMessage::Left => {
                return Err(unexpected("a map or news").into());
            }
        };
        self.tell(event).await;
        Ok(())
    }

    async fn obey(&mut self, order: Order, stream: &mut Stream) -> Result<(), End> {
        match order {
            Order::Acknowledge(revision) => stream.send(&NodeMessage::Ack(revision)).await?,
            Order::Report(candidates) => {
                if self.report.as_ref() != Some(&candidates) {
                    self.report = Some(candidates);
                    self.report_at.get_or_insert(Instant::now() + REPORT_DELAY);
                }
            }
            Order::Urls(urls) => self.config.urls = urls,
            Order::Holds(holds) => self.known.holds = holds,
            Order::Hold(nodes) => {
                self.known.holds = Some(nodes.clone());
                stream.send(&NodeMessage::Hold(nodes)).await?;
            }
            Order::Seek(sought) => stream.send(&NodeMessage::Seek(sought)).await?,
            Order::Release(nodes) => stream.send(&NodeMessage::Release(nodes)).await?,
            Order::Rotate(key) => self.rotate(&key, stream).await?,
            Order::Reconnect => return Err(End::Reconnect),
            Order::Resynchronise => {
                self.known.revision = None;
                return Err(End::Reconnect);
            }
            // One that came while the stream was being replaced is ordered twice.
            Order::Note(note) if note.number <= self.told => {}
            Order::Note(note) => {
                stream.send(&note.message(self.time())).await?;
                self.told = note.number;
                self.tell(SessionEvent::Told(note.number)).await;
            }
            Order::Links(news, number) => {
                stream.send(&NodeMessage::Links(news)).await?;
                self.tell(SessionEvent::LinksTold(number)).await;
            }
            Order::Pause(closed) => return Err(End::Paused(closed)),
            Order::Retire => return Err(End::Stop),
            Order::Leave(by, reply) => {
                let change = LocalChange { deed: LocalDeed::Left, by, ago: 0 };
                let left = timeout(LEAVE_TIMEOUT, leave(stream, change)).await.unwrap_or(false);
                let _ = reply.send(left);
                return Err(End::Stop);
            }
        }
        Ok(())
    }

    /// Proves another WireGuard key, once on a connection; for yet another one it connects anew.
    async fn rotate(&mut self, key: &WgKey, stream: &mut Stream) -> Result<(), End> {
        let wg_key = key.public();
        if stream.protocol() < Protocol::V2 || self.proved == Some(wg_key) {
            return Ok(());
        }
        let Some(Challenge { public, exporter }) = self.challenge.take() else { return Err(End::Reconnect) };
        let shared = key.secret().diffie_hellman(&x25519_dalek::PublicKey::from(public.0));
        let transcript = rotation::Transcript { exporter: &exporter, challenge: &public, wg_key: &wg_key };
        let proof = rotation::proof(shared.as_bytes(), &transcript);
        self.proved = Some(wg_key);
        Ok(stream.send(&NodeMessage::Rotate(Rotate { wg_key, proof })).await?)
    }

    /// Waits before the next attempt; tells what ended the waiting before its time.
    async fn wait(&mut self, mut wait: Duration) -> Option<End> {
        loop {
            let Self { inbox, report, known, new_urls, .. } = self;
            let end = tokio::select! {
                () = tokio::time::sleep(wait) => return None,
                end = orders_while_away(inbox, report, known, new_urls) => end,
            };
            let End::Paused(closed) = end else { return Some(end) };
            let _ = closed.send(());
            wait = LONGEST_PAUSE;
        }
    }

    /// When to ask for a new certificate, by the coordinator's clock: when a third of its life has passed.
    fn renewal(&self) -> Instant {
        Instant::now() + renewal_due(&self.config.certificate).since(self.time())
    }

    /// The coordinator's time.
    fn time(&self) -> UnixTime {
        self.clock.map_or(self.config.time, |clock| clock.now(Instant::now()))
    }

    async fn tell(&self, event: SessionEvent) {
        // Only fails while the agent stops.
        let _ = self.events.send((self.config.network, event)).await;
    }
}

type Opened = (Stream, SessionEvent, Challenge);

/// Connects and resumes.
async fn open(config: &SessionConfig, Known { revision, holds }: Known) -> Result<Opened, End> {
    let trust = Trust::Authorities(config.certificate.authorities.clone());
    let tls = tls::client_config(trust, config.time, &config.keys, Some(&config.certificate.leaf))
        .map_err(|error| End::Failed(error.to_string()))?;
    let mut greeted = finding::find(&config.reach, &config.urls, &tls, &config.kept).await?;
    finding::testify(&mut greeted, &config.kept).await?;
    let Greeted { mut stream, welcome, url, address, exporter, time } = greeted;
    let resume = Resume {
        network: config.network,
        node: config.node,
        // The map of an on-demand network says nothing of members that are not held: it is told whole each time.
        revision: revision.filter(|_| holds.is_none()),
        boot: config.boot,
        clock: Some(SystemTime::now().into()),
        trusts: Some(tls::pins(&config.certificate.authorities)),
        routes: Some(config.routes.clone()).filter(|routes| !routes.is_empty()),
        holds: Some(holds.unwrap_or_default()),
    };
    stream.send(&NodeMessage::Resume(resume)).await?;
    let (protocol, version) = (stream.protocol(), welcome.coordinator_version);
    let challenge = Challenge { public: welcome.challenge, exporter };
    Ok((stream, SessionEvent::Connected { url, address, version, time, protocol }, challenge))
}

async fn leave(stream: &mut Stream, change: LocalChange) -> bool {
    if stream.send(&NodeMessage::Changed(change)).await.is_err()
        || stream.send(&NodeMessage::Leave).await.is_err()
    {
        return false;
    }
    loop {
        match stream.receive().await {
            Ok(CoordinatorMessage::Left) => return true,
            // Refused as a stranger: it is out already.
            Ok(CoordinatorMessage::Refused(refusal)) => return refusal.code == ErrorCode::NotAMember,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// Takes orders while no stream is open; returns when one of them ends the waiting.
async fn orders_while_away(
    inbox: &mut mpsc::UnboundedReceiver<Order>,
    report: &mut Option<Vec<Candidate>>,
    known: &mut Known,
    new_urls: &mut Option<Vec<String>>,
) -> End {
    loop {
        match inbox.recv().await {
            None => return End::Stop,
            Some(Order::Report(candidates)) => *report = Some(candidates),
            Some(Order::Reconnect) => return End::Reconnect,
            Some(Order::Urls(urls)) => *new_urls = Some(urls),
            Some(Order::Resynchronise) => known.revision = None,
            Some(Order::Holds(holds)) => known.holds = holds,
            Some(Order::Hold(nodes)) => known.holds = Some(nodes),
            // The next Resume tells the revision, and the map that comes then whether a key is wanted.
            Some(Order::Acknowledge(_) | Order::Rotate(_)) => {}
            // What is not told yet comes again with the next stream, and whoever has something to say says so again.
            Some(Order::Note(_) | Order::Links(..) | Order::Seek(_) | Order::Release(_)) => {}
            Some(Order::Pause(closed)) => return End::Paused(closed),
            Some(Order::Retire) => return End::Stop,
            Some(Order::Leave(_, reply)) => {
                let _ = reply.send(false);
                return End::Stop;
            }
        }
    }
}

/// When a third of a certificate's life has passed. One that does not say when it was issued is backdated by a day.
fn renewal_due(certificate: &Certificate) -> UnixTime {
    const BACKDATED: u64 = 86_400;
    let begin = || tls::validity(&certificate.leaf).map_or(0, |(begin, _)| begin + BACKDATED);
    let issued = certificate.issued.map_or_else(begin, |issued| issued.0);
    UnixTime(issued.saturating_add(certificate.not_after.0.saturating_sub(issued) / 3))
}

/// A time that does not come.
fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 30)
}
