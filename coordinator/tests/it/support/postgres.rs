//! A PostgreSQL server of one's own: Debian's programs, as the user `postgres`, reached by a socket in its directory.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PASSWORD: &str = "not: a/secret@all";

/// The server; stopped when it is dropped.
pub struct Postgres {
    directory: TempDir,
    child: Child,
}

impl Postgres {
    /// A new one. `durable`: what is stored survives a power failure, which takes time.
    pub fn start(durable: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(path.join("password"), PASSWORD).unwrap();
        std::fs::set_permissions(path.join("password"), PermissionsExt::from_mode(0o644)).unwrap();
        run(Command::new("chown").arg("postgres").arg(path));
        let data = path.join("data");
        let mut initdb = as_postgres("initdb", path);
        initdb.arg("--pgdata").arg(&data).args(["--username=ria", "--auth=scram-sha-256", "--encoding=UTF8"]);
        run(initdb.args(["--no-locale", "--no-sync"]).arg("--pwfile").arg(path.join("password")));
        let child = spawn(path, durable);
        let server = Self { directory, child };
        let began = Instant::now();
        let ready = || {
            let mut ask = as_postgres("pg_isready", server.directory.path());
            let asked = ask.arg("--host").arg(server.directory.path()).stdout(Stdio::null()).status();
            asked.unwrap().success()
        };
        while !ready() {
            assert!(began.elapsed() < Duration::from_secs(60), "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// What a coordinator has to be told of it.
    pub fn settings(&self) -> Vec<(String, String)> {
        let directory = self.directory.path().display();
        let url = format!("postgres://ria@localhost/postgres?host={directory}");
        let password = format!("{directory}/password");
        vec![("RIA_DATABASE".to_owned(), url), ("RIA_DATABASE_PASSWORD_FILE".to_owned(), password)]
    }

    /// Ends it, connections and all, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.child = spawn(self.directory.path(), false);
    }

    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        // "Immediate": without waiting for those who are connected.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
        let _ = self.child.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(directory: &Path, durable: bool) -> Child {
    let mut server = as_postgres("postgres", directory);
    server.arg("-D").arg(directory.join("data")).arg("-k").arg(directory).args(["-h", ""]);
    server.arg("-c").arg(format!("fsync={}", if durable { "on" } else { "off" }));
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Debian keeps the programs in a directory of their version.
fn as_postgres(program: &str, directory: &Path) -> Command {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map_or_else(|_| vec![], |all| all.flatten().map(|e| e.path()).collect());
    versions.sort();
    let newest = versions.pop().expect("PostgreSQL is missing: apt-get install postgresql");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT"]);
    command.arg(newest.join("bin").join(program)).current_dir(directory);
    command
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
