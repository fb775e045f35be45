//! Memory and what objects hold, on their way into an image.
//!
//! Nothing is copied here if it need not be: a sink is told which runs of bytes there are, and how to
//! read them ([`super::origin`]), and has as many threads read as suits it. That takes somebody who holds
//! them still, of three sorts. What is little is copied into a room of ours, and read there. Of more, a
//! twin keeps hold: forking costs a tenth of copying. What neither holds, or what nobody waits for, is
//! read while the tree stands.
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::ahead::Ahead;
use super::collect::Own;
use super::estimate::is_twin_worth;
use super::origin::{Copied, Memory, back, by, size, there};
use super::ranges::{Ranges, bytes, intersect, length, overlaps, without};
use super::witness::Witness;
use crate::error::{Result, kernel_io};
use crate::image::{Bulk, Contents, ImageSink, Origin, Run};
use crate::inventory::{End, Pid, SpaceId};
use crate::sparse;
use crate::tracee::Twin;

/// How much a sink is told of at once, so that it can say how far it is.
const STEP: usize = 8 << 20;
/// A twin lacks some areas. More than this is not copied for it.
const LACKING_MOST: usize = 16 << 20;

/// What there is to save.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    /// Spaces, each by one process that has it.
    pub(crate) spaces: BTreeMap<SpaceId, (Pid, Own)>,
    /// What objects gave.
    pub(crate) bulk: Bulk,
    /// Whether a restore could do it has yet to be found out.
    pub(crate) unchecked: bool,
    /// What only the tree itself holds still.
    standing: Vec<Part>,
    /// What is held though the tree may run on.
    held: Vec<Part>,
    /// By whom, if not by us.
    twins: Vec<Twin>,
    /// Who will tell what was foreseen.
    witnesses: Vec<Witness>,
}

/// Some bytes, and where they are.
struct Part {
    of: Contents,
    runs: Vec<Run>,
    /// Between them, what is as it was.
    unchanged: Ranges,
    /// What of them is copied already.
    ahead: Ahead,
    /// Where the others are.
    origin: Origin,
}

impl Part {
    /// What is not copied yet.
    fn left(&self) -> Vec<Run> {
        let ahead = self.ahead.ranges();
        cut(ahead, &self.runs).into_iter().filter(|run| !meets(ahead, run)).collect()
    }

    /// Where all of it is.
    fn origin(&self) -> Origin {
        let (ahead, others) = (self.ahead.clone(), Arc::clone(&self.origin));
        if ahead.ranges().is_empty() {
            return others;
        }
        Arc::new(move |runs: &[Run], room: &mut [u8]| {
            by(ahead.ranges(), &cut(ahead.ranges(), runs), room, |is_ahead, runs, room| {
                if is_ahead { ahead.read(runs, room) } else { others(runs, room) }
            })
        })
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part")
            .field("of", &self.of)
            .field("runs", &self.runs.len())
            .finish_non_exhaustive()
    }
}

/// Makes twins: none where there is no room for one, or where the program would hear of it.
pub(crate) type Fork<'a> = &'a mut dyn FnMut(Pid) -> Result<Option<Twin>>;

impl Copy {
    /// Takes hold of as much as it can, so that the tree may run on: in `room`, if that is enough, else
    /// by twins. What is left has to be written first. Who has to tell now what was foreseen.
    pub(crate) fn hold(&mut self, room: Vec<u8>, fork: Fork<'_>) -> Result<Vec<Witness>> {
        self.twins(&|changed, all| is_twin_worth(changed, all), &mut *fork)?;
        let mut parts = self.files()?;
        let files: usize = parts.iter().map(|part| size(&part.runs)).sum();
        let spaces = self.spaces.values().map(|(_, own)| own.left());
        if files + spaces.sum::<usize>() > room.len() {
            self.twins(&|changed, _| changed > 0, fork)?;
        }
        for (space, (pid, own)) in &mut self.spaces {
            // It would take longer in the pause than all else that is done for what is watched.
            if own.foreseen && !own.unchanged.is_empty() {
                own.foreseen = false;
                self.witnesses.push(Witness::itself(*space, *pid, true));
            }
        }
        let now = self.witnesses_now();
        parts.extend(self.memory());
        if parts.iter().map(|part| size(&part.left())).sum::<usize>() <= room.len() {
            self.held.extend(copied(parts, room)?);
        } else {
            self.standing = parts;
        }
        Ok(now)
    }

    /// Makes twins of those where it is `worth` it, by how many of how many bytes are to be written.
    fn twins(&mut self, worth: &dyn Fn(u64, u64) -> bool, fork: Fork<'_>) -> Result<()> {
        for (id, (pid, own)) in std::mem::take(&mut self.spaces) {
            let lacking = intersect(&own.pages, &own.stays);
            let few = length(&lacking) <= LACKING_MOST;
            let all = (length(&own.pages) + length(&own.unchanged)) as u64;
            let may = few && worth(own.left() as u64, all);
            if let Some(twin) = if may { fork(pid)? } else { None } {
                let told_by = twin.pid();
                let witness = Witness { space: id, pid, told_by, runs: false };
                self.witnesses.extend(own.foreseen.then_some(witness));
                self.held.push(of_twin(id, pid, &twin, own, &lacking)?);
                self.twins.push(twin);
            } else {
                self.spaces.insert(id, (pid, own));
            }
        }
        Ok(())
    }

    /// The tree stands until all is written: those of whom something was foreseen can tell meanwhile.
    pub(crate) fn stands(&mut self) {
        self.witnesses = self.witnesses_now();
    }

    /// Who has to tell now, while it stands, what was foreseen of its space.
    fn witnesses_now(&self) -> Vec<Witness> {
        let spaces = self.spaces.iter().filter(|(_, (_, own))| own.foreseen);
        spaces.map(|(space, (pid, _))| Witness::itself(*space, *pid, false)).collect()
    }

    /// Who tells once the tree runs.
    pub(crate) fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Spaces, as they stand.
    fn memory(&mut self) -> Vec<Part> {
        let part = |(id, (pid, Own { pages, unchanged, ahead, shared, .. }))| {
            let memory = Memory::new(pid, shared);
            let origin =
                move |runs: &[Run], room: &mut [u8]| memory.read(runs, room).map_err(there);
            let (of, runs) = (Contents::Space(id), runs(&pages));
            Part { of, runs, unchanged, ahead, origin: Arc::new(origin) }
        };
        std::mem::take(&mut self.spaces).into_iter().map(part).collect()
    }

    /// Files of objects: who has them too may write to them.
    fn files(&mut self) -> Result<Vec<Part>> {
        let part = |(object, file)| {
            let file = File::from(file);
            let size = file.metadata().map_err(kernel_io("fstat"))?.len();
            let (of, runs) = (Contents::Object(object, End(0)), sparse::data(&file, size)?);
            let origin = move |runs: &[Run], room: &mut [u8]| sparse::read(&file, runs, room);
            let (unchanged, ahead) = (Ranges::new(), Ahead::default());
            Ok(Part { of, runs, unchanged, ahead, origin: Arc::new(origin) })
        };
        std::mem::take(&mut self.bulk.files).into_iter().map(part).collect()
    }

    /// Writes what nobody else holds, while the tree stands; how many bytes.
    pub(crate) fn write_standing(&mut self, image: &mut dyn ImageSink) -> Result<u64> {
        let mut parts = std::mem::take(&mut self.standing);
        parts.extend(self.files()?);
        parts.extend(self.memory());
        write(&parts, image)
    }

    /// Writes what is held; how many bytes.
    pub(crate) fn write_held(self, image: &mut dyn ImageSink) -> Result<u64> {
        let mut total = 0;
        for ((object, end), bytes) in &self.bulk.bytes {
            image.bytes(Contents::Object(*object, *end), 0, bytes)?;
            total += bytes.len() as u64;
        }
        Ok(total + write(&self.held, image)?)
    }
}

fn write(parts: &[Part], image: &mut dyn ImageSink) -> Result<u64> {
    parts.iter().try_for_each(|part| write_part(part, image)).map_err(back)?;
    if !parts.is_empty() {
        image.settle().map_err(back)?;
    }
    Ok(parts.iter().map(|part| size(&part.runs) as u64).sum())
}

/// Offsets ascend: what is unchanged takes its place among the rest.
fn write_part(part: &Part, image: &mut dyn ImageSink) -> io::Result<()> {
    let Part { of, runs, unchanged, .. } = part;
    let origin = &part.origin();
    let before = |run: &Run| unchanged.partition_point(|range| range.0 < run.0);
    let mut same = unchanged.iter().peekable();
    for some in runs.chunk_by(|one, next| before(one) == before(next)) {
        while let Some((start, end)) = same.next_if(|(at, _)| some.iter().all(|run| *at < run.0)) {
            image.unchanged(*of, *start..*end)?;
        }
        steps(some, |some| image.runs(*of, some, origin))?;
    }
    same.try_for_each(|(start, end)| image.unchanged(*of, *start..*end))
}

fn runs(ranges: &Ranges) -> Vec<Run> {
    ranges.iter().map(|range| (range.0, bytes(range))).collect()
}

impl Own {
    /// How many bytes are to be copied.
    fn left(&self) -> usize {
        length(&without(&self.pages, self.ahead.ranges()))
    }
}

fn meets(ranges: &Ranges, (at, len): &Run) -> bool {
    overlaps(ranges, *at, *at + *len as u64)
}

/// The same runs, none of which is in part within `ranges`: sinks join what touches.
fn cut(ranges: &Ranges, whole: &[Run]) -> Vec<Run> {
    let whole = whole.iter().map(|(at, len)| (*at, at + *len as u64)).collect();
    let mut parts = [without(&whole, ranges), intersect(&whole, ranges)].concat();
    parts.sort_unstable();
    runs(&parts)
}

/// Where runs begin that lie one behind the other, from here on.
fn places_of(runs: &[Run], mut used: usize) -> Vec<(u64, usize)> {
    let place = |(at, len): &Run| {
        used += len;
        (*at, used - len)
    };
    runs.iter().map(place).collect()
}

/// Copies parts into a room that is large enough, one behind the other.
fn copied(parts: Vec<Part>, mut room: Vec<u8>) -> Result<Vec<Part>> {
    let (mut rest, mut places, mut used) = (room.as_mut_slice(), Vec::new(), 0);
    for part in &parts {
        let left = part.left();
        let (now, later) = rest.split_at_mut(size(&left));
        (part.origin)(&left, now).map_err(back)?;
        rest = later;
        places.push(places_of(&left, used));
        used += size(&left);
    }
    let bytes = Arc::new(room);
    let held = |(part, places)| {
        let copied = Copied { bytes: Arc::clone(&bytes), places };
        let origin = move |runs: &[Run], room: &mut [u8]| copied.read(runs, room);
        Part { origin: Arc::new(origin), ..part }
    };
    Ok(parts.into_iter().zip(places).map(held).collect())
}

/// What a twin holds, and a copy of what it lacks. All that it has belongs to somebody else as well.
fn of_twin(id: SpaceId, pid: Pid, twin: &Twin, own: Own, lacking: &Ranges) -> Result<Part> {
    let Own { pages, unchanged, shared, stays, .. } = own;
    let mut bytes = vec![0; length(lacking)];
    Memory::new(pid, shared).read(&runs(lacking), &mut bytes)?;
    let copied = Copied { bytes: Arc::new(bytes), places: places_of(&runs(lacking), 0) };
    let memory = Memory::new(twin.pid(), vec![(0, u64::MAX)]);
    let origin = move |runs: &[Run], room: &mut [u8]| {
        by(&stays, &cut(&stays, runs), room, |lacks, runs, room| {
            if lacks { copied.read(runs, room) } else { memory.read(runs, room).map_err(there) }
        })
    };
    let (of, runs, ahead) = (Contents::Space(id), runs(&pages), Ahead::default());
    Ok(Part { of, runs, unchanged, ahead, origin: Arc::new(origin) })
}

/// Gives runs away, as many as make a step.
fn steps(runs: &[Run], mut give: impl FnMut(&[Run]) -> io::Result<()>) -> io::Result<()> {
    let (mut some, mut left) = (Vec::new(), STEP);
    for &(mut at, mut len) in runs {
        while len > 0 {
            let take = len.min(left);
            some.push((at, take));
            (at, len, left) = (at + take as u64, len - take, left - take);
            if left == 0 {
                give(&some)?;
                some.clear();
                left = STEP;
            }
        }
    }
    if some.is_empty() { Ok(()) } else { give(&some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::os::unix::fs::FileExt;

    /// A sink that puts streams together.
    #[derive(Default)]
    struct Sink(BTreeMap<Contents, BTreeMap<u64, Vec<u8>>>);

    impl ImageSink for Sink {
        fn inventory(&mut self, _: &crate::inventory::Inventory) -> io::Result<()> {
            Ok(())
        }
        fn bytes(&mut self, of: Contents, at: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.entry(of).or_default().insert(at, bytes.to_vec());
            Ok(())
        }
        fn restart(&mut self, _: Contents) -> io::Result<()> {
            Ok(())
        }
        fn unchanged(&mut self, _: Contents, _: std::ops::Range<u64>) -> io::Result<()> {
            Ok(())
        }
    }

    const SPACE: Contents = Contents::Space(SpaceId(0));

    fn me() -> Pid {
        Pid(std::process::id().cast_signed())
    }

    fn all(mut copy: Copy, sink: &mut Sink) -> Result<u64> {
        Ok(copy.write_standing(sink)? + copy.write_held(sink)?)
    }

    #[test]
    fn ranges_of_our_own_come_out_as_they_are() {
        let bytes: Vec<u8> = (0..50_000_u32).map(|n| (n % 251) as u8).collect();
        let base = bytes.as_ptr().expose_provenance() as u64;
        let pages =
            vec![(base, base + 10), (base + 100, base + 20_000), (base + 20_000, base + 50_000)];
        let own = Own { pages, shared: vec![(base + 300, base + 9000)], ..Own::default() };
        let copy = Copy { spaces: [(SpaceId(0), (me(), own))].into(), ..Copy::default() };
        let mut sink = Sink::default();
        assert_eq!(all(copy, &mut sink).unwrap(), 49_910);
        let mut seen = sink.0.remove(&SPACE).unwrap();
        assert_eq!(seen.remove(&base).unwrap(), bytes[..10]);
        assert_eq!(seen.first_key_value().unwrap().0, &(base + 100));
        assert_eq!(seen.into_values().flatten().collect::<Vec<_>>(), bytes[100..]);
    }

    #[test]
    fn who_has_died_is_named_though_a_sink_was_in_between() {
        let own = Own { pages: vec![(0x1000, 0x2000)], ..Own::default() };
        let nobody = Pid(i32::MAX);
        let copy = Copy { spaces: [(SpaceId(0), (nobody, own))].into(), ..Copy::default() };
        let died = all(copy, &mut Sink::default());
        assert!(matches!(died, Err(Error::Died(pid)) if pid == nobody), "{died:?}");
    }

    #[test]
    fn what_fits_is_held_and_comes_out_the_same() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 249) as u8).collect();
        let base = bytes.as_ptr().expose_provenance() as u64;
        let copy = || {
            let file = memfd_create("", MFdFlags::empty()).unwrap();
            let memfd = File::from(file.try_clone().unwrap());
            memfd.write_all_at(&bytes[..700_000], 1 << 20).unwrap();
            let pages = vec![(base, base + 1_000_000), (base + 1_500_000, base + 3_000_000)];
            let own = Own { pages, ..Own::default() };
            let bulk =
                Bulk { files: [(crate::inventory::ObjectId(3), file)].into(), ..Bulk::default() };
            let spaces = [(SpaceId(0), (me(), own))].into();
            Copy { spaces, bulk, ..Copy::default() }
        };
        let written = |copy: Copy| {
            let mut sink = Sink::default();
            let total = all(copy, &mut sink).unwrap();
            let joined = |runs: BTreeMap<u64, Vec<u8>>| runs.into_values().flatten().collect();
            (total, sink.0.into_values().map(joined).collect::<Vec<Vec<u8>>>())
        };
        let no_twin: Fork<'_> = &mut |_| Ok(None);
        let mut held = copy();
        held.hold(vec![1; 4 << 20], no_twin).unwrap();
        assert!(held.standing.is_empty() && held.held.len() == 2);
        assert_eq!(written(held), written(copy()));
        let mut large = copy();
        large.hold(vec![1; 3 << 20], no_twin).unwrap();
        assert!(large.held.is_empty() && large.standing.len() == 2);
        assert_eq!(written(large), written(copy()));
    }

    #[test]
    fn runs_are_cut_where_a_twin_begins_to_lack_them() {
        let stays = vec![(0x3000, 0x4000), (0x4000, 0x5000), (0x9000, 0xa000)];
        let runs = [(0x1000, 0x3000), (0x4000, 0x2000), (0x7000, 0x1000)];
        let parts = [(0x1000, 0x2000), (0x3000, 0x1000), (0x4000, 0x1000), (0x5000, 0x1000)];
        assert_eq!(cut(&stays, &runs), [&parts[..], &[(0x7000, 0x1000)]].concat());
    }

    #[test]
    fn steps_are_as_long_as_they_say() {
        let mut seen = Vec::new();
        let runs = [(4096, STEP - 4096), (1 << 40, 2 * STEP)];
        steps(&runs, |some| {
            seen.push(some.to_vec());
            Ok(())
        })
        .unwrap();
        assert_eq!(
            seen.iter().map(|some| size(some)).collect::<Vec<_>>(),
            [STEP, STEP, STEP - 4096]
        );
        assert_eq!(seen[0], [(4096, STEP - 4096), (1 << 40, 4096)]);
    }
}
