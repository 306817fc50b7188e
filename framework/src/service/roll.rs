//! What a service must launch and kill, as a pure function of its instances: the rules of scaling,
//! replacing, rolling over and moving.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{AgentId, TaskId, TaskState, Timestamp};

use super::spec::{MAX_SURGE, SURGE_PATIENCE_MS};
use crate::backoff::Backoff;

/// An instance that is not known to have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) slot: u32,
    pub(super) version: String,
    pub(super) agent_id: Option<AgentId>,
    pub(super) hostname: String,
    pub(super) state: TaskState,
    pub(super) launched_at: Timestamp,
    pub(super) running_since: Option<Timestamp>,
    /// Whether it was asked to end.
    pub(super) ending: bool,
    /// Whether it is known to have reached its agent.
    pub(super) heard: bool,
}

impl Instance {
    /// Whether its agent can be reached.
    pub(super) const fn is_in_reach(&self) -> bool {
        !matches!(self.state, TaskState::Unreachable | TaskState::Unknown)
    }

    pub(super) const fn is_present(&self) -> bool {
        self.is_in_reach() && !self.ending
    }

    fn is_available(&self) -> bool {
        self.is_present() && self.state == TaskState::Running
    }

    fn is_on(&self, agents: &BTreeSet<AgentId>) -> bool {
        self.agent_id.as_ref().is_some_and(|id| agents.contains(id))
    }
}

/// What is remembered of a slot beyond its instance.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) backoff: Backoff,
    pub(super) not_before: Timestamp,
    /// Whether an instance of the wanted version was started in it before.
    pub(super) started: bool,
}

impl Slot {
    pub(super) const fn new(first_ms: u64, cap_ms: u64) -> Self {
        Self {
            backoff: Backoff::new(first_ms, cap_ms),
            not_before: Timestamp::from_ms(0),
            started: false,
        }
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Slots that want an instance now.
    pub(super) launch: Vec<u32>,
    /// Slots whose instance is on an agent that is to be left: they want another beside it, elsewhere.
    pub(super) moves: Vec<u32>,
    /// Instances that must go.
    pub(super) kill: Vec<TaskId>,
    /// When the time alone may change the plan.
    pub(super) look_again_at: Option<Timestamp>,
}

/// Everything must go.
pub(super) fn stop(instances: &BTreeMap<TaskId, Instance>) -> Plan {
    Plan {
        kill: instances
            .iter()
            .filter(|(_, instance)| !instance.ending)
            .map(|(task_id, _)| task_id.clone())
            .collect(),
        ..Plan::default()
    }
}

/// What a plan is made of.
pub(super) struct Facts<'a> {
    pub(super) now: Timestamp,
    pub(super) wanted: u32,
    pub(super) version: &'a str,
    pub(super) instances: &'a BTreeMap<TaskId, Instance>,
    pub(super) slots: &'a BTreeMap<u32, Slot>,
    /// Since when a rolling change has found no offer for the instance beyond the wanted number.
    pub(super) starved_since: Option<Timestamp>,
    /// Agents that are to be left.
    pub(super) leaving: &'a BTreeSet<AgentId>,
}

/// What to launch and to kill so that `wanted` instances of `version` run, and none where it is to leave.
pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let Facts {
        now,
        wanted,
        version,
        instances,
        slots,
        starved_since,
        leaving,
    } = *facts;
    let (keep, successors) = keepers(wanted, version, instances, leaving);
    let patience_ends = starved_since.map(|since| since.plus_ms(SURGE_PATIENCE_MS));
    let starved = patience_ends.is_some_and(|at| at <= now);
    let mut kill = excess(version, instances, &keep, &successors);
    let outdated = outdated(facts, &keep, starved);
    kill.extend(outdated);
    let present = instances
        .iter()
        .filter(|(task_id, instance)| instance.is_present() && !kill.contains(task_id))
        .filter(|(task_id, _)| !successors.values().any(|other| other == task_id))
        .count();
    let budget = (wanted as usize + MAX_SURGE as usize).saturating_sub(present);
    let is_leaving = |slot: &u32| {
        let kept = keep.get(slot).and_then(|task_id| instances.get(*task_id));
        kept.is_some_and(|kept| kept.is_on(leaving)) && !successors.contains_key(slot)
    };
    let lacking = (0..wanted).filter(|slot| !keep.contains_key(slot) || is_leaving(slot));
    let (ready, waiting): (Vec<u32>, Vec<u32>) =
        lacking.partition(|slot| slots.get(slot).is_none_or(|state| state.not_before <= now));
    let (moves, empty): (Vec<u32>, Vec<u32>) = ready.into_iter().partition(is_leaving);
    let not_before = waiting
        .iter()
        .filter_map(|slot| slots.get(slot))
        .map(|s| s.not_before);
    let patience = patience_ends.filter(|at| *at > now);
    Plan {
        launch: empty.into_iter().take(budget).collect(),
        moves,
        kill,
        look_again_at: not_before.chain(patience).min(),
    }
}

/// One task of each slot.
type BySlot<'a> = BTreeMap<u32, &'a TaskId>;

/// The instance of the wanted version that each slot keeps: one that runs before one that does not, then one that need
/// not leave its agent, then the oldest. Where the kept one is to leave, also the one that will follow it.
fn keepers<'a>(
    wanted: u32,
    version: &str,
    instances: &'a BTreeMap<TaskId, Instance>,
    leaving: &BTreeSet<AgentId>,
) -> (BySlot<'a>, BySlot<'a>) {
    let mut by_slot: BTreeMap<u32, Vec<(&TaskId, &Instance)>> = BTreeMap::new();
    let current = instances
        .iter()
        .filter(|(_, i)| i.is_present() && i.version == version && i.slot < wanted);
    for (task_id, instance) in current {
        let slot = by_slot.entry(instance.slot).or_default();
        slot.push((task_id, instance));
    }
    let (mut keep, mut successors) = (BySlot::new(), BySlot::new());
    for (slot, mut all) in by_slot {
        let is_idle = |i: &Instance| i.state != TaskState::Running;
        all.sort_by_key(|(_, i)| (is_idle(i), i.is_on(leaving), i.launched_at));
        let mut all = all.into_iter();
        let Some((kept, instance)) = all.next() else {
            continue;
        };
        keep.insert(slot, kept);
        if instance.is_on(leaving)
            && let Some((next, _)) = all.find(|(_, i)| !i.is_on(leaving))
        {
            successors.insert(slot, next);
        }
    }
    (keep, successors)
}

/// Instances of the wanted version that no slot keeps or is about to keep. What is out of reach counts only once another
/// runs in its place: then it goes when it comes back.
fn excess(
    version: &str,
    instances: &BTreeMap<TaskId, Instance>,
    keep: &BySlot<'_>,
    successors: &BySlot<'_>,
) -> Vec<TaskId> {
    instances
        .iter()
        .filter(|(_, i)| i.is_present() && i.version == version)
        .filter(|(task_id, i)| keep.get(&i.slot) != Some(task_id))
        .filter(|(task_id, i)| successors.get(&i.slot) != Some(task_id))
        .map(|(task_id, _)| task_id.clone())
        .collect()
}

/// Instances of other versions that may go now; those first that are to leave their agents.
fn outdated(facts: &Facts<'_>, keep: &BySlot<'_>, starved: bool) -> Vec<TaskId> {
    let Facts {
        wanted,
        version,
        instances,
        leaving,
        ..
    } = *facts;
    let kept_running = keep
        .values()
        .filter_map(|id| instances.get(*id))
        .filter(|i| i.is_available())
        .count();
    let mut old: Vec<(&TaskId, &Instance)> = instances
        .iter()
        .filter(|(_, i)| i.is_present() && i.version != version)
        .collect();
    old.sort_by_key(|(_, i)| !i.is_on(leaving));
    let available: Vec<&TaskId> = old
        .iter()
        .filter(|(_, i)| i.is_available())
        .map(|(task_id, _)| *task_id)
        .collect();
    // Those that do not run are of no use to anybody; but what was taken over and not heard of yet may
    // well run.
    let idle = old
        .iter()
        .filter(|(_, i)| !i.is_available() && (i.heard || wanted == 0))
        .map(|(task_id, _)| (*task_id).clone());
    let missing = (wanted as usize).saturating_sub(usize::from(starved));
    let spare = (kept_running + available.len()).saturating_sub(missing);
    let spare = spare.min(if starved { 1 } else { usize::MAX });
    idle.chain(available.into_iter().take(spare).cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000);

    fn instance(slot: u32, version: &str, state: TaskState) -> Instance {
        Instance {
            slot,
            version: version.into(),
            agent_id: None,
            hostname: String::new(),
            state,
            launched_at: NOW,
            running_since: None,
            ending: false,
            heard: state != TaskState::Staging,
        }
    }

    fn of(list: &[(u32, &str, TaskState)]) -> BTreeMap<TaskId, Instance> {
        let named = list
            .iter()
            .enumerate()
            .map(|(index, (slot, version, state))| {
                let id = TaskId::new(format!("t{index}")).expect("valid");
                (id, instance(*slot, version, *state))
            });
        named.collect()
    }

    fn planned_at(
        wanted: u32,
        version: &str,
        instances: &BTreeMap<TaskId, Instance>,
        starved_since: Option<Timestamp>,
        leaving: &BTreeSet<AgentId>,
    ) -> Plan {
        plan(&Facts {
            now: NOW,
            wanted,
            version,
            instances,
            slots: &BTreeMap::new(),
            starved_since,
            leaving,
        })
    }

    fn planned(
        wanted: u32,
        version: &str,
        instances: &BTreeMap<TaskId, Instance>,
    ) -> (Vec<u32>, Vec<String>) {
        let plan = planned_at(wanted, version, instances, None, &BTreeSet::new());
        let kill = plan.kill.iter().map(ToString::to_string).collect();
        (plan.launch, kill)
    }

    use TaskState::{Running, Staging, Unreachable};

    #[test]
    fn every_slot_gets_one_instance_and_no_more() {
        assert_eq!(planned(3, "a", &of(&[])), (vec![0, 1, 2], vec![]));
        let all = of(&[(0, "a", Running), (1, "a", Staging), (2, "a", Running)]);
        assert_eq!(planned(3, "a", &all), (vec![], vec![]));
        let twice = of(&[(0, "a", Staging), (0, "a", Running)]);
        assert_eq!(planned(1, "a", &twice), (vec![], vec!["t0".into()]));
    }

    #[test]
    fn scaling_down_ends_the_highest_slots() {
        let all = of(&[(0, "a", Running), (1, "a", Running), (2, "a", Running)]);
        assert_eq!(
            planned(1, "a", &all),
            (vec![], vec!["t1".into(), "t2".into()])
        );
        assert_eq!(planned(0, "a", &all).1.len(), 3);
    }

    #[test]
    fn a_rolling_change_never_has_fewer_running_than_wanted() {
        let start = of(&[(0, "a", Running), (1, "a", Running)]);
        assert_eq!(
            planned(2, "b", &start),
            (vec![0], vec![]),
            "one beyond the wanted number"
        );
        let starting = of(&[(0, "a", Running), (1, "a", Running), (0, "b", Staging)]);
        assert_eq!(
            planned(2, "b", &starting),
            (vec![], vec![]),
            "nothing goes before it runs"
        );
        let started = of(&[(0, "a", Running), (1, "a", Running), (0, "b", Running)]);
        assert_eq!(planned(2, "b", &started), (vec![1], vec!["t0".into()]));
        let last = of(&[(1, "a", Running), (0, "b", Running), (1, "b", Running)]);
        assert_eq!(planned(2, "b", &last), (vec![], vec!["t0".into()]));
    }

    #[test]
    fn a_full_cluster_gives_one_old_instance_up_after_patience() {
        let start = of(&[(0, "a", Running), (1, "a", Running)]);
        let at = |since_ms| {
            let since = Some(Timestamp::from_ms(since_ms));
            planned_at(2, "b", &start, since, &BTreeSet::new())
        };
        let patient = at(NOW.as_ms() - 1);
        assert!(patient.kill.is_empty());
        assert_eq!(
            patient.look_again_at,
            Some(NOW.plus_ms(SURGE_PATIENCE_MS - 1))
        );
        assert_eq!(at(NOW.as_ms() - SURGE_PATIENCE_MS).kill.len(), 1);
    }

    #[test]
    fn an_instance_leaves_its_agent_only_when_another_runs_elsewhere() {
        let agent = AgentId::new("leaving").expect("valid");
        let leaving = BTreeSet::from([agent.clone()]);
        let on_agent = |list: &[(u32, &str, TaskState)], here: &[&str]| {
            let mut all = of(list);
            for (id, one) in &mut all {
                one.agent_id = here.contains(&id.as_str()).then(|| agent.clone());
            }
            planned_at(2, "a", &all, None, &leaving)
        };
        let nothing = Plan::default();
        let start = [(0, "a", Running), (1, "a", Running)];
        let both = on_agent(&start, &["t0", "t1"]);
        assert_eq!(
            (both.moves, both.launch),
            (vec![0, 1], vec![]),
            "as many as fit"
        );
        assert!(both.kill.is_empty());
        let starting = [(0, "a", Running), (1, "a", Running), (0, "a", Staging)];
        assert_eq!(
            on_agent(&starting, &["t0"]),
            nothing,
            "nothing goes before it runs"
        );
        let started = [(0, "a", Running), (1, "a", Running), (0, "a", Running)];
        let gone = on_agent(&started, &["t0"]);
        assert_eq!(gone.kill, [TaskId::new("t0").expect("valid")]);
        assert!(gone.moves.is_empty() && gone.launch.is_empty());
        assert_eq!(on_agent(&start, &[]), nothing);
        // One that does not run yet is no reason to wait.
        let idle = [(0, "a", Staging), (1, "a", Running), (0, "a", Staging)];
        assert_eq!(
            on_agent(&idle, &["t0"]).kill,
            [TaskId::new("t0").expect("valid")]
        );
    }

    #[test]
    fn what_is_out_of_reach_is_replaced_and_goes_when_it_comes_back() {
        let lost = of(&[(0, "a", Unreachable)]);
        assert_eq!(planned(1, "a", &lost), (vec![0], vec![]));
        let mut back = of(&[(0, "a", Running), (0, "a", Running)]);
        if let Some(replacement) = back.get_mut("t1") {
            replacement.launched_at = NOW.plus_ms(5);
        }
        assert_eq!(
            planned(1, "a", &back),
            (vec![], vec!["t1".into()]),
            "the older one stays"
        );
    }

    #[test]
    fn a_slot_waits_for_its_back_off() {
        let mut slot = Slot::new(1000, 60_000);
        slot.not_before = NOW.plus_ms(500);
        let slots = BTreeMap::from([(0, slot)]);
        let plan = plan(&Facts {
            now: NOW,
            wanted: 2,
            version: "a",
            instances: &BTreeMap::new(),
            slots: &slots,
            starved_since: None,
            leaving: &BTreeSet::new(),
        });
        assert_eq!(plan.launch, [1]);
        assert_eq!(plan.look_again_at, Some(NOW.plus_ms(500)));
    }
}
