//! Threads that are not lent out: what they have as their leader has it, and what is told from outside.
//!
//! An attribute says by which facts of the kernel's its value is told ([`Fact`]). Where those of a thread are
//! its leader's, so is the value. One that says nothing must be asked for inside, and so must then all others.
use super::{ATTRIBUTES, Entry, Owner, Scope, Seen};
use crate::census::{Fact, Row};
use crate::error::{Obstacle, Result};
use crate::procfs::Fields;
use crate::remote::{Batch, Caller};

/// How an attribute is told of a thread that is not lent out, but whose leader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Not at all.
    Inside,
    /// By calls that need not be made by the thread itself, or by what the kernel knows of it.
    Outside,
    /// It is as its leader's if all of these are.
    AsLeader(&'static [Fact]),
}

/// Attributes of one owner, by their names.
pub(crate) type States = Vec<(&'static str, Vec<u8>)>;

fn of_threads() -> impl Iterator<Item = &'static Entry> {
    ATTRIBUTES.iter().filter(|entry| entry.scope == Scope::Thread)
}

/// Whether all attributes of a thread are told by what its leader has, and from outside.
pub(crate) fn is_like(leader: &Row, thread: &Row) -> bool {
    // Whoever is lent out is asked for waiting signals by its tracer.
    let quiet = thread.fact(Fact::PendingSignals) == 0;
    quiet
        && of_threads().all(|entry| match entry.told {
            Told::Inside => false,
            Told::Outside => true,
            Told::AsLeader(facts) => leader.is_like(thread, facts),
        })
}

/// All attributes of a thread that is like its leader, of which these are known.
pub(crate) fn collect_outside(
    owner: Owner,
    leader: &States,
    outside: &mut dyn Caller,
    obstacles: &mut Vec<Obstacle>,
) -> Result<States> {
    let (mut status, mut states) = (Fields::parse(""), Vec::new());
    for entry in of_threads() {
        let known = leader.iter().find(|(name, _)| *name == entry.name);
        let state = if let (Told::AsLeader(_), Some((_, state))) = (entry.told, known) {
            state.clone()
        } else {
            let mut batch = Batch::default();
            (entry.ask)(owner, &mut batch)?;
            let replies = outside.perform(&batch)?;
            let (quiet, together) = (true, true);
            let mut seen = Seen { owner, status: &mut status, quiet, together, obstacles };
            (entry.answer)(&mut seen, &replies)?
        };
        states.push((entry.name, state));
    }
    states.sort_unstable_by_key(|(name, _)| *name);
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a thread of such an attribute could never be told from outside, and a thousand of them would
    /// stand for a quarter of a second.
    #[test]
    fn every_attribute_of_threads_says_how_it_is_told() {
        let inside: Vec<_> = of_threads().filter(|entry| entry.told == Told::Inside).collect();
        assert!(inside.is_empty(), "{inside:?}");
        let by_nothing = of_threads().filter(|entry| entry.told == Told::AsLeader(&[]));
        assert_eq!(by_nothing.map(|entry| entry.name).collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
