//! A small shape of what `--scale` runs: everything holds, and the seed alone decides.

use ebb_tests_sim::scale::{Scale, run};

const SMALL: Scale = Scale {
    agents: 200,
    frameworks: 50,
    placements: 5_000,
    seed: 3,
};

#[test]
fn a_small_shape_holds_and_is_the_same_every_time() {
    let once = run(SMALL).unwrap_or_else(|broken| panic!("{broken}")).0;
    let again = run(SMALL).unwrap_or_else(|broken| panic!("{broken}")).0;
    assert_eq!(once, again);
    assert_eq!(once.placements, SMALL.placements);
    assert!(once.checks > 5, "{once:?}");
    // Resources came back and were used again, and offers were declined.
    assert!(once.most_at_once * 3 < once.placements * 2, "{once:?}");
    assert!(once.declined > 100, "{once:?}");
    assert!(once.fewest > 0, "a framework got nothing: {once:?}");
}

#[test]
fn another_seed_gives_other_placements() {
    let digest = |seed| {
        let scale = Scale {
            seed,
            placements: 500,
            ..SMALL
        };
        run(scale)
            .unwrap_or_else(|broken| panic!("{broken}"))
            .0
            .digest
    };
    assert_ne!(digest(1), digest(2));
}
