//! Whole checkpoints and restores of small programs, through the engine's own entry points.
//!
//! One after the other: orphans are reaped without asking whose they are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engine::error::Error;
use engine::image::{Contents, ImageSink, ImageSource, decode, encode};
use engine::inventory::{Inventory, Pid};
use engine::restore::{Options as How, Parentage, restore, restore_verified};
use engine::session::{Frozen, Inventoried, Options};
use engine::verify::differences;

const SOON: Duration = Duration::from_secs(5);

/// An image in memory.
#[derive(Default)]
struct Image {
    records: Vec<u8>,
    bytes: BTreeMap<Contents, BTreeMap<u64, Vec<u8>>>,
}

impl ImageSink for Image {
    fn inventory(&mut self, inventory: &Inventory) -> io::Result<()> {
        self.records = encode(inventory);
        Ok(())
    }

    fn bytes(&mut self, of: Contents, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.bytes.entry(of).or_default().insert(at, bytes.to_vec());
        Ok(())
    }

    fn restart(&mut self, of: Contents) -> io::Result<()> {
        self.bytes.remove(&of);
        Ok(())
    }

    fn unchanged(&mut self, _: Contents, _: Range<u64>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl ImageSource for Image {
    fn inventory(&self) -> io::Result<Inventory> {
        decode(&self.records).map_err(io::Error::other)
    }

    fn bytes(
        &self,
        of: Contents,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let runs = self.bytes.get(&of).into_iter().flatten();
        runs.into_iter().try_for_each(|(at, bytes)| visit(*at, bytes))
    }
}

fn look(pid: Pid) -> Inventoried {
    Frozen::freeze(&[pid], SOON).unwrap().inventory(&Options::default()).unwrap()
}

/// Whoever runs the tests may leave some open.
const CLOSE: &str = r#"for f in /proc/$$/fd/*; do n=${f##*/}; [ $n -gt 2 ] && eval "exec $n>&-"; done
exec "$@""#;

/// A program that is on its own: no descriptor of it leads out of it.
fn alone(program: &[&str]) -> Child {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", CLOSE, "bash"]).args(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// One test at a time.
fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn settle(pid: u32) {
    let sleeping = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        // clock_nanosleep, wait4, rt_sigsuspend, restart_syscall.
        ["230 ", "61 ", "130 ", "219 "].iter().any(|number| text.starts_with(number))
    };
    for _ in 0..500 {
        if sleeping() {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            return children.split_whitespace().for_each(|child| settle(child.parse().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
    panic!("process {pid} does not come to rest: {call:?}");
}

/// Takes the program's image and ends it.
fn take(mut program: Child) -> Image {
    settle(program.id());
    let inventoried = look(Pid(program.id().cast_signed()));
    assert_eq!(inventoried.obstacles(), []);
    let mut image = Image::default();
    let written = inventoried.capture().unwrap().write(&mut image).unwrap();
    written.kill().unwrap();
    drop(program.wait());
    reap();
    image
}

/// Orphans are ours: their numbers must be free before they come back.
fn reap() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    for _ in 0..100 {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(10)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn bring(image: &Image) -> Vec<Pid> {
    let how = How {
        parentage: Parentage::Child,
        continue_clocks: false,
        accept_changed: false,
        files_put_back: false,
        close_tcp: false,
        externals: Vec::new(),
    };
    restore(image, &how).unwrap().roots
}

fn end(pid: Pid) {
    let pid = nix::unistd::Pid::from_raw(pid.0);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(pid, None).unwrap();
}

/// The same, but for what running on has changed: system calls leave their own address and flags in rcx
/// and r11, and sleepers their stubs behind the vdso's code.
fn compare(mut then: Inventory, mut now: Inventory) {
    for inventory in [&mut then, &mut now] {
        for thread in inventory.threads.values_mut() {
            (thread.registers.0[6], thread.registers.0[11]) = (0, 0);
        }
        inventory.spaces.values_mut().for_each(|space| space.vdso.clear());
    }
    assert_eq!(differences(&then, &now), Vec::<String>::new());
}

/// That nobody is let go who is not what was saved: the oracle sees what was changed in the image.
/// Whoever opens a slave by `TIOCGPTPEER` with `O_CLOEXEC` makes fdinfo say of all its descriptors that they
/// are closed on exec: programs that restored shells started had no terminal.
#[test]
fn what_closes_on_exec_is_asked_where_fdinfo_does_not_tell() {
    const OPEN: &str = "import fcntl, os, time\n\
                        master, slave = os.openpty()\n\
                        peer = fcntl.ioctl(master, 0x5441, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)\n\
                        os.dup2(peer, 20)\n\
                        os.dup2(peer, 21, inheritable=False)\n\
                        time.sleep(1000)";
    let _turn = turn();
    let mut program = alone(&["python3", "-c", OPEN]);
    settle(program.id());
    let inventoried = look(Pid(program.id().cast_signed()));
    let descriptors = &inventoried.inventory().descriptors;
    let closes = |number| {
        let found = descriptors.iter().find(|((_, fd), _)| fd.0 == number);
        found.map(|(_, descriptor)| descriptor.cloexec)
    };
    assert_eq!((closes(20), closes(21)), (Some(false), Some(true)));
    drop(inventoried);
    program.kill().unwrap();
    program.wait().unwrap();
}

/// No call is made in it: the death of whoever had made one would be its own.
#[test]
fn who_has_given_up_system_calls_is_refused_and_left_alone() {
    const STRICT: &str = "import ctypes, os\n\
                          prctl = ctypes.CDLL(None).prctl\n\
                          os.write(1, b'ready')\n\
                          prctl(22, 1)\n\
                          os.write(1, os.read(0, 1))\n\
                          os.read(0, 1)";
    let mut program = Command::new("python3")
        .args(["-c", STRICT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
    output.read_exact(&mut [0; 5]).unwrap();
    let pid = Pid(program.id().cast_signed());
    while !std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap().starts_with("0 0x0 ") {
        std::thread::sleep(Duration::from_millis(1));
    }
    let inventoried = look(pid);
    let codes: Vec<_> = inventoried.obstacles().iter().map(|one| one.cause.code).collect();
    assert!(codes.contains(&"seccomp:confined"), "{codes:?}");
    drop(inventoried);
    input.write_all(b"!").unwrap();
    let mut answer = [0];
    output.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"!");
    program.kill().unwrap();
    program.wait().unwrap();
}

/// Whatever was being asked of it then: reading its files fails in one way, tracing it in another.
#[test]
fn who_dies_while_it_is_held_is_named() {
    let _turn = turn();
    for after_inventory in [false, true] {
        let mut program = alone(&["sleep", "1000"]);
        settle(program.id());
        let pid = Pid(program.id().cast_signed());
        let frozen = Frozen::freeze(&[pid], SOON).unwrap();
        let mut end = || {
            program.kill().unwrap();
            let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            while !stat().contains(") Z ") {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let died = if after_inventory {
            let inventoried = frozen.inventory(&Options::default()).unwrap();
            end();
            let captured = inventoried.capture();
            captured.and_then(|captured| captured.write(&mut Image::default())).err()
        } else {
            end();
            frozen.inventory(&Options::default()).err()
        };
        assert!(matches!(died, Some(Error::Died(dead)) if dead == pid), "{died:?}");
        drop(program.wait());
    }
}

#[test]
fn what_came_back_otherwise_is_named() {
    let _turn = turn();
    let image = take(alone(&["sleep", "1000"]));
    let how = || How {
        parentage: Parentage::Child,
        continue_clocks: false,
        accept_changed: false,
        files_put_back: false,
        close_tcp: false,
        externals: Vec::new(),
    };
    let pid = restore_verified(&image, &how()).unwrap().roots[0];
    end(pid);
    let space = image.bytes.keys().find(|of| matches!(of, Contents::Space(_))).copied().unwrap();
    let (at, bytes) = image.bytes[&space].first_key_value().unwrap();
    let (at, mut other) = (*at, bytes.clone());
    other[0] ^= 1;
    let lying = Lying { image: &image, of: space, at, other };
    let refused = restore_verified(&lying, &how()).unwrap_err();
    let text = format!("{refused:?}");
    assert!(text.contains("verify:differs") && text.contains("memory of space"), "{text}");
    assert!(std::fs::metadata(format!("/proc/{pid}")).is_err(), "it was let go");
}

/// Gives other bytes the second time it is asked.
struct Lying<'a> {
    image: &'a Image,
    of: Contents,
    at: u64,
    other: Vec<u8>,
}

impl ImageSource for Lying<'_> {
    fn inventory(&self) -> io::Result<Inventory> {
        ImageSource::inventory(self.image)
    }

    fn bytes(
        &self,
        of: Contents,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        static ASKED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let again = of == self.of && ASKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0;
        ImageSource::bytes(self.image, of, &mut |at, bytes| {
            visit(at, if again && at == self.at { &self.other } else { bytes })
        })
    }
}

#[test]
fn looking_leaves_a_program_as_it_was() {
    let _turn = turn();
    let mut program = alone(&["sleep", "1000"]);
    settle(program.id());
    let pid = Pid(program.id().cast_signed());
    let first = look(pid);
    let then = first.inventory().clone();
    drop(first);
    settle(program.id());
    let again = look(pid);
    compare(then, again.inventory().clone());
    drop(again);
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn a_program_comes_back() {
    let _turn = turn();
    let image = take(alone(&["sleep", "1000"]));
    let roots = bring(&image);
    let then = ImageSource::inventory(&image).unwrap();
    assert_eq!(roots, then.processes.keys().copied().collect::<Vec<_>>());
    settle(roots[0].0.cast_unsigned());
    let again = look(roots[0]);
    assert_eq!(again.obstacles(), []);
    let now = again.inventory().clone();
    drop(again);
    end(roots[0]);
    compare(then, now);
}

#[test]
fn a_tree_comes_back() {
    let _turn = turn();
    let script = "sleep 1000 & sleep 1000 & wait";
    let image = take(alone(&["sh", "-c", script]));
    let roots = bring(&image);
    let then = ImageSource::inventory(&image).unwrap();
    assert_eq!((roots.len(), then.processes.len()), (1, 3));
    for pid in then.processes.keys() {
        settle(pid.0.cast_unsigned());
    }
    let again = look(roots[0]);
    let now = again.inventory().clone();
    drop(again);
    for pid in then.processes.keys() {
        let pid = nix::unistd::Pid::from_raw(pid.0);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    reap();
    compare(then, now);
}

#[test]
fn all_that_is_in_the_way_is_named() {
    let _turn = turn();
    let mut program = Command::new("sleep").arg("1000").stdin(Stdio::piped()).spawn().unwrap();
    settle(program.id());
    let inventoried = look(Pid(program.id().cast_signed()));
    let codes: Vec<_> = inventoried.obstacles().iter().map(|one| one.cause.code).collect();
    assert!(codes.contains(&"pipe:split"), "{codes:?}");
    assert!(inventoried.capture().is_err());
    program.kill().unwrap();
    program.wait().unwrap();
}
