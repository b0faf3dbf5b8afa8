//! Settings of laptops that people bring by logging in.

use std::time::Duration;

use super::sources::Sources;
use crate::state::people::Role;

/// The keys of the section, as they are shown.
pub(super) const KEYS: &[&str] = &["laptops.revalidate", "laptops.role"];

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is asked of laptops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaptopSettings {
    /// After that their people log in again.
    pub revalidate: Duration,
    /// The least role by which somebody brings one, in the network where they do.
    pub role: Role,
}

impl LaptopSettings {
    pub(super) fn read(sources: &mut Sources<'_>) -> Self {
        let revalidate = sources.find(None, "RIA_LAPTOPS_REVALIDATE", Some("laptops"), "revalidate");
        let revalidate = sources.lifetime(revalidate, WEEK);
        let role = sources.find(None, "RIA_LAPTOPS_ROLE", Some("laptops"), "role");
        let role = sources.parsed_list(role, str::parse).and_then(|roles| roles.first().copied());
        Self { revalidate, role: role.unwrap_or(Role::Operator) }
    }
}
