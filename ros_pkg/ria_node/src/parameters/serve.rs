//! The six parameter services and `/parameter_events`.

use futures_util::stream::StreamExt;
use r2r::rcl_interfaces::{msg, srv};
use r2r::{Node, Publisher, QosProfile};
use tokio::sync::watch;

use super::{ALL, Description, Parameters, Value};
use crate::constants::types;
use crate::log;
use crate::ros::RosClock;
use crate::services::{Requests, respond};
use crate::topics::parameter_events;

/// The services, created and not served yet.
pub struct Served {
    get: Requests<srv::GetParameters::Service>,
    types: Requests<srv::GetParameterTypes::Service>,
    set: Requests<srv::SetParameters::Service>,
    set_together: Requests<srv::SetParametersAtomically::Service>,
    list: Requests<srv::ListParameters::Service>,
    describe: Requests<srv::DescribeParameters::Service>,
    events: Publisher<msg::ParameterEvent>,
    node: String,
}

impl Served {
    /// Creates them.
    pub fn create(node: &mut Node) -> r2r::Result<Self> {
        let qos = QosProfile::parameters();
        Ok(Self {
            get: Box::new(node.create_service("~/get_parameters", qos.clone())?),
            types: Box::new(node.create_service("~/get_parameter_types", qos.clone())?),
            set: Box::new(node.create_service("~/set_parameters", qos.clone())?),
            set_together: Box::new(node.create_service("~/set_parameters_atomically", qos.clone())?),
            list: Box::new(node.create_service("~/list_parameters", qos.clone())?),
            describe: Box::new(node.create_service("~/describe_parameters", qos)?),
            events: parameter_events(node)?,
            node: node.fully_qualified_name()?,
        })
    }
}

/// Answers for as long as the services are there. The one owner of the parameters; others watch.
pub async fn serve(
    mut served: Served,
    mut parameters: Parameters,
    clock: RosClock,
    live: watch::Sender<Parameters>,
) {
    let all = ALL.iter().map(|d| parameter(d.name, parameters.get(d.name))).collect();
    served.tell(&clock, all, Vec::new());
    loop {
        tokio::select! {
            Some(r) = served.get.next() => { let a = get(&parameters, &r.message); respond(r, a); }
            Some(r) = served.types.next() => { let a = types(&parameters, &r.message); respond(r, a); }
            Some(r) = served.list.next() => { let a = list(&r.message); respond(r, a); }
            Some(r) = served.describe.next() => { let a = describe(&r.message); respond(r, a); }
            Some(r) = served.set.next() => {
                let (a, changed) = set(&mut parameters, &r.message);
                live.send_replace(parameters.clone());
                respond(r, a);
                served.tell(&clock, Vec::new(), changed);
            }
            Some(r) = served.set_together.next() => {
                let (a, changed) = set_together(&mut parameters, &r.message);
                live.send_replace(parameters.clone());
                respond(r, a);
                served.tell(&clock, Vec::new(), changed);
            }
            else => return,
        }
    }
}

impl Served {
    fn tell(&self, clock: &RosClock, new: Vec<msg::Parameter>, changed: Vec<msg::Parameter>) {
        if new.is_empty() && changed.is_empty() {
            return;
        }
        let event = msg::ParameterEvent {
            stamp: clock.now(),
            node: self.node.clone(),
            new_parameters: new,
            changed_parameters: changed,
            deleted_parameters: Vec::new(),
        };
        if let Err(error) = self.events.publish(&event) {
            log::warn(format!("can't publish on /parameter_events: {error}"));
        }
    }
}

fn get(parameters: &Parameters, asked: &srv::GetParameters::Request) -> srv::GetParameters::Response {
    srv::GetParameters::Response { values: asked.names.iter().map(|n| message(parameters.get(n))).collect() }
}

fn types(
    parameters: &Parameters,
    asked: &srv::GetParameterTypes::Request,
) -> srv::GetParameterTypes::Response {
    srv::GetParameterTypes::Response {
        types: asked.names.iter().map(|n| type_of(parameters.get(n))).collect(),
    }
}

/// No name has a dot, so a prefix only matches a whole name.
fn list(asked: &srv::ListParameters::Request) -> srv::ListParameters::Response {
    let wanted = |name: &str| asked.prefixes.is_empty() || asked.prefixes.iter().any(|p| p == name);
    let names = ALL.iter().map(|d| d.name.to_owned()).filter(|n| wanted(n)).collect();
    srv::ListParameters::Response { result: msg::ListParametersResult { names, prefixes: Vec::new() } }
}

fn describe(asked: &srv::DescribeParameters::Request) -> srv::DescribeParameters::Response {
    let descriptor = |name: &String| match Description::of(name) {
        Some(description) => descriptor(description),
        None => msg::ParameterDescriptor { name: name.clone(), ..msg::ParameterDescriptor::default() },
    };
    srv::DescribeParameters::Response { descriptors: asked.names.iter().map(descriptor).collect() }
}

fn descriptor(description: &Description) -> msg::ParameterDescriptor {
    let range = |(from_value, to_value)| msg::FloatingPointRange { from_value, to_value, step: 0.0 };
    msg::ParameterDescriptor {
        name: description.name.into(),
        type_: type_of(Some(&(description.default)())),
        description: description.text.into(),
        additional_constraints: description.constraints.into(),
        read_only: description.read_only,
        dynamic_typing: false,
        floating_point_range: description.range.map(range).into_iter().collect(),
        integer_range: Vec::new(),
    }
}

fn set(
    parameters: &mut Parameters,
    asked: &srv::SetParameters::Request,
) -> (srv::SetParameters::Response, Vec<msg::Parameter>) {
    let mut changed = Vec::new();
    let results = asked.parameters.iter().map(|p| set_one(parameters, p, &mut changed)).map(result).collect();
    (srv::SetParameters::Response { results }, changed)
}

/// All or none.
fn set_together(
    parameters: &mut Parameters,
    asked: &srv::SetParametersAtomically::Request,
) -> (srv::SetParametersAtomically::Response, Vec<msg::Parameter>) {
    let (mut tried, mut changed) = (parameters.clone(), Vec::new());
    let all = asked.parameters.iter().try_for_each(|p| set_one(&mut tried, p, &mut changed));
    match &all {
        Ok(()) => *parameters = tried,
        Err(_) => changed.clear(),
    }
    (srv::SetParametersAtomically::Response { result: result(all) }, changed)
}

fn set_one(
    parameters: &mut Parameters,
    asked: &msg::Parameter,
    changed: &mut Vec<msg::Parameter>,
) -> Result<(), String> {
    let Some(value) = value(&asked.value) else {
        return Err(match Description::of(&asked.name) {
            Some(d) => format!("{} can't be of this type, nor be removed", d.name),
            None => format!("there is no parameter {}", asked.name),
        });
    };
    if parameters.set(&asked.name, value)? {
        changed.push(parameter(&asked.name, parameters.get(&asked.name)));
    }
    Ok(())
}

fn result(result: Result<(), String>) -> msg::SetParametersResult {
    msg::SetParametersResult { successful: result.is_ok(), reason: result.err().unwrap_or_default() }
}

fn parameter(name: &str, value: Option<&Value>) -> msg::Parameter {
    msg::Parameter { name: name.into(), value: message(value) }
}

fn type_of(value: Option<&Value>) -> u8 {
    match value {
        None => types::PARAMETER_NOT_SET,
        Some(Value::Bool(_)) => types::PARAMETER_BOOL,
        Some(Value::Double(_)) => types::PARAMETER_DOUBLE,
        Some(Value::Text(_)) => types::PARAMETER_STRING,
    }
}

fn message(value: Option<&Value>) -> msg::ParameterValue {
    let mut message = msg::ParameterValue { type_: type_of(value), ..msg::ParameterValue::default() };
    match value {
        None => {}
        Some(Value::Bool(value)) => message.bool_value = *value,
        Some(Value::Double(value)) => message.double_value = *value,
        Some(Value::Text(value)) => message.string_value.clone_from(value),
    }
    message
}

/// A whole number is a number of seconds, too.
fn value(message: &msg::ParameterValue) -> Option<Value> {
    match message.type_ {
        types::PARAMETER_BOOL => Some(Value::Bool(message.bool_value)),
        types::PARAMETER_INTEGER => Some(Value::Double(message.integer_value as f64)),
        types::PARAMETER_DOUBLE => Some(Value::Double(message.double_value)),
        types::PARAMETER_STRING => Some(Value::Text(message.string_value.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(name: &str, value: f64) -> msg::Parameter {
        parameter(name, Some(&Value::Double(value)))
    }

    #[test]
    fn a_descriptor_carries_range_text_and_whether_it_may_be_set() {
        let names = vec!["publish_period".to_owned(), "allow_control".to_owned(), "nothing".to_owned()];
        let descriptors = describe(&srv::DescribeParameters::Request { names }).descriptors;
        let range = &descriptors[0].floating_point_range[0];
        assert_eq!((range.from_value, range.to_value), (0.5, 60.0));
        assert!(!descriptors[0].read_only && descriptors[0].description.contains("/overlay/peers"));
        assert!(descriptors[1].read_only);
        assert_eq!((descriptors[2].name.as_str(), descriptors[2].type_), ("nothing", 0));
    }

    #[test]
    fn each_of_several_is_judged_for_itself() {
        let mut parameters = Parameters::default();
        let asked = srv::SetParameters::Request {
            parameters: vec![seconds("publish_period", 2.0), seconds("diagnostics_period", 0.0)],
        };
        let (response, changed) = set(&mut parameters, &asked);
        let successful: Vec<_> = response.results.iter().map(|r| r.successful).collect();
        assert_eq!(successful, [true, false]);
        assert!(response.results[1].reason.contains("0.2"), "{:?}", response.results[1]);
        assert_eq!(changed.len(), 1);
    }

    #[test]
    fn together_means_all_or_none() {
        let mut parameters = Parameters::default();
        let asked = srv::SetParametersAtomically::Request {
            parameters: vec![seconds("publish_period", 2.0), seconds("diagnostics_period", 0.0)],
        };
        let (response, changed) = set_together(&mut parameters, &asked);
        assert!(!response.result.successful && changed.is_empty());
        assert_eq!(parameters, Parameters::default());
    }

    #[test]
    fn removing_is_refused_and_a_whole_number_of_seconds_taken() {
        let mut parameters = Parameters::default();
        let removal = msg::Parameter { name: "publish_period".into(), ..msg::Parameter::default() };
        assert!(set_one(&mut parameters, &removal, &mut Vec::new()).is_err());
        let mut whole = removal.clone();
        whole.value.type_ = types::PARAMETER_INTEGER;
        whole.value.integer_value = 3;
        set_one(&mut parameters, &whole, &mut Vec::new()).unwrap();
        assert_eq!(parameters.get("publish_period"), Some(&Value::Double(3.0)));
    }

    #[test]
    fn a_list_with_prefixes_holds_only_those() {
        let asked = srv::ListParameters::Request { prefixes: vec!["publish_period".into()], depth: 0 };
        assert_eq!(list(&asked).result.names, ["publish_period"]);
        assert_eq!(list(&srv::ListParameters::Request::default()).result.names.len(), ALL.len());
    }
}
