//! The dead-letter queue's bookkeeping: what is visible, what is in flight until when, what is deleted.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// What a receipt handle stands for: one receive of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Receipt {
    /// Position of the message in the corpus.
    pub(crate) message: u32,
    /// How many times the message had been received, this time included.
    pub(crate) receive_count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Visible,
    InFlight { until: Instant },
    Deleted,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    receive_count: u32,
    stage: Stage,
}

/// A standard queue, filled once.
#[derive(Debug)]
pub(crate) struct SourceQueue {
    slots: Vec<Slot>,
    /// Candidates in order; an entry whose slot is no longer visible is skipped.
    order: VecDeque<u32>,
    /// Ends of visibility timeouts; an entry that a later change replaced is skipped.
    expiries: BinaryHeap<Reverse<(Instant, u32)>>,
    visible: usize,
    in_flight: usize,
}

impl SourceQueue {
    /// A queue in which `count` messages are visible.
    pub(crate) fn filled(count: u32) -> Self {
        Self {
            slots: (0..count)
                .map(|_| Slot {
                    receive_count: 0,
                    stage: Stage::Visible,
                })
                .collect(),
            order: (0..count).collect(),
            expiries: BinaryHeap::new(),
            visible: count as usize,
            in_flight: 0,
        }
    }

    /// Takes up to `max` visible messages out of sight for `visibility`.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        max: usize,
        visibility: Duration,
    ) -> Vec<Receipt> {
        self.expire(now);
        let mut received = Vec::with_capacity(max);
        while received.len() < max {
            let Some(message) = self.order.pop_front() else {
                break;
            };
            let Some(slot) = self.slots.get_mut(message as usize) else {
                continue;
            };
            if slot.stage != Stage::Visible {
                continue;
            }
            slot.receive_count += 1;
            received.push(Receipt {
                message,
                receive_count: slot.receive_count,
            });
            self.visible -= 1;
            self.in_flight += 1;
            let until = now + visibility;
            slot.stage = Stage::InFlight { until };
            self.expiries.push(Reverse((until, message)));
        }
        received
    }

    /// Deletes the message; `false` when the receipt is not its latest or it is already gone.
    pub(crate) fn delete(&mut self, receipt: Receipt) -> bool {
        let Some(slot) = self.latest(receipt) else {
            return false;
        };
        let was = std::mem::replace(&mut slot.stage, Stage::Deleted);
        self.leave(was);
        true
    }

    /// Makes the message visible again after `timeout`; `false` when it is not in flight under this receipt.
    pub(crate) fn change_visibility(
        &mut self,
        now: Instant,
        receipt: Receipt,
        timeout: Duration,
    ) -> bool {
        self.expire(now);
        let Some(slot) = self.latest(receipt) else {
            return false;
        };
        if !matches!(slot.stage, Stage::InFlight { .. }) {
            return false;
        }
        if timeout.is_zero() {
            slot.stage = Stage::Visible;
            self.in_flight -= 1;
            self.visible += 1;
            self.order.push_back(receipt.message);
        } else {
            let until = now + timeout;
            slot.stage = Stage::InFlight { until };
            self.expiries.push(Reverse((until, receipt.message)));
        }
        true
    }

    /// When the next message comes back by itself, if any is in flight.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.peek().map(|Reverse((until, _))| *until)
    }

    /// Whether no message is left, so that none can ever become visible again.
    pub(crate) fn is_drained(&self) -> bool {
        self.visible == 0 && self.in_flight == 0
    }

    /// Number of visible messages.
    pub(crate) fn visible(&self) -> usize {
        self.visible
    }

    /// Number of messages in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn latest(&mut self, receipt: Receipt) -> Option<&mut Slot> {
        self.slots.get_mut(receipt.message as usize).filter(|slot| {
            slot.stage != Stage::Deleted && slot.receive_count == receipt.receive_count
        })
    }

    fn leave(&mut self, stage: Stage) {
        match stage {
            Stage::Visible => self.visible -= 1,
            Stage::InFlight { .. } => self.in_flight -= 1,
            Stage::Deleted => {}
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&Reverse((until, message))) = self.expiries.peek() {
            let current = self
                .slots
                .get(message as usize)
                .is_some_and(|slot| slot.stage == Stage::InFlight { until });
            if current && until > now {
                return;
            }
            self.expiries.pop();
            if current {
                if let Some(slot) = self.slots.get_mut(message as usize) {
                    slot.stage = Stage::Visible;
                }
                self.in_flight -= 1;
                self.visible += 1;
                self.order.push_back(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn each_message_is_handed_out_once_until_its_timeout_ends() {
        let now = start();
        let mut queue = SourceQueue::filled(12);
        assert_eq!(queue.receive(now, 10, TIMEOUT).len(), 10);
        assert_eq!(queue.receive(now, 10, TIMEOUT).len(), 2);
        assert!(queue.receive(now, 10, TIMEOUT).is_empty());
        assert_eq!(queue.in_flight(), 12);
        let again = queue.receive(now + TIMEOUT, 20, TIMEOUT);
        assert_eq!(again.len(), 12);
        assert!(again.iter().all(|receipt| receipt.receive_count == 2));
    }

    #[test]
    fn a_deleted_message_never_returns() {
        let now = start();
        let mut queue = SourceQueue::filled(1);
        let receipt = queue.receive(now, 1, TIMEOUT)[0];
        assert!(queue.delete(receipt));
        assert!(!queue.delete(receipt));
        assert!(queue.is_drained());
        assert!(queue.receive(now + TIMEOUT, 1, TIMEOUT).is_empty());
    }

    #[test]
    fn a_message_deleted_after_its_timeout_but_before_the_next_receive_is_gone() {
        let now = start();
        let mut queue = SourceQueue::filled(2);
        let first = queue.receive(now, 1, TIMEOUT)[0];
        let rest = queue.receive(now + TIMEOUT, 1, TIMEOUT)[0];
        assert_ne!(first.message, rest.message);
        assert!(queue.delete(first));
        assert!(queue.receive(now + TIMEOUT, 1, TIMEOUT).is_empty());
        assert!(!queue.is_drained());
    }

    #[test]
    fn an_old_receipt_is_refused() {
        let now = start();
        let mut queue = SourceQueue::filled(1);
        let old = queue.receive(now, 1, TIMEOUT)[0];
        let new = queue.receive(now + TIMEOUT, 1, TIMEOUT)[0];
        assert!(!queue.delete(old));
        assert!(queue.delete(new));
    }

    #[test]
    fn a_changed_visibility_replaces_the_first_one() {
        let now = start();
        let mut queue = SourceQueue::filled(1);
        let receipt = queue.receive(now, 1, TIMEOUT)[0];
        assert!(queue.change_visibility(now, receipt, TIMEOUT * 2));
        assert!(queue.receive(now + TIMEOUT, 1, TIMEOUT).is_empty());
        assert!(queue.change_visibility(now + TIMEOUT, receipt, Duration::ZERO));
        assert_eq!(queue.receive(now + TIMEOUT, 1, TIMEOUT).len(), 1);
    }
}
