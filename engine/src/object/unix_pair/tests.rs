use super::super::bench::Bench;
use super::*;
use crate::sys::scm;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

fn pair() -> [UnixStream; 2] {
    UnixStream::pair().unwrap().into()
}

#[test]
fn round_trip_keeps_bytes_both_ways_and_maker() {
    let [mut a, mut b] = pair();
    a.write_all(b"to b").unwrap();
    b.write_all(b"to a").unwrap();
    b.shutdown(std::net::Shutdown::Write).unwrap();
    let ours = [a.try_clone().unwrap().into(), b.into()];
    let (state, _) = Bench::default().round_trip::<UnixPair>(&ours);
    let maker = state.ends[0].peer_maker.as_ref().unwrap();
    assert_eq!(maker.pid, std::process::id().cast_signed());
    assert_eq!(state.ends.iter().filter(|side| side.shutdown & 2 != 0).count(), 1);
    let mut left_alone = String::new();
    a.read_to_string(&mut left_alone).unwrap();
    assert_eq!(left_alone, "to a");
}

#[test]
fn datagrams_keep_their_boundaries() {
    for kind in [SOCK_DGRAM, nix::libc::SOCK_SEQPACKET] {
        let (a, b) = net::pair(kind).unwrap();
        for bytes in [&b"one"[..], b"and two", b"3"] {
            scm::send(a.as_fd(), bytes, &[], None, None).unwrap();
        }
        let ours = [a, b];
        let (state, built) = Bench::default().round_trip::<UnixPair>(&ours);
        assert_eq!(state.ends.iter().map(|side| side.queue.len()).max(), Some(3));
        for fd in [ours[1].as_fd(), built[1].as_fd()] {
            for bytes in [&b"one"[..], b"and two", b"3"] {
                let seen = scm::take(fd, 64);
                assert_eq!(seen.unwrap().unwrap().bytes, bytes);
            }
            assert!(scm::peek(fd, 64).unwrap().is_none());
        }
    }
}

#[test]
fn what_a_closed_peer_left_is_kept_then_the_end() {
    let [a, mut b] = pair();
    b.write_all(b"last words").unwrap();
    drop(b);
    let (state, built) = Bench::default().round_trip::<UnixPair>(&[a.into()]);
    assert_eq!(state.ends.len(), 1);
    let mut words = String::new();
    UnixStream::from(built[0].try_clone().unwrap()).read_to_string(&mut words).unwrap();
    assert_eq!(words, "last words");
}

#[test]
fn an_accepted_connection_has_the_name_of_its_door() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("door");
    let door = UnixListener::bind(&path).unwrap();
    let guest = UnixStream::connect(&path).unwrap();
    let (host, _) = door.accept().unwrap();
    guest.set_nonblocking(true).unwrap();
    for door in [Some(door), None] {
        let ours = [&guest, &host].map(|one| one.try_clone().unwrap().into());
        let (state, built) = Bench::default().round_trip::<UnixPair>(&ours);
        assert!(state.accepted.is_some());
        let name = net::name(built[1].as_fd()).unwrap();
        assert_eq!(place::sun_path(&name), path.as_os_str().as_encoded_bytes());
        assert!(path.exists());
        drop(door);
    }
}

#[test]
fn descriptors_in_flight_are_needed_first_and_stay_where_they_are() {
    let [a, b] = pair();
    let passenger = OwnedFd::from(pair()[0].try_clone().unwrap());
    scm::send(a.as_fd(), b"x", &[passenger.as_fd()], None, None).unwrap();
    scm::send(a.as_fd(), b"more", &[], None, None).unwrap();
    let mut bench = Bench::default();
    bench.needed.insert(OpenFileId(100), passenger);
    let ours = [a.into(), b.into()];
    let (state, built) = bench.round_trip::<UnixPair>(&ours);
    assert_eq!((UnixPair::needs(&state).len(), bench.tree.adopted.len()), (1, 1));
    for fd in [ours[1].as_fd(), built[1].as_fd()] {
        assert_eq!(net::get_int(fd, SOL_SOCKET, nix::libc::SO_PEEK_OFF), Ok(-1));
        let seen = scm::peek(fd, 64).unwrap().unwrap();
        assert_eq!((seen.bytes.as_slice(), seen.passed.len()), (&b"x"[..], 1));
    }
}

/// A kernel shows where descriptors end, not where they begin: a peek of one plain byte shows those
/// that come with the next one.
#[test]
fn descriptors_behind_plain_bytes_are_an_obstacle() {
    let [a, b] = pair();
    scm::send(a.as_fd(), b"plain", &[], None, None).unwrap();
    scm::send(a.as_fd(), b"x", &[b.as_fd()], None, None).unwrap();
    let mut bench = Bench::default();
    bench.collect::<UnixPair>(&[a.into(), b.into()]);
    assert_eq!(bench.codes(), ["unix_pair:messages"]);
}

#[test]
fn signed_messages_are_signed_again() {
    let (a, b) = UnixDatagram::pair().unwrap();
    net::set(b.as_fd(), SOL_SOCKET, nix::libc::SO_PASSCRED, &1i32.to_ne_bytes()).unwrap();
    a.send(b"hello").unwrap();
    let (state, built) = Bench::default().round_trip::<UnixPair>(&[a.into(), b.into()]);
    assert!(state.ends.iter().any(|side| side.queue.iter().any(queue::Message::is_signed)));
    let seen = scm::peek(built[1].as_fd(), 64).unwrap().unwrap();
    assert_eq!(seen.signed.unwrap().0, std::process::id().cast_signed());
}

#[test]
fn an_end_that_strangers_hold_is_an_obstacle() {
    let [a, _b] = pair();
    let mut bench = Bench::default();
    bench.collect::<UnixPair>(&[a.into()]);
    assert_eq!(bench.codes(), ["unix_pair:split"]);
}

/// Whoever waits for room waits on: in however small pieces the queue was filled.
#[test]
fn a_full_one_stays_full() {
    for piece in [10, 300, 4096, 60_000] {
        let [a, b] = pair();
        a.set_nonblocking(true).unwrap();
        while (&a).write(&vec![7; piece]).is_ok() {}
        while (&a).write(&[7]).is_ok() {}
        let (_, opened) = Bench::default().round_trip::<UnixPair>(&[a.into(), b.into()]);
        let again = UnixStream::from(opened[0].try_clone().unwrap());
        let refused = (&again).write(&[7]).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock, "in pieces of {piece}");
    }
}
