//! What every remediation stands on.
