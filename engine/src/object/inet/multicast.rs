//! Multicast groups. A socket does not list those it has joined; but asked for its filter of one, it
//! answers only if it is a member. So it is asked for each group of each device that /proc knows.
//!
//! Kernel: `net/ipv4/igmp.c`, `/proc/net/igmp`, `/proc/net/igmp6`.
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, MCAST_JOIN_GROUP};

use crate::error::{Error, Result, kernel};
use crate::sys::net;

/// `MCAST_MSFILTER` of `include/uapi/linux/in.h`.
const MCAST_MSFILTER: i32 = 48;
/// `MCAST_EXCLUDE`: all sources but none.
const MCAST_EXCLUDE: u32 = 0;
/// `struct group_filter`: index, padding, address, mode, number of sources, one source.
const FILTER: usize = 8 + 128 + 8 + 128;

/// A group on a device.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Membership {
    #[prost(uint32, tag = "1")]
    device: u32,
    /// Four or sixteen bytes.
    #[prost(bytes = "vec", tag = "2")]
    group: Vec<u8>,
}

/// The groups of a socket; whether joining them again is all.
pub(super) fn collect(fd: BorrowedFd<'_>, family: i32) -> Result<(Vec<Membership>, bool)> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut all = parse(&read("/proc/net/igmp"));
    if family == AF_INET6 {
        all.extend(parse6(&read("/proc/net/igmp6")));
    }
    let (mut joined, mut exact) = (Vec::new(), true);
    for one in all {
        match one.filter(fd) {
            Ok(filter) => {
                let word = |at: usize| filter.get(at..at + 4).map(<[u8]>::to_vec);
                let plain = word(136) == Some(MCAST_EXCLUDE.to_ne_bytes().to_vec());
                exact &= plain && word(140) == Some(vec![0; 4]);
                joined.push(one);
            }
            Err(Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::EINVAL | Errno::ENOPROTOOPT) => {}
            Err(errno) => return Err(Error::Kernel("getsockopt", errno)),
        }
    }
    Ok((joined, exact))
}

impl Membership {
    fn level(&self) -> (i32, i32) {
        if self.group.len() == 4 { (IPPROTO_IP, AF_INET) } else { (IPPROTO_IPV6, AF_INET6) }
    }

    /// `struct group_req`: the device's index, and the group as a `struct sockaddr_storage`.
    fn request(&self, len: usize) -> Vec<u8> {
        let mut bytes = self.device.to_ne_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(u16::try_from(self.level().1).unwrap_or_default().to_ne_bytes());
        bytes.extend(vec![0; if self.group.len() == 4 { 2 } else { 6 }]);
        bytes.extend(&self.group);
        bytes.resize(len, 0);
        bytes
    }

    fn filter(&self, fd: BorrowedFd<'_>) -> nix::Result<Vec<u8>> {
        net::exchange(fd, self.level().0, MCAST_MSFILTER, self.request(FILTER))
    }

    pub(super) fn join(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let request = self.request(8 + 128);
        net::set(fd, self.level().0, MCAST_JOIN_GROUP, &request).map_err(kernel("setsockopt"))
    }
}

/// `/proc/net/igmp`: a line for each device, and below it one for each group, in network order.
fn parse(text: &str) -> Vec<Membership> {
    let (mut device, mut all) = (None, Vec::new());
    for line in text.lines().skip(1) {
        let mut words = line.split_ascii_whitespace();
        if !line.starts_with('\t') {
            device = words.next().and_then(|word| word.parse().ok());
        } else if let (Some(device), Some(word)) = (device, words.next())
            && let Ok(group) = u32::from_str_radix(word, 16)
        {
            all.push(Membership { device, group: group.to_ne_bytes().to_vec() });
        }
    }
    all
}

/// `/proc/net/igmp6`: index, device and group on one line.
fn parse6(text: &str) -> Vec<Membership> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let device = words.next()?.parse().ok()?;
        let group = u128::from_str_radix(words.nth(1)?, 16).ok()?;
        Some(Membership { device, group: group.to_be_bytes().to_vec() })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_understood() {
        let text = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                    1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
        let expected = Membership { device: 1, group: vec![224, 0, 0, 1] };
        assert_eq!(parse(text), [expected]);
        let text = "2    eth0            ff020000000000000000000000000001     1 0000000C 0\n";
        let all = parse6(text);
        assert_eq!((all[0].device, all[0].group[0], all[0].group[15]), (2, 0xff, 1));
    }
}
