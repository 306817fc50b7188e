//! Where the running kernel keeps its fields, read from its own BTF (`/sys/kernel/btf/vmlinux`).
//!
//! Rust's bpf target has no field relocations, so the offsets are looked up here and handed to the
//! probes before they are loaded. Only as much of the format is understood as that takes: the
//! layout of structs and unions. A blob that lies about its lengths yields an error or an absent
//! field, never a read outside it.
//!
//! Price: one pass over some 100,000 records (a few milliseconds, 400 KB while it lasts), once.

use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: usize = 24;
const RECORD_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;
/// Types that only wrap another one, and anonymous structs within structs, are followed this far.
const MAX_NESTING: u32 = 16;
/// Most members that are looked at for one field: types that hold each other would never end.
const MAX_MEMBERS: u32 = 65_536;

const PARAMETER_BYTES: usize = 8;

const KIND_POINTER: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_PROTOTYPE: u32 = 13;

/// Why BTF could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BtfError {
    /// It does not start as BTF does.
    #[error("the kernel's type information does not start with the BTF header")]
    Header,
    /// A record claims to go on after the end.
    #[error("the kernel's type information ends within record {record}")]
    Truncated {
        /// Number of the record.
        record: usize,
    },
    /// A record of a kind that came after this program was written.
    #[error("the kernel's type information has a record of the unknown kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u32,
    },
}

/// A parsed blob.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Start of each record in `types`; record `i` has the type id `i + 1`.
    starts: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Record {
    start: usize,
    name: u32,
    kind: u32,
    members: usize,
    bitfields: bool,
    target: u32,
}

impl<'a> Btf<'a> {
    /// Finds the records of a blob.
    pub fn parse(blob: &'a [u8]) -> Result<Self, BtfError> {
        let word = |at: usize| u32_at(blob, at).ok_or(BtfError::Header);
        let magic = blob.get(..2).ok_or(BtfError::Header)?;
        if magic != MAGIC.to_ne_bytes() {
            return Err(BtfError::Header);
        }
        let header = word(4)? as usize;
        if header < HEADER_BYTES {
            return Err(BtfError::Header);
        }
        let section = |offset: u32, len: u32| {
            let start = header.checked_add(offset as usize)?;
            blob.get(start..start.checked_add(len as usize)?)
        };
        let types = section(word(8)?, word(12)?).ok_or(BtfError::Header)?;
        let strings = section(word(16)?, word(20)?).ok_or(BtfError::Header)?;
        let mut btf = Self {
            types,
            strings,
            starts: Vec::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let number = btf.starts.len();
            let record = btf
                .record(at)
                .ok_or(BtfError::Truncated { record: number })?;
            let tail = tail_bytes(record.kind, record.members)
                .ok_or(BtfError::UnknownKind { kind: record.kind })?;
            btf.starts.push(at as u32);
            at += RECORD_BYTES + tail;
        }
        if at > types.len() {
            return Err(BtfError::Truncated {
                record: btf.starts.len(),
            });
        }
        Ok(btf)
    }

    /// The offset in bytes of a field, which may be a path through nested structs (`se.load`).
    pub fn offset(&self, of: &str, path: &str) -> Option<u64> {
        // A name may stand more than once; the first struct that has the field is meant.
        self.starts
            .iter()
            .filter_map(|&start| self.record(start as usize))
            .filter(|record| record.kind == KIND_STRUCT && self.name(record.name) == of.as_bytes())
            .find_map(|record| {
                let mut bits = 0u64;
                let mut within = Some(record);
                let mut left = MAX_MEMBERS;
                for field in path.split('.') {
                    let (at, target) = self.member(within?, field.as_bytes(), 0, &mut left)?;
                    bits += at;
                    within = self.resolve(target);
                }
                bits.is_multiple_of(8).then_some(bits / 8)
            })
    }

    /// Whether the kernel has a tracepoint: BTF names the type of its function.
    pub fn has_tracepoint(&self, tracepoint: &str) -> bool {
        self.tracepoint(tracepoint).is_some()
    }

    /// Whether this argument of a tracepoint (the first is 0) is a pointer.
    pub fn tracepoint_takes_pointer(&self, tracepoint: &str, argument: usize) -> bool {
        let takes = || {
            let function = self.tracepoint(tracepoint)?;
            // Before the arguments of the tracepoint stands one of the tracing itself.
            let argument = argument.checked_add(1)?;
            if argument >= function.members {
                return None;
            }
            let at = function.start + RECORD_BYTES + argument * PARAMETER_BYTES;
            let target = self.resolve(u32_at(self.types, at + 4)?)?;
            Some(target.kind == KIND_POINTER)
        };
        takes().unwrap_or(false)
    }

    /// The prototype of a tracepoint's function: `typedef void (*btf_trace_NAME)(void *, …)`.
    fn tracepoint(&self, tracepoint: &str) -> Option<Record> {
        let name = format!("btf_trace_{tracepoint}");
        let typedef = self
            .starts
            .iter()
            .filter_map(|&start| self.record(start as usize))
            .find(|record| {
                record.kind == KIND_TYPEDEF && self.name(record.name) == name.as_bytes()
            })?;
        let pointer = self.resolve(typedef.target)?;
        if pointer.kind != KIND_POINTER {
            return None;
        }
        let function = self.resolve(pointer.target)?;
        (function.kind == KIND_PROTOTYPE).then_some(function)
    }

    /// Offset in bits and type of a member, also one of an anonymous struct or union within.
    fn member(
        &self,
        within: Record,
        field: &[u8],
        nesting: u32,
        left: &mut u32,
    ) -> Option<(u64, u32)> {
        if nesting > MAX_NESTING || !matches!(within.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        (0..within.members).find_map(|i| {
            *left = left.checked_sub(1)?;
            let at = within.start + RECORD_BYTES + i * MEMBER_BYTES;
            let name = u32_at(self.types, at)?;
            let target = u32_at(self.types, at + 4)?;
            let word = u32_at(self.types, at + 8)?;
            let bits = u64::from(if within.bitfields {
                word & 0x00ff_ffff
            } else {
                word
            });
            let name = self.name(name);
            if name == field {
                return Some((bits, target));
            }
            if name.is_empty() {
                let inner = self.resolve(target)?;
                let (inner, target) = self.member(inner, field, nesting + 1, left)?;
                return Some((bits + inner, target));
            }
            None
        })
    }

    /// The type behind typedefs, qualifiers and tags.
    fn resolve(&self, id: u32) -> Option<Record> {
        let mut id = id;
        for _ in 0..MAX_NESTING {
            let start = *self.starts.get((id as usize).checked_sub(1)?)?;
            let record = self.record(start as usize)?;
            // Typedef, volatile, const, restrict, type tag.
            if !matches!(record.kind, 8..=11 | 18) {
                return Some(record);
            }
            id = record.target;
        }
        None
    }

    fn record(&self, start: usize) -> Option<Record> {
        let info = u32_at(self.types, start + 4)?;
        Some(Record {
            start,
            name: u32_at(self.types, start)?,
            kind: (info >> 24) & 0x1f,
            members: (info & 0xffff) as usize,
            bitfields: info >> 31 == 1,
            target: u32_at(self.types, start + 8)?,
        })
    }

    fn name(&self, offset: u32) -> &[u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

/// What follows the fixed part of a record; `None` if the kind is not known.
fn tail_bytes(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // Int, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Array.
        3 => 12,
        // Struct, union, data section, 64-bit enum.
        KIND_STRUCT | KIND_UNION | 15 | 19 => members * 12,
        // Enum, function prototype.
        6 | 13 => members * 8,
        _ => return None,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) struct Blob {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Blob {
        pub(super) fn new() -> Self {
            Self {
                types: Vec::new(),
                strings: vec![0],
            }
        }
        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend_from_slice(name.as_bytes());
            self.strings.push(0);
            at
        }
        fn words(&mut self, words: &[u32]) {
            for word in words {
                self.types.extend_from_slice(&word.to_ne_bytes());
            }
        }
        pub(super) fn composite(&mut self, kind: u32, name: &str, members: &[(&str, u32, u32)]) {
            let name = self.name(name);
            self.words(&[name, kind << 24 | members.len() as u32, 64]);
            for (member, target, bits) in members {
                let member = self.name(member);
                self.words(&[member, *target, *bits]);
            }
        }
        pub(super) fn build(&self) -> Vec<u8> {
            let mut blob = MAGIC.to_ne_bytes().to_vec();
            blob.extend_from_slice(&[1, 0]);
            let types = self.types.len() as u32;
            for word in [24, 0, types, types, self.strings.len() as u32] {
                blob.extend_from_slice(&u32::to_ne_bytes(word));
            }
            blob.extend_from_slice(&self.types);
            blob.extend_from_slice(&self.strings);
            blob
        }
    }

    pub(super) fn example() -> Vec<u8> {
        let mut blob = Blob::new();
        // 1: an int, 2: inner struct, 3: typedef of 2, 4: anonymous union, 5: a namesake, 6: outer.
        let int = blob.name("int");
        blob.words(&[int, 1 << 24, 8, 64]);
        blob.composite(KIND_STRUCT, "inner", &[("first", 1, 0), ("second", 1, 64)]);
        let typedef = blob.name("inner_t");
        blob.words(&[typedef, 8 << 24, 2]);
        blob.composite(KIND_UNION, "", &[("number", 1, 0), ("deep", 3, 0)]);
        blob.composite(KIND_STRUCT, "outer", &[("unrelated", 1, 0)]);
        blob.composite(
            KIND_STRUCT,
            "outer",
            &[("pad", 1, 0), ("in", 3, 64), ("", 4, 192)],
        );
        blob.build()
    }

    #[test]
    fn fields_are_found_through_typedefs_and_anonymous_members() {
        let blob = example();
        let btf = Btf::parse(&blob).unwrap();
        assert_eq!(btf.offset("outer", "pad"), Some(0));
        assert_eq!(btf.offset("outer", "in.second"), Some(16));
        assert_eq!(btf.offset("outer", "number"), Some(24));
        assert_eq!(btf.offset("outer", "deep.second"), Some(32));
        assert_eq!(btf.offset("outer", "unrelated"), Some(0));
        assert_eq!(btf.offset("outer", "absent"), None);
        assert_eq!(btf.offset("absent", "pad"), None);
    }

    #[test]
    fn a_blob_cut_anywhere_is_an_error_or_lacks_the_field_and_never_a_panic() {
        let blob = example();
        for len in 0..blob.len() {
            assert!(Btf::parse(&blob[..len]).is_err(), "cut at {len}");
        }
        for at in 0..blob.len() {
            let mut broken = blob.clone();
            broken[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(&broken) {
                let _ = btf.offset("outer", "deep.second");
            }
        }
    }
}
