//! Protocol 1 as its readers know it: what they need is there, what they can't read is not. Fields that they don't know
//! they pass over; a variant that they don't know makes them give up.

use crate::item::Item;

/// What has to stand at a place.
enum Shape {
    Number,
    Bool,
    /// So many bytes; 0 stands for any number.
    Bytes(usize),
    Text,
    /// May be left out.
    Optional(&'static Shape),
    List(&'static Shape),
    /// A map with these keys, and others.
    Fields(&'static [(u64, Shape)]),
    /// `[index, [values]]`.
    Variants(&'static [&'static [Shape]]),
    /// A number up to this.
    Index(u64),
}

use Shape::{Bool, Bytes, Fields, Index, List, Number, Optional, Text, Variants};

const ID: Shape = Bytes(10);
const KEY: Shape = Bytes(32);
const ANY: Shape = Bytes(0);

const ADDRESS: Shape = Variants(&[&[Bytes(4), Number], &[Bytes(16), Number]]);
const CANDIDATE: Shape = Fields(&[(0, Index(2)), (1, ADDRESS)]);
const LIVE: Shape = Fields(&[(0, ID), (1, Bool), (2, Optional(&ID)), (3, List(&CANDIDATE))]);
const RECORD: Shape = Fields(&[(0, ANY), (1, Optional(&Bytes(64)))]);
const MEMBER: Shape = Fields(&[(0, RECORD), (1, Text), (2, Index(2))]);
const NETWORK: Shape = Fields(&[(0, ID), (1, Text), (2, ANY), (3, ANY), (4, Number), (5, List(&KEY))]);
const PATCH: Shape = Variants(&[&[NETWORK], &[MEMBER], &[ID]]);
const CERTIFICATE: Shape = Fields(&[(0, ANY), (1, List(&ANY)), (2, Number)]);
const RELAY: Shape =
    Fields(&[(0, Text), (1, Variants(&[&[], &[Text]])), (2, Number), (3, Text), (4, Text), (5, Number)]);

const NODE_MESSAGE: Shape = Variants(&[
    // Hello
    &[Fields(&[(0, Number), (1, Number), (2, Text)])],
    // Enrol
    &[Fields(&[(0, Bytes(5)), (1, Bytes(16)), (2, Text), (3, Bool), (4, KEY), (5, ANY), (6, KEY), (7, ID)])],
    // Resume
    &[Fields(&[(0, ID), (1, ID), (2, Optional(&Number)), (3, ID)])],
    // Ack, Report, Renew, Leave
    &[Number],
    &[List(&CANDIDATE)],
    &[ANY],
    &[],
]);

const COORDINATOR_MESSAGE: Shape = Variants(&[
    // Welcome
    &[Fields(&[(0, Number), (1, Text), (2, KEY), (3, Number)])],
    // Refused
    &[Fields(&[(0, Index(13)), (1, Text)])],
    // Enrolled
    &[Fields(&[(0, ID), (1, ID), (2, Text), (3, CERTIFICATE), (4, Text)])],
    // Snapshot
    &[Fields(&[(0, Number), (1, NETWORK), (2, List(&MEMBER))])],
    // Patches
    &[Fields(&[(0, Number), (1, Number), (2, List(&PATCH))])],
    // Live
    &[Fields(&[(0, Bool), (1, List(&LIVE))])],
    // Relays, Renewed, Drain, Left
    &[List(&RELAY)],
    &[CERTIFICATE],
    &[Number],
    &[],
]);

/// Whether a coordinator of protocol 1 can read this message of a node.
pub fn check_node_message(bytes: &[u8]) -> Result<Item, String> {
    check_message(bytes, &NODE_MESSAGE)
}

/// Whether a node of protocol 1 can read this message of a coordinator.
pub fn check_coordinator_message(bytes: &[u8]) -> Result<Item, String> {
    check_message(bytes, &COORDINATOR_MESSAGE)
}

fn check_message(bytes: &[u8], shape: &Shape) -> Result<Item, String> {
    let item = Item::read(bytes).map_err(|error| error.to_string())?;
    check(&item, shape).map_err(|problem| format!("{problem} in {item:?}"))?;
    Ok(item)
}

fn check(item: &Item, shape: &Shape) -> Result<(), String> {
    match (shape, item) {
        (Number, Item::Number(_)) | (Bool, Item::Bool(_)) | (Text, Item::Text(_)) => Ok(()),
        (Bytes(length), Item::Bytes(bytes)) if *length == 0 || *length == bytes.len() => Ok(()),
        (Index(last), Item::Number(index)) if index <= last => Ok(()),
        (Optional(_), Item::Null) => Ok(()),
        (Optional(inner), _) => check(item, inner),
        (List(inner), Item::Array(items)) => items.iter().try_for_each(|item| check(item, inner)),
        (Fields(fields), Item::Map(_)) => fields.iter().try_for_each(|(key, shape)| match item.at(*key) {
            Some(item) => check(item, shape).map_err(|problem| format!("field {key}: {problem}")),
            None if matches!(shape, Optional(_)) => Ok(()),
            None => Err(format!("field {key} is missing")),
        }),
        (Variants(variants), Item::Array(items)) => check_variant(items, variants),
        _ => Err(format!("{item:?} is not what is expected")),
    }
}

fn check_variant(items: &[Item], variants: &[&[Shape]]) -> Result<(), String> {
    let [Item::Number(index), Item::Array(values)] = items else { return Err("not a variant".into()) };
    let place = usize::try_from(*index).ok();
    let shapes = place.and_then(|place| variants.get(place)).ok_or(format!("variant {index} is new"))?;
    for (place, shape) in shapes.iter().enumerate() {
        let value = values.get(place).ok_or(format!("value {place} of variant {index} is missing"))?;
        check(value, shape).map_err(|problem| format!("variant {index}: {problem}"))?;
    }
    Ok(())
}
