//! The agent's configuration: flag, else `RIA_*` variable, else `/etc/ria/agent.toml`, else default.
//!
//! All mistakes are collected and shown together. Unknown keys are mistakes: a misspelt key that does nothing would be
//! found much later.

mod threads;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::coordinator::reach::Reach;
use crate::daemon::demand::PeersConfig;
use crate::dds::config::DdsConfig;
use crate::gateway::config::RoutesConfig;
use crate::metrics::listen::MetricsConfig;
use crate::names::NamesConfig;
use crate::netdev::exclusions::Exclusions;
pub use threads::PacketThreads;

/// Where the file is unless `--config` or `RIA_CONFIG` says otherwise.
pub const CONFIG_FILE: &str = "/etc/ria/agent.toml";

/// The agent's UDP port unless configured.
pub const DEFAULT_UDP_PORT: u16 = 41820;

/// Where an image may bring a join key along: in the file system, and on the boot partition, which any computer can
/// write to.
const PROVISIONING_FILES: [&str; 3] = ["/etc/ria/join.key", "/boot/firmware/ria.key", "/boot/ria.key"];

const KNOWN_KEYS: &str = "unknown key; known are state_dir, run_dir, udp_port, proxy, beacon, port_mapping, provisioning_file, system_bus, copy_dscp, packet_threads, [names], [paths], [peers], [routes], [dds] and [metrics]";

/// The configuration of a running agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Keys, certificates and maps.
    pub state_dir: PathBuf,
    /// Socket of the local API and generated files.
    pub run_dir: PathBuf,
    /// UDP port of the tunnels; another one is taken when it is in use.
    pub udp_port: u16,
    /// Whether the local API is served on the system bus, too, where there is one.
    pub system_bus: bool,
    /// Where a machine that is in no network looks for a join key; the first file that is there counts.
    pub provisioning_files: Vec<PathBuf>,
    /// Whether members on the local network find each other by beacons while the coordinator is out of reach.
    pub beacon: bool,
    /// How the coordinator and relays behind HTTPS are reached: directly, or by a proxy.
    pub reach: Reach,
    /// Whether the default router is asked to open a port for the tunnel.
    pub port_mapping: bool,
    /// Whether datagrams bear the DSCP of the packets in them.
    pub copy_dscp: bool,
    /// How many threads packets pass through.
    pub packet_threads: PacketThreads,
    /// What paths leave alone.
    pub paths: Exclusions,
    /// DDS files.
    pub dds: DdsConfig,
    /// Names of members for all programs.
    pub names: NamesConfig,
    /// Whom on-demand networks hold.
    pub peers: PeersConfig,
    /// Figures for Prometheus.
    pub metrics: MetricsConfig,
    /// Local networks that others may be let into.
    pub routes: RoutesConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/ria".into(),
            run_dir: "/run/ria".into(),
            udp_port: DEFAULT_UDP_PORT,
            system_bus: true,
            provisioning_files: PROVISIONING_FILES.iter().map(PathBuf::from).collect(),
            beacon: true,
            reach: Reach::default(),
            port_mapping: true,
            copy_dscp: true,
            packet_threads: PacketThreads::default(),
            paths: Exclusions::default(),
            dds: DdsConfig::default(),
            names: NamesConfig::default(),
            peers: PeersConfig::default(),
            metrics: MetricsConfig::default(),
            routes: RoutesConfig::default(),
        }
    }
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`; then the file must exist.
    pub config: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--run-dir`.
    pub run_dir: Option<PathBuf>,
    /// `--udp-port`.
    pub udp_port: Option<u16>,
}

/// All that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the configuration has {} mistake(s):", self.0.len())?;
        self.0.iter().try_for_each(|error| writeln!(f, "  {error}"))
    }
}

impl Config {
    /// Reads the configuration; `env` looks up an environment variable.
    pub fn load(flags: &Overrides, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut config = Self::default();
        let mut errors = Vec::new();
        config.read_proxy_env(&env);
        let named = flags.config.clone().or_else(|| env("RIA_CONFIG").map(PathBuf::from));
        config.read_file(named.as_deref(), &mut errors);
        config.read_env(&env, &mut errors);
        config.read_flags(flags);
        let files = config.provisioning_files.iter().map(|file| ("provisioning_file", file));
        for (key, path) in
            [("state_dir", &config.state_dir), ("run_dir", &config.run_dir)].into_iter().chain(files)
        {
            if !path.is_absolute() {
                errors.push(format!("{key}: {} is no absolute path", path.display()));
            }
        }
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    fn read_file(&mut self, named: Option<&Path>, errors: &mut Vec<String>) {
        let path = named.unwrap_or(Path::new(CONFIG_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return errors.push(format!("{}: {error}", path.display())),
        };
        self.read_text(&path.display().to_string(), &text, errors);
    }

    /// Reads the content of a file.
    pub(crate) fn read_text(&mut self, file: &str, text: &str, errors: &mut Vec<String>) {
        match text.parse::<toml::Table>() {
            Ok(table) => self.read_table(file, table, errors),
            Err(error) => errors.push(format!("{file}: {error}")),
        }
    }

    fn read_table(&mut self, file: &str, table: toml::Table, errors: &mut Vec<String>) {
        for (key, value) in table {
            let read = match key.as_str() {
                "state_dir" => text(value).map(|v| self.state_dir = v.into()),
                "run_dir" => text(value).map(|v| self.run_dir = v.into()),
                "udp_port" => value.try_into::<u16>().map(|v| self.udp_port = v).map_err(|e| e.to_string()),
                "proxy" => text(value).and_then(|v| self.reach.set_proxy(&v).map_err(|e| e.to_string())),
                "copy_dscp" => {
                    value.try_into::<bool>().map(|v| self.copy_dscp = v).map_err(|e| e.to_string())
                }
                "packet_threads" => {
                    value.try_into().map(|v| self.packet_threads = v).map_err(|e| e.to_string())
                }
                "beacon" => value.try_into::<bool>().map(|v| self.beacon = v).map_err(|e| e.to_string()),
                "provisioning_file" => text(value).map(|v| self.set_provisioning_file(&v)),
                "system_bus" => {
                    value.try_into::<bool>().map(|v| self.system_bus = v).map_err(|e| e.to_string())
                }
                "port_mapping" => {
                    value.try_into::<bool>().map(|v| self.port_mapping = v).map_err(|e| e.to_string())
                }
                "paths" => value.try_into::<Exclusions>().map(|v| self.paths = v).map_err(|e| e.to_string()),
                "names" => value.try_into::<NamesConfig>().map(|v| self.names = v).map_err(|e| e.to_string()),
                "peers" => value
                    .try_into::<PeersConfig>()
                    .map_err(|e| e.to_string())
                    .and_then(PeersConfig::checked)
                    .map(|v| self.peers = v),
                "metrics" => value
                    .try_into::<MetricsConfig>()
                    .map_err(|e| e.to_string())
                    .and_then(MetricsConfig::checked)
                    .map(|v| self.metrics = v),
                "routes" => value
                    .try_into::<RoutesConfig>()
                    .map_err(|e| e.to_string())
                    .and_then(RoutesConfig::checked)
                    .map(|v| self.routes = v),
                "dds" => value
                    .try_into::<DdsConfig>()
                    .map_err(|e| e.to_string())
                    .and_then(DdsConfig::checked)
                    .map(|v| self.dds = v),
                _ => Err(KNOWN_KEYS.into()),
            };
            if let Err(error) = read {
                errors.push(format!("{file}: {key}: {}", error.trim_end()));
            }
        }
    }

    fn read_env(&mut self, env: &impl Fn(&str) -> Option<String>, errors: &mut Vec<String>) {
        if let Some(dir) = env("RIA_STATE_DIR") {
            self.state_dir = dir.into();
        }
        if let Some(dir) = env("RIA_RUN_DIR") {
            self.run_dir = dir.into();
        }
        if let Some(file) = env("RIA_PROVISIONING_FILE") {
            self.set_provisioning_file(&file);
        }
        if let Some(wanted) = env("RIA_SYSTEM_BUS") {
            match wanted.parse() {
                Ok(wanted) => self.system_bus = wanted,
                Err(_) => errors.push(format!("RIA_SYSTEM_BUS: {wanted:?} is neither true nor false")),
            }
        }
        if let Some(wanted) = env("RIA_PORT_MAPPING") {
            match wanted.parse() {
                Ok(wanted) => self.port_mapping = wanted,
                Err(_) => errors.push(format!("RIA_PORT_MAPPING: {wanted:?} is neither true nor false")),
            }
        }
        if let Some(wanted) = env("RIA_BEACON") {
            match wanted.parse() {
                Ok(wanted) => self.beacon = wanted,
                Err(_) => errors.push(format!("RIA_BEACON: {wanted:?} is neither true nor false")),
            }
        }
        if let Some(wanted) = env("RIA_PACKET_THREADS") {
            match wanted.parse() {
                Ok(wanted) => self.packet_threads = wanted,
                Err(error) => errors.push(format!("RIA_PACKET_THREADS: {error}")),
            }
        }
        if let Some(Err(error)) = env("RIA_PROXY").map(|proxy| self.reach.set_proxy(&proxy)) {
            errors.push(format!("RIA_PROXY: {error}"));
        }
        if let Some(wanted) = env("RIA_NAMES") {
            match wanted.parse() {
                Ok(mode) => self.names.mode = mode,
                Err(error) => errors.push(format!("RIA_NAMES: {error}")),
            }
        }
        if let Some(port) = env("RIA_UDP_PORT") {
            match port.parse() {
                Ok(port) => self.udp_port = port,
                Err(_) => errors.push(format!("RIA_UDP_PORT: {port:?} is no port (0 to 65535)")),
            }
        }
    }

    /// What other programs on this machine are told. It was not written for this one, so a mistake there stops nothing.
    fn read_proxy_env(&mut self, env: &impl Fn(&str) -> Option<String>) {
        let either = |upper: &str| env(upper).or_else(|| env(&upper.to_ascii_lowercase()));
        if let Some(Err(error)) = either("HTTPS_PROXY").map(|proxy| self.reach.set_proxy(&proxy)) {
            tracing::warn!("HTTPS_PROXY is left alone: {error}");
        }
        if let Some(exempt) = either("NO_PROXY") {
            self.reach.set_exempt(&exempt);
        }
    }

    /// One place in place of the default ones; an empty text is none at all.
    fn set_provisioning_file(&mut self, file: &str) {
        self.provisioning_files =
            Some(file).filter(|file| !file.is_empty()).map(PathBuf::from).into_iter().collect();
    }

    fn read_flags(&mut self, flags: &Overrides) {
        if let Some(dir) = &flags.state_dir {
            self.state_dir.clone_from(dir);
        }
        if let Some(dir) = &flags.run_dir {
            self.run_dir.clone_from(dir);
        }
        if let Some(port) = flags.udp_port {
            self.udp_port = port;
        }
    }
}

fn text(value: toml::Value) -> Result<String, String> {
    value.try_into().map_err(|e: toml::de::Error| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Mode;

    fn load(file: &str, flags: Overrides, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, file).unwrap();
        let env = |key: &str| env.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned());
        Config::load(&Overrides { config: Some(path), ..flags }, env)
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let file = "state_dir = '/file/state'\nrun_dir = '/file/run'\nudp_port = 1\n";
        let flags = Overrides { udp_port: Some(3), ..Overrides::default() };
        let config = load(file, flags, &[("RIA_UDP_PORT", "2"), ("RIA_RUN_DIR", "/env/run")]).unwrap();
        assert_eq!(config.udp_port, 3);
        assert_eq!(config.run_dir, Path::new("/env/run"));
        assert_eq!(config.state_dir, Path::new("/file/state"));
        assert_eq!(load("", Overrides::default(), &[]).unwrap(), Config::default());
    }

    #[test]
    fn all_mistakes_are_shown_at_once() {
        let file = "udp_prot = 1\nudp_port = 70000\nstate_dir = 'relative'\n";
        let ConfigErrors(errors) = load(file, Overrides::default(), &[("RIA_UDP_PORT", "many")]).unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:#?}");
        assert!(errors.iter().any(|e| e.contains("udp_prot: unknown key")));
    }

    #[test]
    fn a_proxy_is_taken_from_the_file_or_from_what_all_programs_are_told() {
        let reach = |file: &str, env: &[(&str, &str)]| load(file, Overrides::default(), env).unwrap().reach;
        let proxy = |address: &str| {
            let mut reach = Reach::default();
            reach.set_proxy(address).unwrap();
            reach
        };
        let told = ("https_proxy", "http://all.example:3128");
        assert_eq!(reach("", &[told]), proxy("http://all.example:3128"));
        assert_eq!(reach("proxy = 'http://own.example:8080'", &[told]), proxy("own.example:8080"));
        assert_eq!(reach("proxy = ''", &[told]), Reach::default());
        assert_eq!(reach("proxy = ''", &[told, ("RIA_PROXY", "b:80")]), proxy("b:80"));
        assert_eq!(reach("", &[("HTTPS_PROXY", "socks5://elsewhere:1080")]), Reach::default());
        assert_ne!(reach("", &[told, ("NO_PROXY", "lab.example")]), reach("", &[told]));
        let ConfigErrors(errors) = load("proxy = 'socks5://a:b@c'", Overrides::default(), &[]).unwrap_err();
        assert!(errors[0].contains("not by socks5://") && !errors[0].contains("a:b"), "{errors:?}");
    }

    #[test]
    fn the_robots_own_networks_and_port_mapping_are_set_in_the_file() {
        let file = "port_mapping = false\n[paths]\nexclude_interfaces = ['eth1']\nexclude_prefixes = ['192.168.1.0/24']\n";
        let config = load(file, Overrides::default(), &[]).unwrap();
        assert!(!config.port_mapping && config.paths.name("eth1"));
        assert!(config.paths.cover("192.168.1.9".parse().unwrap()));
        assert!(load(file, Overrides::default(), &[("RIA_PORT_MAPPING", "true")]).unwrap().port_mapping);
        for bad in
            ["[paths]\nexclude = []", "[paths]\nexclude_prefixes = ['192.168.1']", "port_mapping = 'no'"]
        {
            assert!(load(bad, Overrides::default(), &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn beacons_are_on_until_the_file_or_the_environment_says_otherwise() {
        let beacon =
            |file: &str, env: &[(&str, &str)]| load(file, Overrides::default(), env).map(|c| c.beacon);
        assert_eq!(beacon("", &[]), Ok(true));
        assert_eq!(beacon("beacon = false", &[]), Ok(false));
        assert_eq!(beacon("beacon = false", &[("RIA_BEACON", "true")]), Ok(true));
        let ConfigErrors(errors) = beacon("beacon = 'no'", &[("RIA_BEACON", "off")]).unwrap_err();
        assert_eq!(errors.len(), 2, "{errors:?}");
    }

    #[test]
    fn packet_threads_are_a_number_or_left_to_the_machine() {
        let threads = |file: &str, env: &[(&str, &str)]| {
            load(file, Overrides::default(), env).map(|config| config.packet_threads)
        };
        assert_eq!(threads("", &[]), Ok(PacketThreads::Auto));
        assert_eq!(threads("packet_threads = 3", &[]), Ok(PacketThreads::Fixed(3)));
        assert_eq!(threads("packet_threads = 'auto'", &[]), Ok(PacketThreads::Auto));
        assert_eq!(
            threads("packet_threads = 3", &[("RIA_PACKET_THREADS", "1")]),
            Ok(PacketThreads::Fixed(1))
        );
        for bad in ["0", "17", "-1", "1.5", "'many'", "true"] {
            let file = format!("packet_threads = {bad}");
            let ConfigErrors(errors) = threads(&file, &[("RIA_PACKET_THREADS", "some")]).unwrap_err();
            assert_eq!(errors.len(), 2, "{errors:?}");
            assert!(errors.iter().all(|e| e.contains("\"auto\"") && e.contains("1 to 16")), "{errors:?}");
        }
    }

    #[test]
    fn where_names_are_put_is_one_of_few_words() {
        let mode = |file: &str, env: &[(&str, &str)]| {
            load(file, Overrides::default(), env).map(|config| config.names.mode)
        };
        assert_eq!(mode("", &[]), Ok(Mode::Auto));
        assert_eq!(mode("[names]\nmode = 'off'", &[]), Ok(Mode::Off));
        assert_eq!(mode("[names]\nmode = 'off'", &[("RIA_NAMES", "hosts")]), Ok(Mode::Hosts));
        let ConfigErrors(errors) = mode("[names]\nmode = 'bind'", &[("RIA_NAMES", "dns")]).unwrap_err();
        assert!(
            errors[0].contains("\"bind\" is none of") && errors[1].contains("\"dns\" is none of"),
            "{errors:?}"
        );
    }

    #[test]
    fn the_file_that_is_installed_says_the_defaults() {
        let text = include_str!("../packaging/config/agent.toml");
        assert_eq!(load(text, Overrides::default(), &[]).unwrap(), Config::default());
        // A line that is a setting begins with a word and '=', one that is a table with '['.
        let is_setting = |line: &str| {
            line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', ',']))
        };
        let lines =
            text.lines().map(|line| line.strip_prefix("# ").filter(|l| is_setting(l)).unwrap_or(line));
        let on = lines.collect::<Vec<_>>().join("\n");
        assert!(on.matches("\n[").count() == 5 && on.contains("\nudp_port = "), "{on}");
        assert_eq!(load(&on, Overrides::default(), &[]).unwrap(), Config::default());
    }

    #[test]
    fn a_named_file_must_exist_and_be_toml() {
        let missing = Overrides { config: Some("/no/such/file".into()), ..Overrides::default() };
        let error = Config::load(&missing, |_| None).unwrap_err().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
        assert!(load("udp_port = ", Overrides::default(), &[]).is_err());
    }
}
