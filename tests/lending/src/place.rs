//! Tasks onto machines: first fit by limit, in an order that is fixed and has nothing to do with the names.

use crate::trace::Task;

/// One machine and what is ever on it, in the order of placement.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// What it has.
    pub capacity: f64,
    /// Every task that it ever has.
    pub tasks: Vec<Task>,
    /// Bins of the era.
    pub bins: usize,
}

/// Places the tasks of an era on as few machines of `capacity` as first fit makes of it; a task that is larger has a
/// machine of its own size.
pub fn place(mut tasks: Vec<Task>, capacity: f64, bins: usize) -> Vec<Machine> {
    tasks.sort_by_cached_key(|task| (task.start, fnv1a(&format!("place:{}", task.key))));
    let mut machines: Vec<(f64, Machine)> = Vec::new();
    // End, machine and limit of what runs.
    let mut running: Vec<(usize, usize, f64)> = Vec::new();
    for task in tasks {
        running.retain(|(end, machine, limit)| {
            let stays = *end > task.start;
            if !stays {
                machines[*machine].0 += limit;
            }
            stays
        });
        let fits = machines
            .iter()
            .position(|(free, _)| *free >= task.limit - 1e-9);
        let at = fits.unwrap_or_else(|| {
            let capacity = capacity.max(task.limit);
            machines.push((
                capacity,
                Machine {
                    capacity,
                    tasks: Vec::new(),
                    bins,
                },
            ));
            machines.len() - 1
        });
        machines[at].0 -= task.limit;
        running.push((task.end(), at, task.limit));
        machines[at].1.tasks.push(task);
    }
    machines.into_iter().map(|(_, machine)| machine).collect()
}

/// The hash of Fowler, Noll and Vo, variant 1a, of 64 bits.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn what_has_ended_makes_room_and_what_is_too_large_is_alone() {
        let task = |key: &str, start, bins, limit| Task {
            key: key.to_owned(),
            start,
            limit,
            used: vec![0.0; bins],
        };
        let tasks = vec![
            task("c", 5, 5, 6.0),
            task("a", 0, 5, 6.0),
            task("b", 1, 9, 6.0),
            task("d", 6, 1, 30.0),
        ];
        let machines = place(tasks, 10.0, 10);
        let names: Vec<Vec<&str>> = machines
            .iter()
            .map(|machine| machine.tasks.iter().map(|task| task.key.as_str()).collect())
            .collect();
        assert_eq!(names, [vec!["a", "c"], vec!["b"], vec!["d"]]);
        assert_eq!(machines[2].capacity, 30.0);
    }
}
