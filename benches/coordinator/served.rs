//! The coordinator's program on the loopback, with what `/proc` says of it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};
use ria_protocol::join_key::JoinKey;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{LIMIT, program};

/// A coordinator that runs; killed when it is dropped.
pub struct Served {
    directory: TempDir,
    environment: Vec<(String, String)>,
    child: Child,
    /// Where its TLS port is.
    pub address: SocketAddr,
}

impl Served {
    /// A new coordinator with these variables in its environment.
    pub fn start(environment: Vec<(String, String)>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("coordinator.toml"), "")?;
        let (child, address) = spawn(&directory, &environment, "127.0.0.1:0")?;
        Ok(Self { directory, environment, child, address })
    }

    /// Ends it without warning and starts it again, at the same place; tells when it was started.
    pub fn restart(&mut self) -> Result<Instant> {
        self.child.kill()?;
        self.child.wait()?;
        let began = Instant::now();
        (self.child, self.address) = spawn(&self.directory, &self.environment, &self.address.to_string())?;
        Ok(began)
    }

    /// Runs a verb of the coordinator; gives its output.
    pub fn admin(&self, arguments: &[&str]) -> Result<String> {
        let output = prepared(&self.directory)?.args(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A join key for any number of nodes.
    pub fn key(&self, network: &str) -> Result<JoinKey> {
        Ok(JoinKey::parse(&self.admin(&["key", "create", "--reusable", "--network", network])?)?)
    }

    /// A request on the admin socket; what it is answered.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        tokio::task::block_in_place(|| self.ask_and_wait(method, path, body))
    }

    fn ask_and_wait(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let mut stream = UnixStream::connect(self.directory.path().join("admin.sock"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}: {body}");
        Ok(serde_json::from_str(body)?)
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// How much of one core it uses during `time`, per cent.
    pub async fn cpu_pct(&self, time: Duration) -> Result<f64> {
        let (before, began) = (self.cpu_seconds()?, Instant::now());
        tokio::time::sleep(time).await;
        Ok((self.cpu_seconds()? - before) / began.elapsed().as_secs_f64() * 100.0)
    }

    fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the program's name in parentheses.
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("no name")?.1.split_ascii_whitespace().collect();
        let ticks: Vec<f64> = fields.get(11..13).context("short")?.iter().flat_map(|f| f.parse()).collect();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        #[allow(clippy::cast_precision_loss, reason = "a hundred")]
        Ok(ticks.iter().sum::<f64>() / per_second as f64)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn prepared(directory: &TempDir) -> Result<Command> {
    let mut command = Command::new(program("ria-coordinator")?);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RIA_")) {
        command.env_remove(name);
    }
    command
        .env("RIA_COORDINATOR_CONFIG", directory.path().join("coordinator.toml"))
        .env("RIA_DATA_DIR", directory.path().join("data"))
        .env("RIA_ADMIN_SOCKET", directory.path().join("admin.sock"))
        .env("RIA_RELAY_LISTEN", "127.0.0.1:0")
        .env("RIA_PUBLIC_URL", "https://coordinator.lab.example");
    Ok(command)
}

/// Starts the program and waits until it says where it serves.
fn spawn(directory: &TempDir, environment: &[(String, String)], listen: &str) -> Result<(Child, SocketAddr)> {
    let mut command = prepared(directory)?;
    command.envs(environment.iter().cloned());
    command.args(["serve", "--listen", listen]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let log = BufReader::new(child.stderr.take().context("no log")?);
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("serving listen=") {
                let _ = found.send(rest.split(' ').next().and_then(|text| text.parse().ok()));
            } else if line.contains("WARN") || line.contains("ERROR") {
                eprintln!("coordinator: {line}");
            }
        }
    });
    let address = address.recv_timeout(LIMIT).context("the coordinator does not start")?;
    Ok((child, address.context("the coordinator does not say where it serves")?))
}
