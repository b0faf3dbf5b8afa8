//! Access for a time: a rule with a period at the end of the policy's text.

use std::fmt::Write as _;

use ria_protocol::policy::Permit;

use super::Who;
use super::valid::Period;
use super::words::permit_text;

/// Who may do what with whom, and when.
#[derive(Debug, Clone)]
pub struct Grant {
    pub from: Vec<Who>,
    pub to: Vec<Who>,
    pub permits: Vec<Permit>,
    pub period: Period,
    /// Why, for people.
    pub name: Option<String>,
}

/// The text with the grant behind it.
pub fn append(text: &str, grant: &Grant) -> String {
    let quoted = |words: Vec<String>| words.iter().map(|w| toml_string(w)).collect::<Vec<_>>().join(", ");
    let whos = |whos: &[Who]| quoted(whos.iter().map(ToString::to_string).collect());
    let mut made = text.trim_end().to_owned();
    if !made.is_empty() {
        made += "\n\n";
    }
    made += "[[rule]]\n";
    if let Some(name) = &grant.name {
        // Writing to a string can't fail.
        let _ = writeln!(made, "name = {}", toml_string(name));
    }
    let permits = quoted(grant.permits.iter().map(permit_text).collect());
    let _ = writeln!(made, "from = [{}]\nto = [{}]\nallow = [{permits}]", whos(&grant.from), whos(&grant.to));
    let _ = writeln!(made, "valid = {}", toml_string(&grant.period.to_string()));
    made
}

fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::text::parse;
    use super::*;

    #[test]
    fn a_grant_is_one_more_rule() {
        let before = "# The lab's.\n[[rule]]\nfrom = [\"a\"]\nto = [\"b\"]\nallow = [\"icmp\"]\n[[test]]\nfrom = \"tag:x\"\n\
                      to = \"tag:y\"\nport = \"22\"\nexpect = \"deny\"\n";
        let grant = Grant {
            from: vec!["eva".parse().unwrap(), "tag:guest".parse().unwrap()],
            to: vec!["robot-3".parse().unwrap()],
            permits: vec![Permit::plain(ria_protocol::policy::PermitKind::ANY)],
            period: "2026-12-01 14:00..16:00".parse().unwrap(),
            name: Some("a \"demo\"\nfor guests".into()),
        };
        let text = append(before, &grant);
        assert!(text.starts_with(before.trim_end()), "what was there stays as it was");
        let policy = parse(&text).unwrap();
        let rule = policy.rules.last().unwrap();
        assert_eq!((policy.rules.len(), policy.tests.len(), &rule.from), (2, 1, &grant.from));
        assert_eq!(
            (rule.period, &rule.name, &rule.permits),
            (Some(grant.period), &grant.name, &grant.permits)
        );
        assert_eq!(parse(&append("", &grant)).unwrap().rules.len(), 1);
    }
}
