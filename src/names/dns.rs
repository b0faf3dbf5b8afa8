//! Answers of DNS (RFC 1035) about the names in a [`Table`], for systemd-resolved on this machine: one question a datagram,
//! addresses by name and names by address. Owns no socket.
//!
//! What is asked about other names is refused, so that nobody takes this for a server of anything else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{DOMAIN, Table};

/// Longest query that is looked at; one question fits many times.
pub const MAX_QUERY: usize = 512;

const HEADER: usize = 12;
const MAX_NAME: usize = 255;

/// How long an answer may be kept: addresses never change, but members come and go.
const TTL: u32 = 10;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

/// Bits of the second word: response, authoritative, and recursion desired, which is given back.
const RESPONSE: u16 = 0x8400;
const OPCODE: u16 = 0x7800;
const RECURSION_DESIRED: u16 = 0x0100;

const NXDOMAIN: u16 = 3;
const NOT_IMPLEMENTED: u16 = 4;
const REFUSED: u16 = 5;

/// A question.
struct Question {
    /// Lower case, without the dot at the end.
    name: String,
    kind: u16,
    class: u16,
    /// Where it ends in the query.
    end: usize,
}

/// The answer to a query; `None` when it is none, or more than one question.
pub fn answer(query: &[u8], table: &Table) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u16::from_be_bytes(*query.get(at..)?.first_chunk()?));
    let flags = word(2)?;
    if flags & 0x8000 != 0 || word(4)? != 1 {
        return None;
    }
    let question = question(query)?;
    let (code, records) = if flags & OPCODE != 0 {
        (NOT_IMPLEMENTED, Vec::new())
    } else if question.class != CLASS_IN {
        (REFUSED, Vec::new())
    } else {
        records(&question, table)
    };
    let has_opt = word(10)? > 0 && query.get(question.end..)?.starts_with(&opt_head());
    let mut out = Vec::with_capacity(MAX_QUERY);
    out.extend(query.get(..2)?);
    out.extend((RESPONSE | flags & RECURSION_DESIRED | code).to_be_bytes());
    for count in [1, u16::try_from(records.len()).ok()?, 0, u16::from(has_opt)] {
        out.extend(count.to_be_bytes());
    }
    out.extend(query.get(HEADER..question.end)?);
    for (kind, data) in records {
        // The name is the question's: a pointer to it.
        out.extend([0xc0, HEADER as u8]);
        out.extend(kind.to_be_bytes());
        out.extend(CLASS_IN.to_be_bytes());
        out.extend(TTL.to_be_bytes());
        out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend(data);
    }
    if has_opt {
        out.extend(opt_head());
        out.extend((MAX_QUERY as u16).to_be_bytes());
        out.extend([0; 6]);
    }
    Some(out)
}

/// The name whose address is asked for, when it may be that of a member that is not known yet.
pub fn sought(query: &[u8], table: &Table) -> Option<String> {
    answer(query, table)?;
    let Question { name, kind, class, .. } = question(query)?;
    let asks = class == CLASS_IN && [TYPE_A, TYPE_AAAA, TYPE_ANY].contains(&kind);
    (asks && table.may_come(&name)).then_some(name)
}

/// The root's name and the type with which an extension's record begins (RFC 6891).
fn opt_head() -> [u8; 3] {
    let [high, low] = TYPE_OPT.to_be_bytes();
    [0, high, low]
}

fn question(query: &[u8]) -> Option<Question> {
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Above are pointers, which a question has no use for.
        if length > 63 || name.len() + length >= MAX_NAME {
            return None;
        }
        let label = query.get(at..at + length)?;
        if !name.is_empty() {
            name.push('.');
        }
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        // A name with anything else is nobody's here; it keeps its length, so that it stays another one.
        name.extend(label.iter().map(|b| if fits(b) { char::from(b.to_ascii_lowercase()) } else { '?' }));
        at += length;
    }
    let word = |at: usize| Some(u16::from_be_bytes(*query.get(at..)?.first_chunk()?));
    Some(Question { name, kind: word(at)?, class: word(at + 2)?, end: at + 4 })
}

/// Response code, and type and data of each record.
fn records(question: &Question, table: &Table) -> (u16, Vec<(u16, Vec<u8>)>) {
    let Question { name, kind, .. } = question;
    let wants = |of: u16| *kind == of || *kind == TYPE_ANY;
    if let Some(address) = reversed(name) {
        return match table.name_of(address) {
            Some(full) if wants(TYPE_PTR) => (0, vec![(TYPE_PTR, encoded(full))]),
            Some(_) => (0, Vec::new()),
            None => (NXDOMAIN, Vec::new()),
        };
    }
    if name == DOMAIN || table.is_zone(name) || is_reverse(name) {
        return (0, Vec::new());
    }
    if !name.ends_with(DOMAIN) || !name.strip_suffix(DOMAIN).is_some_and(|rest| rest.ends_with('.')) {
        return (REFUSED, Vec::new());
    }
    let Some(addresses) = table.addresses_of(name) else { return (NXDOMAIN, Vec::new()) };
    let record = |address: &IpAddr| match address {
        IpAddr::V4(ip) => (TYPE_A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (TYPE_AAAA, ip.octets().to_vec()),
    };
    (0, addresses.iter().map(record).filter(|(of, _)| wants(*of)).collect())
}

const V4: &str = ".in-addr.arpa";
const V6: &str = ".ip6.arpa";

fn is_reverse(name: &str) -> bool {
    name.ends_with(V4) || name.ends_with(V6)
}

/// The address that a whole reverse name is of (RFC 1035 section 3.5, RFC 3596).
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(V4) {
        let octets: Vec<u8> = labels.rsplit('.').map(|label| label.parse().ok()).collect::<Option<_>>()?;
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    }
    let labels: Vec<&str> = name.strip_suffix(V6)?.rsplit('.').collect();
    if labels.len() != 32 || labels.iter().any(|label| label.len() != 1) {
        return None;
    }
    u128::from_str_radix(&labels.concat(), 16).ok().map(|bits| Ipv6Addr::from(bits).into())
}

/// The reverse domain of a prefix, as far as it ends at a label.
pub fn reverse_domain(address: IpAddr, length: u8) -> String {
    let (digits, per_label, suffix) = match address {
        IpAddr::V4(ip) => (ip.octets().map(|octet| octet.to_string()).to_vec(), 8, V4),
        IpAddr::V6(ip) => {
            let nibbles = format!("{:032x}", u128::from(ip));
            (nibbles.chars().map(String::from).collect(), 4, V6)
        }
    };
    let mut labels: Vec<String> = digits.into_iter().take(usize::from(length) / per_label).collect();
    labels.reverse();
    format!("{}{suffix}", labels.join(".")).trim_start_matches('.').to_owned()
}

/// A name in labels. Names of members and networks fit in them.
fn encoded(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len().min(63)).unwrap_or(63));
        out.extend(label.bytes().take(63));
    }
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::view;
    use super::*;
    use crate::daemon::handle::NetworkView;

    fn lab() -> Table {
        Table::of([&view("lab", "ria0", &["robot-1", "robot-2"])])
    }

    fn query(name: &str, kind: u16, with_opt: bool) -> Vec<u8> {
        let mut out = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::from(with_opt)];
        out.extend(encoded(name));
        out.extend(kind.to_be_bytes());
        out.extend(CLASS_IN.to_be_bytes());
        if with_opt {
            out.extend([0, 0, 41, 5, 0, 0, 0, 0, 0, 0, 0]);
        }
        out
    }

    /// Response code, number of answers, and data of the first.
    fn told(name: &str, kind: u16) -> (u8, u8, Vec<u8>) {
        let asked = query(name, kind, false);
        let answer = answer(&asked, &lab()).unwrap();
        assert_eq!(
            (answer[0], answer[1], answer[2]),
            (0x12, 0x34, 0x85),
            "an authoritative response to this query"
        );
        assert_eq!(answer[12..asked.len()], asked[12..], "the question comes back");
        let data = answer.get(asked.len() + 12..).unwrap_or_default().to_vec();
        (answer[3] & 0xf, answer[7], data)
    }

    #[test]
    fn names_have_their_addresses_and_addresses_their_names() {
        let (code, count, data) = told("Robot-2.LAB.ria.internal", TYPE_A);
        assert_eq!((code, count, data.len()), (0, 1, 4));
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(data).unwrap());
        assert_eq!(told("robot-2.lab.ria.internal", TYPE_AAAA).1, 1);
        assert_eq!(told("robot-2.lab.ria.internal", TYPE_ANY).1, 2);
        let reverse = reverse_domain(address.into(), 32);
        assert_eq!(told(&reverse, TYPE_PTR), (0, 1, encoded("robot-2.lab.ria.internal")));
        let six = reverse_domain("fd00::2".parse().unwrap(), 128);
        assert_eq!(told(&six, TYPE_PTR).2, encoded("robot-2.lab.ria.internal"));
    }

    #[test]
    fn what_there_is_not_is_told_apart_from_what_is_nobodys_business_here() {
        assert_eq!(told("robot-9.lab.ria.internal", TYPE_A).0, NXDOMAIN as u8);
        assert_eq!(told("robot-2.lab.ria.internal", 15), (0, 0, vec![]), "a name without mail servers");
        assert_eq!(told("robot-1.lab.ria.internal", TYPE_AAAA).1, 0, "it has no such address");
        assert_eq!(told("lab.ria.internal", TYPE_A), (0, 0, vec![]));
        assert_eq!(told("7.7.7.10.in-addr.arpa", TYPE_PTR).0, NXDOMAIN as u8);
        for other in ["example.org", "notria.internal", "internal", "", "robot-2"] {
            assert_eq!(told(other, TYPE_A).0, REFUSED as u8, "{other}");
        }
    }

    #[test]
    fn extensions_are_answered_and_what_is_no_query_is_not() {
        let with_opt = answer(&query("robot-2.lab.ria.internal", TYPE_A, true), &lab()).unwrap();
        assert_eq!((with_opt[11], &with_opt[with_opt.len() - 11..with_opt.len() - 8]), (1, &[0, 0, 41][..]));
        let mut response = query("robot-2.lab.ria.internal", TYPE_A, false);
        response[2] |= 0x80;
        assert_eq!(answer(&response, &lab()), None, "two servers would answer each other for ever");
        let mut pointer = query("x", TYPE_A, false);
        pointer[12] = 0xc0;
        assert_eq!(answer(&pointer, &lab()), None);
        let mut status = query("robot-2.lab.ria.internal", TYPE_A, false);
        status[2] |= 0x10;
        assert_eq!(answer(&status, &lab()).unwrap()[3] & 0xf, NOT_IMPLEMENTED as u8);
    }

    #[test]
    fn a_name_that_may_come_is_told() {
        let mut network = view("lab", "ria0", &["robot-1", "robot-2"]);
        let sought = |network: &NetworkView, name: &str, kind| {
            super::sought(&query(name, kind, false), &Table::of([network]))
        };
        assert_eq!(sought(&network, "robot-7.lab.ria.internal", TYPE_A), None, "all members are known");
        network.on_demand = true;
        let name = "robot-7.lab.ria.internal";
        assert_eq!(sought(&network, name, TYPE_A).as_deref(), Some(name));
        assert_eq!(sought(&network, name, TYPE_AAAA).as_deref(), Some(name));
        for (other, kind) in [
            ("robot-2.lab.ria.internal", TYPE_A),
            ("lab.ria.internal", TYPE_A),
            ("a.b.lab.ria.internal", TYPE_A),
            ("robot-7.field.ria.internal", TYPE_A),
            ("example.org", TYPE_A),
            (name, TYPE_PTR),
        ] {
            assert_eq!(sought(&network, other, kind), None, "{other}");
        }
    }

    #[test]
    fn a_prefix_has_the_reverse_domain_that_holds_it() {
        let domain = |ip: &str, length| reverse_domain(ip.parse().unwrap(), length);
        assert_eq!(domain("10.213.0.7", 16), "213.10.in-addr.arpa");
        assert_eq!(domain("10.213.0.7", 20), "213.10.in-addr.arpa");
        assert_eq!(domain("fd12:3456:789a::1", 64), "0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa");
    }

    proptest! {
        #[test]
        fn an_answer_is_never_to_more_than_was_asked(query in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(answer) = answer(&query, &lab()) {
                prop_assert!(answer.len() <= MAX_QUERY && answer[..2] == query[..2]);
                prop_assert!(super::answer(&answer, &lab()).is_none());
            }
        }
    }
}
