//! All of a snapshot is of one instant, whoever knows what has changed and whoever holds it meanwhile.
//!
//! The subject is never at rest, and its sums are off for good once a page, a process or a pipe comes back
//! of another instant than the rest. How much it has and writes decides who holds its memory; each trial
//! makes sure that it was the one that it is about. `SNAPD_RESTORES` says how often each restores.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::{Lab, Outcome, Workload, count, eventually, trial};

fn restores() -> usize {
    let asked = std::env::var("SNAPD_RESTORES").ok();
    asked.map_or_else(|| count(4, 500), |text| text.parse().expect("a number"))
}

/// What snapd does, step by step.
struct Log(PathBuf);

impl Log {
    fn of(lab: &Lab) -> Self {
        Self(lab.path("log"))
    }

    fn file(&self) -> &Path {
        &self.0
    }

    /// How often a step was taken.
    fn count(&self, step: &str) -> usize {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter(|line| line.contains(&format!("{step}: close"))).count()
    }
}

/// Who holds the memory of the subject while it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// A copy of ours, made in the pause.
    Copy,
    /// Twins of its processes.
    Twins,
    /// A copy of ours, most of which was made before the pause, if the tracker can tell so early.
    CopyAhead,
    /// Itself: it stands until all is written.
    Itself,
}

impl Holder {
    /// What the subject has to be like.
    fn argument(self) -> &'static str {
        match self {
            Self::Copy => "small",
            Self::Twins | Self::Itself => "medium",
            Self::CopyAhead => "calm",
        }
    }

    /// Whether both processes were held so, of so many snapshots at least.
    fn has_held(self, snapshots: usize, tracker: &str, log: &Log) {
        let (twins, ahead) = (log.count("twin"), log.count("ahead"));
        let right = match self {
            Self::Copy | Self::Itself => twins == 0 && ahead == 0,
            Self::Twins => twins >= 2 * snapshots,
            Self::CopyAhead if tracker == "soft-dirty" => ahead == 0,
            Self::CopyAhead => ahead >= 2 * snapshots,
        };
        assert!(right, "of {snapshots} snapshots: {twins} twins, {ahead} copies made ahead");
    }
}

fn dumped(lab: &Lab, holder: Holder) {
    let program = lab.start_subject("ledger.c", &[holder.argument()]);
    let (pid, log) = (program.pid().to_string(), Log::of(lab));
    for round in 0..restores() {
        let images = format!("images{}", round % 2);
        fs::remove_dir_all(lab.path(&images)).unwrap_or_default();
        let runs_on = (holder != Holder::Itself).then_some("--leave-running");
        let args: Vec<_> =
            ["dump", "--pid", &pid, "--images", &images].into_iter().chain(runs_on).collect();
        lab.snapd().telling(log.file()).call(&args).ok();
        lab.kill_everything();
        // The sums are the oracle: comparing all with the image would take most of the time.
        lab.snapd().call(&["undump", "--images", &images, "--detach"]).ok();
    }
    holder.has_held(restores(), "full", &log);
    program.check();
}

trial!(a_dump_by_copies, 900, |lab| dumped(lab, Holder::Copy));
trial!(a_dump_by_twins, 900, |lab| dumped(lab, Holder::Twins));
trial!(a_dump_of_who_stands, 900, |lab| dumped(lab, Holder::Itself));

/// A workload that is restored again and again.
struct Book<'a> {
    lab: &'a Lab,
    workload: Workload<'a>,
    log: Log,
}

impl<'a> Book<'a> {
    fn open(lab: &'a Lab, holder: Holder) -> Self {
        let (ledger, log) = (lab.subject("ledger.c"), Log::of(lab));
        let command = [ledger.to_str().unwrap(), holder.argument()];
        let snapd = lab.snapd().telling(log.file());
        let mut workload = Workload::run_by(lab, &snapd, "ledger", &["--keep-last", "3"], &command);
        workload.wait_for("READY");
        Self { lab, workload, log }
    }

    /// Takes one by this tracker; how much of it has changed, in hundredths.
    fn checkpoint(&self, tracker: &str) -> u64 {
        self.workload.checkpoint();
        let newest = self.workload.snapshots().into_iter().max_by_key(|one| one["seq"].as_u64());
        let newest: Value = newest.expect("the one that was just taken");
        assert_eq!(newest["tracker"], tracker, "{newest}");
        let bytes = |name: &str| newest[name].as_u64().expect("a number");
        bytes("changed_bytes") * 100 / bytes("memory_bytes")
    }

    fn restore(&self) -> Outcome {
        self.lab.snapd().telling(self.log.file()).call(&["restore", "ledger", "--replace"]).ok()
    }
}

/// The first snapshot after each restore is whole; the second takes from it what has not changed since. Who has
/// little is not tracked.
fn tracked(lab: &Lab, holder: Holder) {
    let tracker = if holder == Holder::Copy { "full" } else { lab.tracker() };
    let book = Book::open(lab, holder);
    for _ in 0..restores() {
        assert_eq!(book.checkpoint(tracker), 100);
        let changed = book.checkpoint(tracker);
        let few = holder == Holder::CopyAhead && tracker == "write-protect";
        assert!(!few || changed < 50, "{changed} % of it");
        book.restore();
    }
    holder.has_held(restores(), tracker, &book.log);
    book.workload.check();
}

trial!(a_checkpoint_by_copies, 900, |lab| tracked(lab, Holder::Copy));
trial!(a_checkpoint_by_twins, 900, |lab| tracked(lab, Holder::Twins));
trial!(a_checkpoint_by_copies_made_ahead, 900, |lab| tracked(lab, Holder::CopyAhead));

trial!(
    /// Taken while others are, at moments that nobody chose.
    snapshots_all_the_time, 900, |lab| {
    let ledger = lab.subject("ledger.c");
    let options = ["--every", "200ms", "--keep-last", "3"];
    let mut workload = Workload::run(lab, "ledger", &options, &[ledger.to_str().unwrap()]);
    workload.wait_for("READY");
    let newest = || {
        let seqs = workload.snapshots();
        seqs.iter().filter_map(|snapshot| snapshot["seq"].as_u64()).max().unwrap_or(0)
    };
    for _ in 0..restores() {
        let before = newest();
        eventually("two more snapshots", Duration::from_secs(60), || newest() > before + 1);
        lab.snapd().call(&["restore", "ledger", "--replace"]).ok();
    }
    workload.check();
});
