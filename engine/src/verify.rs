//! The oracle: whether what was brought back is what was saved.
//!
//! The inventory of a tree is taken again by the same code as at its checkpoint, and every field that
//! differs is named; bytes are compared by their digests. Only what cannot be the same is set aside:
//! what clocks move, and groups and sessions whose leaders are not of the tree.
mod digest;

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

pub(crate) use self::digest::Digests;
use nix::libc::PROT_WRITE;

use crate::attribute::{self, Owner};
use crate::error::{Cause, Obstacle};
use crate::inventory::{Backing, Inventory, ObjectRecord, Pid, Process, Space, Thread, Vma};
use crate::object::KINDS;

/// It is said of each difference.
pub const DIFFERS: Cause = Cause {
    code: "verify:differs",
    reason: "it came back other than it was saved",
    remedy: "report it; restore without --verify takes it as it is",
};

/// What is not the same in both, each in a few words; none means that they are equal.
#[must_use]
pub fn differences(saved: &Inventory, found: &Inventory) -> Vec<String> {
    let mut list = List::default();
    list.each("process", &saved.processes, &found.processes, |list, pid, a, b| {
        list.process(*pid, a, b, saved);
    });
    list.each("thread", &saved.threads, &found.threads, List::thread);
    list.each("space", &saved.spaces, &found.spaces, List::space);
    list.each("directories", &saved.filesystems, &found.filesystems, List::whole);
    list.each("object", &saved.objects, &found.objects, List::object);
    list.each("open file", &saved.open_files, &found.open_files, List::whole);
    let slots = |of: &Inventory| -> BTreeMap<String, _> {
        of.descriptors
            .iter()
            .map(|((table, fd), one)| (format!("{} of table {table}", fd.0), *one))
            .collect()
    };
    list.each("descriptor", &slots(saved), &slots(found), List::whole);
    let attributes = |of: &Inventory| -> BTreeMap<String, Vec<u8>> {
        let still = |((owner, name), state): (&(Owner, String), &Vec<u8>)| {
            let same = attribute::find(name).and_then(|entry| (entry.comparable)(state).ok());
            (format!("{name} of {owner}"), same.unwrap_or_else(|| state.clone()))
        };
        of.attributes.iter().map(still).collect()
    };
    list.each("attribute", &attributes(saved), &attributes(found), List::whole);
    list.0
}

/// Likewise, as what is in the way of letting the tree go.
#[must_use]
pub fn obstacles(differences: Vec<String>) -> Vec<Obstacle> {
    let obstacle = |object| Obstacle { pid: None, object, cause: DIFFERS };
    differences.into_iter().map(obstacle).collect()
}

/// In `user_regs_struct`: no call is under way any more in a thread that comes back.
const ORIG_RAX: usize = 15;
/// `XSTATE_BV` in an xsave area: a part that is as it begins may be said to be in use or not; either
/// way it is given as it is.
const IN_USE: std::ops::Range<usize> = 512..520;

#[derive(Debug, Default)]
struct List(Vec<String>);

impl List {
    /// Compares what both have, and names what only one has.
    fn each<K: Ord + Display, V>(
        &mut self,
        what: &str,
        saved: &BTreeMap<K, V>,
        found: &BTreeMap<K, V>,
        compare: impl Fn(&mut Self, &K, &V, &V),
    ) {
        for (key, one) in saved {
            match found.get(key) {
                Some(other) => {
                    let before = self.0.len();
                    compare(self, key, one, other);
                    let new = self.0.iter_mut().skip(before);
                    new.for_each(|text| *text = format!("{what} {key}: {text}"));
                }
                None => self.0.push(format!("{what} {key} is missing")),
            }
        }
        let more = found.keys().filter(|key| !saved.contains_key(key));
        self.0.extend(more.map(|key| format!("{what} {key} was not there")));
    }

    fn field<T: PartialEq + Debug>(&mut self, name: &str, saved: &T, found: &T) {
        if saved != found {
            self.0.push(format!("{name} was {}, is {}", brief(saved), brief(found)));
        }
    }

    fn whole<K, V: PartialEq + Debug>(&mut self, _: &K, saved: &V, found: &V) {
        self.field("it", saved, found);
    }

    fn process(&mut self, pid: Pid, saved: &Process, found: &Process, all: &Inventory) {
        let led = |number: i32| all.processes.contains_key(&Pid(number));
        let (mut saved, mut found) = (saved.clone(), found.clone());
        for process in [&mut saved, &mut found] {
            // A root is a child of whoever restores it: how its end is told is their business.
            process.exit_signal *= i32::from(process.parent.is_some());
        }
        if !led(saved.group) {
            found.group = saved.group;
        }
        if !led(saved.session) {
            found.session = saved.session;
        }
        self.field(&format!("{pid}"), &saved, &found);
    }

    fn thread<K>(&mut self, _: &K, saved: &Thread, found: &Thread) {
        let words = saved.registers.0.iter().zip(&found.registers.0).enumerate();
        for (at, (one, other)) in words.filter(|(at, _)| *at != ORIG_RAX) {
            self.field(&format!("register {at}"), one, other);
        }
        self.field("blocked", &saved.blocked, &found.blocked);
        self.field("rseq", &saved.rseq, &found.rseq);
        let differ = saved.xstate.len() != found.xstate.len();
        let mut pairs = saved.xstate.iter().zip(&found.xstate).enumerate();
        let at = pairs.position(|(at, (one, other))| one != other && !IN_USE.contains(&at));
        if differ || at.is_some() {
            self.0.push(format!("its xstate differs from byte {at:?} on"));
        }
    }

    fn space<K>(&mut self, _: &K, saved: &Space, found: &Space) {
        let areas = |space: &Space| -> BTreeMap<String, _> {
            joined(&space.vmas).into_iter().map(|vma| (format!("{:x}", vma.start), vma)).collect()
        };
        self.each("area", &areas(saved), &areas(found), Self::whole);
        self.field("layout", &saved.layout, &found.layout);
        self.field("executable", &saved.exe, &found.exe);
        self.field("vdso", &saved.vdso, &found.vdso);
        self.field("pages written over files", &saved.written, &found.written);
    }

    fn object<K>(&mut self, _: &K, saved: &ObjectRecord, found: &ObjectRecord) {
        let still = |record: &ObjectRecord| {
            let kind = KINDS.iter().find(|kind| kind.name == record.kind);
            let same = kind.and_then(|kind| (kind.comparable)(&record.state).ok());
            ObjectRecord { state: same.unwrap_or_else(|| record.state.clone()), ..record.clone() }
        };
        self.field(&saved.kind, &still(saved), &still(found));
    }
}

/// Areas that follow each other and are alike, as one: whether the kernel has joined them depends on
/// how they came to be, and tells nothing.
fn joined(vmas: &[Vma]) -> Vec<Vma> {
    let mut all: Vec<Vma> = Vec::new();
    for vma in vmas {
        let mut vma = vma.clone();
        // Of an area that is not writable any more the kernel accounts for a page or not, by whether
        // any of its neighbours of the time was touched (`mprotect_fixup` in `mm/mprotect.c`).
        vma.flags.retain(|flag| flag != "ac" || vma.prot & PROT_WRITE != 0);
        match all.last_mut() {
            Some(last) if follows(last, &vma) => last.end = vma.end,
            _ => all.push(vma),
        }
    }
    all
}

fn follows(first: &Vma, second: &Vma) -> bool {
    let backing = match &first.backing {
        Backing::File { open_file, offset } => Backing::File {
            open_file: *open_file,
            offset: offset.wrapping_add(first.end - first.start),
        },
        other => other.clone(),
    };
    let (start, end) = (first.end, second.end);
    let special = matches!(second.backing, Backing::Special(_));
    !special && *second == Vma { start, end, backing, ..first.clone() }
}

/// Long records are cut: what differs is named, not printed.
fn brief(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    if text.chars().count() <= 400 { text } else { text.chars().take(400).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Descriptor, Life, OpenFileId, TableId, Tid};
    use crate::remote::RemoteFd;

    fn inventory() -> Inventory {
        let mut all = Inventory::default();
        let descriptor = Descriptor { open_file: OpenFileId(5), cloexec: true };
        all.descriptors.insert((TableId(1), RemoteFd(0)), descriptor);
        all.threads.insert(Tid(7), Thread { xstate: vec![0; 64], ..Thread::default() });
        all
    }

    #[test]
    fn equals_have_no_differences() {
        assert_eq!(differences(&inventory(), &inventory()), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_named() {
        let (saved, mut found) = (inventory(), inventory());
        found.descriptors.values_mut().for_each(|one| one.cloexec = false);
        let thread = found.threads.get_mut(&Tid(7)).unwrap();
        thread.xstate[9] = 1;
        thread.registers.0[3] = 8;
        found.threads.insert(Tid(8), Thread::default());
        let named = differences(&saved, &found);
        let has = |words: &str| named.iter().any(|text| text.contains(words));
        assert!(has("descriptor 0 of table 1: it was") && has("cloexec: false"), "{named:?}");
        assert!(has("thread 7: register 3 was 0, is 8"), "{named:?}");
        assert!(has("thread 7: its xstate differs from byte Some(9)"), "{named:?}");
        assert!(has("thread 8 was not there") && named.len() == 4, "{named:?}");
    }

    #[test]
    fn alike_neighbours_are_one_area() {
        let area = |start, end, prot, offset| Vma {
            start,
            end,
            prot,
            shared: false,
            backing: Backing::File { open_file: OpenFileId(1), offset },
            flags: Vec::new(),
            name: None,
        };
        let split = [area(1, 3, 1, 0), area(3, 5, 1, 2), area(5, 6, 3, 4), area(6, 7, 3, 9)];
        let whole = [area(1, 5, 1, 0), area(5, 6, 3, 4), area(6, 7, 3, 9)];
        assert_eq!(joined(&split), whole);
    }

    #[test]
    fn strangers_groups_are_set_aside() {
        let process = |group, session| Process {
            parent: None,
            group,
            session,
            exit_signal: 17,
            life: Life::Running,
            name: "x".into(),
            table: TableId(0),
            space: crate::inventory::SpaceId(0),
            fs: crate::inventory::FsId(0),
            threads: Vec::new(),
        };
        let of = |one| Inventory { processes: [(Pid(7), one)].into(), ..Inventory::default() };
        assert_eq!(differences(&of(process(3, 3)), &of(process(4, 5))), Vec::<String>::new());
        assert_eq!(differences(&of(process(7, 3)), &of(process(4, 5))).len(), 1);
    }
}
