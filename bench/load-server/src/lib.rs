//! An in-memory stand-in for the AWS calls of the remediations, fast enough to measure clients by; bench equipment only.

mod answer;
mod arrivals;
mod canned;
mod destination;
mod guard;
mod messages;
mod queue;
mod scenario;
mod sqs;

use std::sync::{Arc, PoisonError, RwLock};

use aws_smithy_types::DateTime;
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::canned::Canned;
use crate::guard::Form;
use crate::scenario::{Scenario, Setup};

pub use crate::answer::Answer;
pub use crate::canned::Asked;

const CLOUDWATCH_PATH: &str = "/service/GraniteServiceVersion20100801/operation/";
const LAMBDA_PATH: &str = "/2015-03-31/functions/";
const CONTROL_PATH: &str = "/_bench/";

/// The server, whatever brings it requests.
#[derive(Debug)]
pub struct Server {
    current: RwLock<Arc<Scenario>>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            current: RwLock::new(Arc::new(Scenario::new(Setup::default()))),
        }
    }
}

impl Server {
    /// Answers a request; `target` is its header `X-Amz-Target`.
    pub async fn answer(&self, asked: Asked<'_>, target: Option<&str>) -> Answer {
        let start = Instant::now();
        let Asked { path, body, .. } = asked;
        let scenario = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(control) = path.strip_prefix(CONTROL_PATH) {
            return self.answer_control(&scenario, asked.method, control, body);
        }
        let cbor = path.starts_with(CLOUDWATCH_PATH);
        let canned = scenario.canned(asked);
        let (service, operation) = canned.map_or_else(|| identify(path, target), Canned::name);
        let answered = match canned {
            Some(canned) => {
                let alarmed_at = DateTime::from_millis(scenario.setup.alarm.state_updated_at_ms);
                Ok(canned.answer(cbor, &scenario.incident(), alarmed_at))
            }
            None => spoken(&scenario, service, operation, cbor, body).await,
        };
        let refused = answered.is_err();
        let answer = answered.unwrap_or_else(Refusal::into_answer);
        if !scenario.latency().is_zero() {
            tokio::time::sleep(scenario.latency()).await;
        }
        scenario.note_call(service, operation, refused, start);
        answer
    }

    fn answer_control(
        &self,
        scenario: &Scenario,
        method: &str,
        control: &str,
        body: &[u8],
    ) -> Answer {
        let serialized = match (method, control) {
            ("POST", "seed") => match serde_json::from_slice::<Setup>(body) {
                Ok(setup) => {
                    let seeded = Arc::new(Scenario::new(setup));
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = seeded;
                    Ok("{}".to_owned())
                }
                Err(error) => return Refusal::malformed(&error).into_answer(),
            },
            ("GET", "account") => serde_json::to_string(&scenario.report()),
            ("GET", "log") => serde_json::to_string(&scenario.log()),
            _ => return Refusal::unknown().into_answer(),
        };
        match serialized {
            Ok(json) => Answer::control(json),
            Err(error) => Refusal::malformed(&error).into_answer(),
        }
    }
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
