//! What is kept of what agents tell, and what it adds up to.

use ebb_types::FrameworkId;
use proptest::prelude::*;

use super::*;

fn agent(number: usize) -> AgentId {
    AgentId::new(format!("a{number}")).unwrap()
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

/// A class of which this was seen, up to then.
fn seen(class: &str, ms: u64, tasks: u64) -> ClassUse {
    let key = ClassKey {
        framework_id: FrameworkId::new("f").unwrap(),
        class: String::from(class),
    };
    let mut seen = ClassUse::new(key, at(ms));
    (seen.tasks, seen.running) = (tasks, tasks);
    seen.seen_ms = tasks * 1_000;
    seen.mem.add(tasks * 100, 1_000_000);
    seen.days[0].mem_bytes = tasks * 100;
    seen
}

fn tell(book: &mut ClassBook, number: usize, one: ClassUse) -> u64 {
    let told_at = one.at;
    book.take(&agent(number), told_at, vec![Arc::new(one)])
}

fn sums(book: &ClassBook, ms: u64) -> Vec<ClassUse> {
    book.sums(at(ms), &AdviceFilter::default(), |_| true)
}

#[test]
fn what_is_told_again_replaces_what_was_told_and_agents_add_up() {
    let mut book = ClassBook::default();
    for _ in 0..3 {
        tell(&mut book, 1, seen("web", 10, 2));
        tell(&mut book, 2, seen("web", 10, 5));
        tell(&mut book, 2, seen("db", 10, 1));
    }
    let all = sums(&book, 10);
    let names: Vec<_> = all.iter().map(|sum| sum.key.class.as_str()).collect();
    assert_eq!(names, ["db", "web"]);
    assert_eq!(
        (all[1].tasks, all[1].running, all[1].peaks().mem_bytes),
        (7, 7, 500)
    );
    assert_eq!(book.len(), 3);
    let filter = AdviceFilter {
        framework_id: None,
        class: Some(String::from("web")),
    };
    let there = |id: &AgentId| *id == agent(1);
    let web = book.sums(at(10), &filter, there);
    assert_eq!((web.len(), web[0].tasks, web[0].running), (1, 7, 2));
    let filter = AdviceFilter {
        framework_id: Some(FrameworkId::new("g").unwrap()),
        ..filter
    };
    assert!(book.sums(at(10), &filter, there).is_empty());
}

#[test]
fn what_an_agent_told_outlives_it_and_fades() {
    let mut book = ClassBook::default();
    tell(&mut book, 1, seen("web", 10, 2));
    tell(&mut book, 2, seen("web", 10, 5));
    assert_eq!(book.forget(&agent(2)), 0);
    assert_eq!(book.forget(&agent(7)), 0);
    let [sum] = &sums(&book, 20)[..] else {
        panic!("one class")
    };
    assert_eq!((sum.tasks, sum.running, sum.peaks().mem_bytes), (7, 2, 500));
    assert_eq!(book.forget(&agent(1)), 0);
    assert_eq!(sums(&book, 20)[0].running, 0);
    let year_ms = 365 * 86_400_000;
    assert!(sums(&book, year_ms).is_empty());
}

#[test]
fn an_agent_that_tells_of_more_than_it_may_loses_what_was_idle_for_longest() {
    let mut book = ClassBook::default();
    for n in 0..MAX_CLASSES_PER_AGENT as u64 {
        let mut one = seen(&format!("c{n}"), 10_000, 1);
        one.running = u64::from(n == 3);
        one.idle_ms = if n == 3 { 9_999 } else { n };
        assert_eq!(tell(&mut book, 1, one), 0);
    }
    assert_eq!(tell(&mut book, 1, seen("new", 10_000, 1)), 1);
    assert_eq!(book.len(), MAX_CLASSES_PER_AGENT);
    let all = sums(&book, 10_000);
    let has = |class: &str| all.iter().any(|sum| sum.key.class == class);
    let longest = format!("c{}", MAX_CLASSES_PER_AGENT - 1);
    assert!(has("new") && has("c3") && !has(&longest));
}

#[test]
fn where_there_is_no_room_the_agent_that_was_silent_for_longest_counts_as_gone() {
    let mut book = ClassBook::default();
    let tell_all = |book: &mut ClassBook, number: usize| {
        let each = (0..MAX_CLASSES_PER_AGENT).map(|n| Arc::new(seen(&format!("c{n}"), 10, 1)));
        book.take(&agent(number), at(100 + number as u64), each.collect())
    };
    let full = MAX_CLASSES_KEPT / MAX_CLASSES_PER_AGENT;
    for number in 0..full {
        assert_eq!(tell_all(&mut book, number), 0);
    }
    // The first one speaks again, so that the second one is silent for longest.
    let mut again = seen("c0", 10, 1);
    again.at = at(99_999);
    tell(&mut book, 0, again);
    assert_eq!(tell_all(&mut book, full), 0);
    assert!(book.held <= MAX_CLASSES_KEPT);
    assert!(book.agents.contains_key(&agent(0)) && !book.agents.contains_key(&agent(1)));
    assert_eq!(book.gone.len(), MAX_CLASSES_PER_AGENT);
    let [first, ..] = &sums(&book, 99_999)[..] else {
        panic!("there are classes")
    };
    assert_eq!((first.tasks, first.running), (full as u64 + 1, full as u64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_told_the_sums_are_of_what_each_agent_told_last(
        told in prop::collection::vec((0usize..3, 0usize..3, 0u64..50, any::<bool>()), 1..60)
    ) {
        let mut book = ClassBook::default();
        let mut last = BTreeMap::new();
        let mut gone: BTreeMap<usize, u64> = BTreeMap::new();
        for (number, class, tasks, is_end) in told {
            if is_end && tasks < 5 {
                book.forget(&agent(number));
                for class in 0..3 {
                    *gone.entry(class).or_default() += last.remove(&(number, class)).unwrap_or(0);
                }
            } else {
                tell(&mut book, number, seen(&format!("c{class}"), 10, tasks + 1));
                last.insert((number, class), tasks + 1);
            }
            let all = sums(&book, 10);
            for class in 0..3 {
                let name = format!("c{class}");
                let sum = all.iter().find(|sum| sum.key.class == name);
                let of = last.iter().filter(|((_, one), _)| *one == class);
                let running: u64 = of.map(|(_, tasks)| tasks).sum();
                let before = gone.get(&class).copied().unwrap_or(0);
                prop_assert_eq!(sum.map_or(0, |sum| sum.running), running);
                prop_assert_eq!(sum.map_or(0, |sum| sum.tasks), running + before);
            }
        }
    }
}
