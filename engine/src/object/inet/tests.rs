use super::super::bench::Bench;
use super::*;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};

fn copy(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

/// Names are only free when the original is gone.
fn again<O: Object<State = State>>(fd: OwnedFd) -> (State, OwnedFd) {
    let mut bench = Bench::default();
    let state = bench.collect::<O>(&[fd]);
    assert_eq!(bench.codes(), [""; 0]);
    let built = copy(bench.build::<O>(&state).get(WHOLE).unwrap());
    assert_eq!(Bench::default().collect::<O>(&[copy(&built)]), state);
    (state, built)
}

#[test]
fn a_listening_socket_listens_again() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(door) = TcpListener::bind(at) else { continue };
        let at = door.local_addr().unwrap();
        net::listen(door.as_fd(), 7).unwrap();
        let (state, door) = again::<Tcp>(door.into());
        assert_eq!(state.backlog, Some(7));
        let guest = TcpStream::connect(at).unwrap();
        assert_eq!(TcpListener::from(door).accept().unwrap().1, guest.local_addr().unwrap());
    }
}

#[test]
fn streams_that_are_not_connected_come_back() {
    for family in [AF_INET, AF_INET6] {
        let (state, _) = again::<Tcp>(create(family, SOCK_STREAM, 0).unwrap());
        assert_eq!((state.past(), state.local.len()), (Past::Fresh, 0));
    }
    let made = create(AF_INET, SOCK_STREAM, 0).unwrap();
    net::bind(made.as_fd(), &[2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let before = net::name(made.as_fd()).unwrap();
    assert_eq!(net::name(again::<Tcp>(made).1.as_fd()).unwrap(), before);
}

fn connection() -> (TcpStream, TcpStream) {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let guest = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    (guest, door.accept().unwrap().0)
}

#[test]
fn a_connection_is_an_obstacle_that_names_both_ends() {
    let (guest, _host) = connection();
    let mut bench = Bench::default();
    bench.collect::<Tcp>(&[copy(&guest)]);
    assert_eq!(bench.codes(), ["tcp:established"]);
    let ends = format!("{} -> {}", guest.local_addr().unwrap(), guest.peer_addr().unwrap());
    assert!(bench.obstacles[0].object.contains(&ends), "{}", bench.obstacles[0].object);
}

#[test]
fn a_connection_that_is_given_up_is_found_reset() {
    let (guest, _host) = connection();
    let abort = [1i32, 0].map(i32::to_ne_bytes).concat(); // So that its name is free at once.
    net::set(guest.as_fd(), SOL_SOCKET, libc::SO_LINGER, &abort).unwrap();
    let mut bench = Bench { close_tcp: true, ..Bench::default() };
    let state = bench.collect::<Tcp>(&[guest.into()]);
    assert_eq!((bench.codes(), state.past()), (vec![], Past::Reset));
    let built = copy(bench.build::<Tcp>(&state).get(WHOLE).unwrap());
    assert_eq!(net::name(built.as_fd()).unwrap(), state.local);
    let mut built = TcpStream::from(built);
    let error = built.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(built.read(&mut [0]).unwrap(), 0);
    let (state, _) = again::<Tcp>(built.into());
    assert_eq!(state.past(), Past::Over);
}

#[test]
fn a_connection_that_waits_is_an_obstacle_unless_given_up() {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let _guest = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    for (close_tcp, codes) in [(false, vec!["tcp:pending"]), (true, vec![])] {
        let mut bench = Bench { close_tcp, ..Bench::default() };
        bench.collect::<Tcp>(&[copy(&door)]);
        assert_eq!(bench.codes(), codes);
    }
}

#[test]
fn datagram_sockets_keep_name_peer_and_groups() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    socket.connect("127.0.0.1:9").unwrap();
    let (_, socket) = again::<Inet>(socket.into());
    let socket = UdpSocket::from(socket);
    assert_eq!((socket.local_addr().unwrap(), socket.peer_addr().unwrap().port()), (at, 9));
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.join_multicast_v4(&Ipv4Addr::new(239, 1, 2, 3), &Ipv4Addr::LOCALHOST).unwrap();
    let (state, _) = again::<Inet>(socket.into());
    assert_eq!(state.memberships.len(), 1);
    let (_, _) = again::<Inet>(create(AF_INET6, libc::SOCK_DGRAM, 0).unwrap());
    let raw = create(AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).unwrap();
    net::set(raw.as_fd(), 255, 1, &5u32.to_ne_bytes()).unwrap(); // `ICMP_FILTER`
    let (_, raw) = again::<Inet>(raw);
    assert_eq!(net::get_int(raw.as_fd(), 255, 1), Ok(5));
    let (_, _) = again::<Inet>(create(AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE).unwrap());
}

/// That one does not write any more, poll(2) does not show.
#[test]
fn each_direction_is_shut_by_itself() {
    for how in [libc::SHUT_RD, libc::SHUT_WR, libc::SHUT_RDWR] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        net::shutdown(socket.as_fd(), how).unwrap();
        let (state, socket) = again::<Inet>(socket.into());
        assert_eq!(state.shut, u32::try_from(how + 1).unwrap());
        let sent = UdpSocket::from(socket).send(b"x");
        assert_eq!(sent.is_err(), how != libc::SHUT_RD, "{sent:?}");
    }
}

#[test]
fn an_address_that_the_host_never_had_is_bound_again() {
    let socket = create(AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let number = |number: i32| number.to_ne_bytes();
    net::set(socket.as_fd(), IPPROTO_IP, IP_FREEBIND, &number(1)).unwrap();
    net::bind(socket.as_fd(), &[2, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    net::set(socket.as_fd(), IPPROTO_IP, IP_FREEBIND, &number(0)).unwrap();
    let (state, socket) = again::<Inet>(socket);
    assert!(state.foreign);
    assert_eq!(net::get_int(socket.as_fd(), IPPROTO_IP, IP_FREEBIND), Ok(0));
}

#[test]
fn datagrams_that_wait_are_an_obstacle() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"", socket.local_addr().unwrap()).unwrap();
    let mut bench = Bench::default();
    bench.collect::<Inet>(&[socket.into()]);
    assert_eq!(bench.codes(), ["inet:queued"]);
}

#[test]
fn a_port_that_is_taken_is_named_before_anything_is_started() {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let state = Bench::default().collect::<Tcp>(&[copy(&door)]);
    let found = Tcp::check(&state, &Check::default());
    assert_eq!(found[0].cause.code, "tcp:taken");
    assert!(found[0].object.contains(&door.local_addr().unwrap().to_string()));
    drop(door);
    assert_eq!(Tcp::check(&state, &Check::default()), []);
}

#[test]
fn another_network_namespace_is_an_obstacle() {
    let elsewhere = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        create(AF_INET, libc::SOCK_DGRAM, 0).unwrap()
    });
    let mut bench = Bench::default();
    bench.collect::<Inet>(&[elsewhere.join().unwrap()]);
    assert_eq!(bench.codes(), ["inet:namespace"]);
}
