//! The few words of /proc by which tasks are found and judged while they are being stopped.
//!
//! Depends on `/proc/PID/{stat,status,auxv,maps}` and `/proc/PID/task/TID/children`. What is gone
//! meanwhile reads as empty: whoever has ended is told by wait(2), not from here.
use crate::inventory::{Pid, Tid};
use crate::procfs::{bytes, text};

/// `PF_KTHREAD` of `include/linux/sched.h`, as field 9 of stat shows it.
const PF_KTHREAD: u64 = 0x0020_0000;
/// Fields of `/proc/PID/stat`, counted from 1 as in proc(5); the third is the first behind the name.
const STATE: usize = 3;
const PARENT: usize = 4;
const FLAGS: usize = 9;
const PROCESSOR: usize = 39;
const EXIT_CODE: usize = 52;

/// The threads of a process.
pub(super) fn threads(pid: Pid) -> Vec<Tid> {
    let mut threads: Vec<_> = numbers(&format!("/proc/{pid}/task")).map(Tid).collect();
    threads.sort_unstable();
    threads
}

/// All processes that we can see.
pub(super) fn processes() -> Vec<Pid> {
    numbers("/proc").map(Pid).collect()
}

fn numbers(folder: &str) -> impl Iterator<Item = i32> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// How many threads a forest has besides the leaders, for as long as there are not `enough`; only of so many
/// processes, and by what they are now.
pub(crate) fn other_threads(roots: &[Pid], enough: usize) -> usize {
    const PROCESSES: usize = 64;
    let (mut found, mut next) = (0, 0);
    let mut forest = roots.to_vec();
    while let Some(pid) = forest.get(next).copied().filter(|_| next < PROCESSES) {
        next += 1;
        let threads = threads(pid);
        found += threads.len().saturating_sub(1);
        if found >= enough {
            break;
        }
        forest.extend(threads.into_iter().flat_map(|tid| children(pid, tid)));
    }
    found
}

/// The processes that a thread started (or adopted) and that have not been reaped.
pub(super) fn children(pid: Pid, tid: Tid) -> Vec<Pid> {
    let found = text(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
    found.split_ascii_whitespace().filter_map(|number| number.parse().ok()).map(Pid).collect()
}

/// A stat file of /proc, by field.
#[derive(Debug, Clone, Default)]
pub(super) struct Stat(String);

impl Stat {
    /// Of a process as a whole, with the status that its parent will be told.
    pub(super) fn of_process(pid: Pid) -> Self {
        Self::parse(&text(format!("/proc/{pid}/stat")).unwrap_or_default())
    }

    /// Of a thread; a dead one has no fields. Not `/proc/TID/stat`: that sums up all threads of its process,
    /// so that asking for each of a thousand took longer than all else.
    pub(super) fn of(tid: Tid) -> Self {
        let found = text(format!("/proc/{tid}/task/{tid}/stat")).unwrap_or_default();
        Self::parse(&found)
    }

    fn parse(text: &str) -> Self {
        Self(text.rsplit_once(") ").map_or("", |(_, rest)| rest).to_owned())
    }

    fn field(&self, number: usize) -> Option<&str> {
        self.0.split_ascii_whitespace().nth(number - STATE)
    }

    fn number<T: std::str::FromStr>(&self, number: usize) -> Option<T> {
        self.field(number)?.parse().ok()
    }

    pub(super) fn state(&self) -> &str {
        self.field(STATE).unwrap_or("X")
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state(), "Z" | "X")
    }

    pub(super) fn parent(&self) -> Option<Pid> {
        self.number(PARENT).map(Pid)
    }

    pub(super) fn is_kernel_thread(&self) -> bool {
        self.number(FLAGS).is_some_and(|flags: u64| flags & PF_KTHREAD != 0)
    }

    pub(super) fn processor(&self) -> Option<usize> {
        self.number(PROCESSOR)
    }

    pub(super) fn exit_code(&self) -> i32 {
        self.number(EXIT_CODE).unwrap_or_default()
    }
}

/// Lines of `/proc/TID/status`.
#[derive(Debug, Clone, Default)]
pub(super) struct Status(String);

impl Status {
    pub(super) fn of(tid: Tid) -> Self {
        Self(text(format!("/proc/{tid}/status")).unwrap_or_default())
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    fn value(&self, key: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| *found == key).map(|(_, value)| value.trim())
    }

    /// A decimal number.
    pub(super) fn number(&self, key: &str) -> Option<i32> {
        self.value(key)?.parse().ok()
    }

    /// A set of signals.
    pub(super) fn signals(&self, key: &str) -> u64 {
        self.value(key).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default()
    }

    /// Whether its user may soon have no more signals waiting: those that do not fit say nothing of
    /// their senders.
    pub(super) fn queue_is_full(&self) -> bool {
        /// Others of the same user may send some meanwhile.
        const SPARE: u64 = 64;
        let of = self.value("SigQ").and_then(|value| value.split_once('/'));
        let numbers = of.and_then(|(used, limit)| Some((used.parse().ok()?, limit.parse().ok()?)));
        numbers.is_some_and(|(used, limit): (u64, u64)| used.saturating_add(SPARE) > limit)
    }

    /// Whether its system calls are filtered.
    pub(super) fn is_filtered(&self) -> bool {
        self.number("Seccomp").is_some_and(|mode| mode != 0)
    }

    /// In how many PID namespaces it has a number: ours, and any below.
    pub(super) fn levels(&self) -> usize {
        self.value("NSpid").map_or(1, |numbers| numbers.split_ascii_whitespace().count())
    }

    /// The name, for people.
    pub(super) fn name(&self) -> &str {
        self.value("Name").unwrap_or("?")
    }
}

/// A line of `/proc/PID/maps`: where, and the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Private, and to be read and executed only.
    pub(super) code: bool,
    pub(super) name: String,
}

/// What is mapped, in ascending order.
pub(super) fn maps(pid: Pid) -> Vec<Mapped> {
    let found = text(format!("/proc/{pid}/maps")).unwrap_or_default();
    found.lines().filter_map(mapped).collect()
}

fn mapped(line: &str) -> Option<Mapped> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let address = |hex| u64::from_str_radix(hex, 16).ok();
    let mode = words.next()?;
    let name = words.nth(3).unwrap_or_default().trim().to_owned();
    let code = mode.starts_with("r-xp");
    Some(Mapped { start: address(start)?, end: address(end)?, code, name })
}

/// Where the vdso is, by the auxiliary vector: cheaper than the maps.
pub(super) fn vdso(pid: Pid) -> Option<u64> {
    /// `AT_SYSINFO_EHDR` of `arch/x86/include/uapi/asm/auxvec.h`.
    const SYSINFO_EHDR: u64 = 33;
    let vector = bytes(format!("/proc/{pid}/auxv")).ok()?;
    let words: Vec<_> = vector.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    words.as_chunks().0.iter().find_map(|[key, value]| (*key == SYSINFO_EHDR).then_some(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_brackets_do_not_shift_the_fields() {
        let stat = Stat::parse("7 (a) b (c) S 3 7 7 0 -1 4194560 0");
        assert_eq!((stat.state(), stat.parent()), ("S", Some(Pid(3))));
        assert!(!stat.is_kernel_thread() && !stat.is_dead());
        assert!(Stat::parse("").is_dead());
    }

    #[test]
    fn a_line_of_maps_gives_its_name_even_with_spaces() {
        let line = "7f00-7f10 r-xp 00000000 fe:00 12                   /a b";
        let expected = Mapped { start: 0x7f00, end: 0x7f10, code: true, name: "/a b".into() };
        assert_eq!(mapped(line), Some(expected));
    }

    #[test]
    fn signal_sets_of_a_status_are_hexadecimal() {
        let status = Status("Name:\tx\nTgid:\t12\nSigCgt:\t0000000008000000\n".into());
        assert_eq!(status.signals("SigCgt"), 1 << 27);
        assert_eq!((status.number("Tgid"), status.name()), (Some(12), "x"));
    }

    /// A signal that finds no room arrives without its sender, and one from another PID namespace with
    /// another number: a checkpoint of such a program used to wait for ever.
    #[test]
    fn a_full_queue_and_a_namespace_below_are_seen() {
        let status = |text: &str| Status(text.into());
        assert!(status("SigQ:\t10/0\n").queue_is_full());
        assert!(!status("SigQ:\t0/96606\n").queue_is_full());
        assert_eq!(status("NSpid:\t12\t1\n").levels(), 2);
        assert_eq!(status("NSpid:\t12\n").levels(), 1);
    }
}
