//! What can be done to a request, and the choice of the requests to do it to.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::call::Call;
use super::reply::Reply;
use crate::failure::{Result, ensure};

/// How long requests that are waited for may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is done to a chosen request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is answered and never reaches the emulator.
    Reply(Reply),
    /// It takes effect, and then is answered like this.
    ReplyAfterEffect(Reply),
    /// Its connection is reset before it has any effect.
    Reset,
    /// It takes effect, and its connection is reset instead of an answer.
    LoseAnswer,
    /// It takes effect only after a while.
    Delay(Duration),
    /// It takes effect at once and is answered after a while.
    DelayAnswer(Duration),
    /// Some entries of a batch have no effect and are answered as `Failed`.
    FailEntries(EntryFailure),
    /// It waits until it is let go.
    Hold(Hold),
}

type EntryChoice = Arc<dyn Fn(usize, &Value) -> bool + Send + Sync>;

/// How chosen entries of a batch fail.
#[derive(Clone)]
pub struct EntryFailure {
    /// The error code.
    pub code: String,
    /// The service's words.
    pub message: String,
    /// Whether the request is to blame.
    pub sender_fault: bool,
    chosen: EntryChoice,
}

impl fmt::Debug for EntryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryFailure")
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl EntryFailure {
    /// The service's own failure of the entries that `chosen` picks by place and content.
    pub fn service(chosen: impl Fn(usize, &Value) -> bool + Send + Sync + 'static) -> Self {
        Self {
            code: "InternalError".to_owned(),
            message: "injected failure".to_owned(),
            sender_fault: false,
            chosen: Arc::new(chosen),
        }
    }

    /// The service's request to slow down, for the entries that `chosen` picks by place and content.
    pub fn throttled(chosen: impl Fn(usize, &Value) -> bool + Send + Sync + 'static) -> Self {
        Self {
            code: "RequestThrottled".to_owned(),
            ..Self::service(chosen)
        }
    }

    /// A refusal that the sender is to blame for, of all entries it is given for.
    pub fn sender(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            sender_fault: true,
            chosen: Arc::new(|_, _| true),
        }
    }

    /// The same failure of the entries that `chosen` picks by place and content.
    #[must_use]
    pub fn only(mut self, chosen: impl Fn(usize, &Value) -> bool + Send + Sync + 'static) -> Self {
        self.chosen = Arc::new(chosen);
        self
    }

    pub(super) fn chooses(&self, index: usize, entry: &Value) -> bool {
        (self.chosen)(index, entry)
    }
}

type Condition = Arc<dyn Fn(&Call) -> bool + Send + Sync>;

/// A fault, and the requests it is for.
#[derive(Clone)]
pub struct Rule {
    pattern: String,
    condition: Option<Condition>,
    occurrences: RangeInclusive<usize>,
    seen: usize,
    fault: Fault,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} on {} {:?}",
            self.fault, self.pattern, self.occurrences
        )
    }
}

impl Rule {
    /// Lays `fault` on every request that `pattern` names, such as `sqs:SendMessageBatch` or `dynamodb:*`.
    #[must_use]
    pub fn new(pattern: &str, fault: Fault) -> Self {
        Self {
            pattern: pattern.to_owned(),
            condition: None,
            occurrences: 1..=usize::MAX,
            seen: 0,
            fault,
        }
    }

    /// Only requests that also meet `condition` are named; the others are not counted.
    #[must_use]
    pub fn when(mut self, condition: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
        self
    }

    /// Only requests about this queue, function, parameter or table are named.
    #[must_use]
    pub fn about(self, subject: &str) -> Self {
        let subject = subject.to_owned();
        self.when(move |call| call.subject == subject)
    }

    /// Only the `n`th named request, counted from one.
    #[must_use]
    pub fn nth(mut self, n: usize) -> Self {
        self.occurrences = n..=n;
        self
    }

    /// Only the first `n` named requests.
    #[must_use]
    pub fn first(mut self, n: usize) -> Self {
        self.occurrences = 1..=n;
        self
    }

    /// The `n`th named request, counted from one, and all after it.
    #[must_use]
    pub fn from(mut self, n: usize) -> Self {
        self.occurrences = n..=usize::MAX;
        self
    }

    pub(super) fn choose(&mut self, call: &Call) -> Option<Fault> {
        if !call.is(&self.pattern) || self.condition.as_ref().is_some_and(|holds| !holds(call)) {
            return None;
        }
        self.seen += 1;
        self.occurrences
            .contains(&self.seen)
            .then(|| self.fault.clone())
    }
}

/// A place where requests wait until they are let go, so that a test can bring calls together in time.
#[derive(Debug, Clone)]
pub struct Hold {
    parked: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            parked: watch::Sender::new(0),
            open: watch::Sender::new(false),
        }
    }
}

impl Hold {
    /// Waits until `count` requests have come in all; fails, and lets all go, if they do not come.
    pub async fn arrived(&self, count: usize) -> Result {
        let mut parked = self.parked.subscribe();
        let waiting = parked.wait_for(|parked| *parked >= count);
        // The sender lives in `self`, so that waiting itself cannot fail.
        let came = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        if !came {
            self.release();
        }
        ensure(came, || format!("{count} requests never came"))
    }

    /// Lets all requests go, those to come included.
    pub fn release(&self) {
        self.open.send_replace(true);
    }

    pub(super) async fn park(&self) {
        self.parked.send_modify(|parked| *parked += 1);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

/// Where in a request's life a gate stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the emulator sees it.
    BeforeEffect,
    /// After the emulator carried it out, before the client hears so.
    AfterEffect,
}

/// A gate that stops one request for good: its client hears nothing more of it.
#[derive(Debug)]
pub struct Gate {
    reached: Option<oneshot::Receiver<Call>>,
    finished: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
pub(super) struct PendingGate {
    pattern: String,
    nth: usize,
    seen: usize,
    pub(super) phase: Phase,
    reached: oneshot::Sender<Call>,
    finished: oneshot::Receiver<()>,
}

impl Gate {
    pub(super) fn new(pattern: &str, nth: usize, phase: Phase) -> (Self, PendingGate) {
        let (reached, hears_reached) = oneshot::channel();
        let (finished, hears_finished) = oneshot::channel();
        (
            Self {
                reached: Some(hears_reached),
                finished: Some(finished),
            },
            PendingGate {
                pattern: pattern.to_owned(),
                nth,
                seen: 0,
                phase,
                reached,
                finished: hears_finished,
            },
        )
    }

    /// Waits for the request, and answers with it; `None` once the gate was taken away.
    ///
    /// The request stays where it is until [`Gate::finish`].
    pub async fn reached(&mut self) -> Option<Call> {
        let reached = self.reached.as_mut()?;
        let call = reached.await.ok();
        self.reached = None;
        call
    }

    /// Resets the stopped request's connection.
    pub fn finish(mut self) {
        if let Some(finished) = self.finished.take() {
            // Nobody listens when the request never came.
            let _ = finished.send(());
        }
    }
}

impl PendingGate {
    /// Whether it stops this request.
    pub(super) fn stops(&mut self, call: &Call) -> bool {
        let named = call.is(&self.pattern);
        self.seen += usize::from(named);
        named && self.seen == self.nth
    }

    pub(super) async fn stop(self, call: &Call) {
        // A gate that the test gave up stops its request all the same.
        let _ = self.reached.send(call.clone());
        let _ = self.finished.await;
    }
}
