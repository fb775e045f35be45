//! The lab: what end-to-end tests share.
//!
//! A test states a [`trial!`]: it runs as process 1 of its own PID, mount and IPC namespaces, so that
//! the PIDs of an image are free, what an undump detaches becomes a child of the test, and nothing
//! outlives it whatever goes wrong. In it a [`Lab`] starts programs, calls snapd, and looks at the
//! programs from outside ([`View`]).
//!
//! There is no skipping: where a trial cannot run it fails and says what is missing.
#![doc = "Kernel files: `/proc/PID/{stat,status,maps,fd}`; namespaces by unshare(1)."]

mod arena;
mod image;
mod program;
mod snapd;
mod subjects;
mod view;
mod workload;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use self::arena::{Crowd, inside};
pub use self::image::altered;
pub use self::program::{Ending, Program};
pub use self::snapd::{Outcome, Running, Snapd, binary};
pub use self::view::View;
pub use self::workload::Workload;

/// Defines a test that runs inside a lab of its own: its name, the seconds it may take, its body.
/// With `alone` before the name, no other trial runs at the same time: for those that measure time.
#[macro_export]
macro_rules! trial {
    ($(#[$meta:meta])* alone $name:ident, $seconds:expr, $body:expr) => {
        $crate::trial!(@ $(#[$meta])* $name, $seconds, $crate::Crowd::Alone, $body);
    };
    ($(#[$meta:meta])* $name:ident, $seconds:expr, $body:expr) => {
        $crate::trial!(@ $(#[$meta])* $name, $seconds, $crate::Crowd::Shared, $body);
    };
    (@ $(#[$meta:meta])* $name:ident, $seconds:expr, $crowd:expr, $body:expr) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            let name = concat!(module_path!(), "::", stringify!($name));
            $crate::inside(name, $seconds, $crowd, $body);
        }
    };
}

/// One test's folder, programs and calls of snapd.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
}

impl Lab {
    /// The folder of this trial; removed when it is over.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A subject's executable, built once from `tests/subjects/`.
    pub fn subject(&self, file: &str) -> PathBuf {
        subjects::built(file)
    }

    /// Starts a program in a session of its own, with its output in a file, and waits until it says READY.
    pub fn start<S: AsRef<str>>(&self, command: &[S]) -> Program {
        let program = self.start_unready(command);
        program.wait_for("READY");
        program
    }

    /// Likewise, for programs that do not say when they are ready.
    pub fn start_unready<S: AsRef<str>>(&self, command: &[S]) -> Program {
        Program::start(&self.folder, command)
    }

    /// Builds and starts a subject.
    pub fn start_subject(&self, file: &str, args: &[&str]) -> Program {
        let path = self.subject(file);
        let mut command = vec![path.to_str().expect("paths of ours are text")];
        command.extend(args);
        self.start(&command)
    }

    /// snapd, with its state directory in the folder.
    pub fn snapd(&self) -> Snapd {
        Snapd::new(&self.folder)
    }

    /// Which tracker this kernel has.
    pub fn tracker(&self) -> &'static str {
        let doctor = self.snapd().call(&["doctor", "--json"]).json();
        let features = doctor["features"].as_array().unwrap();
        let marks = features.iter().find(|feature| feature["name"] == "soft-dirty").unwrap();
        if marks["available"].as_bool().unwrap() { "soft-dirty" } else { "write-protect" }
    }

    /// Dumps the tree of `program` into `images`; it is dead then, and its images are durable.
    pub fn dump(&self, program: &Program, images: &str) -> Outcome {
        let pid = program.pid().to_string();
        let outcome = self.snapd().call(&["dump", "--pid", &pid, "--images", images]).ok();
        assert_eq!(program.ending(), Ending::Signal(9), "dump ends the tree by KILL");
        outcome
    }

    /// Brings back what `program` was when it was dumped into `images`.
    pub fn undump(&self, program: &Program, images: &str) -> Outcome {
        program::reap_strangers();
        // The oracle: all of it equals the image, field for field, before it runs on.
        let how = ["undump", "--images", images, "--detach", "--verify"];
        let outcome = self.snapd().call(&how).ok();
        assert!(program.is_alive(), "undump said done, but {} does not run", program.pid());
        outcome
    }

    /// Likewise, giving back the program.
    pub fn undumped(&self, program: Program, images: &str) -> Program {
        self.undump(&program, images);
        program
    }

    /// All processes of the trial that run, but the test itself and what is being killed.
    pub fn processes(&self) -> Vec<i32> {
        program::reap_strangers();
        program::everybody()
    }

    /// Kills all of them.
    pub fn kill_everything(&self) {
        for pid in program::everybody() {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
        eventually("the end of everything", Duration::from_secs(10), || {
            self.processes().is_empty()
        });
    }

    /// Dump, undump, and the view from outside compared.
    pub fn round_trip(&self, program: &Program, images: &str) {
        let before = View::steady(program.pid());
        self.dump(program, images);
        self.undump(program, images);
        let differences = before.differences_that_stay(program.pid());
        assert!(differences.is_empty(), "seen from outside:\n{}", differences.join("\n"));
    }
}

/// Whether the full counts of the acceptance are asked for (`SNAPD_FULL=1`), instead of CI's.
pub fn full() -> bool {
    std::env::var_os("SNAPD_FULL").is_some_and(|value| value == "1")
}

/// `full` of them with `SNAPD_FULL=1`, else `few`.
pub fn count(few: usize, many: usize) -> usize {
    if full() { many } else { few }
}

/// Waits until `condition` holds; fails with `what` when it does not within `limit`.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All regular files below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder that exists").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
