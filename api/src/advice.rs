//! What was seen of classes of tasks, and what they should ask for, on the wire.
//!
//! What an agent has seen is as of when it is sent, and no time travels but how long ago something was: what is read is as
//! of 0, for the reader to put on its own clock.

use ebb_types::limits::{
    MAX_ADVISED_CLASSES, MAX_CLASS_BYTES, MAX_CLASSES_PER_REPORT, MAX_QUANTITY,
};
use ebb_types::{
    ADVICE_DAYS, Advice, AdviceFilter, ClassAdvice, ClassKey, ClassUse, DayPeaks, Fit, FrameworkId,
    Histogram, KindAdvice, Timestamp,
};

use crate::check::{Invalid, bounded, id, required, text};
use crate::proto;

const FITS: [(Fit, proto::Fit); 4] = [
    (Fit::NotEnoughSeen, proto::Fit::NotEnoughSeen),
    (Fit::OverAsked, proto::Fit::OverAsked),
    (Fit::UnderAsked, proto::Fit::UnderAsked),
    (Fit::Right, proto::Fit::Right),
];

fn class(field: &'static str, class: String) -> Result<String, Invalid> {
    if class.is_empty() {
        return Err(Invalid::missing(field));
    }
    text(field, class, MAX_CLASS_BYTES)
}

fn amount(field: &'static str, amount: u64) -> Result<u64, Invalid> {
    if amount > MAX_QUANTITY {
        return Err(Invalid::new(
            field,
            format!("is {amount}; at most {MAX_QUANTITY} is allowed"),
        ));
    }
    Ok(amount)
}

fn key(
    framework_id: &str,
    class_name: String,
    (framework_field, class_field): (&'static str, &'static str),
) -> Result<ClassKey, Invalid> {
    Ok(ClassKey {
        framework_id: id(framework_field, framework_id, |t| FrameworkId::new(t))?,
        class: class(class_field, class_name)?,
    })
}

/// Reads what an agent tells of classes.
pub(crate) fn classes(wire: Vec<proto::ClassUse>) -> Result<Vec<ClassUse>, Invalid> {
    bounded("classes", wire.len(), MAX_CLASSES_PER_REPORT)?;
    wire.into_iter().map(ClassUse::try_from).collect()
}

impl TryFrom<proto::ClassUse> for ClassUse {
    type Error = Invalid;

    fn try_from(wire: proto::ClassUse) -> Result<Self, Invalid> {
        let fields = ("class_use.framework_id", "class_use.class");
        let key = key(&wire.framework_id, wire.class, fields)?;
        bounded("class_use.days", wire.days.len(), ADVICE_DAYS)?;
        let mut days = [DayPeaks::default(); ADVICE_DAYS];
        for (day, wire) in days.iter_mut().zip(wire.days) {
            *day = DayPeaks {
                cpu_milli: amount("class_use.days.cpu_milli", wire.cpu_milli)?,
                mem_bytes: amount("class_use.days.mem_bytes", wire.mem_bytes)?,
                ooms: wire.ooms,
                oom_limit_bytes: amount("class_use.days.oom_limit_bytes", wire.oom_limit_bytes)?,
                finished: wire.finished,
                life_ms: wire.life_ms,
            };
        }
        let ceiling = wire.cpu_limit_milli;
        Ok(Self {
            tasks: wire.tasks,
            running: wire.running,
            seen_ms: wire.seen_ms,
            cpu_seen_ms: wire.cpu_seen_ms,
            throttled_ms: wire.throttled_ms,
            idle_ms: wire.idle_ms,
            asked_cpu_milli: amount("class_use.asked_cpu_milli", wire.asked_cpu_milli)?,
            cpu_limit_milli: ceiling
                .map(|milli| amount("class_use.cpu_limit_milli", milli))
                .transpose()?,
            asked_mem_bytes: amount("class_use.asked_mem_bytes", wire.asked_mem_bytes)?,
            cpu: histogram("class_use.cpu", wire.cpu)?,
            mem: histogram("class_use.mem", wire.mem)?,
            days,
            ..Self::new(key, Timestamp::from_ms(0))
        })
    }
}

impl From<ClassUse> for proto::ClassUse {
    fn from(seen: ClassUse) -> Self {
        let days = seen.days.iter().map(|day| proto::class_use::Day {
            cpu_milli: day.cpu_milli,
            mem_bytes: day.mem_bytes,
            ooms: day.ooms,
            oom_limit_bytes: day.oom_limit_bytes,
            finished: day.finished,
            life_ms: day.life_ms,
        });
        Self {
            days: days.collect(),
            framework_id: seen.key.framework_id.to_string(),
            class: seen.key.class,
            tasks: seen.tasks,
            running: seen.running,
            seen_ms: seen.seen_ms,
            cpu_seen_ms: seen.cpu_seen_ms,
            throttled_ms: seen.throttled_ms,
            idle_ms: seen.idle_ms,
            asked_cpu_milli: seen.asked_cpu_milli,
            cpu_limit_milli: seen.cpu_limit_milli,
            asked_mem_bytes: seen.asked_mem_bytes,
            cpu: write_histogram(&seen.cpu),
            mem: write_histogram(&seen.mem),
        }
    }
}

fn histogram(field: &'static str, wire: Option<proto::UseHistogram>) -> Result<Histogram, Invalid> {
    let wire = wire.unwrap_or_default();
    let odd = || {
        Invalid::new(
            field,
            "is no histogram; buckets must rise and be known, each with its weight above 0",
        )
    };
    if wire.buckets.len() != wire.weights_ms.len() {
        return Err(odd());
    }
    let buckets = wire.buckets.into_iter().zip(wire.weights_ms);
    let buckets = buckets.map(|(bucket, ms)| Some((u16::try_from(bucket).ok()?, ms)));
    let buckets: Option<Vec<_>> = buckets.collect();
    buckets.and_then(Histogram::from_buckets).ok_or_else(odd)
}

fn write_histogram(histogram: &Histogram) -> Option<proto::UseHistogram> {
    let buckets = histogram.buckets().iter();
    let (buckets, weights_ms) = buckets
        .map(|(bucket, ms)| (u32::from(*bucket), *ms))
        .unzip();
    (!histogram.is_empty()).then_some(proto::UseHistogram {
        buckets,
        weights_ms,
    })
}

impl TryFrom<proto::AdviseRequest> for AdviceFilter {
    type Error = Invalid;

    fn try_from(wire: proto::AdviseRequest) -> Result<Self, Invalid> {
        let framework_id = wire
            .framework_id
            .map(|text| id("framework_id", &text, |t| FrameworkId::new(t)));
        Ok(Self {
            framework_id: framework_id.transpose()?,
            class: wire.class.map(|name| class("class", name)).transpose()?,
        })
    }
}

impl From<AdviceFilter> for proto::AdviseRequest {
    fn from(filter: AdviceFilter) -> Self {
        Self {
            framework_id: filter.framework_id.map(|id| id.to_string()),
            class: filter.class,
        }
    }
}

impl TryFrom<proto::Advice> for Advice {
    type Error = Invalid;

    fn try_from(wire: proto::Advice) -> Result<Self, Invalid> {
        bounded("advice.classes", wire.classes.len(), MAX_ADVISED_CLASSES)?;
        let classes = wire.classes.into_iter().map(ClassAdvice::try_from);
        Ok(Self {
            at: Timestamp::from_ms(wire.at_ms),
            classes: classes.collect::<Result<_, _>>()?,
            left_out: wire.left_out,
        })
    }
}

impl From<Advice> for proto::Advice {
    fn from(advice: Advice) -> Self {
        Self {
            at_ms: advice.at.as_ms(),
            classes: advice.classes.into_iter().map(Into::into).collect(),
            left_out: advice.left_out,
        }
    }
}

impl TryFrom<proto::ClassAdvice> for ClassAdvice {
    type Error = Invalid;

    fn try_from(wire: proto::ClassAdvice) -> Result<Self, Invalid> {
        let fields = ("class_advice.framework_id", "class_advice.class");
        Ok(Self {
            key: key(&wire.framework_id, wire.class, fields)?,
            tasks: wire.tasks,
            running: wire.running,
            seen_ms: wire.seen_ms,
            cpu: required("class_advice.cpu", wire.cpu)?.try_into()?,
            mem: required("class_advice.mem", wire.mem)?.try_into()?,
            throttled_permille: wire.throttled_permille,
            ooms: wire.ooms,
            oom_limit_bytes: wire.oom_limit_bytes,
            finished: wire.finished,
            life_ms: wire.life_ms,
        })
    }
}

impl From<ClassAdvice> for proto::ClassAdvice {
    fn from(advice: ClassAdvice) -> Self {
        Self {
            framework_id: advice.key.framework_id.to_string(),
            class: advice.key.class,
            tasks: advice.tasks,
            running: advice.running,
            seen_ms: advice.seen_ms,
            cpu: Some(advice.cpu.into()),
            mem: Some(advice.mem.into()),
            throttled_permille: advice.throttled_permille,
            ooms: advice.ooms,
            oom_limit_bytes: advice.oom_limit_bytes,
            finished: advice.finished,
            life_ms: advice.life_ms,
        }
    }
}

impl TryFrom<proto::KindAdvice> for KindAdvice {
    type Error = Invalid;

    fn try_from(wire: proto::KindAdvice) -> Result<Self, Invalid> {
        let fit = FITS.into_iter().find(|(_, fit)| *fit as i32 == wire.fit);
        let Some((fit, _)) = fit else {
            return Err(Invalid::new(
                "kind_advice.fit",
                format!("is {}, which is not known", wire.fit),
            ));
        };
        Ok(Self {
            asked: wire.asked,
            p50: wire.p50,
            p95: wire.p95,
            peak: wire.peak,
            advice: wire.advice,
            fit,
        })
    }
}

impl From<KindAdvice> for proto::KindAdvice {
    fn from(kind: KindAdvice) -> Self {
        let fit = FITS.into_iter().find(|(fit, _)| *fit == kind.fit);
        Self {
            asked: kind.asked,
            p50: kind.p50,
            p95: kind.p95,
            peak: kind.peak,
            advice: kind.advice,
            fit: fit.map_or(0, |(_, wire)| wire as i32),
        }
    }
}
