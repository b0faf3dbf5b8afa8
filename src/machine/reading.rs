//! Reads properties of objects of another program, all of an interface at once.

use std::collections::HashMap;

use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant};

/// The properties of one interface of an object.
pub struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    /// Asks for them.
    pub async fn of(
        connection: &Connection,
        name: &'static str,
        path: &ObjectPath<'_>,
        interface: &'static str,
    ) -> zbus::Result<Self> {
        let proxy = PropertiesProxy::builder(connection).destination(name).path(path).build().await?;
        Ok(Self(proxy.get_all(InterfaceName::from_static_str(interface)?).await?))
    }

    /// One of them, when it is there and of this kind.
    pub fn get<T: TryFrom<OwnedVariant>>(&self, name: &str) -> Option<T> {
        T::try_from(self.0.get(name)?.try_clone().ok()?).ok()
    }

    /// An object that one of them names; `/` names none.
    pub fn object(&self, name: &str) -> Option<OwnedObjectPath> {
        self.get::<OwnedObjectPath>(name).filter(|path| path.as_str() != "/")
    }
}
