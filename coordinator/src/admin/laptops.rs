//! Laptops: the key that a person's login makes for one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::id::NetworkId;
use ria_protocol::join_key::JoinKey;
use ria_protocol::time::UnixTime;

use super::api::Problem;
use super::server::{Admin, urls_for_keys};
use crate::audit::Actor;
use crate::registry::NewKey;
use crate::state::people::UserName;

/// The laptop fetches it at once.
const GOOD_FOR: Duration = Duration::from_secs(900);

/// A join key for one laptop of this person's.
pub(crate) async fn laptop_key(
    admin: &Arc<Admin>,
    network: NetworkId,
    owner: &UserName,
) -> Result<String, Problem> {
    let urls = urls_for_keys(admin)?;
    let expires = Some(UnixTime::from(SystemTime::now()).plus(GOOD_FOR));
    let new = NewKey {
        network,
        reusable: false,
        expires,
        tags: Vec::new(),
        ephemeral: None,
        approve: false,
        owner: Some(owner.clone()),
    };
    let actor = Actor::User(owner.clone(), None);
    let created = admin.services.registry.create_key(new, actor).await?;
    let ca_pin = admin.services.authorities.current().pin();
    Ok(JoinKey { urls, ca_pin, key_id: created.entry.id, secret: created.secret }.to_text())
}
