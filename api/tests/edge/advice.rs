//! What was seen of classes, and what is advised, over the wire.

use ebb_api::{AgentEnvelope, proto};
use ebb_types::{
    Advice, AdviceFilter, AgentToMaster, ClassKey, ClassUse, FrameworkId, Histogram, Incarnation,
    Timestamp, advise,
};
use proptest::prelude::*;

use super::refusal;

fn seen() -> ClassUse {
    let key = ClassKey {
        framework_id: FrameworkId::new("f").expect("valid"),
        class: String::from("web"),
    };
    let mut seen = ClassUse::new(key, Timestamp::from_ms(0));
    (seen.tasks, seen.running) = (7, 3);
    (seen.seen_ms, seen.cpu_seen_ms) = (4_000_000, 3_900_000);
    (seen.throttled_ms, seen.idle_ms) = (5_000, 60_000);
    (seen.asked_cpu_milli, seen.asked_mem_bytes) = (1_000, 1 << 30);
    seen.cpu_limit_milli = Some(2_000);
    for (value, ms) in [(0, 5_000), (100, 3_000_000), (1_500, 800_000)] {
        seen.cpu.add(value, ms);
        seen.mem.add(value << 20, ms);
    }
    for (day, more) in seen.days.iter_mut().zip(1..) {
        (day.cpu_milli, day.mem_bytes) = (more, 2 * more);
        (day.ooms, day.oom_limit_bytes) = (3 * more, 4 * more);
        (day.finished, day.life_ms) = (5 * more, 6 * more);
    }
    seen
}

fn sent(classes: Vec<ClassUse>) -> proto::AgentMessage {
    let message = AgentToMaster::Classes(classes);
    proto::AgentMessage::from(AgentEnvelope {
        incarnation: Incarnation(9),
        message,
    })
}

fn received(wire: proto::AgentMessage) -> Result<AgentToMaster, String> {
    let envelope = AgentEnvelope::try_from(wire).map_err(|error| error.to_string())?;
    Ok(envelope.message)
}

#[test]
fn what_was_seen_of_a_class_survives_the_wire_figure_by_figure() {
    let empty = ClassUse::new(seen().key, Timestamp::from_ms(0));
    let both = vec![seen(), empty];
    assert_eq!(
        received(sent(both.clone())),
        Ok(AgentToMaster::Classes(both))
    );
    // No time of the agent's clock travels.
    let later = seen().by_clock(Timestamp::from_ms(77));
    assert_eq!(sent(vec![later]), sent(vec![seen()]));
    // To a master that knows no classes it is a heartbeat.
    let mut old = sent(vec![seen()]);
    old.classes.clear();
    assert_eq!(received(old), Ok(AgentToMaster::Heartbeat));
}

#[test]
fn what_cannot_have_been_seen_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut proto::ClassUse), field: &str| {
        let mut wire = sent(vec![seen()]);
        change(&mut wire.classes[0]);
        let error = refusal(received(wire));
        assert!(error.starts_with(field), "{error}");
    };
    refused(&|class| class.class.clear(), "class_use.class");
    refused(&|class| class.class = "x".repeat(129), "class_use.class");
    refused(&|class| class.class.push('\0'), "class_use.class");
    refused(
        &|class| class.framework_id.clear(),
        "class_use.framework_id",
    );
    refused(&|class| class.days.push(class.days[0]), "class_use.days");
    refused(
        &|class| class.days[3].mem_bytes = u64::MAX,
        "class_use.days.mem_bytes",
    );
    refused(
        &|class| class.asked_cpu_milli = u64::MAX,
        "class_use.asked_cpu_milli",
    );
    refused(
        &|class| class.asked_mem_bytes = u64::MAX,
        "class_use.asked_mem_bytes",
    );
    refused(
        &|class| class.cpu_limit_milli = Some(u64::MAX),
        "class_use.cpu_limit_milli",
    );
    let mem = |class: &mut proto::ClassUse, change: &dyn Fn(&mut proto::UseHistogram)| {
        change(class.mem.as_mut().expect("it is there"));
    };
    refused(
        &|class| mem(class, &|it| it.buckets.reverse()),
        "class_use.mem",
    );
    refused(
        &|class| mem(class, &|it| it.buckets[0] = 1 << 20),
        "class_use.mem",
    );
    refused(
        &|class| mem(class, &|it| it.weights_ms[1] = 0),
        "class_use.mem",
    );
    refused(
        &|class| mem(class, &|it| it.weights_ms.truncate(1)),
        "class_use.mem",
    );
    let error = refusal(received(sent(vec![seen(); 17])));
    assert!(error.contains("at most 16"), "{error}");
}

#[test]
fn what_is_advised_survives_the_wire_and_floods_are_refused() {
    let advice = Advice {
        at: Timestamp::from_ms(5),
        classes: vec![
            advise(&seen()),
            advise(&ClassUse::new(seen().key, Timestamp::from_ms(0))),
        ],
        left_out: 3,
    };
    let wire = proto::Advice::from(advice.clone());
    assert_eq!(Advice::try_from(wire.clone()), Ok(advice));
    let mut bad = wire.clone();
    bad.classes[0].cpu.as_mut().expect("it is there").fit = 9;
    let error = refusal(Advice::try_from(bad));
    assert!(error.starts_with("kind_advice.fit"), "{error}");
    let mut bad = wire.clone();
    bad.classes[0].mem = None;
    assert!(refusal(Advice::try_from(bad)).starts_with("class_advice.mem"));
    let mut bad = wire;
    bad.classes = vec![bad.classes[0].clone(); 10_001];
    assert!(refusal(Advice::try_from(bad)).contains("at most 10000"));
}

#[test]
fn a_filter_survives_the_wire_and_names_what_it_cannot_mean() {
    for filter in [
        AdviceFilter::default(),
        AdviceFilter {
            framework_id: Some(FrameworkId::new("f").expect("valid")),
            class: Some(String::from("web")),
        },
    ] {
        let wire = proto::AdviseRequest::from(filter.clone());
        assert_eq!(AdviceFilter::try_from(wire), Ok(filter));
    }
    let wire = proto::AdviseRequest {
        framework_id: None,
        class: Some(String::new()),
    };
    assert!(refusal(AdviceFilter::try_from(wire)).starts_with("class"));
}

proptest! {
    #[test]
    fn whatever_buckets_come_they_are_a_histogram_or_refused(
        buckets in prop::collection::vec(0u32..2_000, 0..300),
        weights_ms in prop::collection::vec(any::<u64>(), 0..300),
    ) {
        let mut wire = sent(vec![seen()]);
        wire.classes[0].cpu = Some(proto::UseHistogram { buckets, weights_ms });
        if let Ok(AgentToMaster::Classes(classes)) = received(wire) {
            let buckets = classes[0].cpu.buckets().to_vec();
            prop_assert!(Histogram::from_buckets(buckets).is_some());
            let mut twice = classes[0].clone();
            twice.merge(classes[0].clone());
            advise(&twice);
        }
    }
}
