//! What proves from outside that the audit log is what it was: its head, signed by the authority and kept elsewhere.
//!
//! The chain of hashes shows that no row was changed by itself. Whoever can write the database could write the whole chain
//! anew; then it is intact and other than what was seen before. A head that was kept elsewhere commits to all rows up to it,
//! and its signature says that it was this coordinator's.

use data_encoding::BASE64;
use ria_protocol::keys::SpkiHash;
use ria_protocol::time::UnixTime;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::audit::{ChainHash, Head, Row};
use crate::state::World;
use crate::store::{Store, StoreError};
use crate::tls::authority::Authority;

const CONTEXT: &[u8] = b"ria audit head v1\0";

/// What stands before the point in the public key (SPKI, DER) of P-256.
const P256_POINT: usize = 65;

/// Claims of one file that are looked at; of more, the latest.
pub const MOST_CLAIMS: usize = 10_000;

/// Problems, and notes, that are told.
const MOST_TOLD: usize = 20;

/// The end of the log at some time, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    pub epoch: u32,
    pub seq: u64,
    pub hash: ChainHash,
    pub time: UnixTime,
    /// SHA-256 of the public key, as in join keys.
    pub authority: SpkiHash,
    /// SubjectPublicKeyInfo, DER, base64.
    pub public_key: String,
    /// ECDSA on P-256 with SHA-256, ASN.1, base64.
    pub signature: String,
}

impl SignedHead {
    /// The present one.
    pub fn sign(authority: &Authority, world: &World, time: UnixTime) -> Result<Self, rcgen::Error> {
        let Head { seq, hash } = world.audit_head;
        let mut made = Self {
            epoch: world.epoch().number,
            seq,
            hash,
            time,
            authority: authority.pin(),
            public_key: authority.spkis().next().map(|spki| BASE64.encode(spki)).unwrap_or_default(),
            signature: String::new(),
        };
        made.signature = BASE64.encode(&authority.sign_statement(&made.statement())?);
        Ok(made)
    }

    fn statement(&self) -> Vec<u8> {
        let numbers = [self.epoch.into(), self.seq, self.time.0].map(u64::to_be_bytes).concat();
        [CONTEXT, &numbers, &self.hash.bytes()].concat()
    }

    /// Whether it was signed by the authority that it names.
    pub fn is_authentic(&self) -> bool {
        let decoded = |text: &str| BASE64.decode(text.as_bytes()).ok();
        let (Some(spki), Some(signature)) = (decoded(&self.public_key), decoded(&self.signature)) else {
            return false;
        };
        let Some(point) = spki.len().checked_sub(P256_POINT).and_then(|at| spki.get(at..)) else {
            return false;
        };
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        SpkiHash::of(&spki) == self.authority && key.verify(&self.statement(), &signature).is_ok()
    }
}

/// What a line of a witness' file says: this row was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub seq: u64,
    pub hash: ChainHash,
    /// Of a signed head.
    pub head: Option<SignedHead>,
}

/// Reads a file of signed heads and exported rows, one JSON object a line, in any order.
pub fn claims(text: &str) -> Result<Vec<Claim>, String> {
    let mut all = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let claim = match (serde_json::from_str::<SignedHead>(line), serde_json::from_str::<Row>(line)) {
            (Ok(head), _) => Claim { seq: head.seq, hash: head.hash, head: Some(head) },
            (Err(_), Ok(row)) if row.is_whole() => Claim { seq: row.seq, hash: row.hash, head: None },
            (Err(_), Ok(row)) => {
                return Err(format!("line {number}: row {} does not fit its own hash", row.seq));
            }
            (Err(_), Err(_)) => {
                return Err(format!(
                    "line {number} is neither a head (ria-coordinator audit head) nor a row (audit export)"
                ));
            }
        };
        all.push(claim);
    }
    all.sort_by_key(|claim| claim.seq);
    let surplus = all.len().saturating_sub(MOST_CLAIMS);
    all.drain(..surplus);
    Ok(all)
}

/// What comes of claims.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// Claims that were looked at.
    pub claims: usize,
    /// The last row up to which the log is proved to be what the witness saw.
    pub proved_until: u64,
    /// Whether a head among those that fit was signed by an authority of this coordinator.
    pub signed: bool,
    /// What shows that the log was rewritten or cut off.
    pub problems: Vec<String>,
    /// What is odd and no proof of that.
    pub notes: Vec<String>,
}

/// Holds claims against the log; `authorities` are this coordinator's. The chain itself is checked elsewhere.
pub async fn examine(
    store: &Store,
    world: &World,
    authorities: &[SpkiHash],
    claims: &[Claim],
) -> Result<Examined, StoreError> {
    let mut examined = Examined { claims: claims.len(), ..Examined::default() };
    for claim in claims {
        let seq = claim.seq;
        if let Some(head) = &claim.head {
            if !head.is_authentic() {
                examined
                    .notes
                    .push(format!("the head of row {seq} has a signature that is wrong; it proves nothing"));
                continue;
            }
            if !authorities.contains(&head.authority) {
                examined.notes.push(format!(
                    "the head of row {seq} was signed by another coordinator ({})",
                    head.authority
                ));
                continue;
            }
            // Rows behind the last one that a backup had are lost by its restore, which the log itself tells.
            let next = world.epochs.iter().find(|began| began.epoch.number > head.epoch);
            if let Some(began) = next.filter(|began| began.base.seq < seq) {
                let (base, epoch) = (began.base.seq, began.epoch.number);
                examined.notes.push(format!(
                    "row {seq} was written before the restore that began epoch {epoch}, which kept rows up to {base} only"
                ));
                continue;
            }
        }
        match store.audit_hash(seq).await? {
            Some(hash) if hash == claim.hash => {
                examined.proved_until = examined.proved_until.max(seq);
                examined.signed |= claim.head.is_some();
            }
            Some(_) => examined.problems.push(format!(
                "row {seq} is another than the witness has seen: it, or one before it, was rewritten"
            )),
            None => examined
                .problems
                .push(format!("row {seq}, which the witness has seen, is not there: the log was cut off")),
        }
    }
    examined.problems.truncate(MOST_TOLD);
    examined.notes.truncate(MOST_TOLD);
    Ok(examined)
}

/// What a check can't prove, in words.
pub fn limits(examined: Option<&Examined>, length: u64) -> String {
    match examined {
        None => "Without a witness (--witness FILE) this can't be told from a log that was rewritten as a whole, with all its \
                 hashes: keep a head elsewhere from time to time (ria-coordinator audit head)."
            .to_owned(),
        Some(examined) if examined.proved_until == 0 => "The witness proves nothing about this log.".to_owned(),
        Some(examined) => {
            let until = examined.proved_until;
            let signed = if examined.signed { "" } else { " No head was among its lines: that it is this coordinator's rests on the witness alone." };
            let rest = if until < length {
                format!(" Of the {} rows behind it nothing is proved but that they follow.", length - until)
            } else {
                String::new()
            };
            format!("Proved by the witness: all rows up to {until} are what it has seen.{rest}{signed}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Actor, Event};
    use crate::tls::authority::Identity;

    fn row(subject: &str) -> Row {
        Head::START.follow(&Event {
            time: UnixTime(5),
            actor: Actor::Coordinator,
            action: "node.joined",
            network: None,
            subject: subject.into(),
            detail: serde_json::json!({}),
        })
    }

    #[test]
    fn lines_are_rows_or_heads_and_a_row_that_was_changed_is_no_witness() {
        let line = serde_json::to_string(&row("robot-1")).unwrap();
        let read = claims(&format!("{line}\n\n")).unwrap();
        assert_eq!((read.len(), read[0].seq, read[0].hash), (1, 1, row("robot-1").hash));
        assert!(claims(&line.replace("robot-1", "robot-2")).unwrap_err().contains("own hash"));
        assert!(claims("{}").unwrap_err().contains("audit head"));
    }

    #[test]
    fn a_head_holds_only_as_it_was_signed() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Identity::load_or_create(directory.path(), None).unwrap().authority;
        let Head { seq, hash } = Head::from(&row("robot-1"));
        let mut head = SignedHead {
            epoch: 1,
            seq,
            hash,
            time: UnixTime(9),
            authority: authority.pin(),
            public_key: BASE64.encode(authority.spkis().next().unwrap()),
            signature: String::new(),
        };
        head.signature = BASE64.encode(&authority.sign_statement(&head.statement()).unwrap());
        assert!(head.is_authentic());
        let read = claims(&serde_json::to_string(&head).unwrap()).unwrap();
        assert_eq!(read[0].head.as_ref(), Some(&head));
        let changes: [fn(&mut SignedHead); 5] = [
            |h| h.seq = 2,
            |h| h.epoch = 2,
            |h| h.time = UnixTime(10),
            |h| h.hash = row("robot-2").hash,
            |h| h.authority = SpkiHash([0; 32]),
        ];
        for change in changes {
            let mut other = head.clone();
            change(&mut other);
            assert!(!other.is_authentic(), "{other:?}");
        }
    }

    #[test]
    fn what_is_not_proved_is_said() {
        assert!(limits(None, 9).contains("--witness"));
        let examined = Examined { claims: 1, proved_until: 5, ..Examined::default() };
        let told = limits(Some(&examined), 9);
        assert!(told.contains("up to 5") && told.contains("4 rows") && told.contains("No head"), "{told}");
        assert!(!limits(Some(&Examined { signed: true, ..examined }), 5).contains("rows behind"));
    }
}
