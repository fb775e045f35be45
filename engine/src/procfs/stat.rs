//! `/proc/PID/stat`: numbers of a process, found by their place (proc(5), `do_task_stat()`).
use crate::error::{Error, Result};

/// `PR_IO_FLUSHER` of `kernel/sys.c`: `PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE` of `include/linux/sched.h`.
pub(crate) const IO_FLUSHER: u64 = 0x0018_0000;

/// The numbers from the third on: the second, the name, may hold blanks and parentheses.
#[derive(Debug, Clone)]
pub(crate) struct Stat<'a> {
    /// The name, as the kernel cut it off.
    pub(crate) name: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Stat<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        let split = || {
            let (before, rest) = text.rsplit_once(") ")?;
            let (_, name) = before.split_once(" (")?;
            Some(Self { name, rest: rest.trim_end().split(' ').collect() })
        };
        split().ok_or_else(|| Error::Record("stat".into(), None))
    }

    /// The field with this number in proc(5).
    fn field<T: std::str::FromStr>(&self, number: usize) -> Result<T> {
        let word = number.checked_sub(3).and_then(|at| self.rest.get(at));
        let parsed = word.and_then(|word| word.parse().ok());
        parsed.ok_or_else(|| Error::Record(format!("stat: field {number}"), None))
    }

    pub(crate) fn group(&self) -> Result<i32> {
        self.field(5)
    }

    pub(crate) fn session(&self) -> Result<i32> {
        self.field(6)
    }

    /// Whether `PR_SET_IO_FLUSHER` is set.
    pub(crate) fn is_io_flusher(&self) -> Result<bool> {
        Ok(self.field::<u64>(9)? & IO_FLUSHER == IO_FLUSHER)
    }

    /// When it began, in ticks since boot.
    pub(crate) fn started(&self) -> Result<u64> {
        self.field(22)
    }

    pub(crate) fn exit_signal(&self) -> Result<i32> {
        self.field(38)
    }

    /// Where the environment ends.
    pub(crate) fn environment_end(&self) -> Result<u64> {
        self.field(51)
    }

    /// `struct prctl_mm_map`'s addresses, in its order; the sixth, `brk`, is told by brk(2) only.
    pub(crate) fn layout(&self, brk: u64) -> Result<[u64; 11]> {
        let mut words = [0; 11];
        for (word, number) in words.iter_mut().zip([26, 27, 45, 46, 47, 0, 28, 48, 49, 50, 51]) {
            *word = if number == 0 { brk } else { self.field(number)? };
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest() {
        let stat = Stat::parse("7 (a) S 1 (b) R 2 3 4 5\n").unwrap();
        assert_eq!(
            (stat.name, stat.group().unwrap(), stat.session().unwrap()),
            ("a) S 1 (b", 3, 4)
        );
        assert!(stat.exit_signal().is_err());
        assert!(Stat::parse("7 nothing").is_err());
    }

    #[test]
    fn our_own() {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap();
        let stat = Stat::parse(&text).unwrap();
        assert_eq!(stat.group().unwrap(), nix::unistd::getpgrp().as_raw());
        assert_eq!(stat.exit_signal().unwrap(), nix::libc::SIGCHLD);
        let [start_code, end_code, .., env_start, env_end] = stat.layout(5).unwrap();
        assert!(start_code < end_code && env_start < env_end);
        assert_eq!(stat.environment_end().unwrap(), env_end);
        assert_eq!(stat.layout(5).unwrap()[5], 5);
    }
}
