//! The table `ria` of nftables: who may be forwarded, and whose address is put in the place of the overlay's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Forward, GatewayError};

/// Where the program is; a service's search path may lack it.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// Makes the table if there is none, and removes it: so it is gone whether or not it was there.
const GONE: &str = "table ip ria {}\ndelete table ip ria\n";

/// All rules, in place of those before; nftables takes them as a whole. From interfaces that were `switched` on for Ria nothing
/// is forwarded but answers.
pub(super) fn text(forwards: &BTreeSet<Forward>, switched: &BTreeSet<String>) -> String {
    let overlays: BTreeSet<&str> = forwards.iter().map(|forward| forward.overlay.as_str()).collect();
    let mut text = format!("{GONE}table ip ria {{\n");
    // Writing to a string can't fail.
    let mut line = |indent: usize, rule: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{:indent$}{rule}", "");
    };
    line(2, format_args!("chain forward {{"));
    line(4, format_args!("type filter hook forward priority filter; policy accept;"));
    for Forward { overlay, members, lan, interface } in forwards {
        line(
            4,
            format_args!(
                "iifname \"{overlay}\" oifname \"{interface}\" ip saddr {members} ip daddr {lan} accept"
            ),
        );
    }
    for overlay in overlays {
        line(4, format_args!("iifname \"{overlay}\" drop"));
        line(4, format_args!("oifname \"{overlay}\" ct state established,related accept"));
        line(4, format_args!("oifname \"{overlay}\" drop"));
    }
    for interface in switched {
        line(4, format_args!("iifname \"{interface}\" drop"));
    }
    line(2, format_args!("}}"));
    line(2, format_args!("chain postrouting {{"));
    line(4, format_args!("type nat hook postrouting priority srcnat; policy accept;"));
    for Forward { members, lan, interface, .. } in forwards {
        line(4, format_args!("oifname \"{interface}\" ip saddr {members} ip daddr {lan} masquerade"));
    }
    line(2, format_args!("}}"));
    text.push_str("}\n");
    text
}

/// Puts rules in force.
pub(super) async fn install(text: &str) -> Result<(), GatewayError> {
    for program in PROGRAMS {
        match run(program, text).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(GatewayError::Nft(error.to_string())),
            Ok(said) => return said.map_err(GatewayError::Nft),
        }
    }
    Err(GatewayError::NoNft)
}

/// Removes them.
pub(super) async fn remove() -> Result<(), GatewayError> {
    match install(GONE).await {
        // Without the program there are no rules of it either.
        Err(GatewayError::NoNft) => Ok(()),
        other => other,
    }
}

/// What the program says of a text: nothing, or why not.
async fn run(program: &str, text: &str) -> io::Result<Result<(), String>> {
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has gone away says below why.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
    let ended = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let first = said.lines().next().unwrap_or("it said nothing").to_owned();
    Ok(if ended.status.success() { Ok(()) } else { Err(first) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(overlay: &str, members: &str, lan: &str, interface: &str) -> Forward {
        Forward {
            overlay: overlay.into(),
            members: members.parse().unwrap(),
            lan: lan.parse().unwrap(),
            interface: interface.into(),
        }
    }

    #[test]
    fn only_approved_networks_are_reached_and_devices_only_answer() {
        let forwards = [
            forward("ria0", "10.213.0.0/16", "192.168.10.0/24", "eth1"),
            forward("ria1", "10.214.0.0/16", "192.168.20.0/24", "eth2"),
        ];
        let text = text(&forwards.into(), &["eth1".to_owned()].into());
        let accepted = text
            .find("iifname \"ria0\" oifname \"eth1\" ip saddr 10.213.0.0/16 ip daddr 192.168.10.0/24 accept");
        let dropped = text.find("iifname \"ria0\" drop");
        assert!(accepted.is_some() && accepted < dropped, "{text}");
        for rule in [
            "oifname \"ria1\" ct state established,related accept",
            "oifname \"ria1\" drop",
            "iifname \"eth1\" drop",
            "oifname \"eth2\" ip saddr 10.214.0.0/16 ip daddr 192.168.20.0/24 masquerade",
        ] {
            assert!(text.contains(rule), "{rule}\n{text}");
        }
        assert!(!text.contains("iifname \"eth2\" drop"), "it forwarded before, for whatever reason");
        assert!(text.starts_with(GONE));
    }
}
