//! The command line: `up` owns a lab, all others talk to one.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line's output")]

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io, thread};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use netlab::control::{self, Client, Door, LabReport, Reply, Request};
use netlab::nat::NatReport;
use netlab::{Description, Direction, Lab};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::Pid;

/// Test hosts, NATs and links made of Linux namespaces.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a lab until SIGINT, SIGTERM, `netlab down`, or the end of standard input if that is a pipe
    Up {
        /// TOML description, or 'campus' or 'same-wifi'
        file: PathBuf,
        /// Another name than the description's
        #[arg(long)]
        name: Option<String>,
        /// Tell the ready lab as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command in a host; its exit code becomes netlab's
    Exec {
        lab: String,
        host: String,
        /// Working directory, as the host sees it
        #[arg(short = 'C', long)]
        directory: Option<PathBuf>,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// List running labs and their hosts
    Ls {
        #[arg(long)]
        json: bool,
    },
    /// Move a running host to another network
    Move { lab: String, host: String, network: String },
    /// Change the link of a host, or the uplink of a router: loss=3 rate=20mbit delay=20ms udp=blocked:53 cut=on
    Set {
        lab: String,
        link: String,
        #[arg(required = true)]
        settings: Vec<String>,
    },
    /// Show the settings of a link and, where an emulator carries its frames, what became of them
    Link {
        lab: String,
        link: String,
        #[arg(long)]
        json: bool,
    },
    /// Let nothing pass a link for so many seconds; it ends by itself
    #[command(group = clap::ArgGroup::new("way").multiple(false))]
    BlackOut {
        lab: String,
        link: String,
        #[arg(value_parser = seconds)]
        seconds: f64,
        /// Only from the node to the network
        #[arg(long, group = "way")]
        up: bool,
        /// Only from the network to the node
        #[arg(long, group = "way")]
        down: bool,
    },
    /// Look into a router's emulated address translation, or change it
    Nat {
        lab: String,
        router: String,
        #[command(subcommand)]
        change: Option<NatVerb>,
        /// Show it as JSON
        #[arg(long)]
        json: bool,
    },
    /// End a lab
    Down { lab: String },
}

#[derive(Debug, Subcommand)]
enum NatVerb {
    /// Forget all mappings, as a router that lost its power
    Reset,
    /// Take another address outside, this one or the next free one, which ends all mappings
    Address { address: Option<Ipv4Addr> },
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.ok_or_else(|| {
        "write a number of seconds, at most an hour (3600); 'set … cut=on' has no end".to_owned()
    })
}

/// Does what was asked.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.verb {
        Verb::Up { file, name, json } => up(&file, name, json)?,
        Verb::Exec { lab, host, directory, command } => {
            return exec(&lab, &host, directory.as_deref(), &command);
        }
        Verb::Ls { json } => list(json)?,
        Verb::Move { lab, host, network } => ask(&lab, &Request::Move { host, network })?,
        Verb::Set { lab, link, settings } => ask(&lab, &Request::Set { link, settings })?,
        Verb::Link { lab, link, json } => print(ask_for(&lab, &Request::Link { link })?, json)?,
        Verb::BlackOut { lab, link, seconds, up, down } => {
            let direction = match (up, down) {
                (true, _) => Some(Direction::Up),
                (_, true) => Some(Direction::Down),
                _ => None,
            };
            ask(&lab, &Request::BlackOut { link, seconds, direction })?;
        }
        Verb::Nat { lab, router, change, json } => {
            let request = match change {
                None => Request::Nat { router },
                Some(NatVerb::Reset) => Request::RebootNat { router },
                Some(NatVerb::Address { address }) => Request::ReaddressNat { router, address },
            };
            print(ask_for(&lab, &request)?, json)?;
        }
        Verb::Down { lab } => ask(&lab, &Request::Down)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(lab: &str, request: &Request) -> Result<()> {
    ask_for(lab, request).map(drop)
}

fn ask_for(lab: &str, request: &Request) -> Result<Reply> {
    Ok(Client::connect(lab)?.ask(request)?)
}

/// Prints what was asked for: JSON, or TOML, which people read more easily.
fn print(reply: Reply, json: bool) -> Result<()> {
    let text = match (&reply, json) {
        (Reply::Link(link), true) => serde_json::to_string(link)?,
        (Reply::Link(link), false) => toml::to_string(link)?,
        (Reply::Nat(nat), true) => serde_json::to_string(nat)?,
        (Reply::Nat(nat), false) => print_nat(nat),
        (Reply::Address(address), _) => address.to_string(),
        (Reply::Lab(_) | Reply::Init(_) | Reply::Done | Reply::Failed(_), _) => return Ok(()),
    };
    println!("{}", text.trim_end());
    Ok(())
}

fn print_nat(nat: &NatReport) -> String {
    let mut text = format!("outside address {}\n", nat.external);
    for mapping in &nat.mappings {
        let protocol = format!("{:?}", mapping.protocol).to_lowercase();
        text += &format!("{protocol:<5} {:<21} -> {}\n", mapping.inside.to_string(), mapping.outside);
    }
    for (reason, count) in &nat.dropped {
        text += &format!("dropped {count} ({})\n", reason.describe());
    }
    text
}

fn up(file: &Path, name: Option<String>, json: bool) -> Result<()> {
    let signals = hold_signals(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
    let mut description = describe(file)?;
    description.name = name.unwrap_or(description.name);
    let door = Door::open(&description.name).map_err(|error| {
        if error.kind() != io::ErrorKind::AddrInUse {
            return error.into();
        }
        let name = &description.name;
        anyhow::anyhow!(
            "a lab named '{name}' runs already: end it with 'netlab down {name}', or choose another --name"
        )
    })?;
    let lab = Lab::build(&description)?;
    let report = LabReport::of(&lab);
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_lab(&report);
        println!("ready; end it with Ctrl-C or 'netlab down {}'", report.name);
    }
    let ended = Arc::new(AtomicBool::new(false));
    end_on(&ended, move || {
        let _ = signals.read_signal();
    });
    if is_pipe(io::stdin()) {
        end_on(&ended, || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
        });
    }
    control::serve(lab, door, || ended.load(Ordering::Relaxed));
    Ok(())
}

fn describe(file: &Path) -> Result<Description> {
    match file.to_str() {
        Some("campus") => return Ok(netlab::topologies::campus()?),
        Some("same-wifi") => return Ok(netlab::topologies::same_wifi()?),
        _ => {}
    }
    let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    Description::from_toml(&text).with_context(|| format!("{} is no description of a lab", file.display()))
}

fn end_on(ended: &Arc<AtomicBool>, wait: impl FnOnce() + Send + 'static) {
    let ended = Arc::clone(ended);
    thread::spawn(move || {
        wait();
        ended.store(true, Ordering::Relaxed);
    });
}

fn is_pipe(input: impl AsFd) -> bool {
    fstat(input).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}

/// Blocks signals in this and all later threads (not in programs they start) so that they can be waited for.
fn hold_signals(signals: &[Signal]) -> Result<SignalFd> {
    let set: SigSet = signals.iter().copied().collect();
    set.thread_block()?;
    Ok(SignalFd::new(&set)?)
}

fn exec(lab: &str, host: &str, directory: Option<&Path>, line: &[OsString]) -> Result<ExitCode> {
    let [program, arguments @ ..] = line else { bail!("name a command to run") };
    let signals = hold_signals(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT])?;
    let mut client = Client::connect(lab)?;
    let mut command = client.command(host, program)?;
    command.args(arguments);
    if let Some(directory) = directory {
        command.current_dir(directory)?;
    }
    let mut process = command
        .spawn()
        .with_context(|| format!("can't run '{}' in host '{host}'", program.to_string_lossy()))?;
    let pid = process.id();
    // A program as short as 'true' may have ended before it could be guarded.
    if let Err(error) = client.guard(pid)
        && process.try_wait()?.is_none()
    {
        return Err(error.into());
    }
    thread::Builder::new().name("forward".into()).spawn(move || forward(&signals, pid))?;
    let status = process.wait()?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Hands signals on, but for those that a terminal has sent to both of us.
fn forward(signals: &SignalFd, pid: u32) {
    while let Ok(Some(info)) = signals.read_signal() {
        if info.ssi_code == libc::SI_KERNEL {
            continue;
        }
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), signal));
    }
}

fn list(json: bool) -> Result<()> {
    let mut labs = Vec::new();
    for name in control::running()? {
        // One may end between the two questions.
        if let Ok(Reply::Lab(report)) =
            Client::connect(&name).and_then(|mut client| client.ask(&Request::Show))
        {
            labs.push(report);
        }
    }
    if json {
        println!("{}", serde_json::to_string(&labs)?);
    } else {
        labs.iter().for_each(print_lab);
    }
    Ok(())
}

fn print_lab(lab: &LabReport) {
    println!("{} (process {})", lab.name, lab.owner);
    for host in &lab.hosts {
        let v4 = Some(host.address).filter(|address| !address.is_unspecified());
        let addresses: Vec<String> =
            v4.map(|v4| v4.to_string()).into_iter().chain(host.address6.map(|v6| v6.to_string())).collect();
        println!("  {:<16} {:<15} on {}", host.name, addresses.join(" "), host.network);
    }
}
