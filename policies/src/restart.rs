//! Which ends are crashes, and what follows: systemd's `Restart=on-failure`.
use std::str::FromStr;

use crate::Unaccepted;

/// `--restart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Never.
    No,
    /// After a crash.
    #[default]
    OnFailure,
    /// After a normal end too, which starts afresh.
    Always,
}

/// How a workload's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the status is passed on.
    Finished,
    /// It is over, by request.
    Stopped,
    /// It crashed, and that is that.
    Crashed,
    /// It crashed, and recovery begins.
    Recover,
    /// It ended normally, and starts from nothing.
    StartAfresh,
}

/// Signals that end programs normally: HUP, INT, PIPE, TERM (signal(7)).
const NORMAL: [i32; 4] = [1, 2, 13, 15];

impl End {
    /// Says whether this is a crash.
    #[must_use]
    pub fn is_crash(self) -> bool {
        match self {
            Self::Exited(status) => status != 0,
            Self::Killed(signal) => !NORMAL.contains(&signal),
        }
    }

    /// The status that is passed on: 128+signal when killed.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

/// Judges an end; `asked` says that somebody ended it through us.
#[must_use]
pub fn judge(end: End, asked: bool, restart: Restart) -> Verdict {
    match (asked, end.is_crash(), restart) {
        (true, _, _) => Verdict::Stopped,
        (_, true, Restart::No) => Verdict::Crashed,
        (_, true, _) => Verdict::Recover,
        (_, false, Restart::Always) => Verdict::StartAfresh,
        (_, false, _) => Verdict::Finished,
    }
}

impl FromStr for Restart {
    type Err = Unaccepted;

    fn from_str(text: &str) -> Result<Self, Unaccepted> {
        match text {
            "no" => Ok(Self::No),
            "on-failure" => Ok(Self::OnFailure),
            "always" => Ok(Self::Always),
            _ => Err(Unaccepted::new(text, "one of no, on-failure and always")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_judged_as_systemd_does() {
        use End::{Exited, Killed};
        use Restart::{Always, No, OnFailure};
        for (end, asked, restart, verdict) in [
            (Exited(0), false, OnFailure, Verdict::Finished),
            (Exited(1), false, OnFailure, Verdict::Recover),
            (Exited(1), false, No, Verdict::Crashed),
            (Exited(0), false, Always, Verdict::StartAfresh),
            (Exited(3), false, Always, Verdict::Recover),
            (Killed(9), false, OnFailure, Verdict::Recover),
            (Killed(11), false, OnFailure, Verdict::Recover),
            (Killed(15), false, OnFailure, Verdict::Finished),
            (Killed(2), false, OnFailure, Verdict::Finished),
            (Killed(1), false, OnFailure, Verdict::Finished),
            (Killed(13), false, OnFailure, Verdict::Finished),
            (Killed(9), true, Always, Verdict::Stopped),
            (Exited(1), true, OnFailure, Verdict::Stopped),
        ] {
            assert_eq!(judge(end, asked, restart), verdict, "{end:?} {asked} {restart:?}");
        }
        assert_eq!((Killed(9).status(), Exited(3).status()), (137, 3));
    }

    #[test]
    fn restart_is_read() {
        assert_eq!("always".parse(), Ok(Restart::Always));
        assert!("maybe".parse::<Restart>().unwrap_err().to_string().contains("on-failure"));
    }
}
