//! Control groups, where a process is in others than we are: its children and limits go by them.
//!
//! `/proc/PID/cgroup` tells a path for each hierarchy. What a group allows is the administrator's: it is
//! found again by its path. One that is gone is made again only where it can allow nothing; those of
//! systemd's units are systemd's to make: without them the process stays in ours, which is said.
//! Kernel: cgroups(7), `kernel/cgroup/cgroup.c`; mounts by `/proc/self/mountinfo`.
//! Deliberately absent: threads of one process in different groups.
use std::io::ErrorKind;
use std::path::PathBuf;

use super::{Attribute, Lacking, Owner, Scope, Seen};
use crate::cgroup::{Group, parse, read};
use crate::error::{Cause, Error, Obstacle, Result, kernel_io};
use crate::plan::Stage;
use crate::procfs;
use crate::remote::Reply;

pub(super) struct ControlGroups;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// Of those hierarchies only in which it is elsewhere than we are.
    #[prost(message, repeated, tag = "1")]
    groups: Vec<Group>,
}

const UNREACHABLE: Cause = Cause {
    code: "cgroups:unreachable",
    reason: "it is in a control group of a hierarchy that is not mounted here",
    remedy: "mount the hierarchy, or move the process out of the group",
};
const GONE: Cause = Cause {
    code: "cgroups:gone",
    reason: "it is gone, and with it the limits that it set",
    remedy: "make it again, with its limits",
};
const THREADS: Cause = Cause {
    code: "cgroups:threads",
    reason: "its threads are in different control groups",
    remedy: "move them into one for the checkpoint",
};
const FILE: &str = "cgroup";

impl Attribute for ControlGroups {
    const NAME: &'static str = "cgroups";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    const CAUSES: &'static [Cause] = &[UNREACHABLE, GONE, THREADS];
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        let text = seen.owner.read(FILE)?.unwrap_or_default();
        if !seen.together && different_threads(seen.owner, &text)? {
            seen.obstacle("the control groups", &THREADS);
        }
        let ours = read("/proc/self/cgroup")?;
        if text == ours {
            return Ok(State::default());
        }
        let (theirs, ours) = (parse(&text)?, parse(&ours)?);
        let groups: Vec<_> = theirs.into_iter().filter(|group| !ours.contains(group)).collect();
        let mounts = read("/proc/self/mountinfo")?;
        for group in groups.iter().filter(|group| group.folder(&mounts).is_none()) {
            let (hierarchy, path) = (&group.hierarchy, &group.path);
            seen.obstacle(&format!("the control group {hierarchy}:{path}"), &UNREACHABLE);
        }
        Ok(State { groups })
    }

    fn lacks(state: &State, owner: Owner, found: &mut Lacking) -> Result<()> {
        for (group, way) in ways(state, &read("/proc/self/cgroup")?)? {
            let object = format!("the control group {}:{}", group.hierarchy, group.path);
            match way {
                Way::None => {
                    found.obstacles.push(Obstacle { pid: Some(owner.pid()), object, cause: GONE });
                }
                Way::Ours => {
                    found.notes.push(format!("{object} of {owner} is gone: it is in ours"))
                }
                Way::There(_) | Way::Made(_) => {}
            }
        }
        Ok(())
    }

    fn restore_outside(state: &State, owner: Owner) -> Result<()> {
        for (group, way) in ways(state, &owner.read(FILE)?.unwrap_or_default())? {
            let folder = match way {
                Way::There(folder) => folder,
                Way::Made(folder) => {
                    std::fs::create_dir_all(&folder).map_err(kernel_io("mkdir"))?;
                    folder
                }
                Way::Ours => continue,
                Way::None => {
                    let object = format!("the control group {}:{}", group.hierarchy, group.path);
                    let obstacle = Obstacle { pid: Some(owner.pid()), object, cause: GONE };
                    return Err(Error::Refused(vec![obstacle]));
                }
            };
            let procs = folder.join("cgroup.procs");
            std::fs::write(procs, owner.pid().to_string()).map_err(kernel_io("write"))?;
        }
        Ok(())
    }
}

/// How a process comes into a group.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// It is there.
    There(PathBuf),
    /// It is gone, and can be made again: it allowed nothing.
    Made(PathBuf),
    /// It is gone, and its maker's to make: ours has to do.
    Ours,
    /// It is gone.
    None,
}

/// Of each group that it is not in `now`.
fn ways<'a>(state: &'a State, now: &str) -> Result<Vec<(&'a Group, Way)>> {
    if state.groups.is_empty() {
        return Ok(Vec::new());
    }
    let (now, mounts) = (parse(now)?, read("/proc/self/mountinfo")?);
    let others = state.groups.iter().filter(|group| !now.contains(group));
    Ok(others.map(|group| (group, Way::to(group, &mounts))).collect())
}

/// Threads other than the leader are looked at where there are any.
fn different_threads(owner: Owner, leader: &str) -> Result<bool> {
    let folder = owner.file("task");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(false) };
    for entry in entries.flatten().filter(|entry| *entry.file_name() != *owner.tid().to_string()) {
        match procfs::text(entry.path().join(FILE)) {
            Ok(text) if text == leader => {}
            Ok(_) => return Ok(true),
            // It has ended since: whoever is only looked at goes on meanwhile.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    || error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(error) => return Err(kernel_io("read")(error)),
        }
    }
    Ok(false)
}

impl Way {
    /// How it is come by, where these are the mounts.
    fn to(group: &Group, mounts: &str) -> Self {
        match group.folder(mounts) {
            Some(folder) if folder.exists() => Self::There(folder),
            None => Self::Ours,
            Some(_) if is_unit(group) => Self::Ours,
            Some(folder) if group.hierarchy.starts_with("name=") => Self::Made(folder),
            Some(_) => Self::None,
        }
    }
}

/// Whether it is systemd's to make.
fn is_unit(group: &Group) -> bool {
    let ends = [".scope", ".service", ".slice"];
    group.path.split('/').any(|part| ends.iter().any(|end| part.ends_with(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_set_limits_and_is_gone_is_missed_before_anything_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display();
        let mounts = format!(
            "30 1 0:2 / {root} rw - cgroup2 none rw\n31 1 0:3 / {root} rw - cgroup none name=x\n"
        );
        let way = |hierarchy: &str, path: &str| {
            Way::to(&Group { hierarchy: hierarchy.into(), path: path.into() }, &mounts)
        };
        assert_eq!(way("", "/"), Way::There(folder.path().join("")));
        assert_eq!(way("", "/limits"), Way::None);
        assert_eq!(way("name=x", "/a"), Way::Made(folder.path().join("a")));
        assert_eq!(way("", "/some.service"), Way::Ours);
        assert_eq!(way("memory", "/"), Way::Ours);
    }

    #[test]
    fn who_is_where_we_are_has_nothing_to_keep() {
        let pid = std::process::id().cast_signed();
        let owner = Owner::Process(crate::inventory::Pid(pid));
        let (mut status, mut obstacles) = (crate::procfs::Fields::parse(""), Vec::new());
        let mut seen = Seen::new(owner, &mut status, &mut obstacles);
        assert_eq!(ControlGroups::answer(&mut seen, &[]).unwrap(), State::default());
        assert_eq!(obstacles, []);
    }
}
