//! Putting the node together, and taking it apart.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use r2r::{Node, ParameterValue};
use tokio::sync::{mpsc, watch};

use crate::actions;
use crate::control;
use crate::convert::Rates;
use crate::face::{End, Face, Inputs};
use crate::interfaces::Interfaces;
use crate::join;
use crate::lifecycle::{self, Lifecycle, Managed};
use crate::link::{Absence, Current, Link};
use crate::log;
use crate::pace::Pace;
use crate::parameters::{self, Parameters, Served, Value};
use crate::replace::Carried;
use crate::ros::{self, RosClock, Spinner};
use crate::services::{self, Calls};
use crate::topics::Topics;
use crate::view::View;

/// Messages under way inside the process.
const QUEUE: usize = 64;

/// Why there is no running node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nobody but a person can help.
    #[error("{0}")]
    Never(String),
    /// It may work later.
    #[error("{0}")]
    Later(String),
}

impl From<ros::StartError> for StartError {
    fn from(error: ros::StartError) -> Self {
        match error {
            ros::StartError::Context(_) => Self::Never(error.to_string()),
            ros::StartError::Node(_) => Self::Later(error.to_string()),
        }
    }
}

/// A node that runs.
pub struct Running {
    face: Face,
    inputs: Option<Inputs>,
    parameters: watch::Receiver<Parameters>,
    lifecycle: watch::Receiver<Lifecycle>,
    carried: Carried,
}

/// What is made on the node before it spins.
struct Made {
    topics: Topics,
    served: Served,
    managed: Managed,
    clock: RosClock,
}

/// Starts everything. Needs a tokio runtime around it.
pub fn start(carried: &Carried) -> Result<Running, StartError> {
    // Before the context: an interface that comes in between makes one more start, not a deaf node.
    let baseline = Interfaces::now().unwrap_or_default();
    let mut node = ros::create_node()?;
    log::begin(&mut node).map_err(|error| StartError::Later(format!("no log for the node: {error}")))?;
    let given = parameters_of(&node, carried)?;
    let host = host_name();
    let (current, calling) = watch::channel(Err(Absence::not_asked()));
    let (in_work, interruptible) = watch::channel(0);
    let in_work = Arc::new(in_work);
    let made = ros::guarded(|| make(&mut node, &given, (calling.clone(), in_work), &host))
        .map_err(StartError::Later)?
        .map_err(|error| StartError::Later(format!("a topic or service could not be created: {error}")))?;
    let (spinner, failure) =
        Spinner::start(node).map_err(|error| StartError::Later(format!("no thread for ROS: {error}")))?;
    let (live, parameters) = watch::channel(given.clone());
    let (out, link) = mpsc::channel(QUEUE);
    let source = Link { socket: given.agent_socket(), parameters: parameters.clone(), out, current };
    tokio::spawn(source.run());
    let (out, join) = mpsc::channel(QUEUE);
    let key_file = given.join_key_file().filter(|_| !carried.joined);
    let joined = key_file.is_none();
    if let Some(file) = key_file {
        tokio::spawn(join::run(file, calling, out));
    }
    let restored = carried.lifecycle.and_then(Lifecycle::restored);
    let (state, lifecycle) =
        watch::channel(restored.unwrap_or_else(|| made.managed.first(given.autostart())));
    tokio::spawn(lifecycle::serve(made.managed, state));
    tokio::spawn(parameters::serve(made.served, given, made.clock.clone(), live));
    let (parameters_in, lifecycle_in) = (parameters.clone(), lifecycle.clone());
    let inputs =
        Inputs { link, join, failure, parameters: parameters_in, lifecycle: lifecycle_in, interruptible };
    let face = Face {
        spinner,
        topics: made.topics,
        clock: made.clock,
        view: View::named(&host),
        baseline,
        given: carried.environment.clone(),
        joined,
        active: lifecycle.borrow().is_active(),
        pace: Pace::default(),
        rates: Rates::default(),
        link_stats_due: Instant::now(),
        diagnostics_due: Instant::now(),
    };
    Ok(Running { face, inputs: Some(inputs), parameters, lifecycle, carried: carried.clone() })
}

/// The agent to call, and where calls say that they must not be interrupted.
type Calling = (Current, Arc<watch::Sender<usize>>);

fn make(node: &mut Node, given: &Parameters, (current, in_work): Calling, host: &str) -> r2r::Result<Made> {
    let clock = RosClock::of(node, given.use_sim_time())?;
    let topics = Topics::create(node)?;
    let calls = Calls { current, clock: clock.clone(), fallback_name: host.into(), in_work };
    services::create(node, &calls)?;
    actions::create(node, &calls)?;
    if given.allow_control() {
        control::create(node, &calls)?;
        actions::create_changing(node, &calls)?;
    }
    let (served, managed) = (Served::create(node)?, Managed::create(node)?);
    Ok(Made { topics, served, managed, clock })
}

/// From arguments and parameter files; what was changed in the run before counts more.
fn parameters_of(node: &Node, carried: &Carried) -> Result<Parameters, StartError> {
    let given = node.params.lock().unwrap_or_else(PoisonError::into_inner);
    let given: Vec<_> =
        given.iter().map(|(name, parameter)| (name.clone(), value(&parameter.value))).collect();
    let mut parameters = Parameters::with(given)
        .map_err(|errors| StartError::Never(format!("bad parameters: {}", errors.join("; "))))?;
    for (name, seconds) in &carried.parameters {
        // It was good in the run before.
        let _ = parameters.set(name, Value::Double(*seconds));
    }
    Ok(parameters)
}

fn value(given: &ParameterValue) -> Option<Value> {
    match given {
        ParameterValue::Bool(value) => Some(Value::Bool(*value)),
        ParameterValue::Integer(value) => Some(Value::Double(*value as f64)),
        ParameterValue::Double(value) => Some(Value::Double(*value)),
        ParameterValue::String(value) => Some(Value::Text(value.clone())),
        ParameterValue::NotSet
        | ParameterValue::BoolArray(_)
        | ParameterValue::ByteArray(_)
        | ParameterValue::IntegerArray(_)
        | ParameterValue::DoubleArray(_)
        | ParameterValue::StringArray(_) => None,
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default();
    let label = name.split('.').next().unwrap_or_default();
    if label.is_empty() { "unnamed".into() } else { label.to_ascii_lowercase() }
}

impl Running {
    /// Runs until the context has to be made anew.
    pub async fn run(&mut self) -> End {
        match self.inputs.take() {
            Some(inputs) => self.face.run(inputs).await,
            None => End::Failed("it ran already".into()),
        }
    }

    /// Takes the node apart. After an end of its own accord returns what the next run must know.
    pub fn finish(self, end: Option<End>) -> Option<Carried> {
        let carried = Carried {
            parameters: self.parameters.borrow().changeable(),
            joined: self.face.joined,
            lifecycle: Some(self.lifecycle.borrow().state()),
            ..self.carried
        };
        match end {
            None => {
                self.face.spinner.stop();
                None
            }
            Some(End::Outdated(reason, variables)) => {
                self.face.spinner.stop();
                let mut environment = carried.environment.clone();
                environment.extend(variables);
                Some(Carried { reason, failures: 0, environment, ..carried })
            }
            // Its thread has ended, and its node is not to be touched.
            Some(End::Failed(reason)) => Some(carried.failed(reason)),
        }
    }
}
