//! The command line: each verb is a client of the agent's local API. Knows nothing of tunnels, and of coordinators only that
//! somebody types a code there (`ria login`), which needs no agent and no secret of its.

mod approval;
pub mod args;
mod bundle;
mod control;
mod doctor;
mod env;
mod events;
pub mod failure;
mod join;
mod login;
mod metrics;
mod netcheck;
pub mod output;
mod peers;
mod ping;
mod service;
mod status;
mod top;
mod update;
mod wait;

use std::path::Path;

use clap::CommandFactory;
use ria_api::client::{Agent, Network};

use self::args::{Cli, ClientVerb, Global, NetworkArg};
use self::failure::Failure;
use self::output::Output;

/// What every verb has at hand.
pub struct Context {
    pub global: Global,
    pub output: Output,
}

impl Context {
    pub fn new(global: Global) -> Self {
        let output = Output::new(global.json);
        Self { global, output }
    }

    async fn agent(&self) -> Result<Agent, Failure> {
        Ok(Agent::connect(self.global.socket.as_deref()).await?)
    }

    /// The network that is named, or all of them.
    async fn networks(&self, wanted: &NetworkArg) -> Result<Vec<Network>, Failure> {
        let agent = self.agent().await?;
        let summaries = agent.proxy().status().await?.networks;
        if wanted.network.is_some() || summaries.is_empty() {
            return Ok(vec![agent.network(wanted.network.as_deref()).await?]);
        }
        let mut networks = Vec::with_capacity(summaries.len());
        for summary in summaries {
            networks.push(Network { proxy: agent.network_at(&summary.path).await?, summary });
        }
        Ok(networks)
    }

    async fn network(&self, wanted: &NetworkArg) -> Result<Network, Failure> {
        Ok(self.agent().await?.network(wanted.network.as_deref()).await?)
    }
}

/// Runs a verb that talks to the agent.
pub async fn run(context: &Context, verb: ClientVerb) -> Result<(), Failure> {
    match verb {
        ClientVerb::Join(args) => join::run(context, args).await,
        ClientVerb::Login(args) => login::run(context, args).await,
        ClientVerb::Logout(args) => login::log_out(context, args).await,
        ClientVerb::Up(network) => control::set_enabled(context, &network, true).await,
        ClientVerb::Down(network) => control::set_enabled(context, &network, false).await,
        ClientVerb::Leave(args) => control::leave(context, &args).await,
        ClientVerb::SetUrl(args) => control::set_url(context, &args).await,
        ClientVerb::RotateKey(network) => control::rotate_key(context, &network).await,
        ClientVerb::Status(network) => status::run(context, &network).await,
        ClientVerb::Peers(network) => peers::run(context, &network).await,
        ClientVerb::Ping(args) => ping::run(context, &args).await,
        ClientVerb::Netcheck(network) => netcheck::run(context, &network).await,
        ClientVerb::Events(args) => events::run(context, &args).await,
        ClientVerb::Metrics(args) => metrics::run(context, &args).await,
        ClientVerb::Top(args) => top::run(context, &args).await,
        ClientVerb::DebugBundle(args) => bundle::run(context, &args).await,
        ClientVerb::Wait(args) => wait::run(context, &args).await,
        ClientVerb::Doctor(args) => doctor::run(context, &args).await,
        ClientVerb::Env(args) => env::run(context, &args).await,
        ClientVerb::Install(args) => service::install(context, &args),
        ClientVerb::Uninstall(args) => service::uninstall(context, &args).await,
        ClientVerb::Update(args) => update::run(context, &args).await,
        ClientVerb::Completions { shell } => completions(shell),
        ClientVerb::Man { directory } => manual(&directory),
    }
}

/// Tells why a command failed, in the form asked for.
pub fn report(context: &Context, failure: &Failure, verb_prints_json: bool) {
    let Failure::Told { code, text } = failure else { return };
    output::remark(text);
    if context.output.json && verb_prints_json {
        let error = serde_json::json!({
            "error": { "name": failure.word(), "exit_code": code, "text": text }
        });
        // Nobody reads: then nobody misses it.
        let _ = context.output.value(&error);
    }
}

fn manual(directory: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory).map_err(|error| {
        Failure::new(failure::FAILED, format!("can't write to {}: {error}", directory.display()))
    })
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ria", &mut script);
    Ok(std::io::Write::write_all(&mut std::io::stdout(), &script)?)
}
