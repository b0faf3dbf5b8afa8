//! Conversations between node and coordinator as older versions held them, for the tests that hold newer ones to them.
//! How they were recorded: `README.md` beside this crate.

pub mod item;
pub mod v1;

use data_encoding::HEXLOWER_PERMISSIVE;

/// SQLite's dump of the coordinator's database before the conversation.
pub const DATABASE: &str = include_str!("../v1/database.sql");

/// The files of the coordinator's directory `identity`.
pub const IDENTITY: [(&str, &str); 3] = [
    ("ca.key", include_str!("../v1/ca.key")),
    ("ca.crt", include_str!("../v1/ca.crt")),
    ("relay.secret", include_str!("../v1/relay.secret")),
];

const CONVERSATION: &str = include_str!("../v1/conversation.txt");
const ROBOTS: &str = include_str!("../v1/robots.txt");

/// A line of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A node said this.
    Node(&'static str, Vec<u8>),
    /// The coordinator said this to a node.
    Coordinator(&'static str, Vec<u8>),
    /// The coordinator closed the connection of a node.
    End(&'static str),
    /// This was done to the coordinator.
    Done(&'static str),
}

/// A recording can't be read; nobody should have touched it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub &'static str);

/// The recorded conversation.
pub fn conversation() -> Result<Vec<Line>, Unreadable> {
    let lines = CONVERSATION.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| read_line(line).ok_or(Unreadable(line))).collect()
}

fn read_line(line: &'static str) -> Option<Line> {
    let mut words = line.split(' ');
    let (name, kind) = (words.next()?, words.next()?);
    let mut bytes = || HEXLOWER_PERMISSIVE.decode(words.next()?.as_bytes()).ok();
    Some(match (name, kind) {
        ("!", done) => Line::Done(done),
        (_, ">") => Line::Node(name, bytes()?),
        (_, "<") => Line::Coordinator(name, bytes()?),
        (_, "end") => Line::End(name),
        _ => return None,
    })
}

/// Something of a robot: `wg`, `tls` (PKCS #8) or `certificate`.
pub fn robot(name: &str, what: &str) -> Option<Vec<u8>> {
    let line = ROBOTS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.strip_prefix(what));
    HEXLOWER_PERMISSIVE.decode(line?.trim().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recording_is_what_protocol_1_says() {
        let conversation = conversation().unwrap();
        assert!(conversation.len() > 30);
        for line in conversation {
            let read = match line {
                Line::Node(_, bytes) => v1::check_node_message(&bytes).map(|item| (item, bytes)),
                Line::Coordinator(_, bytes) => {
                    v1::check_coordinator_message(&bytes).map(|item| (item, bytes))
                }
                Line::End(_) | Line::Done(_) => continue,
            };
            let (item, bytes) = read.unwrap();
            assert_eq!(item.bytes(), bytes, "it reads back to the same bytes");
        }
        assert_eq!(robot("newcomer", "wg").unwrap().len(), 32);
        assert!(robot("newcomer", "certificate").is_none() && robot("member", "certificate").is_some());
    }

    #[test]
    fn what_protocol_1_can_not_read_is_found() {
        let Some(Line::Node(_, hello)) = conversation().unwrap().into_iter().next() else { panic!() };
        use item::Item;
        type Fields = Vec<(u64, Item)>;
        let with = |change: &dyn Fn(&mut Item)| {
            let mut item = Item::read(&hello).unwrap();
            change(&mut item);
            v1::check_node_message(&item.bytes()).map(drop)
        };
        let fields = |item: &mut Item, change: &dyn Fn(&mut Fields)| {
            let Item::Array(parts) = item else { panic!() };
            let Item::Array(values) = &mut parts[1] else { panic!() };
            let Item::Map(fields) = &mut values[0] else { panic!() };
            change(fields);
        };
        assert_eq!(with(&|item| fields(item, &|fields| fields.push((99, Item::Text("new".into()))))), Ok(()));
        assert!(with(&|item| fields(item, &|fields| drop(fields.pop()))).is_err());
        assert!(
            with(&|item| {
                let Item::Array(parts) = item else { panic!() };
                parts[0] = Item::Number(7);
            })
            .is_err()
        );
    }
}
