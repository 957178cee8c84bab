//! What the ledger tells of an alarm's incident.

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use crate::cloud::Cloud;
use crate::{Error, Result};

/// The ledger's table.
pub(super) struct Ledger {
    dynamodb: aws_sdk_dynamodb::Client,
    table: String,
}

/// One line of the timeline, as the ledger holds it.
pub(super) struct Line {
    pub(super) at: String,
    pub(super) kind: String,
    pub(super) summary: String,
    pub(super) detail: Value,
}

impl Ledger {
    pub(super) fn new(cloud: &Cloud, config: &SdkConfig) -> Result<Self> {
        Ok(Self {
            dynamodb: aws_sdk_dynamodb::Client::new(config),
            table: cloud.output("LedgerTableName")?.to_owned(),
        })
    }

    /// The incident that an alarm's last transition belongs to.
    pub(super) async fn incident(&self, alarm_arn: &str) -> Result<Option<String>> {
        let answer = self
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .key("pk", AttributeValue::S(format!("alarm#{alarm_arn}")))
            .key("sk", AttributeValue::S("state".to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(Error::aws("read the alarm's state from the ledger"))?;
        let state: Option<Value> = answer
            .item()
            .and_then(|item| serde_json::from_str(text(item, "body")).ok());
        Ok(state.and_then(|state| Some(state.get("incident_id")?.as_str()?.to_owned())))
    }

    /// An incident's timeline.
    pub(super) async fn timeline(&self, incident: &str) -> Result<Vec<Line>> {
        let answer = self
            .dynamodb
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :incident AND begins_with(sk, :at)")
            .expression_attribute_values(
                ":incident",
                AttributeValue::S(format!("incident#{incident}")),
            )
            .expression_attribute_values(":at", AttributeValue::S("at#".to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(Error::aws("read the timeline from the ledger"))?;
        Ok(answer
            .items()
            .iter()
            .map(|item| Line {
                at: text(item, "at").to_owned(),
                kind: text(item, "kind").to_owned(),
                summary: text(item, "summary").to_owned(),
                detail: serde_json::from_str(text(item, "body")).unwrap_or(Value::Null),
            })
            .collect())
    }
}

fn text<'a>(item: &'a HashMap<String, AttributeValue>, name: &str) -> &'a str {
    item.get(name)
        .and_then(|value| value.as_s().ok())
        .map_or("", String::as_str)
}
