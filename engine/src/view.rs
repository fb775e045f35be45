//! An inventory as rows, for people and scripts: `snapd show`. Pure; all numbers are the image's own.
use crate::attribute::{self, Owner};
use crate::error::Result;
use crate::inventory::{Backing, Inventory, Life, ObjectId, OpenFileId, Pid, Special, TableId};
use crate::object::{SocketView, TimerView, View, view};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRow {
    /// Its number.
    pub pid: i32,
    /// Its parent's, if that is in the tree.
    pub parent: Option<i32>,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// `running`, `stopped` or `zombie`.
    pub state: &'static str,
    /// How many threads it has.
    pub threads: usize,
    /// `/proc/PID/comm`.
    pub name: String,
    /// Where its command line is in its memory: space, first byte, one past the last.
    pub arguments: Option<(u32, u64, u64)>,
}

/// An area of memory. A space that several processes share is the first one's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaRow {
    /// Whose.
    pub pid: i32,
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// As in `/proc/PID/maps`: `rw-p`.
    pub perm: String,
    /// File, purpose or name given to it.
    pub name: String,
    /// Where its bytes are: of the space itself, or of an object from an offset on.
    pub bytes: Held,
}

/// Which stream holds an area's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The space's own, by address.
    Space(u32),
    /// A shared object's, from this offset on.
    Object(u32, u64),
}

/// A descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// Whose. A table that several processes share is the first one's.
    pub pid: i32,
    /// Its number.
    pub fd: i32,
    /// The kind of object.
    pub kind: String,
    /// What it refers to.
    pub target: String,
    /// Where reading and writing go on.
    pub position: i64,
    /// Of the open file, as of open(2).
    pub flags: i32,
    /// It is closed by execve(2).
    pub cloexec: bool,
    /// If it is a socket.
    pub socket: Option<SocketView>,
    /// If it is a timer.
    pub timer: Option<TimerView>,
}

/// A timer that is no descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerRow {
    /// Whose.
    pub pid: i32,
    /// `interval` or `posix`.
    pub kind: &'static str,
    /// Which: 0 to 2, or the number that the program knows.
    pub id: u32,
    /// What it does.
    pub timer: TimerView,
}

/// The tree, by numbers.
#[must_use]
pub fn processes(inventory: &Inventory) -> Vec<ProcessRow> {
    let row = |(pid, process): (&Pid, &crate::inventory::Process)| {
        let space = inventory.spaces.get(&process.space).filter(|_| lives(process.life));
        let [.., start, end, _, _] = space.map(|space| space.layout.words).unwrap_or_default();
        ProcessRow {
            pid: pid.0,
            parent: process.parent.map(|parent| parent.0),
            group: process.group,
            session: process.session,
            state: state(process.life),
            threads: process.threads.len(),
            name: process.name.clone(),
            arguments: (end > start).then_some((process.space.0, start, end)),
        }
    };
    inventory.processes.iter().map(row).collect()
}

fn lives(life: Life) -> bool {
    !matches!(life, Life::Zombie { .. })
}

fn state(life: Life) -> &'static str {
    match life {
        Life::Running | Life::Continued => "running",
        Life::Stopped { .. } => "stopped",
        Life::Zombie { .. } => "zombie",
    }
}

/// All areas of all spaces.
pub fn areas(inventory: &Inventory) -> Result<Vec<AreaRow>> {
    let mut rows = Vec::new();
    for (id, space) in &inventory.spaces {
        let mut own = inventory.processes.iter().filter(|(_, process)| lives(process.life));
        let Some((pid, _)) = own.find(|(_, process)| process.space == *id) else { continue };
        for vma in &space.vmas {
            let has = |bit, letter| if vma.prot & bit != 0 { letter } else { '-' };
            let shared = if vma.shared { 's' } else { 'p' };
            let mut bytes = Held::Space(id.0);
            let name = match vma.backing {
                Backing::Anonymous => purpose(vma.start, vma.end, &space.layout.words),
                Backing::Special(Special::Vdso) => "[vdso]".into(),
                Backing::Special(Special::Vvar) => "[vvar]".into(),
                Backing::Special(Special::VvarVclock) => "[vvar_vclock]".into(),
                Backing::File { open_file, offset } => {
                    let (object, view) = seen(inventory, open_file)?;
                    if vma.shared {
                        bytes = Held::Object(object.0, offset);
                    }
                    view.target
                }
            };
            let given = vma.name.as_ref().map(|name| format!("[anon:{name}]"));
            rows.push(AreaRow {
                pid: pid.0,
                start: vma.start,
                end: vma.end,
                perm: [has(1, 'r'), has(2, 'w'), has(4, 'x'), shared].iter().collect(),
                name: given.unwrap_or(name),
                bytes,
            });
        }
    }
    Ok(rows)
}

/// `[heap]`, `[stack]`, or nothing.
fn purpose(start: u64, end: u64, words: &[u64; 11]) -> String {
    let [_, _, _, _, heap, brk, stack, ..] = *words;
    match () {
        () if start < brk && end > heap && heap != brk => "[heap]".into(),
        () if (start..end).contains(&stack) => "[stack]".into(),
        () => String::new(),
    }
}

/// All descriptors of all tables.
pub fn files(inventory: &Inventory) -> Result<Vec<FileRow>> {
    let holder = |table: TableId| {
        let mut own = inventory.processes.iter().filter(|(_, process)| lives(process.life));
        own.find(|(_, process)| process.table == table).map(|(pid, _)| pid.0)
    };
    let mut rows = Vec::new();
    for ((table, fd), descriptor) in &inventory.descriptors {
        let Some(open) = inventory.open_files.get(&descriptor.open_file) else { continue };
        let Some(pid) = holder(*table) else { continue };
        let (object, view) = seen(inventory, descriptor.open_file)?;
        let kind = inventory.objects.get(&object).map(|record| record.kind.clone());
        rows.push(FileRow {
            pid,
            fd: fd.0,
            kind: kind.unwrap_or_default(),
            target: view.target,
            position: open.position(),
            flags: open.flags(),
            cloexec: descriptor.cloexec,
            socket: view.socket,
            timer: view.timer,
        });
    }
    rows.sort_by_key(|row| (row.pid, row.fd));
    Ok(rows)
}

/// What an open file refers to, with a name whatever its kind.
fn seen(inventory: &Inventory, open: OpenFileId) -> Result<(ObjectId, View)> {
    let Some(file) = inventory.open_files.get(&open) else {
        return Ok((ObjectId(0), View::default()));
    };
    let (id, end) = file.refers_to();
    let Some(record) = inventory.objects.get(&id) else { return Ok((id, View::default())) };
    let mut seen = view(record, end)?;
    if seen.target.is_empty() {
        seen.target = format!("{}:[{id}]", record.kind);
    }
    Ok((id, seen))
}

/// Timers of setitimer(2) and `timer_create(2)` that run.
pub fn timers(inventory: &Inventory) -> Result<Vec<TimerRow>> {
    let mut rows = Vec::new();
    for ((owner, name), state) in &inventory.attributes {
        let Owner::Process(pid) = owner else { continue };
        let row = |(kind, id, timer)| TimerRow { pid: pid.0, kind, id, timer };
        rows.extend(attribute::timers_of(name, state)?.into_iter().map(row));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Descriptor, Layout, Process, Space, SpaceId, TableId, Vma};
    use crate::object::Place;
    use crate::remote::RemoteFd;

    fn small() -> Inventory {
        let mut inventory = Inventory::default();
        let process = Process {
            parent: None,
            group: 7,
            session: 7,
            exit_signal: 17,
            life: Life::Running,
            name: "it".into(),
            table: TableId(1),
            space: SpaceId(1),
            fs: crate::inventory::FsId(1),
            threads: vec![crate::inventory::Tid(7), crate::inventory::Tid(8)],
        };
        inventory.processes.insert(Pid(7), process);
        let area = |start, end, prot| Vma {
            start,
            end,
            prot,
            shared: false,
            backing: Backing::Anonymous,
            flags: Vec::new(),
            name: None,
        };
        let words = [0, 0, 0, 0, 0x1000, 0x2000, 0x9800, 0x9900, 0x9910, 0, 0];
        let space = Space {
            vmas: vec![area(0x1000, 0x2000, 3), area(0x5000, 0x6000, 5), area(0x9000, 0xa000, 3)],
            layout: Layout { words, auxv: Vec::new() },
            exe: OpenFileId(0),
            vdso: Vec::new(),
            guards: Vec::new(),
            huge: Vec::new(),
            written: Vec::new(),
        };
        inventory.spaces.insert(SpaceId(1), space);
        let record = crate::inventory::ObjectRecord {
            kind: "pipe".into(),
            place: Place::Coordinator,
            needs: Vec::new(),
            state: Vec::new(),
        };
        inventory.objects.insert(ObjectId(4), record);
        let open = crate::open_file::OpenFile::of(ObjectId(4), crate::inventory::End(0));
        inventory.open_files.insert(OpenFileId(3), open);
        let descriptor = Descriptor { open_file: OpenFileId(3), cloexec: true };
        inventory.descriptors.insert((TableId(1), RemoteFd(5)), descriptor);
        inventory
    }

    #[test]
    fn processes_tell_where_their_command_line_is() {
        let rows = processes(&small());
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].pid, rows[0].threads, rows[0].state), (7, 2, "running"));
        assert_eq!(rows[0].arguments, Some((1, 0x9900, 0x9910)));
    }

    #[test]
    fn areas_are_named_as_in_proc() {
        let rows = areas(&small()).unwrap();
        let seen: Vec<_> = rows.iter().map(|row| (row.perm.as_str(), row.name.as_str())).collect();
        assert_eq!(seen, [("rw-p", "[heap]"), ("r-xp", ""), ("rw-p", "[stack]")]);
    }

    #[test]
    fn a_descriptor_has_a_target_whatever_its_kind() {
        let rows = files(&small()).unwrap();
        assert_eq!((rows[0].fd, rows[0].kind.as_str(), rows[0].cloexec), (5, "pipe", true));
        assert_eq!(rows[0].target, "pipe:[4]");
    }
}
