use super::*;
use crate::sys::here::Here;
use nix::sys::prctl::{get_pdeathsig, set_pdeathsig};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;

/// Attributes that only a tracer can read, or only the privileged put back.
const NEEDS_MORE: [&str; 4] =
    ["pending_signals", "pending_thread_signals", "credentials", "machine_check"];

/// The test's own process, without what `NEEDS_MORE`.
fn of_ourselves(owner: Owner) -> Vec<(&'static Entry, Vec<u8>)> {
    let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let (mut status, mut obstacles) = (Fields::parse(&text), Vec::new());
    let wanted = |entry: &&Entry| entry.scope == owner.scope() && !NEEDS_MORE.contains(&entry.name);
    let mut found = Vec::new();
    for entry in ATTRIBUTES.iter().filter(wanted) {
        let mut batch = Batch::default();
        (entry.ask)(owner, &mut batch).unwrap();
        let replies = Here.perform(&batch).unwrap();
        let mut seen = Seen::new(owner, &mut status, &mut obstacles);
        found.push((entry, (entry.answer)(&mut seen, &replies).unwrap()));
    }
    found
}

fn ourselves() -> [Owner; 2] {
    let pid = Pid(std::process::id().cast_signed());
    [Owner::Process(pid), Owner::Thread(pid, Tid(nix::unistd::gettid().as_raw()))]
}

#[test]
fn names_and_codes_are_unique() {
    let names: BTreeSet<_> = ATTRIBUTES.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), ATTRIBUTES.len());
    for entry in ATTRIBUTES {
        let prefix = format!("{}:", entry.name);
        assert!(entry.causes.iter().all(|cause| cause.code.starts_with(&prefix)));
    }
}

#[test]
fn putting_back_changes_nothing() {
    let _alone = crate::lock::tests::alone();
    for owner in ourselves() {
        let before = of_ourselves(owner);
        for (entry, state) in &before {
            let mut batch = Batch::default();
            (entry.restore)(state, &mut batch).unwrap();
            for reply in Here.perform(&batch).unwrap() {
                reply.value().unwrap_or_else(|error| panic!("{}: {error:?}", entry.name));
            }
            (entry.restore_outside)(state, owner).unwrap();
        }
        assert_eq!(of_ourselves(owner).len(), before.len());
        for ((entry, now), (_, then)) in of_ourselves(owner).iter().zip(&before) {
            assert_eq!(now, then, "{}", entry.name);
        }
    }
}

#[test]
fn what_was_changed_meanwhile_is_put_back() {
    let [_, thread] = ourselves();
    set_pdeathsig(Signal::SIGURG).unwrap();
    let before = of_ourselves(thread);
    set_pdeathsig(None).unwrap();
    let (entry, state) =
        before.iter().find(|(entry, _)| entry.name == "parent_death_signal").unwrap();
    let mut batch = Batch::default();
    (entry.restore)(state, &mut batch).unwrap();
    assert!(Here.perform(&batch).unwrap().iter().all(|reply| reply.value().is_ok()));
    assert_eq!(get_pdeathsig(), Ok(Some(Signal::SIGURG)));
}

#[test]
fn every_line_of_the_status_file_is_claimed() {
    let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let mut status = Fields::parse(&text);
    status::claim_the_rest(&mut status);
    assert_eq!(status.leftover().collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn a_zombie_is_still_somebodys() {
    let status = "Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 \nCapInh:\t0\nCapPrm:\t0\n\
                  CapEff:\t0\nCapBnd:\t1\nCapAmb:\t0\n";
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let [((owner, name), state), ..] = of_zombie(Pid(7), status, &limits).unwrap();
    assert_eq!((owner, name.as_str()), (Owner::Thread(Pid(7), Tid(7)), "credentials"));
    let mut batch = Batch::default();
    (find(&name).unwrap().restore)(&state, &mut batch).unwrap();
    assert!(batch.0.iter().any(|call| call.name == "setresuid"));
    assert!(of_zombie(Pid(7), "Uid:\t1\n", &limits).is_err(), "all of it is told, or nothing");
}
