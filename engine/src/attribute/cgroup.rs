//! Control groups, where a process is in others than we are: its children and limits go by them.
//!
//! `/proc/PID/cgroup` tells a path for each hierarchy. What a group allows is the administrator's: it is
//! found again by its path. One that is gone is made again only where it can allow nothing; those of
//! systemd's units are systemd's to make: without them the process stays in ours, which is said.
//! Kernel: cgroups(7), `kernel/cgroup/cgroup.c`; mounts by `/proc/self/mountinfo`.
//! Deliberately absent: threads of one process in different groups.
use std::io::ErrorKind;
use std::path::PathBuf;

use super::{Attribute, Owner, Scope, Seen};
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

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Group {
    /// `cpu,cpuacct` or `name=x`; nothing for the unified hierarchy.
    #[prost(string, tag = "1")]
    hierarchy: String,
    #[prost(string, tag = "2")]
    path: String,
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
        if different_threads(seen.owner, &text)? {
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

    fn restore_outside(state: &State, owner: Owner) -> Result<()> {
        if state.groups.is_empty() {
            return Ok(());
        }
        let now = parse(&owner.read(FILE)?.unwrap_or_default())?;
        let mounts = read("/proc/self/mountinfo")?;
        for group in state.groups.iter().filter(|group| !now.contains(group)) {
            let (hierarchy, path) = (&group.hierarchy, &group.path);
            let folder = group.folder(&mounts).filter(|at| at.exists() || !group.is_unit());
            let Some(folder) = folder else {
                tracing::warn!(%owner, hierarchy, path, "its control group is gone: it is in ours");
                continue;
            };
            if !folder.exists() {
                if !hierarchy.starts_with("name=") {
                    let object = format!("the control group {hierarchy}:{path}");
                    let obstacle = Obstacle { pid: Some(owner.pid()), object, cause: GONE };
                    return Err(Error::Refused(vec![obstacle]));
                }
                std::fs::create_dir_all(&folder).map_err(kernel_io("mkdir"))?;
            }
            let procs = folder.join("cgroup.procs");
            std::fs::write(procs, owner.pid().to_string()).map_err(kernel_io("write"))?;
        }
        Ok(())
    }
}

fn read(path: &str) -> Result<String> {
    match procfs::text(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(kernel_io("read")),
    }
}

/// Threads other than the leader are looked at where there are any.
fn different_threads(owner: Owner, leader: &str) -> Result<bool> {
    let folder = owner.file("task");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(false) };
    for entry in entries.flatten().filter(|entry| *entry.file_name() != *owner.tid().to_string()) {
        let path = entry.path().join(FILE);
        if procfs::text(path).map_err(kernel_io("read"))? != leader {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lines like `7:cpu,cpuacct:/a/b`, and `0::/a` for the unified hierarchy.
fn parse(text: &str) -> Result<Vec<Group>> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (hierarchy, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Group { hierarchy, path })
    };
    let groups: Option<_> = text.lines().map(line).collect();
    groups.ok_or_else(|| Error::Record("/proc/PID/cgroup".into(), None))
}

impl Group {
    fn is_unit(&self) -> bool {
        let ends = [".scope", ".service", ".slice"];
        self.path.split('/').any(|part| ends.iter().any(|end| part.ends_with(end)))
    }

    /// Where it can be found: in a mount of its hierarchy that has it.
    fn folder(&self, mounts: &str) -> Option<PathBuf> {
        mounts.lines().find_map(|line| {
            let (own, rest) = line.split_once(" - ")?;
            let mut own = own.split(' ').skip(3);
            let (root, at) = (own.next()?, own.next()?);
            let mut rest = rest.split(' ');
            let (sort, options) = (rest.next()?, rest.nth(1)?);
            let options: Vec<_> = options.split(',').collect();
            let mut names = self.hierarchy.split(',');
            let ours = match sort {
                "cgroup2" => self.hierarchy.is_empty(),
                "cgroup" => !self.hierarchy.is_empty() && names.all(|name| options.contains(&name)),
                _ => false,
            };
            let below = self.path.strip_prefix(root.trim_end_matches('/')).filter(|_| ours)?;
            Some(PathBuf::from(at).join(below.trim_start_matches('/')))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_in_the_mounts_of_their_hierarchies() {
        let text = "3:cpu,cpuacct:/a/b\n1:name=x:/c:d\n0::/\n";
        let groups = parse(text).unwrap();
        assert_eq!(groups[1].path, "/c:d");
        let mounts = "30 1 0:2 / /v2 rw - cgroup2 none rw\n\
                      31 1 0:3 /a /v1 rw,nosuid shared:5 - cgroup none rw,cpuacct,cpu\n";
        let folders = groups.iter().map(|group| group.folder(mounts));
        let expected = [Some("/v1/b"), None, Some("/v2/")].map(|folder| folder.map(PathBuf::from));
        assert_eq!(folders.collect::<Vec<_>>(), expected);
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn who_is_where_we_are_has_nothing_to_keep() {
        let pid = std::process::id().cast_signed();
        let owner = Owner::Process(crate::inventory::Pid(pid));
        let (mut status, mut obstacles) = (crate::procfs::Fields::parse(""), Vec::new());
        let mut seen = Seen { owner, status: &mut status, obstacles: &mut obstacles };
        assert_eq!(ControlGroups::answer(&mut seen, &[]).unwrap(), State::default());
        assert_eq!(obstacles, []);
    }
}
