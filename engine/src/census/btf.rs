//! The kernel's description of its own types (BTF): where in a structure a field is.
//!
//! Kernel: `include/uapi/linux/btf.h`, `/sys/kernel/btf/vmlinux`. Read by bounds-checked steps: what is
//! damaged or unknown reads as absent.

/// `BTF_MAGIC`.
const MAGIC: u16 = 0xeb9f;
/// `struct btf_type`: name, info, size or type.
const TYPE_BYTES: usize = 12;
/// How long one is with what follows, on average.
const TYPICAL_BYTES: usize = 20;
/// `struct btf_member`: name, type, offset in bits.
const MEMBER_BYTES: usize = 12;
/// A pointer of the kernel's.
const POINTER_BYTES: usize = 8;
/// No structure is nested deeper, nor has a type more names.
const DEPTH: usize = 16;

/// `BTF_KIND_*`.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Where a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// All types of a kernel.
#[derive(Debug)]
pub(super) struct Types<'a> {
    names: &'a [u8],
    listed: &'a [u8],
    /// Where each begins, by id: there are more than a hundred thousand. The first, `void`, is not told.
    starts: Vec<u32>,
}

/// One type.
#[derive(Debug, Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    /// Its size, or the type that it is made of.
    word: u32,
    /// What follows, by kind.
    more: &'a [u8],
}

impl<'a> Type<'a> {
    /// The first of these, and how long it is.
    fn parse(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (name, info, size) = (word(bytes, 0)?, word(bytes, 4)?, word(bytes, 8)?);
        let (kind, count) = (info >> 24 & 0x1f, index(info & 0xffff)?);
        let length = TYPE_BYTES + behind(kind, count);
        let more = bytes.get(TYPE_BYTES..length)?;
        Some((Self { name, kind, word: size, more }, length))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn index(word: u32) -> Option<usize> {
    usize::try_from(word).ok()
}

impl<'a> Types<'a> {
    /// Takes the description apart.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        // `struct btf_header`: magic, version, flags, its length, then offsets and lengths.
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let header = |at| word(bytes, at).and_then(index);
        let body = bytes.get(header(4)?..)?;
        let part = |at, length| body.get(at..)?.get(..length);
        let (types, names) = (part(header(8)?, header(12)?)?, part(header(16)?, header(20)?)?);
        let (mut starts, mut at) = (Vec::with_capacity(types.len() / TYPICAL_BYTES), 0);
        while at < types.len() {
            starts.push(u32::try_from(at).ok()?);
            let (_, bytes) = Type::parse(types.get(at..)?)?;
            at += bytes;
        }
        Some(Self { names, listed: types, starts })
    }

    fn all(&self) -> impl Iterator<Item = Type<'a>> {
        self.starts.iter().filter_map(|start| self.starting(*start))
    }

    fn starting(&self, start: u32) -> Option<Type<'a>> {
        Type::parse(self.listed.get(index(start)?..)?).map(|(found, _)| found)
    }

    /// The number of a function.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        let found = self.all().position(|one| self.is(&one, kind::FUNC, name))?;
        u32::try_from(found + 1).ok()
    }

    /// A field of a structure, or of one in it: names with dots between.
    pub(super) fn field(&self, structure: &str, path: &str) -> Option<Place> {
        let mut within = self.structure(structure)?;
        let (mut offset, mut bytes) = (0, 0);
        for name in path.split('.') {
            let (at, id) = self.member(&within, name, DEPTH)?;
            within = self.plain(id)?;
            (offset, bytes) = (offset + at, self.size(id, DEPTH)?);
        }
        Some(Place { offset, bytes })
    }

    /// How large a structure is.
    pub(super) fn bytes_of(&self, structure: &str) -> Option<usize> {
        index(self.structure(structure)?.word)
    }

    fn structure(&self, name: &str) -> Option<Type<'a>> {
        self.all().find(|one| self.is(one, kind::STRUCT, name))
    }

    fn is(&self, one: &Type<'_>, kind: u32, name: &str) -> bool {
        one.kind == kind && self.is_named(one.name, name)
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        let text = index(at).and_then(|at| self.names.get(at..));
        let rest = text.and_then(|text| text.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The type with this number, without its other names.
    fn plain(&self, mut id: u32) -> Option<Type<'a>> {
        for _ in 0..DEPTH {
            let found = self.starting(*self.starts.get(index(id)?.checked_sub(1)?)?)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = found.word;
                }
                _ => return Some(found),
            }
        }
        None
    }

    /// Where in a structure a member is, in bytes, and its type; what has no name of its own is looked into.
    fn member(&self, within: &Type<'_>, name: &str, depth: usize) -> Option<(usize, u32)> {
        if !matches!(within.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        let depth = depth.checked_sub(1)?;
        within.more.chunks_exact(MEMBER_BYTES).find_map(|member| {
            let (named, id, bits) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            // With bit fields about, the upper byte is their width; they are not looked for.
            let at = index(bits & 0xff_ffff)? / 8;
            if self.is_named(named, name) {
                return (bits % 8 == 0).then_some((at, id));
            }
            let nameless = self.is_named(named, "").then(|| self.plain(id)).flatten()?;
            self.member(&nameless, name, depth).map(|(inner, id)| (at + inner, id))
        })
    }

    fn size(&self, id: u32, depth: usize) -> Option<usize> {
        let depth = depth.checked_sub(1)?;
        let found = self.plain(id)?;
        match found.kind {
            kind::PTR => Some(POINTER_BYTES),
            kind::INT | kind::ENUM | kind::ENUM64 | kind::STRUCT | kind::UNION => index(found.word),
            // `struct btf_array`: type, type of the index, how many.
            kind::ARRAY => {
                let count = index(word(found.more, 8)?)?;
                self.size(word(found.more, 0)?, depth)?.checked_mul(count)
            }
            _ => None,
        }
    }
}

/// How many bytes follow a type that has so many parts.
fn behind(kind: u32, count: usize) -> usize {
    match kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
        kind::ENUM | kind::FUNC_PROTO => 8 * count,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct task { int a; struct { long b; }; char name[16]; }`, and a function.
    fn sample() -> Vec<u8> {
        let names = b"\0task\0a\0b\0name\0look\0int\0long\0char\0";
        let at = |name: &str| {
            let text = [&[0], name.as_bytes(), &[0]].concat();
            let found = names.windows(text.len()).position(|window| window == text).unwrap();
            u32::try_from(found + 1).unwrap()
        };
        let info = |kind: u32, count: u32| kind << 24 | count;
        let words = [
            vec![at("int"), info(kind::INT, 0), 4, 0],
            vec![at("long"), info(kind::INT, 0), 8, 0],
            vec![at("char"), info(kind::INT, 0), 1, 0],
            vec![0, info(kind::ARRAY, 0), 0, 3, 1, 16],
            vec![0, info(kind::STRUCT, 1), 8, at("b"), 2, 0],
            vec![at("task"), info(kind::STRUCT, 3), 32]
                .into_iter()
                .chain([at("a"), 1, 0, 0, 5, 64, at("name"), 4, 128])
                .collect(),
            vec![at("look"), info(kind::FUNC, 0), 0],
        ]
        .concat();
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let lengths = [types.len(), names.len()].map(|length| u32::try_from(length).unwrap());
        let header = [24, 0, lengths[0], lengths[0], lengths[1]];
        let first = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
        let header = header.into_iter().flat_map(u32::to_ne_bytes);
        first.into_iter().chain(header).chain(types).chain(*names).collect()
    }

    #[test]
    fn fields_are_found_also_in_what_has_no_name() {
        let bytes = sample();
        let types = Types::parse(&bytes).unwrap();
        let place = |offset, bytes| Some(Place { offset, bytes });
        assert_eq!(types.field("task", "a"), place(0, 4));
        assert_eq!(types.field("task", "b"), place(8, 8));
        assert_eq!(types.field("task", "name"), place(16, 16));
        assert_eq!(types.field("task", "future"), None);
        assert_eq!((types.function("look"), types.bytes_of("task")), (Some(7), Some(32)));
    }

    #[test]
    fn what_is_cut_off_is_absent() {
        let bytes = sample();
        assert!((0..bytes.len()).all(|length| Types::parse(&bytes[..length]).is_none()));
    }
}
