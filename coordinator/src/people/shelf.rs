//! What is kept for a while only: sessions of the pages, logins that are under way, laptops that ask, links, codes that were
//! used. In memory, and gone with the process; where several coordinators share a database, in that, so that whoever begins
//! at one may go on at another. Each thing is known by the digest of a secret that stands nowhere, and holds none itself.

use std::collections::BTreeMap;

use ria_protocol::time::UnixTime;
use tokio::sync::watch;

use crate::store::{Store, StoreError};

/// The digest of a secret.
pub type Id = [u8; 32];

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Session,
    Login,
    Device,
    OwnerLink,
    UsedCode,
}

impl Kind {
    /// In the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Login => "login",
            Self::Device => "device",
            Self::OwnerLink => "owner-link",
            Self::UsedCode => "used-code",
        }
    }
}

/// A thing that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose it is, where they are counted by that.
    pub owner: String,
    pub value: String,
    pub made: UnixTime,
    /// From then on it is as if it had never been.
    pub expires: UnixTime,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Shelf {
    shared: Option<Store>,
    here: watch::Sender<BTreeMap<(Kind, Id), Kept>>,
}

impl Shelf {
    /// In the database, where others use it too; else in memory.
    pub fn of(store: &Store) -> Self {
        let shared = store.instance().map(|_| store.clone());
        Self { shared, here: watch::Sender::default() }
    }

    /// Puts a thing there; `false` when there is one already. What has expired goes.
    pub async fn add(&self, kind: Kind, id: Id, kept: Kept, now: UnixTime) -> Result<bool, StoreError> {
        if let Some(store) = &self.shared {
            return store.shelve(kind, &id, &kept, now).await;
        }
        Ok(self.here.send_if_modified(|all| {
            all.retain(|_, known| now < known.expires);
            let free = !all.contains_key(&(kind, id));
            if free {
                all.insert((kind, id), kept);
            }
            free
        }))
    }

    /// What is there.
    pub async fn get(&self, kind: Kind, id: Id, now: UnixTime) -> Result<Option<Kept>, StoreError> {
        if let Some(store) = &self.shared {
            return store.shelved(kind, &id, now).await;
        }
        Ok(self.here.borrow().get(&(kind, id)).filter(|kept| now < kept.expires).cloned())
    }

    /// Takes a thing away that was seen there; `false` when somebody else was quicker: of all who try, one does.
    pub async fn take(&self, kind: Kind, id: Id, seen: &Kept) -> Result<bool, StoreError> {
        if let Some(store) = &self.shared {
            return store.unshelve(kind, &id, &seen.value).await;
        }
        Ok(self.here.send_if_modified(|all| {
            let is_same = all.get(&(kind, id)).is_some_and(|kept| kept.value == seen.value);
            is_same && all.remove(&(kind, id)).is_some()
        }))
    }

    /// Puts a thing in the place of one that was seen there; `false` when that is another by now.
    pub async fn replace(&self, kind: Kind, id: Id, seen: &Kept, by: Kept) -> Result<bool, StoreError> {
        if let Some(store) = &self.shared {
            return store.reshelve(kind, &id, &seen.value, &by).await;
        }
        let mut replaced = false;
        self.here.send_if_modified(|all| {
            if let Some(kept) = all.get_mut(&(kind, id)).filter(|kept| kept.value == seen.value) {
                (*kept, replaced) = (by, true);
            }
            // Nobody waits for that.
            false
        });
        Ok(replaced)
    }

    /// All of a kind, oldest first; or of an owner.
    pub async fn all(
        &self,
        kind: Kind,
        owner: Option<&str>,
        now: UnixTime,
    ) -> Result<Vec<(Id, Kept)>, StoreError> {
        let mut found = match &self.shared {
            Some(store) => store.all_shelved(kind, owner, now).await?,
            None => {
                let all = self.here.borrow();
                let own = all.iter().filter(|((of, _), kept)| {
                    *of == kind && now < kept.expires && owner.is_none_or(|owner| kept.owner == owner)
                });
                own.map(|((_, id), kept)| (*id, kept.clone())).collect()
            }
        };
        found.sort_by_key(|(id, kept)| (kept.made, *id));
        Ok(found)
    }

    /// Ends the oldest, of an owner or of all, until one more may come.
    pub async fn make_room(
        &self,
        kind: Kind,
        (owner, most): (Option<&str>, usize),
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let all = self.all(kind, owner, now).await?;
        let surplus = (all.len() + 1).saturating_sub(most);
        for (id, kept) in all.iter().take(surplus) {
            self.take(kind, *id, kept).await?;
        }
        Ok(())
    }

    /// How many of a kind there are.
    pub async fn count(&self, kind: Kind, now: UnixTime) -> Result<usize, StoreError> {
        Ok(self.all(kind, None, now).await?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);

    fn kept(owner: &str, value: &str, made: u64) -> Kept {
        Kept { owner: owner.into(), value: value.into(), made: UnixTime(made), expires: UnixTime(NOW.0 + 60) }
    }

    #[tokio::test]
    async fn a_thing_is_taken_once_and_replaced_only_as_it_was_seen() {
        let shelf = Shelf::default();
        let (one, two) = (kept("ada", "1", 1), kept("ada", "2", 1));
        assert!(shelf.add(Kind::Login, [1; 32], one.clone(), NOW).await.unwrap());
        assert!(!shelf.add(Kind::Login, [1; 32], two.clone(), NOW).await.unwrap());
        assert!(shelf.replace(Kind::Login, [1; 32], &one, two.clone()).await.unwrap());
        assert!(!shelf.replace(Kind::Login, [1; 32], &one, two.clone()).await.unwrap());
        assert!(!shelf.take(Kind::Login, [1; 32], &one).await.unwrap());
        assert!(!shelf.take(Kind::Session, [1; 32], &two).await.unwrap());
        assert!(shelf.take(Kind::Login, [1; 32], &two).await.unwrap());
        assert!(!shelf.take(Kind::Login, [1; 32], &two).await.unwrap());
        assert!(shelf.add(Kind::Login, [1; 32], one.clone(), NOW).await.unwrap());
        assert_eq!(shelf.get(Kind::Login, [1; 32], one.expires).await.unwrap(), None, "it has expired");
        assert!(shelf.add(Kind::Login, [1; 32], two, one.expires).await.unwrap());
    }

    #[tokio::test]
    async fn the_oldest_give_way() {
        let shelf = Shelf::default();
        for (n, owner) in [(1, "ada"), (2, "bob"), (3, "ada")] {
            shelf.add(Kind::Session, [n; 32], kept(owner, "", u64::from(n)), NOW).await.unwrap();
        }
        shelf.make_room(Kind::Session, (Some("ada"), 2), NOW).await.unwrap();
        assert_eq!(shelf.get(Kind::Session, [1; 32], NOW).await.unwrap(), None);
        shelf.make_room(Kind::Session, (None, 3), NOW).await.unwrap();
        assert_eq!(shelf.count(Kind::Session, NOW).await.unwrap(), 2);
    }
}
