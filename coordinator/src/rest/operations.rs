//! The table of operations: what each is about, who may do it, and what it takes and gives. What is not in it can't be
//! reached over the network, and the OpenAPI document is made of it.

use axum::http::Method;

use crate::state::people::{Area, Role};

/// Where a role has to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In some network; whoever has it only in some sees and changes only these.
    Somewhere,
    /// In all.
    Everywhere,
}

/// What an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    One(&'static str),
    Many(&'static str),
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    pub method: Method,
    /// Below `/api`.
    pub path: &'static str,
    pub id: &'static str,
    pub summary: &'static str,
    pub area: Area,
    pub least: Role,
    pub at: Where,
    /// Schema of the body, if it takes one.
    pub takes: Option<&'static str>,
    pub gives: Gives,
    /// Parameters of the query.
    pub query: &'static [&'static str],
}

impl Operation {
    /// Whether it changes something.
    pub fn writes(&self) -> bool {
        self.method != Method::GET
    }

    fn matches(&self, path: &str) -> bool {
        let (mut wanted, mut given) = (self.path.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {}
                (Some(wanted), Some(given)) if wanted == given => {}
                (_, _) => return false,
            }
        }
    }
}

const NETWORK: &[&str] = &["network"];

macro_rules! operations {
    ($($method:ident $path:literal $id:literal $summary:literal, $area:ident, $least:ident $at:ident,
       $($takes:literal)? => $gives:ident $schema:literal, $query:expr;)*) => {
        &[$(Operation {
            method: Method::$method,
            path: $path,
            id: $id,
            summary: $summary,
            area: Area::$area,
            least: Role::$least,
            at: Where::$at,
            takes: [$($takes)?].first().copied(),
            gives: Gives::$gives($schema),
            query: $query,
        }),*]
    };
}

/// All of them.
pub static OPERATIONS: &[Operation] = operations! {
    GET "/v1/networks" "listNetworks" "Lists networks", Networks, Viewer Somewhere, => Many "Network", &[];
    POST "/v1/networks" "createNetwork" "Makes a network", Networks, Admin Everywhere, "CreateNetwork" => One "Network", &[];
    GET "/v1/networks/{name}" "showNetwork" "Shows a network", Networks, Viewer Somewhere, => One "Network", &[];
    POST "/v1/networks/{name}/peers" "setPeers" "Changes of whom the members of a network are told", Networks, Admin Everywhere, "SetPeers" => One "Network", &[];
    POST "/v1/networks/{name}/multicast" "setMulticast" "Has a network carry other multicast groups beside discovery", Networks, Admin Everywhere, "SetMulticast" => One "Network", &[];
    GET "/v1/nodes" "listNodes" "Lists nodes and static peers", Nodes, Viewer Somewhere, => Many "Node", NETWORK;
    GET "/v1/nodes/{node}" "showNode" "Shows a node", Nodes, Viewer Somewhere, => One "Node", NETWORK;
    DELETE "/v1/nodes/{node}" "removeNode" "Removes a node for good", Nodes, Admin Somewhere, => One "Node", NETWORK;
    POST "/v1/nodes/{node}/rename" "renameNode" "Gives a node another name", Nodes, Operator Somewhere, "Rename" => One "Node", NETWORK;
    POST "/v1/nodes/{node}/tag" "tagNode" "Adds and removes tags", Nodes, Operator Somewhere, "Tag" => One "Node", NETWORK;
    POST "/v1/nodes/{node}/disable" "disableNode" "Keeps a node out for the time being", Nodes, Operator Somewhere, => One "Node", NETWORK;
    POST "/v1/nodes/{node}/enable" "enableNode" "Lets a disabled node take part again", Nodes, Operator Somewhere, => One "Node", NETWORK;
    GET "/v1/nodes/{node}/history" "nodeHistory" "Shows what has happened to a node's links since the coordinator was started, oldest first", Nodes, Viewer Somewhere, => Many "Happened", NETWORK;
    GET "/v1/links" "listLinks" "Lists how members reach each other, as they tell", Nodes, Viewer Somewhere, => Many "Link", &["network", "node"];
    GET "/v1/pending" "listPending" "Lists nodes that wait for approval", Nodes, Viewer Somewhere, => Many "Pending", NETWORK;
    POST "/v1/pending/{node}/approve" "approveNode" "Lets a waiting node in", Nodes, Operator Somewhere, "Approve" => One "Node", NETWORK;
    POST "/v1/pending/{node}/reject" "rejectNode" "Does not let a waiting node in", Nodes, Operator Somewhere, => One "Pending", NETWORK;
    POST "/v1/static-peers" "addStaticPeer" "Adds a device with stock WireGuard", Nodes, Admin Somewhere, "AddStatic" => One "Static", &[];
    POST "/v1/static-peers/{node}/gateway" "setGateway" "Gives a device with stock WireGuard another gateway, or none", Nodes, Admin Somewhere, "StaticWay" => One "Static", NETWORK;
    GET "/v1/routes" "listRoutes" "Lists local networks behind nodes", Nodes, Viewer Somewhere, => Many "Route", NETWORK;
    POST "/v1/nodes/{node}/routes/approve" "approveRoute" "Has members reach a local network behind a node", Nodes, Admin Somewhere, "ApproveRoute" => One "Route", NETWORK;
    POST "/v1/nodes/{node}/routes/withdraw" "withdrawRoute" "Has nobody reach it any more", Nodes, Admin Somewhere, "WithdrawRoute" => One "Route", NETWORK;
    GET "/v1/keys" "listKeys" "Lists join keys, without their secrets", Keys, Viewer Somewhere, => Many "Key", NETWORK;
    POST "/v1/keys" "createKey" "Makes a join key, which is shown only once", Keys, Operator Somewhere, "CreateKey" => One "CreatedKey", &[];
    GET "/v1/keys/{id}" "showKey" "Shows a join key and who has used it", Keys, Viewer Somewhere, => One "KeyDetail", &[];
    POST "/v1/keys/{id}/revoke" "revokeKey" "Revokes a join key", Keys, Operator Somewhere, => One "Key", &[];
    GET "/v1/policy" "showPolicy" "Shows a network's policy, or a version of it", Policies, Viewer Somewhere, => One "Policy", &["network", "version"];
    PUT "/v1/policy" "putPolicy" "Makes a text the policy, or tells what would come of it; takes If-Match", Policies, Admin Somewhere, "PutPolicy" => One "PolicyChanged", &[];
    POST "/v1/policy" "changePolicy" "Sets, grants for a time, rolls back or clears; or tells what would come of it; takes If-Match", Policies, Admin Somewhere, "ChangePolicy" => One "PolicyChanged", &[];
    GET "/v1/policy/history" "listPolicies" "Lists versions of a policy, oldest first", Policies, Viewer Somewhere, => Many "PolicyVersion", NETWORK;
    GET "/v1/policy/explain" "explainPolicy" "Tells whether a node may begin something with another, and why", Policies, Viewer Somewhere, => One "Explained", &["network", "from", "to", "question"];
    GET "/v1/relays" "listRelays" "Lists relays and what they have to do", Relays, Viewer Everywhere, => Many "Relay", &[];
    POST "/v1/standalone-relays" "addRelay" "Expects a stand-alone relay; its key is shown only once", Relays, Admin Everywhere, "AddRelay" => One "AddedRelay", &[];
    DELETE "/v1/relays/{name}" "removeRelay" "Removes a relay", Relays, Admin Everywhere, => Many "Relay", &[];
    GET "/v1/urls" "listUrls" "Lists where nodes find the coordinator", System, Viewer Everywhere, => Many "Url", &[];
    POST "/v1/urls" "addUrl" "Tells nodes of another URL", System, Admin Everywhere, "UrlRequest" => Many "Url", &[];
    POST "/v1/urls/remove" "removeUrl" "Takes away a URL that was added", System, Admin Everywhere, "UrlRequest" => Many "Url", &[];
    GET "/v1/ca" "listAuthorities" "Lists certification authorities", System, Viewer Everywhere, => Many "Authority", &[];
    GET "/v1/audit" "listAudit" "Shows the audit log, and whether it is as it was written", Audit, Admin Somewhere, => One "Audit", &["network", "limit", "actor", "action", "subject", "since", "until", "after", "whole"];
    GET "/v1/audit/head" "auditHead" "The end of the audit log, signed", Audit, Admin Everywhere, => One "SignedHead", &[];
    GET "/v1/users" "listUsers" "Lists people", Users, Owner Everywhere, => Many "User", &[];
    POST "/v1/users" "addUser" "Invites somebody", Users, Owner Everywhere, "AddUser" => One "Invited", &[];
    GET "/v1/users/{name}" "showUser" "Shows somebody", Users, Owner Everywhere, => One "User", &[];
    DELETE "/v1/users/{name}" "removeUser" "Removes somebody and their tokens", Users, Owner Everywhere, => One "User", &[];
    POST "/v1/users/{name}/roles" "setRoles" "Gives somebody other roles", Users, Owner Everywhere, "SetRoles" => One "User", &[];
    POST "/v1/users/{name}/reset" "resetUser" "Has somebody set another password, by a link", Users, Owner Everywhere, => One "Invited", &[];
    POST "/v1/users/{name}/disable" "disableUser" "Lets somebody log in no more", Users, Owner Everywhere, => One "User", &[];
    POST "/v1/users/{name}/enable" "enableUser" "Lets somebody log in again", Users, Owner Everywhere, => One "User", &[];
    POST "/v1/users/{name}/leave" "userLeaves" "Takes back everything of somebody who leaves", Users, Owner Everywhere, => One "Left", &[];
    GET "/v1/tokens" "listTokens" "Lists one's own tokens; for owners, all", Users, Viewer Somewhere, => Many "Token", &[];
    POST "/v1/tokens" "createToken" "Makes a token for oneself; not for tokens", Users, Viewer Somewhere, "CreateToken" => One "CreatedToken", &[];
    DELETE "/v1/tokens/{id}" "removeToken" "Removes a token", Users, Viewer Somewhere, => One "Token", &[];
};

/// The operation of a request, or whether there is one by another method.
pub fn find(method: &Method, path: &str) -> Result<&'static Operation, Option<&'static Operation>> {
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    let mut here = OPERATIONS.iter().filter(|operation| operation.matches(path));
    let by_method = here.clone().find(|operation| operation.method == *wanted);
    by_method.ok_or_else(|| here.next())
}

/// The methods that a path takes, as the header `Allow` lists them.
pub fn allowed(path: &str) -> String {
    let here = OPERATIONS.iter().filter(|operation| operation.matches(path));
    let mut methods: Vec<&str> = here.map(|operation| operation.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_method_and_path() {
        let id = |method: Method, path: &str| find(&method, path).map(|o| o.id).map_err(|o| o.is_some());
        assert_eq!(id(Method::GET, "/v1/nodes"), Ok("listNodes"));
        assert_eq!(id(Method::HEAD, "/v1/nodes/robot-7"), Ok("showNode"));
        assert_eq!(id(Method::DELETE, "/v1/nodes/robot-7"), Ok("removeNode"));
        assert_eq!(id(Method::PUT, "/v1/nodes"), Err(true));
        assert_eq!(allowed("/v1/nodes/robot-7"), "GET, DELETE, HEAD");
        for path in
            ["/v1/nodes/", "/v1/backup", "/v1/owner-link", "/v1/ca/roll", "/v1", "", "/v1/nodes/a/b/c"]
        {
            assert!(id(Method::POST, path) == Err(false), "{path}");
        }
    }

    #[test]
    fn what_changes_something_is_for_operators_at_least_but_for_own_tokens() {
        for operation in OPERATIONS.iter().filter(|o| o.writes()) {
            assert!(
                operation.least >= Role::Operator || operation.path.starts_with("/v1/tokens"),
                "{}",
                operation.id
            );
        }
        for operation in
            OPERATIONS.iter().filter(|o| o.area == Area::Users && !o.path.starts_with("/v1/tokens"))
        {
            assert_eq!((operation.least, operation.at), (Role::Owner, Where::Everywhere), "{}", operation.id);
        }
    }

    #[test]
    fn identities_are_unique() {
        let mut ids: Vec<_> = OPERATIONS.iter().map(|o| o.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), OPERATIONS.len());
    }
}
