//! From an image to running processes: all of them, or nothing.
mod blanks;
mod clocks;
mod death;
mod hold;
mod hole;
mod memory;
mod notes;
mod numbers;
mod objects;
mod planting;
mod release;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::blanks::{Blanks, SpecialPlaces, done};
use self::planting::Transport;
use crate::error::{Error, Result, kernel, kernel_io};
use crate::external::External;
use crate::image::ImageSource;
use crate::inventory::{Inventory, OpenFileId, Pid, SpaceId, Tid};
use crate::memory::ranges::Ranges;
use crate::plan::{Birth, Host, Step, plan};
use crate::procfs;
use crate::remote::{Arg, Batch, Caller};
use crate::sys::area::Area;
use crate::{account, attribute, host};

/// Whose child a restored root becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parentage {
    /// Ours.
    Child,
    /// Our parent's (`CLONE_PARENT`): the worker restores for the shim.
    Sibling,
}

/// How to restore.
#[derive(Debug)]
pub struct Options {
    /// Whose child.
    pub parentage: Parentage,
    /// Go on with the image's monotonic and boot time, in a time namespace of its own.
    pub continue_clocks: bool,
    /// Take changed executables, libraries and read-only files as they are.
    pub accept_changed: bool,
    /// The files of the image are put back before the restore begins: what they are when it is
    /// prepared does not matter.
    pub files_put_back: bool,
    /// Established connections are given back closed.
    pub close_tcp: bool,
    /// What the supervisor holds outside the tree.
    pub externals: Vec<External>,
}

/// What was brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The roots, running.
    pub roots: Vec<Pid>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Brings the tree of `image` back. Everything that can be refused is refused before anything is
/// started; if we die on the way, nothing of the tree is left, or all of it runs.
pub fn restore(image: &dyn ImageSource, options: &Options) -> Result<Restored> {
    perform(image, options, false)
}

/// Likewise, but before it runs on the tree is taken an inventory of, which must equal the image
/// field for field, and byte for byte: if not, it is ended, and each difference is an obstacle.
pub fn restore_verified(image: &dyn ImageSource, options: &Options) -> Result<Restored> {
    perform(image, options, true)
}

fn perform(image: &dyn ImageSource, options: &Options, verify: bool) -> Result<Restored> {
    let inventory = image.inventory()?;
    let (steps, host) = planned(&inventory, options)?;
    let notes = notes::of(&inventory, options, &host)?;
    numbers::reserve(&inventory);
    let mut restorer = Restorer::new(&inventory, image, options, &steps)?;
    restorer.verify = verify;
    let _adopting = Adopting::start(options, &steps)?;
    let own_clocks =
        options.continue_clocks.then(|| clocks::go_on(inventory.clocks)).transpose()?;
    let is_ours = |step: &Step| matches!(step, Step::Fork(birth) if birth.maker.is_none());
    let last_of_ours = steps.iter().rposition(is_ours);
    for (number, step) in steps.iter().enumerate() {
        crate::fault::point(step.point());
        if let Err(error) = restorer.perform(step) {
            tracing::debug!(?step, %error, "the step failed");
            restorer.give_up();
            return Err(error);
        }
        if last_of_ours == Some(number) {
            own_clocks.iter().for_each(clocks::come_back);
        }
    }
    let roots = inventory.processes.iter().filter(|(_, process)| process.parent.is_none());
    Ok(Restored { roots: roots.map(|(pid, _)| *pid).collect(), notes })
}

/// What would be done, or everything that is in the way. Starts nothing.
pub fn prepare(inventory: &Inventory, options: &Options) -> Result<Vec<Step>> {
    planned(inventory, options).map(|(steps, _)| steps)
}

fn planned(inventory: &Inventory, options: &Options) -> Result<(Vec<Step>, Host)> {
    let mut obstacles = host::lacks(inventory);
    obstacles.extend(account::may_restore());
    obstacles.extend(objects::check(inventory, options)?);
    obstacles.extend(attribute::lacking(&inventory.attributes)?.obstacles);
    let host = host::look(inventory)?;
    match plan(inventory, &host) {
        Ok(steps) if obstacles.is_empty() => return Ok((steps, host)),
        Ok(_) => {}
        Err(Error::Refused(more)) => obstacles.extend(more),
        Err(error) => return Err(error),
    }
    Err(Error::Refused(obstacles))
}

/// A restore under way.
struct Restorer<'a> {
    inventory: &'a Inventory,
    image: &'a dyn ImageSource,
    options: &'a Options,
    blanks: Blanks,
    transport: Transport,
    /// Ours, by the image's ids.
    open_files: BTreeMap<OpenFileId, OwnedFd>,
    /// What the supervisor holds, by its keys.
    externals: BTreeMap<String, OwnedFd>,
    /// What bytes each space was given.
    filled: BTreeMap<SpaceId, Ranges>,
    /// Processes that were given a table.
    planted: BTreeSet<Pid>,
    /// Where the vdso waits while everything else goes.
    parking: u64,
    /// Where ours are, which blanks inherit.
    special: SpecialPlaces,
    /// What this processor's xsave areas may hold.
    xfeatures: u64,
    halted: BTreeSet<Tid>,
    /// Look whether all is as it was, at the end.
    verify: bool,
}

impl<'a> Restorer<'a> {
    fn new(
        inventory: &'a Inventory,
        image: &'a dyn ImageSource,
        options: &'a Options,
        steps: &[Step],
    ) -> Result<Self> {
        let births = steps.iter().filter(|step| matches!(step, Step::Fork(_))).count();
        let threads: usize = inventory.processes.values().map(|p| p.threads.len()).sum();
        let len = Area::bytes(births + threads) as u64;
        let maps = procfs::text("/proc/self/maps").map_err(kernel_io("read"))?;
        let used = hole::used(inventory).chain(hole::own(&maps)).collect();
        let place = hole::find(used, len + PARKING + 0x1000)?;
        let area = Area::map(place, births + threads).map_err(kernel("mmap"))?;
        more_descriptors()?;
        Ok(Self {
            inventory,
            image,
            options,
            blanks: Blanks::new(area),
            transport: Transport::new(inventory)?,
            open_files: BTreeMap::new(),
            externals: externals(options)?,
            filled: BTreeMap::new(),
            planted: BTreeSet::new(),
            parking: place + len + 0x1000,
            special: memory::special(&maps),
            xfeatures: crate::arch::xsave::xfeatures(),
            halted: BTreeSet::new(),
            verify: false,
        })
    }

    fn perform(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Fork(birth) => self.fork(birth),
            Step::Session { pid } => self.call(*pid, "setsid", libc::SYS_setsid, []),
            Step::Group { pid, group } => {
                let args = [0.into(), (*group).into()];
                self.call(*pid, "setpgid", libc::SYS_setpgid, args)
            }
            Step::Bury { pid } => self.bury(*pid),
            Step::Continue { pid } => self.continue_once(*pid),
            Step::End { pid, status } => self.end(*pid, *status),
            Step::Build { object, open_files, .. } => self.build(*object, open_files),
            Step::Map { space, pid, .. } => self.map(*space, *pid),
            Step::Plant { table, pid } => {
                self.plant(*table, *pid)?;
                self.planted.insert(*pid);
                Ok(())
            }
            Step::Settle { object, open_file, pid, at } => {
                self.settle(*object, *open_file, *pid, *at)
            }
            Step::Directories { fs, pid } => self.directories(*fs, *pid),
            Step::Threads { pid, tids } => self.blanks.threads(*pid, tids),
            Step::Attributes { owner, stage, names } => self.attributes(*owner, *stage, names),
            Step::Release => {
                self.open_files.clear();
                self.release(self.verify)
            }
        }
    }

    fn fork(&mut self, birth: &Birth) -> Result<()> {
        if let Some(maker) = birth.maker {
            self.blanks.born_of(birth, maker)
        } else {
            let parentage = if birth.own { Parentage::Child } else { self.options.parentage };
            self.blanks.born_here(birth, parentage, &self.special)?;
            let mut batch = Batch::default();
            self.transport.alone(&mut batch);
            done(&self.blanks.caller(Tid(birth.pid.0))?.perform(&batch)?)
        }
    }

    fn call<const N: usize>(
        &mut self,
        pid: Pid,
        name: &'static str,
        number: i64,
        args: [Arg; N],
    ) -> Result<()> {
        let mut batch = Batch::default();
        batch.call(name, number, args);
        done(&self.blanks.caller(Tid(pid.0))?.perform(&batch)?)
    }

    fn bury(&mut self, pid: Pid) -> Result<()> {
        let maker = self.blanks.leader(pid)?.maker;
        hold::end(pid.0);
        self.blanks.all.remove(&Tid(pid.0));
        let Some(maker) = maker else { return Ok(()) };
        let mut batch = Batch::default();
        let args = [pid.0.into(), 0.into(), libc::__WALL.into(), 0.into()];
        batch.call("wait4", libc::SYS_wait4, args);
        self.blanks.caller(Tid(maker.0))?.perform(&batch)?;
        self.forget_signal(maker, libc::SIGCHLD)
    }

    /// Nothing may be left. Threads first: a leader is not gone before those are reaped that we hold.
    fn give_up(&mut self) {
        let all = self.blanks.all.values();
        let (leaders, threads): (Vec<_>, Vec<_>) =
            all.partition(|blank| blank.tid.0 == blank.pid.0);
        leaders.iter().for_each(|leader| hold::kill(leader.pid.0));
        threads.iter().for_each(|thread| hold::reap(thread.tid.0));
        leaders.iter().filter(|leader| leader.seized).for_each(|one| hold::reap(one.tid.0));
    }
}

/// While stand-ins end, their children come to us: they are roots.
struct Adopting(bool);

impl Adopting {
    fn start(options: &Options, steps: &[Step]) -> Result<Self> {
        let ends = steps.iter().any(|step| matches!(step, Step::Bury { .. }));
        let needed = ends
            && options.parentage == Parentage::Child
            && !prctl::get_child_subreaper().map_err(kernel("prctl"))?;
        if needed {
            prctl::set_child_subreaper(true).map_err(kernel("prctl"))?;
        }
        Ok(Self(needed))
    }
}

impl Drop for Adopting {
    fn drop(&mut self) {
        if self.0
            && let Err(errno) = prctl::set_child_subreaper(false)
        {
            tracing::warn!(%errno, "still a subreaper");
        }
    }
}

fn externals(options: &Options) -> Result<BTreeMap<String, OwnedFd>> {
    let ours =
        |one: &External| Ok((one.key.clone(), one.fd.try_clone().map_err(kernel_io("fcntl"))?));
    options.externals.iter().map(ours).collect()
}

/// Room for the vdso's group.
const PARKING: u64 = 0x10_0000;

/// As many as we may have: objects of the whole tree are ours for a while.
fn more_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(kernel("getrlimit"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(kernel("setrlimit"))
}

/// Whether a directory is another one than our root.
fn differs_from_root(directory: BorrowedFd<'_>) -> Result<bool> {
    let root = nix::sys::stat::stat("/").map_err(kernel("stat"))?;
    let other = nix::sys::stat::fstat(directory).map_err(kernel("fstat"))?;
    Ok((root.st_dev, root.st_ino) != (other.st_dev, other.st_ino))
}

#[cfg(test)]
mod tests;
