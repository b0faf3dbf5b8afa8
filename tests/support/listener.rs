//! Hears what an agent tells by its local API, as a program on the robot would.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netlab::{Host, Process};
use ria_api::state::Event;

use super::{eventually, eventually_within, program};

/// Events of the one network of an agent, with when they came.
pub struct Listener {
    heard: Arc<Mutex<Vec<(Instant, Event)>>>,
    _process: Process,
}

impl Listener {
    /// Listens from now on.
    pub fn on(host: &Host) -> Self {
        let mut command = host.command(program("ria"));
        let mut process = command.args(["events", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.take_stdout().unwrap()).lines();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                told.lock().unwrap().push((Instant::now(), serde_json::from_str(&line).unwrap()));
            }
        });
        // It listens once it has opened its second connection, which is for signals.
        let sockets = format!("/proc/{}/fd", process.id());
        eventually("the listener is connected", || {
            let entries = std::fs::read_dir(&sockets).into_iter().flatten().flatten();
            let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            links.filter(|link| link.to_string_lossy().starts_with("socket:")).count() >= 2
        });
        std::thread::sleep(Duration::from_millis(300));
        Self { heard, _process: process }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<(Instant, Event)> {
        self.heard.lock().unwrap().clone()
    }

    /// Those of a kind, since a moment.
    pub fn of_kind(&self, kind: &str, since: Instant) -> Vec<Event> {
        let wanted = |(at, event): &(Instant, Event)| *at >= since && event.kind == kind;
        self.events().into_iter().filter(wanted).map(|(_, event)| event).collect()
    }

    /// Waits for a change of a link to this state.
    pub fn wait_for_link(&self, after: &str, since: Instant) -> Event {
        let find = || self.of_kind("link_state", since).into_iter().find(|event| event.after == after);
        let what = format!("an event tells that a link is {after}");
        eventually_within(Duration::from_secs(30), &what, || find().is_some());
        find().unwrap()
    }
}
