//! Settings: flag, else environment, else file, else default. Unknown keys are refused, and all mistakes are shown
//! together.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::{Table, Value};

use crate::duration::Lifetime;
use crate::relay::DEFAULT_CREDENTIALS;
use crate::state::DEFAULT_MEMBERSHIP;
use crate::tls::authority::NodeLifetimes;

/// Where the file is looked for unless it is named.
pub const DEFAULT_FILE: &str = "/etc/ria/coordinator.toml";
/// Where the admin socket is unless it is named.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/ria/coordinator.sock";
/// The variable that names another file. The agent's is another one, for both may run on one machine.
pub const CONFIG_VARIABLE: &str = "RIA_COORDINATOR_CONFIG";
const DEFAULT_DATA_DIR: &str = "/var/lib/ria-coordinator";
const DEFAULT_RELAY_PORT: u16 = 3478;
const DEFAULT_CERTIFICATE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Nodes renew when a third has passed; what is shorter would keep them busy with nothing else.
const SHORTEST: Duration = Duration::from_secs(6);

/// All settings of `serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub public_urls: Vec<PublicUrl>,
    /// `None`: SQLite in the data directory.
    pub database: Option<String>,
    pub admin_socket: PathBuf,
    pub relay: RelaySettings,
    /// How long certificates of nodes and memberships last.
    pub lifetimes: NodeLifetimes,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Settings of the relay in the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    pub enabled: bool,
    pub listen: Vec<SocketAddr>,
    /// Addresses that relayed addresses show, where they are not those that the relay is bound to; at most one of
    /// each family.
    pub external: Vec<IpAddr>,
    /// How long credentials live; nodes are given new ones when half of it has passed.
    pub credentials: Duration,
    /// Ports of relayed addresses that can be reached from outside of the relay.
    pub outside_ports: Option<RangeInclusive<u16>>,
    /// Private networks of this machine in which peers may be all the same.
    pub outside_allow: Vec<IpNet>,
    /// Bound for what one node may have relayed.
    pub node_bytes_per_second: Option<u64>,
    /// Most allocations of one node.
    pub node_allocations: Option<usize>,
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

/// The settings can't be used; every mistake is listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", mistakes.join("\n"))]
pub struct ConfigError {
    pub mistakes: Vec<String>,
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

/// Finds values in their order of precedence, and gathers mistakes.
struct Sources<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    file: Table,
    file_name: String,
    mistakes: Vec<String>,
}

/// One value with the place that it came from.
struct Found {
    value: Value,
    place: String,
}

impl Sources<'_> {
    /// The value of `section.key`, from a flag, `variable`, or the file.
    fn find(
        &mut self,
        flag: Option<(&str, Value)>,
        variable: &str,
        section: Option<&str>,
        key: &str,
    ) -> Option<Found> {
        // The file's value is taken out in any case: what is left over is unknown.
        let in_file = match section {
            None => self.file.remove(key),
            Some(section) => {
                self.file.get_mut(section).and_then(Value::as_table_mut).and_then(|t| t.remove(key))
            }
        };
        if let Some((name, value)) = flag {
            return Some(Found { value, place: name.to_owned() });
        }
        if let Some(text) = (self.environment)(variable).filter(|text| !text.is_empty()) {
            return Some(Found { value: Value::String(text), place: variable.to_owned() });
        }
        let name = section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}"));
        in_file.map(|value| Found { value, place: format!("{}: {name}", self.file_name) })
    }

    fn wrong<T>(&mut self, place: &str, problem: impl std::fmt::Display) -> Option<T> {
        self.mistakes.push(format!("{place}: {problem}"));
        None
    }

    fn text(&mut self, found: Option<Found>) -> Option<(String, String)> {
        let found = found?;
        match found.value.as_str().filter(|text| !text.is_empty()) {
            Some(text) => Some((text.to_owned(), found.place)),
            None => self.wrong(&found.place, "expected a text"),
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, found: Option<Found>, expected: &str) -> Option<T> {
        let (text, place) = self.text(found)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(_) => self.wrong(&place, format!("{text:?} is not {expected}")),
        }
    }

    /// A time that is not too short to work with.
    fn lifetime(&mut self, found: Option<Found>, default: Duration) -> Duration {
        let Some((text, place)) = self.text(found) else { return default };
        let parsed = match text.parse() {
            Ok(Lifetime::For(time)) if time >= SHORTEST => Some(time),
            Ok(Lifetime::For(_)) => {
                self.wrong(&place, format!("{text:?} is too short; give {} s or more", SHORTEST.as_secs()))
            }
            Ok(Lifetime::Forever) | Err(_) => {
                self.wrong(&place, format!("{text:?} is no duration; write it as 30m, 12h or 7d"))
            }
        };
        parsed.unwrap_or(default)
    }

    /// A whole number above 0.
    fn number(&mut self, found: Option<Found>) -> Option<u64> {
        let found = found?;
        let from_text = || found.value.as_str().and_then(|text| text.parse().ok());
        let number = found.value.as_integer().and_then(|number| u64::try_from(number).ok());
        match number.or_else(from_text) {
            Some(number @ 1..) => Some(number),
            Some(0) | None => self.wrong(&found.place, "expected a whole number, 1 or more"),
        }
    }

    fn flag(&mut self, found: Option<Found>) -> Option<bool> {
        let found = found?;
        let from_text = || found.value.as_str().and_then(|text| text.parse().ok());
        match found.value.as_bool().or_else(from_text) {
            Some(value) => Some(value),
            None => self.wrong(&found.place, "expected true or false"),
        }
    }

    /// A list, or one text with commas.
    fn list(&mut self, found: Option<Found>) -> Option<(Vec<String>, String)> {
        let found = found?;
        if let Some(text) = found.value.as_str() {
            return Some((text.split(',').map(|t| t.trim().to_owned()).collect(), found.place));
        }
        let texts = found.value.as_array().and_then(|values| {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        match texts {
            Some(texts) => Some((texts, found.place)),
            None => self.wrong(&found.place, "expected a text or a list of texts"),
        }
    }

    fn parsed_list<T>(
        &mut self,
        found: Option<Found>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let (texts, place) = self.list(found)?;
        let (good, bad): (Vec<_>, Vec<_>) = texts.iter().map(|text| parse(text)).partition(Result::is_ok);
        for problem in bad.into_iter().filter_map(Result::err) {
            self.mistakes.push(format!("{place}: {problem}"));
        }
        Some(good.into_iter().filter_map(Result::ok).collect())
    }
}

impl Config {
    /// Reads the settings. `environment` looks up a variable.
    pub fn load(flags: Flags, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let named = flags
            .config
            .clone()
            .or_else(|| environment(CONFIG_VARIABLE).filter(|t| !t.is_empty()).map(PathBuf::from));
        let (file, path) = read_file(named)?;
        let file_name = path.as_ref().map_or_else(String::new, |p| p.display().to_string());
        let mut sources = Sources { environment, file, file_name, mistakes: Vec::new() };
        let config = Self::from_sources(&mut sources, flags, path);
        report_unknown(&mut sources);
        if sources.mistakes.is_empty() { Ok(config) } else { Err(ConfigError { mistakes: sources.mistakes }) }
    }

    /// Reads the content of a file, and nothing else.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn from_text(name: &str, text: &str) -> Result<Self, ConfigError> {
        let mistake = |error: toml::de::Error| ConfigError { mistakes: vec![format!("{name}: {error}")] };
        let file = text.parse::<Table>().map_err(mistake)?;
        let mut sources =
            Sources { environment: &|_| None, file, file_name: name.to_owned(), mistakes: Vec::new() };
        let config = Self::from_sources(&mut sources, Flags::default(), None);
        report_unknown(&mut sources);
        if sources.mistakes.is_empty() { Ok(config) } else { Err(ConfigError { mistakes: sources.mistakes }) }
    }

    fn from_sources(sources: &mut Sources<'_>, flags: Flags, file: Option<PathBuf>) -> Self {
        let path = |flag: Option<PathBuf>| flag.map(|p| Value::String(p.to_string_lossy().into_owned()));
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
        let database = sources.text(database).and_then(|(text, place)| {
            if text.starts_with("sqlite:") {
                Some(text)
            } else {
                sources.wrong(
                    &place,
                    format!("{text:?} is no database of this version; give sqlite:///path/to/file"),
                )
            }
        });
        let section = Some("certificates");
        let certificate = sources.find(None, "RIA_CERTIFICATES_LIFETIME", section, "lifetime");
        let membership = sources.find(None, "RIA_CERTIFICATES_MEMBERSHIP", section, "membership");
        let lifetimes = NodeLifetimes {
            certificate: sources.lifetime(certificate, DEFAULT_CERTIFICATE),
            membership: sources.lifetime(membership, DEFAULT_MEMBERSHIP),
        };
        Self {
            data_dir,
            lifetimes,
            listen: listen.unwrap_or(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 443)),
            public_urls,
            database,
            admin_socket,
            relay: RelaySettings::from_sources(sources),
            file,
        }
    }
}

impl RelaySettings {
    fn from_sources(sources: &mut Sources<'_>) -> Self {
        let section = Some("relay");
        let enabled = sources.find(None, "RIA_RELAY_ENABLED", section, "enabled");
        let listen = sources.find(None, "RIA_RELAY_LISTEN", section, "listen");
        let listen = sources.parsed_list(listen, |text| {
            text.parse::<SocketAddr>()
                .map_err(|_| format!("{text:?} is not an address with a port, such as [::]:3478"))
        });
        let external = sources.find(None, "RIA_RELAY_EXTERNAL", section, "external");
        let external = sources.parsed_list(external, |text| {
            text.parse::<IpAddr>().map_err(|_| format!("{text:?} is not an IP address"))
        });
        let external = external.unwrap_or_default();
        let credentials = sources.find(None, "RIA_RELAY_CREDENTIALS", section, "credentials");
        let credentials = sources.lifetime(credentials, DEFAULT_CREDENTIALS);
        let outside_ports = sources.find(None, "RIA_RELAY_OUTSIDE_PORTS", section, "outside_ports");
        let outside_ports = sources.text(outside_ports).and_then(|(text, place)| match port_range(&text) {
            Some(ports) if !external.is_empty() => Some(ports),
            Some(_) => sources.wrong(
                &place,
                "relay.external has to say at which address these ports are reached from outside",
            ),
            None => sources.wrong(
                &place,
                format!(
                    "{text:?} is no range of at most {MOST_OUTSIDE_PORTS} ports above 1023, such as 50000-50100"
                ),
            ),
        });
        let outside_allow = sources.find(None, "RIA_RELAY_OUTSIDE_ALLOW", section, "outside_allow");
        let outside_allow = sources.parsed_list(outside_allow, |text| {
            text.parse::<IpNet>().map_err(|_| format!("{text:?} is no prefix, such as 192.168.7.0/24"))
        });
        let rate = sources.find(None, "RIA_RELAY_NODE_BYTES_PER_SECOND", section, "node_bytes_per_second");
        let node_bytes_per_second = sources.number(rate);
        let node_allocations = sources.find(None, "RIA_RELAY_NODE_ALLOCATIONS", section, "node_allocations");
        let node_allocations =
            sources.number(node_allocations).map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        if external.iter().filter(|ip| ip.is_ipv4()).count() > 1
            || external.iter().filter(|ip| ip.is_ipv6()).count() > 1
        {
            sources.mistakes.push("relay.external: give at most one IPv4 and one IPv6 address".to_owned());
        }
        Self {
            enabled: sources.flag(enabled).unwrap_or(true),
            listen: listen
                .unwrap_or_else(|| vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), DEFAULT_RELAY_PORT)]),
            external,
            credentials,
            outside_ports,
            outside_allow: outside_allow.unwrap_or_default(),
            node_bytes_per_second,
            node_allocations,
        }
    }
}

/// Sockets are looked at one by one, so there is a bound.
const MOST_OUTSIDE_PORTS: u16 = 1024;

/// `50000-50100`.
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let count = last.checked_sub(first)?;
    (first > 1023 && count < MOST_OUTSIDE_PORTS).then_some(first..=last)
}

/// The file's content, and its name where there is one. A file that is named has to be there.
fn read_file(named: Option<PathBuf>) -> Result<(Table, Option<PathBuf>), ConfigError> {
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let mistake = |problem: String| ConfigError { mistakes: vec![format!("{}: {problem}", path.display())] };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let table =
                text.parse::<Table>().map_err(|error| mistake(error.to_string().trim_end().to_owned()))?;
            Ok((table, Some(path)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            Ok((Table::new(), None))
        }
        Err(error) => Err(mistake(error.to_string())),
    }
}

const KEYS: [&str; 7] =
    ["data_dir", "listen", "public_url", "database", "admin_socket", "[relay]", "[certificates]"];
const SECTIONS: [(&str, &[&str]); 2] = [
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
    ("certificates", &["certificates.lifetime", "certificates.membership"]),
];

fn report_unknown(sources: &mut Sources<'_>) {
    let file = std::mem::take(&mut sources.file);
    let name = &sources.file_name;
    for (key, value) in file {
        let section = SECTIONS.iter().find(|(name, _)| *name == key);
        let problems: Vec<String> = match (value.as_table(), section) {
            (Some(table), Some((_, known))) => {
                table.keys().map(|inner| unknown(&format!("{key}.{inner}"), known)).collect()
            }
            (_, _) => vec![unknown(&key, &KEYS)],
        };
        sources.mistakes.extend(problems.into_iter().map(|problem| format!("{name}: {problem}")));
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    format!("unknown key \"{key}\"; there are: {}", known.join(", "))
}

/// The path of the admin socket for a command that talks to a running coordinator. Mistakes elsewhere in the file are
/// no reason not to find it.
pub fn admin_socket(flag: Option<PathBuf>, environment: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name: &str| environment(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let in_file = || {
        let (file, _) = read_file(set(CONFIG_VARIABLE)).ok()?;
        file.get("admin_socket").and_then(Value::as_str).map(PathBuf::from)
    };
    flag.or_else(|| set("RIA_ADMIN_SOCKET"))
        .or_else(in_file)
        .unwrap_or_else(|| Path::new(DEFAULT_ADMIN_SOCKET).to_owned())
}
