//! What was seen of classes of tasks, as bytes.
//!
//! ```text
//! class:     framework id | class | 10 numbers, the ceiling last and before it whether there is one | days | CPU | memory
//! day:       6 numbers
//! histogram: buckets (u64) | of each: number (u16) | weight (u64)
//! ```

use ebb_types::limits::MAX_CLASS_BYTES;
use ebb_types::{ADVICE_DAYS, ClassKey, ClassUse, DayPeaks, FrameworkId, Histogram, Timestamp};

use super::{Rest, put, put_text};

/// More buckets than any histogram has.
const MAX_BUCKETS: u64 = 1_024;

pub(super) fn put_class(seen: &ClassUse, out: &mut Vec<u8>) {
    put_text(seen.key.framework_id.as_str(), out);
    put_text(&seen.key.class, out);
    for number in [
        seen.at.as_ms(),
        seen.tasks,
        seen.seen_ms,
        seen.cpu_seen_ms,
        seen.throttled_ms,
        seen.idle_ms,
        seen.asked_cpu_milli,
        seen.asked_mem_bytes,
        u64::from(seen.cpu_limit_milli.is_some()),
        seen.cpu_limit_milli.unwrap_or(0),
    ] {
        put(number, out);
    }
    for day in &seen.days {
        put(day.cpu_milli, out);
        put(day.mem_bytes, out);
        put(day.ooms, out);
        put(day.oom_limit_bytes, out);
        put(day.finished, out);
        put(day.life_ms, out);
    }
    for histogram in [&seen.cpu, &seen.mem] {
        put(histogram.buckets().len() as u64, out);
        for (bucket, weight) in histogram.buckets() {
            out.extend_from_slice(&bucket.to_le_bytes());
            put(*weight, out);
        }
    }
}

impl Rest<'_> {
    /// A class of which none runs.
    pub(super) fn class(&mut self) -> Result<ClassUse, &'static str> {
        let framework_id =
            FrameworkId::new(self.text()?).map_err(|_| "has an id that cannot be")?;
        let class = self.text()?.to_owned();
        if class.is_empty() || class.len() > MAX_CLASS_BYTES {
            return Err("has a class that cannot be");
        }
        let key = ClassKey {
            framework_id,
            class,
        };
        let mut seen = ClassUse::new(key, Timestamp::from_ms(self.number()?));
        seen.tasks = self.number()?;
        seen.seen_ms = self.number()?;
        seen.cpu_seen_ms = self.number()?;
        seen.throttled_ms = self.number()?;
        seen.idle_ms = self.number()?;
        seen.asked_cpu_milli = self.number()?;
        seen.asked_mem_bytes = self.number()?;
        let has_limit = self.count(1)? == 1;
        let limit_milli = self.number()?;
        seen.cpu_limit_milli = has_limit.then_some(limit_milli);
        let mut days = [DayPeaks::default(); ADVICE_DAYS];
        for day in &mut days {
            *day = DayPeaks {
                cpu_milli: self.number()?,
                mem_bytes: self.number()?,
                ooms: self.number()?,
                oom_limit_bytes: self.number()?,
                finished: self.number()?,
                life_ms: self.number()?,
            };
        }
        seen.days = days;
        seen.cpu = self.histogram()?;
        seen.mem = self.histogram()?;
        Ok(seen)
    }

    fn histogram(&mut self) -> Result<Histogram, &'static str> {
        let buckets = (0..self.count(MAX_BUCKETS)?).map(|_| {
            let (bucket, rest) = self.0.split_first_chunk().ok_or("ends too early")?;
            self.0 = rest;
            Ok((u16::from_le_bytes(*bucket), self.number()?))
        });
        let buckets = buckets.collect::<Result<_, &'static str>>()?;
        Histogram::from_buckets(buckets).ok_or("has a histogram that cannot be")
    }
}
