//! Load over TLS: one client writes as long as not too much is under way, the other one counts what it reads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use netlab::Host;
use rand_core::{OsRng, RngCore};
use ria_core::relay::{RelayClient, RelayCredentials, framing};
use ria_core::stun::Randomness;
use ria_protocol::ALPN_TURN;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::servers::{Carried, Place};

/// As over UDP.
const PAYLOAD: usize = 1312;

/// Datagrams that go into one write: about one TLS record.
const BATCH: usize = 12;

/// Most payload under way at a time: about what a TCP connection inside would have. What is more waits in queues only, and
/// costs the sender, which shares a core with the receiver, the time to write what is dropped.
const WINDOW: u64 = 256 * PAYLOAD as u64;

/// What is under way for so long is lost.
const LOST_AFTER: Duration = Duration::from_millis(50);

const LENGTH: Duration = Duration::from_secs(3);

/// What is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// One client.
struct End {
    stream: StreamOwned<ClientConnection, TcpStream>,
    client: RelayClient,
    held: Vec<u8>,
}

/// Sends from one client to the other.
pub fn carry(host: &Host, place: &Place) -> Result<Carried> {
    let [first, second] = &place.credentials;
    let mut sender = End::allocate(host, place.tls, first)?;
    let mut receiver = End::allocate(host, place.tls, second)?;
    let (from, to) = (sender.relayed()?, receiver.relayed()?);
    receiver.connect(from)?;
    sender.connect(to)?;
    let header = sender.client.wrap(to, PAYLOAD, Instant::now()).context("no channel")?;
    let mut batch = Vec::new();
    (0..BATCH).for_each(|_| framing::push(&[&header[..], &[0x5a; PAYLOAD]].concat(), &mut batch));
    let (arrived, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let counting = {
        let (arrived, stop) = (arrived.clone(), stop.clone());
        thread::spawn(move || receiver.count(&arrived, &stop))
    };
    let begin = Instant::now();
    let (mut written, mut waiting) = (0, None);
    while begin.elapsed() < LENGTH {
        if written < arrived.load(Ordering::Relaxed) + WINDOW {
            sender.stream.write_all(&batch)?;
            (written, waiting) = (written + (BATCH * PAYLOAD) as u64, None);
        } else if waiting.get_or_insert_with(Instant::now).elapsed() > LOST_AFTER {
            written = arrived.load(Ordering::Relaxed);
        } else {
            thread::yield_now();
        }
    }
    let (payload, time) = (arrived.load(Ordering::Relaxed), begin.elapsed());
    stop.store(true, Ordering::Relaxed);
    counting.join().map_err(|_| anyhow::anyhow!("the receiver ended early"))??;
    ensure!(payload > 0, "nothing arrived");
    Ok(Carried { payload, time })
}

impl End {
    fn allocate(host: &Host, server: SocketAddr, credentials: &RelayCredentials) -> Result<Self> {
        let tcp = host.enter(|| TcpStream::connect(server))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(Duration::from_millis(100)))?;
        let name = ServerName::try_from("relay.example")?;
        let stream = StreamOwned::new(ClientConnection::new(tls()?, name)?, tcp);
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let client =
            RelayClient::over_stream(server, credentials.clone(), Randomness::new(seed), Instant::now());
        let mut end = Self { stream, client, held: Vec::new() };
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
        let end = Instant::now() + PATIENCE;
        while !done(&self.client) {
            ensure!(Instant::now() < end, "the relay gives no useful answer");
            self.client.handle_timeout(Instant::now());
            while let Some(outgoing) = self.client.poll_transmit() {
                let mut frame = Vec::new();
                framing::push(&outgoing.payload, &mut frame);
                self.stream.write_all(&frame)?;
            }
            let server = self.client.server();
            self.read(|client, datagram| {
                client.handle_datagram(server, datagram, Instant::now());
            })?;
        }
        Ok(())
    }

    /// Reads what is there, if anything comes soon.
    fn read(&mut self, mut each: impl FnMut(&mut RelayClient, &[u8])) -> Result<()> {
        let mut buffer = [0; 32 * 1024];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => bail!("the relay closed the connection"),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.held.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let mut rest = &self.held[..];
        while let Some(datagram) = framing::take(&mut rest)? {
            each(&mut self.client, datagram);
        }
        let done = self.held.len() - rest.len();
        self.held.drain(..done);
        Ok(())
    }

    fn count(mut self, arrived: &AtomicU64, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.read(|_, datagram| {
                if datagram.len() > PAYLOAD {
                    arrived.fetch_add(PAYLOAD as u64, Ordering::Relaxed);
                }
            })?;
        }
        Ok(())
    }
}

fn tls() -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    // As agents do.
    config.alpn_protocols = vec![ALPN_TURN.to_vec()];
    Ok(Arc::new(config))
}

/// Believes every server: what is measured does not depend on who it is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
