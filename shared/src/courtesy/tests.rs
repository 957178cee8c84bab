//! Limits are kept, and what is not limited waits for nothing.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::*;

const SOON: Duration = Duration::from_millis(2);
const NEVER: Duration = Duration::from_hours(1);

/// A service that counts what reaches it.
#[derive(Debug, Default)]
struct Service {
    takes: Duration,
    reached: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Wire(Arc<Service>);

impl HttpConnector for Wire {
    fn call(&self, _request: HttpRequest) -> HttpConnectorFuture {
        let service = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            service.reached.fetch_add(1, SeqCst);
            let now = service.now.fetch_add(1, SeqCst) + 1;
            service.most.fetch_max(now, SeqCst);
            if !service.takes.is_zero() {
                sleep(service.takes).await;
            }
            service.now.fetch_sub(1, SeqCst);
            let ok = StatusCode::try_from(200_u16).unwrap();
            Ok(HttpResponse::new(ok, SdkBody::empty()))
        })
    }
}

fn before(service: &Arc<Service>, limits: &'static [Limit]) -> CourteousConnector {
    patiently(service, limits, PATIENCE)
}

fn patiently(
    service: &Arc<Service>,
    limits: &'static [Limit],
    patience: Duration,
) -> CourteousConnector {
    CourteousConnector {
        inner: SharedHttpConnector::new(Wire(Arc::clone(service))),
        gates: Arc::new(Gates::new(limits, patience)),
    }
}

fn request(service: &str, region: &str, path: &str) -> HttpRequest {
    let mut request = HttpRequest::empty();
    request
        .set_uri(format!("http://127.0.0.1:4566{path}"))
        .unwrap();
    let scope = format!(
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/{region}/{service}/aws4_request, \
         SignedHeaders=host, Signature=00"
    );
    request.headers_mut().insert("authorization", scope);
    request
}

fn lambda() -> HttpRequest {
    request("lambda", "eu-west-1", "/2015-03-31/functions/f/aliases/a")
}

#[test]
fn a_signature_names_service_and_region() {
    let cases = [
        (
            "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/lambda/aws4_request, SignedHeaders=host",
            Some(("lambda", "eu-west-1")),
        ),
        (
            "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/sqs/aws4_request,SignedHeaders=host",
            Some(("sqs", "eu-west-1")),
        ),
        (
            "AWS4-ECDSA-P256-SHA256 Credential=AKID/20260101/cloudfront-keyvaluestore/aws4_request, X",
            Some(("cloudfront-keyvaluestore", "")),
        ),
        ("Bearer AKID/20260101/eu-west-1/lambda/aws4_request", None),
        ("AWS4-HMAC-SHA256 Credential=AKID/20260101", None),
        (
            "AWS4-HMAC-SHA256 Credential=AKID/1/2/3/4/aws4_request",
            None,
        ),
        ("", None),
    ];
    for (authorization, expected) in cases {
        assert_eq!(signed_for(authorization), expected, "{authorization}");
    }
}

#[test]
fn calls_fall_under_the_quota_that_aws_counts_them_by() {
    let gates = Gates::new(LIMITS, PATIENCE);
    let limit = |service: &str, path: &str| {
        let gate = gates.before(&request(service, "eu-west-1", path));
        gate.map(|gate| match &*gate {
            Gate::Rate(line) => {
                let bucket = line.try_lock().unwrap();
                (bucket.interval.as_millis(), 0)
            }
            Gate::AtOnce(places) => (0, places.available_permits()),
        })
    };
    let cbor = |operation: &str| {
        let of = "/service/GraniteServiceVersion20100801/operation/";
        limit("monitoring", &format!("{of}{operation}"))
    };
    assert_eq!(cbor("DescribeAlarms"), Some((500, 0)));
    assert_eq!(cbor("GetMetricData"), Some((40, 0)));
    assert_eq!(cbor("PutMetricData"), None);
    let lambda = |path: &str| limit("lambda", path);
    assert_eq!(lambda("/2015-03-31/functions/f/invocations"), None);
    assert_eq!(
        lambda("/2015-03-31/functions/f/invocations?Qualifier=a"),
        None
    );
    assert_eq!(lambda("/2015-03-31/functions/f/aliases/a"), Some((142, 0)));
    assert_eq!(
        lambda("/2015-03-31/functions/f/policy?Qualifier=a"),
        Some((142, 0))
    );
    assert_eq!(limit("apigateway", "/restapis/a/stages/s"), Some((250, 0)));
    let resources = limit("apigateway", "/restapis/a/resources?embed=methods");
    assert_eq!(resources, Some((800, 0)));
    assert_eq!(limit("sqs", "/"), Some((0, 256)));
    assert_eq!(limit("sts", "/"), None);
    // One Region's calls are not another's.
    let made = || gates.made.lock().unwrap().len();
    let before = made();
    gates.before(&request("sqs", "us-east-1", "/"));
    gates.before(&request("sqs", "us-east-1", "/"));
    assert_eq!(made(), before + 1);
}

/// When a call comes, and how long it waits.
type Call = (u64, u64);

#[test]
fn a_bucket_gives_its_burst_and_then_one_an_interval() {
    let ms = Duration::from_millis;
    let began = Instant::now();
    let cases: [(&str, u32, &[Call]); 5] = [
        (
            "the burst at once",
            3,
            &[(0, 0), (0, 0), (0, 0), (0, 100), (100, 100)],
        ),
        ("no burst", 1, &[(0, 0), (0, 100), (100, 100)]),
        ("at the rate", 1, &[(0, 0), (100, 0), (200, 0), (300, 0)]),
        (
            "filled again, no higher",
            2,
            &[(0, 0), (0, 0), (900, 0), (900, 0), (900, 100)],
        ),
        ("filled by half", 2, &[(0, 0), (0, 0), (150, 0), (150, 50)]),
    ];
    for (case, burst, calls) in cases {
        let mut bucket = Bucket::new(ms(100), burst, began);
        for (at, waits) in calls {
            let now = began + ms(*at);
            assert_eq!(bucket.wait(now), ms(*waits), "{case}, at {at}");
            bucket.take(now + ms(*waits));
        }
    }
}

#[test]
fn a_thousand_calls_stay_below_the_rate_in_every_second() {
    for limit in LIMITS {
        let Bound::Rate { interval, burst } = limit.bound else {
            continue;
        };
        let began = Instant::now();
        let mut bucket = Bucket::new(interval, burst, began);
        let mut now = began;
        let mut sent = Vec::new();
        for _ in 0..1_000 {
            now += bucket.wait(now);
            bucket.take(now);
            sent.push(now);
        }
        let in_a_second = 1.0 / interval.as_secs_f64();
        for (at, first) in sent.iter().enumerate() {
            let second = sent[at..].iter();
            let calls = second.take_while(|sent| **sent - *first < Duration::from_secs(1));
            let calls = u32::try_from(calls.count()).unwrap();
            assert!(f64::from(calls) <= f64::from(burst) + in_a_second.ceil());
            // After the burst, the rate alone.
            if at >= usize::try_from(burst).unwrap() {
                assert!(f64::from(calls) <= in_a_second.ceil(), "{}", limit.service);
            }
        }
    }
}

#[tokio::test]
async fn many_calls_at_once_are_spread_out() {
    const LIMITED: &[Limit] = &[limit(
        "lambda",
        "",
        Bound::Rate {
            interval: SOON,
            burst: 10,
        },
    )];
    let service = Arc::new(Service::default());
    let connector = before(&service, LIMITED);
    let began = Instant::now();
    let answers = join_all((0..100).map(|_| connector.call(lambda()))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(began.elapsed() >= SOON * 90);
    assert_eq!(service.reached.load(SeqCst), 100);
}

#[tokio::test]
async fn so_many_are_on_their_way_and_no_more() {
    const LIMITED: &[Limit] = &[limit("sqs", "", Bound::AtOnce(3))];
    let service = Arc::new(Service {
        takes: SOON,
        ..Service::default()
    });
    let connector = before(&service, LIMITED);
    let call = || connector.call(request("sqs", "eu-west-1", "/"));
    let answers = join_all((0..50).map(|_| call())).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(service.most.load(SeqCst), 3);
    // Who goes away on the way gives the place back.
    for _ in 0..10 {
        assert!(call().now_or_never().is_none());
    }
    assert!(call().await.is_ok());
}

#[tokio::test]
async fn a_run_on_one_target_and_calls_without_a_limit_wait_for_nothing() {
    let service = Arc::new(Service::default());
    let connector = before(&service, LIMITS);
    let at_once = |request| connector.call(request).now_or_never().is_some();
    for _ in 0..8 {
        assert!(at_once(lambda()));
    }
    for _ in 0..4 {
        assert!(at_once(request("apigateway", "eu-west-1", "/restapis/a")));
    }
    for _ in 0..1_000 {
        let path = "/2015-03-31/functions/f/invocations";
        assert!(at_once(request("lambda", "eu-west-1", path)));
        assert!(at_once(request("sqs", "eu-west-1", "/")));
        assert!(at_once(HttpRequest::empty()));
        // A task that finds all ready is told to wait in the end, for the others' sake.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_goes_away_has_taken_nothing() {
    let line = Line::new(Bucket::new(NEVER, 1, Instant::now()));
    assert!(pass(&line).now_or_never().is_some());
    let taken = line.lock().await.clone();
    {
        let mut first = Box::pin(pass(&line));
        let mut second = Box::pin(pass(&line));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        assert!(line.try_lock().is_err());
    }
    assert_eq!(*line.try_lock().unwrap(), taken);
}

#[tokio::test]
async fn who_waits_too_long_is_told_that_nothing_was_sent() {
    const LIMITED: &[Limit] = &[limit(
        "lambda",
        "",
        Bound::Rate {
            interval: NEVER,
            burst: 1,
        },
    )];
    let service = Arc::new(Service::default());
    let connector = patiently(&service, LIMITED, SOON);
    assert!(connector.call(lambda()).await.is_ok());
    let refused = connector.call(lambda()).await.unwrap_err();
    assert_eq!(refused.as_other(), Some(ErrorKind::ThrottlingError));
    assert_eq!(service.reached.load(SeqCst), 1);
    let elsewhere = request("lambda", "us-east-1", "/");
    assert!(connector.call(elsewhere).await.is_ok());
}
