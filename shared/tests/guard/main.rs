//! The guard's decisions: a table of every rule, and properties that hold for any history.

#[cfg(test)]
mod approvals;
#[cfg(test)]
mod attempts;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod case;
#[cfg(test)]
mod duty;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod schedule;
#[cfg(test)]
mod turns;
