//! One failure type for the tests' own plumbing, so that every error ends a test with all its causes in words.

use std::fmt;

use aws_smithy_types::error::display::DisplayErrorContext;
use futures_util::stream::{self, StreamExt as _};

/// A text that tells what went wrong.
pub struct Failure(String);

/// What the plumbing answers.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure in the caller's words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// The same failure with what was being done put before it.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// The test runner prints a failed test's error by `Debug`.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(DisplayErrorContext(&error).to_string())
    }
}

/// Fails in the words of `otherwise` unless `holds`: an assertion that keeps what was being done.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result {
    if holds {
        Ok(())
    } else {
        Err(Failure(otherwise()))
    }
}

/// All results, or all failures together.
pub fn all<T>(results: impl IntoIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(Failure(words)) => bad.push(words),
        }
    }
    if bad.is_empty() {
        Ok(good)
    } else {
        Err(Failure(format!(
            "{} failed:\n{}",
            bad.len(),
            bad.join("\n")
        )))
    }
}

/// Tries every case, a few at a time, and gives all failures together.
pub async fn each<T>(
    cases: impl IntoIterator<Item = T>,
    at_once: usize,
    test: impl AsyncFn(T) -> Result,
) -> Result {
    let test = &test;
    let results: Vec<_> = stream::iter(cases)
        .map(async |case| test(case).await)
        .buffer_unordered(at_once)
        .collect()
        .await;
    all(results).map(drop)
}

/// Puts what was being done before an error.
pub trait During<T> {
    /// Names what was being done.
    fn during(self, what: &str) -> Result<T>;
}

impl<T, E: Into<Failure>> During<T> for std::result::Result<T, E> {
    fn during(self, what: &str) -> Result<T> {
        self.map_err(|error| error.into().during(what))
    }
}

impl<T> During<T> for Option<T> {
    fn during(self, what: &str) -> Result<T> {
        self.ok_or_else(|| Failure::new(format!("{what}: nothing there")))
    }
}
