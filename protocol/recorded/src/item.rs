//! CBOR without a schema: a tree in which parts can be replaced without changing anything else.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// A data item of the kinds that Ria's messages are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A number.
    Number(u64),
    /// A truth value.
    Bool(bool),
    /// Absent, where something must stand.
    Null,
    /// A byte string.
    Bytes(Vec<u8>),
    /// A text.
    Text(String),
    /// An array.
    Array(Vec<Item>),
    /// A map with numbers as keys, in their order.
    Map(Vec<(u64, Item)>),
}

impl Item {
    /// Reads bytes that are one item.
    pub fn read(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        let mut decoder = Decoder::new(bytes);
        let item = read(&mut decoder)?;
        if decoder.position() == bytes.len() {
            Ok(item)
        } else {
            Err(minicbor::decode::Error::message("bytes are left over"))
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        // A vector takes any bytes.
        let _ = write(self, &mut encoder);
        encoder.into_writer()
    }

    /// Puts other bytes in the place of these, also within longer byte strings if both are of one length.
    pub fn replace(&mut self, old: &[u8], new: &[u8]) {
        match self {
            Self::Bytes(bytes) if bytes == old => *bytes = new.to_vec(),
            Self::Bytes(bytes) if old.len() == new.len() && bytes.len() > old.len() => {
                for at in 0..=bytes.len() - old.len() {
                    if let Some(part) = bytes.get_mut(at..at + old.len()).filter(|part| *part == old) {
                        part.copy_from_slice(new);
                    }
                }
            }
            Self::Array(items) => items.iter_mut().for_each(|item| item.replace(old, new)),
            Self::Map(entries) => entries.iter_mut().for_each(|(_, item)| item.replace(old, new)),
            Self::Bytes(_) | Self::Number(_) | Self::Bool(_) | Self::Null | Self::Text(_) => {}
        }
    }

    /// What stands under a key, or at a place in an array.
    pub fn at(&self, key: u64) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(k, _)| *k == key).map(|(_, item)| item),
            Self::Array(items) => items.get(usize::try_from(key).ok()?),
            Self::Number(_) | Self::Bool(_) | Self::Null | Self::Bytes(_) | Self::Text(_) => None,
        }
    }

    /// Puts something else where a way leads to; nothing happens where it leads nowhere.
    pub fn set(&mut self, way: &[u64], item: Self) {
        let Some((key, rest)) = way.split_first() else {
            *self = item;
            return;
        };
        let place = match self {
            Self::Map(entries) => entries.iter_mut().find(|(k, _)| k == key).map(|(_, inner)| inner),
            Self::Array(items) => usize::try_from(*key).ok().and_then(|key| items.get_mut(key)),
            Self::Number(_) | Self::Bool(_) | Self::Null | Self::Bytes(_) | Self::Text(_) => None,
        };
        if let Some(place) = place {
            place.set(rest, item);
        }
    }

    /// The same along a way.
    pub fn find(&self, way: &[u64]) -> Option<&Self> {
        way.iter().try_fold(self, |item, key| item.at(*key))
    }

    /// Its bytes, if it is a byte string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// Its number, if it is one.
    pub fn as_number(&self) -> Option<u64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }
}

fn read(decoder: &mut Decoder<'_>) -> Result<Item, minicbor::decode::Error> {
    let kind = decoder.datatype()?;
    Ok(if matches!(kind, Type::U8 | Type::U16 | Type::U32 | Type::U64) {
        Item::Number(decoder.u64()?)
    } else if kind == Type::Bool {
        Item::Bool(decoder.bool()?)
    } else if kind == Type::Null {
        decoder.null()?;
        Item::Null
    } else if kind == Type::Bytes {
        Item::Bytes(decoder.bytes()?.to_vec())
    } else if kind == Type::String {
        Item::Text(decoder.str()?.to_owned())
    } else if kind == Type::Array {
        let length = decoder.array()?.unwrap_or(0);
        Item::Array((0..length).map(|_| read(decoder)).collect::<Result<_, _>>()?)
    } else if kind == Type::Map {
        let length = decoder.map()?.unwrap_or(0);
        Item::Map((0..length).map(|_| Ok((decoder.u64()?, read(decoder)?))).collect::<Result<_, _>>()?)
    } else {
        return Err(minicbor::decode::Error::message(format!("{kind} has no place in a message")));
    })
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn write(item: &Item, encoder: &mut Encoder<Vec<u8>>) -> Written {
    match item {
        Item::Number(number) => drop(encoder.u64(*number)?),
        Item::Bool(truth) => drop(encoder.bool(*truth)?),
        Item::Null => drop(encoder.null()?),
        Item::Bytes(bytes) => drop(encoder.bytes(bytes)?),
        Item::Text(text) => drop(encoder.str(text)?),
        Item::Array(items) => {
            encoder.array(items.len() as u64)?;
            items.iter().try_for_each(|item| write(item, encoder))?;
        }
        Item::Map(entries) => {
            encoder.map(entries.len() as u64)?;
            for (key, item) in entries {
                encoder.u64(*key)?;
                write(item, encoder)?;
            }
        }
    }
    Ok(())
}
