//! A laptop is somebody's: its person lets it in by a code on the coordinator's page, has to do so again, and takes it along
//! when they leave. The person's browser is curl.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use netlab::Process;
use support::{COORDINATOR, Robot, SOON, Site, Team, eventually, eventually_within, program};

const PASSWORD: &str = "correct horse battery";

/// What an authenticator shows (RFC 6238).
fn code(secret: &str) -> String {
    let key = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let step = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = ring::hmac::sign(&key, &step.to_be_bytes());
    let offset = usize::from(tag.as_ref()[19] & 0xf);
    let number = u32::from_be_bytes(tag.as_ref()[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let start = text.find(before).unwrap_or_else(|| panic!("no {before} in {text}")) + before.len();
    &text[start..start + text[start..].find(after).unwrap()]
}

fn csrf(page: &str) -> &str {
    between(page, "name=\"csrf\" value=\"", "\"")
}

/// Somebody with a browser, on a host of the lab.
struct Person<'r> {
    robot: &'r Robot,
}

impl<'r> Person<'r> {
    /// Becomes an owner by the link.
    fn owner(team: &Team, robot: &'r Robot) -> Self {
        let person = Self { robot };
        let link = team.admin(&["user", "owner-link"]);
        let path = format!("/welcome/{}", link.out.trim().rsplit('/').next().unwrap());
        let page = person.get(&path);
        let code = code(between(&page, "<code class=\"secret\">", "<"));
        person
            .post(&path, &[("csrf", csrf(&page)), ("name", "ada"), ("password", PASSWORD), ("code", &code)]);
        assert!(person.get("/account").contains(">ada</h1>"), "nobody is logged in");
        person
    }

    fn curl(&self, arguments: &[&str]) -> String {
        let mut command = self.robot.host.command("curl");
        command.args(["-sSk", "-b", "/run/jar", "-c", "/run/jar"]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn get(&self, path: &str) -> String {
        self.curl(&[&format!("https://{COORDINATOR}{path}")])
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut arguments: Vec<&str> = pairs.iter().flat_map(|pair| ["--data-urlencode", pair]).collect();
        let url = format!("https://{COORDINATOR}{path}");
        arguments.push(&url);
        self.curl(&arguments)
    }

    /// The address that the page shows, with the pin.
    fn address(&self) -> String {
        between(&self.get("/device"), "sudo ria login ", "<").to_owned()
    }

    fn approve(&self, code: &str) {
        let page = self.get(&format!("/device?code={code}"));
        assert!(page.contains("robot-a</strong>"), "the laptop is not named: {page}");
        let fields = [("csrf", csrf(&page)), ("code", code), ("network", "lab"), ("deed", "approve")];
        let done = self.post("/device", &fields);
        assert!(done.contains("becomes a member of lab now"), "{done}");
    }
}

/// `ria login`, under way.
struct Login {
    process: Process,
    log: PathBuf,
}

impl Login {
    fn begin(robot: &Robot, address: &str) -> Self {
        let log = robot.host.path("/run/login.log");
        let _ = std::fs::remove_file(&log);
        let mut command = robot.host.command(program("ria"));
        command.args(["login", address]).log(&log).unwrap();
        Self { process: command.spawn().unwrap(), log }
    }

    fn code(&self) -> String {
        let told = || std::fs::read_to_string(&self.log).unwrap_or_default();
        eventually("a code is shown", || told().contains("The code is good for"));
        let text = told();
        let is_code = |line: &&str| line.len() == 9 && line.as_bytes()[4] == b'-';
        text.lines().map(str::trim).find(is_code).unwrap_or_else(|| panic!("no code in {text}")).to_owned()
    }

    fn ends_well(mut self) -> String {
        let status = self.process.wait_timeout(2 * SOON).unwrap().expect("ria login ends");
        let text = std::fs::read_to_string(&self.log).unwrap();
        assert!(status.success(), "{status:?}: {text}");
        text
    }
}

#[test]
fn a_laptop_comes_in_by_its_person_asks_again_and_leaves_with_them() {
    let settings = [("RIA_LAPTOPS_REVALIDATE", "15s")];
    let team = Team::with_settings("login", &Site::Together, &settings);
    let laptop = team.robot("robot-a", &[]);
    let ada = Person::owner(&team, &laptop);
    let address = ada.address();
    assert!(address.contains('#'), "{address} has no pin");

    // Who is not believed, and what makes no sense, ends before anybody types anything.
    let (host, pin) = address.split_once('#').unwrap();
    let bare = laptop.ria(&["login", host]);
    assert!(bare.code == 1 && bare.err.contains("#PIN"), "{bare:?}");
    let flipped: String = pin.chars().rev().collect();
    let other = laptop.ria(&["login", &format!("{host}#{flipped}")]);
    assert!(other.code != 0 && !other.err.contains("type the code"), "{other:?}");
    assert_eq!(laptop.ria(&["login", "http://nowhere"]).code, 2);

    let login = Login::begin(&laptop, &address);
    ada.approve(&login.code());
    let told = login.ends_well();
    assert!(
        told.contains("ada lets this machine into lab") && told.contains("joined lab as robot-a"),
        "{told}"
    );
    let shown = team.admin(&["node", "show", "robot-a", "--json"]);
    assert!(shown.out.contains("\"owner\": \"ada\""), "{shown:?}");

    // The time is over: it is kept out, and says what to do.
    let status = || laptop.ria(&["status"]);
    eventually_within(2 * SOON, "the laptop is kept out", || status().out.contains("ria login"));
    let is_due = || laptop.conditions().contains(&"login-due".to_owned());
    assert!(is_due() && !laptop.has_interface("ria0"), "{:?}", status());
    let login = Login::begin(&laptop, &address);
    ada.approve(&login.code());
    assert!(login.ends_well().contains("already in lab"));
    eventually("the laptop is back", || !is_due() && laptop.has_interface("ria0"));

    // Its person leaves, and so does it. Another owner has to be there for that.
    assert_eq!(team.admin(&["user", "add", "bob", "--role", "viewer"]).code, 0);
    let left = team.admin(&["user", "disable", "ada"]);
    assert_ne!(left.code, 0, "the last owner stays: {left:?}");
    assert_eq!(laptop.ria(&["logout"]).code, 0);
    eventually("the laptop is no member", || team.admin(&["node", "show", "robot-a"]).code != 0);
    let audit = team.admin(&["audit", "list", "--limit", "200"]).out;
    for action in ["key.created", "node.joined", "node.login-due", "node.rejoined", "node.left"] {
        assert!(audit.contains(action), "{action} is not in {audit}");
    }
}
