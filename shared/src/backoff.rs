//! Pauses between attempts: exponential, with full jitter that follows from the run so that runs spread out.

use std::time::Duration;

/// The first pause at its longest.
const BASE: Duration = Duration::from_millis(50);
/// The longest pause.
const CAP: Duration = Duration::from_secs(5);

/// The pause before attempt `attempt + 1`, somewhere in the upper half of its exponential bound.
///
/// `seed` decides where: two runs that fail at the same moment do not come back at the same moment.
#[must_use]
pub fn pause(attempt: u32, seed: &str) -> Duration {
    let bound = BASE.saturating_mul(1 << attempt.min(16)).min(CAP);
    let hash = crate::ids::digest(&[seed, &attempt.to_string()], 4);
    let share = u32::from_str_radix(&hash, 16).unwrap_or(u32::MAX);
    bound / 2 + (bound / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_differ_between_runs() {
        let pauses: Vec<_> = (0..12).map(|attempt| pause(attempt, "run-a")).collect();
        assert!(pauses[0] >= BASE / 2 && pauses[0] <= BASE);
        assert!(pauses[11] >= CAP / 2 && pauses[11] <= CAP);
        assert_ne!(pause(3, "run-a"), pause(3, "run-b"));
    }
}
