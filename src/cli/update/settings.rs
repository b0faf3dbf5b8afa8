//! `/etc/ria/update.toml`: where releases come from, and whose they have to be.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::release::ReleaseKey;
use super::source::Source;
use crate::cli::failure::{Failure, USAGE};

pub const FILE: &str = "/etc/ria/update.toml";

const EXAMPLE: &str =
    "from = \"https://ria.lab.example/releases\"\nkeys = [\"…\"]    # as scripts/release prints them";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    from: Option<String>,
    #[serde(default)]
    keys: Vec<String>,
}

/// What is asked for, by the file and the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    pub source: Source,
    pub keys: Vec<ReleaseKey>,
    /// How long a new agent may take to be as well as the old one was.
    pub patience: Duration,
}

impl Settings {
    /// With `from` of the command line in place of the file's. Keys are only ever those of the file.
    pub fn load(file: &Path, from: Option<&str>, patience: Duration) -> Result<Self, Failure> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::new(USAGE, format!("{}: {error}", file.display()))),
        };
        Self::read(&text, from, patience)
            .map_err(|mistake| Failure::new(USAGE, format!("{}: {mistake}", file.display())))
    }

    fn read(text: &str, from: Option<&str>, patience: Duration) -> Result<Self, String> {
        let text: Text = toml::from_str(text).map_err(|error| error.to_string())?;
        let from = from.map(str::to_owned).or(text.from);
        let from =
            from.ok_or_else(|| format!("it has to say where releases come from, such as\n{EXAMPLE}"))?;
        if text.keys.is_empty() {
            return Err(format!("it has to name the keys that releases are signed with, such as\n{EXAMPLE}"));
        }
        let keys: Result<_, String> = text.keys.iter().map(|key| key.parse()).collect();
        Ok(Self { source: from.parse()?, keys: keys?, patience })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn keys_are_the_files_and_the_place_may_be_another() {
        let text = format!("from = \"/srv/ria\"\nkeys = [\"{KEY}\"]\n");
        let read = |text: &str, from| Settings::read(text, from, Duration::ZERO);
        let settings = read(&text, None).unwrap();
        assert_eq!((settings.source, settings.keys.len()), ("/srv/ria".parse().unwrap(), 1));
        assert_eq!(read(&text, Some("/media/stick")).unwrap().source, "/media/stick".parse().unwrap());
        for bad in ["", "from = \"/srv\"", "from = \"/srv\"\nkeys = [\"x\"]", "form = \"/srv\"", "from = 7"] {
            assert!(read(bad, None).is_err(), "{bad}");
        }
        assert!(read(&text, Some("srv")).is_err());
    }
}
