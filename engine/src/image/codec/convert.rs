//! Between the inventory's types and the messages: one pair of functions for each record.
use std::collections::BTreeMap;

use super::message as m;
use crate::attribute::{self, Owner};
use crate::error::{Error, Result};
use crate::external;
use crate::inventory::{
    Backing, Clocks, Descriptor, Fs, FsId, Inventory, Layout, Life, Machine, Note, ObjectId,
    ObjectRecord, OpenFileId, Pid, Process, Registers, Rseq, Space, SpaceId, Special, TableId,
    Thread, Tid, Vma,
};
use crate::object::{KINDS, Place};
use crate::remote::RemoteFd;

fn damaged(record: impl Into<String>) -> Error {
    Error::Record(record.into(), None)
}

impl From<&Inventory> for m::Image {
    fn from(from: &Inventory) -> Self {
        let numbered = |(id, file): (&OpenFileId, &_)| m::NumberedFile {
            id: id.0,
            file: Some(Clone::clone(file)),
        };
        Self {
            version: 0,
            machine: Some(machine(&from.machine)),
            clocks: Some(clocks(from.clocks)),
            processes: from.processes.iter().map(process).collect(),
            threads: from.threads.iter().map(thread).collect(),
            spaces: from.spaces.iter().map(space).collect(),
            filesystems: from.filesystems.iter().map(fs).collect(),
            objects: from.objects.iter().map(object).collect(),
            open_files: from.open_files.iter().map(numbered).collect(),
            descriptors: from.descriptors.iter().map(descriptor).collect(),
            attributes: from.attributes.iter().map(attribute).collect(),
            files: Some(from.files.clone()),
            notes: from.notes.iter().map(note).collect(),
        }
    }
}

impl TryFrom<m::Image> for Inventory {
    type Error = Error;

    fn try_from(from: m::Image) -> Result<Self> {
        let numbered = |one: m::NumberedFile| {
            Ok((OpenFileId(one.id), one.file.ok_or_else(|| damaged("open file"))?))
        };
        Ok(Self {
            machine: from.machine.map(to_machine).unwrap_or_default(),
            clocks: from.clocks.map(to_clocks).unwrap_or_default(),
            processes: each("process", from.processes, to_process)?,
            threads: each("thread", from.threads, to_thread)?,
            spaces: each("space", from.spaces, to_space)?,
            filesystems: each("fs", from.filesystems, |one| Ok(to_fs(&one)))?,
            objects: each("object", from.objects, to_object)?,
            open_files: each("open file", from.open_files, numbered)?,
            descriptors: each("descriptor", from.descriptors, |one| to_descriptor(&one))?,
            attributes: each("attribute", from.attributes, to_attribute)?,
            files: from.files.unwrap_or_default(),
            notes: from.notes.into_iter().map(to_note).collect(),
        })
    }
}

/// All records of one sort; that two have one number is damage.
fn each<M, K: Ord, V>(
    sort: &str,
    messages: Vec<M>,
    convert: impl Fn(M) -> Result<(K, V)>,
) -> Result<BTreeMap<K, V>> {
    let mut all = BTreeMap::new();
    for message in messages {
        let (key, value) = convert(message)?;
        if all.insert(key, value).is_some() {
            return Err(damaged(format!("{sort} that is there twice")));
        }
    }
    Ok(all)
}

fn machine(from: &Machine) -> m::Machine {
    m::Machine {
        architecture: from.architecture.clone(),
        kernel: from.kernel.clone(),
        xfeatures: from.xfeatures,
        xsave_bytes: from.xsave_bytes,
        flags: from.flags.clone(),
    }
}

fn to_machine(from: m::Machine) -> Machine {
    let m::Machine { architecture, kernel, xfeatures, xsave_bytes, flags } = from;
    Machine { architecture, kernel, xfeatures, xsave_bytes, flags }
}

fn clocks(Clocks { monotonic, boottime, realtime }: Clocks) -> m::Clocks {
    m::Clocks { monotonic, boottime, realtime }
}

fn to_clocks(m::Clocks { monotonic, boottime, realtime }: m::Clocks) -> Clocks {
    Clocks { monotonic, boottime, realtime }
}

fn process((pid, from): (&Pid, &Process)) -> m::Process {
    let (stopped, exit_code) = match from.life {
        Life::Running | Life::Continued => (None, None),
        Life::Stopped { signal, unreported } => (Some(m::Stopped { signal, unreported }), None),
        Life::Zombie { status } => (None, Some(status)),
    };
    m::Process {
        pid: pid.0,
        ppid: from.parent.map(|parent| parent.0),
        pgid: from.group,
        sid: from.session,
        exit_signal: from.exit_signal,
        stopped,
        exit_code,
        comm: from.name.clone(),
        files_id: from.table.0,
        vm_id: from.space.0,
        fs_id: from.fs.0,
        threads: from.threads.iter().map(|tid| tid.0).collect(),
        continued: from.life == Life::Continued,
    }
}

fn to_process(from: m::Process) -> Result<(Pid, Process)> {
    let life = match (from.stopped, from.exit_code) {
        (None, None) if from.continued => Life::Continued,
        (None, None) => Life::Running,
        (Some(m::Stopped { signal, unreported }), None) => Life::Stopped { signal, unreported },
        (None, Some(status)) => Life::Zombie { status },
        (Some(_), Some(_)) => return Err(damaged("process")),
    };
    let process = Process {
        parent: from.ppid.map(Pid),
        group: from.pgid,
        session: from.sid,
        exit_signal: from.exit_signal,
        life,
        name: from.comm,
        table: TableId(from.files_id),
        space: SpaceId(from.vm_id),
        fs: FsId(from.fs_id),
        threads: from.threads.into_iter().map(Tid).collect(),
    };
    Ok((Pid(from.pid), process))
}

fn thread((tid, from): (&Tid, &Thread)) -> m::Thread {
    let rseq = |Rseq { address, size, signature }| m::Rseq { address, size, signature };
    m::Thread {
        tid: tid.0,
        gpregs: from.registers.0.to_vec(),
        xsave: from.xstate.clone(),
        blk_sigset: from.blocked,
        rseq: from.rseq.map(rseq),
    }
}

fn to_thread(from: m::Thread) -> Result<(Tid, Thread)> {
    let rseq = |m::Rseq { address, size, signature }| Rseq { address, size, signature };
    let thread = Thread {
        registers: Registers(from.gpregs.try_into().map_err(|_| damaged("registers"))?),
        xstate: from.xsave,
        blocked: from.blk_sigset,
        rseq: from.rseq.map(rseq),
    };
    Ok((Tid(from.tid), thread))
}

fn space((id, from): (&SpaceId, &Space)) -> m::Space {
    m::Space {
        id: id.0,
        vmas: from.vmas.iter().map(vma).collect(),
        layout: from.layout.words.to_vec(),
        saved_auxv: from.layout.auxv.clone(),
        exe_file_id: from.exe.0,
        vdso: from.vdso.clone(),
        written: numbers(&from.written),
        guards: numbers(&from.guards),
        huge: numbers(&from.huge),
    }
}

fn numbers(ranges: &[(u64, u64)]) -> Vec<u64> {
    ranges.iter().flat_map(|&(start, end)| [start, end]).collect()
}

fn to_ranges(numbers: &[u64]) -> Result<Vec<(u64, u64)>> {
    match numbers.as_chunks() {
        (ranges, []) if numbers.is_sorted() => Ok(ranges.iter().map(|&[a, b]| (a, b)).collect()),
        _ => Err(damaged("ranges of pages")),
    }
}

fn to_space(from: m::Space) -> Result<(SpaceId, Space)> {
    let words = from.layout.try_into().map_err(|_| damaged("layout"))?;
    let space = Space {
        vmas: from.vmas.into_iter().map(to_vma).collect::<Result<_>>()?,
        layout: Layout { words, auxv: from.saved_auxv },
        exe: OpenFileId(from.exe_file_id),
        vdso: from.vdso,
        written: to_ranges(&from.written)?,
        guards: to_ranges(&from.guards)?,
        huge: to_ranges(&from.huge)?,
    };
    let ends = space.vmas.iter().map(|vma| vma.end);
    let in_order = space.vmas.iter().skip(1).zip(ends).all(|(next, end)| end <= next.start);
    if !in_order || space.vmas.iter().any(|vma| vma.start >= vma.end) {
        return Err(damaged("areas"));
    }
    Ok((SpaceId(from.id), space))
}

const SPECIAL: [(Special, &str); 3] =
    [(Special::Vdso, "[vdso]"), (Special::Vvar, "[vvar]"), (Special::VvarVclock, "[vvar_vclock]")];

fn vma(from: &Vma) -> m::Vma {
    let (file, pgoff, special) = match from.backing {
        Backing::Anonymous => (None, 0, None),
        Backing::File { open_file, offset } => (Some(open_file.0), offset, None),
        Backing::Special(which) => (None, 0, SPECIAL.iter().find(|(one, _)| *one == which)),
    };
    m::Vma {
        start: from.start,
        end: from.end,
        prot: from.prot,
        shared: from.shared,
        file,
        pgoff,
        special: special.map(|(_, name)| (*name).to_owned()),
        flags: from.flags.clone(),
        name: from.name.clone(),
    }
}

fn to_vma(from: m::Vma) -> Result<Vma> {
    let backing = match (from.file, from.special) {
        (None, None) => Backing::Anonymous,
        (Some(file), None) => Backing::File { open_file: OpenFileId(file), offset: from.pgoff },
        (None, Some(name)) => {
            let found = SPECIAL.iter().find(|(_, known)| *known == name);
            Backing::Special(found.ok_or_else(|| damaged(name))?.0)
        }
        (Some(_), Some(_)) => return Err(damaged("area")),
    };
    let m::Vma { start, end, prot, shared, flags, name, .. } = from;
    Ok(Vma { start, end, prot, shared, backing, flags, name })
}

fn fs((id, from): (&FsId, &Fs)) -> m::Fs {
    m::Fs { id: id.0, cwd_id: from.cwd.0, root_id: from.root.0 }
}

fn to_fs(from: &m::Fs) -> (FsId, Fs) {
    (FsId(from.id), Fs { cwd: OpenFileId(from.cwd_id), root: OpenFileId(from.root_id) })
}

fn object((id, from): (&ObjectId, &ObjectRecord)) -> m::Object {
    m::Object {
        id: id.0,
        kind: from.kind.clone(),
        place: match from.place {
            Place::Coordinator => None,
            Place::Process(pid) => Some(pid.0),
        },
        needs: from.needs.iter().map(|need| need.0).collect(),
        state: from.state.clone(),
    }
}

fn to_object(from: m::Object) -> Result<(ObjectId, ObjectRecord)> {
    let m::Object { id, kind, place, needs, state } = from;
    if kind != external::NAME && KINDS.iter().all(|known| known.name != kind) {
        return Err(damaged(kind));
    }
    let place = place.map_or(Place::Coordinator, |pid| Place::Process(Pid(pid)));
    let needs = needs.into_iter().map(OpenFileId).collect();
    Ok((ObjectId(id), ObjectRecord { kind, place, needs, state }))
}

fn descriptor((&(table, fd), from): (&(TableId, RemoteFd), &Descriptor)) -> m::Descriptor {
    m::Descriptor { files_id: table.0, fd: fd.0, file: from.open_file.0, cloexec: from.cloexec }
}

fn to_descriptor(from: &m::Descriptor) -> Result<((TableId, RemoteFd), Descriptor)> {
    if from.fd < 0 {
        return Err(damaged("descriptor"));
    }
    let descriptor = Descriptor { open_file: OpenFileId(from.file), cloexec: from.cloexec };
    Ok(((TableId(from.files_id), RemoteFd(from.fd)), descriptor))
}

fn attribute(((owner, name), state): (&(Owner, String), &Vec<u8>)) -> m::Attribute {
    let tid = match owner {
        Owner::Process(_) => None,
        Owner::Thread(_, tid) => Some(tid.0),
    };
    m::Attribute { pid: owner.pid().0, tid, name: name.clone(), state: state.clone() }
}

fn to_attribute(from: m::Attribute) -> Result<((Owner, String), Vec<u8>)> {
    let m::Attribute { pid, tid, name, state } = from;
    if attribute::find(&name).is_none() {
        return Err(damaged(name));
    }
    let owner = tid.map_or(Owner::Process(Pid(pid)), |tid| Owner::Thread(Pid(pid), Tid(tid)));
    Ok(((owner, name), state))
}

fn note(from: &Note) -> m::Note {
    m::Note { pid: from.pid.map(|pid| pid.0), text: from.text.clone() }
}

fn to_note(from: m::Note) -> Note {
    Note { pid: from.pid.map(Pid), text: from.text }
}
