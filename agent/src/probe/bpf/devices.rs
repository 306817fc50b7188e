//! The kernel's filter of devices: which of them the processes of a cgroup may open and make.
//!
//! A list of numbers is all that is asked of it, so the program is put together here, instruction by instruction, and not
//! compiled: compare kind, major and minor number with each entry, allow what is found, refuse the rest. The cgroup holds
//! the program until it is removed, whoever comes and goes meanwhile: an agent that ends takes nothing away.
//!
//! It looks when a device is opened or made, not when it is read.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::sys::{self, Instruction};

/// Most rules of a filter: three instructions and an answer each are far below what the kernel verifies.
pub const MAX_DEVICE_RULES: usize = 8_192;

/// Devices that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceRule {
    /// Block devices, not character devices.
    pub is_block: bool,
    /// Of this major number.
    pub major: u32,
    /// Of this minor number; of every one if none.
    pub minor: Option<u32>,
}

/// What the kernel calls the kinds in the program's context.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
/// Places in the context: what is done (upper half) to which kind (lower half), then the numbers.
const AT_KIND: i16 = 0;
const AT_MAJOR: i16 = 4;
const AT_MINOR: i16 = 8;
const KIND_MASK: i32 = 0xffff;

/// Registers: the answer, the context, and the three that are compared.
const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;

const fn load(to: u8, offset: i16) -> Instruction {
    Instruction::new(0x61, to, R1, offset, 0)
}

const fn mask(register: u8, with: i32) -> Instruction {
    Instruction::new(0x54, register, 0, 0, with)
}

/// Skips so many instructions if the register holds another number.
const fn unless(register: u8, number: i32, skip: i16) -> Instruction {
    Instruction::new(0x55, register, 0, skip, number)
}

const fn answer(number: i32) -> [Instruction; 2] {
    [
        Instruction::new(0xb7, R0, 0, 0, number),
        Instruction::new(0x95, 0, 0, 0, 0),
    ]
}

fn program(rules: &[DeviceRule]) -> io::Result<Vec<Instruction>> {
    if rules.len() > MAX_DEVICE_RULES {
        return Err(io::Error::other(format!(
            "{} devices are to be allowed, at most {MAX_DEVICE_RULES} can be",
            rules.len()
        )));
    }
    let mut code = vec![
        load(KIND, AT_KIND),
        load(MAJOR, AT_MAJOR),
        load(MINOR, AT_MINOR),
        mask(KIND, KIND_MASK),
    ];
    for rule in rules {
        let kind = if rule.is_block { BLOCK } else { CHARACTER };
        let mut compared = vec![(KIND, kind), (MAJOR, number(rule.major)?)];
        if let Some(minor) = rule.minor {
            compared.push((MINOR, number(minor)?));
        }
        // Behind the last comparison stands the answer, of two instructions.
        let mut left = compared.len() as i16 + 1;
        for (register, number) in compared {
            code.push(unless(register, number, left));
            left -= 1;
        }
        code.extend(answer(1));
    }
    code.extend(answer(0));
    Ok(code)
}

fn number(of: u32) -> io::Result<i32> {
    i32::try_from(of).map_err(io::Error::other)
}

/// Looks whether this kernel takes such filters.
///
/// # Errors
/// The kernel's answer.
pub fn check_device_filter() -> io::Result<()> {
    sys::load_device_filter(&program(&[])?).map(drop)
}

/// Keeps the processes of a cgroup, and of those made below it, to some devices. Filters above it count as well.
///
/// # Errors
/// The kernel's answer, or that these are too many.
pub fn confine_devices(cgroup: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    let filter = sys::load_device_filter(&program(rules)?)?;
    sys::attach_device_filter(filter.as_fd(), File::open(cgroup)?.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: the few instructions that a filter is made of, played.
    fn plays(code: &[Instruction], kind: u32, major: u32, minor: u32) -> i32 {
        let (mut registers, mut at) = ([0i64; 5], 0);
        loop {
            let (code, to, offset, number) = code[at].parts();
            at += 1;
            let to = usize::from(to);
            match code {
                0x61 => {
                    // Something is done to it, too: the upper half.
                    let context = [kind | 0x6_0000, major, minor];
                    registers[to] = i64::from(context[offset as usize / 4]);
                }
                0x54 => registers[to] &= i64::from(number),
                0x55 if registers[to] != i64::from(number) => at += offset as usize,
                0x55 => {}
                0xb7 => registers[to] = i64::from(number),
                0x95 => return registers[0] as i32,
                other => panic!("{other:#x} is no instruction of a filter"),
            }
        }
    }

    #[test]
    fn what_stands_in_the_list_is_allowed_and_nothing_else() {
        let rule = |is_block, major, minor| DeviceRule {
            is_block,
            major,
            minor,
        };
        let rules = [
            rule(true, 7, Some(3)),
            rule(false, 1, Some(3)),
            rule(false, 136, None),
        ];
        let code = program(&rules).expect("few");
        for kind in [1, 2] {
            for major in [0, 1, 7, 136] {
                for minor in [0, 3, 4] {
                    let asked = |rule: &DeviceRule| {
                        rule.is_block == (kind == 1)
                            && rule.major == major
                            && rule.minor.is_none_or(|one| one == minor)
                    };
                    let expected = i32::from(rules.iter().any(asked));
                    assert_eq!(
                        plays(&code, kind, major, minor),
                        expected,
                        "{kind} {major} {minor}"
                    );
                }
            }
        }
        assert_eq!(plays(&program(&[]).expect("none"), 1, 7, 3), 0);
        let many = vec![rules[0]; MAX_DEVICE_RULES + 1];
        assert!(program(&many).is_err());
    }
}
