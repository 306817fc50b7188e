//! The driver's clock: anchored once to the wall, then monotonic.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ebb_types::Timestamp;

/// A clock that never runs backwards.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Instant,
    anchor_ms: u64,
}

impl Clock {
    /// A clock that agrees with the wall now.
    pub fn new() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            anchor: Instant::now(),
            anchor_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let elapsed_ms = u64::try_from(self.anchor.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_ms(self.anchor_ms.saturating_add(elapsed_ms))
    }

    /// When a point in time is reached, for timers.
    pub fn instant(&self, at: Timestamp) -> Instant {
        let ms = at.ms_since(Timestamp::from_ms(self.anchor_ms));
        // What lies beyond the range of the system's clock lies beyond the life of the process.
        self.anchor
            .checked_add(Duration::from_millis(ms))
            .unwrap_or_else(|| self.anchor + Duration::from_secs(365 * 24 * 3600))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
