//! What one request works on: everything, seen through what whoever asks has to do with.

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::server::Admin;
use crate::state::World;
use crate::state::people::Reach;

/// One request's desk. Networks that are out of reach can't be found from here.
#[derive(Debug)]
pub(super) struct Desk {
    admin: Arc<Admin>,
    reach: Reach,
}

impl Desk {
    /// The state, as far as it is in reach.
    pub fn world(&self) -> Arc<World> {
        self.admin.services.registry.world().within(&self.reach)
    }

    /// Which networks are in reach.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }
}

impl Deref for Desk {
    type Target = Admin;

    fn deref(&self) -> &Admin {
        &self.admin
    }
}

/// The desk as handlers take it.
#[derive(Debug)]
pub(super) struct Shared(pub Desk);

impl FromRequestParts<Arc<Admin>> for Shared {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Infallible> {
        // A request of which nobody has said so reaches nothing.
        let reach = parts.extensions.get::<Reach>().cloned().unwrap_or(Reach::Only([].into()));
        Ok(Self(Desk { admin: admin.clone(), reach }))
    }
}
