//! `policy`: who may begin what with whom.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::Command as Program;

use clap::Subcommand;
use ria_protocol::name::Name;

use super::commands::{Outcome, now, with_network};
use super::table::table;
use super::{Common, complain, environment};
use crate::admin::client::RequestError;
use crate::duration::{Lifetime, shown, shown_relative};
use crate::policy::api::{
    ChangePolicy, Explain, Explained, PolicyChanged, PolicyView, RuleView, VersionView, What,
};
use crate::policy::difference::Difference;
use crate::policy::words::Question;

/// Lines of a dry run that are printed; all are in its JSON.
const MOST_LINES: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Print the policy in force, or a version of it
    #[command(
        disable_version_flag = true,
        after_help = "Example:\n  ria-coordinator policy show > lab.policy"
    )]
    Show {
        #[command(flatten)]
        of: Of,
        /// This version
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// Put a policy in force; from the first one on, what no rule allows is denied
    #[command(
        after_help = "A policy with mistakes, or of which a test fails, is refused and changes nothing.\n\n\
        Examples:\n  ria-coordinator policy set --file lab.policy --dry-run\n  \
        ria-coordinator policy set --file lab.policy --note 'arms may talk to each other'\n  \
        ria-coordinator policy show | sed s/robot-3/robot-4/ | ria-coordinator policy set -"
    )]
    Set {
        /// - for standard input
        #[arg(value_name = "-", value_parser = ["-"], required_unless_present = "file", conflicts_with = "file")]
        stdin: Option<String>,
        /// The policy
        #[arg(long, value_name = "FILE")]
        file: Option<std::path::PathBuf>,
        #[command(flatten)]
        change: ChangeArgs,
        /// Refuse if the policy is another version than this one by now
        #[arg(long, value_name = "N")]
        base: Option<u64>,
    },
    /// Edit the policy in force with $VISUAL or $EDITOR
    Edit {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Run the tests of the policy in force, or of one in a file, against the members of now
    #[command(
        after_help = "Exits with 1 when one fails.\n\nExample:\n  ria-coordinator policy test lab.policy"
    )]
    Test {
        file: Option<std::path::PathBuf>,
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        common: Common,
    },
    /// Tell whether one member may begin something with another, and by which rule
    #[command(
        after_help = "Exits with 1 when it may not.\n\nExamples:\n  ria-coordinator policy explain laptop-1 robot-3 22\n  \
        ria-coordinator policy explain robot-1 robot-3 ros/7\n  ria-coordinator policy explain robot-1 robot-3\n  \
        ria-coordinator policy explain laptop-1 10.66.3.7 80"
    )]
    Explain {
        /// Who begins
        from: String,
        /// With whom; route:PREFIX or an address for devices behind a member
        to: String,
        /// tcp/22, udp/5000, icmp, ros/7, multicast/239.1.2.3:5000 [default: all that may be begun]
        port: Option<Question>,
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        common: Common,
    },
    /// List all versions: who has set them, when and why
    #[command(visible_alias = "versions")]
    History {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        common: Common,
    },
    /// Put an older version in force again, as a new one
    #[command(after_help = "Example:\n  ria-coordinator policy rollback 3")]
    Rollback {
        /// The version
        #[arg(value_name = "VERSION")]
        to: u64,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Have no policy any more: everything is allowed
    Clear {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Give access for a time: a rule that ends by itself, on the nodes, also while no coordinator is there
    #[command(after_help = "Examples:\n  ria-coordinator policy grant laptop-4 robot-3 --for 2h\n  \
        ria-coordinator policy grant tag:guest tag:arm --for 30m --allow tcp/22 --allow ros/7 --reason 'open day'")]
    Grant {
        /// Who begins: a node, tag:NAME or group:NAME
        from: String,
        /// With whom
        to: String,
        /// For how long: 30m, 2h, 7d
        #[arg(long = "for", value_name = "DURATION")]
        lasts: Lifetime,
        /// What; may be given several times
        #[arg(long, value_name = "WHAT", default_value = "any")]
        allow: Vec<String>,
        /// Why: the name of the rule
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

/// Of which network.
#[derive(Debug, clap::Args)]
pub(super) struct Of {
    /// Network; may be left out while there is one
    #[arg(long)]
    network: Option<Name>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    of: Of,
    /// Why, for the history
    #[arg(long, default_value = "")]
    note: String,
    /// Change nothing; tell who would gain and who would lose what
    #[arg(long)]
    dry_run: bool,
    /// Also where it leaves no administrator's laptop a connection to any node
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(command: PolicyCommand) -> Outcome {
    match command {
        PolicyCommand::Show { of, version, common } => show(&of, version, &common).await,
        PolicyCommand::Set { file, change, base, .. } => {
            let text = read(file.as_deref())?;
            send(What::Set { text }, base, change).await
        }
        PolicyCommand::Edit { change } => edit(change).await,
        PolicyCommand::Test { file, of, common } => test(file.as_deref(), of, &common).await,
        PolicyCommand::Explain { from, to, port, of, common } => {
            let request = Explain { network: of.network, from, to, question: port };
            let answer: Explained = common.client().post("/v1/policy/explain", &request).await?;
            Ok(common.show(&answer, explained_text)?.well(answer.allowed))
        }
        PolicyCommand::History { of, common } => {
            let path = with_network("/v1/policy/history", of.network.as_ref().map(Name::as_str));
            let all: Vec<VersionView> = common.client().get(&path).await?;
            common.show(&all, |all| history_text(all))
        }
        PolicyCommand::Rollback { to, change } => send(What::Rollback { version: to }, None, change).await,
        PolicyCommand::Clear { change } => send(What::Clear {}, None, change).await,
        PolicyCommand::Grant { from, to, lasts, allow, reason, change } => {
            let endless =
                || RequestError::Input("access for ever is no grant; put a rule into the policy".into());
            let seconds = lasts.seconds().ok_or_else(endless)?;
            let what = What::Grant { from: vec![from], to: vec![to], allow, seconds, reason };
            send(what, None, change).await
        }
    }
}

fn input(error: impl std::fmt::Display) -> RequestError {
    RequestError::Input(error.to_string())
}

fn read(file: Option<&Path>) -> Result<String, RequestError> {
    let mut text = String::new();
    match file {
        Some(path) => {
            fs::read_to_string(path).map_err(|e| input(format!("{} can't be read: {e}", path.display())))
        }
        None => io::stdin().lock().read_to_string(&mut text).map(|_| text).map_err(input),
    }
}

async fn fetch(of: &Of, version: Option<u64>, common: &Common) -> Result<PolicyView, RequestError> {
    let path = with_network("/v1/policy", of.network.as_ref().map(Name::as_str));
    let path = match version {
        Some(version) if path.contains('?') => format!("{path}&version={version}"),
        Some(version) => format!("{path}?version={version}"),
        None => path,
    };
    common.client().get(&path).await
}

async fn show(of: &Of, version: Option<u64>, common: &Common) -> Outcome {
    let view = fetch(of, version, common).await?;
    if !common.json {
        // Beside the text, which alone goes to standard output.
        let since = view.since.map_or_else(String::new, |since| format!(", since {}", shown(since)));
        complain(&match &view.text {
            Some(_) => format!("policy of {}, version {}{since}", view.network, view.version),
            None => format!("network {} has no policy: everything is allowed", view.network),
        });
        view.warnings.iter().for_each(|warning| complain(&format!("note: {warning}")));
    }
    common.show(&view, |view| view.text.clone().unwrap_or_default())
}

async fn send(what: What, base: Option<u64>, args: ChangeArgs) -> Outcome {
    let ChangeArgs { of, note, dry_run, force, common } = args;
    let request = ChangePolicy { network: of.network, what, base, note, dry_run, force };
    let made: PolicyChanged = common.client().post("/v1/policy", &request).await?;
    common.show(&made, changed_text)
}

async fn test(file: Option<&Path>, of: Of, common: &Common) -> Outcome {
    let text = match file {
        Some(path) => read(Some(path))?,
        None => {
            let none = || input("the network has no policy; name a file to test one");
            fetch(&of, None, common).await?.text.ok_or_else(none)?
        }
    };
    let what = What::Set { text };
    let (base, note) = (None, String::new());
    let request = ChangePolicy { network: of.network, what, base, note, dry_run: true, force: false };
    let made: PolicyChanged = common.client().post("/v1/policy", &request).await?;
    common.show(&made, |made| {
        let notes = made.warnings.iter().map(|warning| format!("note: {warning}\n")).collect::<String>();
        format!("{notes}{} rules, {} tests: all hold.\n", made.rules, made.tests)
    })
}

const TEMPLATE: &str = "# Who may begin what with whom; what no rule allows is denied. Manual: docs/policy.md\n\
    # [groups]\n# operators = [\"laptop-1\", \"tag:laptop\"]\n\n\
    [[rule]]\nfrom = [\"*\"]\nto = [\"*\"]\nallow = [\"any\"]\n";

async fn edit(args: ChangeArgs) -> Outcome {
    let view = fetch(&args.of, None, &args.common).await?;
    let set = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    let mut file = tempfile(view.text.as_deref().unwrap_or(TEMPLATE))?;
    let mut words = editor.split_whitespace();
    let status = Program::new(words.next().unwrap_or("vi")).args(words).arg(&file.0).status();
    let status =
        status.map_err(|e| input(format!("the editor {editor:?} can't be started ({e}); set EDITOR")))?;
    let text = read(Some(&file.0))?;
    if !status.success() || Some(&text) == view.text.as_ref() {
        return Err(input("nothing was changed"));
    }
    let sent = send(What::Set { text }, Some(view.version), args).await;
    if sent.is_err() {
        file.1 = false;
        complain(&format!("your text is kept in {}", file.0.display()));
    }
    sent
}

/// A file that is removed when it is no longer needed.
struct Draft(std::path::PathBuf, bool);

impl Drop for Draft {
    fn drop(&mut self) {
        if self.1 {
            // It may be gone already.
            let _ = fs::remove_file(&self.0);
        }
    }
}

fn tempfile(text: &str) -> Result<Draft, RequestError> {
    let path = std::env::temp_dir().join(format!("ria-policy-{}.toml", std::process::id()));
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| input(format!("{} can't be written: {e}", path.display())))?;
    Ok(Draft(path, true))
}

fn changed_text(made: &PolicyChanged) -> String {
    let mut text = difference_text(&made.difference);
    for warning in &made.warnings {
        // Writing to a string can't fail.
        let _ = writeln!(text, "note: {warning}");
    }
    let now = if made.policy {
        format!("{} rules, {} tests, all of which hold", made.rules, made.tests)
    } else {
        "no policy, so everything is allowed".to_owned()
    };
    let _ = if made.dry_run {
        writeln!(
            text,
            "Nothing was changed: network {} stays at version {}. It would have {now}.",
            made.network, made.version
        )
    } else {
        writeln!(text, "Network {} is at version {} of its policy: {now}.", made.network, made.version)
    };
    text
}

fn difference_text(difference: &Difference) -> String {
    let mut text = String::new();
    let mut left = difference.pairs + difference.device_pairs;
    for changed in difference.changed.iter().take(MOST_LINES) {
        left -= changed.count().min(left);
        let part =
            |word: &str, what: &[String]| (!what.is_empty()).then(|| format!("{word} {}", what.join(", ")));
        let parts =
            [part("gains", &changed.gains), part("loses", &changed.loses), part("keeps", &changed.keeps)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let _ = writeln!(text, "{} -> {}: {}", changed.from, changed.whom(), parts.join("; "));
    }
    if left > 0 {
        let _ = writeln!(text, "... and {left} more pairs (--json has more of them)");
    }
    if difference.changed.is_empty() {
        text += "Nobody gains or loses anything.\n";
    }
    text
}

fn rule_text(rule: &RuleView) -> String {
    let name = rule.name.as_ref().map_or_else(String::new, |name| format!(" {name:?}"));
    let valid = rule.valid.as_ref().map_or_else(String::new, |valid| {
        format!(", {valid} UTC{}", if rule.holds { "" } else { " (not now)" })
    });
    let (from, to, allow) = (rule.from.join(", "), rule.to.join(", "), rule.allow.join(", "));
    format!("  rule {}{name} (line {}): from {from} to {to}: {allow}{valid}\n", rule.number, rule.line)
}

fn explained_text(answer: &Explained) -> String {
    let rules: String = answer.rules.iter().map(rule_text).collect();
    match (&answer.question, answer.allowed) {
        (Some(question), allowed) => {
            let verdict = if allowed { "ALLOWED" } else { "DENIED" };
            format!(
                "{verdict}: {question} from {} to {}: {}.\n{rules}",
                answer.from,
                answer.whom(),
                answer.reason
            )
        }
        (None, _) => format!("From {} to {}: {}.\n{rules}", answer.from, answer.whom(), answer.reason),
    }
}

fn history_text(all: &[VersionView]) -> String {
    let now = now();
    let rows: Vec<_> = all
        .iter()
        .map(|version| {
            let state = match (version.in_force, version.policy) {
                (true, true) => "in force",
                (true, false) => "now: none",
                (false, true) => "",
                (false, false) => "none",
            };
            vec![
                version.version.to_string(),
                state.to_owned(),
                format!("{} ({})", shown(version.time), shown_relative(version.time, now)),
                version.actor.clone(),
                version.note.clone(),
            ]
        })
        .collect();
    table(&["version", "state", "since", "who", "why"], &rows)
}
