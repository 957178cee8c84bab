//! The ledger's table in `DynamoDB`: the only file that knows how its items and conditions are written there.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BuildError, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, KeysAndAttributes, Put, TransactWriteItem,
};

use crate::aws_error::{AwsError, Kind};
use crate::ledger::error::LedgerError;
use crate::ledger::store::{Change, Condition, Item, Key, Store, Transacted, Write};

/// The attributes that are no mark and no column.
const KEYS: [&str; 5] = ["pk", "sk", "body", "expires_at", "engaged"];
/// `BatchGetItem` answers at most this many items.
const BATCH_GET: usize = 100;
/// Helpings of a partial answer that are asked for.
const HELPINGS: usize = 4;
/// Pages of a partition that are read, of up to 1 MB each; more would be no index but a leak.
const PAGES: usize = 200;

type Attributes = HashMap<String, AttributeValue>;

/// The table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    client: Client,
    name: String,
}

impl Table {
    /// The table of that name.
    #[must_use]
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    fn unbuildable(&self, operation: &'static str, error: &BuildError) -> AwsError {
        AwsError {
            operation,
            subject: self.name.clone(),
            kind: Kind::Rejected,
            code: None,
            message: error.to_string(),
        }
    }

    async fn batch(&self, keys: &[Key]) -> Result<BTreeMap<Key, Item>, LedgerError> {
        const CALL: &str = "dynamodb:BatchGetItem";
        let mut wanted: Vec<Attributes> = keys.iter().map(attributes).collect();
        let mut found = BTreeMap::new();
        // `UnprocessedKeys` is the table's way to answer in part.
        for _ in 0..HELPINGS {
            let request = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .consistent_read(true)
                .build()
                .map_err(|error| LedgerError::Call(self.unbuildable(CALL, &error)))?;
            let answer = self
                .client
                .batch_get_item()
                .request_items(&self.name, request)
                .send()
                .await
                .map_err(|error| LedgerError::Call(AwsError::new(CALL, &self.name, &error)))?;
            let items = answer.responses.unwrap_or_default().into_values();
            found.extend(items.flatten().filter_map(read));
            wanted = answer
                .unprocessed_keys
                .unwrap_or_default()
                .into_values()
                .flat_map(|left| left.keys)
                .collect();
            if wanted.is_empty() {
                return Ok(found);
            }
        }
        Err(LedgerError::Incomplete {
            table: self.name.clone(),
            missing: wanted.len(),
        })
    }

    fn member(&self, write: &Write) -> Result<TransactWriteItem, AwsError> {
        let condition = Expression::of(&write.condition);
        let member = TransactWriteItem::builder();
        Ok(match &write.change {
            Change::Put(item) => {
                let put = Put::builder()
                    .table_name(&self.name)
                    .set_item(Some(with_key(item, &write.key)));
                let put = match condition {
                    None => put,
                    Some(Expression(text, names, values)) => put
                        .condition_expression(text)
                        .set_expression_attribute_names(names)
                        .set_expression_attribute_values(values),
                };
                let put = put.build();
                member.put(put.map_err(|error| self.unbuildable("dynamodb:PutItem", &error))?)
            }
            Change::Delete => {
                let delete = Delete::builder()
                    .table_name(&self.name)
                    .set_key(Some(attributes(&write.key)));
                let delete = match condition {
                    None => delete,
                    Some(Expression(text, names, values)) => delete
                        .condition_expression(text)
                        .set_expression_attribute_names(names)
                        .set_expression_attribute_values(values),
                };
                let delete = delete.build();
                member.delete(
                    delete.map_err(|error| self.unbuildable("dynamodb:DeleteItem", &error))?,
                )
            }
            Change::Check => {
                let Expression(text, names, values) = condition.unwrap_or_default();
                let check = ConditionCheck::builder()
                    .table_name(&self.name)
                    .set_key(Some(attributes(&write.key)))
                    .condition_expression(text)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .build();
                member.condition_check(
                    check
                        .map_err(|error| self.unbuildable("dynamodb:ConditionCheckItem", &error))?,
                )
            }
        }
        .build())
    }
}

#[async_trait]
impl Store for Table {
    async fn get(&self, keys: &[Key]) -> Result<BTreeMap<Key, Item>, LedgerError> {
        let mut found = BTreeMap::new();
        for keys in keys.chunks(BATCH_GET) {
            found.extend(self.batch(keys).await?);
        }
        Ok(found)
    }

    async fn query(&self, pk: &str) -> Result<Vec<(Key, Item)>, LedgerError> {
        let mut found = Vec::new();
        let mut after = None;
        for _ in 0..PAGES {
            let answer = self
                .client
                .query()
                .table_name(&self.name)
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
                .consistent_read(true)
                .set_exclusive_start_key(after)
                .send()
                .await
                .map_err(|error| {
                    LedgerError::Call(AwsError::new("dynamodb:Query", &self.name, &error))
                })?;
            found.extend(
                answer
                    .items
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(read),
            );
            after = answer.last_evaluated_key;
            if after.is_none() {
                return Ok(found);
            }
        }
        Err(LedgerError::Incomplete {
            table: self.name.clone(),
            missing: 1,
        })
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Transacted, AwsError> {
        let members = writes
            .iter()
            .map(|write| self.member(write))
            .collect::<Result<Vec<_>, _>>()?;
        let answer = self
            .client
            .transact_write_items()
            .client_request_token(token)
            .set_transact_items(Some(members))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(Transacted::Written),
            Err(error) => cancellation(&error).ok_or_else(|| {
                let read = AwsError::new("dynamodb:PutItem", &self.name, &error);
                match invalid(&error) {
                    // It will not fit at another try either.
                    Some(message) => AwsError {
                        kind: Kind::Rejected,
                        message,
                        ..read
                    },
                    None => read,
                }
            }),
        }
    }
}

/// A condition as `DynamoDB` reads it: the text, its names and its values.
#[derive(Default)]
struct Expression(
    String,
    Option<HashMap<String, String>>,
    Option<HashMap<String, AttributeValue>>,
);

impl Expression {
    fn of(condition: &Condition) -> Option<Self> {
        let clause = |at: usize, name: &str, compare: &str, value: u64| {
            (
                format!("#n{at} {compare} :v{at}"),
                (format!("#n{at}"), name.to_owned()),
                (format!(":v{at}"), number(value)),
            )
        };
        let clauses = match condition {
            Condition::Always => return None,
            Condition::Absent => {
                return Some(Self("attribute_not_exists(pk)".to_owned(), None, None));
            }
            Condition::Are(marks) => marks
                .iter()
                .enumerate()
                .map(|(at, (name, is))| clause(at, name, "=", *is))
                .collect(),
            Condition::IsAndBelow((name, is), (other, below)) => {
                vec![clause(0, name, "=", *is), clause(1, other, "<", *below)]
            }
            Condition::AbsentOrAtMost(name, most) => vec![clause(0, name, "<=", *most)],
        };
        let text: Vec<&str> = clauses.iter().map(|(text, ..)| text.as_str()).collect();
        let mut text = text.join(" AND ");
        if matches!(condition, Condition::AbsentOrAtMost(..)) {
            text = format!("attribute_not_exists(pk) OR {text}");
        }
        let names = clauses.iter().map(|(_, name, _)| name.clone()).collect();
        let values = clauses.into_iter().map(|(.., value)| value).collect();
        Some(Self(text, Some(names), Some(values)))
    }
}

fn cancellation<R>(error: &SdkError<TransactWriteItemsError, R>) -> Option<Transacted> {
    match error.as_service_error()? {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => {
            let codes = || {
                cancelled
                    .cancellation_reasons()
                    .iter()
                    .filter_map(|reason| reason.code())
            };
            // Only what was said of every member counts: a throttled member beside them is tried again.
            if codes().any(|code| code == "ConditionalCheckFailed") {
                Some(Transacted::Refused)
            } else if codes().any(|code| {
                matches!(
                    code,
                    "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded"
                )
            }) {
                Some(Transacted::Conflicted)
            } else {
                None
            }
        }
        TransactWriteItemsError::TransactionInProgressException(_) => Some(Transacted::Conflicted),
        _ => None,
    }
}

/// What is wrong with a member that no try will mend, such as an item above 400 KB.
fn invalid<R>(error: &SdkError<TransactWriteItemsError, R>) -> Option<String> {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) =
        error.as_service_error()?
    else {
        return None;
    };
    let mut reasons = cancelled.cancellation_reasons().iter();
    let reason = reasons.find(|reason| {
        matches!(
            reason.code(),
            Some("ValidationError" | "ItemCollectionSizeLimitExceeded")
        )
    })?;
    Some(reason.message().unwrap_or("an item is invalid").to_owned())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn attributes(key: &Key) -> Attributes {
    HashMap::from([
        ("pk".to_owned(), AttributeValue::S(key.pk.clone())),
        ("sk".to_owned(), AttributeValue::S(key.sk.clone())),
    ])
}

fn with_key(item: &Item, key: &Key) -> Attributes {
    let mut all = attributes(key);
    let mut add = |name: &str, value| all.insert(name.to_owned(), value);
    if let Some(body) = &item.body {
        add("body", AttributeValue::S(body.clone()));
    }
    if let Some(at) = item.expires_at {
        add("expires_at", AttributeValue::N(at.to_string()));
    }
    if let Some(engaged) = item.engaged {
        add("engaged", AttributeValue::Bool(engaged));
    }
    for (name, mark) in &item.marks {
        add(name, number(*mark));
    }
    for (name, text) in &item.columns {
        add(name, AttributeValue::S(text.clone()));
    }
    all
}

fn read(attributes: Attributes) -> Option<(Key, Item)> {
    let text = |name: &str| {
        let value = attributes.get(name)?.as_s().ok()?;
        Some(value.clone())
    };
    let key = Key::new(text("pk")?, text("sk")?);
    let mut item = Item {
        body: text("body"),
        engaged: attributes
            .get("engaged")
            .and_then(|value| value.as_bool().ok())
            .copied(),
        expires_at: attributes
            .get("expires_at")
            .and_then(|value| value.as_n().ok()?.parse().ok()),
        ..Item::default()
    };
    for (name, value) in attributes {
        if KEYS.contains(&name.as_str()) {
            continue;
        }
        match value {
            AttributeValue::N(number) => {
                if let Ok(number) = number.parse() {
                    item.marks.insert(name, number);
                }
            }
            AttributeValue::S(text) => {
                item.columns.insert(name, text);
            }
            _ => {}
        }
    }
    Some((key, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(condition: &Condition) -> String {
        Expression::of(condition).map_or_else(String::new, |expression| expression.0)
    }

    #[test]
    fn each_condition_reads_as_the_table_wants_it() {
        assert_eq!(text(&Condition::Always), "");
        assert_eq!(text(&Condition::Absent), "attribute_not_exists(pk)");
        let are = Condition::Are(vec![("token", 3), ("seq", 4)]);
        assert_eq!(text(&are), "#n0 = :v0 AND #n1 = :v1");
        let below = Condition::IsAndBelow(("token", 3), ("seq", 9));
        assert_eq!(text(&below), "#n0 = :v0 AND #n1 < :v1");
        let most = Condition::AbsentOrAtMost("token", 3);
        assert_eq!(text(&most), "attribute_not_exists(pk) OR #n0 <= :v0");
    }

    #[test]
    fn an_item_comes_back_as_it_was_written() {
        let key = Key::new("target#arn", "lease");
        let item = Item {
            body: Some("{}".into()),
            marks: [("token".into(), 7)].into(),
            columns: [("status".into(), "in_progress".into())].into(),
            engaged: None,
            expires_at: Some(1_800_000_000),
        };
        assert_eq!(read(with_key(&item, &key)), Some((key, item)));
    }
}
