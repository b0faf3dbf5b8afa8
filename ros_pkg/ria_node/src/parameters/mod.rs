//! The node's parameters: what they mean, which values they take, and what they are.
//!
//! r2r keeps parameters without ranges and accepts any value, so descriptors, checks and services are our own.

mod serve;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use serve::{Served, serve};

/// A value of a parameter. No parameter has another type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    Double(f64),
    Text(String),
}

/// Fixed facts of a parameter.
#[derive(Debug)]
pub struct Description {
    pub name: &'static str,
    pub text: &'static str,
    pub constraints: &'static str,
    /// Both ends are allowed.
    pub range: Option<(f64, f64)>,
    pub read_only: bool,
    default: fn() -> Value,
}

/// All parameters, by name.
pub const ALL: [Description; 9] = [
    Description {
        name: "agent_socket",
        text: "Socket of the Ria agent; empty takes RIA_SOCKET, else the usual /run/ria/bus.",
        constraints: "an absolute path or empty; set at start",
        range: None,
        read_only: true,
        default: || Value::Text(String::new()),
    },
    Description {
        name: "allow_control",
        text: "Offers the services ~/join, ~/leave and ~/set_enabled to everybody on the ROS graph, which has no \
               authentication.",
        constraints: "set at start",
        range: None,
        read_only: true,
        default: || Value::Bool(false),
    },
    Description {
        name: "autostart",
        text: "Configures and activates the node at start. Otherwise a manager of its lifecycle does; until then it \
               publishes nothing.",
        constraints: "set at start",
        range: None,
        read_only: true,
        default: || Value::Bool(true),
    },
    Description {
        name: "clock_offset_warning",
        text: "A peer whose clock differs by more than this many seconds from this robot's, beyond the error of that figure, is \
               a warning in /diagnostics: tf finds no transforms between the two. 0 warns of none.",
        constraints: "",
        range: Some((0.0, 3600.0)),
        read_only: false,
        default: || Value::Double(0.05),
    },
    Description {
        name: "diagnostics_period",
        text: "Seconds between two messages on /diagnostics.",
        constraints: "",
        range: Some((0.2, 60.0)),
        read_only: false,
        default: || Value::Double(1.0),
    },
    Description {
        name: "join_key_file",
        text: "File with a join key: the node opens it at start and hands it to the agent, which joins. Empty joins \
               nothing.",
        constraints: "an absolute path or empty; never the key itself; set at start",
        range: None,
        read_only: true,
        default: || Value::Text(String::new()),
    },
    Description {
        name: "link_stats_period",
        text: "Seconds between two messages on /overlay/link_stats.",
        constraints: "",
        range: Some((0.1, 60.0)),
        read_only: false,
        default: || Value::Double(1.0),
    },
    Description {
        name: "publish_period",
        text: "Longest time in seconds between two messages on /overlay/status and /overlay/peers; changes go out \
               sooner.",
        constraints: "",
        range: Some((0.5, 60.0)),
        read_only: false,
        default: || Value::Double(1.0),
    },
    Description {
        name: "use_sim_time",
        text: "Stamps messages with the time of /clock.",
        constraints: "set at start",
        range: None,
        read_only: true,
        default: || Value::Bool(false),
    },
];

/// The parameters that may change while the node runs, as durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    pub publish: Duration,
    pub diagnostics: Duration,
    pub link_stats: Duration,
}

impl Periods {
    /// How often the agent is asked.
    pub fn shortest(&self) -> Duration {
        self.publish.min(self.link_stats)
    }
}

/// The values in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters(BTreeMap<&'static str, Value>);

impl Default for Parameters {
    fn default() -> Self {
        Self(ALL.iter().map(|d| (d.name, (d.default)())).collect())
    }
}

impl Description {
    /// The description of a parameter, if there is such a one.
    pub fn of(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|d| d.name == name)
    }

    /// The value as this parameter takes it, or why it does not.
    pub fn check(&self, value: Value) -> Result<Value, String> {
        let name = self.name;
        match ((self.default)(), value) {
            (Value::Double(_), Value::Double(value)) => match self.range {
                Some((low, high)) if !(low..=high).contains(&value) => {
                    Err(format!("{name} must be from {low} to {high} seconds, not {value}"))
                }
                _ => Ok(Value::Double(value)),
            },
            (Value::Bool(_), value @ Value::Bool(_)) => Ok(value),
            (Value::Text(_), Value::Text(text)) if text.starts_with("ria1_") => Err(format!(
                "{name} is the path of a file, never a join key: others can read parameters; take another key, since \
                 this one was shown"
            )),
            (Value::Text(_), Value::Text(text)) if !text.is_empty() && !text.starts_with('/') => {
                Err(format!("{name} must be an absolute path, not \"{text}\""))
            }
            (Value::Text(_), value @ Value::Text(_)) => Ok(value),
            (wanted, _) => Err(format!("{name} must be a {}", wanted.type_name())),
        }
    }
}

impl Value {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "boolean",
            Self::Double(_) => "number of seconds",
            Self::Text(_) => "string",
        }
    }
}

impl Parameters {
    /// The defaults with what was given at start. All errors at once.
    pub fn with(given: impl IntoIterator<Item = (String, Option<Value>)>) -> Result<Self, Vec<String>> {
        let mut parameters = Self::default();
        let mut errors = Vec::new();
        for (name, value) in given {
            // A parameter file may be made for several nodes.
            let Some(description) = Description::of(&name) else { continue };
            let checked = match value {
                Some(value) => description.check(value),
                None => Err(format!("{name} must be a {}", (description.default)().type_name())),
            };
            match checked {
                Ok(value) => drop(parameters.0.insert(description.name, value)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(parameters) } else { Err(errors) }
    }

    /// Sets one while the node runs. `Ok(true)` when that changes it.
    pub fn set(&mut self, name: &str, value: Value) -> Result<bool, String> {
        let Some(description) = Description::of(name) else {
            let names = ALL.iter().map(|d| d.name).collect::<Vec<_>>().join(", ");
            return Err(format!("there is no parameter {name}; there are {names}"));
        };
        if description.read_only {
            return Err(format!("{name} is read only: it is given at start"));
        }
        let value = description.check(value)?;
        Ok(self.0.insert(description.name, value.clone()).as_ref() != Some(&value))
    }

    /// A value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub fn periods(&self) -> Periods {
        let duration = |name| Duration::from_secs_f64(self.double(name));
        Periods {
            publish: duration("publish_period"),
            diagnostics: duration("diagnostics_period"),
            link_stats: duration("link_stats_period"),
        }
    }

    /// Those that may have been changed while the node ran.
    pub fn changeable(&self) -> BTreeMap<String, f64> {
        let changeable = ALL.iter().filter(|d| !d.read_only);
        changeable.map(|d| (d.name.to_owned(), self.double(d.name))).collect()
    }

    pub fn allow_control(&self) -> bool {
        self.flag("allow_control")
    }

    /// Seconds; `None`: nobody is to be warned.
    pub fn clock_offset_warning(&self) -> Option<f64> {
        Some(self.double("clock_offset_warning")).filter(|seconds| *seconds > 0.0)
    }

    pub fn autostart(&self) -> bool {
        self.flag("autostart")
    }

    pub fn use_sim_time(&self) -> bool {
        self.flag("use_sim_time")
    }

    pub fn agent_socket(&self) -> Option<PathBuf> {
        self.path("agent_socket")
    }

    pub fn join_key_file(&self) -> Option<PathBuf> {
        self.path("join_key_file")
    }

    fn double(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some(Value::Double(value)) => *value,
            Some(Value::Bool(_) | Value::Text(_)) | None => 1.0,
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Value::Bool(true))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        match self.0.get(name) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text.into()),
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, value: Value) -> Result<Parameters, Vec<String>> {
        Parameters::with([(name.to_owned(), Some(value))])
    }

    #[test]
    fn every_default_is_a_value_that_the_parameter_takes() {
        for description in &ALL {
            description.check((description.default)()).unwrap();
        }
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        let mut parameters = Parameters::default();
        for bad in [0.0, -1.0, 60.1, f64::NAN, f64::INFINITY] {
            let reason = parameters.set("publish_period", Value::Double(bad)).unwrap_err();
            assert!(reason.contains("from 0.5 to 60 seconds"), "{reason}");
        }
        assert_eq!(parameters, Parameters::default());
        assert_eq!(parameters.set("publish_period", Value::Double(0.5)), Ok(true));
        assert_eq!(parameters.set("publish_period", Value::Double(0.5)), Ok(false));
        assert_eq!(parameters.periods().publish, Duration::from_millis(500));
    }

    #[test]
    fn what_is_read_only_is_only_taken_at_start() {
        assert!(given("allow_control", Value::Bool(true)).unwrap().allow_control());
        let mut parameters = Parameters::default();
        assert!(parameters.set("allow_control", Value::Bool(true)).unwrap_err().contains("read only"));
        assert!(!parameters.allow_control());
    }

    #[test]
    fn a_key_in_place_of_its_file_is_refused_without_repeating_it() {
        let errors = given("join_key_file", Value::Text("ria1_secret".into())).unwrap_err();
        assert!(errors[0].contains("never a join key") && !errors[0].contains("secret"), "{errors:?}");
        assert!(
            given("join_key_file", Value::Text("lab.key".into())).unwrap_err()[0].contains("absolute path")
        );
    }

    #[test]
    fn all_errors_of_a_start_are_told_together_and_foreign_names_passed_over() {
        let errors = Parameters::with([
            ("publish_period".to_owned(), Some(Value::Text("often".into()))),
            ("camera.rate".to_owned(), Some(Value::Double(30.0))),
            ("allow_control".to_owned(), None),
        ])
        .unwrap_err();
        assert_eq!(errors.len(), 2, "{errors:?}");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let reason = Parameters::default().set("publish_rate", Value::Double(1.0)).unwrap_err();
        assert!(reason.contains("publish_period"), "{reason}");
    }
}
