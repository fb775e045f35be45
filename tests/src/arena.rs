//! Where a trial runs: its test, run again as process 1 of new namespaces.
//!
//! The test function is entered twice. Outside, it starts its own executable through unshare(1),
//! for this one test, with a limit on its time. Inside, it runs the body. Leaving the namespace
//! kills whatever is left in it, so no test can leave processes behind or meet another's PIDs.
//! Deliberately absent: network and user namespaces, which the engine does not restore yet.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::Lab;

/// Names the folder of the trial to the test inside.
const FOLDER: &str = "SNAPD_LAB";

/// What whoever runs the tests left open is no part of a trial: in a subject, the other end of such
/// a pipe would be outside the tree, and every dump refused.
const CLOSE_INHERITED: &str = r#"for fd in /proc/$$/fd/*; do
    n=${fd##*/}
    if [ "$n" -gt 2 ] && [ "$n" != 255 ]; then eval "exec $n>&-"; fi
done
exec "$@""#;

/// Whether other trials may run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// They may.
    Shared,
    /// They may not: this one measures time.
    Alone,
}

/// Runs `body` in a lab; see [`crate::trial`], which is how tests say it.
pub fn inside(name: &str, seconds: u64, crowd: Crowd, body: impl FnOnce(&Lab)) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return perform(PathBuf::from(folder), body);
    }
    // Many times as much is done then.
    let times = if crate::full() { 10 } else { 1 };
    conduct(name, Duration::from_secs(seconds * times), crowd);
}

/// Inside: the body, and the mark that it was reached and passed.
fn perform(folder: PathBuf, body: impl FnOnce(&Lab)) {
    assert_eq!(std::process::id(), 1, "{FOLDER} is for the lab itself to set");
    // Programs' sessions have a leader that exists in this namespace.
    let _ = nix::unistd::setsid();
    let lab = Lab { folder };
    if let Err(failure) = catch_unwind(AssertUnwindSafe(|| body(&lab))) {
        crate::program::print_all_output(lab.folder());
        let _ = fs::write(lab.path("reason"), reason(&*failure));
        resume_unwind(failure);
    }
    fs::write(lab.path("passed"), "").expect("the mark can be written");
}

/// What a panic says.
fn reason(failure: &(dyn std::any::Any + Send)) -> &str {
    let owned = failure.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

/// Outside: the same test again, in namespaces of its own.
fn conduct(name: &str, limit: Duration, crowd: Crowd) {
    assert!(nix::unistd::geteuid().is_root(), "privileged tests need root: use tests/run");
    let _turn = take_turn(crowd);
    let folder = tempfile::Builder::new().prefix("snapd-lab-").tempdir().expect("a folder");
    // Programs of other users have to reach their files.
    open_to_all(folder.path());
    let output = folder.path().join("trial.out");
    let mut child = spawn(name, folder.path(), &output);
    let status = wait(&mut child, limit);
    let passed =
        status.is_some_and(|status| status.success()) && folder.path().join("passed").exists();
    if passed {
        return;
    }
    eprintln!("{}", fs::read_to_string(&output).unwrap_or_default());
    let reason = fs::read_to_string(folder.path().join("reason")).unwrap_or_default();
    if std::env::var_os("SNAPD_LAB_KEEP").is_some() {
        eprintln!("kept: {}", folder.keep().display());
    }
    match status {
        None => panic!("{name}: not done within {limit:?}"),
        Some(status) => panic!("{name}: failed ({status}), and said all of the above\n{reason}"),
    }
}

fn spawn(name: &str, folder: &Path, output: &Path) -> Child {
    let test = name.split_once("::").map_or(name, |(_crate, test)| test);
    let out = File::create(output).expect("the output's file");
    let err = out.try_clone().expect("a second descriptor");
    Command::new("bash")
        .args(["-c", CLOSE_INHERITED, "bash", "unshare"])
        .args(["--pid", "--mount", "--ipc", "--fork", "--mount-proc", "--kill-child", "--"])
        .arg(std::env::current_exe().expect("our own path"))
        .args([test, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .expect("unshare(1) of util-linux")
}

fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return Some(status);
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One lock for all test processes: shared by those that may run together.
fn take_turn(crowd: Crowd) -> Flock<File> {
    let path = std::env::temp_dir().join("snapd-lab.lock");
    let file = File::options().create(true).append(true).open(path).expect("the lab's lock");
    let how = match crowd {
        Crowd::Shared => FlockArg::LockShared,
        Crowd::Alone => FlockArg::LockExclusive,
    };
    Flock::lock(file, how).map_err(|(_, errno)| errno).expect("a lock")
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("our own folder");
}
