//! Clients of the private socket that want more than their share.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ria_api::AGENT_PATH;
use ria_api::client::Agent;
use ria_api::fake::FakeAgent;
use ria_api::server::Server;
use zbus::Message;
use zbus::message::Flags;

const SOON: Duration = Duration::from_secs(20);

struct Running {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let server = Server::bind(&path).unwrap();
        let agent = Arc::new(FakeAgent::default());
        agent.command("join").unwrap();
        let task = tokio::spawn(async move { server.run(agent).await });
        Self { path, task, _dir: dir }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection without a library that would behave.
fn raw(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let uid: String = nix::unistd::geteuid().to_string().bytes().map(|b| format!("{b:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes()).unwrap();
    let mut answer = [0; 128];
    let read = stream.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"OK "), "{:?}", &answer[..read]);
    stream.write_all(b"BEGIN\r\n").unwrap();
    stream
}

fn status_call(flags: Option<Flags>) -> Vec<u8> {
    let call = Message::method_call(AGENT_PATH, "Status").interface("org.ria.Overlay1");
    let call = match flags {
        Some(flags) => call.with_flags(flags),
        None => call,
    };
    call.build(&()).unwrap().data().to_vec()
}

async fn answers(path: &Path) -> bool {
    let client = tokio::time::timeout(SOON, Agent::connect(Some(path))).await.unwrap().unwrap();
    tokio::time::timeout(SOON, client.proxy().status()).await.unwrap().is_ok()
}

/// Writes calls until nothing is taken any more for so long, or all are; how many were.
fn flood(stream: &mut UnixStream, call: &[u8], patience: Duration, most: usize) -> usize {
    stream.set_write_timeout(Some(patience)).unwrap();
    for sent in 0..most {
        let mut rest = call;
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
                Err(error) => panic!("{error}"),
            }
        }
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_without_reading_is_made_to_wait_and_hinders_nobody() {
    let running = Running::start();
    let mut greedy = raw(&running.path);
    let call = status_call(None);
    let (mut greedy, taken) = tokio::task::spawn_blocking(move || {
        let taken = flood(&mut greedy, &call, Duration::from_secs(1), 200_000);
        (greedy, taken)
    })
    .await
    .unwrap();
    assert!(taken < 20_000, "{taken} calls were taken from a client that reads no answers");
    assert!(answers(&running.path).await);
    // It is served again as soon as it reads: answers come, whole and in plenty.
    let read = tokio::task::spawn_blocking(move || {
        let (mut buffer, mut read) = (vec![0; 65_536], 0);
        while read < 200_000 {
            read += greedy.read(&mut buffer).unwrap();
        }
        read
    });
    assert!(read.await.unwrap() >= 200_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_the_answers_may_ask_as_long_as_it_likes() {
    let running = Running::start();
    let client = Agent::connect(Some(&running.path)).await.unwrap();
    for n in 0..500 {
        let answer = tokio::time::timeout(SOON, client.proxy().status()).await;
        assert!(matches!(answer, Ok(Ok(_))), "call {n}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_answers_are_taken_slowly() {
    let running = Running::start();
    let mut greedy = raw(&running.path);
    let call = status_call(Some(Flags::NO_REPLY_EXPECTED));
    // Less than the pause behind each: its own socket is full long before.
    let patience = Duration::from_millis(5);
    let taken =
        tokio::task::spawn_blocking(move || flood(&mut greedy, &call, patience, 200_000)).await.unwrap();
    assert!(taken < 20_000, "{taken} calls were taken");
    assert!(answers(&running.path).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_long_ends_the_connection() {
    let running = Running::start();
    for body in [100_000_u32, 100_000_000, u32::MAX] {
        let mut stream = raw(&running.path);
        let mut call = status_call(None);
        call[4..8].copy_from_slice(&body.to_le_bytes());
        let ended = tokio::task::spawn_blocking(move || {
            let _ = stream.write_all(&call);
            let begin = Instant::now();
            // What it is told before does not matter; that it ends does.
            while !matches!(stream.read(&mut [0; 4096]), Ok(0) | Err(_)) {}
            begin.elapsed() < SOON
        });
        assert!(ended.await.unwrap(), "{body}");
    }
    assert!(answers(&running.path).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_that_nobody_wants_are_closed() {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    let running = Running::start();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut stream = raw(&running.path);
    assert!(answers(&running.path).await);
    let file = std::fs::File::open("/dev/null").unwrap();
    let fds = [file.as_raw_fd(); 100];
    let call = status_call(None);
    let before = count();
    // Descriptors come along with a call that says it has none.
    let rights = [ControlMessage::ScmRights(&fds)];
    let slices = [std::io::IoSlice::new(&call)];
    sendmsg::<()>(stream.as_raw_fd(), &slices, &rights, MsgFlags::empty(), None).unwrap();
    let _ = tokio::task::spawn_blocking(move || stream.read(&mut [0; 4096])).await.unwrap();
    let end = Instant::now() + SOON;
    while count() > before + 20 {
        assert!(Instant::now() < end, "{} descriptors more than before", count() - before);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(answers(&running.path).await);
}
