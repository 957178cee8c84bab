"""The dead-letter queue replay as it is commonly written for Lambda in Python: what the bench compares with.

It makes the same AWS calls as the Rust function, in the same order: the policy, the guard's reads,
the claim, the replay in batches of ten, the account, the event. Clients are built once per process.
"""

import hashlib
import json
import os
from datetime import datetime, timezone

import boto3

LEDGER_TABLE = os.environ["FORGEGUARD_LEDGER_TABLE"]
POLICY_PARAMETER = os.environ["FORGEGUARD_POLICY_PARAMETER"]
EVENT_BUS = os.environ.get("FORGEGUARD_EVENT_BUS", "default")
REMEDIATION = "dlq-replay"

ssm = boto3.client("ssm")
dynamodb = boto3.client("dynamodb")
cloudwatch = boto3.client("cloudwatch")
sqs = boto3.client("sqs")
events = boto3.client("events")

_policy = None


def policy():
    """The policy document, read once per process."""
    global _policy
    if _policy is None:
        answer = ssm.get_parameter(Name=POLICY_PARAMETER, WithDecryption=True)
        _policy = json.loads(answer["Parameter"]["Value"])
    return _policy


def key(pk, sk):
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def put(pk, sk, body, expires_at, condition="attribute_not_exists(pk)"):
    item = key(pk, sk) | {"body": {"S": json.dumps(body)}, "expires_at": {"N": str(expires_at)}}
    return {"Put": {"TableName": LEDGER_TABLE, "Item": item, "ConditionExpression": condition}}


def read_guard(source, transition, alarm_arn):
    target = f"target#{source}"
    keys = [
        key("switch", "global"),
        key("switch", f"remediation#{REMEDIATION}"),
        key("switch", target),
        key(transition, "record"),
        key(target, "lease"),
        key(target, f"history#{REMEDIATION}"),
        key(target, f"snapshot#{REMEDIATION}"),
        key(f"alarm#{alarm_arn}", "state"),
    ]
    answer = dynamodb.batch_get_item(
        RequestItems={LEDGER_TABLE: {"Keys": keys, "ConsistentRead": True}}
    )
    if answer["UnprocessedKeys"]:
        raise RuntimeError("the guard's items were not all read")
    return answer["Responses"][LEDGER_TABLE]


def replay(source_url, destination_url):
    """Moves every message; returns how many were received and how many were moved."""
    received = moved = 0
    while True:
        answer = sqs.receive_message(
            QueueUrl=source_url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return received, moved
        received += len(messages)
        sent = sqs.send_message_batch(
            QueueUrl=destination_url,
            Entries=[
                {
                    "Id": str(index),
                    "MessageBody": message["Body"],
                    "MessageAttributes": message.get("MessageAttributes", {}),
                }
                for index, message in enumerate(messages)
            ],
        )
        successful = [messages[int(entry["Id"])] for entry in sent.get("Successful", [])]
        if successful:
            sqs.delete_message_batch(
                QueueUrl=source_url,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
                    for index, message in enumerate(successful)
                ],
            )
        moved += len(successful)


def queue_url(arn):
    _, _, _, region, account, name = arn.split(":", 5)
    return f"https://sqs.{region}.amazonaws.com/{account}/{name}"


def handler(event, context):
    now = datetime.now(timezone.utc)
    expires_at = int(now.timestamp()) + 14 * 24 * 3600
    alarm_arn = event["resources"][0]
    detail = event["detail"]
    target = next(t for t in policy()["targets"] if alarm_arn in t["alarms"])
    action = target["action"]
    source = action["source"]
    digest = hashlib.sha256(f"{alarm_arn}{detail['state']['timestamp']}".encode()).hexdigest()
    transition = f"transition#{REMEDIATION}#{source}#{digest}"

    items = read_guard(source, transition, alarm_arn)
    if items:
        return {"outcome": "skipped", "reason": "the ledger already knows of this transition"}
    alarms = cloudwatch.describe_alarms(
        AlarmNames=[detail["alarmName"]], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    if not any(alarm["StateValue"] == "ALARM" for alarm in alarms["MetricAlarms"]):
        return {"outcome": "skipped", "reason": "the alarm has recovered"}

    run = {"request_id": context.aws_request_id, "started_at": now.isoformat()}
    dynamodb.transact_write_items(
        TransactItems=[
            put(transition, "record", run | {"status": "in-progress"}, expires_at),
            put(f"target#{source}", "lease", run, expires_at),
            put(f"target#{source}", f"history#{REMEDIATION}", run, expires_at),
            put(f"alarm#{alarm_arn}", "state", {"open": True}, expires_at),
            put(f"incident#{digest}", "incident", {"alarm": alarm_arn}, expires_at),
            put(f"incident#{digest}", "at#claimed", run, expires_at),
        ]
    )
    received, moved = replay(queue_url(source), queue_url(action["default_destination"]))
    report = {"outcome": "applied", "received": received, "replayed": moved}
    dynamodb.transact_write_items(
        TransactItems=[
            put(transition, "record", run | report, expires_at, "attribute_exists(pk)"),
            put(f"target#{source}", "lease", {"free": True}, expires_at, "attribute_exists(pk)"),
            put(f"incident#{digest}", "at#applied", report, expires_at),
        ]
    )
    events.put_events(
        Entries=[
            {
                "EventBusName": EVENT_BUS,
                "Source": "forgeguard",
                "DetailType": "Forgeguard Outcome",
                "Resources": [alarm_arn],
                "Detail": json.dumps(report),
            }
        ]
    )
    return report
