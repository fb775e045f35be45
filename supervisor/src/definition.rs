//! What a workload is: kept in the catalog, and in every snapshot, so that a snapshot can be
//! restored with nothing else left.
use std::collections::BTreeMap;

/// What becomes of one of the three standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Stream {
    /// A terminal: one pseudo-terminal of ours stands for all three.
    Terminal = 0,
    /// A pipe or socket: a pipe of ours, passed through.
    Pipe = 1,
    /// A regular file or `/dev/null`: handed on as it is.
    Handed = 2,
}

/// A command and how to run it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Definition {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Command and arguments.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub command: Vec<Vec<u8>>,
    /// Working directory.
    #[prost(bytes = "vec", tag = "3")]
    pub cwd: Vec<u8>,
    /// `NAME=value`, all of it.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub env: Vec<Vec<u8>>,
    /// Who it runs as, if not as its keeper.
    #[prost(message, optional, tag = "5")]
    pub user: Option<User>,
    /// File mode creation mask.
    #[prost(uint32, tag = "6")]
    pub umask: u32,
    /// The three standard streams.
    #[prost(enumeration = "Stream", repeated, tag = "7")]
    pub streams: Vec<i32>,
    /// `--pidns host`.
    #[prost(bool, tag = "8")]
    pub host_pids: bool,
    /// `--every`, in milliseconds; zero: never.
    #[prost(uint64, tag = "9")]
    pub every_ms: u64,
    /// `--keep-last`.
    #[prost(uint32, tag = "10")]
    pub keep_last: u32,
    /// `--restart`.
    #[prost(enumeration = "Restart", tag = "11")]
    pub restart: i32,
    /// `--restart-limit`: so many...
    #[prost(uint32, tag = "12")]
    pub restart_limit: u32,
    /// ...in so many milliseconds.
    #[prost(uint64, tag = "13")]
    pub restart_window_ms: u64,
    /// `--track`.
    #[prost(bytes = "vec", repeated, tag = "14")]
    pub track: Vec<Vec<u8>>,
    /// `--files keep`.
    #[prost(bool, tag = "15")]
    pub keep_files: bool,
    /// `--files rollback` in so many words.
    #[prost(bool, tag = "16")]
    pub force_rollback: bool,
    /// `--tcp close`.
    #[prost(bool, tag = "17")]
    pub close_tcp: bool,
    /// `--freeze-timeout`, in milliseconds.
    #[prost(uint64, tag = "18")]
    pub freeze_timeout_ms: u64,
    /// Started with `--detach`.
    #[prost(bool, tag = "19")]
    pub detached: bool,
    /// Regular files among the standard streams.
    #[prost(message, repeated, tag = "20")]
    pub handed: Vec<Handed>,
    /// `2>&1` into a pipe: one of ours stands for both, or their order would be lost.
    #[prost(bool, tag = "21")]
    pub one_output: bool,
}

/// A regular file that is a standard stream.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Handed {
    /// Which stream.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Where it was.
    #[prost(bytes = "vec", tag = "2")]
    pub path: Vec<u8>,
    /// As `F_GETFL` says: how it was opened.
    #[prost(int32, tag = "3")]
    pub flags: i32,
    /// How long it was at the beginning...
    #[prost(uint64, tag = "4")]
    pub size: u64,
    /// ...and where in it the stream stood.
    #[prost(uint64, tag = "5")]
    pub position: u64,
}

impl Handed {
    /// Whether the workload writes it.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.flags & nix::libc::O_ACCMODE != nix::libc::O_RDONLY
    }
}

/// A user and groups, as numbers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct User {
    /// User.
    #[prost(uint32, tag = "1")]
    pub user: u32,
    /// Group.
    #[prost(uint32, tag = "2")]
    pub group: u32,
    /// Supplementary groups.
    #[prost(uint32, repeated, tag = "3")]
    pub groups: Vec<u32>,
}

/// When a workload that ended is brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Restart {
    /// After a crash.
    OnFailure = 0,
    /// Never.
    No = 1,
    /// After a crash, and started afresh after a normal end.
    Always = 2,
}

impl Definition {
    /// What the options are if none is given.
    #[must_use]
    pub fn new(name: &str, command: Vec<Vec<u8>>) -> Self {
        Self {
            name: name.to_owned(),
            command,
            umask: 0o022,
            streams: vec![Stream::Handed.into(); 3],
            keep_last: 10,
            restart_limit: 10,
            restart_window_ms: 60_000,
            freeze_timeout_ms: 1_000,
            ..Self::default()
        }
    }

    /// What becomes of standard stream `number`.
    #[must_use]
    pub fn stream(&self, number: usize) -> Stream {
        let word = self.streams.get(number).copied();
        word.and_then(|word| Stream::try_from(word).ok()).unwrap_or(Stream::Handed)
    }

    /// When it is brought back.
    #[must_use]
    pub fn restarts(&self) -> policies::restart::Restart {
        match self.restart() {
            Restart::OnFailure => policies::restart::Restart::OnFailure,
            Restart::No => policies::restart::Restart::No,
            Restart::Always => policies::restart::Restart::Always,
        }
    }

    /// Sets it.
    pub fn restart_on(&mut self, rule: policies::restart::Restart) {
        self.set_restart(match rule {
            policies::restart::Restart::OnFailure => Restart::OnFailure,
            policies::restart::Restart::No => Restart::No,
            policies::restart::Restart::Always => Restart::Always,
        });
    }

    /// Standard streams that are regular files, and written: part of the state like what the program
    /// has opened by itself.
    pub fn written_handed(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.handed.iter().filter(|one| one.is_written()).map(|one| &one.path)
    }

    /// Takes over how another definition of the same workload wants it kept.
    pub fn adopt_rules(&mut self, from: &Self) {
        self.every_ms = from.every_ms;
        self.keep_last = from.keep_last;
        self.restart = from.restart;
        self.restart_limit = from.restart_limit;
        self.restart_window_ms = from.restart_window_ms;
        self.track.clone_from(&from.track);
        self.keep_files = from.keep_files;
        self.force_rollback = from.force_rollback;
        self.close_tcp = from.close_tcp;
        self.freeze_timeout_ms = from.freeze_timeout_ms;
    }

    /// Whether any standard stream is a terminal.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        (0..3).any(|number| self.stream(number) == Stream::Terminal)
    }

    /// The paths that execvp(3) would try.
    #[must_use]
    pub fn candidates(&self) -> Vec<Vec<u8>> {
        let Some(command) = self.command.first() else { return Vec::new() };
        if command.contains(&b'/') {
            return vec![command.clone()];
        }
        let path = self.variable(b"PATH").unwrap_or(b"/usr/local/bin:/usr/bin:/bin");
        let join = |dir: &[u8]| match dir {
            b"" => command.clone(),
            dir => [dir, b"/", command].concat(),
        };
        path.split(|byte| *byte == b':').map(join).collect()
    }

    fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        self.env.iter().find_map(|one| one.strip_prefix(name)?.strip_prefix(b"="))
    }

    /// Adds variables to those that are there; the later one of a name counts.
    pub fn set_variables(&mut self, more: impl IntoIterator<Item = Vec<u8>>) {
        let name = |one: &[u8]| one.split(|byte| *byte == b'=').next().unwrap_or(one).to_vec();
        let all = std::mem::take(&mut self.env).into_iter().chain(more);
        let by_name: BTreeMap<_, _> = all.map(|one| (name(&one), one)).collect();
        self.env = by_name.into_values().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_looked_for_in_the_workloads_own_path() {
        let mut it = Definition::new("a", vec![b"ls".to_vec()]);
        it.env = vec![b"PATHS=/no".to_vec(), b"PATH=/a::/b".to_vec()];
        assert_eq!(it.candidates(), [b"/a/ls".to_vec(), b"ls".to_vec(), b"/b/ls".to_vec()]);
        it.command = vec![b"./ls".to_vec()];
        assert_eq!(it.candidates(), [b"./ls".to_vec()]);
    }

    #[test]
    fn a_variable_given_replaces_the_one_inherited() {
        let mut it = Definition::new("a", Vec::new());
        it.env = vec![b"A=1".to_vec(), b"B=2".to_vec()];
        it.set_variables([b"A=3=4".to_vec()]);
        assert_eq!(it.env, [b"A=3=4".to_vec(), b"B=2".to_vec()]);
    }
}
