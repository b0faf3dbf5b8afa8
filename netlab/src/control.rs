//! The door to a running lab: an abstract Unix socket, one request per line and one reply per request, as JSON.
//!
//! The socket's name is `netlab/<lab>` and exists in no file system, so nothing is left of a killed lab. Only root is
//! answered, and only a lab of root's is believed. Requests come to the one loop that owns the lab as messages.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::error::Error;
use crate::lab::Lab;
use crate::link::lane::Counters;
use crate::link::{Direction, Link};
use crate::nat::NatReport;
use crate::sys::{Namespaces, send_kill};

const PREFIX: &str = "netlab/";

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Tell what the lab consists of.
    Show,
    /// Tell the init process of a host.
    Enter {
        /// The host.
        host: String,
    },
    /// Kill this process, which runs in a host, when the connection ends.
    Guard {
        /// The process.
        pid: u32,
    },
    /// Move a host to another network.
    Move {
        /// The host.
        host: String,
        /// The network.
        network: String,
    },
    /// Change a link.
    Set {
        /// Host, or router for its uplink.
        link: String,
        /// `NAME=VALUE`.
        settings: Vec<String>,
    },
    /// Tell the quality of a link, and what became of its frames.
    Link {
        /// Host, or router for its uplink.
        link: String,
    },
    /// Let nothing pass a link for a while.
    BlackOut {
        /// Host, or router for its uplink.
        link: String,
        /// How long.
        seconds: f64,
        /// One way only.
        direction: Option<Direction>,
    },
    /// Tell what an emulated translator holds.
    Nat {
        /// The router.
        router: String,
    },
    /// Have an emulated translator forget all mappings.
    RebootNat {
        /// The router.
        router: String,
    },
    /// Give an emulated translator another address outside.
    ReaddressNat {
        /// The router.
        router: String,
        /// The next free one when absent.
        address: Option<Ipv4Addr>,
    },
    /// End the lab.
    Down,
}

/// A host as told to clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostReport {
    /// Its name.
    pub name: String,
    /// The network it is on.
    pub network: String,
    /// Its IPv4 address there; 0.0.0.0 where there is none.
    pub address: Ipv4Addr,
    /// Its IPv6 address there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
    /// Its init process.
    pub init: u32,
}

/// A lab as told to clients, and by `netlab up --json` when it is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabReport {
    /// Its name.
    pub name: String,
    /// The process that owns it.
    pub owner: u32,
    /// Its hosts.
    pub hosts: Vec<HostReport>,
}

impl LabReport {
    /// What there is to tell of a lab of this process.
    pub fn of(lab: &Lab) -> Self {
        let hosts = lab.hosts().map(|host| HostReport {
            name: host.name().to_owned(),
            network: host.network(),
            address: host.address(),
            address6: host.address6(),
            init: host.init(),
        });
        Self { name: lab.name().to_owned(), owner: std::process::id(), hosts: hosts.collect() }
    }
}

/// A link as told to clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Its settings, as far as they differ from a perfect link's.
    pub settings: Link,
    /// What became of frames on their way up, if an emulator carries them.
    pub up: Option<Counters>,
    /// The same for the way down.
    pub down: Option<Counters>,
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Request::Show`].
    Lab(LabReport),
    /// To [`Request::Enter`].
    Init(u32),
    /// To [`Request::Link`].
    Link(Box<LinkReport>),
    /// To [`Request::Nat`].
    Nat(NatReport),
    /// To [`Request::ReaddressNat`].
    Address(Ipv4Addr),
    /// To the others.
    Done,
    /// It didn't work.
    Failed(String),
}

/// An open door: hand it to [`serve`].
pub struct Door {
    listener: UnixListener,
}

impl Door {
    /// Takes the lab's name; fails with `AddrInUse` when a lab of this name runs.
    pub fn open(lab: &str) -> io::Result<Self> {
        Ok(Self { listener: UnixListener::bind_addr(&address(lab)?)? })
    }
}

/// Owns the lab and answers until a client asks for its end or `should_end` says so.
pub fn serve(mut lab: Lab, door: Door, should_end: impl Fn() -> bool) {
    let (requests, inbox) = channel();
    thread::spawn(move || accept(&door.listener, &requests));
    let ended = answer(&mut lab, &inbox, should_end);
    drop(lab);
    if let Some(reply) = ended {
        let _ = reply.send(Reply::Done);
        // The process ends next; the answer is to go out before.
        thread::sleep(Duration::from_millis(50));
    }
}

type Asked = (Request, Sender<Reply>);

fn answer(lab: &mut Lab, inbox: &Receiver<Asked>, should_end: impl Fn() -> bool) -> Option<Sender<Reply>> {
    while !should_end() {
        let (request, reply) = match inbox.recv_timeout(Duration::from_millis(50)) {
            Ok(asked) => asked,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        if matches!(request, Request::Down) {
            return Some(reply);
        }
        let _ = reply.send(handle(lab, &request).unwrap_or_else(|error| Reply::Failed(error.to_string())));
    }
    None
}

fn handle(lab: &mut Lab, request: &Request) -> Result<Reply, Error> {
    match request {
        Request::Show => return Ok(Reply::Lab(LabReport::of(lab))),
        Request::Enter { host } => return lab.host(host).map(|host| Reply::Init(host.init())),
        Request::Move { host, network } => {
            lab.move_host(host, network)?;
        }
        Request::Set { link, settings } => {
            let mut changed = lab.link(link)?.clone();
            changed.set_all(settings)?;
            lab.set_link(link, changed)?;
        }
        Request::Link { link } => {
            let (up, down) = lab.link_counters(link)?.unzip();
            let settings = lab.link(link)?.clone();
            return Ok(Reply::Link(Box::new(LinkReport { settings, up, down })));
        }
        Request::BlackOut { link, seconds, direction } => {
            let time = Duration::try_from_secs_f64(*seconds).map_err(|_| Error::BlackOut)?;
            lab.black_out(link, *direction, time)?;
        }
        Request::Nat { router } => return lab.nat_report(router).map(Reply::Nat),
        Request::RebootNat { router } => lab.reboot_nat(router)?,
        Request::ReaddressNat { router, address } => {
            return lab.readdress_nat(router, *address).map(Reply::Address);
        }
        // Both are answered before they get here.
        Request::Guard { .. } | Request::Down => {}
    }
    Ok(Reply::Done)
}

fn accept(listener: &UnixListener, requests: &Sender<Asked>) {
    for stream in listener.incoming().flatten() {
        let requests = requests.clone();
        if is_root(&stream) {
            thread::spawn(move || converse(&stream, &requests));
        }
    }
}

/// One client. What it started is killed when it goes, however it goes.
fn converse(stream: &UnixStream, requests: &Sender<Asked>) -> Option<()> {
    let mut guarded = Vec::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let reply = match serde_json::from_str(&line) {
            Ok(Request::Guard { pid }) => match Namespaces::of(pid) {
                Ok(process) => {
                    guarded.push(process);
                    Reply::Done
                }
                Err(error) => Reply::Failed(error.to_string()),
            },
            Ok(request) => {
                let (sender, answer) = channel();
                requests.send((request, sender)).ok()?;
                answer.recv().ok()?
            }
            Err(error) => Reply::Failed(format!("request not understood: {error}")),
        };
        send_line(stream, &reply).ok()?;
    }
    guarded.iter().for_each(send_kill);
    Some(())
}

fn send_line(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn is_root(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == 0)
}

fn address(lab: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{PREFIX}{lab}"))
}

/// A connection to a running lab.
pub struct Client {
    lab: String,
    stream: BufReader<UnixStream>,
}

/// Why a running lab did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers under this name.
    #[error("no lab named '{0}' runs here: 'netlab ls' lists those that do, 'netlab up FILE' starts one")]
    NoLab(String),
    /// Somebody else took the name.
    #[error("the lab '{0}' belongs to another user; it is not used")]
    NotRoots(String),
    /// The lab refused.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error("lab '{lab}': {source}")]
    Io {
        /// The lab.
        lab: String,
        /// Why.
        source: io::Error,
    },
}

impl Client {
    /// Connects to the lab of this name.
    pub fn connect(lab: &str) -> Result<Self, ClientError> {
        let stream = address(lab)
            .and_then(|address| UnixStream::connect_addr(&address))
            .map_err(|_| ClientError::NoLab(lab.to_owned()))?;
        if !is_root(&stream) {
            return Err(ClientError::NotRoots(lab.to_owned()));
        }
        Ok(Self { lab: lab.to_owned(), stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let broken = |source| ClientError::Io { lab: self.lab.clone(), source };
        send_line(self.stream.get_ref(), request).map_err(broken)?;
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(broken)?;
        if line.is_empty() {
            return Err(broken(io::Error::new(io::ErrorKind::UnexpectedEof, "the lab has ended")));
        }
        let reply = serde_json::from_str(&line).map_err(io::Error::other).map_err(broken)?;
        if let Reply::Failed(reason) = reply { Err(ClientError::Refused(reason)) } else { Ok(reply) }
    }

    /// A program to run in a host of the lab. It belongs to the caller; [`Self::guard`] it.
    pub fn command(&mut self, host: &str, program: &std::ffi::OsStr) -> Result<Command, ClientError> {
        let reply = self.ask(&Request::Enter { host: host.to_owned() })?;
        let Reply::Init(init) = reply else {
            return Err(ClientError::Refused(format!("unexpected answer {reply:?}")));
        };
        let broken = |source| ClientError::Io { lab: self.lab.clone(), source };
        let namespaces = Namespaces::of(init).map_err(broken)?;
        Ok(Command::new(host, Arc::new(namespaces), program))
    }

    /// Has the lab kill this process when this connection ends.
    pub fn guard(&mut self, pid: u32) -> Result<(), ClientError> {
        self.ask(&Request::Guard { pid }).map(drop)
    }
}

/// Names of the labs that run on this machine.
pub fn running() -> io::Result<Vec<String>> {
    let mut labs: Vec<String> = std::fs::read_to_string("/proc/net/unix")?
        .lines()
        // Listening sockets have the flag __SO_ACCEPTCON; connections to them carry the name, too.
        .filter(|line| line.split_whitespace().nth(3) == Some("00010000"))
        .filter_map(|line| line.split_once(&format!("@{PREFIX}")).map(|(_, name)| name.to_owned()))
        .collect();
    labs.sort();
    Ok(labs)
}
