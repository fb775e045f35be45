//! Threads that are not lent out: what the kernel has told of them is enough.
//!
//! What they have is put together by a second OS thread, for that asks nothing of whoever holds them: the one
//! that does reads registers meanwhile.
use std::collections::BTreeMap;

use super::outside::Outside;
use crate::attribute::{self, Owner, States};
use crate::census::Row;
use crate::error::{Obstacle, Result};
use crate::inventory::{Pid, Tid};

/// What is known of all threads of a tree, if somebody has looked.
pub(crate) type Roll = BTreeMap<Tid, Row>;
/// As the inventory has them.
pub(crate) type Attributes = BTreeMap<(Owner, String), Vec<u8>>;

/// A leader, who was asked, and whoever need not be.
#[derive(Debug)]
struct Company {
    pid: Pid,
    leader: Row,
    states: States,
    others: Vec<Tid>,
}

/// All of a tree.
#[derive(Debug, Default)]
pub(crate) struct Unasked {
    pub(super) roll: Roll,
    companies: Vec<Company>,
}

impl Unasked {
    /// Of a tree of whose threads this is known.
    pub(crate) fn of(roll: Roll) -> Self {
        Self { roll, companies: Vec::new() }
    }

    /// A leader has these attributes.
    pub(super) fn lead(&mut self, pid: Pid, states: &States) {
        if let Some(row) = self.roll.get(&Tid(pid.0)) {
            let (leader, states) = (*row, states.clone());
            self.companies.push(Company { pid, leader, states, others: Vec::new() });
        }
    }

    /// Whether a thread need not be asked. The last leader must be its own.
    pub(super) fn take(&mut self, (pid, tid): (Pid, Tid)) -> bool {
        let company = self.companies.last_mut().filter(|company| company.pid == pid);
        let Some((company, row)) = company.zip(self.roll.get(&tid)) else { return false };
        let alike = attribute::is_like(&company.leader, row);
        company.others.extend(alike.then_some(tid));
        alike
    }

    /// What they have, and all else that is done meanwhile.
    pub(crate) fn attributes_during(
        &self,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<(Attributes, Vec<Obstacle>)> {
        if self.companies.iter().all(|company| company.others.is_empty()) {
            return work().map(|()| Default::default());
        }
        std::thread::scope(|scope| {
            let helper = std::thread::Builder::new().name("unasked".into());
            let helper = helper.spawn_scoped(scope, || self.attributes());
            work()?;
            match helper.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(done)) => done,
                // There may be no more threads, or it has failed: then there is nobody but us.
                Ok(Err(_)) | Err(_) => self.attributes(),
            }
        })
    }

    #[tracing::instrument(level = "trace", skip_all)]
    fn attributes(&self) -> Result<(Attributes, Vec<Obstacle>)> {
        let (mut all, mut obstacles) = (Vec::new(), Vec::new());
        let companies = self.companies.iter();
        for (company, tid) in companies.flat_map(|one| one.others.iter().map(move |tid| (one, tid)))
        {
            let Some(row) = self.roll.get(tid) else { continue };
            let (owner, mut outside) =
                (Owner::Thread(company.pid, *tid), Outside { tid: *tid, row });
            let leader = &company.states;
            let states = attribute::collect_outside(owner, leader, &mut outside, &mut obstacles)?;
            all.extend(states.into_iter().map(|(name, state)| ((owner, name.to_owned()), state)));
        }
        Ok((all.into_iter().collect(), obstacles))
    }
}
