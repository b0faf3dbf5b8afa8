//! Commands about people and their tokens.

use std::collections::BTreeMap;

use clap::Subcommand;
use ria_protocol::name::Name;

use super::Common;
use super::commands::{Outcome, now};
use super::table::{list, or_dash, table};
use crate::admin::api_people::{
    AddUser, CreateToken, CreatedToken, InvitedView, LeftView, LinkView, SetRoles, TokenView, UserState,
    UserView,
};
use crate::admin::client::escaped;
use crate::duration::{Lifetime, shown, shown_relative};
use crate::state::people::{Role, Scope, UserName};

/// Roles, as they are typed.
#[derive(Debug, clap::Args)]
pub(super) struct RoleArgs {
    /// Role in all networks and in what belongs to none: viewer, operator, admin or owner
    #[arg(long, value_name = "ROLE", required_unless_present = "network_roles")]
    role: Option<Role>,
    /// Role in one network; may be given several times
    #[arg(long = "in", value_name = "NETWORK=ROLE", value_parser = network_role)]
    network_roles: Vec<(Name, Role)>,
}

fn network_role(text: &str) -> Result<(Name, Role), String> {
    let (network, role) = text.split_once('=').ok_or("write NETWORK=ROLE, such as lab=operator")?;
    Ok((network.parse().map_err(|error| format!("{network:?}: {error}"))?, role.parse()?))
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// List people
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Invite somebody: prints a link by which they set a password and an authenticator; good once, for 7 days
    #[command(
        after_help = "Examples:\n  ria-coordinator user add ada --role admin\n  ria-coordinator user add bob --in lab=operator --in field=viewer"
    )]
    Add {
        name: UserName,
        #[command(flatten)]
        roles: RoleArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Give somebody other roles than they have
    Roles {
        name: UserName,
        #[command(flatten)]
        roles: RoleArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Have somebody set another password and authenticator: prints a link, and the old ones work no more
    Reset {
        name: UserName,
        #[command(flatten)]
        common: Common,
    },
    /// Let somebody log in no more; sessions and tokens end at once
    Disable {
        name: UserName,
        #[command(flatten)]
        common: Common,
    },
    /// Let somebody log in again
    Enable {
        name: UserName,
        #[command(flatten)]
        common: Common,
    },
    /// Somebody leaves: disable them, remove their tokens, revoke their join keys, and list the nodes that joined by those
    Leave {
        name: UserName,
        #[command(flatten)]
        common: Common,
    },
    /// Forget somebody; what the audit log says of them stays
    Remove {
        name: UserName,
        #[command(flatten)]
        common: Common,
    },
    /// Print a link by which one more owner comes in; good once, for a day, until the coordinator stops
    OwnerLink {
        #[command(flatten)]
        common: Common,
    },
    /// API tokens: programs act by them for somebody
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print it; it is shown only once
    #[command(
        after_help = "Scopes: AREA:read or AREA:write, where AREA is *, networks, nodes, keys, relays, audit, users, system or metrics.\n\
        A token may never do what its person may not.\n\n\
        Example:\n  ria-coordinator user token create ada --label prometheus --scope metrics:read > token"
    )]
    Create {
        user: UserName,
        /// What it is for
        #[arg(long)]
        label: String,
        /// What it is good for; may be given several times
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// How long it is good for: 12h, 90d or never
        #[arg(long, value_name = "DURATION", default_value = "90d")]
        expires: Lifetime,
        #[command(flatten)]
        common: Common,
    },
    /// List tokens, without their secrets
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Remove a token
    Remove {
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

fn path(name: &UserName, what: &str) -> String {
    format!("/v1/users/{}{what}", escaped(name.as_str()))
}

pub(super) async fn run(command: UserCommand) -> Outcome {
    match command {
        UserCommand::List { common } => {
            let all: Vec<UserView> = common.client().get("/v1/users").await?;
            common.show(&all, |all| users_text(all))
        }
        UserCommand::Add { name, roles, common } => {
            let networks = roles.network_roles.into_iter().collect::<BTreeMap<_, _>>();
            let request = AddUser { name, everywhere: roles.role, networks };
            let invited: InvitedView = common.client().post("/v1/users", &request).await?;
            common.show(&invited, |invited| link_text(&invited.link))
        }
        UserCommand::Roles { name, roles, common } => {
            let networks = roles.network_roles.into_iter().collect::<BTreeMap<_, _>>();
            let request = SetRoles { everywhere: roles.role, networks, version: None };
            let user: UserView = common.client().post(&path(&name, "/roles"), &request).await?;
            common.show(&user, |user| users_text(std::slice::from_ref(user)))
        }
        UserCommand::Reset { name, common } => {
            let invited: InvitedView = common.client().post(&path(&name, "/reset"), &()).await?;
            common.show(&invited, |invited| link_text(&invited.link))
        }
        UserCommand::Disable { name, common } => change(&name, "/disable", &common).await,
        UserCommand::Enable { name, common } => change(&name, "/enable", &common).await,
        UserCommand::Leave { name, common } => {
            let left: LeftView = common.client().post(&path(&name, "/leave"), &()).await?;
            common.show(&left, left_text)
        }
        UserCommand::Remove { name, common } => {
            let gone: UserView = common.client().delete(&path(&name, "")).await?;
            common.show(&gone, |gone| format!("{} is forgotten.\n", gone.name))
        }
        UserCommand::OwnerLink { common } => {
            let link: LinkView = common.client().post("/v1/owner-link", &()).await?;
            common.show(&link, link_text)
        }
        UserCommand::Token(command) => token(command).await,
    }
}

async fn change(name: &UserName, what: &str, common: &Common) -> Outcome {
    let user: UserView = common.client().post(&path(name, what), &()).await?;
    common.show(&user, |user| users_text(std::slice::from_ref(user)))
}

async fn token(command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create { user, label, scopes, expires, common } => {
            let request = CreateToken { user: Some(user), label, scopes, expires_after: expires.seconds() };
            let created: CreatedToken = common.client().post("/v1/tokens", &request).await?;
            common.show(&created, |created| format!("{}\n", created.token))
        }
        TokenCommand::List { common } => {
            let all: Vec<TokenView> = common.client().get("/v1/tokens").await?;
            common.show(&all, |all| tokens_text(all))
        }
        TokenCommand::Remove { id, common } => {
            let gone: TokenView = common.client().delete(&format!("/v1/tokens/{}", escaped(&id))).await?;
            common.show(&gone, |gone| format!("The token {} ({}) works no more.\n", gone.id, gone.label))
        }
    }
}

fn link_text(link: &LinkView) -> String {
    format!("{}\n", link.link)
}

fn state(user: &UserView) -> &'static str {
    match user.state {
        UserState::Active => "active",
        UserState::Invited => "invited",
        UserState::Disabled => "disabled",
    }
}

fn users_text(all: &[UserView]) -> String {
    if all.is_empty() {
        return "Nobody can log in yet; `ria-coordinator user owner-link` prints a link for the first owner.\n".to_owned();
    }
    let row = |user: &UserView| {
        let networks: Vec<_> =
            user.networks.iter().map(|(network, role)| format!("{network}={}", role.name())).collect();
        vec![
            user.name.to_string(),
            state(user).to_owned(),
            or_dash(user.everywhere.map(|role| role.name().to_owned())),
            or_dash(networks.join(" ")),
            user.tokens.to_string(),
            shown(user.created),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(&["name", "state", "everywhere", "in networks", "tokens", "since"], &rows)
}

fn tokens_text(all: &[TokenView]) -> String {
    let row = |token: &TokenView| {
        let scopes: Vec<_> = token.scopes.iter().map(ToString::to_string).collect();
        let expires = token.expires.map_or_else(|| "never".to_owned(), |at| shown_relative(at, now()));
        vec![token.id.to_string(), token.user.to_string(), token.label.clone(), scopes.join(" "), expires]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(&["id", "user", "label", "scopes", "expires"], &rows)
}

fn left_text(left: &LeftView) -> String {
    let tokens: Vec<_> = left.tokens_removed.iter().map(|token| token.label.clone()).collect();
    let keys: Vec<_> = left.keys_revoked.iter().map(ToString::to_string).collect();
    let head = list(&[
        ("person", format!("{}, {}", left.user.name, state(&left.user))),
        ("tokens removed", or_dash(tokens.join(", "))),
        ("join keys revoked", or_dash(keys.join(", "))),
        ("laptops removed", or_dash(left.laptops_removed.join(", "))),
        ("static peers removed", or_dash(left.static_peers_removed.join(", "))),
        ("bookings taken back", or_dash(left.bookings_removed.join("; "))),
    ]);
    let head = match left.rules_left.join("\n  ") {
        none if none.is_empty() => head,
        rules => format!(
            "{head}These parts of policies name this person still; see `ria-coordinator policy edit`:\n  {rules}\n"
        ),
    };
    if left.nodes_left.is_empty() {
        return head;
    }
    let nodes = left.nodes_left.join("\n  ");
    format!(
        "{head}These nodes joined by this person's keys and are members still; remove those that were theirs:\n  {nodes}\n"
    )
}
