//! Serde helpers for fields of `a{sv}` structures, which are plain fields in JSON: D-Bus wraps each in a variant.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zbus::Type;
use zbus::wire::as_variant;

/// Writes a field.
pub fn serialize<T: Serialize + Type, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        value.serialize(serializer)
    } else {
        as_variant::serialize(value, serializer)
    }
}

/// Reads a field.
pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Type + 'de,
    D: Deserializer<'de>,
{
    if deserializer.is_human_readable() {
        T::deserialize(deserializer)
    } else {
        as_variant::deserialize(deserializer)
    }
}

/// A field that may be absent (unknown), which `D-Bus` has no value for. Use with `skip_serializing_if`.
pub mod optional {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Type, as_variant};

    /// Writes a field.
    pub fn serialize<T, S>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize + Type,
        S: Serializer,
    {
        if serializer.is_human_readable() {
            value.serialize(serializer)
        } else {
            as_variant::optional::serialize(value, serializer)
        }
    }

    /// Reads a field.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: Deserialize<'de> + Type + 'de,
        D: Deserializer<'de>,
    {
        if deserializer.is_human_readable() {
            Option::deserialize(deserializer)
        } else {
            as_variant::optional::deserialize(deserializer)
        }
    }
}
