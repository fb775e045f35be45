//! Calling snapd, the command: the binary under test, with a limit on its time.
//!
//! The binary is `SNAPD_BIN`, or the one that cargo built beside this test. A call's output goes to
//! files, not pipes: what it detaches may keep them open.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a call may take unless a test says otherwise: who takes longer hangs. Beside busy programs a call
/// may wait for a processor for a minute.
const LIMIT: Duration = Duration::from_secs(300);

/// A way to call snapd in a trial's folder.
#[derive(Debug)]
pub struct Snapd {
    folder: PathBuf,
    limit: Duration,
    user: Option<String>,
    log: Option<PathBuf>,
}

/// A call of snapd that goes on.
#[derive(Debug)]
pub struct Running {
    child: Child,
    base: PathBuf,
    line: String,
    start: Instant,
}

/// What came of a call.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status, 128 + signal when one killed it.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    line: String,
}

/// The snapd under test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SNAPD_BIN") {
        return PathBuf::from(path);
    }
    let exe = std::env::current_exe().expect("our own path");
    let path = exe.parent().and_then(Path::parent).expect("target/PROFILE/deps").join("snapd");
    assert!(
        path.exists(),
        "{} is missing: `cargo build -p cli` first, or set SNAPD_BIN",
        path.display()
    );
    path
}

impl Snapd {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), limit: LIMIT, user: None, log: None }
    }

    /// Another limit on its time.
    #[must_use]
    pub fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// As another user, without privileges.
    #[must_use]
    pub fn as_user(mut self, user: &str) -> Self {
        self.user = Some(user.into());
        self
    }

    /// With each step that the engine takes written to a file.
    #[must_use]
    pub fn telling(mut self, file: &Path) -> Self {
        self.log = Some(file.to_owned());
        self
    }

    /// The command itself, for callers with needs of their own.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.user {
            None => Command::new(binary()),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", "nogroup", "--clear-groups", "--"]);
                command.arg(binary());
                command
            }
        };
        command.args(args).current_dir(&self.folder).env("SNAPD_DIR", self.folder.join("state"));
        command.env("NO_COLOR", "1").env_remove("SNAPD_LAB");
        if let Some(log) = &self.log {
            command.env("SNAPD_LOG", "engine=trace").env("SNAPD_LOG_FILE", log);
        }
        command
    }

    /// Calls it and waits for its end.
    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Outcome {
        self.spawn(args).wait(self.limit)
    }

    /// Calls it without waiting.
    #[track_caller]
    pub fn spawn(&self, args: &[&str]) -> Running {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = self.folder.join(format!("snapd{number}"));
        let file = |end| File::create(base.with_extension(end)).expect("a file for its output");
        let start = Instant::now();
        let child = self
            .command(args)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
        Running { child, base, line: format!("snapd {}", args.join(" ")), start }
    }
}

impl Running {
    /// Its PID.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("PIDs are positive")
    }

    /// Its standard output so far.
    pub fn stdout(&self) -> String {
        self.said("out")
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// Kills it with SIGKILL, whatever it is doing, and waits until it is gone.
    pub fn kill(mut self) -> Outcome {
        let _ = self.child.kill();
        self.wait(LIMIT)
    }

    /// Waits for its end: so long from now on, however long it has been running.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Outcome {
        let until = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("`{}` hangs: not done within {limit:?}\n{}", self.line, self.said("err"));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let took = self.start.elapsed();
        let (stdout, stderr) = (self.said("out"), self.said("err"));
        for end in ["out", "err"] {
            let _ = fs::remove_file(self.base.with_extension(end));
        }
        Outcome { code, stdout, stderr, took, line: self.line.clone() }
    }

    fn said(&self, end: &str) -> String {
        let bytes = fs::read(self.base.with_extension(end)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Outcome {
    /// Expects that it is done.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Expects an exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        let Self { stdout, stderr, line, .. } = &self;
        assert!(
            self.code == code,
            "`{line}` exits with {}, not {code}\n{stdout}{stderr}",
            self.code
        );
        self
    }

    /// Expects words on its standard error, whatever their case.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let stderr = self.stderr.to_lowercase();
        for word in words {
            let found = stderr.contains(&word.to_lowercase());
            assert!(found, "`{}` does not say {word:?}:\n{}", self.line, self.stderr);
        }
        self
    }

    /// Its standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|error| panic!("`{}`: {error}\n{}", self.line, self.stdout))
    }
}
