//! Every option, set to what it is not by default, and read again after the round trip.
use super::*;
use std::collections::BTreeSet;
use std::os::fd::AsFd;

const SOCKETS: &[(i32, i32, i32)] = &[
    (libc::AF_UNIX, libc::SOCK_STREAM, 0),
    (libc::AF_INET, libc::SOCK_STREAM, 0),
    (libc::AF_INET, libc::SOCK_DGRAM, 0),
    (libc::AF_INET6, libc::SOCK_STREAM, 0),
    (libc::AF_INET6, libc::SOCK_DGRAM, 0),
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP),
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_UDP),
    (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
];

/// Values to try until one is taken and differs from the default.
fn candidates(known: &Known, default: &[u8]) -> Vec<Vec<u8>> {
    let ints = [1i32, 0, 2, 7, 30, 100, 1000, 300_000];
    let mut all: Vec<Vec<u8>> = ints.iter().map(|int| int.to_ne_bytes().to_vec()).collect();
    match (known.0, known.3) {
        ("SO_BINDTODEVICE", _) => all = vec![b"lo\0".to_vec()],
        ("TCP_CONGESTION", _) => all = vec![b"reno".to_vec(), b"cubic".to_vec(), b"bbr".to_vec()],
        ("IP_MULTICAST_IF", _) => all = vec![vec![127, 0, 0, 1]],
        ("ICMPV6_FILTER", _) => all = vec![vec![7; 32]],
        ("IP_OPTIONS", _) => all = vec![vec![1, 1, 1, 0]],
        ("SO_ATTACH_FILTER", _) => all = vec![vec![6, 0, 0, 0, 255, 255, 0, 0]],
        ("IP_UNICAST_IF" | "IPV6_UNICAST_IF", _) => all = vec![1i32.to_be_bytes().to_vec()],
        ("SO_TXTIME", _) => all = vec![[11i32, 0].map(i32::to_ne_bytes).concat()],
        (_, 8 | 16) => {
            all = vec![[1i32, 7].map(i32::to_ne_bytes).concat(), vec![5, 0, 0, 0, 0, 0, 0, 0]];
            all.push([3i64, 0].map(i64::to_ne_bytes).concat());
        }
        _ => {}
    }
    all.retain(|value| value != default);
    all
}

fn change(fd: BorrowedFd<'_>, known: &Known) -> bool {
    let Ok(Some(before)) = read(fd, known) else { return false };
    candidates(known, &before).iter().any(|value| {
        let done = match known.4 {
            Filter => net::attach_filter(fd, value),
            _ => net::set(fd, known.1, known.2, value),
        };
        done.is_ok() && read(fd, known).unwrap().is_some_and(|after| after != before)
    })
}

#[test]
fn each_option_comes_back_changed() {
    let mut changed = BTreeSet::new();
    for (domain, kind, protocol) in SOCKETS {
        for known in TABLE {
            let ours = net::socket(*domain, *kind, *protocol).unwrap();
            if !change(ours.as_fd(), known) {
                continue;
            }
            changed.insert(known.0);
            let values = collect(ours.as_fd()).unwrap();
            let again = net::socket(*domain, *kind, *protocol).unwrap();
            restore(again.as_fd(), &values, When::BeforeBind).unwrap();
            restore(again.as_fd(), &values, When::Last)
                .unwrap_or_else(|error| panic!("{} of {domain}/{kind}: {error:?}", known.0));
            assert_eq!(collect(again.as_fd()).unwrap(), values, "{} of {domain}/{kind}", known.0);
        }
    }
    let unchanged: Vec<_> =
        TABLE.iter().map(|known| known.0).filter(|name| !changed.contains(name)).collect();
    assert_eq!(unchanged, UNCHANGED, "nobody could change these here");
}

/// What only a memory cgroup allows.
const UNCHANGED: &[&str] = &["SO_RESERVE_MEM"];

#[test]
fn the_table_has_each_option_once() {
    let keys: BTreeSet<_> = TABLE.iter().map(|known| (known.1, known.2)).collect();
    assert_eq!(keys.len(), TABLE.len());
}
