//! One stream: connects, moves bytes both ways, and connects again when it breaks.

use std::io;
use std::time::{Duration, Instant};

use ria_core::relay::framing;
use ria_protocol::{ALPN_TURN, COORDINATOR_TLS_NAME};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::queue::QueueEnd;
use super::{FromStream, StreamEvent, StreamPlan};
use crate::coordinator::backoff::Backoff;
use crate::coordinator::reach::ReachError;

/// Time for TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What was sent and is not acknowledged for so long ends the connection: what comes later is of no use any more, and a
/// new one is made within a second.
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);

/// A connection in which nothing is said is asked for a sign of life this often.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How much the kernel takes beyond what is under way. More would only wait there, where its age is not seen.
const UNSENT: u32 = 32 * 1024;

/// What a connection that lasted so long ends counts as the first failure.
const LASTED: Duration = Duration::from_secs(30);

/// Read at once, at most. The longest frame must fit.
const READ: usize = framing::MAX_FRAME + 64 * 1024;

/// A stream broke, or can't be opened.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Connect(#[from] ReachError),
    #[error("{0} does not speak TURN over TLS; a coordinator of this version or newer does")]
    NoTurn(String),
    #[error("{host}: {source}")]
    Tls { host: String, source: io::Error },
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the relay closed the connection")]
    Closed,
    #[error(transparent)]
    NotTurn(#[from] framing::NotTurn),
    #[error("the agent stops")]
    Ended,
}

/// Keeps a stream until it is aborted, or the packet thread has ended.
pub async fn run(plan: StreamPlan, mut queue: QueueEnd, out: mpsc::Sender<FromStream>) {
    let mut backoff = Backoff::default();
    loop {
        let begin = Instant::now();
        let error = match open(&plan).await {
            Ok(stream) => serve(&plan, stream, &mut queue, &out).await,
            Err(error) => error,
        };
        tracing::debug!(%error, "stream to a relay");
        queue.clear();
        let what = StreamEvent::Closed(error.to_string());
        if matches!(error, StreamError::Ended) || tell(&plan, what, &out).await.is_err() {
            return;
        }
        if begin.elapsed() > LASTED {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

async fn tell(
    plan: &StreamPlan,
    what: StreamEvent,
    out: &mpsc::Sender<FromStream>,
) -> Result<(), StreamError> {
    let StreamPlan { network, socket, address, .. } = *plan;
    out.send(FromStream { network, socket, address, what }).await.map_err(|_| StreamError::Ended)
}

async fn open(plan: &StreamPlan) -> Result<TlsStream<TcpStream>, StreamError> {
    let StreamPlan { host, port, .. } = plan;
    let tcp = plan.reach.connect(host, *port).await?.stream;
    tune(&tcp)?;
    let failed = |source| StreamError::Tls { host: host.clone(), source };
    let name = ServerName::try_from(COORDINATOR_TLS_NAME).map_err(|e| failed(io::Error::other(e)))?;
    let connector = TlsConnector::from(plan.tls.clone());
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
    let tls = timeout(HANDSHAKE_TIMEOUT, connector.connect(name, tcp)).await.unwrap_or_else(late);
    let tls = tls.map_err(failed)?;
    let named = tls.get_ref().1.alpn_protocol();
    if named != Some(ALPN_TURN) && (plan.must_name || named.is_some()) {
        return Err(StreamError::NoTurn(format!("{host}:{port}")));
    }
    Ok(tls)
}

/// Nothing waits, neither here nor in the kernel, and a dead connection is noticed.
fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

/// Moves bytes until something ends; tells why.
async fn serve(
    plan: &StreamPlan,
    stream: impl AsyncRead + AsyncWrite,
    queue: &mut QueueEnd,
    out: &mpsc::Sender<FromStream>,
) -> StreamError {
    // What waited until now was for the connection before.
    queue.clear();
    if let Err(ended) = tell(plan, StreamEvent::Opened, out).await {
        return ended;
    }
    let (reader, writer) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = receive(plan, reader, out) => ended,
        ended = send(writer, queue) => ended,
    };
    ended.err().unwrap_or(StreamError::Ended)
}

async fn send(mut writer: impl AsyncWrite + Unpin, queue: &mut QueueEnd) -> Result<(), StreamError> {
    while let Some(batch) = queue.next().await {
        writer.write_all(&batch).await?;
        writer.flush().await?;
        queue.recycle(batch);
    }
    Ok(())
}

async fn receive(
    plan: &StreamPlan,
    mut reader: impl AsyncRead + Unpin,
    out: &mpsc::Sender<FromStream>,
) -> Result<(), StreamError> {
    let (mut held, mut filled) = (vec![0; READ], 0);
    loop {
        let room = held.get_mut(filled..).unwrap_or_default();
        let count = reader.read(room).await?;
        if count == 0 {
            return Err(StreamError::Closed);
        }
        filled += count;
        let all = held.get(..filled).unwrap_or_default();
        let mut rest = all;
        let ended = loop {
            match framing::take(&mut rest) {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let whole = all.len() - rest.len();
        if whole > 0 {
            let frames = all.get(..whole).unwrap_or_default().to_vec();
            tell(plan, StreamEvent::Frames(frames), out).await?;
            held.copy_within(whole..filled, 0);
            filled -= whole;
        }
        ended?;
    }
}

#[cfg(test)]
mod tests {
    use ria_core::SocketIndex;
    use ria_protocol::id::NetworkId;

    use super::super::queue;
    use super::*;
    use crate::coordinator::reach::Reach;

    fn plan() -> StreamPlan {
        let tls = crate::coordinator::tls::turn_config(Vec::new(), None).unwrap();
        StreamPlan {
            network: NetworkId::from_bytes([1; 10]),
            socket: SocketIndex::stream(3),
            address: "192.0.2.1:443".parse().unwrap(),
            host: "127.0.0.1".into(),
            port: 1,
            reach: Reach::default(),
            tls,
            must_name: true,
        }
    }

    fn channel_data(len: u8) -> Vec<u8> {
        [&[0x40, 1, 0, len][..], &vec![len; len.into()]].concat()
    }

    #[tokio::test]
    async fn datagrams_go_out_as_frames_and_come_in_whole() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (mut queue, mut end) = queue::new();
        let (out, mut events) = mpsc::channel(8);
        let serving = tokio::spawn(async move { serve(&plan(), ours, &mut end, &out).await.to_string() });
        let opened = events.recv().await.unwrap();
        assert!(matches!(opened.what, StreamEvent::Opened) && opened.socket.is_stream());
        queue.push(&channel_data(5), false, Instant::now());
        queue.push(&channel_data(8), false, Instant::now());
        queue.flush();
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let mut sent = [0; 24];
        reader.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent[..9], channel_data(5)[..]);
        assert_eq!(sent[12..], channel_data(8)[..]);
        // In pieces that cut frames anywhere.
        let mut answer = Vec::new();
        (0..40).for_each(|n| framing::push(&channel_data(n * 5), &mut answer));
        let expected = answer.clone();
        let writing = tokio::spawn(async move {
            for piece in answer.chunks(17) {
                writer.write_all(piece).await.unwrap();
            }
            writer.write_all(b"SSH-2.0").await.unwrap();
            writer
        });
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let StreamEvent::Frames(frames) = events.recv().await.unwrap().what else { panic!("no frames") };
            seen.extend(frames);
        }
        assert_eq!(seen, expected);
        let ended = serving.await.unwrap();
        assert!(ended.contains("not TURN"), "{ended}");
        drop(writing.await.unwrap());
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_delivers_nothing_old() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (mut queue, mut end) = queue::new();
        let (out, mut events) = mpsc::channel(8);
        let serving = tokio::spawn(async move { serve(&plan(), ours, &mut end, &out).await.to_string() });
        events.recv().await.unwrap();
        for n in 0..4 {
            queue.push(&channel_data(n * 4), false, Instant::now());
            (0..200).for_each(|_| queue.push(&channel_data(200), false, Instant::now()));
            queue.flush();
        }
        // The other end stands still for longer than anything may wait.
        tokio::time::sleep(queue::MAX_AGE * 2).await;
        queue.push(&channel_data(77), false, Instant::now());
        queue.flush();
        let (mut seen, mut last) = (Vec::new(), Vec::new());
        while last != channel_data(77) {
            let mut piece = [0; 4096];
            let count = theirs.read(&mut piece).await.unwrap();
            seen.extend_from_slice(&piece[..count]);
            let mut rest = &seen[..];
            while let Some(frame) = framing::take(&mut rest).unwrap() {
                last = frame.to_vec();
            }
        }
        assert!(seen.len() < 2 * 17 * 1024, "only what had begun to go out: {}", seen.len());
        assert!(queue.stale() > 300, "{}", queue.stale());
        drop(theirs);
        assert!(serving.await.unwrap().contains("closed the connection"));
    }

    #[tokio::test]
    async fn a_relay_that_can_not_be_reached_is_said_so_again_and_again() {
        let (_queue, end) = queue::new();
        let (out, mut events) = mpsc::channel(8);
        let task = tokio::spawn(run(plan(), end, out));
        for _ in 0..2 {
            let StreamEvent::Closed(reason) = events.recv().await.unwrap().what else { panic!("not closed") };
            assert!(reason.contains("127.0.0.1:1 refuses the connection"), "{reason}");
        }
        task.abort();
    }
}
