//! `audit`: who did what, when; and what shows that the log is what it was.

use std::fmt::Write as _;

use clap::{Args, Subcommand, ValueEnum};
use ria_protocol::time::UnixTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};

use super::commands::{Outcome, now};
use super::table::table;
use super::{Common, upkeep};
use crate::admin::api::AuditView;
use crate::admin::client::{RequestError, escaped};
use crate::audit::Row;
use crate::duration::{Lifetime, shown};
use crate::evidence::SignedHead;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List the latest rows, and say whether the log is as it was written
    #[command(
        after_help = "Exits with 1 when the log was tampered with.\n\nExamples:\n  ria-coordinator audit list --limit 20\n  \
        ria-coordinator audit list --action policy --since 7d\n  ria-coordinator audit list --about robot-7 --actor uid:1000"
    )]
    List {
        /// At most so many rows, the latest ones
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Check that the whole log is as it was written, also while no coordinator runs
    #[command(
        after_help = "Exits with 1 when the log was tampered with.\n\nExamples:\n  ria-coordinator audit verify\n  \
        ria-coordinator audit verify --witness /mnt/safe/heads"
    )]
    Verify(upkeep::VerifyArgs),
    /// Print the end of the log, signed by the authority: kept elsewhere, it proves later what the log was now
    #[command(
        after_help = "Example, once a day:\n  ria-coordinator audit head | ssh safe 'cat >> ria-heads'"
    )]
    Head {
        #[command(flatten)]
        common: Common,
    },
    /// Print rows for other programs, oldest first
    #[command(after_help = "Examples:\n  ria-coordinator audit export > audit.jsonl\n  \
        ria-coordinator audit export --after 1200 --format syslog | nc -q1 loghost 514")]
    Export {
        /// How each row is written
        #[arg(long, value_enum, default_value = "jsonl")]
        format: Format,
        /// Only rows behind the one of this number
        #[arg(long, value_name = "ROW")]
        after: Option<u64>,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON object a line, with its hashes
    Jsonl,
    /// RFC 5424
    Syslog,
}

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only rows about this network
    #[arg(long)]
    network: Option<String>,
    /// Only what was done by uid:1000, node:ID or coordinator, or by any uid or node
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// Only this, as in node.joined, or all of a kind, as in node
    #[arg(long, value_name = "WHAT")]
    action: Option<String>,
    /// Only rows whose subject has this in it
    #[arg(long, value_name = "TEXT")]
    about: Option<String>,
    /// Not before: 2026-12-01, "2026-12-01 14:00" (UTC), or how long ago: 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<UnixTime>,
    /// Before: the same
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<UnixTime>,
}

fn moment(text: &str) -> Result<UnixTime, String> {
    if let Ok(Lifetime::For(ago)) = text.parse::<Lifetime>() {
        return Ok(UnixTime(now().0.saturating_sub(ago.as_secs())));
    }
    let day = Date::parse(text, format_description!("[year]-[month]-[day]"))
        .map(|day| day.with_time(Time::MIDNIGHT));
    let minute =
        || PrimitiveDateTime::parse(text, format_description!("[year]-[month]-[day] [hour]:[minute]"));
    let found = day.or_else(|_| minute()).ok().map(|local| local.assume_utc().unix_timestamp());
    let found = found.and_then(|seconds| u64::try_from(seconds).ok()).map(UnixTime);
    found.ok_or_else(|| {
        format!("{text:?} is no time; write it as 2026-12-01, \"2026-12-01 14:00\", 12h or 7d")
    })
}

impl FilterArgs {
    fn query(&self, limit: usize, after: Option<u64>) -> String {
        let mut query = format!("/v1/audit?limit={limit}");
        let texts = [
            ("network", &self.network),
            ("actor", &self.actor),
            ("action", &self.action),
            ("subject", &self.about),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                // Writing to a string can't fail.
                let _ = write!(query, "&{name}={}", escaped(value));
            }
        }
        let numbers =
            [("since", self.since.map(|t| t.0)), ("until", self.until.map(|t| t.0)), ("after", after)];
        for (name, value) in numbers {
            if let Some(value) = value {
                let _ = write!(query, "&{name}={value}");
            }
        }
        query
    }
}

pub(super) async fn run(command: AuditCommand) -> Outcome {
    match command {
        AuditCommand::List { limit, filter, common } => {
            let view: AuditView = common.client().get(&filter.query(limit, None)).await?;
            Ok(common.show(&view, audit_text)?.well(view.chain.intact))
        }
        AuditCommand::Head { common } => {
            let head: SignedHead = common.client().get("/v1/audit/head").await?;
            let line =
                serde_json::to_string(&head).map_err(|error| RequestError::Answer(error.to_string()))?;
            // One line either way, for it is kept as one.
            Common { json: false, ..common }.show(&head, |_| line + "\n")
        }
        AuditCommand::Export { format, after, filter, common } => {
            // Asked for in one piece: what is written meanwhile is not in it.
            let most = i64::MAX as usize;
            let view: AuditView = common.client().get(&filter.query(most, after)).await?;
            let lines = view.rows.iter().map(|row| match format {
                Format::Jsonl => serde_json::to_string(row).map_err(|e| RequestError::Answer(e.to_string())),
                Format::Syslog => Ok(syslog(row)),
            });
            let lines = lines.collect::<Result<Vec<String>, _>>()?;
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            Ok(Common { json: false, ..common }.show(&view, |_| text)?.well(view.chain.intact))
        }
        AuditCommand::Verify(_) => Err(RequestError::Input("verified elsewhere".to_owned())),
    }
}

fn audit_text(view: &AuditView) -> String {
    let rows: Vec<_> = view
        .rows
        .iter()
        .map(|row| {
            vec![
                row.seq.to_string(),
                shown(row.time),
                row.actor.clone(),
                row.action.clone(),
                row.subject.clone(),
                row.detail.clone(),
            ]
        })
        .collect();
    let verdict = match &view.chain.problem {
        None => format!("The chain of all {} rows is intact.\n", view.chain.length),
        Some(problem) => format!("THE LOG WAS TAMPERED WITH: {problem}.\n"),
    };
    table(&["row", "time", "who", "what", "about", "details"], &rows) + &verdict
}

/// Facility 13 (log audit), severity 5 (notice): RFC 5424, section 6.2.1.
const PRIORITY: u8 = 13 * 8 + 5;

/// A row as a message of RFC 5424. The number in the name of its data is the one for examples (RFC 5612).
fn syslog(row: &Row) -> String {
    let time = i64::try_from(row.time.0).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    let time = time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned());
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.filter(|name| !name.is_empty()).unwrap_or_else(|| "-".to_owned());
    let network = row.network.map(|network| network.to_string()).unwrap_or_default();
    let values = [
        ("seq", row.seq.to_string()),
        ("actor", row.actor.clone()),
        ("network", network),
        ("subject", row.subject.clone()),
        ("hash", String::from(row.hash)),
    ];
    let data: String = values.iter().map(|(name, value)| format!(" {name}=\"{}\"", quoted(value))).collect();
    format!("<{PRIORITY}>1 {time} {host} ria-coordinator - {} [ria@32473{data}] {}", row.action, row.detail)
}

/// Section 6.3.3: these three are escaped; and a message is one line.
fn quoted(value: &str) -> String {
    value.chars().fold(String::new(), |mut out, char| {
        match char {
            '"' | '\\' | ']' => out.extend(['\\', char]),
            _ if char.is_control() => out.push(' '),
            _ => out.push(char),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Actor, Event, Head};

    #[test]
    fn a_row_is_one_line_of_syslog_whatever_is_in_it() {
        let row = Head::START.follow(&Event {
            time: UnixTime(1_796_133_600),
            actor: Actor::Local(0),
            action: "policy.set",
            network: None,
            subject: "a \"b\" ]\n\\c".into(),
            detail: serde_json::json!({ "note": "one\ntwo" }),
        });
        let line = syslog(&row);
        assert!(line.starts_with("<109>1 2026-12-01T14:00:00Z "), "{line}");
        assert!(
            line.contains(" ria-coordinator - policy.set [ria@32473 seq=\"1\" actor=\"uid:0\""),
            "{line}"
        );
        assert!(line.contains(r#"subject="a \"b\" \] \\c""#), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn moments_are_days_minutes_or_how_long_ago() {
        assert_eq!(moment("2026-12-01 14:00"), Ok(UnixTime(1_796_133_600)));
        assert_eq!(moment("2026-12-01"), Ok(UnixTime(1_796_083_200)));
        assert!(moment("1h").unwrap() < now());
        assert!(moment("soon").unwrap_err().contains("7d"));
    }
}
