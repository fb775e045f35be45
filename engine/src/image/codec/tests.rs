use super::*;
use crate::attribute::Owner;
use crate::inventory::{
    Backing, Descriptor, End, Fs, FsId, Layout, Life, Note, ObjectId, ObjectRecord, OpenFileId,
    Pid, Process, Registers, Rseq, Space, SpaceId, Special, TableId, Thread, Tid, Vma,
};
use crate::object::Place;
use crate::open_file::OpenFile;
use crate::remote::RemoteFd;
use proptest::prelude::*;

/// One record of each sort, with nothing left at its default.
fn inventory() -> Inventory {
    let mut all = Inventory::default();
    all.machine.architecture = "x86_64".into();
    all.machine.xsave_bytes = 2696;
    all.clocks.monotonic = -5;
    let process = |life, threads: &[i32]| Process {
        parent: (threads != [7, 8]).then_some(Pid(7)),
        group: 7,
        session: 1,
        exit_signal: 17,
        life,
        name: "a name".into(),
        table: TableId(1),
        space: SpaceId(2),
        fs: FsId(3),
        threads: threads.iter().copied().map(Tid).collect(),
    };
    all.processes.insert(Pid(7), process(Life::Running, &[7, 8]));
    all.processes.insert(Pid(9), process(Life::Stopped { signal: 19, unreported: true }, &[9]));
    all.processes.insert(Pid(11), process(Life::Continued, &[11]));
    all.processes.insert(Pid(10), process(Life::Zombie { status: 256 }, &[]));
    let rseq = Some(Rseq { address: 0x7000, size: 32, signature: 0x5305_3053 });
    let registers = Registers(std::array::from_fn(|n| u64::MAX - n as u64));
    all.threads.insert(Tid(7), Thread { registers, xstate: vec![1, 2], blocked: 1 << 63, rseq });
    let area = |start, backing, shared| Vma {
        start,
        end: start + 0x1000,
        prot: 3,
        shared,
        backing,
        flags: vec!["ac".into(), "rd".into()],
        name: shared.then(|| "heap of mine".into()),
    };
    let file = Backing::File { open_file: OpenFileId(5), offset: 0x3000 };
    let vmas = vec![
        area(0x1000, Backing::Anonymous, false),
        area(0x2000, file, true),
        area(0x8000, Backing::Special(Special::VvarVclock), false),
    ];
    let layout = Layout { words: std::array::from_fn(|n| n as u64), auxv: vec![6, 0] };
    let (vdso, written) = (b"\x7fELF".to_vec(), vec![(0x2000, 0x3000)]);
    let (guards, huge) = (vec![(1, 2)], vec![(3, 4)]);
    let space = Space { vmas, layout, exe: OpenFileId(5), vdso, written, guards, huge };
    all.spaces.insert(SpaceId(2), space);
    all.filesystems.insert(FsId(3), Fs { cwd: OpenFileId(5), root: OpenFileId(6) });
    let (place, needs) = (Place::Process(Pid(7)), vec![OpenFileId(5)]);
    let object = ObjectRecord { kind: "eventfd".into(), place, needs, state: vec![8, 1] };
    all.objects.insert(ObjectId(4), object);
    all.open_files.insert(OpenFileId(5), OpenFile::of(ObjectId(4), End(1)));
    let descriptor = Descriptor { open_file: OpenFileId(5), cloexec: true };
    all.descriptors.insert((TableId(1), RemoteFd(0)), descriptor);
    for owner in [Owner::Process(Pid(7)), Owner::Thread(Pid(7), Tid(8))] {
        all.attributes.insert((owner, "umask".into()), vec![8, 18]);
    }
    all.notes.push(Note { pid: Some(Pid(7)), text: "of note".into() });
    all
}

#[test]
fn round_trip() {
    assert_eq!(decode(&encode(&inventory())).unwrap(), inventory());
    assert_eq!(decode(&encode(&Inventory::default())).unwrap(), Inventory::default());
}

#[test]
fn the_unknown_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut message::Image)| {
        let mut image = message::Image { version: VERSION, ..(&inventory()).into() };
        change(&mut image);
        decode(&image.encode_to_vec()).unwrap_err().to_string()
    };
    let by_name = |name: &str| format!("record {name:?} is damaged");
    assert_eq!(refused(&|image| image.version = 2), by_name("inventory of version 2"));
    assert_eq!(refused(&|image| image.objects[0].kind = "warp".into()), by_name("warp"));
    assert_eq!(refused(&|image| image.attributes[0].name = "mood".into()), by_name("mood"));
    let special = |image: &mut message::Image| image.spaces[0].vmas[2].special = Some("[x]".into());
    assert_eq!(refused(&special), by_name("[x]"));
    let twice = |image: &mut message::Image| {
        let again = image.processes[0].clone();
        image.processes.push(again);
    };
    assert_eq!(refused(&twice), by_name("process that is there twice"));
    let overlap = |image: &mut message::Image| image.spaces[0].vmas[1].start = 0x1800;
    assert_eq!(refused(&overlap), by_name("areas"));
}

proptest! {
    #[test]
    fn foreign_bytes_are_an_error_at_worst(bytes: Vec<u8>) {
        drop(decode(&bytes));
    }

    #[test]
    fn a_changed_byte_is_an_error_or_another_inventory(at: prop::sample::Index, byte: u8) {
        let mut bytes = encode(&inventory());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(other) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&other)).unwrap(), other);
        }
    }
}
