//! Moves what comes through the [`Server`] to where it goes: sockets in batches, streams through their queues.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tracing::debug;

use super::counters::{Counters, DropReason};
use super::io::{Order, clock};
use super::outbox::Outbox;
use super::outside::OutsideSockets;
use super::server::{Action, CHANNEL_HEADER, Clock, Server, Tuple, Via};
use super::socket::{BATCH, Listener, ReceiveBuffers};
use super::streams::{StreamNews, Streams, framing};

/// Batches that one socket may have handled before the others and the commands get their turn.
const BATCHES_IN_A_ROW: usize = 16;

pub(super) struct Traffic {
    listeners: Vec<Listener>,
    outside: OutsideSockets,
    streams: Streams,
    server: Server,
    counters: Arc<Counters>,
    outbox: Outbox,
    /// Where a datagram gets a header before it.
    wrapped: Vec<u8>,
}

impl Traffic {
    pub(super) fn new(listeners: Vec<Listener>, outside: OutsideSockets, server: Server) -> Self {
        let counters = server.counters();
        let streams = Streams::new(counters.clone());
        let (outbox, wrapped) = (Outbox::default(), Vec::new());
        Self { listeners, outside, streams, server, counters, outbox, wrapped }
    }

    /// Sockets on which something may come: the relay's own, then those of relayed addresses.
    pub(super) fn sockets(&self) -> (&[Listener], &OutsideSockets) {
        (&self.listeners, &self.outside)
    }

    pub(super) fn obey(&mut self, order: Order, clock: Clock) {
        match order {
            Order::Revoke(node, until) => {
                self.server.revoke(node, until);
                self.end_allocations(clock.now);
                debug!(%node, "a node was revoked; the relay serves it no more");
            }
            Order::Readmit(node) => self.server.readmit(node),
            Order::Terms(terms) => {
                self.server.set_terms(*terms);
                self.end_allocations(clock.now);
            }
        }
    }

    /// Some may have ended: so do their sockets and streams.
    fn end_allocations(&mut self, now: Instant) {
        self.follow_sockets();
        self.end_unbound(now);
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.server.poll_timeout(), self.streams.poll_timeout()].into_iter().flatten().min()
    }

    /// Forgets what has lapsed.
    pub(super) fn handle_timeout(&mut self, clock: Clock) {
        self.server.handle_timeout(clock);
        self.follow_sockets();
        if self.streams.poll_timeout().is_some_and(|at| at <= clock.now) {
            self.end_unbound(clock.now);
        }
    }

    fn end_unbound(&mut self, now: Instant) {
        self.streams.end_unbound(|client| self.server.has_allocation(client), now);
    }

    /// Handles what the socket at this place in [`Self::sockets`] has.
    pub(super) fn drain(&mut self, index: usize, buffers: &mut ReceiveBuffers) -> io::Result<()> {
        match index.checked_sub(self.listeners.len()) {
            None => self.drain_listener(index, buffers),
            Some(index) => self.drain_outside(index, buffers),
        }
    }

    fn drain_outside(&mut self, index: usize, buffers: &mut ReceiveBuffers) -> io::Result<()> {
        for _ in 0..BATCHES_IN_A_ROW {
            let Some((relayed, listener)) = self.outside.at(index) else { return Ok(()) };
            let count = match listener.receive(buffers) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let now = clock().now;
            for run in buffers.runs(count) {
                for payload in run.bytes.chunks(run.stride) {
                    match self.server.handle_outside(relayed, run.from, payload, now) {
                        Action::Wrap(to, header) => self.push_wrapped(to, header, payload, now),
                        Action::Send(to) => self.push_output(None, to, now),
                        Action::Drop | Action::Forward(_) | Action::Unwrap(_) => {}
                    }
                }
            }
            self.flush();
        }
        Ok(())
    }

    fn drain_listener(&mut self, index: usize, buffers: &mut ReceiveBuffers) -> io::Result<()> {
        for _ in 0..BATCHES_IN_A_ROW {
            let Some(listener) = self.listeners.get(index) else { return Ok(()) };
            let local = listener.local.ip();
            let count = match listener.receive(buffers) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if count == BATCH {
                // Nobody has to be asked while batches are not full.
                self.counters.dropped(DropReason::ReceiveFull, listener.newly_overflowed());
            }
            let clock = clock();
            for run in buffers.runs(count) {
                let local = run.local.unwrap_or(local).to_canonical();
                let from = Tuple { via: Via::Socket(index), local, remote: run.from };
                self.handle_received(from, run.bytes, run.stride, clock);
            }
            self.flush();
        }
        Ok(())
    }

    /// Handles what a stream tells. What follows waits for [`Self::flush`].
    pub(super) fn handle_news(&mut self, news: StreamNews, clock: Clock) {
        match news {
            StreamNews::Opened(new) => self.streams.add(*new, clock.now),
            StreamNews::Frames(number, frames) => self.handle_frames(number, frames, clock),
            StreamNews::Closed(number) => {
                if let Some(client) = self.streams.remove(number) {
                    self.server.remove_client(&client);
                    self.follow_sockets();
                }
            }
        }
    }

    fn handle_frames(&mut self, number: u64, mut frames: BytesMut, clock: Clock) {
        // One that the relay has ended may still have sent something.
        let Some(from) = self.streams.tuple(number) else { return };
        let mut rest = &mut frames[..];
        while let Ok(Some(frame)) = framing::head(rest) {
            let Some((padded, behind)) = rest.split_at_mut_checked(frame.padded) else { break };
            rest = behind;
            let datagram = padded.get_mut(..frame.len).unwrap_or_default();
            match self.server.handle(from, datagram, clock) {
                Action::Forward(to) => self.push(to, datagram, clock.now),
                Action::Unwrap(to) => self.push(to, payload(datagram), clock.now),
                Action::Send(to) => self.push_output(Some(&from), to, clock.now),
                Action::Drop | Action::Wrap(..) => {}
            }
        }
        self.follow_sockets();
        if !self.streams.has_allocation(number) && self.server.has_allocation(&from) {
            self.streams.set_allocated(number);
        }
    }

    /// Handles datagrams of one sender, back to back. Those in a row that go to one destination stay together.
    fn handle_received(&mut self, from: Tuple, bytes: &mut [u8], stride: usize, clock: Clock) {
        let mut run: Option<(Tuple, Range<usize>)> = None;
        let mut start = 0;
        while start < bytes.len() {
            let end = bytes.len().min(start + stride);
            let datagram = bytes.get_mut(start..end).unwrap_or_default();
            let action = self.server.handle(from, datagram, clock);
            run = match (run, action) {
                (Some((to, range)), Action::Forward(next)) if to == next => Some((to, range.start..end)),
                (before, action) => {
                    self.emit(before, bytes, stride, clock.now);
                    match action {
                        Action::Forward(to) => Some((to, start..end)),
                        Action::Send(to) => {
                            self.push_output(Some(&from), to, clock.now);
                            None
                        }
                        Action::Unwrap(to) => {
                            let datagram = bytes.get(start..end).unwrap_or_default();
                            self.push(to, payload(datagram), clock.now);
                            None
                        }
                        Action::Drop | Action::Wrap(..) => None,
                    }
                }
            };
            start = end;
        }
        self.emit(run, bytes, stride, clock.now);
        self.follow_sockets();
    }

    fn emit(&mut self, run: Option<(Tuple, Range<usize>)>, bytes: &[u8], stride: usize, now: Instant) {
        let Some((to, range)) = run else { return };
        let datagrams = bytes.get(range).unwrap_or_default();
        if datagrams.len() > stride && matches!(to.via, Via::Socket(_)) {
            // Put together by the kernel already: goes on as it is, behind what waits.
            self.flush();
            self.send(&to, datagrams, stride);
        } else {
            datagrams.chunks(stride).for_each(|datagram| self.push(to, datagram, now));
        }
    }

    /// Puts a datagram where it waits for the end of the batch.
    fn push(&mut self, to: Tuple, datagram: &[u8], now: Instant) {
        match to.via {
            Via::Stream(number) => self.streams.push(number, datagram, false, now),
            Via::Socket(_) | Via::Outside(_) if self.outbox.push(to, datagram) => {}
            Via::Socket(_) | Via::Outside(_) => {
                self.flush();
                self.outbox.push(to, datagram);
            }
        }
    }

    /// The same with a header before it.
    fn push_wrapped(&mut self, to: Tuple, header: [u8; CHANNEL_HEADER], payload: &[u8], now: Instant) {
        let mut wrapped = std::mem::take(&mut self.wrapped);
        wrapped.clear();
        wrapped.extend_from_slice(&header);
        wrapped.extend_from_slice(payload);
        self.push(to, &wrapped, now);
        self.wrapped = wrapped;
    }

    /// The same with what the server has written. What goes back to the sender is an answer.
    fn push_output(&mut self, from: Option<&Tuple>, to: Tuple, now: Instant) {
        match to.via {
            Via::Stream(number) => {
                self.streams.push(number, self.server.output(), from == Some(&to), now);
            }
            Via::Socket(_) | Via::Outside(_) if self.outbox.push(to, self.server.output()) => {}
            Via::Socket(_) | Via::Outside(_) => {
                self.flush();
                self.outbox.push(to, self.server.output());
            }
        }
    }

    /// Opens and closes sockets as the server wants them.
    fn follow_sockets(&mut self) {
        while let Some(order) = self.server.poll_socket() {
            self.outside.obey(order);
        }
    }

    fn send(&self, to: &Tuple, bytes: &[u8], segment: usize) {
        let listener = match to.via {
            Via::Socket(index) => self.listeners.get(index),
            Via::Outside(port) => self.outside.of(port, to.local.is_ipv6()),
            Via::Stream(_) => None,
        };
        let Some(listener) = listener else { return self.counters.dropped(DropReason::SendFailed, 1) };
        if let Some((reason, count)) = listener.send(to, bytes, segment) {
            self.counters.dropped(reason, count);
        }
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        for run in self.outbox.runs() {
            self.send(&run.to, &run.bytes, run.segment);
        }
        self.outbox.clear();
        self.streams.flush();
    }
}

/// What stands behind the header of ChannelData that the server has found well formed.
fn payload(datagram: &[u8]) -> &[u8] {
    let &[_, _, high, low, ref rest @ ..] = datagram else { return &[] };
    rest.get(..usize::from(u16::from_be_bytes([high, low]))).unwrap_or_default()
}
