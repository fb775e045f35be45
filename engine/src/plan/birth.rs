//! Who forks whom, and when: parents, sessions, groups, and memory that parent and child share.
//!
//! A child stays in the session its parent had at the fork, so setsid(2) stands among the forks. A
//! process whose leader or parent has died since is born by a *ghost*: a stand-in with the dead
//! one's number, which ends as soon as it has done its part. Who was forked without an exec(2) is
//! forked from its parent's finished memory, and so shares the pages that are still equal.
use std::collections::{BTreeMap, BTreeSet};

use super::{Host, Stage, Step, Steps};
use crate::error::{Cause, Obstacle};
use crate::inventory::{Backing, Inventory, Life, Pid, Process, Space, SpaceId, Special};
use crate::object::Place;

/// How a process comes to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Birth {
    /// Its number.
    pub pid: Pid,
    /// Who forks it; `None` for us.
    pub maker: Option<Pid>,
    /// It becomes its maker's sibling (`CLONE_PARENT`).
    pub sibling: bool,
    /// Shares its maker's descriptors (`CLONE_FILES`).
    pub shares_table: bool,
    /// Shares its maker's memory (`CLONE_VM`).
    pub shares_space: bool,
    /// Shares its maker's directories (`CLONE_FS`).
    pub shares_fs: bool,
    /// What its parent gets when it ends.
    pub exit_signal: i32,
    /// It is ours alone, and never more: we reap it ourselves.
    pub own: bool,
}

const SHARED: Cause = Cause {
    code: "plan:shared",
    reason: "it shares memory, descriptors or directories with one that is not its parent",
    remedy: "see SUPPORT.md",
};
const SESSION: Cause = Cause {
    code: "plan:session",
    reason: "nobody who could be its parent is in its session",
    remedy: "see SUPPORT.md",
};

const VDSO: Cause = Cause {
    code: "plan:vdso",
    reason: "its parent has unmapped its own, and cannot give it one at birth",
    remedy: "checkpoint the process without its parent",
};

/// The forks and all that stands among them.
pub(super) fn births(
    inventory: &Inventory,
    host: &Host,
    avoid: impl Iterator<Item = Pid>,
    steps: &mut Steps,
    obstacles: &mut Vec<Obstacle>,
) {
    let (born, led) = (BTreeSet::new(), BTreeMap::new());
    let mut births = Births { inventory, host, steps, obstacles, born, next: 0, led };
    births.next = births.first_free().max(avoid.map(|pid| pid.0 + 1).max().unwrap_or(0));
    births.roots();
    births.groups();
    for (&pid, process) in &inventory.processes {
        match process.life {
            Life::Zombie { status } => {
                births.steps.push((Stage::Settle, Step::End { pid, status }))
            }
            // Only of those whose parent is part of the tree we know that.
            Life::Continued => births.steps.push((Stage::Settle, Step::Continue { pid })),
            Life::Running | Life::Stopped { .. } => {}
        }
    }
}

struct Births<'a> {
    inventory: &'a Inventory,
    host: &'a Host,
    steps: &'a mut Steps,
    obstacles: &'a mut Vec<Obstacle>,
    born: BTreeSet<Pid>,
    /// The next number for a ghost of no particular number.
    next: i32,
    /// Sessions of dead leaders whose ghosts are some subreaper's children.
    led: BTreeMap<i32, Pid>,
}

impl Births<'_> {
    fn step(&mut self, step: Step) {
        self.steps.push((Stage::Blanks, step));
    }

    /// A number that neither the image nor the host has.
    fn first_free(&self) -> i32 {
        let used = self.inventory.processes.keys().map(|pid| pid.0);
        let used = used.chain(self.inventory.threads.keys().map(|tid| tid.0));
        used.max().unwrap_or(0).max(300) + 1
    }

    fn ghost_number(&mut self) -> Pid {
        while self.host.taken.contains_key(&Pid(self.next)) || self.born.contains(&Pid(self.next)) {
            self.next += 1;
        }
        self.next += 1;
        Pid(self.next - 1)
    }

    /// Whether nobody has this number, here or there: its owner has died.
    fn is_dead(&self, number: i32) -> bool {
        let pid = Pid(number);
        number > 0
            && !self.inventory.processes.contains_key(&pid)
            && !self.host.taken.contains_key(&pid)
    }

    fn roots(&mut self) {
        let inventory = self.inventory;
        let (mut plain, mut orphans) = (Vec::new(), BTreeMap::<i32, Vec<Pid>>::new());
        for (&pid, process) in inventory.processes.iter().filter(|(_, p)| p.parent.is_none()) {
            let session = process.session;
            let led = inventory.processes.contains_key(&Pid(session)) || self.is_dead(session);
            if session != pid.0 && led {
                orphans.entry(session).or_default().push(pid);
            } else {
                plain.push(pid);
            }
        }
        for pid in plain {
            self.fork(pid, None, false, None);
        }
        for (session, pids) in orphans {
            self.orphans(session, &pids);
        }
    }

    /// Processes of a session whose leader is not their parent.
    fn orphans(&mut self, session: i32, pids: &[Pid]) {
        let leader = Pid(session);
        let living = self.inventory.processes.get(&leader);
        let born_here = !self.born.contains(&leader) && living.is_none();
        if born_here {
            self.ghost_leader(leader, None, pids);
        }
        for &pid in pids {
            if living.is_none_or(|leader| leader.parent.is_none()) {
                self.fork(pid, Some(leader), true, None);
            } else {
                let ghost = self.ghost_number();
                self.ghost(ghost, Some(leader), 0);
                self.fork(pid, Some(ghost), false, None);
                self.step(Step::Bury { pid: ghost });
            }
        }
        if born_here {
            self.steps.push((Stage::Identity, Step::Bury { pid: leader }));
        }
    }

    /// A session's leader that has died. Its siblings by `CLONE_PARENT` have its own exit signal.
    fn ghost_leader(&mut self, leader: Pid, maker: Option<Pid>, siblings: &[Pid]) {
        let first = siblings.first().and_then(|pid| self.inventory.processes.get(pid));
        self.ghost(leader, maker, first.map_or(0, |process| process.exit_signal));
        self.step(Step::Session { pid: leader });
    }

    fn ghost(&mut self, pid: Pid, maker: Option<Pid>, exit_signal: i32) {
        self.born.insert(pid);
        let birth = Birth {
            pid,
            maker,
            sibling: false,
            shares_table: false,
            shares_space: false,
            shares_fs: false,
            exit_signal,
            own: false,
        };
        self.step(Step::Fork(birth));
    }

    /// The kernel's own mappings can be moved, but not made: it has those that it was born with.
    fn map(&mut self, space: SpaceId, pid: Pid, over: Option<Pid>) {
        let inventory = self.inventory;
        let special = |space: SpaceId| {
            let areas = inventory.spaces.get(&space).into_iter().flat_map(|space| &space.vmas);
            areas.map(|vma| &vma.backing).filter(|backing| matches!(backing, Backing::Special(_)))
        };
        let before = over.and_then(|over| inventory.processes.get(&over));
        let lacks = |backing| {
            before.is_some_and(|before| special(before.space).all(|other| other != backing))
        };
        if special(space).any(lacks) {
            let object = "its vdso".to_owned();
            self.obstacles.push(Obstacle { pid: Some(pid), object, cause: VDSO });
        }
        self.step(Step::Map { space, pid, over });
    }

    fn fork(&mut self, pid: Pid, maker: Option<Pid>, sibling: bool, over: Option<Pid>) {
        let Some(process) = self.inventory.processes.get(&pid) else { return };
        self.born.insert(pid);
        let made_by = maker.and_then(|maker| self.inventory.processes.get(&maker));
        let dead = matches!(process.life, Life::Zombie { .. });
        let shares = |same: fn(&Process, &Process) -> bool| {
            !dead && made_by.is_some_and(|maker| same(maker, process))
        };
        let birth = Birth {
            pid,
            maker,
            sibling,
            shares_table: shares(|a, b| a.table == b.table),
            shares_space: shares(|a, b| a.space == b.space),
            shares_fs: shares(|a, b| a.fs == b.fs),
            exit_signal: process.exit_signal,
            own: false,
        };
        self.step(Step::Fork(birth));
        if !dead {
            self.check_sharing(pid, process, birth);
            self.bring_up(pid, process, birth, over);
        } else if process.session == pid.0 {
            self.step(Step::Session { pid });
        }
    }

    /// What is shared must be shared with the maker, or be its first user's.
    fn check_sharing(&mut self, pid: Pid, process: &Process, birth: Birth) {
        let others = self.inventory.processes.iter().filter(|(other, o)| {
            **other != pid && self.born.contains(other) && !matches!(o.life, Life::Zombie { .. })
        });
        let bad = others.into_iter().any(|(_, other)| {
            (other.table == process.table && !birth.shares_table)
                || (other.space == process.space && !birth.shares_space)
                || (other.fs == process.fs && !birth.shares_fs)
        });
        if bad {
            let object = format!("the process ({})", process.name);
            self.obstacles.push(Obstacle { pid: Some(pid), object, cause: SHARED });
        }
    }

    /// From the birth of a process to that of its last child.
    fn bring_up(&mut self, pid: Pid, process: &Process, birth: Birth, over: Option<Pid>) {
        let inventory = self.inventory;
        let leads = process.session == pid.0;
        let children = inventory.processes.iter().filter(|(_, child)| child.parent == Some(pid));
        let (mut before, mut after, mut strays) = (Vec::new(), Vec::new(), Vec::new());
        for (&child, c) in children {
            let own = c.session == child.0;
            match (own || c.session == process.session, leads) {
                (true, _) => after.push(child),
                (false, true) if self.inherited_session(pid) == Some(c.session) => {
                    before.push(child);
                }
                _ => strays.push((child, c.session)),
            }
        }
        let like = |child: &Pid| inherits(inventory, *child, process);
        let (early, early_copies): (Vec<_>, Vec<_>) = before.into_iter().partition(|c| !like(c));
        let (late, late_copies): (Vec<_>, Vec<_>) = after.into_iter().partition(|c| !like(c));
        let mut map = (!birth.shares_space).then_some(process.space);
        self.children(&early, pid, over);
        if !early_copies.is_empty()
            && let Some(space) = map.take()
        {
            self.map(space, pid, over);
        }
        self.children(&early_copies, pid, Some(pid));
        if leads {
            self.step(Step::Session { pid });
            self.terminal(pid);
        }
        let content = if map.is_some() { over } else { Some(pid) };
        self.children(&late, pid, content);
        if let Some(space) = map.take() {
            self.map(space, pid, over);
        }
        self.children(&late_copies, pid, Some(pid));
        strays.into_iter().for_each(|(child, session)| self.stray(pid, child, session));
    }

    /// The leader's controlling terminal: its children have it by birth only.
    fn terminal(&mut self, leader: Pid) {
        for (&object, record) in &self.inventory.objects {
            if record.kind == "pty" && record.place == Place::Process(leader) {
                let files = self.inventory.open_files.iter();
                let of = files.filter(|(_, file)| file.refers_to().0 == object);
                let open_files = of.map(|(id, _)| *id).collect();
                self.step(Step::Build { object, place: record.place, open_files });
            }
        }
    }

    fn children(&mut self, children: &[Pid], maker: Pid, over: Option<Pid>) {
        for child in children {
            self.fork(*child, Some(maker), false, over);
        }
    }

    /// The session that a session's leader was born into.
    fn inherited_session(&self, pid: Pid) -> Option<i32> {
        let parent = self.inventory.processes.get(&pid)?.parent;
        parent.map_or(Some(self.host.session), |parent| {
            self.inventory.processes.get(&parent).map(|parent| parent.session)
        })
    }

    /// One that came to its parent, a subreaper, when its own had died; or one that shares the
    /// session of somebody outside, and gets ours.
    fn stray(&mut self, parent: Pid, child: Pid, session: i32) {
        if self.host.taken.contains_key(&Pid(session)) || session == 0 {
            return self.fork(child, Some(parent), false, None);
        }
        let leader = Pid(session);
        if self.is_dead(session) && !self.born.contains(&leader) {
            self.ghost_leader(leader, Some(parent), &[child]);
            self.led.insert(session, parent);
            self.steps.push((Stage::Identity, Step::Bury { pid: leader }));
        }
        let living = self.inventory.processes.get(&leader).and_then(|leader| leader.parent);
        let sibling = living.or_else(|| self.led.get(&session).copied());
        if sibling == Some(parent) && self.born.contains(&leader) {
            return self.fork(child, Some(leader), true, None);
        }
        let cause = Obstacle { pid: Some(child), object: "the process".into(), cause: SESSION };
        self.obstacles.push(cause);
    }

    fn groups(&mut self) {
        let inventory = self.inventory;
        let mut members: BTreeMap<i32, Vec<Pid>> = BTreeMap::new();
        for (&pid, process) in &inventory.processes {
            if process.session != pid.0 && self.born.contains(&pid) {
                members.entry(process.group).or_default().push(pid);
            }
        }
        let (mut joins, mut ghosts) = (Vec::new(), Vec::new());
        for (group, pids) in members {
            let leader = Pid(group);
            if self.is_dead(group)
                && let Some(&first) = pids.first()
            {
                // The ghost of a session's leader leads its group already.
                if !self.born.contains(&leader) {
                    self.ghost(leader, Some(first), 0);
                    ghosts.push(leader);
                    self.steps.push((Stage::Identity, Step::Group { pid: leader, group }));
                }
            } else if !inventory.processes.contains_key(&leader) {
                continue; // Somebody outside has it: ours stay in the caller's group.
            }
            if pids.contains(&leader) {
                self.steps.push((Stage::Identity, Step::Group { pid: leader, group }));
            }
            joins.extend(pids.into_iter().filter(|pid| *pid != leader).map(|pid| (pid, group)));
        }
        for (pid, group) in joins {
            self.steps.push((Stage::Identity, Step::Group { pid, group }));
        }
        for pid in ghosts {
            self.steps.push((Stage::Identity, Step::Bury { pid }));
        }
    }
}

/// Whether a child was forked from its parent's memory and has not called exec(2) since: then the
/// kernel's random places are the same.
fn inherits(inventory: &Inventory, child: Pid, parent: &Process) -> bool {
    let Some(process) = inventory.processes.get(&child) else { return false };
    if matches!(process.life, Life::Zombie { .. }) || process.space == parent.space {
        return false;
    }
    let spaces = &inventory.spaces;
    match (spaces.get(&process.space), spaces.get(&parent.space)) {
        (Some(own), Some(other)) => marks(own) == marks(other),
        _ => false,
    }
}

/// What exec(2) chooses anew.
fn marks(space: &Space) -> (Option<u64>, [Option<u64>; 3]) {
    let vdso = space.vmas.iter().find(|vma| vma.backing == Backing::Special(Special::Vdso));
    let word = |at: usize| space.layout.words.get(at).copied();
    (vdso.map(|vma| vma.start), [word(0), word(6), word(7)])
}
