//! Choosing an endpoint out of those that may be used.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::Rng;

/// How endpoints take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The least busy of this many random ones.
    LeastRequest(usize),
    /// Any, by weight.
    Random,
}

/// What the balancer asks an endpoint.
pub trait Candidate {
    /// Requests it is working on.
    fn active(&self) -> u64;
    /// Its share.
    fn weight(&self) -> u32;
}

/// Entries of the weighted turn order; finer weights are rounded.
const MAX_TURNS: usize = 2048;

/// The endpoints of one priority level and the order of their turns.
#[derive(Debug)]
pub struct Turns<T> {
    hosts: Vec<T>,
    order: Vec<u16>,
    next: AtomicUsize,
}

impl<T: Candidate> Turns<T> {
    /// Endpoints in the given order; the turn order interleaves them by weight.
    pub fn new(hosts: Vec<T>) -> Self {
        let order = turn_order(&hosts.iter().map(|h| h.weight().max(1)).collect::<Vec<_>>());
        // A random start keeps many gateways from marching in step.
        let next = AtomicUsize::new(rand::rng().random_range(0..order.len().max(1)));
        Self { hosts, order, next }
    }

    /// The endpoints.
    pub fn hosts(&self) -> &[T] {
        &self.hosts
    }

    /// Chooses one, avoiding those `avoid` names as long as others are left.
    pub fn pick(&self, policy: Policy, avoid: &dyn Fn(&T) -> bool) -> Option<&T> {
        let mut choice = self.pick_once(policy)?;
        for _ in 0..self.hosts.len().min(8) {
            if !avoid(choice) {
                break;
            }
            choice = self.pick_once(policy)?;
        }
        Some(choice)
    }

    fn pick_once(&self, policy: Policy) -> Option<&T> {
        match (policy, self.hosts.len()) {
            (_, 0) => None,
            (_, 1) => self.hosts.first(),
            (Policy::RoundRobin, _) => {
                let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.order.len();
                self.hosts.get(usize::from(self.order[turn]))
            }
            (Policy::Random, _) => self.random(),
            (Policy::LeastRequest(choices), _) => {
                let mut best = self.random()?;
                for _ in 1..choices.max(1) {
                    let other = self.random()?;
                    // active/weight compared without division.
                    let (ours, theirs) = (best.active() + 1, other.active() + 1);
                    if theirs * u64::from(best.weight().max(1))
                        < ours * u64::from(other.weight().max(1))
                    {
                        best = other;
                    }
                }
                Some(best)
            }
        }
    }

    fn random(&self) -> Option<&T> {
        let turn = rand::rng().random_range(0..self.order.len());
        self.hosts.get(usize::from(self.order[turn]))
    }
}

/// Smooth weighted order: each endpoint appears in proportion to its weight, spread out.
fn turn_order(weights: &[u32]) -> Vec<u16> {
    let count = weights.len().min(usize::from(u16::MAX));
    let weights = &weights[..count];
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return (0..count).map(|index| u16::try_from(index).unwrap_or(u16::MAX)).collect();
    }
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let total: u64 = weights.iter().map(|w| u64::from(w / divisor)).sum();
    let turns = usize::try_from(total).unwrap_or(MAX_TURNS).clamp(count, MAX_TURNS.max(count));
    let sum: i64 = weights.iter().map(|w| i64::from(*w)).sum();
    let mut credit = vec![0i64; count];
    (0..turns)
        .map(|_| {
            for (credit, weight) in credit.iter_mut().zip(weights) {
                *credit += i64::from(*weight);
            }
            let best = (0..count).max_by_key(|i| (credit[*i], std::cmp::Reverse(*i))).unwrap_or(0);
            credit[best] -= sum;
            u16::try_from(best).unwrap_or(u16::MAX)
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(u64, u32);
    impl Candidate for Host {
        fn active(&self) -> u64 {
            self.0
        }
        fn weight(&self) -> u32 {
            self.1
        }
    }

    fn counts(turns: &Turns<Host>, policy: Policy, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; turns.hosts.len()];
        for _ in 0..picks {
            let picked = turns.pick(policy, &|_| false).unwrap();
            counts[turns.hosts.iter().position(|h| std::ptr::eq(h, picked)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_is_exact_and_weighted() {
        assert_eq!(
            counts(&Turns::new(vec![Host(0, 1), Host(0, 1)]), Policy::RoundRobin, 100),
            [50, 50]
        );
        assert_eq!(
            counts(&Turns::new(vec![Host(0, 30), Host(0, 10)]), Policy::RoundRobin, 100),
            [75, 25]
        );
    }

    #[test]
    fn least_request_prefers_the_idle_one() {
        let counts =
            counts(&Turns::new(vec![Host(50, 1), Host(0, 1)]), Policy::LeastRequest(2), 1000);
        assert!(counts[1] > 650, "{counts:?}");
    }

    #[test]
    fn avoided_endpoint_is_left_out() {
        let turns = Turns::new(vec![Host(1, 1), Host(2, 1)]);
        for _ in 0..20 {
            assert_eq!(turns.pick(Policy::RoundRobin, &|h| h.0 == 1).unwrap().0, 2);
        }
    }
}
