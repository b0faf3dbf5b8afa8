//! The coordinator's program, in a directory of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ria_protocol::join_key::JoinKey;
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ria-coordinator");

/// A coordinator that runs; killed when it is dropped.
pub struct Server {
    directory: TempDir,
    environment: Vec<(String, String)>,
    child: Child,
    pub address: SocketAddr,
}

/// The program, untouched by the settings of whoever runs the tests.
pub fn program(directory: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    prepare(&mut command, directory);
    command
}

fn prepare(command: &mut Command, directory: &Path) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RIA_")) {
        command.env_remove(name);
    }
    command
        .env("RIA_COORDINATOR_CONFIG", directory.join("coordinator.toml"))
        .env("RIA_DATA_DIR", directory.join("data"))
        .env("RIA_ADMIN_SOCKET", directory.join("admin.sock"))
        .env("RIA_LISTEN", "127.0.0.1:0")
        .env("RIA_RELAY_LISTEN", "127.0.0.1:0")
        .env("RIA_PUBLIC_URL", "https://coordinator.lab.example");
}

fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("coordinator.toml"), "").unwrap();
    directory
}

impl Server {
    /// A new coordinator.
    pub fn start() -> Self {
        let directory = directory();
        let (child, address) = spawn(program(directory.path()));
        Self { directory, environment: Vec::new(), child, address }
    }

    /// A new coordinator with these variables in its environment, also when it is started again; `prepare` is given its data
    /// directory.
    pub fn start_with_all(environment: Vec<(String, String)>, prepare: impl FnOnce(&Path)) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        prepare(&data);
        let mut command = program(directory.path());
        command.envs(environment.iter().cloned());
        let (child, address) = spawn(command);
        Self { directory, environment, child, address }
    }

    /// A coordinator on data that `prepare` puts into the directory that it is given.
    pub fn start_on(prepare: impl FnOnce(&Path)) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        prepare(&data);
        let (child, address) = spawn(program(directory.path()));
        Self { directory, environment: Vec::new(), child, address }
    }

    /// A new coordinator, started by another program: `wrap` is given the data directory and the coordinator's program.
    pub fn start_wrapped(wrap: impl FnOnce(&Path, &Path) -> Command) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut command = wrap(&data, Path::new(PROGRAM));
        prepare(&mut command, directory.path());
        let (child, address) = spawn(command);
        Self { directory, environment: Vec::new(), child, address }
    }

    /// The data directory as the coordinator sees it.
    pub fn data_dir_inside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(self.data_dir().strip_prefix("/").unwrap())
    }

    /// A new coordinator with a variable of its environment changed.
    pub fn start_with(name: &str, value: &str) -> Self {
        let directory = directory();
        let mut command = program(directory.path());
        command.env(name, value);
        let (child, address) = spawn(command);
        Self { directory, environment: Vec::new(), child, address }
    }

    /// A new coordinator with these settings in its file.
    pub fn start_configured(text: &str) -> Self {
        let directory = directory();
        std::fs::write(directory.path().join("coordinator.toml"), text).unwrap();
        let (child, address) = spawn(program(directory.path()));
        Self { directory, environment: Vec::new(), child, address }
    }

    /// Stops it as an administrator does, and waits for its end.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        (self.child.wait().unwrap(), began.elapsed())
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same data.
    pub fn start_again(&mut self) {
        let mut command = program(self.directory.path());
        command.envs(self.environment.iter().cloned());
        let (child, address) = spawn(command);
        (self.child, self.address) = (child, address);
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Changes the database while the coordinator is stopped.
    pub async fn sql(&self, statement: &'static str) {
        let url = format!("sqlite://{}", self.data_dir().join("coordinator.db").display());
        sqlx::any::install_default_drivers();
        let database = sqlx::AnyPool::connect(&url).await.unwrap();
        sqlx::query(statement).execute(&database).await.unwrap();
        database.close().await;
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Memory that the process has.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// An admin command.
    pub fn command(&self, arguments: &[&str]) -> Output {
        program(self.directory.path()).args(arguments).output().unwrap()
    }

    /// An admin command that is not waited for.
    pub fn spawn_command(&self, arguments: &[&str]) -> Child {
        let mut command = program(self.directory.path());
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// An admin command that works; what it printed.
    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// An admin command that works, with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.text(&arguments)).unwrap()
    }

    /// A new join key.
    pub fn key(&self, options: &[&str]) -> JoinKey {
        let arguments: Vec<_> = ["key", "create"].into_iter().chain(options.iter().copied()).collect();
        JoinKey::parse(&self.text(&arguments)).unwrap()
    }

    /// Waits until `node show` says what is wanted.
    pub fn wait_for_node(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let node = self.json(&["node", "show", name]);
            if wanted(&node) {
                return node;
            }
            assert!(began.elapsed() < 2 * super::PATIENCE, "never came about: {node:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the program and waits until it says where it serves.
fn spawn(mut command: Command) -> (Child, SocketAddr) {
    let mut child = command.arg("serve").stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("serving listen=") {
                let _ = found.send(rest.split(' ').next().unwrap().parse().unwrap());
            }
            eprintln!("{line}");
        }
    });
    (child, address.recv_timeout(super::PATIENCE).expect("the coordinator did not start"))
}
