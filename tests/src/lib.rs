//! The deployed template on the local cloud.
