//! Which tasks are of one class: instances of the same thing.
//!
//! **Problem.** `web.3.9f2c` and `web.4.71ab` are the same program and need the same; each alone is too short-lived to
//! learn from. Nobody says so: all that a master and an agent know are a task's id and name.
//!
//! **Rule.** Where a task's id begins with its name, the name is what its siblings share; else it is the id. From its end
//! every part that tells instances apart is taken away, with the mark before it (one of `. - _ : # ~ @` or a blank):
//! digits; a UUID; and at least six letters and digits that change from the ones to the others twice or more, as `9f2c1d`
//! and `mk3x9a`, but not `python3` or `resnet50`. What is left is the class, cut to [`MAX_CLASS_BYTES`]. Where nothing is
//! left of the id, the name is tried, and where nothing is left of either, it is `NAMELESS`. `job17` stays what it is:
//! who writes it without a mark has a class for each task. An executor of a framework's own is one of
//! [`executor_class`], with all that it runs.

use crate::limits::MAX_CLASS_BYTES;

/// The class of tasks of which neither id nor name says anything.
const NAMELESS: &str = "tasks";
/// What the classes of executors begin with.
const EXECUTOR: &str = "executor:";
const MARKS: [char; 8] = ['.', '-', '_', ':', '#', '~', '@', ' '];
/// Least length of letters and digits that tell instances apart.
const MIN_MIXED: usize = 6;
const UUID_BYTES: usize = 36;

/// The class of a task, by its id and its name.
pub fn task_class(task_id: &str, name: &str) -> String {
    let shared = match task_id.starts_with(name) && !name.is_empty() {
        true => [name, task_id],
        false => [task_id, name],
    };
    let mut stems = shared.into_iter().map(stem);
    let class = stems.find(|class| !class.is_empty());
    cut(class.unwrap_or(NAMELESS)).to_owned()
}

/// The class of an executor of a framework's own, by its id.
pub fn executor_class(executor_id: &str) -> String {
    let class = match stem(executor_id) {
        "" => NAMELESS,
        class => class,
    };
    cut(&format!("{EXECUTOR}{class}")).to_owned()
}

fn cut(class: &str) -> &str {
    &class[..class.floor_char_boundary(MAX_CLASS_BYTES)]
}

/// A text without what tells instances apart at its end.
fn stem(text: &str) -> &str {
    let mut left = text.trim_end_matches(MARKS);
    while !left.is_empty() {
        let shorter = match left.rfind(MARKS) {
            _ if ends_with_uuid(left) => &left[..left.len() - UUID_BYTES],
            Some(at) if tells_instances_apart(&left[at + 1..]) => &left[..at],
            None if tells_instances_apart(left) => "",
            _ => return left,
        };
        left = shorter.trim_end_matches(MARKS);
    }
    left
}

fn ends_with_uuid(text: &str) -> bool {
    let Some(start) = text.len().checked_sub(UUID_BYTES) else {
        return false;
    };
    let Some(end) = text.get(start..) else {
        return false;
    };
    let is_whole = text[..start]
        .chars()
        .next_back()
        .is_none_or(|c| MARKS.contains(&c));
    let good = end.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    is_whole && good
}

fn tells_instances_apart(part: &str) -> bool {
    if part.bytes().all(|byte| byte.is_ascii_digit()) {
        return true;
    }
    let changes = part.as_bytes().windows(2).filter(|pair| {
        let [a, b] = [pair[0], pair[1]];
        a.is_ascii_digit() != b.is_ascii_digit()
    });
    part.len() >= MIN_MIXED
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && changes.count() >= 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_tells_instances_apart_is_taken_away_and_nothing_else() {
        let uuid = "5ee9d9b0-abcd-11e5-face-56847afe9799";
        for (id, name, class) in [
            ("worker-17", "", "worker"),
            ("worker_17.2", "", "worker"),
            ("worker-17-", "anything", "worker"),
            ("redis.2kx81.0.mk3x9a01", "redis", "redis"),
            ("gzip-mk3x9a-17.1", "gzip -9 a.txt", "gzip"),
            (&format!("prod_web.{uuid}"), "", "prod_web"),
            (&format!("{uuid}.3"), "reports", "reports"),
            ("0", "spark 12", "spark"),
            ("17", "", NAMELESS),
            (uuid, "", NAMELESS),
            ("web", "", "web"),
            ("web.1", "shop", "web"),
            ("api-v2", "", "api-v2"),
            ("run-python3", "", "run-python3"),
            ("train-resnet50", "", "train-resnet50"),
            ("job17", "", "job17"),
            ("feed-cafe", "", "feed-cafe"),
            ("...", "", NAMELESS),
            ("", "", NAMELESS),
        ] {
            assert_eq!(task_class(id, name), class, "of {id:?} named {name:?}");
        }
        assert_eq!(executor_class("web-12"), "executor:web");
        assert_eq!(executor_class("12"), "executor:tasks");
    }

    proptest! {
        #[test]
        fn a_class_is_never_empty_nor_too_long_whatever_ids_and_names_are(
            id in ".{0,300}", name in ".{0,300}"
        ) {
            let executor = executor_class(&id);
            for class in [task_class(&id, &name), executor] {
                prop_assert!((1..=MAX_CLASS_BYTES).contains(&class.len()), "{class:?}");
            }
        }

        #[test]
        fn instances_of_one_thing_are_of_one_class(
            stem in "[a-z]{1,10}(-[a-z]{1,10}){0,2}", a in any::<u32>(), b in any::<u32>()
        ) {
            let class = task_class(&format!("{stem}-{a}"), "");
            prop_assert_eq!(&class, &stem);
            prop_assert_eq!(task_class(&format!("{stem}.{b}.{a}"), ""), class);
        }
    }
}
