//! Replays a dead-letter queue.
