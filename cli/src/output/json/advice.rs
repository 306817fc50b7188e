//! What is advised, as JSON, in the order of the table. What is not known is null.

use ebb_types::{Advice, ClassAdvice, KindAdvice};
use serde::Serialize;

use crate::commands::advise::changes;

/// What classes of tasks should ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AdviceJson {
    at_ms: u64,
    classes: Vec<ClassAdviceJson>,
    left_out: u64,
    /// What running tasks ask for more than is advised.
    spared: ChangeJson,
    /// What they ask for less.
    lacking: ChangeJson,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ChangeJson {
    cpu_milli: u64,
    mem_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ClassAdviceJson {
    framework_id: String,
    class: String,
    tasks: u64,
    running: u64,
    seen_ms: u64,
    fit: &'static str,
    /// In thousandths of a core.
    cpu_milli: KindJson,
    mem_bytes: KindJson,
    throttled_permille: u64,
    ooms: u64,
    oom_limit_bytes: Option<u64>,
    finished: u64,
    life_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct KindJson {
    asked: u64,
    p50: Option<u64>,
    p95: Option<u64>,
    peak: Option<u64>,
    advice: Option<u64>,
    fit: &'static str,
}

impl From<&Advice> for AdviceJson {
    fn from(advice: &Advice) -> Self {
        let [spared, lacking] = changes(&advice.classes);
        let change = |[cpu_milli, mem_bytes]: [u64; 2]| ChangeJson {
            cpu_milli,
            mem_bytes,
        };
        Self {
            at_ms: advice.at.as_ms(),
            classes: advice.classes.iter().map(Into::into).collect(),
            left_out: advice.left_out,
            spared: change(spared),
            lacking: change(lacking),
        }
    }
}

impl From<&ClassAdvice> for ClassAdviceJson {
    fn from(class: &ClassAdvice) -> Self {
        Self {
            framework_id: class.key.framework_id.to_string(),
            class: class.key.class.clone(),
            tasks: class.tasks,
            running: class.running,
            seen_ms: class.seen_ms,
            fit: class.fit().name(),
            cpu_milli: class.cpu.into(),
            mem_bytes: class.mem.into(),
            throttled_permille: class.throttled_permille,
            ooms: class.ooms,
            oom_limit_bytes: class.oom_limit_bytes,
            finished: class.finished,
            life_ms: class.life_ms,
        }
    }
}

impl From<KindAdvice> for KindJson {
    fn from(kind: KindAdvice) -> Self {
        Self {
            asked: kind.asked,
            p50: kind.p50,
            p95: kind.p95,
            peak: kind.peak,
            advice: kind.advice,
            fit: kind.fit.name(),
        }
    }
}
