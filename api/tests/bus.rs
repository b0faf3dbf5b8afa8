//! The agent on a system bus: a real `dbus-daemon` of the test's own, with the policy file that is installed, and
//! programs that are not ours as its clients. Needs root, as the agent does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use ria_api::fake::FakeAgent;
use ria_api::proxy::NetworkProxy;
use ria_api::server::{BusState, serve_on_bus};
use ria_api::{AGENT_PATH, BUS_NAME};
use zbus::fdo::PropertiesProxy;

/// Generous: machines that test are slow, and the agent looks for a bus every 2 s.
const SOON: Duration = Duration::from_secs(30);

const NOBODY: u32 = 65_534;

/// A bus of its own.
struct Bus {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Bus {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, daemon: None }
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.dir.path().join("bus").display())
    }

    /// Starts it as Debian configures a system bus: with the policy file, or without.
    fn start(&mut self, with_policy: bool) {
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/dbus/org.ria.Overlay1.conf");
        let include =
            if with_policy { format!("<include>{}</include>", policy.display()) } else { String::new() };
        let text = format!(
            r#"<busconfig>
              <type>system</type>
              <listen>{}</listen>
              <auth>EXTERNAL</auth>
              <policy context="default">
                <allow user="*"/>
                <deny own="*"/>
                <deny send_type="method_call"/>
                <allow send_type="signal"/>
                <allow send_requested_reply="true" send_type="method_return"/>
                <allow send_requested_reply="true" send_type="error"/>
                <allow receive_type="method_call"/>
                <allow receive_type="method_return"/>
                <allow receive_type="error"/>
                <allow receive_type="signal"/>
                <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
              </policy>
              {include}
            </busconfig>"#,
            self.address()
        );
        let config = self.dir.path().join("bus.conf");
        std::fs::write(&config, text).unwrap();
        let _ = std::fs::remove_file(self.dir.path().join("bus"));
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog"])
            .stdout(Stdio::null())
            .spawn()
            .expect("dbus-daemon (package dbus) is needed for this test");
        self.daemon = Some(daemon);
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// Another program with the name, as soon as nobody else has it.
    async fn take_the_name(&self) -> zbus::Connection {
        let attempt = || zbus::connection::Builder::address(self.address().as_str()).name(BUS_NAME).build();
        let taking = async {
            loop {
                if let Ok(connection) = attempt().await {
                    return connection;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon(taking).await
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A made-up agent that serves on a bus.
struct Running {
    agent: Arc<FakeAgent>,
    states: Arc<Mutex<Vec<BusState>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(bus: &Bus) -> Self {
        let agent = Arc::new(FakeAgent::default());
        agent.command("join robot-1").unwrap();
        let states = Arc::new(Mutex::new(Vec::new()));
        let (backend, told, address) = (agent.clone(), states.clone(), bus.address());
        let task = tokio::spawn(async move {
            serve_on_bus(Some(&address), backend, move |state| told.lock().unwrap().push(state)).await;
        });
        Self { agent, states, task }
    }

    /// Waits until it is so; what was told before does not count any more.
    async fn wait_for(&self, what: &str, is_it: impl Fn(&BusState) -> bool) {
        let waiting = async {
            while !self.states.lock().unwrap().drain(..).any(|state| is_it(&state)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("nothing came in time")
}

/// Calls a method as a user, with a D-Bus implementation that is not ours.
fn dbus_send(bus: &Bus, uid: u32, object: &str, rest: &[&str]) -> Result<String, String> {
    let mut call = Command::new("dbus-send");
    call.args([format!("--bus={}", bus.address()), format!("--dest={BUS_NAME}")]);
    call.args(["--print-reply", "--reply-timeout=20000", object]).args(rest).uid(uid).gid(uid);
    let output = call.output().expect("dbus-send (package dbus) is needed for this test");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn network() -> String {
    ria_api::network_path(ria_api::fake::network_id())
}

fn is_serving(state: &BusState) -> bool {
    *state == BusState::Serving
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_reads_and_only_root_and_the_group_change() {
    let mut bus = Bus::new();
    bus.start(true);
    let running = Running::start(&bus);
    running.wait_for("the name", is_serving).await;
    let change = ["org.ria.Overlay1.Network.SetEnabled", "boolean:false"];

    let status = dbus_send(&bus, NOBODY, AGENT_PATH, &["org.ria.Overlay1.Status"]).unwrap();
    assert!(status.contains(&network()), "{status}");
    let peers = dbus_send(&bus, NOBODY, &network(), &["org.ria.Overlay1.Network.Peers"]).unwrap();
    assert!(peers.contains("array"), "{peers}");
    let refusal = dbus_send(&bus, NOBODY, &network(), &change).unwrap_err();
    assert!(refusal.contains("org.ria.Overlay1.Error.NotPermitted") && refusal.contains("sudo"), "{refusal}");
    let refusal = dbus_send(&bus, NOBODY, &network(), &["org.ria.Overlay1.Network.Leave"]).unwrap_err();
    assert!(refusal.contains("NotPermitted"), "{refusal}");

    assert!(dbus_send(&bus, 0, &network(), &change).is_ok());
    let state = ["org.freedesktop.DBus.Properties.Get", "string:org.ria.Overlay1.Network", "string:State"];
    assert!(dbus_send(&bus, NOBODY, &network(), &state).unwrap().contains("disabled"));
}

/// What `busctl introspect` shows must be whole, and stay what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn introspection_is_what_is_documented() {
    let mut bus = Bus::new();
    bus.start(true);
    let running = Running::start(&bus);
    running.wait_for("the name", is_serving).await;
    let client = zbus::connection::Builder::address(bus.address().as_str()).build().await.unwrap();
    let mut shown = Vec::new();
    for (path, interface) in [(AGENT_PATH.to_owned(), BUS_NAME), (network(), "org.ria.Overlay1.Network")] {
        let proxy = zbus::fdo::IntrospectableProxy::builder(&client).destination(BUS_NAME).path(path);
        let xml = soon(proxy.build().await.unwrap().introspect()).await.unwrap();
        shown.push(interface_of(&xml, interface));
    }
    let generated = format!("<node>\n{}</node>\n", shown.concat());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("org.ria.Overlay1.xml");
    if std::env::var_os("RIA_WRITE_INTROSPECTION").is_some() {
        std::fs::write(&file, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        generated, committed,
        "run the test with RIA_WRITE_INTROSPECTION=1 and look at what has changed"
    );

    // All that programs find out by themselves: objects, their interfaces and properties.
    let objects = ["org.freedesktop.DBus.ObjectManager.GetManagedObjects"];
    let objects = dbus_send(&bus, NOBODY, AGENT_PATH, &objects).unwrap();
    assert!(objects.contains(&network()) && objects.contains("PeersUp"), "{objects}");
}

/// The element of one interface.
fn interface_of(xml: &str, name: &str) -> String {
    let begin =
        xml.find(&format!("  <interface name=\"{name}\">")).unwrap_or_else(|| panic!("{name}: {xml}"));
    let end = begin + xml[begin..].find("</interface>").unwrap() + "</interface>\n".len();
    xml[begin..end].to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_events_are_told_on_the_bus() {
    let mut bus = Bus::new();
    bus.start(true);
    let running = Running::start(&bus);
    running.wait_for("the name", is_serving).await;
    let client = zbus::connection::Builder::address(bus.address().as_str()).build().await.unwrap();
    let path = network();
    let lab = NetworkProxy::builder(&client).path(path.as_str()).build().await.unwrap();
    let properties = PropertiesProxy::builder(&client).destination(BUS_NAME).path(path.as_str());
    let properties = properties.build().await.unwrap();
    let mut changed = properties.receive_properties_changed().await.unwrap();
    let mut happened = lab.receive_happened().await.unwrap();
    running.agent.command("peer robot-2 up").unwrap();
    let signal = soon(changed.next()).await.unwrap();
    let args = signal.args().unwrap();
    let mut names: Vec<&str> = args.changed_properties.keys().copied().collect();
    names.sort_unstable();
    assert_eq!(
        (args.interface_name.as_str(), names),
        ("org.ria.Overlay1.Network", vec!["PeersTotal", "PeersUp"])
    );
    running.agent.command("event link_state robot-2 connecting up 0.4").unwrap();
    let event = soon(happened.next()).await.unwrap().args().unwrap().event;
    assert_eq!((event.peer.as_str(), event.gap), ("robot-2", Some(0.4)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_comes_late_or_again_is_found() {
    let mut bus = Bus::new();
    let running = Running::start(&bus);
    running.wait_for("no bus", |state| matches!(state, BusState::Absent(_))).await;
    bus.start(true);
    running.wait_for("the name", is_serving).await;
    bus.stop();
    running.wait_for("the bus is lost", |state| matches!(state, BusState::Absent(_))).await;
    bus.start(true);
    running.wait_for("the name again", is_serving).await;
    assert!(dbus_send(&bus, NOBODY, AGENT_PATH, &["org.ria.Overlay1.Status"]).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_taken_or_refused_is_told_and_tried_again() {
    let mut bus = Bus::new();
    bus.start(false);
    let running = Running::start(&bus);
    let refused = |state: &BusState| {
        matches!(state, BusState::NameRefused(_)) && state.to_string().contains("/usr/share/dbus-1/system.d/")
    };
    running.wait_for("the name is refused", refused).await;
    bus.stop();
    bus.start(true);
    running.wait_for("the name", is_serving).await;

    // Another agent: the first keeps the name, and the second has it when the first is gone.
    let second = Running::start(&bus);
    second.wait_for("the name is taken", |state| *state == BusState::NameTaken).await;
    drop(running);
    second.wait_for("the name is free", is_serving).await;
    drop(second);

    let stranger = bus.take_the_name().await;
    let third = Running::start(&bus);
    third.wait_for("the name is taken", |state| *state == BusState::NameTaken).await;
    stranger.close().await.unwrap();
    third.wait_for("the name is free", is_serving).await;
}
