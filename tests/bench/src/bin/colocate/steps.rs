//! When a service that was loaded anew serves its full demand again.

/// How long the demand must be served for, in nanoseconds.
const WINDOW_NS: u64 = 100_000_000;
/// Between two points that are looked at, in nanoseconds.
const STRIDE_NS: u64 = 5_000_000;
/// Share of what comes that must be served in that time.
const SHARE: f64 = 0.98;
/// What may be open at the beginning of it, as time of the load, in seconds.
const OPEN_S: f64 = 0.010;

/// One request of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it was due.
    pub due_ns: u64,
    /// When its answer was there, if it was.
    pub done_ns: Option<u64>,
}

/// The time from `at_ns` to the first moment from which on a tenth of a second long as much was answered as was due,
/// with no more open than ten milliseconds of the load.
pub fn served_after_ns(requests: &[Request], at_ns: u64, end_ns: u64) -> Option<u64> {
    let mut due: Vec<u64> = requests.iter().map(|request| request.due_ns).collect();
    let mut done: Vec<u64> = requests.iter().filter_map(|one| one.done_ns).collect();
    due.sort_unstable();
    done.sort_unstable();
    let until = |times: &[u64], at: u64| times.partition_point(|time| *time < at) as f64;
    let span_s = end_ns.saturating_sub(at_ns) as f64 / 1e9;
    let rate = due.len() as f64 / span_s.max(1e-9);
    let mut from_ns = at_ns;
    while from_ns + WINDOW_NS <= end_ns {
        let to_ns = from_ns + WINDOW_NS;
        let asked = until(&due, to_ns) - until(&due, from_ns);
        let answered = until(&done, to_ns) - until(&done, from_ns);
        let open = |at| until(&due, at) - until(&done, at);
        let most = (rate * OPEN_S).max(4.0);
        if answered >= asked * SHARE && open(from_ns) <= most && open(to_ns) <= most {
            return Some(from_ns - at_ns);
        }
        from_ns += STRIDE_NS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand requests a second for a second; the answer of each by a rule.
    fn step(done_ns: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let requests: Vec<Request> = (0..1000u64)
            .map(|number| Request {
                due_ns: 5_000_000_000 + number * 1_000_000,
                done_ns: done_ns(number * 1_000_000).map(|after| 5_000_000_000 + after),
            })
            .collect();
        served_after_ns(&requests, 5_000_000_000, 6_000_000_000)
    }

    #[test]
    fn what_is_answered_at_once_is_served_from_the_beginning() {
        assert_eq!(step(|at| Some(at + 200_000)), Some(0));
    }

    #[test]
    fn a_stop_counts_until_its_backlog_is_gone() {
        // Nothing for 150 ms; then a request each 0.5 ms, so that the backlog is gone after 300 ms.
        let served = step(|at| Some(at.max(150_000_000 + at / 2) + 100_000)).expect("served");
        assert!((280_000_000..=300_000_000).contains(&served), "{served}");
    }

    #[test]
    fn what_falls_behind_for_good_is_never_served() {
        assert_eq!(step(|at| Some(at * 2 + 100_000)), None);
        assert_eq!(step(|_| None), None);
    }
}
