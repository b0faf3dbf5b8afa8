//! Health conditions: what is not as it should be, since when, and what to do about it.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ria_api::state::{Condition, Severity};

/// The conditions of the agent or of one network, by stable code.
#[derive(Debug, Clone, Default)]
pub struct Conditions(BTreeMap<&'static str, Condition>);

impl Conditions {
    /// Sets a condition, keeping since when it holds; returns whether anything changed.
    pub fn set(&mut self, code: &'static str, severity: Severity, text: impl Into<String>) -> bool {
        let text = text.into();
        match self.0.get_mut(code) {
            Some(condition) if condition.text == text && condition.severity == severity => false,
            Some(condition) => {
                condition.text = text;
                condition.severity = severity;
                true
            }
            None => {
                match severity {
                    Severity::Info => tracing::info!(code, "{text}"),
                    Severity::Warning | Severity::Unknown => tracing::warn!(code, "{text}"),
                    Severity::Error => tracing::error!(code, "{text}"),
                }
                self.0.insert(code, Condition { code: code.into(), severity, text, since: seconds_now() });
                true
            }
        }
    }

    /// Whether there is such a condition.
    pub fn has(&self, code: &str) -> bool {
        self.0.contains_key(code)
    }

    /// Ends a condition; returns whether there was one.
    pub fn clear(&mut self, code: &'static str) -> bool {
        let cleared = self.0.remove(code).is_some();
        if cleared {
            tracing::info!(code, "no longer a problem");
        }
        cleared
    }

    /// Ends all of them: nothing is expected to work any more.
    pub fn clear_all(&mut self) {
        self.0.clear();
    }

    /// What they say, worst first, in one line.
    pub fn in_words(&self) -> String {
        let texts: Vec<String> = self.list().into_iter().map(|condition| condition.text).collect();
        texts.join("; ")
    }

    /// All of them, worst first.
    pub fn list(&self) -> Vec<Condition> {
        let mut list: Vec<Condition> = self.0.values().cloned().collect();
        list.sort_by_key(|condition| std::cmp::Reverse(condition.severity));
        list
    }
}

/// Seconds since 1970 by the system's clock.
pub fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_beginning_while_its_text_changes() {
        let mut conditions = Conditions::default();
        assert!(conditions.set("a", Severity::Warning, "one"));
        let since = conditions.list()[0].since;
        assert!(!conditions.set("a", Severity::Warning, "one"));
        assert!(conditions.set("a", Severity::Warning, "two"));
        assert!(conditions.set("b", Severity::Error, "worse"));
        let list = conditions.list();
        assert_eq!((list[0].code.as_str(), list[1].text.as_str(), list[1].since), ("b", "two", since));
        assert!(conditions.clear("b") && !conditions.clear("b"));
    }
}
