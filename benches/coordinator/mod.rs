//! `./scripts/bench coordinator`: what a coordinator with many nodes needs and how fast it is (docs/benchmarks.md). The nodes
//! speak the protocol over real TLS and WebSockets, thousands in this one process; coordinator and nodes share the machine.

#[allow(dead_code, unused_imports, reason = "the agent's own, with its tests")]
#[path = "../../src/coordinator/backoff.rs"]
mod backoff;
mod crowd;
mod first_packet;
mod node;
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "that of the tests, which panic")]
#[path = "../../coordinator/tests/it/support/postgres.rs"]
mod postgres;
mod served;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ria_protocol::map::Revision;
use serde_json::{Value, json};

use crate::Figures;
use crate::support::percentile;
use crowd::Crowd;
use served::Served;

/// Members of the network in which changes are timed, and of each that is there for their number.
const MEMBERS: usize = 1000;
/// Robots that roam.
const ROAMING: usize = 80;
/// Each of them changes networks so often.
const MOVES_EVERY: Duration = Duration::from_secs(10);
/// Changes that are timed.
const CHANGES: usize = 40;
/// Until nothing follows any more from what went before.
const SETTLING: Duration = Duration::from_secs(5);
/// How long processor time is counted.
const WATCHED: Duration = Duration::from_secs(20);
/// The first packet to a peer, in either kind of network.
const FIRST_PACKETS: [&str; 2] = ["on_demand_first_packet_ms", "push_first_packet_ms"];
/// What takes longer has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// Measures all, or with `--only` the half that has one of the metrics: SQLite or PostgreSQL (`_pg`). `thousands` of nodes at
/// the end.
pub fn run(thousands: usize, only: &[String]) -> Result<Figures> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let needed = u64::try_from(thousands * MEMBERS + ROAMING + 1000)?;
    ensure!(most >= needed, "{needed} open files are needed, {most} are allowed: ulimit -Hn");
    let mut figures = Figures::new();
    let is_first = |metric: &String| FIRST_PACKETS.contains(&metric.as_str());
    if only.is_empty() || only.iter().any(is_first) {
        eprintln!("first packets");
        figures.extend(
            FIRST_PACKETS.iter().zip(first_packet::measure()?).map(|(m, v)| ((*m).to_owned(), json!(v))),
        );
    }
    if !only.is_empty() && only.iter().all(is_first) {
        return Ok(figures);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for suffix in ["", "_pg"] {
        if !only.is_empty() && !only.iter().any(|metric| metric.ends_with("_pg") != suffix.is_empty()) {
            continue;
        }
        let postgres = (!suffix.is_empty()).then(|| postgres::Postgres::start(true));
        let environment = postgres.as_ref().map(postgres::Postgres::settings).unwrap_or_default();
        figures.extend(runtime.block_on(measure(thousands, environment, suffix))?);
    }
    Ok(figures)
}

async fn measure(thousands: usize, environment: Vec<(String, String)>, suffix: &str) -> Result<Figures> {
    let mut figures = Figures::new();
    let mut note = |metric: &str, value: f64| {
        eprintln!("  {metric}{suffix} {value:.3}");
        figures.insert(format!("{metric}{suffix}"), json!(value));
    };
    let mut served = Served::start(environment)?;
    tokio::time::sleep(SETTLING).await;
    let empty = served.resident_kib()?;

    eprintln!("{ROAMING} roaming robots");
    served.admin(&["network", "create", "roaming"])?;
    let (roaming, _) = Crowd::join(served.address, &served.key("roaming")?, 0, ROAMING).await?;
    note("roaming_80_cpu_pct", roam(&served, &roaming).await?);

    eprintln!("{MEMBERS} members");
    let (mut members, took) = Crowd::join(served.address, &served.key("lab")?, ROAMING, MEMBERS).await?;
    #[allow(clippy::cast_precision_loss, reason = "a thousand")]
    note("joins_per_s", MEMBERS as f64 / took.as_secs_f64());
    tokio::time::sleep(SETTLING).await;
    note("idle_cpu_pct", served.cpu_pct(WATCHED).await?);

    let times = change(&served, &mut members).await?;
    note("change_to_all_median_ms", percentile(&times, 0.5));
    note("change_to_all_p99_ms", percentile(&times, 0.99));

    members.look_away();
    let began = served.restart()?;
    note("reconnect_all_s", members.all_back(began, LIMIT).await?.as_secs_f64());

    let mut crowds = vec![roaming, members];
    for number in 1..thousands {
        let network = format!("idle-{number}");
        eprintln!("{MEMBERS} more in {network}");
        served.admin(&["network", "create", &network])?;
        let first = ROAMING + number * MEMBERS;
        crowds.push(Crowd::join(served.address, &served.key(&network)?, first, MEMBERS).await?.0);
    }
    tokio::time::sleep(2 * SETTLING).await;
    let connected: usize = crowds.iter().map(Crowd::connected).sum();
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let count = connected as f64;
    note("nodes_connected", count);
    note("kib_per_idle_node", (served.resident_kib()? - empty) / count);
    note("idle_all_cpu_pct", served.cpu_pct(WATCHED).await?);
    let lost: usize = crowds.iter().map(Crowd::failures).sum();
    eprintln!("  connections and attempts that failed, the restart included: {lost}");
    Ok(figures)
}

async fn roam(served: &Served, roaming: &Crowd) -> Result<f64> {
    tokio::time::sleep(SETTLING).await;
    let step = MOVES_EVERY / u32::try_from(ROAMING)?;
    let mover = tokio::spawn(roaming.move_on(step));
    let used = served.cpu_pct(WATCHED).await;
    mover.abort();
    used
}

/// Times of all changes at all members: from the administrator's request to the node's reading of it.
async fn change(served: &Served, members: &mut Crowd) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for round in 0..CHANGES {
        members.look_away();
        let before = revision(served)?;
        let body = if round % 2 == 0 {
            r#"{"add":["bench"],"remove":[]}"#
        } else {
            r#"{"add":[],"remove":["bench"]}"#
        };
        let began = Instant::now();
        served.ask("POST", &format!("/v1/nodes/node-{ROAMING}/tag?network=lab"), body)?;
        times.extend(members.told_of(Revision(before + 1), began, LIMIT).await?);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(times)
}

fn revision(served: &Served) -> Result<u64> {
    let network: Value = served.ask("GET", "/v1/networks/lab", "")?;
    network["revision"].as_u64().context("no revision")
}
