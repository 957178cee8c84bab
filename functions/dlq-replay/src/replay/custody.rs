//! Custody: in whose hand each message of the dead-letter queue is, as far as this round knows.

use std::collections::{BTreeMap, HashSet};

use crate::message::InHand;

/// In whose hand each message is.
#[derive(Debug, Default)]
pub(super) struct Custody {
    /// Whether the dead-letter queue keeps the order within groups.
    fifo: bool,
    /// Delivered and removed, or to be removed when seen again.
    settled: HashSet<String>,
    /// Being worked on by a batch, from its receipt until it is held or its removal is answered.
    in_hand: HashSet<String>,
    /// Kept hidden until the round ends, so that they are not received again and again.
    held: BTreeMap<String, String>,
    stopped_groups: HashSet<String>,
}

impl Custody {
    pub(super) fn new(fifo: bool) -> Self {
        Self {
            fifo,
            ..Self::default()
        }
    }

    /// Whether the dead-letter queue keeps the order within groups.
    pub(super) fn is_fifo(&self) -> bool {
        self.fifo
    }

    /// Whether this round delivered the message.
    pub(super) fn has_settled(&self, id: &str) -> bool {
        self.settled.contains(id)
    }

    /// Whether this round has the message already. What it holds, it now holds by the latest receipt.
    pub(super) fn recognises(&mut self, message: &InHand) -> bool {
        if let Some(receipt) = self.held.get_mut(&message.id) {
            receipt.clone_from(&message.receipt);
            return true;
        }
        self.in_hand.contains(&message.id)
    }

    pub(super) fn take_up(&mut self, id: &str) {
        self.in_hand.insert(id.to_owned());
    }

    /// The message was delivered. It stays in hand until its removal is answered.
    pub(super) fn settle(&mut self, id: &str) {
        self.settled.insert(id.to_owned());
    }

    /// A batch is through with the message.
    pub(super) fn put_down(&mut self, id: &str) {
        self.in_hand.remove(id);
    }

    /// How many messages are being worked on.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.len()
    }

    /// Keeps a message hidden until the round ends; a kept message stops its FIFO group.
    pub(super) fn hold(&mut self, message: InHand) {
        self.in_hand.remove(&message.id);
        if self.fifo
            && let Some(group) = message.group
        {
            self.stopped_groups.insert(group);
        }
        self.held.insert(message.id, message.receipt);
    }

    /// How many messages are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether an earlier message of its group stays.
    pub(super) fn is_behind(&self, message: &InHand) -> bool {
        message
            .group
            .as_ref()
            .is_some_and(|group| self.stopped_groups.contains(group))
    }

    /// Lets go of what is held, and gives the receipts.
    pub(super) fn let_go(&mut self) -> Vec<String> {
        std::mem::take(&mut self.held).into_values().collect()
    }
}
