//! In which order states take turns, so that whatever drifts on the machine does not always meet the same one.

/// The states of a round, by number: each comes as often before each other one as after it.
pub fn order(round: usize, states: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..states).map(|at| (at + round) % states).collect();
    if !(round / states.max(1)).is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// By how many percent a time is longer than the one without what is measured.
pub fn longer_percent(with: f64, without: f64) -> f64 {
    (with / without - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_as_often_before_another_as_after_it() {
        for states in [2, 3] {
            let rounds = 2 * states;
            for (a, b) in [(0, 1), (0, states - 1), (states - 2, states - 1)] {
                let before = (0..rounds)
                    .map(|round| order(round, states))
                    .filter(|order| {
                        let at = |state| order.iter().position(|one| *one == state);
                        at(a) < at(b)
                    });
                assert_eq!(before.count(), rounds / 2, "{a} and {b} of {states}");
            }
        }
        assert!(order(3, 0).is_empty());
    }

    #[test]
    fn a_time_twice_as_long_is_longer_by_a_hundred_percent() {
        assert!((longer_percent(2.0, 1.0) - 100.0).abs() < 1e-9);
        assert!((longer_percent(0.9, 1.0) + 10.0).abs() < 1e-9);
    }
}
