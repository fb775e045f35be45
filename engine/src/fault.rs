//! Points at which we can be made to die, for suites that prove that dying there does no harm.
//!
//! A point costs one load where nothing is armed. Armed, by the environment or by [`arm`], the process
//! kills itself there by SIGKILL: no destructor runs, as when an operator or the kernel kills us.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `NAME` or `NAME:N`: die at the N-th passing (the first: 1).
pub const VARIABLE: &str = "SNAPD_FAULT";

/// All points of freezing, lending and thawing, in the order of their passing.
pub const REMOTE: &[&str] = &[
    "freeze:attached",
    "freeze:standing",
    "freeze:deadlines-kept",
    "remote:cave-written",
    "remote:steered",
    "remote:signals-blocked",
    "remote:area-mapped",
    "remote:requests-written",
    "remote:batch-counted",
    "remote:batch-done",
    "remote:steered-home",
    "remote:area-unmapped",
    "remote:mask-restored",
    "remote:registers-restored",
    "remote:cave-cleared",
    "thaw:half",
];

/// All points of making a twin, likewise.
pub const TWIN: &[&str] = &["twin:helper-born", "twin:born", "twin:stands"];

/// All points of beginning to watch over a space, likewise.
pub const TRACKER: &[&str] = &["userfaultfd:helper-born", "userfaultfd:taken"];

/// All points of a restore: one before each step, by its kind, and around the gate.
pub const RESTORE: &[&str] = &[
    "restore:fork",
    "restore:session",
    "restore:group",
    "restore:bury",
    "restore:continue",
    "restore:end",
    "restore:build",
    "restore:map",
    "restore:plant",
    "restore:settle",
    "restore:directories",
    "restore:threads",
    "restore:attributes",
    "restore:release",
    "restore:gate-shut",
    "restore:gate-open",
    "restore:let-go",
    "restore:unmapping",
];

static ARMED: AtomicBool = AtomicBool::new(false);
static WHERE: Mutex<Option<(String, u32)>> = Mutex::new(None);

/// Arms a point: `NAME` or `NAME:N` (a number behind the last colon).
pub fn arm(point: &str) {
    let numbered = point.rsplit_once(':').and_then(|(name, n)| Some((name, n.parse().ok()?)));
    let (name, count) = numbered.unwrap_or((point, 1));
    if let Ok(mut place) = WHERE.lock() {
        *place = Some((name.to_owned(), count));
        ARMED.store(true, Ordering::Release);
    }
}

/// Arms what the environment names, if anything.
pub fn arm_from_environment() {
    if let Ok(point) = std::env::var(VARIABLE) {
        arm(&point);
    }
}

/// Passes a point. Others than the engine have points too.
pub fn point(name: &'static str) {
    if ARMED.load(Ordering::Relaxed) {
        pass(name);
    }
}

fn pass(name: &'static str) {
    let Ok(mut place) = WHERE.lock() else { return };
    let Some((armed, left)) = place.as_mut().filter(|(armed, _)| armed == name) else { return };
    *left = left.saturating_sub(1);
    if *left == 0 {
        tracing::debug!(point = %armed, "dying as asked");
        if let Err(errno) = kill(Pid::this(), Signal::SIGKILL) {
            tracing::error!(%errno, "cannot die");
        }
    }
}
