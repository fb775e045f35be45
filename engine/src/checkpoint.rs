//! A standing tree as an inventory and as bytes: what [`crate::session`] composes.
//!
//! The order is that of [`Standing::inventory`]: first all loans, for while one lives its process has
//! an area and registers that are not its own; then registers, spaces and descriptors, of all
//! processes; then objects, which refer to them. Whatever is shared (`CLONE_VM`, `CLONE_FILES`,
//! `CLONE_FS`) is read of the first process that has it.
//!
//! Who holds memory while it is written is decided by [`crate::memory::capture`].
mod many;
mod namespaces;
mod surroundings;
mod system_v;
mod twins;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::account;
use crate::attribute::{Owner, of_zombie, posix_locks};
use crate::census::Census;
use crate::collect::{Collector, News, OfProcess, Unasked, attributes};
use crate::error::{Error, Obstacle, Result, kernel_io};
use crate::image::ImageSink;
use crate::inventory::{
    Fs, FsId, Inventory, Life, Machine, Note, OpenFileId, Pid, Process, SpaceId, TableId, Thread,
    Tid,
};
use crate::memory::capture::Copy;
use crate::memory::collect::{Files, file, space};
use crate::memory::estimate::TWIN_FROM;
use crate::memory::foresight::private;
use crate::memory::tracker::{Kind, Tracker, soft_dirty};
use crate::memory::witness::{Asking, confirm_now};
use crate::procfs::smaps::Area;
use crate::procfs::stat::Stat;
use crate::procfs::{self, Fields};
use crate::session::{AsBefore, Drain, Options, Tracer};
use crate::sys::processor::expect_somebody_bound;
use crate::sys::urgency::Urgent;
use crate::tracee::{Member, Tree};

/// `include/uapi/linux/wait.h` has no name for it: `WCOREDUMP` of wait(2).
const WCOREFLAG: i32 = 0x80;

/// A tree that stands still, and since when.
#[derive(Debug)]
pub(crate) struct Standing {
    tree: Option<Tree>,
    machine: Machine,
    since: i64,
    copy: Copy,
    trackers: Vec<Tracker>,
    as_before: AsBefore,
    census: Option<Census>,
    _room: Option<many::Room>,
    /// Until all that must be done in the pause is done.
    urgent: Option<Urgent>,
}

impl Standing {
    /// Stops what `roots` names, again and again until all stand, and all their descendants.
    pub(crate) fn freeze(
        roots: &mut dyn FnMut() -> Result<Vec<Pid>>,
        deadline: Duration,
    ) -> Result<Self> {
        let account = account::may_checkpoint();
        let machine = surroundings::machine()?; // Slow to read, and the same at any time.
        let (census, room) = many::expect(&roots()?);
        let urgent = Urgent::begin();
        expect_somebody_bound();
        let tree = Tree::freeze_all(roots, deadline)?;
        account?; // Whoever may not even stop it is told of that one.
        Ok(Self { census, _room: room, urgent, ..Self::of(tree, machine) })
    }

    fn of(tree: Tree, machine: Machine) -> Self {
        let since = tree.since();
        let (copy, trackers) = (Copy::default(), Vec::new());
        let (census, urgent, as_before) = (None, None, AsBefore::default());
        let tree = Some(tree);
        Self { tree, machine, since, copy, trackers, as_before, census, _room: None, urgent }
    }

    /// A tree that was just restored, and is held.
    pub(crate) fn restored(tree: Tree) -> Result<Self> {
        Ok(Self::of(tree, surroundings::machine()?))
    }

    fn tree(&mut self) -> Result<&mut Tree> {
        self.tree.as_mut().ok_or_else(|| Error::Record("a tree that was let go".into(), None))
    }
}

impl Tracer for Standing {
    #[tracing::instrument(level = "trace", skip_all)]
    fn inventory(
        &mut self,
        options: &Options<'_>,
        obstacles: &mut Vec<Obstacle>,
    ) -> Result<Inventory> {
        let machine = self.machine.clone();
        let mut members = self.tree()?.members().clone();
        let mut inventory =
            Inventory { machine, clocks: surroundings::clocks()?, ..Inventory::default() };
        let pids = members.keys().copied().collect();
        let collector = Collector::new(pids, options.externals, &options.familiar)?;
        let (copy, trackers, as_before) = (&mut self.copy, &mut self.trackers, &mut self.as_before);
        let mut work = Work {
            inventory: &mut inventory,
            collector,
            copy,
            options,
            trackers,
            as_before,
            obstacles,
        };
        let Some(tree) = self.tree.as_mut() else { return Ok(inventory) };
        // Before the first loan, which leaves marks in what it tells.
        let roll = self.census.as_mut().and_then(Census::take).unwrap_or_default();
        let mut unasked = Unasked::of(roll);
        let mut inside = BTreeMap::new();
        let mut news = Vec::new();
        for (pid, member) in members.iter().filter(|(_, member)| member.life.is_living()) {
            let threads = &member.threads;
            let mut answers = attributes(tree, *pid, threads, &mut unasked, work.obstacles)?;
            news.append(&mut answers.news);
            inside.insert(*pid, answers);
        }
        told(&mut members, news);
        let (mut others, found) = unasked.attributes_during(|| {
            members.iter().try_for_each(|(pid, member)| {
                let answers = inside.remove(pid).unwrap_or_default();
                work.process(tree, *pid, member, answers)
            })
        })?;
        work.obstacles.extend(found);
        let attributes = &mut work.inventory.attributes;
        if others.len() > attributes.len() {
            std::mem::swap(&mut others, attributes);
        }
        attributes.extend(others);
        if options.private {
            system_v::own(work.obstacles);
        } else {
            system_v::used(&members, work.obstacles);
        }
        if work.obstacles.is_empty() {
            work.collector.ask(tree)?;
        }
        work.objects()?;
        surroundings::outside(&mut inventory);
        self.copy.unchecked = options.runs_on;
        if obstacles.is_empty() && !options.runs_on {
            obstacles.extend(surroundings::not_to_be_brought_back(&inventory)?);
        }
        Ok(inventory)
    }

    #[tracing::instrument(level = "trace", skip_all)]
    fn capture(
        &mut self,
        inventory: &mut Inventory,
        running: Option<Vec<u8>>,
    ) -> Result<Box<dyn Drain>> {
        let mut copy = std::mem::take(&mut self.copy);
        if let Some(room) = running {
            let tree = self.tree()?;
            let now = copy.hold(room, &mut |pid| {
                let may = twins::is_room_for(pid)? && twins::unheard_of(inventory, pid);
                if may { tree.twin(pid) } else { Ok(None) }
            })?;
            confirm_now(inventory, &now)?;
        } else {
            copy.stands();
        }
        self.urgent = None; // Writing what stands takes many threads, and long.
        Ok(Box::new(copy))
    }

    fn trackers(&mut self) -> Vec<Tracker> {
        std::mem::take(&mut self.trackers)
    }

    fn as_before(&mut self) -> AsBefore {
        std::mem::take(&mut self.as_before)
    }

    #[tracing::instrument(level = "trace", skip_all)]
    fn thaw(&mut self) -> Result<Duration> {
        // Those who run already must not keep us from letting the others go.
        let _urgent = Urgent::begin();
        if let Some(tree) = self.tree.take() {
            tree.thaw()?;
        }
        let pause = surroundings::clocks()?.monotonic - self.since;
        Ok(Duration::from_nanos(pause.cast_unsigned()))
    }

    fn kill(&mut self) -> Result<()> {
        self.tree.take().map_or(Ok(()), Tree::kill)
    }

    fn dead(&self) -> Option<Pid> {
        self.tree.as_ref()?.dead()
    }
}

/// What parents have yet to hear of their children.
fn told(members: &mut BTreeMap<Pid, Member>, news: Vec<(Pid, News)>) {
    for (pid, news) in news {
        match (members.get_mut(&pid).map(|member| &mut member.life), news) {
            (Some(Life::Stopped { unreported, .. }), News::Stopped) => *unreported = true,
            (Some(life @ Life::Running), News::Continued) => *life = Life::Continued,
            _ => {}
        }
    }
}

impl Drain for Copy {
    fn confirm(&mut self, inventory: &mut Inventory) -> Result<Asking> {
        let (stay, end): (Vec<_>, Vec<_>) = self.witnesses().iter().partition(|one| one.stays());
        confirm_now(inventory, &end)?;
        if std::mem::take(&mut self.unchecked) {
            let obstacles = surroundings::not_to_be_brought_back(inventory)?;
            if !obstacles.is_empty() {
                return Err(Error::Refused(obstacles));
            }
        }
        Ok(Asking::begin(stay))
    }

    fn drain_standing(&mut self, image: &mut dyn ImageSink) -> Result<u64> {
        self.write_standing(image)
    }

    fn drain(self: Box<Self>, image: &mut dyn ImageSink) -> Result<u64> {
        self.write_held(image)
    }
}

impl Files for Collector<'_> {
    fn opened(&mut self, pid: Pid, fd: OwnedFd, what: &str) -> Result<OpenFileId> {
        self.opened(pid, fd, what)
    }

    fn familiar(&mut self, pid: Pid, area: &Area<'_>) -> Result<Option<OpenFileId>> {
        self.familiar(pid, area)
    }
}

/// An inventory in the making.
struct Work<'a> {
    inventory: &'a mut Inventory,
    collector: Collector<'a>,
    copy: &'a mut Copy,
    options: &'a Options<'a>,
    trackers: &'a mut Vec<Tracker>,
    as_before: &'a mut AsBefore,
    obstacles: &'a mut Vec<Obstacle>,
}

impl Work<'_> {
    fn process(
        &mut self,
        tree: &mut Tree,
        pid: Pid,
        member: &Member,
        answers: OfProcess,
    ) -> Result<()> {
        let text = procfs::text(format!("/proc/{pid}/stat")).map_err(kernel_io("read"))?;
        let stat = Stat::parse(&text)?;
        let mut process = Process {
            parent: member.parent,
            group: stat.group()?,
            session: stat.session()?,
            exit_signal: stat.exit_signal()?,
            life: member.life,
            name: stat.name.to_owned(),
            table: TableId(0),
            space: SpaceId(0),
            fs: FsId(0),
            threads: Vec::new(),
        };
        if member.life.is_living() {
            namespaces::check(pid, self.obstacles)?;
            self.inventory.attributes.extend(answers.states);
            self.inventory.notes.extend(answers.notes);
            for tid in &member.threads {
                self.inventory.threads.insert(*tid, tree.thread(*tid)?);
            }
            process.threads.clone_from(&member.threads);
            process.table = self.collector.table(pid)?;
            let (name, locks) = posix_locks(self.collector.posix_locks(pid));
            self.inventory.attributes.insert((Owner::Process(pid), name), locks);
            process.fs = self.filesystem(pid)?;
            process.space = self.space(tree, pid, answers.brk)?;
        } else {
            let text =
                |name| procfs::text(format!("/proc/{pid}/{name}")).map_err(kernel_io("read"));
            let status = text("status")?;
            self.inventory.attributes.extend(of_zombie(pid, &status, &text("limits")?)?);
            process.life = self.without_core(pid, member.life);
            // Of its only thread nothing is left but what it blocked.
            let blocked = Fields::parse(&status).take_number("SigBlk", 16).unwrap_or(0);
            self.inventory.threads.insert(Tid(pid.0), Thread { blocked, ..Thread::default() });
        }
        self.inventory.processes.insert(pid, process);
        Ok(())
    }

    /// Only a core file would make a restored one's status say again that there is one.
    fn without_core(&mut self, pid: Pid, life: Life) -> Life {
        match life {
            Life::Zombie { status } if status & WCOREFLAG != 0 => {
                let text = "it has left a core file: a restored one will not say so".to_owned();
                self.inventory.notes.push(Note { pid: Some(pid), text });
                Life::Zombie { status: status & !WCOREFLAG }
            }
            life => life,
        }
    }

    fn filesystem(&mut self, pid: Pid) -> Result<FsId> {
        let (id, new) = self.collector.filesystem(pid)?;
        if new {
            let mut directory = |name: &str| {
                let link = format!("/proc/{pid}/{name}");
                let opened = match file(&link, OFlag::O_DIRECTORY) {
                    // A process's own in /proc, which has ended: it cannot be looked into any more.
                    Err(Error::Kernel(_, Errno::ESRCH)) => {
                        file(&link, OFlag::O_DIRECTORY | OFlag::O_PATH)?
                    }
                    opened => opened?,
                };
                self.collector.opened(pid, opened, name)
            };
            let (cwd, root) = (directory("cwd")?, directory("root")?);
            self.inventory.filesystems.insert(id, Fs { cwd, root });
        }
        Ok(id)
    }

    #[tracing::instrument(level = "trace", skip_all)]
    fn space(&mut self, tree: &mut Tree, pid: Pid, brk: u64) -> Result<SpaceId> {
        let (id, new) = self.collector.space(pid)?;
        if new {
            let mut tracker = self.tracker(tree, pid, id)?;
            let known = (&self.options.foresight, tracker.as_mut());
            let (space, own) = space(pid, brk, known, &mut self.collector, self.obstacles)?;
            self.trackers.extend(tracker);
            self.inventory.spaces.insert(id, space);
            self.copy.spaces.insert(id, (pid, own));
        }
        Ok(id)
    }

    /// Who watches over a space: whoever has since the last snapshot, or somebody new, if it is worth it.
    fn tracker(&self, tree: &mut Tree, pid: Pid, space: SpaceId) -> Result<Option<Tracker>> {
        let Some(trackers) = self.options.trackers else { return Ok(None) };
        let known = trackers.iter().find(|one| (one.pid, one.space) == (pid, space));
        if let Some(known) = known.filter(|known| known.watches()) {
            return known.try_clone().map(Some).map_err(kernel_io("fcntl"));
        }
        if private(pid) < TWIN_FROM || !self.obstacles.is_empty() {
            return Ok(None);
        }
        if let Some(fd) = soft_dirty::begin(pid)? {
            return Ok(Some(Tracker::new(pid, space, Kind::SoftDirty, fd)));
        }
        let fd = tree.userfaultfd(pid)?;
        Ok(fd.map(|fd| Tracker::new(pid, space, Kind::WriteProtect, fd)))
    }

    #[tracing::instrument(level = "trace", skip_all)]
    fn objects(self) -> Result<()> {
        let collected = self.collector.finish(self.options.close_tcp, self.obstacles)?;
        self.inventory.objects = collected.objects;
        self.inventory.open_files = collected.open_files;
        self.inventory.descriptors = collected.descriptors;
        self.inventory.notes.extend(collected.notes);
        self.copy.bulk = collected.bulk;
        *self.as_before = collected.as_before;
        Ok(())
    }
}
