//! What becomes of each call: drawn from the seed and the call's own place, so that a call that is spared changes
//! nothing about the others.

use std::collections::BTreeSet;
use std::hash::{Hash as _, Hasher};
use std::time::Duration;

/// A number that follows from what it is drawn for.
#[must_use]
pub fn draw(seed: u64, parts: &[&str], below: u64) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325 ^ seed);
    parts.hash(&mut hash);
    let mut state = hash.finish().wrapping_add(seed);
    // The finaliser of SplitMix64, which spreads neighbouring seeds over the whole range.
    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state ^ (state >> 31)) % below.max(1)
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It has its effect and is answered, late.
    Late,
    /// It fails before it has any effect.
    Failed,
    /// It has its effect, and the answer is lost.
    AnswerLost,
    /// Its answer is given up on, and it has its effect after that.
    LandsLater,
    /// Another is at work on the same thing, and nothing is done.
    Conflict,
    /// The service asks to slow down, and nothing is done.
    Throttled,
    /// The invocation dies before the call has any effect.
    DiesBefore,
    /// The invocation dies after the call had its effect.
    DiesAfter,
}

impl Fate {
    /// Its name, for a history.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Late => "late",
            Self::Failed => "failed",
            Self::AnswerLost => "answer lost",
            Self::LandsLater => "lands later",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::DiesBefore => "dies before",
            Self::DiesAfter => "dies after",
        }
    }
}

/// The fates of all calls of a world.
#[derive(Debug, Clone)]
pub struct Fates {
    seed: u64,
    /// Calls of a thousand that do not just go well.
    per_mille: u64,
    /// Calls that go well all the same.
    pub spared: BTreeSet<String>,
}

impl Fates {
    /// The fates of a seed: some worlds are rough, some mild.
    #[must_use]
    pub fn new(seed: u64, spared: BTreeSet<String>) -> Self {
        let per_mille = [0, 10, 30, 60, 120][at(draw(seed, &["roughness"], 5))];
        Self {
            seed,
            per_mille,
            spared,
        }
    }

    /// The fate of one call.
    #[must_use]
    pub fn of(&self, call: &str) -> Fate {
        if self.spared.contains(call)
            || draw(self.seed, &["trouble", call], 1_000) >= self.per_mille
        {
            return Fate::Answered;
        }
        match draw(self.seed, &["kind", call], 16) {
            0..3 => Fate::Late,
            3..5 => Fate::Failed,
            5..7 => Fate::AnswerLost,
            7 => Fate::LandsLater,
            8..10 => Fate::Conflict,
            10..12 => Fate::Throttled,
            12..14 => Fate::DiesBefore,
            _ => Fate::DiesAfter,
        }
    }

    /// How long a call takes: milliseconds as a rule, seconds where it is late. No call outlives the SDK's time
    /// limit of 25 s.
    #[must_use]
    pub fn takes(&self, call: &str, fate: Fate) -> Duration {
        let millis = match fate {
            Fate::Late | Fate::AnswerLost => 200 + draw(self.seed, &["late", call], 20_000),
            _ => 1 + draw(self.seed, &["takes", call], 40),
        };
        Duration::from_millis(millis)
    }
}

/// A small number as an index.
#[must_use]
pub fn at(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0)
}
