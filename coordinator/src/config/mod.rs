//! Settings: flag, else environment, else file, else default. Unknown keys are refused, and all mistakes are shown
//! together.

mod acme;
mod admission;
mod backup;
mod laptops;
mod oidc;
mod relay;
mod sources;
pub mod standalone;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

pub use acme::AcmeSettings;
pub use admission::AdmissionSettings;
pub use backup::BackupSchedule;
pub use laptops::LaptopSettings;
pub use oidc::{Admits, OidcSettings};
pub use relay::RelaySettings;
pub use sources::ConfigError;
use sources::{Known, Sources, path_value, read_file};
pub use standalone::{CONFIG_VARIABLE as RELAY_CONFIG_VARIABLE, Standalone, StandaloneFlags};

use crate::state::DEFAULT_MEMBERSHIP;
use crate::store::{PasswordError, is_shared, sqlite_url, with_password};
use crate::tls::authority::NodeLifetimes;

/// Where the file is looked for unless it is named.
pub const DEFAULT_FILE: &str = "/etc/ria/coordinator.toml";
/// Where the admin socket is unless it is named.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/ria/coordinator.sock";
/// Where the admin socket is of a coordinator that is a service of the machine (`ria-coordinator.service`).
const SERVICE_ADMIN_SOCKET: &str = "/run/ria-coordinator/admin.sock";
/// The variable that names another file. The agent's is another one, for both may run on one machine.
pub const CONFIG_VARIABLE: &str = "RIA_COORDINATOR_CONFIG";
const DEFAULT_DATA_DIR: &str = "/var/lib/ria-coordinator";
const DEFAULT_CERTIFICATE: Duration = Duration::from_secs(7 * 24 * 3600);
const KNOWN: Known = Known {
    keys: &[
        "data_dir",
        "listen",
        "public_url",
        "database",
        "database_password_file",
        "admin_socket",
        "metrics_listen",
        "[backup]",
        "[pages]",
        "[acme]",
        "[oidc]",
        "[laptops]",
        "[relay]",
        "[admission]",
        "[certificates]",
    ],
    sections: &[
        (
            "relay",
            &[
                "relay.enabled",
                "relay.listen",
                "relay.external",
                "relay.credentials",
                "relay.outside_ports",
                "relay.outside_allow",
                "relay.node_bytes_per_second",
                "relay.node_allocations",
            ],
        ),
        ("backup", &["backup.every", "backup.directory", "backup.passphrase_file", "backup.keep"]),
        ("pages", &["pages.certificate", "pages.key"]),
        ("acme", acme::KEYS),
        ("oidc", oidc::KEYS),
        ("laptops", laptops::KEYS),
        ("admission", admission::KEYS),
        ("certificates", &["certificates.lifetime", "certificates.membership"]),
    ],
};

/// All settings of `serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub public_urls: Vec<PublicUrl>,
    /// `None`: SQLite in the data directory.
    pub database: Option<String>,
    /// Where the password for it stands.
    pub database_password_file: Option<PathBuf>,
    pub admin_socket: PathBuf,
    pub relay: RelaySettings,
    /// Backups that are made by themselves, if any are.
    pub backup: Option<BackupSchedule>,
    /// Where Prometheus finds figures without TLS and token; nowhere unless it is set.
    pub metrics_listen: Option<SocketAddr>,
    /// The certificate that browsers are shown, instead of one of the own authority.
    pub page_certificate: Option<PageCertificate>,
    /// How such a certificate is had by itself.
    pub acme: Option<AcmeSettings>,
    /// Who else can say who somebody is.
    pub oidc: Option<OidcSettings>,
    pub laptops: LaptopSettings,
    /// How much is done at once for those who come.
    pub admission: AdmissionSettings,
    /// How long certificates of nodes and memberships last.
    pub lifetimes: NodeLifetimes,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// An address under which nodes reach the coordinator: `https://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    host: String,
    port: u16,
}

impl PublicUrl {
    /// Reads one; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        let wrong = |reason: &str| {
            format!("{text:?} is no public URL: {reason}; write it as https://ria.lab.example[:port]")
        };
        let authority = text.strip_prefix("https://").ok_or_else(|| wrong("it must begin with https://"))?;
        if authority.contains(['/', '?', '#', '@']) || authority.chars().any(char::is_whitespace) {
            return Err(wrong("it has more than a host and a port"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port.map(str::parse) {
            None => 443,
            Some(Ok(port @ 1..)) => port,
            Some(_) => return Err(wrong("its port is no number from 1 to 65535")),
        };
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let valid = match bracketed {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        if !valid {
            return Err(wrong("its host is neither a name nor an address"));
        }
        Ok(Self { text: text.to_owned(), host: bracketed.unwrap_or(host).to_owned(), port })
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether another machine can possibly reach it.
    pub fn is_reachable(&self) -> bool {
        match self.host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(IpAddr::V4(ip)) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_link_local(),
            Ok(IpAddr::V6(ip)) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
            Err(_) => {
                let name = self.host.trim_end_matches('.').to_ascii_lowercase();
                name != "localhost" && !name.ends_with(".localhost")
            }
        }
    }
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub listen: Option<String>,
    pub public_url: Vec<String>,
    pub database: Option<String>,
    pub admin_socket: Option<PathBuf>,
}

impl Config {
    /// Reads the settings. `environment` looks up a variable.
    pub fn load(flags: Flags, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let named = flags
            .config
            .clone()
            .or_else(|| environment(CONFIG_VARIABLE).filter(|t| !t.is_empty()).map(PathBuf::from));
        let (mut sources, path) = Sources::open(named, DEFAULT_FILE, environment)?;
        let config = Self::from_sources(&mut sources, flags, path);
        sources.finish(config, &KNOWN)
    }

    /// Where the database is, with its password.
    pub fn database_url(&self) -> Result<String, PasswordError> {
        match (&self.database, &self.database_password_file) {
            (None, _) => Ok(sqlite_url(&self.data_dir)),
            (Some(url), None) => Ok(url.clone()),
            (Some(url), Some(file)) => with_password(url, file),
        }
    }

    /// Reads the content of a file, and nothing else.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn from_text(name: &str, text: &str) -> Result<Self, ConfigError> {
        let mut sources = Sources::of_text(name, text)?;
        let config = Self::from_sources(&mut sources, Flags::default(), None);
        sources.finish(config, &KNOWN)
    }

    fn from_sources(sources: &mut Sources<'_>, flags: Flags, file: Option<PathBuf>) -> Self {
        let path = |flag: Option<PathBuf>| flag.map(|path| path_value(&path));
        let data_dir = path(flags.data_dir).map(|v| ("--data-dir", v));
        let data_dir = sources.find(data_dir, "RIA_DATA_DIR", None, "data_dir");
        let data_dir =
            sources.text(data_dir).map_or_else(|| DEFAULT_DATA_DIR.into(), |(text, _)| text.into());
        let admin_socket = path(flags.admin_socket).map(|v| ("--admin-socket", v));
        let admin_socket = sources.find(admin_socket, "RIA_ADMIN_SOCKET", None, "admin_socket");
        let admin_socket =
            sources.text(admin_socket).map_or_else(|| DEFAULT_ADMIN_SOCKET.into(), |(text, _)| text.into());
        let listen = flags.listen.map(|text| ("--listen", Value::String(text)));
        let listen = sources.find(listen, "RIA_LISTEN", None, "listen");
        let listen = sources.parsed(listen, "an address with a port, such as [::]:443 or 192.0.2.7:443");
        let urls = (!flags.public_url.is_empty()).then(|| ("--public-url", Value::from(flags.public_url)));
        let urls = sources.find(urls, "RIA_PUBLIC_URL", None, "public_url");
        let public_urls = sources.parsed_list(urls, PublicUrl::parse).unwrap_or_default();
        let database = flags.database.map(|text| ("--database", Value::String(text)));
        let database = sources.find(database, "RIA_DATABASE", None, "database");
        let database = sources.text(database).and_then(|(text, place)| match database_fault(&text) {
            None => Some(text),
            Some(fault) => sources.wrong(&place, fault),
        });
        let password = sources.find(None, "RIA_DATABASE_PASSWORD_FILE", None, "database_password_file");
        let password = sources.text(password);
        if let Some((_, place)) = &password
            && database.as_deref().is_none_or(|url| !is_shared(url))
        {
            sources.wrong::<()>(place, "only a PostgreSQL database has a password; give `database` as well");
        }
        let metrics_listen = sources.find(None, "RIA_METRICS_LISTEN", None, "metrics_listen");
        let metrics_listen = sources.parsed(metrics_listen, "an address with a port, such as 127.0.0.1:9443");
        let page_certificate = page_certificate(sources);
        let acme = AcmeSettings::read(sources, &public_urls, page_certificate.as_ref());
        let oidc = OidcSettings::read(sources, !public_urls.is_empty());
        let section = Some("certificates");
        let certificate = sources.find(None, "RIA_CERTIFICATES_LIFETIME", section, "lifetime");
        let membership = sources.find(None, "RIA_CERTIFICATES_MEMBERSHIP", section, "membership");
        let lifetimes = NodeLifetimes {
            certificate: sources.lifetime(certificate, DEFAULT_CERTIFICATE),
            membership: sources.lifetime(membership, DEFAULT_MEMBERSHIP),
        };
        let shared = database.as_deref().is_some_and(is_shared);
        Self {
            data_dir,
            backup: BackupSchedule::find(sources, shared),
            lifetimes,
            listen: listen.unwrap_or(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 443)),
            public_urls,
            database,
            database_password_file: password.map(|(file, _)| file.into()),
            admin_socket,
            metrics_listen,
            page_certificate,
            acme,
            oidc,
            laptops: LaptopSettings::read(sources),
            admission: AdmissionSettings::read(sources),
            relay: RelaySettings::of_coordinator(sources),
            file,
        }
    }
}

/// What is wrong with the address of a database, if anything is. The text may hold a secret, so it is not repeated.
fn database_fault(url: &str) -> Option<&'static str> {
    if url.starts_with("sqlite:") {
        return None;
    }
    if !is_shared(url) {
        return Some(
            "this is no database that there is; give sqlite:///path/to/file or postgres://USER@HOST/DATABASE",
        );
    }
    let authority = url.split_once("//").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    let has_password = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    (has_password || url.contains("password=")).then_some(
        "a password here would be seen in lists of processes and settings; put it into a file, and name that with \
         database_password_file (RIA_DATABASE_PASSWORD_FILE)",
    )
}

/// Files with a certificate and its key, in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageCertificate {
    /// The certificate first, then those that lead to its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

fn page_certificate(sources: &mut Sources<'_>) -> Option<PageCertificate> {
    let section = Some("pages");
    let certificate = sources.find(None, "RIA_PAGES_CERTIFICATE", section, "certificate");
    let key = sources.find(None, "RIA_PAGES_KEY", section, "key");
    match (sources.text(certificate), sources.text(key)) {
        (Some((certificate, _)), Some((key, _))) => {
            Some(PageCertificate { certificate: certificate.into(), key: key.into() })
        }
        (None, None) => None,
        (Some((_, place)), None) => sources.wrong(&place, "give pages.key (RIA_PAGES_KEY) as well"),
        (None, Some((_, place))) => {
            sources.wrong(&place, "give pages.certificate (RIA_PAGES_CERTIFICATE) as well")
        }
    }
}

/// The path of the admin socket for a command that talks to a running coordinator. Mistakes elsewhere in the file are
/// no reason not to find it.
pub fn admin_socket(flag: Option<PathBuf>, environment: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name: &str| environment(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let in_file = || {
        let (file, _) = read_file(set(CONFIG_VARIABLE), DEFAULT_FILE).ok()?;
        file.get("admin_socket").and_then(Value::as_str).map(PathBuf::from)
    };
    flag.or_else(|| set("RIA_ADMIN_SOCKET")).or_else(in_file).unwrap_or_else(|| {
        let usual = [DEFAULT_ADMIN_SOCKET, SERVICE_ADMIN_SOCKET].map(Path::new);
        usual.into_iter().find(|path| path.exists()).unwrap_or(usual[0]).to_owned()
    })
}
