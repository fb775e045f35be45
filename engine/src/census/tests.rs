use std::sync::mpsc::channel;

use super::*;
use crate::procfs::text;
use crate::sys::peculiar::Peculiarity;

fn own_number() -> Tid {
    Tid(nix::unistd::gettid().as_raw())
}

#[test]
fn each_thread_is_seen_with_its_own_name_and_address() {
    let (tell, told) = channel();
    let (end, ended) = channel::<()>();
    let other = std::thread::Builder::new().name("somebody else".into()).spawn(move || {
        tell.send(own_number()).unwrap();
        ended.recv().unwrap_err();
    });
    let other_number = told.recv().unwrap();
    let roll = Census::prepare().unwrap().take().unwrap();
    let (row, other_row) = (&roll[&own_number()], &roll[&other_number]);
    let name = text("/proc/thread-self/comm").unwrap();
    assert_eq!(String::from_utf8_lossy(&row.name()).trim_end_matches('\0'), name.trim_end());
    assert_eq!(&other_row.name(), b"somebody else\0\0\0");
    assert_ne!(row.fact(Fact::ClearChildTid), other_row.fact(Fact::ClearChildTid));
    let shared = [Fact::Credentials, Fact::Personality, Fact::Flags, Fact::InfoFlags];
    assert!(row.is_like(other_row, &shared));
    drop(end);
    other.unwrap().join().unwrap();
}

#[test]
fn a_peculiar_thread_is_like_no_other() {
    let look = || Census::prepare().unwrap().take().unwrap()[&own_number()];
    let ordinary = look();
    for (one, fact) in [
        (Peculiarity::MachineCheck, Fact::Flags),
        (Peculiarity::NoTimeStamps, Fact::InfoFlags),
        (Peculiarity::NoProcessorNumber, Fact::InfoFlags),
    ] {
        let mut census = Census::prepare().unwrap();
        // Not every machine knows all of them.
        let Some(peculiar) = one.begin() else { continue };
        let roll = census.take().unwrap();
        drop(peculiar);
        assert!(!ordinary.is_like(&roll[&own_number()], &[fact]), "{one:?}");
        assert!(ordinary.is_like(&roll[&own_number()], &[Fact::Credentials]));
    }
    assert_eq!(look(), ordinary);
}

#[test]
fn who_has_changed_what_only_it_is_told_of_is_seen() {
    let look = || Census::prepare().unwrap().take().unwrap()[&own_number()];
    let ordinary = look();
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGURG).unwrap();
    let peculiar = look();
    nix::sys::prctl::set_pdeathsig(None).unwrap();
    assert!(!ordinary.is_like(&peculiar, &[Fact::ParentDeathSignal]));
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
    assert!(!ordinary.is_like(&look(), &[]), "another thread's directory is not its own");
}

#[test]
fn one_look_is_all() {
    let mut census = Census::prepare().unwrap();
    assert!(census.take().is_some());
    assert!(census.take().is_none());
}
