//! The policy: its text with the mistakes at their lines, what a change would do, versions, why something is allowed, and
//! access for a time.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::frame::{Fields, Frame, Posted, Visitor, field, page, see_other};
use super::read::network_names;
use crate::admin::api::{NodeView, Problem, ProblemCode};
use crate::admin::client::escaped;
use crate::duration::shown;
use crate::policy::api::{Explained, PolicyChanged, PolicyView, VersionView};
use crate::policy::difference::Changed;
use crate::rest::gate::Gate;

/// Versions that are listed; `policy history` lists all.
const LISTED: usize = 30;

/// What a network begins with that has no policy: as it is, but said.
const BEGIN: &str = "# Who may begin what with whom. What no rule allows is denied.\n\n\
                     [[rule]]\nname = \"everything, to begin with\"\nfrom = [\"*\"]\nto = [\"*\"]\nallow = [\"any\"]\n";

struct Row {
    version: u64,
    time: String,
    actor: String,
    note: String,
    state: &'static str,
    in_force: bool,
}

struct Effect {
    from: String,
    to: String,
    gains: String,
    loses: String,
    keeps: String,
}

/// What came of asking, or of trying.
#[derive(Default)]
struct News {
    problem: String,
    /// Lines of the text in which mistakes are.
    mistakes: Vec<String>,
    /// Whether it was refused because it locks somebody out.
    locks_out: bool,
    dry: Option<Dry>,
    why: Option<Why>,
}

struct Dry {
    summary: String,
    effects: Vec<Effect>,
    more: usize,
    warnings: Vec<String>,
}

struct Why {
    allowed: bool,
    question: String,
    reason: String,
    rules: Vec<String>,
}

#[derive(Template)]
#[template(path = "policy.html")]
struct PolicyPage {
    frame: Frame,
    networks: Vec<String>,
    network: String,
    version: u64,
    since: String,
    exists: bool,
    /// Whether the version that is shown is an older one.
    older: bool,
    text: String,
    note: String,
    warnings: Vec<String>,
    versions: Vec<Row>,
    nodes: Vec<String>,
    asked: [String; 3],
    news: News,
}

/// What is typed already.
#[derive(Default)]
struct Typed {
    network: String,
    version: Option<u64>,
    text: Option<String>,
    note: String,
    asked: [String; 3],
}

fn at(path: &str, network: &str) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}network={}", escaped(network))
}

async fn build(gate: &Gate, visitor: &Visitor, typed: Typed, news: News) -> Result<PolicyPage, Problem> {
    let networks = network_names(gate, visitor).await?;
    let known = networks.contains(&typed.network);
    let network = if known { typed.network } else { networks.first().cloned().unwrap_or_default() };
    let who = &visitor.who;
    let mut page = PolicyPage {
        frame: visitor.frame("Policy", "policy"),
        networks,
        network: network.clone(),
        version: 0,
        since: String::new(),
        exists: false,
        older: false,
        text: String::new(),
        note: typed.note,
        warnings: Vec::new(),
        versions: Vec::new(),
        nodes: Vec::new(),
        asked: typed.asked,
        news,
    };
    if network.is_empty() {
        return Ok(page);
    }
    let current: PolicyView = gate.get(who, &at("/v1/policy", &network)).await?;
    let versions: Vec<VersionView> = gate.get(who, &at("/v1/policy/history", &network)).await?;
    let nodes: Vec<NodeView> = gate.get(who, &at("/v1/nodes", &network)).await?;
    let older = match typed.version.filter(|version| *version != current.version) {
        Some(version) => {
            Some(gate.get::<PolicyView>(who, &at(&format!("/v1/policy?version={version}"), &network)).await?)
        }
        None => None,
    };
    page.version = current.version;
    page.exists = current.text.is_some();
    page.since = current.since.map(shown).unwrap_or_default();
    page.warnings = current.warnings;
    page.older = older.is_some();
    let stored = older.map_or(current.text, |older| older.text);
    page.text = typed.text.or(stored).unwrap_or_else(|| BEGIN.to_owned());
    page.versions = versions.into_iter().rev().take(LISTED).map(row).collect();
    page.nodes = nodes.into_iter().map(|node| node.name.to_string()).collect();
    Ok(page)
}

fn row(version: VersionView) -> Row {
    Row {
        version: version.version,
        time: shown(version.time),
        actor: version.actor,
        note: version.note,
        state: match (version.in_force, version.policy) {
            (true, _) => "in force",
            (false, true) => "",
            (false, false) => "no policy",
        },
        in_force: version.in_force,
    }
}

async fn answer(
    gate: &Gate,
    visitor: &Visitor,
    typed: Typed,
    (status, news): (StatusCode, News),
) -> Response {
    match build(gate, visitor, typed, news).await {
        Ok(built) => page(status, &built),
        Err(problem) => visitor.problem(&problem, "/policy"),
    }
}

pub(super) async fn show(
    State(gate): State<Arc<Gate>>,
    visitor: Visitor,
    Query(query): Query<Fields>,
) -> Response {
    let text = |name: &str| field(&query, name).to_owned();
    let asked = [text("from"), text("to"), text("what")];
    let typed = Typed {
        network: text("network"),
        version: field(&query, "version").parse().ok(),
        asked: asked.clone(),
        ..Typed::default()
    };
    let mut news = News::default();
    let [from, to, what] = &asked;
    if !from.is_empty() && !to.is_empty() {
        let path = format!(
            "/v1/policy/explain?from={}&to={}&question={}",
            escaped(from),
            escaped(to),
            escaped(what)
        );
        match gate.get::<Explained>(&visitor.who, &at(&path, &typed.network)).await {
            Ok(explained) => news.why = Some(why(explained)),
            Err(problem) => news.problem = problem.message,
        }
    }
    answer(&gate, &visitor, typed, (StatusCode::OK, news)).await
}

fn why(explained: Explained) -> Why {
    let rule = |rule: crate::policy::api::RuleView| {
        let name = rule.name.map(|name| format!(" {name:?}")).unwrap_or_default();
        let valid = rule.valid.map(|valid| format!(", {valid}")).unwrap_or_default();
        format!(
            "rule {}{name} (line {}): {} to {}, {}{valid}",
            rule.number,
            rule.line,
            rule.from.join(" "),
            rule.to.join(" "),
            rule.allow.join(" ")
        )
    };
    let what = explained.question.map_or_else(|| "something".to_owned(), |question| question.to_string());
    Why {
        allowed: explained.allowed,
        question: format!("{} to {}, {what}", explained.from, explained.whom()),
        reason: explained.reason,
        rules: explained.rules.into_iter().map(rule).collect(),
    }
}

fn dry(changed: PolicyChanged) -> Dry {
    let told: Vec<Effect> = changed
        .difference
        .changed
        .iter()
        .map(|change| Effect {
            from: change.from.to_string(),
            to: change.whom(),
            gains: change.gains.join(", "),
            loses: change.loses.join(", "),
            keeps: change.keeps.join(", "),
        })
        .collect();
    let pairs = changed.difference.pairs + changed.difference.device_pairs;
    let shown_pairs: usize = changed.difference.changed.iter().map(Changed::count).sum();
    let behind = match changed.difference.device_pairs {
        0 => String::new(),
        some => format!(", {some} of them with devices behind a member"),
    };
    Dry {
        summary: format!(
            "{} rules, {} tests, all of which hold; something changes for {pairs} pairs{behind}. Nothing was changed yet.",
            changed.rules, changed.tests
        ),
        effects: told,
        more: pairs.saturating_sub(shown_pairs),
        warnings: changed.warnings,
    }
}

/// The lines of a text in which mistakes are, with what is wrong there.
fn mistakes(text: &str, message: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let told = |line: &str| {
        let number = line.trim().strip_prefix("line ")?.split(':').next()?.parse::<usize>().ok()?;
        let own = lines.get(number.checked_sub(1)?).unwrap_or(&"");
        Some(format!("{}  |  {own}", line.trim()))
    };
    message.lines().filter_map(told).collect()
}

pub(super) async fn change(State(gate): State<Arc<Gate>>, Posted { visitor, fields }: Posted) -> Response {
    let network = field(&fields, "network").to_owned();
    let (what, dry_run) = match wanted(&fields) {
        Ok(wanted) => wanted,
        Err(message) => {
            let problem = Problem { code: ProblemCode::BadRequest, message };
            return visitor.problem(&problem, &at("/policy", &network));
        }
    };
    let base = field(&fields, "version").parse::<u64>().ok();
    let note = field(&fields, "note").to_owned();
    let force = field(&fields, "force") == "yes";
    let body = json!({
        "network": network, "what": what, "base": base, "note": note, "dry_run": dry_run, "force": force,
    });
    let asked = gate.ask::<PolicyChanged>(&visitor.who, Method::POST, "/v1/policy", &body).await;
    let text = fields.get("text").map(|text| text.replace("\r\n", "\n"));
    match asked {
        Ok(_) if !dry_run => see_other(&at("/policy?done=policy", &network)),
        Ok(changed) => {
            let news = News { dry: Some(dry(changed)), ..News::default() };
            let typed = Typed { network, text, note, ..Typed::default() };
            answer(&gate, &visitor, typed, (StatusCode::OK, news)).await
        }
        Err(problem) if text.is_some() && problem.code == ProblemCode::Conflict => {
            let news = News { problem: problem.message, locks_out: true, ..News::default() };
            let typed = Typed { network, text, note, ..Typed::default() };
            answer(&gate, &visitor, typed, (StatusCode::CONFLICT, news)).await
        }
        Err(problem) if text.is_some() && problem.code == ProblemCode::BadRequest => {
            let typed_text = text.clone().unwrap_or_default();
            let mistakes = mistakes(&typed_text, &problem.message);
            let problem = if mistakes.is_empty() {
                problem.message
            } else {
                problem.message.lines().next().unwrap_or_default().to_owned()
            };
            let news = News { problem, mistakes, ..News::default() };
            let typed = Typed { network, text, note, ..Typed::default() };
            answer(&gate, &visitor, typed, (StatusCode::UNPROCESSABLE_ENTITY, news)).await
        }
        Err(problem) => visitor.problem(&problem, &at("/policy", &network)),
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split([' ', ',']).filter(|word| !word.is_empty()).collect()
}

/// What a form asks for, and whether only to be told.
fn wanted(fields: &Fields) -> Result<(Value, bool), String> {
    let text = || fields.get("text").map(|text| text.replace("\r\n", "\n")).unwrap_or_default();
    Ok(match field(fields, "deed") {
        "try" => (json!({ "set": { "text": text() } }), true),
        "set" => (json!({ "set": { "text": text() } }), false),
        "rollback" => {
            let version: u64 = field(fields, "to").parse().map_err(|_| "no version was named".to_owned())?;
            (json!({ "rollback": { "version": version } }), false)
        }
        "clear" if field(fields, "sure") == "yes" => (json!({ "clear": {} }), false),
        "clear" => return Err("tick that you are sure: without a policy everything is allowed".to_owned()),
        "grant" => {
            let hours: u64 =
                field(fields, "hours").parse().map_err(|_| "say for how many hours".to_owned())?;
            let reason = Some(field(fields, "reason")).filter(|reason| !reason.is_empty());
            let grant = json!({
                "from": words(field(fields, "from")),
                "to": words(field(fields, "to")),
                "allow": words(field(fields, "allow")),
                "seconds": hours.saturating_mul(3600),
                "reason": reason,
            });
            (json!({ "grant": grant }), false)
        }
        _ => return Err("nothing is done here".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_shown_with_their_lines() {
        let text = "[[rule]]\nfrom = 7\n";
        let message =
            "the policy has mistakes, and nothing was changed:\n  line 2: expected a list\n  no line";
        assert_eq!(mistakes(text, message), ["line 2: expected a list  |  from = 7"]);
        assert!(mistakes(text, "line 99: x").len() == 1 && mistakes(text, "line 0: x").is_empty());
    }

    #[test]
    fn forms_ask_for_what_they_say() {
        let form = |pairs: &[(&str, &str)]| -> Fields {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let (what, dry) = wanted(&form(&[("deed", "try"), ("text", "a\r\nb")])).unwrap();
        assert_eq!((what["set"]["text"].as_str(), dry), (Some("a\nb"), true));
        let grant = form(&[
            ("deed", "grant"),
            ("from", "ada"),
            ("to", "r1, r2"),
            ("allow", "tcp/22"),
            ("hours", "2"),
        ]);
        let (what, _) = wanted(&grant).unwrap();
        assert_eq!((&what["grant"]["to"], &what["grant"]["seconds"]), (&json!(["r1", "r2"]), &json!(7200)));
        assert!(wanted(&form(&[("deed", "clear")])).is_err() && wanted(&form(&[])).is_err());
    }
}
