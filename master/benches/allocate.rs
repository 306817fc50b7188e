//! How long a round of the allocator takes, beside a floor measured in the same run.
//!
//! Subject: every agent's resources are offered by a pass over the real ledger and claims (roles,
//! weights and refusals on), then every offer is declined with a filter. Floor: the same number of
//! decisions by dominant share over plain arrays, with binary heaps, and nothing else. Subject and
//! floor alternate. Printed on standard output, a row a line:
//! `{"case","metric","value","unit"}`.
//!
//! Arguments: `AGENTSxFRAMEWORKS` … (else the usual shapes). `--bench`, which cargo adds, is ignored.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use ebb_master::allocator::{Proposal, pass, pass_all};
use ebb_master::core::allocate::Planner;
use ebb_master::core::claims::{Claims, FrameworkTerms};
use ebb_master::ledger::{AgentLedger, Ledger, Transition};
use ebb_types::{AgentId, FrameworkId, Incarnation, Quantities, Role, Timestamp};

const ROUNDS: u64 = 30;
const EVENTS: usize = 2000;
const ROLES: usize = 10;
const ROUND_MS: u64 = 1000;
const REFUSE_MS: u64 = 5000;
const AGENT_CPU_MILLI: u64 = 24_000;
const AGENT_MEM_BYTES: u64 = 64 << 30;
const LIFE: Incarnation = Incarnation(1);

struct Cluster {
    ledger: Ledger,
    claims: Claims,
    planner: Planner,
}

fn agent_id(number: usize) -> Result<AgentId, Error> {
    Ok(AgentId::new(format!("agent-{number:06}"))?)
}

type Error = Box<dyn std::error::Error>;

impl Cluster {
    fn new(agents: usize, frameworks: usize) -> Result<Self, Error> {
        let (ledger, mut claims) = (Ledger::new(), Claims::new());
        let total = Quantities::cpus_mem(AGENT_CPU_MILLI, AGENT_MEM_BYTES);
        for number in 0..agents {
            let id = agent_id(number)?;
            claims.set_agent(&id, total, Quantities::ZERO);
            let number = claims.agent_number(&id).ok_or("an agent has no number")?;
            ledger.insert(id, number, AgentLedger::new(LIFE, total, Quantities::ZERO));
        }
        for number in 0..frameworks {
            let role = Role::new(format!("role-{}", number % ROLES))?;
            claims.set_weight(&role, 1000 + 500 * u32::try_from(number % ROLES)?);
            let terms = FrameworkTerms {
                roles: BTreeSet::from([role]),
                active: true,
                ..FrameworkTerms::default()
            };
            claims.set_framework(&FrameworkId::new(format!("framework-{number:05}"))?, terms);
        }
        Ok(Self {
            ledger,
            planner: Planner::new(claims.copy()),
            claims,
        })
    }

    /// What the driver publishes and a worker follows.
    fn follow(&mut self) {
        let entries = self.claims.publish();
        self.planner.follow(&entries);
    }

    /// What the driver does with a batch: charge it.
    fn take_in(&mut self, proposals: &[Proposal]) {
        for proposal in proposals {
            self.claims
                .charge(&proposal.framework_id, &proposal.role, &proposal.resources);
        }
    }

    /// What the driver does when offers are declined.
    fn decline(&mut self, proposals: &[Proposal], expires: Timestamp) -> Result<(), Error> {
        for proposal in proposals {
            let back = Transition::Decline(proposal.resources);
            self.ledger
                .apply(&proposal.agent_id, proposal.incarnation, &back)?;
            let (who, role) = (&proposal.framework_id, &proposal.role);
            self.claims.credit(who, role, &proposal.resources)?;
            self.claims
                .refuse(who, role, &proposal.agent_id, &proposal.resources, expires);
        }
        Ok(())
    }
}

/// A claimant of the floor: what it holds, how often it was chosen, who it is.
type Plain = Reverse<(u64, u64, usize)>;

/// A round of dominant shares over plain arrays: two levels, as many decisions as agents.
fn floor(agents: usize, frameworks: usize) -> (Duration, u64) {
    let mut roles: BinaryHeap<Plain> = (0..ROLES).map(|role| Reverse((0, 0, role))).collect();
    let mut members: Vec<BinaryHeap<Plain>> = (0..ROLES)
        .map(|role| {
            (role..frameworks)
                .step_by(ROLES)
                .map(|one| Reverse((0, 0, one)))
                .collect()
        })
        .collect();
    let total_cpu_milli = AGENT_CPU_MILLI * agents as u64;
    let total_mem_mib = (AGENT_MEM_BYTES >> 20) * agents as u64;
    let mut held = vec![(0u64, 0u64); frameworks];
    let mut sum = 0;
    let start = Instant::now();
    for _ in 0..agents {
        let Some(mut role) = roles.peek_mut() else {
            break;
        };
        let Some(mut member) = members[role.0.2].peek_mut() else {
            break;
        };
        let one = &mut held[member.0.2];
        one.0 += AGENT_CPU_MILLI;
        one.1 += AGENT_MEM_BYTES >> 20;
        member.0.0 = (one.0 * total_mem_mib).max(one.1 * total_cpu_milli);
        member.0.1 += 1;
        role.0.0 += member.0.0;
        role.0.1 += 1;
        sum += member.0.2 as u64;
    }
    (start.elapsed(), sum)
}

#[derive(Default)]
struct Times {
    floor: Vec<Duration>,
    pass: Vec<Duration>,
    take_in: Vec<Duration>,
    decline: Vec<Duration>,
    publish: Vec<Duration>,
    empty: Vec<Duration>,
}

fn rounds(cluster: &mut Cluster, agents: usize, frameworks: usize) -> Result<Times, Error> {
    let mut times = Times::default();
    for round in 0..ROUNDS {
        let now = Timestamp::from_ms(1 + round * ROUND_MS);
        let (elapsed, _sum) = std::hint::black_box(floor(agents, frameworks));
        times.floor.push(elapsed);

        let start = Instant::now();
        cluster.claims.expire(now);
        cluster.follow();
        times.publish.push(start.elapsed());

        let start = Instant::now();
        let proposals = pass_all(&cluster.ledger, &mut cluster.planner);
        times.pass.push(start.elapsed());
        if proposals.len() != agents {
            return Err(format!("{} of {agents} agents were offered", proposals.len()).into());
        }

        let start = Instant::now();
        cluster.take_in(&proposals);
        times.take_in.push(start.elapsed());

        cluster.follow();
        let start = Instant::now();
        let none = pass_all(&cluster.ledger, &mut cluster.planner);
        times.empty.push(start.elapsed());
        if !none.is_empty() {
            return Err("an agent was offered twice".into());
        }

        let start = Instant::now();
        cluster.decline(&proposals, now.plus_ms(REFUSE_MS))?;
        times.decline.push(start.elapsed());
    }
    Ok(times)
}

/// One decline, and the next offer of the same agent: core, publication and pass.
fn events(cluster: &mut Cluster, agents: usize) -> Result<Vec<Duration>, Error> {
    let now = Timestamp::from_ms(1 << 40);
    cluster.claims.expire(now);
    cluster.follow();
    let mut offers = pass_all(&cluster.ledger, &mut cluster.planner);
    cluster.take_in(&offers);
    let mut times = Vec::with_capacity(EVENTS);
    for event in 0..EVENTS {
        let offer = &mut offers[(event * 7919) % agents];
        let start = Instant::now();
        cluster.decline(std::slice::from_ref(offer), now.plus_ms(REFUSE_MS))?;
        cluster.follow();
        let next = pass(&cluster.ledger, &mut cluster.planner, [&offer.agent_id]);
        cluster.take_in(&next);
        times.push(start.elapsed());
        *offer = next
            .into_iter()
            .next()
            .ok_or("an agent was not offered again")?;
    }
    Ok(times)
}

struct Row {
    case: String,
    metric: String,
    value: f64,
    unit: &'static str,
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn at(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted[((last as f64) * part).round() as usize]
}

fn report(case: &str, times: &Times, events: &[Duration]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |metric: &str, value: f64, unit: &'static str| {
        let (case, metric) = (case.to_owned(), metric.to_owned());
        rows.push(Row {
            case,
            metric,
            value,
            unit,
        });
    };
    let all = [
        ("floor", &times.floor),
        ("pass", &times.pass),
        ("empty_pass", &times.empty),
        ("take_in_offers", &times.take_in),
        ("take_in_declines", &times.decline),
        ("expire_and_publish", &times.publish),
    ];
    for (name, times) in all {
        row(&format!("{name}_min"), micros(at(times, 0.0)), "us");
        row(&format!("{name}_median"), micros(at(times, 0.5)), "us");
    }
    let ratio = |part| micros(at(&times.pass, part)) / micros(at(&times.floor, part));
    row("pass_over_floor_min", ratio(0.0), "ratio");
    row("pass_over_floor_median", ratio(0.5), "ratio");
    row("event_to_offer_median", micros(at(events, 0.5)), "us");
    row("event_to_offer_p99", micros(at(events, 0.99)), "us");
    rows
}

fn parse(shape: &str) -> Result<(usize, usize), Error> {
    let (agents, frameworks) = shape
        .split_once('x')
        .ok_or_else(|| format!("{shape:?} is no shape; say for example 10000x1000"))?;
    Ok((agents.parse()?, frameworks.parse()?))
}

fn main() -> Result<(), Error> {
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let shapes = match asked.as_slice() {
        [] => vec![(1000, 100), (10_000, 1000), (20_000, 2000)],
        shapes => shapes
            .iter()
            .map(|shape| parse(shape))
            .collect::<Result<_, _>>()?,
    };
    let mut rows = Vec::new();
    for (agents, frameworks) in shapes {
        let mut cluster = Cluster::new(agents, frameworks)?;
        let times = rounds(&mut cluster, agents, frameworks)?;
        let events = events(&mut cluster, agents)?;
        rows.extend(report(&format!("{agents}x{frameworks}"), &times, &events));
    }
    for row in rows {
        let Row {
            case,
            metric,
            value,
            unit,
        } = row;
        println!(r#"{{"case":"{case}","metric":"{metric}","value":{value:.3},"unit":"{unit}"}}"#);
    }
    Ok(())
}
