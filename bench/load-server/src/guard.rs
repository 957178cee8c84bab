//! What the guard of every remediation asks, answered as if nothing had ever happened before.

use aws_smithy_cbor::Encoder;
use aws_smithy_types::DateTime;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, Refusal};
use crate::scenario::Scenario;

/// Answers a call to `DynamoDB`: reads find nothing, writes succeed.
pub(crate) fn dynamodb(
    scenario: &Scenario,
    operation: &str,
    body: &[u8],
) -> Result<Answer, Refusal> {
    scenario.note_incident(body);
    let answer = match operation {
        "BatchGetItem" => {
            let tables: Map<String, Value> = requested_tables(body)?
                .into_iter()
                .map(|table| (table, json!([])))
                .collect();
            json!({ "Responses": tables, "UnprocessedKeys": {} })
        }
        "BatchWriteItem" => json!({ "UnprocessedItems": {} }),
        "Query" => json!({ "Items": [], "Count": 0, "ScannedCount": 0 }),
        "GetItem" | "PutItem" | "UpdateItem" | "DeleteItem" | "TransactWriteItems" => json!({}),
        _ => return Err(Refusal::unknown()),
    };
    Ok(Answer::json_1_0(answer.to_string()))
}

fn requested_tables(body: &[u8]) -> Result<Vec<String>, Refusal> {
    let request: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::malformed(&error))?;
    Ok(request["RequestItems"]
        .as_object()
        .map(|tables| tables.keys().cloned().collect())
        .unwrap_or_default())
}

/// Answers a call to SSM: every parameter holds the scenario's policy.
pub(crate) fn ssm(scenario: &Scenario, operation: &str, body: &[u8]) -> Result<Answer, Refusal> {
    if operation != "GetParameter" {
        return Err(Refusal::unknown());
    }
    let request: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::malformed(&error))?;
    Ok(Answer::json_1_1(
        json!({ "Parameter": {
            "Name": request["Name"],
            "Type": "String",
            "Value": scenario.setup.policy,
            "Version": 1,
            "DataType": "text",
        } })
        .to_string(),
    ))
}

/// Answers a call to `EventBridge`: every entry is accepted.
pub(crate) fn events(operation: &str, body: &[u8]) -> Result<Answer, Refusal> {
    if operation != "PutEvents" {
        return Err(Refusal::unknown());
    }
    let request: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::malformed(&error))?;
    let entries = request["Entries"].as_array().map_or(0, Vec::len);
    let accepted = vec![json!({ "EventId": "1d2e3f40-5a6b-7c8d-9e0f-a1b2c3d4e5f6" }); entries];
    Ok(Answer::json_1_1(
        json!({ "FailedEntryCount": 0, "Entries": accepted }).to_string(),
    ))
}

/// A form in which `CloudWatch` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The Rust SDK's choice.
    Cbor,
    /// boto3's choice.
    Json,
}

/// Answers a call to `CloudWatch`: the alarm is in `ALARM`.
pub(crate) fn cloudwatch(
    scenario: &Scenario,
    operation: &str,
    form: Form,
) -> Result<Answer, Refusal> {
    if operation != "DescribeAlarms" {
        return Err(Refusal::unknown());
    }
    let alarm = &scenario.setup.alarm;
    let texts = [
        ("AlarmName", alarm.name.as_str()),
        ("AlarmArn", alarm.arn.as_str()),
        ("StateValue", "ALARM"),
        ("StateReason", "Threshold Crossed"),
        ("MetricName", "ApproximateNumberOfMessagesVisible"),
    ];
    let times = ["StateUpdatedTimestamp", "StateTransitionedTimestamp"];
    let updated = DateTime::from_millis(alarm.state_updated_at_ms);
    Ok(match form {
        Form::Cbor => {
            let mut cbor = Encoder::new(Vec::with_capacity(512));
            cbor.map(2).str("CompositeAlarms").array(0);
            cbor.str("MetricAlarms").array(1);
            cbor.map(texts.len() + times.len() + 1);
            for (name, text) in texts {
                cbor.str(name).str(text);
            }
            for name in times {
                cbor.str(name).timestamp(&updated);
            }
            cbor.str("ActionsEnabled").boolean(true);
            Answer::cbor(cbor.into_writer())
        }
        Form::Json => {
            let mut metric_alarm: Map<String, Value> = texts
                .map(|(name, text)| (name.to_owned(), text.into()))
                .into_iter()
                .collect();
            for name in times {
                metric_alarm.insert(name.to_owned(), updated.as_secs_f64().into());
            }
            metric_alarm.insert("ActionsEnabled".to_owned(), true.into());
            let answer = json!({ "CompositeAlarms": [], "MetricAlarms": [metric_alarm] });
            Answer::json_1_0(answer.to_string())
        }
    })
}

/// Answers an asynchronous invocation of a function: accepted.
pub(crate) fn lambda() -> Answer {
    Answer {
        status: 202,
        ..Answer::control(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Setup;

    fn json_of(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body).unwrap()
    }

    #[test]
    fn a_batch_read_finds_nothing_in_each_table() {
        let answer = dynamodb(
            &Scenario::new(Setup::default()),
            "BatchGetItem",
            br#"{"RequestItems":{"ledger":{"Keys":[]}}}"#,
        );
        assert_eq!(
            json_of(&answer.unwrap()),
            json!({ "Responses": { "ledger": [] }, "UnprocessedKeys": {} })
        );
    }

    #[test]
    fn each_event_is_accepted() {
        let answer = events("PutEvents", br#"{"Entries":[{},{}]}"#).unwrap();
        assert_eq!(json_of(&answer)["Entries"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_a_replay_never_needs_is_refused() {
        assert!(dynamodb(&Scenario::new(Setup::default()), "DeleteTable", b"{}").is_err());
        assert!(events("PutRule", b"{}").is_err());
    }
}
