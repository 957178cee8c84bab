//! How many calls a second, and how many at a time, one function makes of each AWS service, whatever it has to do.
//!
//! A control plane's quotas are an account's: what a run with a thousand targets takes of them, the people who work on
//! the same incident lack. Each rate here is at most half of what AWS documents, and a burst on top of it stays within
//! the whole, so that one run on one target waits for nothing. Data planes have no such quotas; there the bound is on
//! requests at a time, as a function has 1,024 file descriptors (AWS Lambda Developer Guide, "Lambda quotas").
//!
//! The limits hold for one process: two environments of a function do not know of each other. The template's
//! `ReservedConcurrency` says how many there are at most.
//!
//! A call's service and Region are those it is signed for, so that an endpoint of one's own changes nothing.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::retry::ErrorKind;
use tokio::sync::{Mutex as Line, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// How long a call waits for its turn. The SDK's time limit for an attempt goes on meanwhile: what has not been sent by
/// half of it is refused, and said not to have been sent.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is asked of a kind of calls.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    /// Nothing.
    Free,
    /// One call an `interval` in the long run, and up to `burst` at once.
    Rate { interval: Duration, burst: u32 },
    /// So many at a time.
    AtOnce(usize),
}

/// A bound and the calls that share it.
#[derive(Debug)]
struct Limit {
    /// The service's name in a signature.
    service: &'static str,
    /// What the path of such a call ends with.
    path: &'static str,
    bound: Bound,
}

/// Calls fall under the first limit that names them.
const LIMITS: &[Limit] = &[
    // Amazon CloudWatch User Guide, "CloudWatch service quotas": 9 and 50 a second.
    limit("monitoring", "/DescribeAlarms", per_second(2, 5)),
    limit("monitoring", "/GetMetricData", per_second(25, 25)),
    // AWS Lambda Developer Guide, "Lambda quotas": 15 a second for GetPolicy, and 15 for all of the control plane else.
    limit("lambda", "invocations", Bound::Free),
    limit("lambda", "/policy", per_second(7, 8)),
    limit("lambda", "", per_second(7, 8)),
    // Amazon API Gateway Developer Guide, "Amazon API Gateway quotas": 5 in two seconds for GetResources, 10 a second
    // with a burst of 40 for all operations.
    limit(
        "apigateway",
        "/resources",
        Bound::Rate {
            interval: Duration::from_millis(800),
            burst: 2,
        },
    ),
    limit("apigateway", "", per_second(4, 16)),
    // AWS General Reference, "AWS Systems Manager endpoints and quotas": 40 a second.
    limit("ssm", "", per_second(20, 20)),
    // For these two AWS gives no number: a few runs' worth at once.
    limit("codedeploy", "", per_second(2, 8)),
    limit("cloudfront-keyvaluestore", "", per_second(5, 16)),
    limit("dynamodb", "", Bound::AtOnce(128)),
    limit("events", "", Bound::AtOnce(64)),
    limit("sqs", "", Bound::AtOnce(256)),
];

const fn limit(service: &'static str, path: &'static str, bound: Bound) -> Limit {
    Limit {
        service,
        path,
        bound,
    }
}

const fn per_second(calls: u64, burst: u32) -> Bound {
    Bound::Rate {
        interval: Duration::from_nanos(1_000_000_000 / calls),
        burst,
    }
}

/// Makes `client` keep to the limits, for all SDK clients that share it.
#[must_use]
pub(crate) fn courteous(client: SharedHttpClient) -> SharedHttpClient {
    SharedHttpClient::new(Courteous {
        inner: client,
        gates: Arc::new(Gates::new(LIMITS, PATIENCE)),
    })
}

#[derive(Debug)]
struct Courteous {
    inner: SharedHttpClient,
    gates: Arc<Gates>,
}

impl HttpClient for Courteous {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(CourteousConnector {
            inner: self.inner.http_connector(settings, components),
            gates: Arc::clone(&self.gates),
        })
    }

    // `validate_base_client_config` is not handed on: for each SDK client that is built, the inner client would make a
    // connector, certificates and all, to throw it away.

    fn validate_final_config(
        &self,
        components: &RuntimeComponents,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.inner.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

#[derive(Debug)]
struct CourteousConnector {
    inner: SharedHttpConnector,
    gates: Arc<Gates>,
}

impl HttpConnector for CourteousConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Some(gate) = self.gates.before(&request) else {
            return self.inner.call(request);
        };
        let inner = self.inner.clone();
        let patience = self.gates.patience;
        HttpConnectorFuture::new(async move {
            match &*gate {
                Gate::Rate(line) => {
                    in_time(patience, pass(line)).await?;
                    inner.call(request).await
                }
                Gate::AtOnce(places) => {
                    let _place = in_time(patience, places.acquire()).await?;
                    inner.call(request).await
                }
            }
        })
    }
}

/// The end of `patience`: the call was not sent.
#[derive(Debug)]
struct NotSent(Duration);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        write!(
            f,
            "held back for {seconds} s to stay below the service's quota, and not sent"
        )
    }
}

impl StdError for NotSent {}

async fn in_time<T>(
    patience: Duration,
    turn: impl Future<Output = T>,
) -> Result<T, ConnectorError> {
    timeout(patience, turn).await.map_err(|_| {
        ConnectorError::other(
            Box::new(NotSent(patience)),
            Some(ErrorKind::ThrottlingError),
        )
    })
}

/// Waits for a turn. The first in line keeps the bucket while it waits, the others come in the order of their arrival,
/// and who goes away has taken nothing.
async fn pass(line: &Line<Bucket>) {
    let mut bucket = line.lock().await;
    let wait = bucket.wait(Instant::now());
    // Even an empty sleep waits for the timer's next tick.
    if !wait.is_zero() {
        sleep(wait).await;
    }
    bucket.take(Instant::now());
}

/// What calls of one limit go through, in one Region.
#[derive(Debug)]
enum Gate {
    Rate(Line<Bucket>),
    AtOnce(Semaphore),
}

impl Gate {
    fn of(bound: Bound) -> Option<Self> {
        match bound {
            Bound::Free => None,
            Bound::Rate { interval, burst } => {
                let bucket = Bucket::new(interval, burst, Instant::now());
                Some(Self::Rate(Line::new(bucket)))
            }
            Bound::AtOnce(places) => Some(Self::AtOnce(Semaphore::new(places))),
        }
    }
}

/// The gates that have been gone through.
#[derive(Debug)]
struct Gates {
    limits: &'static [Limit],
    patience: Duration,
    made: Mutex<Vec<(usize, String, Arc<Gate>)>>,
}

impl Gates {
    fn new(limits: &'static [Limit], patience: Duration) -> Self {
        Self {
            limits,
            patience,
            made: Mutex::new(Vec::new()),
        }
    }

    /// The gate before a request, where there is one.
    fn before(&self, request: &HttpRequest) -> Option<Arc<Gate>> {
        let (service, region) = signed_for(request.headers().get("authorization")?)?;
        let path = request.uri().split('?').next().unwrap_or_default();
        let at = self
            .limits
            .iter()
            .position(|limit| limit.service == service && path.ends_with(limit.path))?;
        let bound = self.limits[at].bound;
        if bound == Bound::Free {
            return None;
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let known = made
            .iter()
            .find(|(limit, place, _)| *limit == at && place == region);
        if let Some((_, _, gate)) = known {
            return Some(Arc::clone(gate));
        }
        let gate = Arc::new(Gate::of(bound)?);
        made.push((at, region.to_owned(), Arc::clone(&gate)));
        Some(gate)
    }
}

/// The service and the Region of a signature's scope: `AKID/date/region/service/aws4_request`, or without the Region
/// where the signature serves several.
fn signed_for(authorization: &str) -> Option<(&str, &str)> {
    let (_, scope) = authorization.split_once("Credential=")?;
    let mut parts = scope.split([',', ' ']).next()?.split('/').skip(2);
    match (parts.next()?, parts.next()?, parts.next()) {
        (region, service, Some("aws4_request")) => Some((service, region)),
        (service, "aws4_request", None) => Some((service, "")),
        _ => None,
    }
}

/// A token bucket, told by when it will be full again.
#[derive(Debug, Clone, PartialEq)]
struct Bucket {
    interval: Duration,
    /// How long before it is full it still gives a token.
    slack: Duration,
    full: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens.
    fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self {
            interval,
            slack: interval * burst.saturating_sub(1),
            full: now,
        }
    }

    /// How long until it has a token.
    fn wait(&self, now: Instant) -> Duration {
        let lacking = self.full.saturating_duration_since(now);
        lacking.saturating_sub(self.slack)
    }

    /// Takes a token.
    fn take(&mut self, now: Instant) {
        self.full = self.full.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests;
