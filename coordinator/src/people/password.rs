//! Passwords: Argon2id, a few at a time, so that many who log in at once can't take all memory.

use std::sync::{Arc, OnceLock};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use tokio::sync::Semaphore;

/// Each hash takes 19 MiB for as long as it is made.
const AT_A_TIME: usize = 2;
const SALT: usize = 16;
const SHORTEST: usize = 12;
const LONGEST: usize = 256;

/// A password can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error(
        "the password is too short; take {SHORTEST} characters or more: a few words that nobody else would put together"
    )]
    Short,
    #[error("the password is too long; take {LONGEST} bytes at most")]
    Long,
    #[error("the password is too simple; take a few words that nobody else would put together")]
    Simple,
    #[error("the password could not be kept; try again")]
    Failed,
}

/// Makes and checks hashes.
#[derive(Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

/// Whether somebody of this name may take this password.
pub fn check(password: &str, name: &str) -> Result<(), PasswordError> {
    if password.chars().count() < SHORTEST {
        return Err(PasswordError::Short);
    }
    if password.len() > LONGEST {
        return Err(PasswordError::Long);
    }
    let mut letters: Vec<char> = password.chars().collect();
    letters.sort_unstable();
    letters.dedup();
    if letters.len() < 5 || password.to_lowercase().trim_matches(|c: char| !c.is_alphabetic()) == name {
        return Err(PasswordError::Simple);
    }
    Ok(())
}

impl Passwords {
    /// The hash of a password, in PHC form.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        let made = self.in_turn(move || hash(&password)).await;
        made.flatten().ok_or(PasswordError::Failed)
    }

    /// Whether this is the password. Without a hash the same work is done, so that time does not tell whom there is.
    pub async fn verify(&self, password: String, known: Option<String>) -> bool {
        if password.len() > LONGEST {
            return false;
        }
        let checked = self.in_turn(move || {
            static NOBODY: OnceLock<Option<String>> = OnceLock::new();
            let is_somebody = known.is_some();
            let known = known.or_else(|| NOBODY.get_or_init(|| hash(&super::secret::fresh())).clone());
            let matches = known
                .as_deref()
                .and_then(|text| PasswordHash::new(text).ok())
                .is_some_and(|known| Argon2::default().verify_password(password.as_bytes(), &known).is_ok());
            matches && is_somebody
        });
        checked.await.unwrap_or(false)
    }

    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = self.turns.clone().acquire_owned().await.ok()?;
        let done = tokio::task::spawn_blocking(move || {
            let made = work();
            drop(turn);
            made
        });
        done.await.ok()
    }
}

fn hash(password: &str) -> Option<String> {
    let salt = SaltString::encode_b64(&crate::random::bytes::<SALT>()).ok()?;
    Some(Argon2::default().hash_password(password.as_bytes(), &salt).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_nobody_has_one() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse battery".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse battery".into(), Some(hash.clone())).await);
        assert!(!passwords.verify("correct horse batterx".into(), Some(hash)).await);
        assert!(!passwords.verify("correct horse battery".into(), None).await);
        assert!(!passwords.verify("x".repeat(10_000), None).await);
        assert!(!passwords.verify(String::new(), Some("rubbish".into())).await);
    }

    #[test]
    fn passwords_that_others_would_guess_are_not_taken() {
        assert_eq!(check("short", "ada"), Err(PasswordError::Short));
        assert_eq!(check("aaaaaaaaaaaaaaaa", "ada"), Err(PasswordError::Simple));
        assert_eq!(check("ada.lovelace99", "ada.lovelace"), Err(PasswordError::Simple));
        assert_eq!(check(&"ab cd ef".repeat(100), "ada"), Err(PasswordError::Long));
        assert_eq!(check("correct horse battery", "ada"), Ok(()));
    }
}
