//! Control groups: in which ones a process is, where these are to be found, whether they are frozen.
//!
//! Kernel: cgroups(7), `/proc/PID/cgroup`, `/proc/self/mountinfo`; `Documentation/admin-guide/cgroup-v2.rst`
//! and `cgroup-v1/freezer-subsystem.rst`.
use std::fs::read_to_string;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, kernel_io};
use crate::procfs;

/// One of a process: there is one for each hierarchy.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Group {
    /// `cpu,cpuacct` or `name=x`; nothing for the unified hierarchy.
    #[prost(string, tag = "1")]
    pub(crate) hierarchy: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

/// A file of /proc; nothing on a kernel built without it.
pub(crate) fn read(path: &str) -> Result<String> {
    match procfs::text(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(kernel_io("read")),
    }
}

/// Lines like `7:cpu,cpuacct:/a/b`, and `0::/a` for the unified hierarchy.
pub(crate) fn parse(text: &str) -> Result<Vec<Group>> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (hierarchy, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Group { hierarchy, path })
    };
    let groups: Option<_> = text.lines().map(line).collect();
    groups.ok_or_else(|| Error::Record("/proc/PID/cgroup".into(), None))
}

/// Whether any of the groups in `theirs` is frozen, where we are in `ours`, which are not.
pub(crate) fn frozen(theirs: &str, ours: &str) -> Result<bool> {
    let (theirs, ours, mounts) = (parse(theirs)?, parse(ours)?, read("/proc/self/mountinfo")?);
    let others = theirs.iter().filter(|group| !ours.contains(group));
    Ok(others.filter_map(|group| group.folder(&mounts)).any(|folder| is_frozen(&folder)))
}

/// By either kind of hierarchy. In the unified one any group above may have been told to freeze.
fn is_frozen(folder: &Path) -> bool {
    let says = |folder: &Path, name: &str| read_to_string(folder.join(name)).unwrap_or_default();
    let told = folder.ancestors().any(|above| says(above, "cgroup.freeze").trim() == "1");
    told || matches!(says(folder, "freezer.state").trim(), "FREEZING" | "FROZEN")
}

impl Group {
    /// Where it can be found: in a mount of its hierarchy that has it.
    pub(crate) fn folder(&self, mounts: &str) -> Option<PathBuf> {
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
    fn a_group_is_frozen_with_those_above_it() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(root.path().join("a/cgroup.freeze"), "0\n").unwrap();
        assert!(!is_frozen(&below));
        std::fs::write(root.path().join("a/cgroup.freeze"), "1\n").unwrap();
        assert!(is_frozen(&below) && !is_frozen(root.path()));
        for (state, frozen) in [("THAWED\n", false), ("FREEZING\n", true), ("FROZEN\n", true)] {
            std::fs::write(root.path().join("freezer.state"), state).unwrap();
            assert_eq!(is_frozen(root.path()), frozen, "{state}");
        }
    }
}
