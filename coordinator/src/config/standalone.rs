//! Settings of a relay that runs by itself (`ria-coordinator relay`).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use toml::Value;

use super::relay::RelaySettings;
use super::sources::{ConfigError, Known, Sources, path_value};

/// The variable that names another file.
pub const CONFIG_VARIABLE: &str = "RIA_RELAY_CONFIG";
const DEFAULT_FILE: &str = "/etc/ria/relay.toml";
const DEFAULT_DATA_DIR: &str = "/var/lib/ria-relay";
const KNOWN: Known = Known {
    keys: &["data_dir", "listen", "host", "key_file", "metrics_listen", "[relay]"],
    sections: &[(
        "relay",
        &[
            "relay.listen",
            "relay.external",
            "relay.outside_ports",
            "relay.outside_allow",
            "relay.node_bytes_per_second",
            "relay.node_allocations",
        ],
    )],
};

/// All settings of a stand-alone relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standalone {
    pub data_dir: PathBuf,
    /// Where TURN over TCP and TLS is spoken.
    pub listen: SocketAddr,
    /// Where nodes find it; `None` for the address that the coordinator sees.
    pub host: Option<String>,
    pub key_file: Option<PathBuf>,
    /// Where Prometheus finds figures; nowhere unless it is set.
    pub metrics_listen: Option<SocketAddr>,
    pub relay: RelaySettings,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct StandaloneFlags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub listen: Option<String>,
    pub host: Option<String>,
    pub key_file: Option<PathBuf>,
}

impl Standalone {
    /// Reads the settings. `environment` looks up a variable.
    pub fn load(
        flags: StandaloneFlags,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let in_environment = || environment(CONFIG_VARIABLE).filter(|t| !t.is_empty()).map(PathBuf::from);
        let named = flags.config.clone().or_else(in_environment);
        let (mut sources, path) = Sources::open(named, DEFAULT_FILE, environment)?;
        let settings = Self::from_sources(&mut sources, flags, path);
        sources.finish(settings, &KNOWN)
    }

    /// Reads the content of a file, and nothing else.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn from_text(name: &str, text: &str) -> Result<Self, ConfigError> {
        let mut sources = Sources::of_text(name, text)?;
        let settings = Self::from_sources(&mut sources, StandaloneFlags::default(), None);
        sources.finish(settings, &KNOWN)
    }

    fn from_sources(sources: &mut Sources<'_>, flags: StandaloneFlags, file: Option<PathBuf>) -> Self {
        let data_dir = flags.data_dir.map(|path| ("--data-dir", path_value(&path)));
        let data_dir = sources.find(data_dir, "RIA_DATA_DIR", None, "data_dir");
        let data_dir =
            sources.text(data_dir).map_or_else(|| DEFAULT_DATA_DIR.into(), |(text, _)| text.into());
        let listen = flags.listen.map(|text| ("--listen", Value::String(text)));
        let listen = sources.find(listen, "RIA_LISTEN", None, "listen");
        let listen = sources.parsed(listen, "an address with a port, such as [::]:443 or 192.0.2.7:443");
        let host = flags.host.map(|text| ("--host", Value::String(text)));
        let host = sources.find(host, "RIA_RELAY_HOST", None, "host");
        let host = sources.text(host).and_then(|(text, place)| match check_host(&text) {
            Ok(()) => Some(text),
            Err(problem) => sources.wrong(&place, problem),
        });
        let key_file = flags.key_file.map(|path| ("--key-file", path_value(&path)));
        let key_file = sources.find(key_file, "RIA_RELAY_KEY_FILE", None, "key_file");
        let metrics_listen = sources.find(None, "RIA_METRICS_LISTEN", None, "metrics_listen");
        let metrics_listen = sources.parsed(metrics_listen, "an address with a port, such as 127.0.0.1:9443");
        Self {
            data_dir,
            metrics_listen,
            listen: listen.unwrap_or(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 443)),
            host,
            key_file: sources.text(key_file).map(|(text, _)| text.into()),
            relay: RelaySettings::of_any(sources),
            file,
        }
    }
}

/// Whether a text is a name or an address at which a relay can be, and nothing else.
pub fn check_host(host: &str) -> Result<(), String> {
    let is_address = host.parse::<IpAddr>().is_ok();
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if is_address || is_name {
        return Ok(());
    }
    Err(format!("{host:?} is no host; give a name or an address, without port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_variables_and_these_before_the_file_and_unknown_keys_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.toml");
        std::fs::write(&path, "host = \"file.example\"\ndata_dir = \"/file\"\nlisten = \"[::]:8443\"\n")
            .unwrap();
        let flags = StandaloneFlags {
            config: Some(path.clone()),
            data_dir: Some("/flag".into()),
            ..StandaloneFlags::default()
        };
        let environment = |name: &str| (name == "RIA_RELAY_HOST").then(|| "192.0.2.9".to_owned());
        let settings = Standalone::load(flags.clone(), &environment).unwrap();
        assert_eq!(settings.data_dir, PathBuf::from("/flag"));
        assert_eq!(settings.host.as_deref(), Some("192.0.2.9"));
        assert_eq!(settings.listen.port(), 8443);
        std::fs::write(&path, "hots = 1\n[relay]\nenabled = true\nlisten = \"here\"\n").unwrap();
        let mistakes = Standalone::load(flags, &environment).unwrap_err().mistakes;
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(mistakes.iter().any(|m| m.contains("\"hots\"")), "{mistakes:?}");
        assert!(mistakes.iter().any(|m| m.contains("relay.enabled")), "{mistakes:?}");
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for good in ["192.0.2.7", "2001:db8::7", "relay.lab.example"] {
            assert_eq!(check_host(good), Ok(()), "{good}");
        }
        for bad in ["", "https://relay", "relay:3478", "[2001:db8::7]", "a b"] {
            assert!(check_host(bad).is_err(), "{bad}");
        }
    }
}
