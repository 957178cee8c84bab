//! An in-memory stand-in for the AWS calls of the remediations, fast enough to measure clients by; bench equipment only.

mod answer;
mod arrivals;
mod canned;
mod guard;
mod messages;
mod queue;
mod scenario;
mod sqs;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::answer::{Answer, Refusal};
use crate::canned::{Asked, Canned};
use crate::guard::Form;
use crate::scenario::{Scenario, Setup};

const CLOUDWATCH_PATH: &str = "/service/GraniteServiceVersion20100801/operation/";
const LAMBDA_PATH: &str = "/2015-03-31/functions/";

/// Serves the AWS calls of the remediations from memory, on the loopback interface only.
#[derive(Debug, Parser)]
struct Args {
    /// Port to listen on; 0 takes a free one, which is printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Why the server cannot serve.
#[derive(Debug, Error)]
enum ServeError {
    #[error("listening on 127.0.0.1:{port}")]
    Listen {
        port: u16,
        #[source]
        source: std::io::Error,
    },
    #[error("reading the address that was bound")]
    Address(#[source] std::io::Error),
}

type Current = Arc<RwLock<Arc<Scenario>>>;

#[tokio::main]
async fn main() -> Result<(), ServeError> {
    let args = Args::parse();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)))
        .await
        .map_err(|source| ServeError::Listen {
            port: args.port,
            source,
        })?;
    println!("{}", listener.local_addr().map_err(ServeError::Address)?);
    let current: Current = Arc::new(RwLock::new(Arc::new(Scenario::new(Setup::default()))));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&current)));
            }
            // The client gave up before it was accepted; others still come.
            Err(error) => eprintln!("accepting a connection: {error}"),
        }
    }
}

async fn serve(stream: TcpStream, current: Current) {
    if let Err(error) = stream.set_nodelay(true) {
        eprintln!("setting TCP_NODELAY: {error}");
    }
    let service = service_fn(move |request| {
        let current = Arc::clone(&current);
        async move { Ok::<_, Infallible>(respond(&current, request).await) }
    });
    if let Err(error) = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        // A client that is killed while it waits for an answer is part of the bench.
        && !error.is_incomplete_message()
    {
        eprintln!("serving a connection: {error}");
    }
}

async fn respond(current: &Current, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let start = Instant::now();
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            eprintln!("reading a request's body: {error}");
            return to_response(Refusal::unknown().into_answer());
        }
    };
    let scenario = Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner));
    let path = head.uri.path();
    if let Some(control) = path.strip_prefix("/_bench/") {
        return to_response(answer_control(
            current,
            &scenario,
            &head.method,
            control,
            &body,
        ));
    }
    let target = head
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let cbor = path.starts_with(CLOUDWATCH_PATH);
    let canned = scenario.canned(Asked {
        method: head.method.as_str(),
        path,
        query: head.uri.query().unwrap_or_default(),
        body: &body,
    });
    let (service, operation) = canned.map_or_else(|| identify(path, target), Canned::name);
    let answered = match canned {
        Some(canned) => Ok(canned.answer(cbor, &scenario.incident())),
        None => spoken(&scenario, service, operation, cbor, &body).await,
    };
    let refused = answered.is_err();
    let answer = answered.unwrap_or_else(Refusal::into_answer);
    if !scenario.latency().is_zero() {
        tokio::time::sleep(scenario.latency()).await;
    }
    scenario.note_call(service, operation, refused, start);
    to_response(answer)
}

/// Answers a call that this server speaks itself.
async fn spoken(
    scenario: &Scenario,
    service: &str,
    operation: &str,
    cbor: bool,
    body: &[u8],
) -> Result<Answer, Refusal> {
    match service {
        "sqs" => sqs::answer(scenario, operation, body).await,
        "dynamodb" => guard::dynamodb(scenario, operation, body),
        "ssm" => guard::ssm(scenario, operation, body),
        "events" => guard::events(operation, body),
        "monitoring" => {
            let form = if cbor { Form::Cbor } else { Form::Json };
            guard::cloudwatch(scenario, operation, form)
        }
        "lambda" => Ok(guard::lambda()),
        _ => Err(Refusal::unknown()),
    }
}

/// The service's endpoint prefix and the operation, from where each protocol names them.
fn identify<'a>(path: &'a str, target: Option<&'a str>) -> (&'static str, &'a str) {
    if let Some(operation) = path.strip_prefix(CLOUDWATCH_PATH) {
        return ("monitoring", operation);
    }
    if path.starts_with(LAMBDA_PATH) && path.ends_with("/invocations") {
        return ("lambda", "Invoke");
    }
    match target.and_then(|target| target.split_once('.')) {
        Some(("AmazonSQS", operation)) => ("sqs", operation),
        Some(("DynamoDB_20120810", operation)) => ("dynamodb", operation),
        Some(("AmazonSSM", operation)) => ("ssm", operation),
        Some(("AWSEvents", operation)) => ("events", operation),
        Some(("GraniteServiceVersion20100801", operation)) => ("monitoring", operation),
        _ => ("unknown", path),
    }
}

fn answer_control(
    current: &Current,
    scenario: &Scenario,
    method: &Method,
    control: &str,
    body: &[u8],
) -> Answer {
    let serialized = match (method, control) {
        (&Method::POST, "seed") => match serde_json::from_slice::<Setup>(body) {
            Ok(setup) => {
                let seeded = Arc::new(Scenario::new(setup));
                *current.write().unwrap_or_else(PoisonError::into_inner) = seeded;
                Ok("{}".to_owned())
            }
            Err(error) => return Refusal::malformed(&error).into_answer(),
        },
        (&Method::GET, "account") => serde_json::to_string(&scenario.report()),
        (&Method::GET, "log") => serde_json::to_string(&scenario.log()),
        _ => return Refusal::unknown().into_answer(),
    };
    match serialized {
        Ok(json) => Answer::control(json),
        Err(error) => Refusal::malformed(&error).into_answer(),
    }
}

fn to_response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    if answer.content_type == "application/cbor" {
        headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_names_its_operation() {
        for (path, target, expected) in [
            (
                "/",
                Some("AmazonSQS.SendMessageBatch"),
                ("sqs", "SendMessageBatch"),
            ),
            (
                "/",
                Some("DynamoDB_20120810.GetItem"),
                ("dynamodb", "GetItem"),
            ),
            ("/", Some("AmazonSSM.GetParameter"), ("ssm", "GetParameter")),
            ("/", Some("AWSEvents.PutEvents"), ("events", "PutEvents")),
            (
                "/service/GraniteServiceVersion20100801/operation/DescribeAlarms",
                None,
                ("monitoring", "DescribeAlarms"),
            ),
            (
                "/",
                Some("GraniteServiceVersion20100801.DescribeAlarms"),
                ("monitoring", "DescribeAlarms"),
            ),
            (
                "/2015-03-31/functions/other/invocations",
                None,
                ("lambda", "Invoke"),
            ),
            ("/elsewhere", None, ("unknown", "/elsewhere")),
        ] {
            assert_eq!(identify(path, target), expected, "{path} {target:?}");
        }
    }
}
