//! Where settings come from, in their order of precedence, and what is wrong with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use crate::duration::Lifetime;

/// Nodes renew when a third has passed; what is shorter would keep them busy with nothing else.
const SHORTEST: Duration = Duration::from_secs(6);

/// The settings can't be used; every mistake is listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", mistakes.join("\n"))]
pub struct ConfigError {
    pub mistakes: Vec<String>,
}

/// Finds values in their order of precedence, and gathers mistakes.
pub(super) struct Sources<'a> {
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    pub(super) file: Table,
    pub(super) file_name: String,
    pub(super) mistakes: Vec<String>,
}

/// One value with the place that it came from.
pub(super) struct Found {
    pub(super) value: Value,
    pub(super) place: String,
}

impl Sources<'_> {
    /// The value of `section.key`, from a flag, `variable`, or the file.
    pub(super) fn find(
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

    pub(super) fn wrong<T>(&mut self, place: &str, problem: impl std::fmt::Display) -> Option<T> {
        self.mistakes.push(format!("{place}: {problem}"));
        None
    }

    pub(super) fn text(&mut self, found: Option<Found>) -> Option<(String, String)> {
        let found = found?;
        match found.value.as_str().filter(|text| !text.is_empty()) {
            Some(text) => Some((text.to_owned(), found.place)),
            None => self.wrong(&found.place, "expected a text"),
        }
    }

    pub(super) fn parsed<T: std::str::FromStr>(&mut self, found: Option<Found>, expected: &str) -> Option<T> {
        let (text, place) = self.text(found)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(_) => self.wrong(&place, format!("{text:?} is not {expected}")),
        }
    }

    /// A time that is not too short to work with.
    pub(super) fn lifetime(&mut self, found: Option<Found>, default: Duration) -> Duration {
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
    pub(super) fn number(&mut self, found: Option<Found>) -> Option<u64> {
        let found = found?;
        let from_text = || found.value.as_str().and_then(|text| text.parse().ok());
        let number = found.value.as_integer().and_then(|number| u64::try_from(number).ok());
        match number.or_else(from_text) {
            Some(number @ 1..) => Some(number),
            Some(0) | None => self.wrong(&found.place, "expected a whole number, 1 or more"),
        }
    }

    pub(super) fn flag(&mut self, found: Option<Found>) -> Option<bool> {
        let found = found?;
        let from_text = || found.value.as_str().and_then(|text| text.parse().ok());
        match found.value.as_bool().or_else(from_text) {
            Some(value) => Some(value),
            None => self.wrong(&found.place, "expected true or false"),
        }
    }

    /// A list, or one text with commas.
    pub(super) fn list(&mut self, found: Option<Found>) -> Option<(Vec<String>, String)> {
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

    pub(super) fn parsed_list<T>(
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

/// The keys that a file may have.
pub(super) struct Known {
    pub(super) keys: &'static [&'static str],
    /// Sections, with their keys as they are shown.
    pub(super) sections: &'static [(&'static str, &'static [&'static str])],
}

impl<'a> Sources<'a> {
    /// Of a file, which has to be there when it is named; with the file's name where there is one.
    pub(super) fn open(
        named: Option<PathBuf>,
        usual: &str,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Option<PathBuf>), ConfigError> {
        let (file, path) = read_file(named, usual)?;
        let file_name = path.as_ref().map_or_else(String::new, |p| p.display().to_string());
        Ok((Self { environment, file, file_name, mistakes: Vec::new() }, path))
    }

    /// Of the content of a file, and nothing else.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn of_text(name: &str, text: &str) -> Result<Self, ConfigError> {
        let mistake = |error: toml::de::Error| ConfigError { mistakes: vec![format!("{name}: {error}")] };
        let file = text.parse::<Table>().map_err(mistake)?;
        Ok(Self { environment: &|_| None, file, file_name: name.to_owned(), mistakes: Vec::new() })
    }

    /// What was found, unless there were mistakes. Keys that nobody has asked for are mistakes.
    pub(super) fn finish<T>(mut self, found: T, known: &Known) -> Result<T, ConfigError> {
        for (key, value) in std::mem::take(&mut self.file) {
            let section = known.sections.iter().find(|(name, _)| *name == key);
            let problems: Vec<String> = match (value.as_table(), section) {
                (Some(table), Some((_, known))) => {
                    table.keys().map(|inner| unknown(&format!("{key}.{inner}"), known)).collect()
                }
                (_, _) => vec![unknown(&key, known.keys)],
            };
            let name = &self.file_name;
            self.mistakes.extend(problems.into_iter().map(|problem| format!("{name}: {problem}")));
        }
        if self.mistakes.is_empty() { Ok(found) } else { Err(ConfigError { mistakes: self.mistakes }) }
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    format!("unknown key \"{key}\"; there are: {}", known.join(", "))
}

/// The file's content, and its name where there is one. A file that is named has to be there.
pub(super) fn read_file(
    named: Option<PathBuf>,
    usual: &str,
) -> Result<(Table, Option<PathBuf>), ConfigError> {
    let path = named.clone().unwrap_or_else(|| PathBuf::from(usual));
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

/// A path from the command line as a value.
pub(super) fn path_value(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}
