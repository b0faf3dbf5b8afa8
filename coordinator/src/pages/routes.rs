//! Local networks behind a node, as its page shows them.

use crate::admin::routes::{RouteState, RouteView};
use crate::cli::routes::state;

pub(super) struct RouteRow {
    /// Tells the forms of a page apart.
    pub number: usize,
    pub lan: String,
    pub state: &'static str,
    pub prefix: String,
    pub is_approved: bool,
    /// Whether a policy is in force of which no rule is about it.
    pub wants_rule: bool,
}

impl RouteRow {
    pub fn all<'r>(routes: impl Iterator<Item = &'r RouteView>) -> Vec<Self> {
        let row = |(number, route): (usize, &RouteView)| Self {
            number,
            lan: route.lan.to_string(),
            state: state(route.state),
            prefix: route.prefix.map(|prefix| prefix.to_string()).unwrap_or_default(),
            is_approved: route.state != RouteState::Proposed,
            wants_rule: route.in_policy == Some(false),
        };
        routes.enumerate().map(row).collect()
    }
}
