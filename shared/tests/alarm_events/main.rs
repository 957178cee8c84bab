//! Every event in `events/` is read as its name says, and what is wrong with a wrong one is said in one line.

#[cfg(test)]
mod files;
#[cfg(test)]
mod playbooks;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod refusing;
#[cfg(test)]
mod shapes;
