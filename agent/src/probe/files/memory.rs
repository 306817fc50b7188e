//! Memory, page faults and kills, from the memory controller.
//!
//! All figures count what stands below the container's cgroup too, with one exception that is the kernel's: v1 counts
//! the kills (`memory.oom_control`) of each cgroup by itself.

use super::super::figures::{Faults, Memory};
use super::CgroupPaths;
use super::kept::{Kept, field, number, read};

/// A v1 limit at or above this is none: the kernel shows the largest multiple of its page size.
const V1_UNLIMITED: u64 = 1 << 62;

/// What `memory.stat` is called in one of the two generations.
#[derive(Debug)]
pub(super) struct Words {
    anon: &'static str,
    file: &'static str,
    inactive_file: &'static str,
    faults: &'static str,
    major_faults: &'static str,
    swap: Option<&'static str>,
}

pub(super) const V1_WORDS: Words = Words {
    anon: "total_rss",
    file: "total_cache",
    inactive_file: "total_inactive_file",
    faults: "total_pgfault",
    major_faults: "total_pgmajfault",
    swap: Some("total_swap"),
};

pub(super) const V2_WORDS: Words = Words {
    anon: "anon",
    file: "file",
    inactive_file: "inactive_file",
    faults: "pgfault",
    major_faults: "pgmajfault",
    swap: None,
};

/// The open files of the controller that the container is in.
#[derive(Debug)]
pub(super) struct MemoryFiles {
    usage: Option<Kept>,
    stat: Option<Kept>,
    limit: Option<Kept>,
    peak: Option<Kept>,
    /// v1: `memory.failcnt`; v2: `memory.swap.current`.
    other: Option<Kept>,
    /// v1: the same for memory and swap together. Where both have one limit, it is this that is met.
    with_swap: Option<Kept>,
    /// v1: `memory.oom_control`; v2: `memory.events`.
    events: Option<Kept>,
    is_v1: bool,
}

impl MemoryFiles {
    pub(super) fn open(paths: &CgroupPaths) -> Self {
        let v1 = |name| Kept::open(paths.memory.as_deref(), name);
        let v2 = |name| Kept::open(paths.v2.as_deref(), name);
        match v1("memory.usage_in_bytes") {
            Some(usage) => Self {
                usage: Some(usage),
                stat: v1("memory.stat"),
                limit: v1("memory.limit_in_bytes"),
                peak: v1("memory.max_usage_in_bytes"),
                other: v1("memory.failcnt"),
                with_swap: v1("memory.memsw.failcnt"),
                events: v1("memory.oom_control"),
                is_v1: true,
            },
            None => Self {
                usage: v2("memory.current"),
                stat: v2("memory.stat"),
                limit: v2("memory.max"),
                peak: v2("memory.peak"),
                other: v2("memory.swap.current"),
                with_swap: None,
                events: v2("memory.events"),
                is_v1: false,
            },
        }
    }

    /// All that is charged; the cheapest of the figures, and no other changes for long without it.
    pub(super) fn usage_bytes(&self) -> Option<u64> {
        read(self.usage.as_ref(), number)
    }

    /// Everything, with this usage.
    pub(super) fn detail(&self, usage_bytes: u64) -> (Memory, Option<Faults>) {
        let mut memory = Memory {
            usage_bytes,
            peak_bytes: read(self.peak.as_ref(), number),
            limit_bytes: read(self.limit.as_ref(), number),
            ..Memory::default()
        };
        let other = read(self.other.as_ref(), number);
        let words = if self.is_v1 {
            memory.limit_bytes = memory.limit_bytes.filter(|bytes| *bytes < V1_UNLIMITED);
            let with_swap = read(self.with_swap.as_ref(), number);
            memory.limit_hits = other.map(|hits| hits.saturating_add(with_swap.unwrap_or(0)));
            memory.oom_kills = read(self.events.as_ref(), |text| field(text, "oom_kill"));
            &V1_WORDS
        } else {
            memory.swap_bytes = other;
            read(self.events.as_ref(), |text| {
                events(&mut memory, text);
                Some(())
            });
            &V2_WORDS
        };
        let mut faults = None;
        read(self.stat.as_ref(), |text| {
            faults = stat(&mut memory, text, words);
            Some(())
        });
        (memory, faults)
    }
}

/// What `memory.events` tells.
pub(super) fn events(memory: &mut Memory, text: &str) {
    memory.limit_hits = field(text, "max");
    memory.limit_ooms = field(text, "oom");
    memory.oom_kills = field(text, "oom_kill");
}

/// What `memory.stat` tells.
pub(super) fn stat(memory: &mut Memory, text: &str, words: &Words) -> Option<Faults> {
    let (mut all, mut major) = (None, None);
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        let place = if name == words.anon {
            &mut memory.anon_bytes
        } else if name == words.file {
            &mut memory.file_bytes
        } else if name == words.inactive_file {
            &mut memory.inactive_file_bytes
        } else if name == words.faults {
            &mut all
        } else if name == words.major_faults {
            &mut major
        } else if Some(name) == words.swap {
            &mut memory.swap_bytes
        } else {
            continue;
        };
        *place = value.trim().parse().ok();
    }
    let (all, major) = all.zip(major)?;
    // The kernel counts a fault that needs a disk among all of them too.
    let minor = u64::saturating_sub(all, major);
    Some(Faults { minor, major })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{folder, v1, v2};
    use super::*;

    #[test]
    fn v2_is_read() {
        let folder = folder(&[
            ("memory.current", "1000\n"),
            (
                "memory.stat",
                "anon 300\nfile 600\ninactive_file 400\npgfault 25\npgmajfault 5\n",
            ),
            ("memory.max", "max\n"),
            ("memory.peak", "2000\n"),
            ("memory.swap.current", "50\n"),
            (
                "memory.events",
                "low 0\nhigh 0\nmax 8\noom 2\noom_kill 1\noom_group_kill 0\n",
            ),
        ]);
        let files = MemoryFiles::open(&v2(&folder));
        assert_eq!(files.usage_bytes(), Some(1000));
        let (memory, faults) = files.detail(1000);
        let expected = Memory {
            usage_bytes: 1000,
            inactive_file_bytes: Some(400),
            anon_bytes: Some(300),
            file_bytes: Some(600),
            swap_bytes: Some(50),
            peak_bytes: Some(2000),
            limit_bytes: None,
            limit_hits: Some(8),
            limit_ooms: Some(2),
            oom_kills: Some(1),
        };
        assert_eq!(memory, expected);
        assert_eq!(memory.working_set_bytes(), 600);
        let expected = Faults {
            minor: 20,
            major: 5,
        };
        assert_eq!(faults, Some(expected));
    }

    #[test]
    fn v1_is_read_with_what_stands_below() {
        let folder = folder(&[
            ("memory.usage_in_bytes", "900\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.max_usage_in_bytes", "950\n"),
            ("memory.failcnt", "3\n"),
            ("memory.memsw.failcnt", "2\n"),
            (
                "memory.stat",
                "rss 1\ninactive_file 1\npgfault 1\ntotal_cache 200\ntotal_rss 10\ntotal_swap 7\ntotal_inactive_file 100\ntotal_pgfault 12\ntotal_pgmajfault 2\n",
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
            ),
        ]);
        let files = MemoryFiles::open(&v1(&folder));
        let (memory, faults) = files.detail(files.usage_bytes().unwrap());
        let expected = Memory {
            usage_bytes: 900,
            inactive_file_bytes: Some(100),
            anon_bytes: Some(10),
            file_bytes: Some(200),
            swap_bytes: Some(7),
            peak_bytes: Some(950),
            limit_bytes: None,
            limit_hits: Some(5),
            limit_ooms: None,
            oom_kills: Some(4),
        };
        assert_eq!(memory, expected);
        let expected = Faults {
            minor: 10,
            major: 2,
        };
        assert_eq!(faults, Some(expected));
    }

    #[test]
    fn half_of_the_faults_is_none_of_them() {
        let mut memory = Memory::default();
        assert_eq!(stat(&mut memory, "pgfault 5\n", &V2_WORDS), None);
        assert_eq!(stat(&mut memory, "anon\nanon x\nfile 3\n", &V2_WORDS), None);
        assert_eq!((memory.anon_bytes, memory.file_bytes), (None, Some(3)));
    }
}
