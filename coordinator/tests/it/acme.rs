//! A certificate for the pages by ACME, from Debian's Pebble, which looks at the names itself.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::support::Server;

const NAME: &str = "ria.lab.example";

/// An ACME server that finds the name on the loopback; stopped when it is dropped.
struct Pebble {
    directory: TempDir,
    child: Child,
    port: u16,
}

/// Ports that are free now.
fn ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.each_ref().map(|listener| listener.local_addr().unwrap().port())
}

impl Pebble {
    /// `proven_at` is the port that stands for 443.
    fn start(proven_at: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(path.join("server.pem"), certificate.pem()).unwrap();
        std::fs::write(path.join("server.key"), key.serialize_pem()).unwrap();
        std::fs::write(path.join("hosts"), format!("127.0.0.1 localhost {NAME}\n")).unwrap();
        let [port, management, http] = ports();
        let settings = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": path.join("server.pem"), "privateKey": path.join("server.key"),
            "httpPort": http, "tlsPort": proven_at,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        std::fs::write(path.join("pebble.json"), settings.to_string()).unwrap();
        // Its own /etc/hosts leads the name here, and nobody else's.
        let line = "mount --bind \"$1/hosts\" /etc/hosts && exec pebble -config \"$1/pebble.json\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", line, "sh"]).arg(path);
        command.env("PEBBLE_VA_NOSLEEP", "1").stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "Pebble does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { directory, child, port }
    }

    fn ca(&self) -> String {
        self.directory.path().join("server.pem").display().to_string()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(port: u16, acme: u16, ca: &str) -> Vec<(String, String)> {
    [
        ("RIA_LISTEN", format!("127.0.0.1:{port}")),
        ("RIA_PUBLIC_URL", format!("https://{NAME},https://192.0.2.1")),
        ("RIA_ACME_ACCEPT_TERMS", "true".to_owned()),
        ("RIA_ACME_CONTACT", "admin@lab.example".to_owned()),
        ("RIA_ACME_DIRECTORY", format!("https://localhost:{acme}/dir")),
        ("RIA_ACME_CA", ca.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// What OpenSSL sees of the certificate that browsers are shown: issuer, serial number, names.
fn shown(server: &Server) -> String {
    let address = server.address.to_string();
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &address, "-servername", NAME, "-alpn", "http/1.1"]);
    let met = client.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    let mut reader = Command::new("openssl");
    reader.args(["x509", "-noout", "-issuer", "-serial", "-ext", "subjectAltName"]);
    let mut reader = reader.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    reader.stdin.take().unwrap().write_all(&met.stdout).unwrap();
    String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777
}

#[test]
fn the_pages_get_a_certificate_and_keep_it() {
    let [port] = ports();
    let mut pebble = Pebble::start(port);
    let mut server = Server::start_with_all(settings(port, pebble.port, &pebble.ca()), |_| ());
    let began = Instant::now();
    while !shown(&server).contains("Pebble Intermediate CA") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", shown(&server));
        std::thread::sleep(Duration::from_millis(200));
    }
    let first = shown(&server);
    assert!(first.contains(&format!("DNS:{NAME}")), "{first}");
    let folder = server.data_dir().join("acme");
    for file in ["account.json", "certificate.pem", "key.pem"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
    pebble.child.kill().unwrap();
    server.kill();
    server.start_again();
    assert_eq!(shown(&server), first, "it is not ordered anew");
}

#[test]
fn without_the_server_the_pages_show_the_own_authoritys() {
    let [port, nobody] = ports();
    let ca = tempfile::NamedTempFile::new().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(ca.path(), certificate.pem()).unwrap();
    let server = Server::start_with_all(settings(port, nobody, &ca.path().display().to_string()), |_| ());
    let seen = shown(&server);
    assert!(seen.contains(NAME) && !seen.contains("Pebble"), "{seen}");
    // And it serves.
    assert!(server.text(&["network", "list"]).contains("lab"));
}
