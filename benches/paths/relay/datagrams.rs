//! Load over UDP. One thread sends and receives; so much may be under way at a time that nothing needs to be dropped, and
//! what counts is how fast it comes round.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netlab::Host;
use nix::poll::{PollFd, PollFlags, poll};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rand_core::{OsRng, RngCore};
use ria_core::relay::{RelayClient, RelayCredentials};
use ria_core::stun::Randomness;

use super::servers::{Carried, Place};

/// Bytes of a datagram as robots send them: the tunnel's MTU with WireGuard's header.
const PAYLOAD: usize = 1312;

/// Datagrams under way.
const WINDOW: usize = 128;

const LENGTH: Duration = Duration::from_secs(3);

/// Nothing came for so long: what was under way is lost.
const PATIENCE: Duration = Duration::from_millis(50);

const BUFFER: usize = 65_536;

/// One client.
struct End {
    socket: UdpSocket,
    state: UdpSocketState,
    client: RelayClient,
    memory: Vec<u8>,
}

/// Sends from one client to the other, in runs of so many datagrams.
pub fn carry(host: &Host, place: &Place, run: usize) -> Result<Carried> {
    let [first, second] = &place.credentials;
    let mut sender = End::allocate(host, place.udp, first)?;
    let mut receiver = End::allocate(host, place.udp, second)?;
    let (from, to) = (sender.relayed()?, receiver.relayed()?);
    receiver.connect(from)?;
    sender.connect(to)?;
    let header = sender.client.wrap(to, PAYLOAD, Instant::now()).context("no channel")?;
    let datagram = [&header[..], &[0x5a; PAYLOAD]].concat();
    let (contents, segment) = (datagram.repeat(run), (run > 1).then_some(datagram.len()));
    let (mut under_way, mut arrived, mut lost) = (0, 0, 0);
    let begin = Instant::now();
    let mut progress = begin;
    while begin.elapsed() < LENGTH {
        while under_way + run <= WINDOW && sender.send(place.udp, &contents, segment)? {
            under_way += run;
        }
        let count = receiver.count()?;
        if count > 0 {
            arrived += count;
            under_way = under_way.saturating_sub(count);
            progress = Instant::now();
        } else if progress.elapsed() > PATIENCE {
            lost += under_way;
            (under_way, progress) = (0, Instant::now());
        } else {
            receiver.wait(1)?;
        }
    }
    ensure!(lost * 20 < arrived.max(1), "{lost} of {arrived} datagrams got lost");
    Ok(Carried { payload: (arrived * PAYLOAD) as u64, time: begin.elapsed() })
}

impl End {
    fn allocate(host: &Host, server: SocketAddr, credentials: &RelayCredentials) -> Result<Self> {
        let socket = host.enter(|| UdpSocket::bind((host.address(), 0)))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let client = RelayClient::new(server, credentials.clone(), Randomness::new(seed), Instant::now());
        let mut end = Self { socket, state, client, memory: vec![0; BUFFER * BATCH_SIZE] };
        end.drive(|client| client.relayed_address().is_some()).context("no allocation")?;
        Ok(end)
    }

    fn relayed(&self) -> Result<SocketAddr> {
        self.client.relayed_address().context("the allocation is gone")
    }

    fn connect(&mut self, peer: SocketAddr) -> Result<()> {
        self.client.connect_peer(peer, Instant::now())?;
        self.drive(|client| client.channel(peer).is_some()).context("no channel")
    }

    /// Speaks TURN until something is so.
    fn drive(&mut self, done: impl Fn(&RelayClient) -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        let mut buffer = [0; 2048];
        while !done(&self.client) {
            ensure!(Instant::now() < end, "the relay gives no useful answer");
            self.client.handle_timeout(Instant::now());
            while let Some(outgoing) = self.client.poll_transmit() {
                self.socket.send_to(&outgoing.payload, outgoing.to)?;
            }
            self.wait(20)?;
            while let Some((len, from)) = unless_empty(self.socket.recv_from(&mut buffer))? {
                let datagram = buffer.get(..len).unwrap_or_default();
                self.client.handle_datagram(from, datagram, Instant::now());
            }
        }
        Ok(())
    }

    /// Sends a run; `false` when the socket takes no more.
    fn send(&self, to: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Result<bool> {
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
        let sent = self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        Ok(unless_empty(sent)?.is_some())
    }

    /// How many datagrams came since the last time.
    fn count(&mut self) -> Result<usize> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut chunks = self.memory.chunks_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas);
        let count = unless_empty(received)?.unwrap_or(0);
        let full = |meta: &&RecvMeta| meta.stride > PAYLOAD;
        Ok(metas.iter().take(count).filter(full).map(|meta| meta.len.div_ceil(meta.stride)).sum())
    }

    fn wait(&self, milliseconds: u8) -> Result<()> {
        poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], milliseconds)?;
        Ok(())
    }
}

/// What a socket gave, or `None` when it would have to wait.
fn unless_empty<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
