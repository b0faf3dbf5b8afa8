//! The allowed-prefix table of a network: destination to peer on the way out, source to peer on the way in.

use std::cell::Cell;
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;
use ria_protocol::prefix::Prefix;

/// Which peer (by its slot in the shard) has which addresses; the longest prefix wins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes {
    table: JointPrefixMap<IpNet, u32>,
    /// The last answer. Packets come in runs, and the address that they go to one way they come from the other way.
    last: Cell<Option<(IpAddr, Option<u32>)>>,
}

impl Routes {
    /// A table of these prefixes. The first claim of a prefix stands; later ones are returned with the slot that has it.
    pub(crate) fn build(claims: impl IntoIterator<Item = (Prefix, u32)>) -> (Self, Vec<(Prefix, u32, u32)>) {
        let mut table = JointPrefixMap::new();
        let mut conflicts = Vec::new();
        for (prefix, slot) in claims {
            match table.get(&prefix.to_net()).copied() {
                Some(owner) if owner != slot => conflicts.push((prefix, owner, slot)),
                Some(_) => {}
                None => {
                    table.insert(prefix.to_net(), slot);
                }
            }
        }
        (Self { table, last: Cell::default() }, conflicts)
    }

    /// The slot that has an address.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<u32> {
        if let Some((of, slot)) = self.last.get()
            && of == address
        {
            return slot;
        }
        let slot = self.table.get_lpm(&IpNet::from(address)).map(|(_, slot)| *slot);
        self.last.set(Some((address, slot)));
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_and_the_first_claim_stands() {
        let (routes, conflicts) = Routes::build([
            (prefix("10.213.0.7/32"), 1),
            (prefix("10.213.0.0/16"), 2),
            (prefix("fd00::7/128"), 1),
            (prefix("10.213.0.7/32"), 3),
        ]);
        // The second time the answer is the remembered one.
        for _ in 0..2 {
            assert_eq!(routes.lookup([10, 213, 0, 7].into()), Some(1));
            assert_eq!(routes.lookup([10, 213, 0, 7].into()), Some(1));
            assert_eq!(routes.lookup([10, 213, 9, 9].into()), Some(2));
            assert_eq!(routes.lookup([192, 0, 2, 1].into()), None);
            assert_eq!(routes.lookup([192, 0, 2, 1].into()), None);
            assert_eq!(routes.lookup("fd00::7".parse().unwrap()), Some(1));
            assert_eq!(routes.lookup("fd00::8".parse().unwrap()), None);
        }
        assert_eq!(conflicts, [(prefix("10.213.0.7/32"), 1, 3)]);
    }
}
