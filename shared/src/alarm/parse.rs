//! Walks an event, field by field.

use chrono::{DateTime, Datelike, Utc};
use serde_json::Value;

use super::error::{SHAPES, described, keys, printable, shown};
use super::{
    AlarmError, AlarmEvent, AlarmKind, Approval, Metric, Path, PreviousState, State, Suppression,
};

/// The service whose events are accepted.
const SOURCE: &str = "aws.cloudwatch";
/// The detail type that reports an alarm's change of state.
const STATE_CHANGE: &str = "CloudWatch Alarm State Change";
/// The detail type that reports an edit of an alarm.
const CONFIGURATION_CHANGE: &str = "CloudWatch Alarm Configuration Change";
/// The detail type that reports one time series of a Metrics Insights alarm.
const CONTRIBUTOR_STATE_CHANGE: &str = "CloudWatch Alarm Contributor State Change";

const ALARM_ARN: &str = "arn:<partition>:cloudwatch:<region>:<12-digit account>:alarm:<name>";
const ALARM_NAME: &str = "a string of 1 to 255 characters without control characters";
const EXECUTION_ARN: &str =
    "arn:<partition>:states:<region>:<account>:execution:<state machine>:<execution>";
const STATE: &str = "\"OK\", \"ALARM\" or \"INSUFFICIENT_DATA\"";
const TIME: &str = "a time of the years 2009 to 2199 such as 2026-03-02T09:26:53.589+0000";
/// From the year of `CloudWatch`'s launch; outside, arithmetic on times would have to mind its own range.
const YEARS: std::ops::RangeInclusive<i32> = 2009..=2199;

/// Reads an event from its bytes.
pub fn parse_slice(bytes: &[u8]) -> Result<AlarmEvent, AlarmError> {
    // The parser's limit of 128 levels keeps a deeply nested document from exhausting the stack.
    let event = serde_json::from_slice(bytes).map_err(|source| AlarmError::NotJson {
        line: source.line(),
        column: source.column(),
        source,
    })?;
    parse(&event)
}

/// Reads an event.
pub fn parse(event: &Value) -> Result<AlarmEvent, AlarmError> {
    let root = Field {
        path: "$".to_owned(),
        value: event,
    };
    if !event.is_object() {
        return Err(AlarmError::NotAnObject {
            found: shown(event),
        });
    }
    if !is_step_input(&root) {
        return plain(&root);
    }
    let alarm = root.object("alarm", SHAPES)?;
    if is_step_input(&alarm) {
        return Err(AlarmError::NestedPlaybook { path: alarm.path });
    }
    let mut event = plain(&alarm)?;
    event.dry_run |= dry_run(&root)?;
    event.approvals = approvals(&root)?;
    if root.get("playbook").is_some() {
        let playbook = root.object("playbook", "an object with \"execution\"")?;
        event.path = Path::Playbook {
            execution: playbook
                .text("execution", EXECUTION_ARN, is_execution_arn)?
                .to_owned(),
            name: text(playbook.value, "name"),
            step: match playbook.get("step") {
                None => None,
                Some(_) => Some(playbook.text("step", STEP, is_step)?.to_owned()),
            },
        };
    }
    Ok(event)
}

const STEP: &str = "1 to 80 letters, digits, '-', '_' or '.'";

fn is_step(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=80).contains(&text.len()) && text.bytes().all(allowed)
}

/// What humans have approved: read strictly, because a misread approval would be an act without one.
fn approvals(root: &Field<'_>) -> Result<Vec<Approval>, AlarmError> {
    const LIST: &str = "a list of approvals, each an object";
    let Some(field) = root.get("approvals") else {
        return Ok(Vec::new());
    };
    let Some(list) = field.value.as_array() else {
        return Err(field.malformed(LIST));
    };
    list.iter()
        .enumerate()
        .map(|(at, value)| {
            let one = Field {
                path: format!("{}[{at}]", field.path),
                value,
            };
            if !value.is_object() {
                return Err(one.malformed(LIST));
            }
            let text = |name| {
                one.text(name, "a text that is not empty", |text| !text.is_empty())
                    .map(str::to_owned)
            };
            let time = |name| {
                let field = one.required(name, TIME)?;
                timestamp(field.value).ok_or_else(|| field.malformed(TIME))
            };
            Ok(Approval {
                target: text("target")?,
                plan_hash: one.text("plan_hash", PLAN_HASH, is_plan_hash)?.to_owned(),
                transition: text("transition")?,
                by: text("by")?,
                at: time("at")?,
                expires_at: time("expires_at")?,
            })
        })
        .collect()
}

const PLAN_HASH: &str = "the hash of a plan, 32 hexadecimal digits";

fn is_plan_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_step_input(root: &Field<'_>) -> bool {
    root.get("alarm").is_some() || root.get("playbook").is_some()
}

/// Reads an event that no playbook step has wrapped.
fn plain(root: &Field<'_>) -> Result<AlarmEvent, AlarmError> {
    const BODY: &str = "an object with \"alarmName\" and \"state\"";
    let is_action = root.get("alarmData").is_some();
    if !is_action && root.get("detail").is_none() && root.get("detail-type").is_none() {
        return Err(AlarmError::UnknownShape {
            keys: keys(root.value),
        });
    }
    let source = root.text("source", "\"aws.cloudwatch\"", |_| true)?;
    if source != SOURCE {
        return Err(AlarmError::ForeignSource {
            path: root.path_of("source"),
            source_name: printable(source),
        });
    }
    if is_action {
        let body = root.object("alarmData", BODY)?;
        return changed(root, &body, Path::AlarmAction);
    }
    match root.text("detail-type", "\"CloudWatch Alarm State Change\"", |_| true)? {
        STATE_CHANGE => changed(root, &root.object("detail", BODY)?, Path::EventBridge),
        CONFIGURATION_CHANGE => Err(AlarmError::ConfigurationChange {
            alarm: described(root.value.pointer("/detail/alarmName")),
            operation: described(root.value.pointer("/detail/operation")),
        }),
        CONTRIBUTOR_STATE_CHANGE => Err(contributor(
            root.value.get("detail"),
            root.value.pointer("/detail/alarmContributor"),
        )),
        other => Err(AlarmError::ForeignDetailType {
            path: root.path_of("detail-type"),
            detail_type: printable(other),
        }),
    }
}

fn contributor(body: Option<&Value>, contributor: Option<&Value>) -> AlarmError {
    AlarmError::ContributorStateChange {
        alarm: described(body.and_then(|body| body.get("alarmName"))),
        contributor: described(contributor.and_then(|contributor| contributor.get("id"))),
    }
}

/// Reads the change itself, which both shapes hold in the same form.
fn changed(root: &Field<'_>, body: &Field<'_>, path: Path) -> Result<AlarmEvent, AlarmError> {
    // A Metrics Insights alarm's Lambda action reports single contributors in the shape of the whole alarm.
    if let Some(found) = body.get("alarmContributor") {
        return Err(contributor(Some(body.value), Some(found.value)));
    }
    let alarm = identity(root, body, &path)?;
    let state = body.object("state", "an object with \"value\" and \"timestamp\"")?;
    let value = state.required("value", STATE)?;
    let time = state.required("timestamp", TIME)?;
    let configuration = body.value.get("configuration").unwrap_or(&Value::Null);
    Ok(AlarmEvent {
        alarm_name: alarm.name,
        alarm_arn: alarm.arn,
        account: alarm.account,
        region: alarm.region,
        state: value
            .value
            .as_str()
            .and_then(State::from_name)
            .ok_or_else(|| value.malformed(STATE))?,
        reason: text(state.value, "reason"),
        reason_data: reason_data(state.value),
        changed_at: timestamp(time.value).ok_or_else(|| time.malformed(TIME))?,
        previous_state: previous_state(body.value),
        suppressed_by: muted(body.value).or_else(|| suppressed(state.value)),
        kind: kind(configuration),
        path,
        event_id: text(root.value, "id"),
        description: text(configuration, "description"),
        dry_run: dry_run(root)?,
        approvals: Vec::new(),
    })
}

struct Identity {
    arn: String,
    account: String,
    region: String,
    name: String,
}

/// Which alarm the event is about: its ARN, or what its ARN is made of.
fn identity(root: &Field<'_>, body: &Field<'_>, by: &Path) -> Result<Identity, AlarmError> {
    let name = match body.get("alarmName") {
        None => None,
        Some(_) => Some(body.text("alarmName", ALARM_NAME, is_alarm_name)?),
    };
    if let Some(field) = alarm_arn(root)? {
        let arn = field.value.as_str().unwrap_or_default();
        let Some((region, account, arn_name)) = split_alarm_arn(arn) else {
            return Err(field.malformed(ALARM_ARN));
        };
        return match name {
            Some(name) if name != arn_name => Err(AlarmError::NameMismatch {
                name_path: body.path_of("alarmName"),
                name: printable(name),
                arn_path: field.path,
                arn_name: printable(arn_name),
            }),
            _ => Ok(Identity {
                arn: arn.to_owned(),
                account: account.to_owned(),
                region: region.to_owned(),
                name: arn_name.to_owned(),
            }),
        };
    }
    let account_key = if root.get("accountId").is_some() {
        "accountId"
    } else {
        "account"
    };
    let (Some(name), Some(_), Some(_)) = (name, root.get(account_key), root.get("region")) else {
        let field = match by {
            Path::AlarmAction => "alarmArn",
            _ => "resources[0]",
        };
        return Err(AlarmError::MissingField {
            path: root.path_of(field),
            form: ALARM_ARN,
        });
    };
    let account = root.text(account_key, "a string of 12 digits", is_account)?;
    let region = root.text(
        "region",
        "the code of a region, such as us-east-1",
        is_region,
    )?;
    Ok(Identity {
        arn: format!(
            "arn:{}:cloudwatch:{region}:{account}:alarm:{name}",
            partition_of(region)
        ),
        account: account.to_owned(),
        region: region.to_owned(),
        name: name.to_owned(),
    })
}

/// The field that holds the alarm's ARN: `alarmArn` in a Lambda action, the first resource in an
/// `EventBridge` event.
fn alarm_arn<'a>(root: &Field<'a>) -> Result<Option<Field<'a>>, AlarmError> {
    if let Some(arn) = root.get("alarmArn") {
        return Ok(Some(arn));
    }
    let Some(resources) = root.get("resources") else {
        return Ok(None);
    };
    let Some(list) = resources.value.as_array() else {
        return Err(resources.malformed("a list whose first element is the alarm's ARN"));
    };
    Ok(list.first().map(|value| Field {
        path: format!("{}[0]", resources.path),
        value,
    }))
}

/// The region, account and name in an alarm's ARN.
fn split_alarm_arn(arn: &str) -> Option<(&str, &str, &str)> {
    let mut parts = arn.splitn(7, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (scheme, partition, service) = (next(), next(), next());
    let (region, account, kind, name) = (next(), next(), next(), next());
    let is_alarm = scheme == "arn"
        && is_partition(partition)
        && service == "cloudwatch"
        && is_region(region)
        && is_account(account)
        && kind == "alarm"
        && is_alarm_name(name);
    is_alarm.then_some((region, account, name))
}

fn is_partition(text: &str) -> bool {
    text.starts_with("aws") && is_region(text)
}

fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What `PutMetricAlarm` accepts as a name.
fn is_alarm_name(text: &str) -> bool {
    // 255 characters take at most four bytes each, so that a huge text is not counted through.
    !text.is_empty()
        && text.len() <= 4 * 255
        && text.chars().count() <= 255
        && !text.bytes().any(|byte| byte.is_ascii_control())
}

fn is_execution_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(7, ':').collect();
    text.len() <= 1024
        && !text.bytes().any(|byte| byte.is_ascii_control())
        && matches!(
            parts.as_slice(),
            ["arn", partition, "states", region, account, "execution" | "express", rest]
                if is_partition(partition) && is_region(region) && is_account(account) && !rest.is_empty()
        )
}

/// The partition that a region belongs to ("Amazon Resource Names" and the SDKs' partitions file).
fn partition_of(region: &str) -> &'static str {
    const PREFIXES: [(&str, &str); 7] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    PREFIXES
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix))
        .map_or("aws", |(_, partition)| partition)
}

/// Whether the sender asks for a dry run.
///
/// The one optional field that can fail the event: to take `"dry_run": "yes"` for "no" would change what
/// its sender meant to leave alone.
fn dry_run(root: &Field<'_>) -> Result<bool, AlarmError> {
    let Some(field) = root.get("dry_run") else {
        return Ok(false);
    };
    match field.value {
        Value::Bool(wish) => Ok(*wish),
        Value::String(wish) if wish == "true" => Ok(true),
        Value::String(wish) if wish == "false" => Ok(false),
        _ => Err(field.malformed("true or false")),
    }
}

fn reason_data(state: &Value) -> Option<Value> {
    match state.get("reasonData") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => {
            Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())))
        }
        Some(other) => Some(other.clone()),
    }
}

fn previous_state(body: &Value) -> Option<PreviousState> {
    let previous = body
        .get("previousState")
        .filter(|previous| previous.is_object())?;
    Some(PreviousState {
        state: previous
            .get("value")
            .and_then(Value::as_str)
            .and_then(State::from_name),
        reason: text(previous, "reason"),
        changed_at: previous.get("timestamp").and_then(timestamp),
        suppressed_by: suppressed(previous),
    })
}

/// What suppresses the actions, according to a state.
///
/// Any value that does not plainly say "nothing" counts, so that a new form of suppression is not acted against.
fn suppressed(state: &Value) -> Option<Suppression> {
    let by = match state.get("actionsSuppressedBy")? {
        Value::Null | Value::Bool(false) => return None,
        Value::String(by) if by.trim().is_empty() || by.trim().eq_ignore_ascii_case("none") => {
            return None;
        }
        Value::String(by) => by.clone(),
        other => shown(other),
    };
    Some(Suppression::Suppressor {
        by,
        reason: text(state, "actionsSuppressedReason"),
    })
}

fn muted(body: &Value) -> Option<Suppression> {
    let rule = body.get("muteDetail").filter(|rule| rule.is_object())?;
    Some(Suppression::MuteRule {
        arn: text(rule, "mutedByArn"),
        until: rule.get("muteWindowEnd").and_then(timestamp),
    })
}

fn kind(configuration: &Value) -> AlarmKind {
    if let Some(rule) = text(configuration, "alarmRule") {
        return AlarmKind::Composite {
            rule,
            suppressor: text(configuration, "actionsSuppressor"),
        };
    }
    let queries = configuration
        .get("metrics")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let metrics: Vec<Metric> = queries.iter().filter_map(metric).collect();
    let expressions: Vec<String> = queries
        .iter()
        .filter_map(|query| text(query, "expression"))
        .collect();
    if let Some(band) = expressions
        .iter()
        .find(|text| text.contains("ANOMALY_DETECTION_BAND"))
    {
        return AlarmKind::AnomalyDetection {
            band: band.clone(),
            metrics,
        };
    }
    if let Some(query) = expressions.iter().find(|text| is_query(text)) {
        return AlarmKind::MetricsInsights {
            query: query.clone(),
        };
    }
    match (expressions.is_empty(), metrics.is_empty()) {
        (false, _) => AlarmKind::MetricMath {
            expressions,
            metrics,
        },
        (true, false) => AlarmKind::Metric { metrics },
        (true, true) => AlarmKind::Unknown,
    }
}

/// Whether an expression is a Metrics Insights query.
fn is_query(expression: &str) -> bool {
    let mut words = expression.split_whitespace();
    words
        .next()
        .is_some_and(|word| word.eq_ignore_ascii_case("select"))
        && words.next().is_some()
}

fn metric(query: &Value) -> Option<Metric> {
    let stat = query.get("metricStat").filter(|stat| stat.is_object())?;
    let metric = stat.get("metric").unwrap_or(&Value::Null);
    let dimensions = metric.get("dimensions").and_then(Value::as_object);
    Some(Metric {
        id: text(query, "id"),
        namespace: text(metric, "namespace"),
        name: text(metric, "name"),
        dimensions: dimensions
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        stat: text(stat, "stat"),
        period_seconds: stat.get("period").and_then(Value::as_u64),
    })
}

/// An optional text; absent when it is something else.
fn text(object: &Value, key: &str) -> Option<String> {
    object.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// A time in RFC 3339, whose offset `CloudWatch` writes without the colon.
fn timestamp(value: &Value) -> Option<DateTime<Utc>> {
    let text = value.as_str().filter(|text| text.is_ascii())?;
    let bare_offset = text
        .len()
        .checked_sub(5)
        .filter(|at| matches!(text.as_bytes()[*at], b'+' | b'-'))
        .filter(|at| text.bytes().skip(at + 1).all(|byte| byte.is_ascii_digit()));
    let parsed = match bare_offset {
        Some(at) => {
            DateTime::parse_from_rfc3339(&format!("{}:{}", &text[..at + 3], &text[at + 3..]))
        }
        None => DateTime::parse_from_rfc3339(text),
    };
    let time = parsed.ok()?.with_timezone(&Utc);
    YEARS.contains(&time.year()).then_some(time)
}

/// A value and where it stands in the event.
struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    fn path_of(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// The member of that name; `null` counts as absent.
    fn get(&self, key: &str) -> Option<Field<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Field {
            path: self.path_of(key),
            value,
        })
    }

    fn required(&self, key: &str, form: &'static str) -> Result<Field<'a>, AlarmError> {
        self.get(key).ok_or_else(|| AlarmError::MissingField {
            path: self.path_of(key),
            form,
        })
    }

    fn object(&self, key: &str, form: &'static str) -> Result<Field<'a>, AlarmError> {
        let field = self.required(key, form)?;
        if field.value.is_object() {
            Ok(field)
        } else {
            Err(field.malformed(form))
        }
    }

    fn text(
        &self,
        key: &str,
        form: &'static str,
        well_formed: impl Fn(&str) -> bool,
    ) -> Result<&'a str, AlarmError> {
        let field = self.required(key, form)?;
        field
            .value
            .as_str()
            .filter(|text| well_formed(text))
            .ok_or_else(|| field.malformed(form))
    }

    fn malformed(&self, form: &'static str) -> AlarmError {
        AlarmError::MalformedField {
            path: self.path.clone(),
            found: shown(self.value),
            form,
        }
    }
}
