//! Simple tokens: random words that stand for a user until they were not used for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Tokens of this member.
#[derive(Debug)]
pub struct Tokens {
    ttl: Duration,
    live: HashMap<String, (String, Instant)>,
}

impl Tokens {
    /// None yet; unused ones end after `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, live: HashMap::new() }
    }

    /// Time an unused token lives.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Records a token.
    pub fn assign(&mut self, token: &str, user: &str) {
        let now = Instant::now();
        self.live.retain(|_, (_, ends)| *ends > now);
        self.live.insert(token.to_owned(), (user.to_owned(), now + self.ttl));
    }

    /// The user of a token, whose time starts anew.
    pub fn user(&mut self, token: &str) -> Option<String> {
        let now = Instant::now();
        let (user, ends) = self.live.get_mut(token)?;
        if *ends <= now {
            self.live.remove(token);
            return None;
        }
        *ends = now + self.ttl;
        Some(user.clone())
    }

    /// Forgets the tokens of a user.
    pub fn revoke(&mut self, user: &str) {
        self.live.retain(|_, (owner, _)| owner != user);
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.live.clear();
    }
}

/// Sixteen random letters.
pub fn random_word() -> String {
    use rand::Rng;
    use rand::distr::Alphabetic;
    rand::rng().sample_iter(Alphabetic).take(16).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end_and_can_be_revoked() {
        let mut tokens = Tokens::new(Duration::from_secs(60));
        tokens.assign("t1", "alice");
        tokens.assign("t2", "bob");
        assert_eq!(tokens.user("t1").as_deref(), Some("alice"));
        tokens.revoke("alice");
        assert_eq!((tokens.user("t1"), tokens.user("t2").as_deref()), (None, Some("bob")));
        let mut short = Tokens::new(Duration::ZERO);
        short.assign("t", "alice");
        assert_eq!(short.user("t"), None);
    }
}
