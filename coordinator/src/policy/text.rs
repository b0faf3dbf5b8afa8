//! A policy's text: TOML with groups, rules and tests. Everything that is wrong with it is told at once, by line.

use std::collections::BTreeMap;

use ria_protocol::name::Name;
use serde::Deserialize;
use toml::Spanned;

use super::valid::Period;
use super::words::{Question, permit};
use super::{Policy, PolicyRule, Test, Who};

/// Longest text, in bytes.
pub const MOST_BYTES: usize = 256 * 1024;
/// Rules of a policy.
const MOST_RULES: usize = 2000;
/// Entries of one list.
const MOST_ENTRIES: usize = 500;
/// Problems that are told.
const MOST_PROBLEMS: usize = 30;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Line, from 1; absent when it is about the whole.
    pub line: Option<usize>,
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    groups: BTreeMap<String, Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    test: Vec<Spanned<RawTest>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Option<Spanned<String>>,
    from: Spanned<Vec<Spanned<String>>>,
    to: Spanned<Vec<Spanned<String>>>,
    allow: Spanned<Vec<Spanned<String>>>,
    valid: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    from: Spanned<String>,
    to: Spanned<String>,
    port: Spanned<String>,
    expect: Spanned<String>,
}

struct Reader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

/// Reads a policy.
pub fn parse(text: &str) -> Result<Policy, Vec<Problem>> {
    if text.len() > MOST_BYTES {
        let text = format!(
            "the policy is longer than {MOST_BYTES} bytes; use groups and tags in place of lists of nodes"
        );
        return Err(vec![Problem { line: None, text }]);
    }
    let mut reader = Reader { text, problems: Vec::new() };
    let document: Document = match toml::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map(|span| reader.line(span.start));
            return Err(vec![Problem { line, text: error.message().to_owned() }]);
        }
    };
    let policy = reader.policy(document);
    reader.problems.sort_by_key(|problem| problem.line);
    reader.problems.truncate(MOST_PROBLEMS);
    if reader.problems.is_empty() { Ok(policy) } else { Err(reader.problems) }
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    fn complain(&mut self, at: usize, text: impl ToString) {
        let line = Some(self.line(at));
        self.problems.push(Problem { line, text: text.to_string() });
    }

    fn policy(&mut self, document: Document) -> Policy {
        let mut policy = Policy::default();
        let known: Vec<String> = document.groups.keys().cloned().collect();
        for (name, members) in document.groups {
            let at = members.span().start;
            if name.parse::<Name>().is_err() {
                self.complain(at, format!("{name:?} is no name for a group; use letters, digits and -"));
            }
            let whole = self.list(members, "the group has no members");
            let members = self.whos(&whole, &known);
            for who in members.iter().filter(|who| matches!(who, Who::Group(_))) {
                self.complain(
                    at,
                    format!("group {name:?} contains {who}; groups consist of nodes, tags and people"),
                );
            }
            policy.groups.insert(name, members);
        }
        if document.rule.len() > MOST_RULES {
            self.problems
                .push(Problem { line: None, text: format!("there are more than {MOST_RULES} rules") });
        }
        for (number, raw) in (1..).zip(document.rule) {
            let line = self.line(raw.span().start);
            let rule = self.rule(raw.into_inner(), (number, line), &known);
            policy.rules.push(rule);
        }
        for raw in document.test {
            let line = self.line(raw.span().start);
            policy.tests.extend(self.test(&raw.into_inner(), line, &known));
        }
        policy
    }

    fn list(&mut self, list: Spanned<Vec<Spanned<String>>>, empty: &str) -> Vec<Spanned<String>> {
        let at = list.span().start;
        let list = list.into_inner();
        if list.is_empty() {
            self.complain(at, empty);
        }
        if list.len() > MOST_ENTRIES {
            self.complain(at, format!("the list has more than {MOST_ENTRIES} entries; use a tag"));
        }
        list
    }

    fn who(&mut self, text: &Spanned<String>, groups: &[String]) -> Option<Who> {
        let at = text.span().start;
        match text.get_ref().parse::<Who>() {
            Ok(Who::Group(group)) if !groups.contains(&group) => {
                let known = if groups.is_empty() { "none".to_owned() } else { groups.join(", ") };
                self.complain(at, format!("there is no group {group:?}; there are: {known}"));
                None
            }
            Ok(who) => Some(who),
            Err(error) => {
                self.complain(at, error);
                None
            }
        }
    }

    fn whos(&mut self, list: &[Spanned<String>], groups: &[String]) -> Vec<Who> {
        list.iter().filter_map(|text| self.who(text, groups)).collect()
    }

    fn rule(&mut self, raw: RawRule, (number, line): (u32, usize), groups: &[String]) -> PolicyRule {
        let from = self.list(raw.from, "nobody is named in from; write [\"*\"] for everybody");
        let to = self.list(raw.to, "nobody is named in to; write [\"*\"] for everybody");
        let allow = self.list(raw.allow, "nothing is named in allow; write [\"any\"] for everything");
        let mut permits = Vec::new();
        for text in &allow {
            match permit(text.get_ref()) {
                Ok(permit) => permits.push(permit),
                Err(error) => self.complain(text.span().start, error),
            }
        }
        let period = raw.valid.and_then(|text| match text.get_ref().parse::<Period>() {
            Ok(period) => Some(period),
            Err(error) => {
                self.complain(text.span().start, error);
                None
            }
        });
        for text in from.iter().filter(|text| matches!(text.get_ref().parse(), Ok(Who::Route(_)))) {
            self.complain(
                text.span().start,
                "devices behind a node only answer; name a route in to, and the node itself in from",
            );
        }
        PolicyRule {
            number,
            line,
            name: raw.name.map(Spanned::into_inner),
            from: self.whos(&from, groups),
            to: self.whos(&to, groups),
            permits,
            period,
        }
    }

    fn test(&mut self, raw: &RawTest, line: usize, groups: &[String]) -> Option<Test> {
        let (from, to) = (self.who(&raw.from, groups), self.who(&raw.to, groups));
        let question = raw.port.get_ref().parse::<Question>();
        let question = question.map_err(|error| self.complain(raw.port.span().start, error)).ok();
        let allow = match raw.expect.get_ref().as_str() {
            "allow" => Some(true),
            "deny" => Some(false),
            other => {
                self.complain(
                    raw.expect.span().start,
                    format!("{other:?} can't be expected; write allow or deny"),
                );
                None
            }
        };
        Some(Test { line, from: from?, to: to?, question: question?, allow: allow? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str = r#"
[groups]
operators = ["laptop-1", "tag:laptop"]

# Everybody may ping everybody.
[[rule]]
from = ["*"]
to = ["*"]
allow = ["icmp"]

[[rule]]
name = "operators drive robots"
from = ["group:operators"]
to = ["tag:robot"]
allow = ["tcp/22", "ros/7"]
valid = "2026-12-01 14:00..16:00"

[[test]]
from = "laptop-1"
to = "tag:robot"
port = "tcp/22"
expect = "deny"
"#;

    #[test]
    fn a_lab_is_read_with_the_places_of_its_rules() {
        let policy = parse(LAB).unwrap();
        assert_eq!(policy.groups["operators"].len(), 2);
        let lines: Vec<_> = policy.rules.iter().map(|rule| (rule.number, rule.line)).collect();
        assert_eq!(lines, [(1, 6), (2, 11)]);
        assert_eq!(policy.rules[1].to_string(), "rule 2 \"operators drive robots\" (line 11)");
        assert_eq!(policy.rules[1].permits.len(), 2);
        assert!(policy.rules[1].period.is_some() && !policy.tests[0].allow);
        assert_eq!(policy.tests[0].line, 18);
        assert_eq!(parse("").unwrap(), Policy::default(), "an empty one denies everything");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_its_line() {
        let text = "[groups]\na = [\"group:b\"]\n\n[[rule]]\nfrom = []\nto = [\"grp:x\"]\nallow = [\"http\"]\nvalid = \"soon\"\n\n\
                    [[test]]\nfrom = \"x\"\nto = \"y\"\nport = \"1\"\nexpect = \"maybe\"\n";
        let told: Vec<String> = parse(text).unwrap_err().iter().map(Problem::to_string).collect();
        for (line, part) in [
            (2, "no group \"b\""),
            (5, "[\"*\"]"),
            (6, "is nobody"),
            (7, "tcp/22"),
            (8, "14:00..16:00"),
            (14, "allow or deny"),
        ] {
            let found = told.iter().any(|t| t.starts_with(&format!("line {line}: ")) && t.contains(part));
            assert!(found, "line {line}: {part} in {told:?}");
        }
    }

    #[test]
    fn what_is_no_toml_or_has_unknown_words_is_told_with_its_line() {
        for (text, line, part) in [
            ("[groups\n", 1, ""),
            ("\n[[rule]]\nfrom = [\"*\"]\nto = [\"*\"]\nalow = [\"any\"]\n", 5, "alow"),
            ("[[rule]]\nfrom = \"x\"\nto = [\"*\"]\nallow = [\"any\"]\n", 2, "sequence"),
            ("[[rules]]\n", 1, "rules"),
        ] {
            let problems = parse(text).unwrap_err();
            assert_eq!(problems[0].line, Some(line), "{problems:?}");
            assert!(problems[0].text.contains(part), "{problems:?}");
        }
        assert_eq!(parse(&"#".repeat(MOST_BYTES + 1)).unwrap_err()[0].line, None);
    }
}
