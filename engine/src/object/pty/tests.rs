use super::super::bench::Bench;
use super::*;

/// Numbers are the whole machine's: one test at a time.
static NUMBERS: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn pty() -> [OwnedFd; 2] {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let master = open("/dev/ptmx", flags, Mode::empty()).unwrap();
    tty::set(master.as_fd(), tty::TIOCSPTLCK, 0).unwrap();
    let slave = tty::peer(master.as_fd()).unwrap();
    [master, slave]
}

/// The number is only free when the original is gone.
fn again(ours: Vec<OwnedFd>) -> (State, Bench, Ends) {
    let mut bench = Bench::default();
    let state = bench.collect::<Pty>(&ours);
    assert_eq!(bench.codes(), [""; 0]);
    let taken = Pty::check(&state, &Check::default());
    assert_eq!(taken.first().is_some_and(|one| one.cause.code == "pty:taken"), !state.hung_up);
    drop(ours);
    let built = bench.build::<Pty>(&state);
    (state, bench, built)
}

#[test]
fn settings_of_both_ends_come_back_under_the_same_number() {
    let _numbers = NUMBERS.lock();
    let [master, slave] = pty();
    let mut termios = tty::termios(slave.as_fd()).unwrap();
    termios[12] ^= 8; // ECHO of c_lflag
    tty::set_termios(slave.as_fd(), &termios).unwrap();
    tty::set_window(slave.as_fd(), &[25, 0, 81, 0, 0, 0, 0, 0]).unwrap();
    tty::set(master.as_fd(), tty::TIOCPKT, 1).unwrap();
    tty::exclude(slave.as_fd()).unwrap();
    std::os::unix::fs::fchown(&slave, Some(13333), Some(44444)).unwrap();
    let (state, bench, built) = again(vec![master, slave]);
    assert!(state.packet && state.exclusive && state.slave);
    assert_eq!(state.file[1..], [13333, 44444]);
    let (_, _) = (bench, &built);
    let ours: Vec<_> =
        [MASTER, SLAVE].map(|end| built.get(end).unwrap().try_clone_to_owned().unwrap()).into();
    assert_eq!(Bench::default().collect::<Pty>(&ours), state);
}

#[test]
fn a_slave_that_lost_its_master_has_lost_it_again() {
    let _numbers = NUMBERS.lock();
    let [master, slave] = pty();
    let read_only = open_again(&slave, OFlag::O_RDONLY.bits()).unwrap();
    drop(master);
    let (state, bench, built) = again(vec![read_only, slave]);
    assert!(state.hung_up);
    let slaves = bench.open(&built);
    assert_eq!(slaves.len(), 2);
    for slave in &slaves {
        assert_eq!(tty::get(slave.as_fd(), tty::TIOCGDEV), Err(Errno::EIO));
    }
    let access = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_GETFL).unwrap() & libc::O_ACCMODE;
    assert_eq!(slaves.iter().map(access).collect::<Vec<_>>(), [libc::O_RDONLY, libc::O_RDWR]);
}

#[test]
fn an_unopened_slave_and_an_abandoned_master_are_told_apart() {
    let _numbers = NUMBERS.lock();
    for abandoned in [false, true] {
        let [master, slave] = pty();
        drop(slave);
        let master = if abandoned {
            master
        } else {
            let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
            open("/dev/ptmx", flags, Mode::empty()).unwrap()
        };
        let (state, _, built) = again(vec![master]);
        assert_eq!(state.abandoned, abandoned);
        let master = built.get(MASTER).unwrap();
        assert_eq!(poll_now(master, POLLHUP), Ok(abandoned));
    }
}

#[test]
fn bytes_under_way_stay_and_come_back_both_ways() {
    let _numbers = NUMBERS.lock();
    let [master, slave] = pty();
    let mut termios = tty::termios(slave.as_fd()).unwrap();
    termios[12] &= !8; // ECHO of c_lflag
    tty::set_termios(slave.as_fd(), &termios).unwrap();
    tty::set(master.as_fd(), tty::TIOCPKT, 1).unwrap();
    nix::unistd::write(&master, b"line\nand a half").unwrap();
    nix::unistd::write(&slave, b"said").unwrap();
    let ready = |fd: &OwnedFd| poll_now(fd.as_fd(), libc::POLLIN).unwrap();
    while !ready(&slave) || !ready(&master) {}
    let check = |[master, slave]: [OwnedFd; 2]| {
        let mut room = [0; 64];
        let heard = nix::unistd::read(&master, &mut room).unwrap();
        assert_eq!(&room[..heard], b"\0said");
        let heard = nix::unistd::read(&slave, &mut room).unwrap();
        assert_eq!(&room[..heard], b"line\n");
        assert_eq!(nix::unistd::read(&slave, &mut room), Err(Errno::EAGAIN), "but a half line");
        nix::unistd::write(&master, b"!\n").unwrap();
        while !ready(&slave) {}
        let heard = nix::unistd::read(&slave, &mut room).unwrap();
        assert_eq!(&room[..heard], b"and a half!\n");
    };
    let copies = [&master, &slave].map(|fd| fd.try_clone().unwrap());
    let mut bench = Bench::default();
    let state = bench.collect::<Pty>(&[master, slave]);
    assert_eq!(
        (bench.codes().len(), &bench.bulk.bytes[&(crate::inventory::ObjectId(0), SLAVE)]),
        (0, &b"line\nand a half".to_vec())
    );
    check(copies);
    let built = bench.build::<Pty>(&state);
    let built = [MASTER, SLAVE].map(|end| built.get(end).unwrap().try_clone_to_owned().unwrap());
    check(built);
}

#[test]
fn a_master_outside_is_an_obstacle() {
    let _numbers = NUMBERS.lock();
    let [_master, slave] = pty();
    let mut bench = Bench::default();
    bench.collect::<Pty>(&[slave]);
    assert_eq!(bench.codes(), ["pty:outside"]);
}

#[test]
fn numbers_of_devices_are_understood() {
    assert_eq!(index_of(decode(34816)), Some(0));
    assert_eq!(index_of(decode(34816 + 300 - 256 + (1 << 20))), Some(300));
}
