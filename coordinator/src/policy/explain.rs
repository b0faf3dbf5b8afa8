//! Why something is allowed or not.

use ria_protocol::time::UnixTime;

use super::PolicyRule;
use super::api::{Explained, RuleView};
use super::ask::{Answer, Entry, ask};
use super::words::{Question, permit_text};
use crate::state::Network;

/// Explains what `from` may begin with `to` in a network: this, or anything at all.
pub fn explain(
    network: &Network,
    (from, to): (&Entry, &Entry),
    question: Option<Question>,
    now: UnixTime,
) -> Explained {
    let version = network.policy.version;
    let told = |allowed: bool, reason: String, rules: Vec<RuleView>| Explained {
        from: from.name.clone(),
        to: to.name.clone(),
        to_devices: to.devices,
        question,
        allowed,
        version,
        reason,
        rules,
    };
    if from.devices.is_some() {
        let reason = format!("{} are devices, which only answer; ask for {} itself", from.label(), from.name);
        return told(false, reason, Vec::new());
    }
    let Some((in_force, resolved)) = network.resolved_policy() else {
        return told(true, "the network has no policy, so everything is allowed".to_owned(), Vec::new());
    };
    let Some(question) = question else {
        let about = |from: &Entry, to: &Entry, mutual: bool| -> Vec<RuleView> {
            let rules =
                resolved.rules(&in_force.policy).filter(|(_, froms, tos)| from.is_in(froms) && to.is_in(tos));
            let rules = rules.filter(|(rule, ..)| !mutual || rule.permits.iter().any(|p| p.is_mutual()));
            rules.map(|(rule, ..)| view(rule, now)).collect()
        };
        let mut rules = about(from, to, false);
        let back = about(to, from, true);
        rules.extend(
            back.into_iter().filter(|rule| rules.iter().all(|r| r.number != rule.number)).collect::<Vec<_>>(),
        );
        let allowed = rules.iter().any(|rule| rule.holds);
        let both = format!("{} and {}", from.label(), to.label());
        let reason = match rules.len() {
            0 => format!("no rule of version {version} is about {both}"),
            1 => format!("one rule of version {version} is about {both}"),
            many => format!("{many} rules of version {version} are about {both}"),
        };
        return told(allowed, reason, rules);
    };
    match ask(&in_force.policy, &resolved, (from, to), question, Some(now)) {
        Answer::Allowed(rule) => {
            told(true, format!("{rule} of version {version} allows it"), vec![view(rule, now)])
        }
        Answer::Denied(Some(rule)) => {
            let period = rule.period.map(|period| period.to_string()).unwrap_or_default();
            let reason = format!("{rule} of version {version} allows it only from {period} UTC");
            told(false, reason.replacen("..", " to ", 1), vec![view(rule, now)])
        }
        Answer::Denied(None) => told(
            false,
            format!("no rule of version {version} allows it, and what no rule allows is denied"),
            Vec::new(),
        ),
    }
}

fn view(rule: &PolicyRule, now: UnixTime) -> RuleView {
    RuleView {
        number: rule.number,
        line: rule.line,
        name: rule.name.clone(),
        from: rule.from.iter().map(ToString::to_string).collect(),
        to: rule.to.iter().map(ToString::to_string).collect(),
        allow: rule.permits.iter().map(permit_text).collect(),
        valid: rule.period.map(|period| period.to_string()),
        holds: rule.holds(Some(now)),
    }
}
