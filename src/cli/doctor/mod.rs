//! `ria doctor`: why nodes of other robots are not found, and the one thing to do next.
//!
//! ```text
//! agent (local API), /proc, /sys ──► facts ──► judge (pure) ──► findings, in the order of the way to a peer ──► verdict
//! ```
//!
//! It looks with the caller's rights, changes nothing without `--fix`, and says what it could not see.

mod facts;
mod fix;
mod host;
mod judge;
mod neighbours;
mod processes;

use std::collections::BTreeSet;

use ria_api::environment::{DOMAIN_VARIABLE, FAST_DDS_VARIABLES};
use ria_api::state::Severity;
use serde_json::json;

use self::facts::{Facts, NetworkFacts, Process, Processes};
use self::judge::Finding;
use super::Context;
use super::args::DoctorArgs;
use super::failure::{FAILED, Failure, NOT_JOINED};
use super::output::{Colour, Output};

/// The highest whose ports exist.
const MAX_DOMAIN: u32 = 232;

pub async fn run(context: &Context, args: &DoctorArgs) -> Result<(), Failure> {
    let fixed = if args.fix { fix::apply()? } else { Vec::new() };
    let facts = gather(context).await?;
    let findings = judge::findings(&facts);
    let output = context.output;
    if output.json {
        output.value(&in_json(&findings, &fixed))?;
    } else {
        output.lines(fixed.iter().map(|done| format!("changed {done}")))?;
        output.lines(in_words(output, &findings))?;
    }
    let is_wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    let is_member = !facts.networks.is_empty();
    match (is_member, is_wrong) {
        (false, _) => Err(Failure::Silent { code: NOT_JOINED }),
        (true, true) => Err(Failure::Silent { code: FAILED }),
        (true, false) => Ok(()),
    }
}

/// All that it finds, for others to look at.
pub async fn told(context: &Context) -> Result<serde_json::Value, Failure> {
    Ok(in_json(&judge::findings(&gather(context).await?), &[]))
}

async fn gather(context: &Context) -> Result<Facts, Failure> {
    let agent = context.agent().await?;
    let status = agent.proxy().status().await?;
    let mut networks = Vec::with_capacity(status.networks.len());
    for summary in &status.networks {
        let proxy = agent.network_at(&summary.path).await?;
        let status = proxy.status().await?;
        networks.push(NetworkFacts {
            interface: host::interface(&status.interface),
            peers: proxy.peers().await?,
            environment: proxy.environment().await.unwrap_or_default(),
            status,
        });
    }
    let processes = processes::look();
    let profile = fast_dds_profile(&networks);
    let (used, ports_asked) = profile.as_deref().map(|text| (interfaces(text), ports_asked(text))).unzip();
    let overlays = networks.iter().map(|network| network.status.interface.clone());
    // Without the profile DDS uses all interfaces.
    let neighbours = used.map_or_else(Vec::new, |used| {
        neighbours::look(&overlays.chain(used).collect::<Vec<_>>(), &domains(&processes))
    });
    let ports_asked = ports_asked.flatten();
    Ok(Facts { agent: status, networks, processes, host: host::look(), neighbours, ports_asked })
}

/// What processes with Fast DDS are given, unless it leaves the transports to Fast DDS.
fn fast_dds_profile(networks: &[NetworkFacts]) -> Option<String> {
    let file = networks.iter().find_map(|network| network.environment.get(FAST_DDS_VARIABLES[0]))?;
    std::fs::read_to_string(file).ok()
}

/// The interfaces that a profile names.
fn interfaces(profile: &str) -> Vec<String> {
    let named = profile.split("<interface>").skip(1);
    named.filter_map(|rest| rest.split('<').next()).map(str::to_owned).collect()
}

/// How many participants of each machine a profile asks for, if it asks others than this machine itself.
fn ports_asked(profile: &str) -> Option<usize> {
    let asks = profile.matches("<locator>").count() > 1;
    let range = profile.split("<maxInitialPeersRange>").nth(1)?.split('<').next()?;
    range.parse().ok().filter(|_| asks)
}

/// The ROS domains of the processes here; the first one where there are none.
fn domains(processes: &Processes) -> BTreeSet<u32> {
    let own = |process: &Process| {
        process.environment.get(DOMAIN_VARIABLE).and_then(|id| id.parse().ok()).unwrap_or(0)
    };
    let mut all: BTreeSet<u32> = processes.ros.iter().map(own).filter(|id| *id <= MAX_DOMAIN).collect();
    if all.is_empty() {
        all.insert(0);
    }
    all
}

/// The first thing that is wrong on the way to a peer makes all behind it look wrong, too: it is the one to mend.
fn verdict(findings: &[Finding]) -> Option<&Finding> {
    let first = |severity| findings.iter().find(|finding| finding.severity == severity);
    first(Severity::Error).or_else(|| first(Severity::Warning))
}

fn in_json(findings: &[Finding], fixed: &[String]) -> serde_json::Value {
    let verdict = verdict(findings);
    json!({
        "ok": verdict.is_none_or(|finding| finding.severity != Severity::Error),
        "verdict": verdict.map_or(judge::WELL, |finding| finding.text.as_str()),
        "next": verdict.map_or("", |finding| finding.next.as_str()),
        "findings": findings,
        "fixed": fixed,
    })
}

fn in_words(output: Output, findings: &[Finding]) -> Vec<String> {
    let mut lines = match verdict(findings) {
        None => vec![output.paint(Colour::Good, judge::WELL)],
        Some(finding) => {
            vec![output.paint(colour(finding.severity), &finding.text), format!("next: {}", finding.next)]
        }
    };
    let mut stage = "";
    for finding in findings {
        let title =
            if std::mem::replace(&mut stage, finding.stage) == finding.stage { "" } else { finding.stage };
        let word = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info | Severity::Unknown => "",
        };
        let mark = if word.is_empty() {
            String::new()
        } else {
            format!("{}: ", output.paint(colour(finding.severity), word))
        };
        lines.push(format!("  {title:<12} {mark}{}", finding.text));
        if word.is_empty() || finding.next.is_empty() {
            continue;
        }
        lines.push(format!("  {:<12}   -> {}", "", finding.next));
    }
    lines
}

fn colour(severity: Severity) -> Colour {
    match severity {
        Severity::Error => Colour::Bad,
        Severity::Warning => Colour::Warning,
        Severity::Info | Severity::Unknown => Colour::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, text: &str) -> Finding {
        Finding { stage: "tunnel", code: "c", severity, text: text.into(), next: format!("mend {text}") }
    }

    #[test]
    fn the_first_error_is_the_verdict_and_warnings_wait() {
        let all = [
            finding(Severity::Info, "a"),
            finding(Severity::Warning, "b"),
            finding(Severity::Error, "c"),
            finding(Severity::Error, "d"),
        ];
        let json = in_json(&all, &[]);
        assert_eq!(
            (&json["ok"], &json["verdict"], &json["next"]),
            (&false.into(), &"c".into(), &"mend c".into())
        );
        assert_eq!(in_json(&all[..2], &[])["verdict"], "b");
        assert_eq!(in_json(&all[..2], &[])["ok"], true);
        let lines = in_words(Output::new(false), &all);
        assert_eq!((lines[0].as_str(), lines[1].as_str()), ("c", "next: mend c"));
        assert!(lines.contains(&"               warning: b".to_owned()), "{lines:?}");
    }

    #[test]
    fn without_anything_wrong_it_says_so() {
        let lines = in_words(Output::new(false), &[finding(Severity::Info, "fine")]);
        assert_eq!(lines, [judge::WELL, "  tunnel       fine"]);
    }
}
