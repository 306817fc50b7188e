//! `ebb advise` against known answers.

use ebb_types::{Advice, ClassAdvice, ClassKey, Fit, FrameworkId, KindAdvice, Timestamp};

use super::operator::{bad, good};
use super::played::{End, Played};

const MIB: u64 = 1 << 20;

fn class(name: &str, running: u64, cpu: (u64, u64), mem: (u64, u64)) -> ClassAdvice {
    let kind = |(asked, advice): (u64, u64)| KindAdvice {
        asked,
        p50: Some(advice / 4),
        p95: Some(advice / 2),
        peak: Some(asked),
        advice: Some(advice),
        fit: match advice.cmp(&asked) {
            std::cmp::Ordering::Less => Fit::OverAsked,
            std::cmp::Ordering::Greater => Fit::UnderAsked,
            std::cmp::Ordering::Equal => Fit::Right,
        },
    };
    ClassAdvice {
        key: ClassKey {
            framework_id: FrameworkId::new("cafe-1-0000").expect("valid"),
            class: name.to_owned(),
        },
        tasks: running + 1,
        running,
        seen_ms: 7_200_000,
        cpu: kind(cpu),
        mem: kind((mem.0 * MIB, mem.1 * MIB)),
        throttled_permille: 0,
        ooms: 0,
        oom_limit_bytes: None,
        finished: 0,
        life_ms: None,
    }
}

/// What the played master advises, by framework and class.
pub fn advice() -> Advice {
    let mut new = class("new\x1b[31m", 1, (500, 500), (64, 64));
    for kind in [&mut new.cpu, &mut new.mem] {
        (kind.advice, kind.fit) = (None, Fit::NotEnoughSeen);
    }
    new.mem.p50 = None;
    new.seen_ms = 720_000;
    let mut killed = class("killed", 2, (1_000, 1_000), (100, 120));
    (killed.ooms, killed.oom_limit_bytes) = (3, Some(100 * MIB));
    let mut held = class("held", 1, (1_000, 1_200), (200, 100));
    held.throttled_permille = 125;
    let mut gone = class("gone", 0, (9_000, 100), (512, 512));
    gone.key.framework_id = FrameworkId::new("cafe-1-0009").expect("valid");
    Advice {
        at: Timestamp::from_ms(1_700_000_002_000),
        classes: vec![
            held,
            killed,
            new,
            class("right", 5, (1_000, 1_000), (100, 100)),
            class("web", 10, (1_000, 250), (256, 128)),
            gone,
        ],
        left_out: 4,
    }
}

#[tokio::test]
async fn who_would_spare_most_comes_first_and_the_sums_last() {
    let played = Played::start(End::NoOffer).await;
    let text = good(&played, &["advise"]).await;
    let lines: Vec<&str> = text.lines().collect();
    let place = |class: &str| {
        let place = lines.iter().position(|line| line.contains(class));
        place.unwrap_or_else(|| panic!("{class} is not in {text}"))
    };
    let order = [
        "web ",
        "held",
        "killed",
        "gone",
        "right ",
        "new\u{fffd}[31m",
    ]
    .map(place);
    assert!(order.is_sorted(), "{text}");
    for (class, part) in [
        ("web ", "0000 (web)"),
        ("web ", "over-asked"),
        ("web ", "0.25"),
        ("web ", "256 MiB"),
        ("held", "cpu under-asked, mem over-asked, throttled 12 %"),
        ("killed", "cpu right, mem under-asked"),
        ("new\u{fffd}", "12m 0s seen"),
        ("new\u{fffd}", "-"),
    ] {
        assert!(
            lines[place(class)].contains(part),
            "{part} is not in {text}"
        );
    }
    for part in [
        "1-0000 (web)",
        "running tasks ask for 7.5 cpus and 1.3 GiB more than is advised",
        "running tasks lack 0.2 cpus and 40 MiB of what is advised",
        "advice comes when tasks of a class have been measured for 1 h in all",
        "4 classes more are left out",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[tokio::test]
async fn advice_as_json_keeps_its_shape() {
    let played = Played::start(End::NoOffer).await;
    let text = good(&played, &["advise", "--class", "web", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let kind = |asked: u64, advice: u64| {
        serde_json::json!({
            "asked": asked, "p50": advice / 4, "p95": advice / 2, "peak": asked, "advice": advice,
            "fit": "over-asked"
        })
    };
    assert_eq!(
        json,
        serde_json::json!({
            "at_ms": 1_700_000_002_000_u64,
            "classes": [{
                "framework_id": "cafe-1-0000", "class": "web", "tasks": 11, "running": 10,
                "seen_ms": 7_200_000, "fit": "over-asked",
                "cpu_milli": kind(1_000, 250), "mem_bytes": kind(256 * MIB, 128 * MIB),
                "throttled_permille": 0, "ooms": 0, "oom_limit_bytes": null,
                "finished": 0, "life_ms": null
            }],
            "left_out": 4,
            "spared": { "cpu_milli": 7_500, "mem_bytes": 1_280 * MIB },
            "lacking": { "cpu_milli": 0, "mem_bytes": 0 }
        })
    );
}

#[tokio::test]
async fn a_framework_is_named_by_a_prefix_or_if_it_has_ended_by_its_id() {
    let played = Played::start(End::NoOffer).await;
    let text = good(&played, &["advise", "--framework", "cafe-1-0000"]).await;
    assert!(text.contains("web") && !text.contains("gone"), "{text}");
    let text = good(&played, &["advise", "--framework", "1-0001"]).await;
    assert!(text.contains("no such class was seen"), "{text}");
    let text = good(&played, &["advise", "--framework", "cafe-1-0009"]).await;
    assert!(text.contains("gone") && !text.contains("killed"), "{text}");
    let asked = played.asked();
    assert!(
        asked.contains(&String::from("advise cafe-1-0009 ")),
        "{asked:?}"
    );
    bad(
        &played,
        &["advise", "--framework", "nobody"],
        1,
        &["there is no framework"],
    )
    .await;
    bad(&played, &["advise", "--class", ""], 2, &["it is empty"]).await;
    let long = "x".repeat(129);
    bad(
        &played,
        &["advise", "--class", &long],
        2,
        &["no class is longer"],
    )
    .await;
}
