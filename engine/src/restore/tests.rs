//! Real programs, saved by the few lines below and brought back by the real thing. As root.
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::error::Obstacle;
use crate::image::{Bulk, Contents};
use crate::inventory::{
    Backing, Descriptor, Fs, FsId, Layout, Life, ObjectId, ObjectRecord, Process, Registers, Space,
    Special, TableId, Thread, Vma,
};
use crate::object::Sockets;
use crate::object::{Collect, Entry, Evidence, References, classify};
use crate::open_file::OpenFile;
use crate::procfs::Fields;
use crate::remote::RemoteFd;
use crate::sys::ptrace;

#[derive(Default)]
struct Image {
    inventory: Inventory,
    bytes: BTreeMap<Contents, Vec<(u64, Vec<u8>)>>,
}

impl ImageSource for Image {
    fn inventory(&self) -> io::Result<Inventory> {
        Ok(self.inventory.clone())
    }

    fn bytes(
        &self,
        of: Contents,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.bytes.get(&of).into_iter().flatten().try_for_each(|(at, bytes)| visit(*at, bytes))
    }
}

struct Nothing;

impl References for Nothing {
    fn open_file_at(&self, _: Pid, _: RemoteFd) -> Option<OpenFileId> {
        None
    }

    fn watched(&self, _: Pid, _: BorrowedFd<'_>, _: &Entry) -> Result<Option<OpenFileId>> {
        Ok(None)
    }

    fn open_file_of(&self, _: u64) -> Option<OpenFileId> {
        None
    }

    fn adopt(&mut self, _: OwnedFd) -> Result<OpenFileId> {
        Ok(OpenFileId(0))
    }

    fn member(&self, _: i32) -> Option<Pid> {
        None
    }
}

impl Image {
    /// Adds the file behind a link in /proc.
    fn file(&mut self, link: &str, pid: Pid) -> OpenFileId {
        let number = u32::try_from(self.inventory.objects.len()).unwrap();
        let (object, id) = (ObjectId(number), OpenFileId(number));
        let file = if link.contains("/fd/") {
            let number = link.rsplit('/').next().unwrap().parse().unwrap();
            let process = crate::sys::pidfd::open(pid).unwrap();
            crate::sys::pidfd::take(process.as_fd(), number).unwrap()
        } else {
            fs::File::open(link).unwrap().into()
        };
        let (kind, claim) =
            classify(&Evidence::of(file.as_fd(), &Sockets::default()).unwrap()).unwrap();
        let text = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
        let text = fs::read_to_string(text).unwrap();
        let mut info = Fields::parse(&text);
        let (open, _) = OpenFile::collect(file.as_fd(), object, claim.end, &mut info).unwrap();
        let (mut bulk, mut obstacles) = (Bulk::default(), Vec::<Obstacle>::new());
        let state = (kind.collect)(&mut Collect {
            object,
            holder: pid,
            name: link.into(),
            files: &[(claim.end, file.into())],
            info,
            external: None,
            close_tcp: false,
            sockets: &Sockets::default(),
            tree: &mut Nothing,
            bulk: &mut bulk,
            obstacles: &mut obstacles,
            notes: &mut Vec::new(),
        })
        .unwrap();
        assert_eq!(obstacles, []);
        let place = (kind.place)(&state).unwrap();
        let record = ObjectRecord { kind: kind.name.into(), place, needs: Vec::new(), state };
        self.inventory.objects.insert(object, record);
        self.inventory.open_files.insert(id, open);
        id
    }

    /// A process that is stopped, all its threads seized.
    fn process(&mut self, pid: Pid, parent: Option<Pid>) {
        let n = u32::try_from(self.inventory.processes.len()).unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let stat: Vec<_> =
            stat.rsplit_once(") ").unwrap().1.split(' ').map(str::to_owned).collect();
        let field = |number: usize| stat[number - 3].parse::<i64>().unwrap();
        let mut tids: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .map(|entry| Tid(entry.unwrap().file_name().to_str().unwrap().parse().unwrap()))
            .collect();
        tids.sort();
        for tid in &tids {
            let (xstate, blocked) = (ptrace::xstate(tid.0).unwrap(), ptrace::mask(tid.0).unwrap());
            let registers = restartable(Registers(ptrace::registers(tid.0).unwrap()));
            let rseq = ptrace::rseq(tid.0).unwrap();
            let thread = Thread { registers, xstate, blocked, rseq };
            self.inventory.threads.insert(*tid, thread);
        }
        let cwd = self.file(&format!("/proc/{pid}/cwd"), pid);
        let root = self.file(&format!("/proc/{pid}/root"), pid);
        self.inventory.filesystems.insert(FsId(n), Fs { cwd, root });
        self.space(SpaceId(n), pid, &|number| field(number).cast_unsigned());
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let number = entry.unwrap().file_name().into_string().unwrap();
            if number.parse::<i32>().unwrap() > 2 {
                continue; // Whoever runs the tests may leave some open.
            }
            let open_file = self.file(&format!("/proc/{pid}/fd/{number}"), pid);
            let at = (TableId(n), RemoteFd(number.parse().unwrap()));
            self.inventory.descriptors.insert(at, Descriptor { open_file, cloexec: false });
        }
        let number = |at: usize| i32::try_from(field(at)).unwrap();
        let process = Process {
            parent,
            group: number(5),
            session: number(6),
            exit_signal: number(38),
            life: Life::Running,
            name: fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().into(),
            table: TableId(n),
            space: SpaceId(n),
            fs: FsId(n),
            threads: tids,
        };
        self.inventory.processes.insert(pid, process);
    }

    /// Ends all of it.
    fn kill(&self) {
        let processes = &self.inventory.processes;
        processes.keys().for_each(|pid| hold::kill(pid.0));
        let threads = processes.values().rev().flat_map(|process| process.threads.iter().rev());
        threads.for_each(|tid| hold::reap(tid.0));
        processes.keys().for_each(|pid| until_gone(pid.0));
    }

    fn space(&mut self, id: SpaceId, pid: Pid, field: &dyn Fn(usize) -> u64) {
        let mut space = Space {
            guards: Vec::new(),
            huge: Vec::new(),
            vmas: Vec::new(),
            layout: Layout::default(),
            exe: self.file(&format!("/proc/{pid}/exe"), pid),
            vdso: Vec::new(),
            written: Vec::new(),
        };
        space.layout.auxv = fs::read(format!("/proc/{pid}/auxv")).unwrap();
        let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let (mut files, mut pages) = (HashMap::new(), Vec::new());
        let mut brk = field(47);
        for (line, flags) in areas(&fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap()) {
            let words: Vec<_> = line.split_whitespace().collect();
            let (start, end) = super::hole::own(&line).next().unwrap();
            let name = words.get(5).copied().unwrap_or_default();
            if name == "[vsyscall]" {
                continue;
            }
            if name == "[heap]" {
                brk = end;
            }
            let special = [
                ("[vdso]", Special::Vdso),
                ("[vvar]", Special::Vvar),
                ("[vvar_vclock]", Special::VvarVclock),
            ];
            let special = special.iter().find(|(text, _)| *text == name).map(|(_, what)| *what);
            let backing = match special {
                Some(what) => Backing::Special(what),
                None if name.starts_with('/') => {
                    let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
                    let open_file =
                        *files.entry(name.to_owned()).or_insert_with(|| self.file(&link, pid));
                    let offset = u64::from_str_radix(words[2], 16).unwrap();
                    Backing::File { open_file, offset }
                }
                None => Backing::Anonymous,
            };
            let bit = |at: usize, letter: u8, value| {
                if words[1].as_bytes()[at] == letter { value } else { 0 }
            };
            let prot = bit(0, b'r', 1) | bit(1, b'w', 2) | bit(2, b'x', 4);
            let shared = words[1].ends_with('s');
            if special == Some(Special::Vdso) {
                space.vdso = read(&memory, start, end);
            } else if special.is_none()
                && !shared
                && prot & 1 != 0
                && (matches!(backing, Backing::Anonymous) || flags.contains(&"ac".into()))
            {
                for at in (start..end).step_by(4096) {
                    let page = read(&memory, at, at + 4096);
                    if page.iter().any(|byte| *byte != 0) || !matches!(backing, Backing::Anonymous)
                    {
                        pages.push((at, page));
                    }
                }
            }
            space.vmas.push(Vma { start, end, prot, shared, backing, flags, name: None });
        }
        let words = [26, 27, 45, 46, 47, 0, 28, 48, 49, 50, 51];
        space.layout.words = words.map(|number| if number == 0 { brk } else { field(number) });
        self.inventory.spaces.insert(id, space);
        self.bytes.insert(Contents::Space(id), runs(pages));
    }
}

fn until_gone(pid: i32) {
    let end = std::time::Instant::now() + Duration::from_secs(2);
    while std::time::Instant::now() < end && fs::exists(format!("/proc/{pid}")).unwrap() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Up to 16 pages at a time, as stores keep them.
fn runs(pages: Vec<(u64, Vec<u8>)>) -> Vec<(u64, Vec<u8>)> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for (at, page) in pages {
        match runs.last_mut() {
            Some((start, bytes))
                if *start + bytes.len() as u64 == at && bytes.len() < 16 * 4096 =>
            {
                bytes.extend(page);
            }
            _ => runs.push((at, page)),
        }
    }
    runs
}

fn read(memory: &fs::File, start: u64, end: u64) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
    memory.read_exact_at(&mut bytes, start).unwrap();
    bytes
}

/// Lines of maps with the letters of each area.
fn areas(smaps: &str) -> Vec<(String, Vec<String>)> {
    let mut areas: Vec<(String, Vec<String>)> = Vec::new();
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let flags = flags.split_whitespace().map(str::to_owned).collect();
            areas.last_mut().unwrap().1 = flags;
        } else if line.split(' ').next().unwrap().contains('-') {
            areas.push((line.to_owned(), Vec::new()));
        }
    }
    areas
}

/// An interrupted call is made again.
fn restartable(mut registers: Registers) -> Registers {
    let result = registers.0[10].cast_signed();
    if registers.0[15].cast_signed() >= 0 && (-516..=-512).contains(&result) {
        registers.0[10] = if result == -516 { 219 } else { registers.0[15] };
        registers.0[16] -= 2;
    }
    if result == -516 {
        registers.0[10] = registers.0[15]; // restart_block stays behind: nanosleep anew.
    }
    registers.0[15] = u64::MAX;
    registers
}

fn compile(name: &str, source: &str, options: &[&str]) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("snapd-restore-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (code, program) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&code, source).unwrap();
    let built = Command::new("cc").args(options).arg("-o").arg(&program).arg(&code).status();
    assert!(built.unwrap().success());
    program
}

/// Runs it with a log as its standard output.
fn start(program: &std::path::Path) -> (Child, std::path::PathBuf) {
    let log = program.with_extension("log");
    let file = fs::File::options().append(true).create(true).open(&log).unwrap();
    let child = Command::new(program)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, log)
}

fn numbers(log: &std::path::Path) -> Vec<u32> {
    let text = fs::read_to_string(log).unwrap();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn options() -> Options {
    Options {
        parentage: Parentage::Child,
        continue_clocks: false,
        accept_changed: true,
        files_put_back: false,
        close_tcp: false,
        externals: Vec::new(),
    }
}

const COUNTER: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) {
    for (unsigned n = 0;; n++) { dprintf(1, "%u\n", n); usleep(1000); }
}"#;

fn wait_for(log: &std::path::Path, count: usize) -> Vec<u32> {
    for _ in 0..500 {
        let seen = numbers(log);
        if seen.len() >= count {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} lines only", numbers(log).len());
}

/// The tree, parents first.
fn tree(root: Pid) -> Vec<(Pid, Option<Pid>)> {
    let mut found = vec![(root, None)];
    let mut at = 0;
    while let Some(&(pid, _)) = found.get(at) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let list = fs::read_to_string(task.unwrap().path().join("children")).unwrap();
            let children = list.split_whitespace().map(|child| Pid(child.parse().unwrap()));
            found.extend(children.map(|child| (child, Some(pid))));
        }
        at += 1;
    }
    found
}

fn save(root: Pid) -> Image {
    let mut image = Image::default();
    let members = tree(root);
    for (pid, _) in &members {
        for entry in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let tid = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
            hold::seize(tid).unwrap();
            hold::stop(tid).unwrap();
        }
    }
    members.iter().for_each(|(pid, parent)| image.process(*pid, *parent));
    image.kill();
    image
}

/// Saves, kills, brings back, and sees it count on without a gap.
fn counts_on(name: &str, source: &str, compiler: &[&str]) -> (Pid, Image) {
    let program = compile(name, source, compiler);
    let (mut child, log) = start(&program);
    let pid = Pid(child.id().cast_signed());
    wait_for(&log, 20);
    let image = save(pid);
    assert!(child.wait().is_err(), "it has been reaped");
    let before = numbers(&log).len();
    eprintln!("saved {pid} {}", log.display());
    crate::fault::arm_from_environment();
    let start = std::time::Instant::now();
    let restored = restore(&image, &options()).unwrap();
    eprintln!("{name}: {:?}", start.elapsed());
    assert_eq!(restored.roots, [pid]);
    let after = wait_for(&log, before + 50);
    assert!(after.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{after:?}");
    for (pid, process) in &image.inventory.processes {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let vmas = &image.inventory.spaces[&process.space].vmas;
        let found: Vec<_> =
            maps.lines().filter(|l| !l.contains("vsyscall")).flat_map(super::hole::own).collect();
        assert_eq!(found, vmas.iter().map(|vma| (vma.start, vma.end)).collect::<Vec<_>>());
    }
    (pid, image)
}

#[test]
fn a_static_program_counts_on() {
    counts_on("static", COUNTER, &["-O1", "-static"]).1.kill();
}

#[test]
fn a_dynamic_program_counts_on() {
    counts_on("dynamic", COUNTER, &["-O1"]).1.kill();
}

/// Eight threads hand a number round; each has its own, in thread-local storage.
const THREADS: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static unsigned n;
static __thread long own;
static void *run(void *arg) {
    own = (long)arg;
    for (;;) {
        pthread_mutex_lock(&m);
        while (n % 8 != own) pthread_cond_wait(&c, &m);
        if (own != (long)arg) abort();
        dprintf(1, "%u\n", n++);
        pthread_cond_broadcast(&c);
        pthread_mutex_unlock(&m);
        usleep(1000);
    }
}
int main(void) {
    pthread_t t;
    for (long i = 1; i < 8; i++) pthread_create(&t, 0, run, (void *)i);
    run((void *)0);
}"#;

#[test]
fn threads_go_on_together() {
    counts_on("threads", THREADS, &["-O1", "-pthread"]).1.kill();
}

/// A parent, a child that shares 4 MiB with it, and a grandchild in a session of its own.
const FAMILY: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char big[4 << 20];
int main(void) {
    memset(big, 7, sizeof big);
    if (fork() == 0) {
        if (fork() == 0) { setsid(); for (;;) sleep(1000); }
        big[0] = 8;
        for (;;) { usleep(1000); if (big[0] != 8 || big[4096] != 7) abort(); }
    }
    for (unsigned n = 0;; n++) { if (big[0] != 7) abort(); dprintf(1, "%u\n", n); usleep(1000); }
}"#;

#[test]
fn a_family_keeps_its_sessions_and_shares_its_pages() {
    let (root, image) = counts_on("family", FAMILY, &["-O1"]);
    let members = tree(root);
    assert_eq!(members.len(), 3);
    for (pid, process) in &image.inventory.processes {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let stat: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        assert_eq!(stat[2], process.group.to_string());
        assert_eq!(stat[3], process.session.to_string());
    }
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", members[1].0)).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty")).unwrap();
    let private: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(private < 1024, "{rollup}");
    image.kill();
}
