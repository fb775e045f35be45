use super::super::bench::Bench;
use super::*;
use crate::sys::scm;
use nix::libc::{SOCK_DGRAM, SOCK_STREAM};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

fn copy(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

#[test]
fn a_listening_socket_is_found_at_its_path_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("door");
    let door = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let (state, built) = Bench::default().round_trip::<Unix>(&[copy(&door)]);
    drop(door);
    assert!(state.listens > Some(0));
    let guest = UnixStream::connect(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    net::accept(built[0].as_fd()).unwrap();
    drop(guest);
}

#[test]
fn a_deleted_name_is_still_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gone");
    let socket = UnixDatagram::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (state, built) = Bench::default().round_trip::<Unix>(&[socket.into()]);
    assert_eq!(state.name.file, None);
    let name = net::name(built[0].as_fd()).unwrap();
    assert_eq!(place::sun_path(&name), path.as_os_str().as_encoded_bytes());
    assert!(!path.exists());
}

#[test]
fn a_name_relative_to_another_folder_is_bound_there() {
    let folder = tempfile::tempdir().unwrap();
    let made = create(AF_UNIX, SOCK_STREAM, 0).unwrap();
    let (at, fd) = (folder.path().to_owned(), copy(&made));
    let bind = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
        nix::unistd::chdir(&at).unwrap();
        net::bind(fd.as_fd(), &place::address(b"here")).unwrap();
    };
    std::thread::spawn(bind).join().unwrap();
    let (state, _built) = Bench::default().round_trip::<Unix>(&[made]);
    assert_eq!(state.name.path, b"here");
    assert!(folder.path().join("here").exists());
}

#[test]
fn datagrams_come_from_whom_they_came_and_go_where_they_went() {
    let folder = tempfile::tempdir().unwrap();
    let (at, from) = (folder.path().join("at"), folder.path().join("from"));
    let receiver = UnixDatagram::bind(&at).unwrap();
    let sender = UnixDatagram::bind(&from).unwrap();
    sender.send_to(b"named", &at).unwrap();
    sender.connect(&at).unwrap();
    UnixDatagram::unbound().unwrap().send_to(b"nameless", &at).unwrap();
    let mut bench = Bench::default();
    let (state, built) = bench.round_trip::<Unix>(&[copy(&receiver)]);
    let names: Vec<_> = state.queue.iter().map(queue::Message::sender).collect();
    assert_eq!(names, [from.as_os_str().as_encoded_bytes(), b""]);
    let seen = scm::peek(built[0].as_fd(), 64).unwrap().unwrap();
    assert_eq!(seen.sender, from.as_os_str().as_encoded_bytes());

    let mut bench = Bench::default();
    let inode = fstat(&receiver).unwrap().st_ino;
    bench.tree.sockets.insert(inode, OpenFileId(7));
    let state = bench.collect::<Unix>(&[copy(&sender)]);
    assert_eq!((bench.codes().len(), Unix::needs(&state)), (0, vec![OpenFileId(7)]));
    bench.needed.insert(OpenFileId(7), copy(&built[0]));
    let sender = bench.build::<Unix>(&state);
    scm::send(sender.get(WHOLE).unwrap(), b"again", &[], None, None).unwrap();
    for bytes in [&b"named"[..], b"nameless", b"again"] {
        assert_eq!(scm::take(built[0].as_fd(), 64).unwrap().unwrap().bytes, bytes);
    }
}

#[test]
fn plain_abstract_and_unbound_ones_come_back() {
    for (kind, name) in [(SOCK_STREAM, &b""[..]), (SOCK_DGRAM, b"\0engine-test"), (SOCK_DGRAM, b"")]
    {
        let made = create(AF_UNIX, kind, 0).unwrap();
        if !name.is_empty() {
            net::bind(made.as_fd(), &place::address(name)).unwrap();
        }
        let mut bench = Bench::default();
        let state = bench.collect::<Unix>(&[copy(&made)]);
        assert_eq!((bench.codes(), state.name.path.as_slice()), (vec![], name));
        drop(made);
        let built = bench.build::<Unix>(&state);
        let again = Bench::default().collect::<Unix>(&[copy(built.get(WHOLE).unwrap())]);
        assert_eq!(again, state);
    }
}

#[test]
fn who_waits_outside_the_tree_is_an_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("door");
    let door = UnixListener::bind(&path).unwrap();
    let guest = UnixStream::connect(&path).unwrap();
    let mut bench = Bench::default();
    bench.collect::<Unix>(&[copy(&door)]);
    bench.collect::<Unix>(&[guest.into()]);
    assert_eq!(bench.codes(), ["unix:pending", "unix:stranger"]);
}
