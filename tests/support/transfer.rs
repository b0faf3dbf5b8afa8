//! A TCP stream through the overlay whose every byte is checked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Robot;

const PORT: u16 = 5201;

/// A running transfer.
pub struct Transfer {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Received>,
}

/// What has arrived.
#[derive(Debug)]
pub struct Received {
    /// So many bytes, each as it was sent.
    pub bytes: u64,
    /// The longest time without any.
    pub longest_pause: Duration,
}

/// The bytes of the stream.
struct Pattern(u64);

impl Pattern {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

impl Transfer {
    /// Begins to send from one robot to the other, some megabits per second.
    pub fn start(from: &Robot, to: &Robot) -> Self {
        Self::at_pace(from, to, Duration::from_millis(5))
    }

    /// The same with as much as gets through.
    pub fn start_full(from: &Robot, to: &Robot) -> Self {
        Self::at_pace(from, to, Duration::ZERO)
    }

    fn at_pace(from: &Robot, to: &Robot, pause: Duration) -> Self {
        let address = SocketAddr::new(to.address().parse().unwrap(), PORT);
        let listener = to.host.enter(|| TcpListener::bind(address)).unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(20));
        let connection = from.host.enter(connect).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Self {
            stop,
            sender: std::thread::spawn(move || send(connection, pause, &stopped)),
            receiver: std::thread::spawn(move || receive(&listener)),
        }
    }

    /// Ends it; everything that was sent must have arrived.
    pub fn finish(self) -> Received {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("sending went well");
        let received = self.receiver.join().expect("receiving went well");
        assert_eq!(received.bytes, sent);
        received
    }
}

fn send(mut connection: TcpStream, pause: Duration, stop: &AtomicBool) -> u64 {
    let (mut pattern, mut sent, mut block) = (Pattern(1), 0, [0; 4096]);
    connection.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    while !stop.load(Ordering::Relaxed) {
        pattern.fill(&mut block);
        connection.write_all(&block).expect("the connection lives on");
        sent += block.len() as u64;
        std::thread::sleep(pause);
    }
    sent
}

fn receive(listener: &TcpListener) -> Received {
    let (mut connection, _) = listener.accept().unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (mut pattern, mut buffer, mut wanted) = (Pattern(1), [0; 16_384], [0; 16_384]);
    let (mut received, mut last) = (Received { bytes: 0, longest_pause: Duration::ZERO }, Instant::now());
    loop {
        let count = connection.read(&mut buffer).expect("the connection lives on");
        if count == 0 {
            return received;
        }
        pattern.fill(&mut wanted[..count]);
        assert!(buffer[..count] == wanted[..count], "a byte is another than was sent");
        received.bytes += count as u64;
        received.longest_pause = received.longest_pause.max(last.elapsed());
        last = Instant::now();
    }
}
