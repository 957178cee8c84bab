//! Leaves of a failing world what it takes to fail: fewer happenings, fewer troubles.

use crate::driver::{Ended, Play, play};
use crate::error::Error;
use crate::invariants::Invariant;
use crate::script::Script;

/// Worlds that are tried for one failure at most.
const TRIES: usize = 400;

/// A shortened play of a failing seed that violates the same invariant.
pub fn shrink(seed: u64, invariant: Invariant) -> Result<Play, Error> {
    let mut best = Play::of(seed);
    let mut tries = 0;
    let fails = |candidate: &Play| -> Result<Option<Ended>, Error> {
        let ended = play(candidate)?;
        let same = ended
            .violation
            .as_ref()
            .is_some_and(|violation| violation.invariant == invariant);
        Ok(same.then_some(ended))
    };
    let happenings = Script::of(seed).happenings.len();
    // Halves first, then one by one.
    for size in [happenings / 2, happenings / 4, happenings / 8, 1] {
        let size = size.max(1);
        for from in (0..happenings).step_by(size) {
            let mut candidate = best.clone();
            candidate
                .without
                .extend(from..(from + size).min(happenings));
            if candidate.without == best.without || tries >= TRIES {
                continue;
            }
            tries += 1;
            if fails(&candidate)?.is_some() {
                best = candidate;
            }
        }
    }
    let Some(ended) = fails(&best)? else {
        return Ok(best);
    };
    let mut all = best.clone();
    all.spared.extend(ended.troubles.iter().cloned());
    if fails(&all)?.is_some() {
        return Ok(all);
    }
    for trouble in ended.troubles {
        if tries >= 2 * TRIES {
            break;
        }
        tries += 1;
        let mut candidate = best.clone();
        candidate.spared.insert(trouble);
        if fails(&candidate)?.is_some() {
            best = candidate;
        }
    }
    Ok(best)
}
