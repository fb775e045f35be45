//! Pages that a blank has never touched, made of the image's bytes.
//!
//! `UFFDIO_COPY` copies into a new page; writing to one that is missing has the kernel clear it first, and
//! costs half as much again. Until this is dropped, the kernel makes no page in these areas by itself: what
//! is written to them otherwise fails with `EFAULT`, and must not be missing.
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, O_CLOEXEC, O_NONBLOCK};

use super::ranges::{Ranges, length, overlaps, without};
use crate::error::Result;
use crate::inventory::{Backing, Vma};
use crate::remote::{Batch, Caller, RemoteFd};
use crate::sys::userfaultfd::{self, Watch};

/// Below so many bytes it is not worth the calls.
const WORTH: usize = 1 << 20;
const PAGE: usize = 4096;

/// A userfaultfd of a blank's, and where it can be used.
#[derive(Debug)]
pub(crate) struct Missing {
    fd: OwnedFd,
    areas: Ranges,
}

impl Missing {
    /// Of a blank with these areas, which has some of its memory already, and shall have huge pages, as these
    /// are not. `None`: there is too little, or the kernel does not let us.
    pub(crate) fn of(
        blank: &mut dyn Caller,
        (vmas, huge): (&[Vma], &Ranges),
        inherited: &Ranges,
    ) -> Result<Option<Self>> {
        let fresh = |vma: &&Vma| is_plain(vma) && !overlaps(inherited, vma.start, vma.end);
        let areas = vmas.iter().filter(fresh).map(|vma| (vma.start, vma.end));
        let areas = without(&areas.collect(), huge);
        if length(&areas) < WORTH {
            return Ok(None);
        }
        let Some(fd) = userfaultfd_of(blank)? else { return Ok(None) };
        let watched = |area: &_| userfaultfd::register(fd.as_fd(), *area, Watch::Missing).is_ok();
        let areas = areas.into_iter().filter(watched).collect();
        Ok(Some(Self { fd, areas }))
    }

    /// Makes pages at `address` of the start of `bytes`; of how many. None: they are there, or it is no
    /// place for it.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) -> io::Result<usize> {
        let at = self.areas.partition_point(|(_, end)| *end <= address);
        let Some((start, end)) = self.areas.get(at) else { return Ok(0) };
        let room = usize::try_from(end - address).unwrap_or(usize::MAX).min(bytes.len());
        let Some(pages) = bytes.get(..room / PAGE * PAGE) else { return Ok(0) };
        if address < *start || pages.is_empty() {
            return Ok(0);
        }
        match userfaultfd::copy(self.fd.as_fd(), address, pages) {
            Err(Errno::EEXIST | Errno::ENOENT) => Ok(0),
            done => Ok(done?),
        }
    }
}

/// One that speaks of the memory of `blank`, and is ours alone.
fn userfaultfd_of(blank: &mut dyn Caller) -> Result<Option<OwnedFd>> {
    let mut batch = Batch::default();
    let how = i64::from(O_CLOEXEC | O_NONBLOCK) | userfaultfd::USER_MODE_ONLY.cast_signed();
    batch.call("userfaultfd", libc::SYS_userfaultfd, [how.into()]);
    let made = blank.perform(&batch)?.first().and_then(|reply| reply.value().ok());
    let Some(number) = made.and_then(|number| i32::try_from(number).ok()) else { return Ok(None) };
    let fd = blank.steal(RemoteFd(number))?;
    Ok(Some(fd).filter(|fd| userfaultfd::agree(fd.as_fd(), 0).is_ok()))
}

/// Nothing lies under it, and its pages are of the usual size and kind.
fn is_plain(vma: &Vma) -> bool {
    let special = ["ht", "dp"];
    let is_special = vma.flags.iter().any(|flag| special.contains(&flag.as_str()));
    !vma.shared && vma.backing == Backing::Anonymous && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Pid;
    use crate::memory::fill::Fill;
    use crate::sys::here::Here;

    #[test]
    fn pages_are_made_where_none_are() {
        const LEN: usize = 40 << 20;
        // So much is always fresh from the kernel, and none of it there.
        let mut room = vec![0_u8; LEN];
        let offset = room.as_ptr().align_offset(PAGE);
        let base = room.as_mut_ptr().expose_provenance() as u64 + offset as u64;
        let end = base + (LEN as u64 - (1 << 20));
        let (backing, flags) = (Backing::Anonymous, Vec::new());
        let vmas = [Vma { start: base, end, prot: 3, shared: false, backing, flags, name: None }];
        let (none, all) = (Ranges::new(), vec![(base, end)]);
        assert!(
            Missing::of(&mut Here, (&vmas, &none), &all).unwrap().is_none(),
            "nothing is missing"
        );
        let huge = vec![(base + (2 << 20), base + (4 << 20))];
        let missing = Missing::of(&mut Here, (&vmas, &huge), &none).unwrap().unwrap();
        assert_eq!(missing.put(base + (2 << 20), &[1; 4096]).unwrap(), 0, "a huge page goes there");
        assert_eq!(missing.put(base - 4096, &[1; 4096]).unwrap(), 0, "not its area");
        assert_eq!(missing.put(base + 4096, &[1; 8192]).unwrap(), 8192);
        assert_eq!(missing.put(base, &[2; 3 * PAGE]).unwrap(), 4096, "up to what is there");
        assert_eq!(missing.put(base + 4096, &[3; 4096]).unwrap(), 0, "it is there");
        assert_eq!(missing.put(end - 4096, &[4; 2 * PAGE]).unwrap(), 4096, "up to the end");
        let pid = Pid(std::process::id().cast_signed());
        let mut fill = Fill::new(pid, &vmas, &none, Some(missing));
        fill.put(base + 4096, &[5; 3 * PAGE]).unwrap();
        assert_eq!(fill.settle(), [(base + 4096, base + 4 * 4096)]);
        let has = |page: usize| room[offset + page * PAGE];
        assert_eq!([0, 1, 3, 4].map(has), [2, 5, 5, 0], "and nothing of it hangs now");
        assert_eq!(has((LEN - (1 << 20)) / PAGE - 1), 4);
    }
}
