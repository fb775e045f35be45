//! A process tree seen from outside: what a restore has to bring back, as text from /proc.
//!
//! Names of kernel objects (`pipe:[4711]`) are numbered in order of appearance, so that sharing is
//! compared but not inode numbers. What moves by itself (times, sizes, states) is left out; what
//! moves in a busy program is found by looking more than once ([`View::steady`]).
//! Kernel files: `/proc/PID/{status,stat,limits,maps,smaps,fd,fdinfo,environ,cmdline,auxv,...}`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::program::children;

/// Facts about each process of a tree, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    facts: BTreeMap<String, String>,
    volatile: BTreeSet<String>,
}

/// Lines of status that a restore must bring back.
const STATUS: &[&str] = &[
    "Name",
    "Umask",
    "Tgid",
    "PPid",
    "Uid",
    "Gid",
    "Groups",
    "NStgid",
    "NSpgid",
    "NSsid",
    "Threads",
    "SigPnd",
    "ShdPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Cpus_allowed",
    "Mems_allowed",
    "VmLck",
    "THP_enabled",
];

/// Small files whose whole contents must come back.
const FILES: &[&str] = &[
    "cmdline",
    "environ",
    "auxv",
    "limits",
    "oom_score_adj",
    "coredump_filter",
    "personality",
    "timerslack_ns",
];

/// Lines of status that act on nothing any more once a process is a zombie.
const OF_THE_LIVING: &[&str] = &["SigBlk", "SigIgn", "SigCgt"];

/// Keys of fdinfo that name the kernel's own numbers, or time that passes.
const FDINFO_LOOSE: &[&str] = &["mnt_id", "ino", "it_value", "Pid", "NSpid", "ticks"];

impl View {
    /// Looks once at `root` and its descendants.
    pub fn of(root: i32) -> Self {
        let mut look = Look::default();
        look.tree(root);
        Self { facts: look.facts, volatile: BTreeSet::new() }
    }

    /// Looks several times, and remembers which facts move by themselves.
    pub fn steady(root: i32) -> Self {
        let (mut view, start) = (Self::of(root), Instant::now());
        // Who has said that it is ready may have children that are about to be.
        while start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(100));
            let before = std::mem::replace(&mut view, Self::of(root));
            if before.facts.keys().eq(view.facts.keys()) {
                break;
            }
        }
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(30));
            let again = Self::of(root);
            let moved: Vec<String> = view.changed(&again).into_iter().cloned().collect();
            view.volatile.extend(moved);
        }
        view
    }

    /// What is different about `root` and stays so: while anything is, it looks again, for ten seconds. A
    /// moment passes until everybody is back in the call that they slept in (sigtimedwait(2), for one,
    /// unblocks what it waits for), and one look in a hundred finds a busy thread with a signal pending.
    pub fn differences_that_stay(&self, root: i32) -> Vec<String> {
        let start = Instant::now();
        loop {
            let differences = self.differences(&Self::of(root));
            if differences.is_empty() || start.elapsed() > Duration::from_secs(10) {
                return differences;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sentences about every fact that is not the same in `after`.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let changed = self.changed(after).into_iter().filter(|name| !self.volatile.contains(*name));
        let show = |facts: &BTreeMap<String, String>, name: &String| {
            facts.get(name).map_or("absent".into(), |value| format!("{value:?}"))
        };
        changed
            .map(|name| {
                format!("{name}: {} became {}", show(&self.facts, name), show(&after.facts, name))
            })
            .collect()
    }

    /// A fact, for tests that look at one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// How many facts there are whose name contains this.
    pub fn count(&self, part: &str) -> usize {
        self.facts.keys().filter(|name| name.contains(part)).count()
    }

    fn changed<'a>(&'a self, other: &'a Self) -> BTreeSet<&'a String> {
        let names = self.facts.keys().chain(other.facts.keys());
        names.filter(|name| self.facts.get(*name) != other.facts.get(*name)).collect()
    }
}

/// A look in progress.
#[derive(Default)]
struct Look {
    facts: BTreeMap<String, String>,
    names: HashMap<String, String>,
}

impl Look {
    fn tree(&mut self, pid: i32) {
        self.process(pid);
        for child in children(pid) {
            self.tree(child);
        }
    }

    fn process(&mut self, pid: i32) {
        let at = format!("/proc/{pid}");
        let offspring = children(pid);
        self.note(&format!("{pid} children"), format!("{offspring:?}"));
        for file in FILES {
            self.note(&format!("{pid} {file}"), read(&format!("{at}/{file}")));
        }
        for link in ["cwd", "root", "exe"] {
            self.note(&format!("{pid} {link}"), target(&format!("{at}/{link}")));
        }
        self.threads(pid);
        self.areas(pid);
        self.descriptors(pid);
    }

    fn threads(&mut self, pid: i32) {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
        for task in tasks.flatten() {
            let tid = task.file_name().to_string_lossy().into_owned();
            let status = read(&task.path().join("status").to_string_lossy());
            let dead = status.lines().any(|line| line.starts_with("State:\tZ"));
            for (key, value) in status.lines().filter_map(|line| line.split_once(':')) {
                if STATUS.contains(&key) && !(dead && OF_THE_LIVING.contains(&key)) {
                    self.note(&format!("{pid}/{tid} status {key}"), value.trim().into());
                }
            }
            let stat = read(&task.path().join("stat").to_string_lossy());
            let fields: Vec<&str> = stat
                .rsplit_once(") ")
                .map(|(_, rest)| rest.split(' ').collect())
                .unwrap_or_default();
            // proc(5), after pid and comm: pgrp 2, session 3, tty 4, priority 15, nice 16, policy 38.
            for (name, index) in [
                ("pgrp", 2),
                ("session", 3),
                ("tty", 4),
                ("priority", 15),
                ("nice", 16),
                ("policy", 38),
            ] {
                let value = fields.get(index).copied().unwrap_or_default();
                self.note(&format!("{pid}/{tid} {name}"), value.into());
            }
        }
    }

    fn areas(&mut self, pid: i32) {
        let text = read(&format!("/proc/{pid}/smaps"));
        let mut name = String::new();
        for line in text.lines() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                // `sd` is the soft-dirty tracker's, `um`/`uw` are userfaultfd's: not the program's.
                let kept: Vec<&str> = flags
                    .split_whitespace()
                    .filter(|flag| !matches!(*flag, "sd" | "um" | "uw"))
                    .collect();
                self.note(&format!("{name} flags"), kept.join(" "));
            } else if line
                .split_once(' ')
                .is_some_and(|(range, _)| range.contains('-') && !range.ends_with(':'))
            {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [range, protection, offset] =
                    [0, 1, 2].map(|at| words.get(at).copied().unwrap_or_default());
                name = format!("{pid} area {range}");
                let path = words.get(5..).unwrap_or_default().join(" ");
                self.note(&name.clone(), format!("{protection} {offset} {path}"));
            }
        }
    }

    fn descriptors(&mut self, pid: i32) {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return };
        let mut numbers: Vec<u32> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        for number in numbers {
            let link = target(&format!("/proc/{pid}/fd/{number}"));
            let link = self.nameless(&link);
            self.note(&format!("{pid} fd {number}"), link);
            let info = read(&format!("/proc/{pid}/fdinfo/{number}"));
            let kept: Vec<String> =
                info.lines().filter(|line| !loose(line)).map(|line| self.counted(line)).collect();
            self.note(&format!("{pid} fd {number} info"), kept.join("; "));
        }
    }

    /// `pipe:[4711]` becomes `pipe #2`: the second pipe that was met. A file opened by `O_TMPFILE` is
    /// called by its inode number too.
    fn nameless(&mut self, link: &str) -> String {
        let kind = match (link.split_once(":["), link.split_once("/#")) {
            (Some((kind, _)), _) => kind,
            (None, Some((folder, number))) if number.ends_with(" (deleted)") => folder,
            _ => return link.into(),
        };
        let met = self.names.len();
        self.names.entry(link.into()).or_insert_with(|| format!("{kind} #{met}")).clone()
    }

    /// An eventfd's number in the kernel likewise: it tells which descriptors share one.
    fn counted(&mut self, line: &str) -> String {
        if line.starts_with("eventfd-id:") {
            self.nameless(&line.replacen(": ", ":[", 1))
        } else {
            line.into()
        }
    }

    fn note(&mut self, name: &str, value: String) {
        self.facts.insert(name.into(), value);
    }
}

fn loose(line: &str) -> bool {
    // epoll's lines name inodes and devices of their targets; locks name them too.
    line.split_once(':')
        .is_some_and(|(key, _)| FDINFO_LOOSE.contains(&key) || key == "tfd" || key == "lock")
}

fn read(path: &str) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn target(link: &str) -> String {
    fs::read_link(Path::new(link))
        .map_or_else(|_| "unreadable".into(), |path| path.to_string_lossy().into_owned())
}
