//! `dump` and `undump`: one image in a directory, no catalog, no supervisor.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::files::{RollBack, Selection};
use engine::image::ImageSource;
use engine::inventory::Pid;
use engine::restore::{Options, Parentage};
use prost::Message;
use store::{Compression, Store, Trigger};

use super::image::{Sink, Source};
use super::take::{Meanwhile, Plan, perform, watch};
use super::{Kept, Tell, bring_back, terminal};
use crate::definition::Definition;
use crate::error::{Error, Result, cannot};
use crate::wire::{Brought, Settled, Taken};

/// The name that the one snapshot of an image goes by.
const IMAGE: &str = "image";

/// How to dump.
#[derive(Debug, Clone)]
pub struct Dump {
    /// The root of the tree.
    pub pid: i32,
    /// Where to.
    pub images: PathBuf,
    /// The tree runs on.
    pub leave_running: bool,
    /// `--files keep`.
    pub keep_files: bool,
    /// `--tcp close`.
    pub close_tcp: bool,
    /// How long freezing may take.
    pub freeze_timeout: Duration,
    /// `--parent`: an image whose bytes need not be stored again. Relative to `images`, or to us.
    pub parent: Option<PathBuf>,
    /// `--shell-job`: its terminal is no part of it.
    pub shell_job: bool,
}

/// How to undump.
#[derive(Debug)]
pub struct Undump {
    /// Where from.
    pub images: PathBuf,
    /// `--accept-changed`.
    pub accept_changed: bool,
    /// `--files keep`.
    pub keep_files: bool,
    /// `--tcp close`.
    pub close_tcp: bool,
    /// Restored roots become our parent's children.
    pub detach: bool,
    /// `--trust`: the image may belong to another user.
    pub trust: bool,
    /// `--shell-job`: our terminal takes the place of the one that the image lacks.
    pub shell_job: bool,
    /// `--verify`: looks whether all came back as it was, before it runs on.
    pub verify: bool,
}

/// Dumps a tree.
pub fn dump(how: &Dump, tell: Tell<'_>) -> Result<Taken> {
    engine::fault::arm_from_environment();
    check_target(how.pid)?;
    let externals = if how.shell_job { terminal::of_process(how.pid)? } else { Vec::new() };
    let store = Store::watched(&how.images, image_options(), watch())?;
    if let Err(error) = store.prune() {
        // What an earlier dump left that was killed.
        tracing::debug!(%error, "nothing was freed");
    }
    if let Some(parent) = &how.parent {
        store.share_packs_of(&parent_image(&how.images, parent)?)?;
    }
    let roots = [Pid(how.pid)];
    let spared = how.images.canonicalize().map_err(cannot("find the image's directory"))?;
    let plan = Plan {
        store: &store,
        workload: IMAGE,
        parent: None,
        compression: Compression::Waiting,
        roots: &roots,
        selection: Selection { tracked: Vec::new(), spared: vec![spared] },
        keep_files: how.keep_files,
        deadline: how.freeze_timeout,
        trigger: Trigger::Request,
        tags: Vec::new(),
        stop: !how.leave_running,
        close_tcp: how.close_tcp,
        private: false,
    };
    perform(&plan, &externals, &mut None, &mut OfImage, tell)
}

/// Nobody holds streams, and there is next to nothing to define.
struct OfImage;

impl Meanwhile for OfImage {
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn end(&mut self, sink: &mut Sink<'_>) -> Result<Option<Settled>> {
        let kept = Kept { definition: Definition::new(IMAGE, Vec::new()), settled: None };
        sink.definition(&kept.encode_to_vec());
        Ok(None)
    }
}

/// A relative one is tried against the images first, as CRIU's users write it.
fn parent_image(images: &Path, parent: &Path) -> Result<Store> {
    let beside = images.join(parent);
    let dir = if beside.is_dir() { &beside } else { parent };
    Ok(Store::open(dir, image_options())?)
}

/// Brings a dumped tree back.
pub fn undump(how: &Undump, tell: Tell<'_>) -> Result<Brought> {
    engine::fault::arm_from_environment();
    let trusted = store::Options { trust: how.trust, ..image_options() };
    let store = Store::open(&how.images, trusted).map_err(|error| match error {
        store::Error::Missing { .. } => no_image(&how.images),
        other => other.into(),
    })?;
    let newest = store.snapshots(Some(IMAGE))?.pop();
    let newest = newest.ok_or_else(|| no_image(&how.images))?;
    let source = Source::new(store.read(IMAGE, newest.seq)?, tell);
    let inventory = source.inventory().map_err(engine::error::Error::Image)?;
    let options = Options {
        parentage: if how.detach { Parentage::Sibling } else { Parentage::Child },
        continue_clocks: false,
        accept_changed: how.accept_changed,
        files_put_back: !how.keep_files,
        close_tcp: how.close_tcp,
        externals: terminal::for_image(&inventory, how.shell_job)?,
    };
    let undone = how.images.join("undone").join(super::time_name());
    let files = RollBack { undone, spared: vec![how.images.clone()], ..RollBack::default() };
    let files = (!how.keep_files).then_some(&files);
    let (restored, mut notes) = bring_back(&source, &options, files, how.verify)?;
    notes.extend(restored.notes);
    let first = restored.roots.first().map_or(0, |pid| pid.0);
    Ok(Brought { first, notes })
}

/// A store without a snapshot: what a dump leaves that was given up.
pub(crate) fn no_image(dir: &Path) -> Error {
    store::Error::Missing { path: dir.to_owned(), what: "a complete image".into() }.into()
}

/// Waits until a restored root, our child, ends; its status as shells say it.
pub fn wait_for(pid: i32) -> Result<i32> {
    use nix::sys::wait::{WaitStatus, waitpid};
    loop {
        match waitpid(nix::unistd::Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(cannot(format!("wait for process {pid}"))(errno)),
        }
    }
}

fn image_options() -> store::Options {
    store::Options { trust: false, catalog: false }
}

/// Refuses what is no process, or none that could be held.
pub fn check_target(pid: i32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.map_err(|_| Error::Missing(format!("process {pid}")))?;
    if i32::try_from(std::process::id()) == Ok(pid) {
        return Err(Error::Refused("a process cannot dump itself".into()));
    }
    if pid == 1 {
        return Err(Error::Refused("process 1 is the system's init".into()));
    }
    let maps = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    let kernel = !status.lines().any(|line| line.starts_with("VmSize:"));
    if kernel && !status.contains("State:\tZ") && maps.is_ok_and(|bytes| bytes.is_empty()) {
        return Err(Error::Refused(format!("process {pid} is a kernel thread")));
    }
    Ok(())
}
