//! An office whose firewall lets nothing out but what its HTTP proxy carries.

use std::path::Path;

use netlab::{Host, Process};

/// Where the proxy is.
pub const PROXY: &str = "198.51.100.9";
/// What it wants to hear of the user `robot`.
pub const PASSWORD: &str = "s3cret-of-the-proxy";
/// Configuration of an agent that uses it.
pub const CONFIG: &str = "/run/agent.toml";

/// A proxy as offices have it: to port 443 only, for those who know the password.
pub fn start_proxy(host: &Host) -> Process {
    let config = format!(
        "Port 3128\nListen 0.0.0.0\nTimeout 600\nMaxClients 20\nConnectPort 443\nBasicAuth robot {PASSWORD}\n"
    );
    std::fs::write(host.path("/run/tinyproxy.conf"), config).unwrap();
    let proxy = host.spawn(&["tinyproxy", "-d", "-c", "/run/tinyproxy.conf"], Path::new("/dev/null"));
    proxy.expect("tinyproxy is installed: scripts/test installs it")
}

/// Nothing but the proxy is reached from here.
pub fn close_firewall(host: &Host) {
    let rules = format!(
        "table inet office {{ chain out {{ type filter hook output priority 0; policy drop; oif lo accept; \
         oifname \"ria*\" accept; ip daddr {PROXY} tcp dport 3128 accept; }}; }}\n"
    );
    std::fs::write(host.path("/run/office.nft"), rules).unwrap();
    host.run(&["nft", "-f", "/run/office.nft"]).unwrap();
}

/// Has the agent use the proxy.
pub fn set_proxy(host: &Host, password: &str) {
    let config = format!("proxy = \"http://robot:{password}@{PROXY}:3128\"\n");
    std::fs::write(host.path(CONFIG), config).unwrap();
}
