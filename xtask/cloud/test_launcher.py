"""The emulator, as the launcher runs it, does what AWS documents: tried over its port, with IAM enforced.

`cargo xtask test --step unit` runs this with the pinned tools. By hand:
.venv/bin/python -m unittest discover --start-directory xtask/cloud
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

Json = dict[str, Any]

ACCOUNT = "123456789012"
REGION = "us-east-1"
ELSEWHERE = "eu-west-1"
START_PATIENCE = 60.0
SOON = 10.0
# What prctl(2) calls the wish to be told of the parent's death.
PR_SET_PDEATHSIG = 1

MEGABYTE = 1024 * 1024
# DynamoDB Developer Guide, "Quotas in Amazon DynamoDB": an item has at most 400 KB.
LARGE = 390 * 1024


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def die_with_parent() -> None:
    """Leave no emulator behind, however the tests end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Emulator:
    """An emulator of the tests' own."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="forgeguard-launcher-")
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        place = Path(self.folder.name)
        (place / "tmp").mkdir()
        with (place / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("launcher.py"))],
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
                env={
                    "PATH": os.environ["PATH"],
                    "LANG": "C.UTF-8",
                    "HOME": str(place),
                    "TMPDIR": str(place / "tmp"),
                    "S3_DATA_DIR": str(place / "tmp/s3"),
                    "STATE_DIR": str(place / "tmp/state"),
                    "DOCKER_HOST": f"unix://{place}/no-docker.sock",
                    "GATEWAY_PORT": str(port),
                    "BIND_HOST": "127.0.0.1",
                    "MINISTACK_HOST": "127.0.0.1",
                    "MINISTACK_ACCOUNT_ID": ACCOUNT,
                    "MINISTACK_REGION": REGION,
                    "AUTH": "true",
                    "SFTP_ENABLED": "0",
                    "IOT_MTLS_ENABLED": "0",
                },
            )
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=5).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((Path(self.folder.name) / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def client(self, service: str, credentials: Json, region: str = REGION) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=region,
            # What AWS would refuse has to reach the emulator.
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials.get("SessionToken"),
        )


def policy(*statements: Json) -> str:
    """A policy document that allows these."""
    allowed = [{"Effect": "Allow", "Resource": "*", **statement} for statement in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": allowed})


class Case(unittest.TestCase):
    """A test with the emulator and its operator."""

    emulator: ClassVar[Emulator]
    operator: ClassVar[Json]

    @classmethod
    def setUpClass(cls) -> None:
        if not hasattr(Case, "emulator"):
            Case.emulator = Emulator()
            unittest.addModuleCleanup(Case.emulator.stop)
            root = {"AccessKeyId": ACCOUNT, "SecretAccessKey": "root"}
            iam = Case.emulator.client("iam", root)
            iam.create_user(UserName="operator")
            iam.put_user_policy(UserName="operator", PolicyName="All", PolicyDocument=policy({"Action": "*"}))
            Case.operator = iam.create_access_key(UserName="operator")["AccessKey"]

    def aws(self, service: str, region: str = REGION) -> Any:
        return self.emulator.client(service, self.operator, region)

    def as_role(self, *statements: Json) -> Json:
        """Credentials of a role that is allowed these and nothing else."""
        name = f"role-{uuid.uuid4().hex[:8]}"
        iam = self.aws("iam")
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}],
        }
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        iam.put_role_policy(RoleName=name, PolicyName="Allowed", PolicyDocument=policy(*statements))
        credentials: Json = self.aws("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="test")["Credentials"]
        return credentials

    def refusal(self, call: Any, **arguments: Any) -> Json:
        """The error with which a call is refused."""
        with self.assertRaises(ClientError) as refused:
            call(**arguments)
        answer: Json = refused.exception.response
        return answer

    def code(self, call: Any, **arguments: Any) -> str:
        code: str = self.refusal(call, **arguments)["Error"]["Code"]
        return code


def text(value: str) -> Json:
    return {"S": value}


def number(value: int) -> Json:
    return {"N": str(value)}


def key(name: str, sort: str = "s") -> Json:
    return {"pk": text(name), "sk": text(sort)}


class Ledger(Case):
    """DynamoDB: API Reference and Developer Guide, "Amazon DynamoDB Transactions: How it works"."""

    def setUp(self) -> None:
        self.table = f"ledger-{uuid.uuid4().hex[:8]}"
        self.dynamodb = self.aws("dynamodb")
        self.dynamodb.create_table(
            TableName=self.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        )

    def put(self, name: str, sort: str = "s", **attributes: Json) -> None:
        self.dynamodb.put_item(TableName=self.table, Item={**key(name, sort), **attributes})

    def item(self, name: str, sort: str = "s") -> Json | None:
        found: Json = self.dynamodb.get_item(TableName=self.table, Key=key(name, sort), ConsistentRead=True)
        return found.get("Item")

    def write(self, *members: tuple[str, Json], token: str | None = None, by: Any = None) -> Any:
        """Writes in one transaction, as the operator or as another."""
        items = [{kind: {"TableName": self.table, **member}} for kind, member in members]
        arguments: Json = {"TransactItems": items}
        if token:
            arguments["ClientRequestToken"] = token
        return (by or self.dynamodb).transact_write_items(**arguments)

    def reasons(self, *members: tuple[str, Json]) -> list[str]:
        """Why a transaction was cancelled, by member."""
        answer = self.refusal(self.write_of(*members))
        self.assertEqual(answer["Error"]["Code"], "TransactionCanceledException")
        return [reason["Code"] for reason in answer["CancellationReasons"]]

    def write_of(self, *members: tuple[str, Json], **how: Any) -> Any:
        return lambda: self.write(*members, **how)

    @staticmethod
    def absent(name: str) -> tuple[str, Json]:
        return "ConditionCheck", {"Key": key(name), "ConditionExpression": "attribute_not_exists(pk)"}

    @staticmethod
    def newer(name: str, moment: int) -> tuple[str, Json]:
        """A put of what is as new as what is there, or newer."""
        return "Put", {
            "Item": {**key(name), "moment": number(moment)},
            "ConditionExpression": "attribute_not_exists(pk) OR #m <= :m",
            "ExpressionAttributeNames": {"#m": "moment"},
            "ExpressionAttributeValues": {":m": number(moment)},
        }

    @staticmethod
    def next_step(name: str, token: str, step: int) -> tuple[str, Json]:
        """A put of a token's next step."""
        return "Put", {
            "Item": {**key(name), "token": text(token), "step": number(step)},
            "ConditionExpression": "#t = :t AND #s < :n",
            "ExpressionAttributeNames": {"#t": "token", "#s": "step"},
            "ExpressionAttributeValues": {":t": text(token), ":n": number(step)},
        }

    @staticmethod
    def removal(name: str, token: str) -> tuple[str, Json]:
        return "Delete", {
            "Key": key(name),
            "ConditionExpression": "#t = :t",
            "ExpressionAttributeNames": {"#t": "token"},
            "ExpressionAttributeValues": {":t": text(token)},
        }

    def test_all_members_take_effect_or_none(self) -> None:
        self.put("old", token=text("a"))
        self.write(self.absent("other"), self.newer("new", 9), self.removal("old", "a"))
        self.assertEqual(self.item("new"), {**key("new"), "moment": number(9)})
        self.assertIsNone(self.item("old"))
        self.assertIsNone(self.item("other"))

    def test_reasons_are_in_the_order_of_the_members_and_nothing_is_done(self) -> None:
        self.put("there", token=text("a"), step=number(2))
        codes = self.reasons(
            self.newer("new", 1),
            self.absent("there"),
            self.removal("missing", "a"),
            ("Put", {"Item": key("free")}),
        )
        self.assertEqual(codes, ["None", "ConditionalCheckFailed", "ConditionalCheckFailed", "None"])
        self.assertIsNone(self.item("new"))
        self.assertIsNone(self.item("free"))

    def test_a_failed_condition_shows_the_item_if_asked(self) -> None:
        self.put("there", token=text("a"))
        kind, member = self.absent("there")
        answer = self.refusal(
            self.write_of((kind, {**member, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}), self.newer("new", 1))
        )
        self.assertEqual(answer["CancellationReasons"][0]["Item"], {**key("there"), "token": text("a")})
        self.assertNotIn("Item", answer["CancellationReasons"][1])

    def test_compound_conditions_compare_numbers(self) -> None:
        for moment, taken in ((9, True), (10, True), (10, True), (9, False)):
            with self.subTest(moment=moment, taken=taken):
                if taken:
                    self.write(self.newer("due", moment))
                else:
                    self.assertEqual(self.reasons(self.newer("due", moment)), ["ConditionalCheckFailed"])
        self.put("run", token=text("a"), step=number(9))
        self.write(self.next_step("run", "a", 10))
        for token, step in (("a", 10), ("b", 11)):
            self.assertEqual(self.reasons(self.next_step("run", token, step)), ["ConditionalCheckFailed"])
        self.assertEqual(self.reasons(self.next_step("missing", "a", 1)), ["ConditionalCheckFailed"])

    def test_single_writes_keep_the_same_conditions(self) -> None:
        kind, put = self.newer("due", 5)
        self.dynamodb.put_item(TableName=self.table, **put)
        kind, put = self.newer("due", 4)
        self.assertEqual(
            self.code(self.dynamodb.put_item, TableName=self.table, **put), "ConditionalCheckFailedException"
        )
        kind, removal = self.removal("due", "a")
        self.assertEqual(
            self.code(self.dynamodb.delete_item, TableName=self.table, **removal), "ConditionalCheckFailedException"
        )
        self.assertIsNotNone(self.item("due"))

    def test_one_item_is_named_by_one_member(self) -> None:
        answer = self.refusal(self.write_of(self.absent("one"), self.newer("one", 1)))
        self.assertEqual(answer["Error"]["Code"], "ValidationException")
        self.assertIn("multiple operations on one item", answer["Error"]["Message"])

    def test_a_hundred_members_are_taken_and_no_more(self) -> None:
        members = [self.newer(f"n{index}", 1) for index in range(101)]
        self.write(*members[:100])
        self.assertEqual(self.code(self.write_of(*members)), "ValidationException")

    def test_a_token_does_the_same_once(self) -> None:
        token = str(uuid.uuid4())
        members = (self.absent("other"), ("Put", {"Item": {**key("new"), "n": number(1)}}))
        self.write(*members, token=token)
        # Both would show, if it were done again.
        self.put("new", n=number(2))
        self.put("other")
        self.write(*members, token=token)
        self.assertEqual(self.item("new"), {**key("new"), "n": number(2)})

    def test_a_token_is_for_one_content(self) -> None:
        token = str(uuid.uuid4())
        self.write(self.newer("new", 1), token=token)
        self.assertEqual(
            self.code(self.write_of(self.newer("new", 2), token=token)), "IdempotentParameterMismatchException"
        )
        self.assertEqual(self.item("new"), {**key("new"), "moment": number(1)})

    def test_a_cancelled_transaction_does_not_use_its_token_up(self) -> None:
        token = str(uuid.uuid4())
        self.put("other")
        members = (self.absent("other"), self.newer("new", 1))
        self.assertEqual(self.code(self.write_of(*members, token=token)), "TransactionCanceledException")
        self.dynamodb.delete_item(TableName=self.table, Key=key("other"))
        self.write(*members, token=token)
        self.assertIsNotNone(self.item("new"))

    def query(self, **more: Any) -> Json:
        found: Json = self.dynamodb.query(
            TableName=self.table,
            ConsistentRead=True,
            KeyConditionExpression="pk = :p AND begins_with(sk, :s)",
            ExpressionAttributeValues={":p": text("due"), ":s": text("at#")},
            **more,
        )
        return found

    def test_a_query_is_for_one_partition_and_a_beginning_in_order(self) -> None:
        for sort in ("at#2", "at#1", "at", "au#1", "at#10"):
            self.put("due", sort)
        self.put("else", "at#1")
        found = self.query()
        self.assertEqual([item["sk"]["S"] for item in found["Items"]], ["at#1", "at#10", "at#2"])
        self.assertNotIn("LastEvaluatedKey", found)

    def test_a_limit_ends_a_page_also_where_nothing_follows(self) -> None:
        for index in range(4):
            self.put("due", f"at#{index}")
        seen, pages, more = [], 0, {}
        while True:
            page = self.query(Limit=2, **more)
            seen += [item["sk"]["S"] for item in page["Items"]]
            pages += 1
            if "LastEvaluatedKey" not in page:
                break
            self.assertEqual(page["LastEvaluatedKey"], key("due", seen[-1]))
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        self.assertEqual(seen, [f"at#{index}" for index in range(4)])
        self.assertEqual(pages, 3)

    def test_a_start_need_not_be_an_item_that_is_still_there(self) -> None:
        for index in range(3):
            self.put("due", f"at#{index}")
        page = self.query(Limit=1)
        self.dynamodb.delete_item(TableName=self.table, Key=page["LastEvaluatedKey"])
        rest = self.query(ExclusiveStartKey=page["LastEvaluatedKey"])
        self.assertEqual([item["sk"]["S"] for item in rest["Items"]], ["at#1", "at#2"])

    def test_a_page_holds_a_megabyte(self) -> None:
        for index in range(4):
            self.put("due", f"at#{index}", body=text("x" * LARGE))
        first = self.query()
        self.assertEqual(first["Count"], 2)
        self.assertEqual(first["LastEvaluatedKey"], key("due", "at#1"))
        self.assertEqual(self.query(ExclusiveStartKey=first["LastEvaluatedKey"])["Count"], 2)

    def batch(self, names: list[str]) -> Json:
        request = {self.table: {"Keys": [key(name) for name in names], "ConsistentRead": True}}
        found: Json = self.dynamodb.batch_get_item(RequestItems=request)
        return found

    def test_a_hundred_keys_are_read_at_once_and_no_more(self) -> None:
        names = [f"n{index}" for index in range(100)]
        self.put("n0")
        self.put("n99")
        found = self.batch(names)
        self.assertEqual(sorted(item["pk"]["S"] for item in found["Responses"][self.table]), ["n0", "n99"])
        self.assertEqual(found["UnprocessedKeys"], {})
        self.assertEqual(self.code(lambda: self.batch([*names, "n100"])), "ValidationException")
        self.assertEqual(self.code(lambda: self.batch(["n0", "n0"])), "ValidationException")

    def test_what_exceeds_16_megabytes_is_left_for_another_batch(self) -> None:
        names = [f"n{index}" for index in range(45)]
        for name in names:
            self.put(name, body=text("x" * LARGE))
        found = self.batch(names)
        items = found["Responses"][self.table]
        left = found["UnprocessedKeys"][self.table]
        self.assertEqual(len(items), 16 * MEGABYTE // LARGE)
        self.assertTrue(left["ConsistentRead"])
        rest = self.dynamodb.batch_get_item(RequestItems=found["UnprocessedKeys"])
        self.assertEqual(rest["UnprocessedKeys"], {})
        items += rest["Responses"][self.table]
        self.assertEqual(sorted(item["pk"]["S"] for item in items), sorted(names))

    def test_each_member_needs_the_permission_of_its_own(self) -> None:
        """Developer Guide, "Amazon DynamoDB Transactions": IAM asks for each member's action on its table."""
        table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{self.table}"
        members = {
            "ConditionCheckItem": self.absent("other"),
            "PutItem": ("Put", {"Item": key("new")}),
            "DeleteItem": ("Delete", {"Key": key("old")}),
        }
        allowed = [f"dynamodb:{action}" for action in members]
        whole = self.emulator.client("dynamodb", self.as_role({"Action": allowed, "Resource": table}))
        self.write(*members.values(), by=whole)
        for action in members:
            less = [name for name in allowed if name != f"dynamodb:{action}"]
            for others in ([], ["dynamodb:TransactWriteItems"]):
                role = self.emulator.client("dynamodb", self.as_role({"Action": less + others, "Resource": table}))
                answer = self.refusal(self.write_of(*members.values(), by=role))
                self.assertEqual(answer["Error"]["Code"], "AccessDeniedException")
                self.assertIn(f"not authorized to perform: dynamodb:{action} ", answer["Error"]["Message"])
        elsewhere = self.as_role({"Action": "dynamodb:*", "Resource": f"{table}-other"})
        role = self.emulator.client("dynamodb", elsewhere)
        self.assertEqual(self.code(self.write_of(members["PutItem"], by=role)), "AccessDeniedException")

    def test_a_replayed_token_needs_the_permissions_too(self) -> None:
        token = str(uuid.uuid4())
        self.write(self.newer("new", 1), token=token)
        role = self.emulator.client("dynamodb", self.as_role({"Action": "dynamodb:GetItem"}))
        self.assertEqual(self.code(self.write_of(self.newer("new", 1), token=token, by=role)), "AccessDeniedException")

    def test_reads_and_single_writes_need_their_permission(self) -> None:
        query = {
            "TableName": self.table,
            "KeyConditionExpression": "pk = :p",
            "ExpressionAttributeValues": {":p": text("a")},
        }
        calls = {
            "Query": ("query", query),
            "BatchGetItem": ("batch_get_item", {"RequestItems": {self.table: {"Keys": [key("a")]}}}),
            "PutItem": ("put_item", {"TableName": self.table, "Item": key("a")}),
            "DeleteItem": ("delete_item", {"TableName": self.table, "Key": key("a")}),
        }
        table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{self.table}"
        for action, (name, arguments) in calls.items():
            with self.subTest(action):
                others = [f"dynamodb:{other}" for other in calls if other != action]
                one = self.as_role({"Action": f"dynamodb:{action}", "Resource": table})
                may = self.emulator.client("dynamodb", one)
                may_not = self.emulator.client("dynamodb", self.as_role({"Action": others, "Resource": table}))
                getattr(may, name)(**arguments)
                self.assertEqual(self.code(getattr(may_not, name), **arguments), "AccessDeniedException")


class Alarms(Case):
    """CloudWatch: API Reference, "DescribeAlarms", "MetricAlarm", "CompositeAlarm"."""

    def setUp(self) -> None:
        self.cloudwatch = self.aws("cloudwatch")
        self.prefix = f"a-{uuid.uuid4().hex[:8]}-"

    def create(self, name: str, region: str = REGION, **more: Any) -> str:
        """An alarm, by its name, that has no data."""
        name = self.prefix + name
        self.aws("cloudwatch", region).put_metric_alarm(
            **{
                "AlarmName": name,
                "Namespace": "Test",
                "MetricName": name,
                "Statistic": "Maximum",
                "Period": 60,
                "EvaluationPeriods": 1,
                "Threshold": 1,
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                **more,
            }
        )
        return name

    def compose(self, name: str, *children: str) -> str:
        """A composite alarm, by its name."""
        name = self.prefix + name
        rule = " OR ".join(f'ALARM("{child}")' for child in children)
        self.cloudwatch.put_composite_alarm(AlarmName=name, AlarmRule=rule)
        return name

    def described(self, name: str) -> Json:
        found = self.cloudwatch.describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        (alarm,) = found["MetricAlarms"] + found["CompositeAlarms"]
        described: Json = alarm
        return described

    def change(self, name: str, state: str, reason: str = "test") -> None:
        self.cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=reason)

    def listen(self, region: str = REGION) -> Any:
        """What tells the changes of this test's alarms that EventBridge has passed on so far, by alarm, latest last."""
        sqs, events = self.aws("sqs", region), self.aws("events", region)
        queue = sqs.create_queue(QueueName=f"{self.prefix}events")["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        pattern = {"source": ["aws.cloudwatch"], "detail": {"alarmName": [{"prefix": self.prefix}]}}
        rule = f"{self.prefix}rule"
        events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
        target = {"Id": "queue", "Arn": attributes["Attributes"]["QueueArn"]}
        self.assertEqual(events.put_targets(Rule=rule, Targets=[target])["FailedEntryCount"], 0)
        self.addCleanup(sqs.delete_queue, QueueUrl=queue)
        self.addCleanup(events.delete_rule, Name=rule)
        self.addCleanup(events.remove_targets, Rule=rule, Ids=["queue"])
        heard: dict[str, list[Json]] = {}

        def hear(count: int) -> dict[str, list[Json]]:
            deadline = time.monotonic() + SOON
            while True:
                for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
                    event = json.loads(message["Body"])
                    heard.setdefault(event["detail"]["alarmName"], []).append(event)
                    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                if sum(map(len, heard.values())) >= count or time.monotonic() > deadline:
                    break
            self.assertEqual(sum(map(len, heard.values())), count)
            return heard

        return hear

    @staticmethod
    def moment(event: Json) -> datetime:
        """When an event says that the state began."""
        return datetime.strptime(event["detail"]["state"]["timestamp"], "%Y-%m-%dT%H:%M:%S.%f%z")

    def test_the_transition_is_told_to_the_millisecond_as_in_its_event(self) -> None:
        hear = self.listen()
        name = self.create("one")
        for count, state in enumerate(("ALARM", "OK", "INSUFFICIENT_DATA"), start=1):
            self.change(name, state)
            event = hear(count)[name][-1]
            alarm = self.described(name)
            self.assertEqual(event["detail"]["state"]["value"], state)
            self.assertEqual(alarm["StateTransitionedTimestamp"], self.moment(event))
            self.assertEqual(alarm["StateUpdatedTimestamp"], self.moment(event))
            self.assertEqual(event["resources"], [alarm["AlarmArn"]])

    def test_a_transition_by_data_is_told_so_too(self) -> None:
        hear = self.listen()
        name = self.create("one")
        self.cloudwatch.put_metric_data(Namespace="Test", MetricData=[{"MetricName": name, "Value": 1}])
        event = hear(1)[name][-1]
        self.assertEqual(self.described(name)["StateTransitionedTimestamp"], self.moment(event))

    def test_a_composite_alarm_tells_its_transition(self) -> None:
        hear = self.listen()
        child = self.create("child")
        parent = self.compose("parent", child)
        hear(1)
        self.change(child, "ALARM")
        heard = hear(3)
        for name in (child, parent):
            alarm = self.described(name)
            self.assertEqual(alarm["StateValue"], "ALARM")
            self.assertEqual(alarm["StateTransitionedTimestamp"], self.moment(heard[name][-1]))
            self.assertEqual(alarm["StateUpdatedTimestamp"], self.moment(heard[name][-1]))
        self.change(parent, "OK")
        self.assertEqual(self.described(parent)["StateTransitionedTimestamp"], self.moment(hear(4)[parent][-1]))

    def test_a_new_alarm_has_been_as_it_is_since_its_creation(self) -> None:
        before = datetime.now(timezone.utc) - timedelta(seconds=1)
        alarm = self.described(self.create("one"))
        self.assertEqual(alarm["StateValue"], "INSUFFICIENT_DATA")
        self.assertLess(before, alarm["StateTransitionedTimestamp"])
        self.assertLessEqual(alarm["StateTransitionedTimestamp"], datetime.now(timezone.utc))

    def test_the_same_state_again_is_an_update_and_no_transition(self) -> None:
        hear = self.listen()
        child = self.create("child")
        parent = self.compose("parent", child)
        self.change(child, "ALARM")
        hear(3)
        for name in (child, parent):
            before = self.described(name)
            time.sleep(0.01)
            self.change(name, "ALARM", "another reason")
            after = self.described(name)
            self.assertEqual(after["StateReason"], "another reason")
            self.assertEqual(after["StateTransitionedTimestamp"], before["StateTransitionedTimestamp"])
            self.assertGreater(after["StateUpdatedTimestamp"], before["StateUpdatedTimestamp"])
        hear(3)

    def test_a_new_definition_leaves_the_state_as_it_was(self) -> None:
        name = self.create("one")
        self.change(name, "ALARM")
        before = self.described(name)
        self.create("one", Threshold=2)
        after = self.described(name)
        self.assertEqual(after["Threshold"], 2)
        for field in ("StateValue", "StateReason", "StateUpdatedTimestamp", "StateTransitionedTimestamp"):
            self.assertEqual(after[field], before[field])

    def test_a_stack_leaves_the_state_as_it_was_too(self) -> None:
        name = self.prefix + "one"
        cloudformation = self.aws("cloudformation")

        def template(threshold: int) -> str:
            properties = {
                "AlarmName": name,
                "Namespace": "Test",
                "MetricName": name,
                "Statistic": "Maximum",
                "Period": 60,
                "EvaluationPeriods": 1,
                "Threshold": threshold,
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            }
            return json.dumps({"Resources": {"One": {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}}})

        stack = f"{self.prefix}stack"
        cloudformation.create_stack(StackName=stack, TemplateBody=template(1))
        cloudformation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
        self.addCleanup(cloudformation.delete_stack, StackName=stack)
        self.change(name, "ALARM")
        before = self.described(name)
        cloudformation.update_stack(StackName=stack, TemplateBody=template(2))
        cloudformation.get_waiter("stack_update_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
        after = self.described(name)
        self.assertEqual(after["Threshold"], 2)
        self.assertEqual(after["StateTransitionedTimestamp"], before["StateTransitionedTimestamp"])

    def test_an_alarm_made_again_does_not_remember(self) -> None:
        name = self.create("one")
        self.change(name, "ALARM")
        before = self.described(name)
        self.cloudwatch.delete_alarms(AlarmNames=[name])
        time.sleep(1)
        self.create("one")
        after = self.described(name)
        self.assertEqual(after["StateValue"], "INSUFFICIENT_DATA")
        self.assertGreater(after["StateTransitionedTimestamp"], before["StateTransitionedTimestamp"])

    def test_alarms_are_of_one_region(self) -> None:
        here, there = self.listen(REGION), self.listen(ELSEWHERE)
        name = self.create("one", REGION)
        self.assertEqual(self.aws("cloudwatch", ELSEWHERE).describe_alarms(AlarmNames=[name])["MetricAlarms"], [])
        self.create("one", ELSEWHERE)
        for region in (REGION, ELSEWHERE):
            (alarm,) = self.aws("cloudwatch", region).describe_alarms(AlarmNames=[name])["MetricAlarms"]
            self.assertEqual(alarm["AlarmArn"], f"arn:aws:cloudwatch:{region}:{ACCOUNT}:alarm:{name}")
        self.aws("cloudwatch", ELSEWHERE).set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="test")
        self.assertEqual(self.described(name)["StateValue"], "INSUFFICIENT_DATA")
        self.assertEqual(there(1)[name][0]["region"], ELSEWHERE)
        here(0)

    def test_names_that_are_unknown_are_left_out(self) -> None:
        names = [self.create(f"{index:02}") for index in range(3)]
        found = self.cloudwatch.describe_alarms(AlarmNames=[names[2], f"{self.prefix}none", names[0]])
        self.assertEqual([alarm["AlarmName"] for alarm in found["MetricAlarms"]], [names[0], names[2]])
        self.assertNotIn("NextToken", found)
        found = self.cloudwatch.describe_alarms(AlarmNames=[f"{self.prefix}none"])
        self.assertEqual(found["MetricAlarms"], [])

    def test_a_hundred_names_come_in_pages(self) -> None:
        names = [self.create(f"{index:03}") for index in range(101)]
        self.addCleanup(self.cloudwatch.delete_alarms, AlarmNames=names[:100])

        def pages(**arguments: Any) -> list[list[str]]:
            found, more = [], {}
            while True:
                page = self.cloudwatch.describe_alarms(AlarmNames=names[:100], **arguments, **more)
                found.append([alarm["AlarmName"] for alarm in page["MetricAlarms"]])
                if "NextToken" not in page:
                    return found
                more = {"NextToken": page["NextToken"]}

        self.assertEqual(pages(MaxRecords=100), [names[:100]])
        for found, count in ((pages(), 2), (pages(MaxRecords=40), 3)):
            self.assertEqual(sum(found, []), names[:100])
            self.assertEqual(len(found), count)
        for arguments in ({"AlarmNames": names}, {"MaxRecords": 101}):
            self.assertEqual(self.code(self.cloudwatch.describe_alarms, **arguments), "ValidationError")

    def test_composite_alarms_are_told_where_asked_for(self) -> None:
        child = self.create("child")
        parent = self.compose("parent", child)
        both = [child, parent]
        for types, metric, composite in (
            ({}, [child], []),
            ({"AlarmTypes": ["CompositeAlarm"]}, [], [parent]),
            ({"AlarmTypes": ["MetricAlarm", "CompositeAlarm"]}, [child], [parent]),
        ):
            found = self.cloudwatch.describe_alarms(AlarmNames=both, **types)
            self.assertEqual([alarm["AlarmName"] for alarm in found["MetricAlarms"]], metric)
            self.assertEqual([alarm["AlarmName"] for alarm in found["CompositeAlarms"]], composite)

    def test_whether_actions_are_enabled_is_told(self) -> None:
        child = self.create("child")
        parent = self.compose("parent", child)
        off = self.create("off", ActionsEnabled=False)
        self.assertEqual([self.described(name)["ActionsEnabled"] for name in (child, parent, off)], [True, True, False])
        self.cloudwatch.disable_alarm_actions(AlarmNames=[child, parent])
        self.assertEqual([self.described(name)["ActionsEnabled"] for name in (child, parent)], [False, False])
        self.cloudwatch.enable_alarm_actions(AlarmNames=[child, parent])
        self.assertEqual([self.described(name)["ActionsEnabled"] for name in (child, parent)], [True, True])

    def test_describing_needs_its_permission(self) -> None:
        may = self.emulator.client("cloudwatch", self.as_role({"Action": "cloudwatch:DescribeAlarms"}))
        may_not = self.emulator.client("cloudwatch", self.as_role({"Action": "cloudwatch:GetMetricData"}))
        may.describe_alarms(AlarmNames=["none"])
        self.assertIn("AccessDenied", self.code(may_not.describe_alarms, AlarmNames=["none"]))


class Events(Case):
    """EventBridge: API Reference, "PutEvents" and "PutEventsResultEntry"."""

    def setUp(self) -> None:
        self.events = self.aws("events")

    @staticmethod
    def entry(**more: Any) -> Json:
        return {"Source": "forgeguard", "DetailType": "Test", "Detail": "{}", **more}

    def test_ten_entries_are_taken_and_no_more(self) -> None:
        answer = self.events.put_events(Entries=[self.entry()] * 10)
        self.assertEqual(answer["FailedEntryCount"], 0)
        self.assertEqual(len({entry["EventId"] for entry in answer["Entries"]}), 10)
        for count in (0, 11):
            self.assertEqual(self.code(self.events.put_events, Entries=[self.entry()] * count), "ValidationException")

    def test_each_failed_entry_is_told_in_its_place_and_the_others_are_taken(self) -> None:
        answer = self.events.put_events(
            Entries=[
                self.entry(),
                self.entry(Detail="{"),
                self.entry(Detail="[]"),
                self.entry(Source="aws.forgeguard"),
                {"Source": "forgeguard", "DetailType": "Test"},
                {"Source": "forgeguard", "Detail": "{}"},
                {"DetailType": "Test", "Detail": "{}"},
                self.entry(),
            ]
        )
        self.assertEqual(answer["FailedEntryCount"], 6)
        codes = [entry.get("ErrorCode") for entry in answer["Entries"]]
        invalid = "InvalidArgument"
        self.assertEqual(
            codes,
            [None, "MalformedDetail", "MalformedDetail", "NotAuthorizedForSourceException", *[invalid] * 3, None],
        )
        for entry in answer["Entries"]:
            self.assertEqual("EventId" in entry, "ErrorCode" not in entry)

    def test_a_request_holds_a_megabyte(self) -> None:
        half = self.entry(Detail=json.dumps({"body": "x" * (MEGABYTE // 2 - 100)}))
        self.assertEqual(self.events.put_events(Entries=[half] * 2)["FailedEntryCount"], 0)
        self.assertEqual(self.code(self.events.put_events, Entries=[half] * 3), "ValidationException")

    def test_every_bus_of_a_request_needs_its_permission(self) -> None:
        bus = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus"
        role = self.as_role({"Action": "events:PutEvents", "Resource": f"{bus}/default"})
        events = self.emulator.client("events", role)
        self.assertEqual(events.put_events(Entries=[self.entry()])["FailedEntryCount"], 0)
        both = [self.entry(), self.entry(EventBusName="other")]
        self.assertEqual(self.code(events.put_events, Entries=both), "AccessDeniedException")


class Exports(Case):
    """API Gateway: API Reference, "GetExport", and Developer Guide, "Deploy REST APIs in API Gateway"."""

    def setUp(self) -> None:
        self.apis = self.aws("apigateway")
        self.api = self.apis.create_rest_api(name="exported")["id"]
        self.root = self.apis.get_resources(restApiId=self.api)["items"][0]["id"]
        self.at = {"restApiId": self.api, "resourceId": self.root, "httpMethod": "GET"}

    def put(self, authorization: str, key: list[str]) -> None:
        self.apis.put_method(
            **self.at, authorizationType=authorization, requestParameters=dict.fromkeys(key, True)
        )
        self.apis.put_integration(**self.at, type="MOCK", cacheKeyParameters=key)

    def exported(self, stage: str = "prod") -> tuple[Json, Json]:
        answer = self.apis.get_export(
            restApiId=self.api,
            stageName=stage,
            exportType="oas30",
            parameters={"extensions": "integrations,authorizers"},
            accepts="application/json",
        )
        document = json.loads(answer["body"].read())
        return document["paths"]["/"]["get"], document["components"].get("securitySchemes", {})

    def test_a_stage_exports_its_deployment_and_not_what_was_edited_since(self) -> None:
        self.put("NONE", [])
        self.apis.create_deployment(restApiId=self.api, stageName="prod")
        self.apis.delete_method(**self.at)
        self.put("AWS_IAM", ["method.request.querystring.q"])
        served, schemes = self.exported()
        self.assertNotIn("security", served)
        self.assertNotIn("parameters", served)
        self.assertEqual(schemes, {})
        edited = self.apis.get_method(**self.at)
        self.assertEqual(edited["authorizationType"], "AWS_IAM")
        self.apis.create_deployment(restApiId=self.api, stageName="next")
        self.assertNotIn("security", self.exported()[0])
        served, schemes = self.exported("next")
        self.assertEqual(served["security"], [{"sigv4": []}])
        self.assertEqual(schemes["sigv4"]["x-amazon-apigateway-authtype"], "awsSigv4")

    def test_an_export_needs_a_permission_beyond_that_of_its_stage(self) -> None:
        self.put("NONE", [])
        self.apis.create_deployment(restApiId=self.api, stageName="prod")
        stage = f"arn:aws:apigateway:{REGION}::/restapis/{self.api}/stages/prod"
        wanted = {"restApiId": self.api, "stageName": "prod", "exportType": "oas30"}
        for resource, allowed in ((stage, False), (f"{stage}/exports/*", True)):
            role = self.as_role({"Action": "apigateway:GET", "Resource": resource})
            apis = self.emulator.client("apigateway", role)
            if allowed:
                apis.get_export(**wanted)
            else:
                self.assertIn("AccessDenied", self.code(apis.get_export, **wanted))

    def test_gateway_responses_are_exported_with_all_extensions_as_they_were_deployed(self) -> None:
        name = "x-amazon-apigateway-gateway-responses"
        wanted = {"restApiId": self.api, "stageName": "prod", "exportType": "oas30", "accepts": "application/json"}

        def exported(extensions: str) -> Json:
            answer = self.apis.get_export(**wanted, parameters={"extensions": extensions})
            responses = json.loads(answer["body"].read()).get(name) or {}
            return {kind: response.get("statusCode") for kind, response in responses.items()}

        self.put("NONE", [])
        self.apis.put_gateway_response(restApiId=self.api, responseType="INVALID_API_KEY", statusCode="503")
        self.apis.create_deployment(restApiId=self.api, stageName="prod")
        self.apis.put_gateway_response(restApiId=self.api, responseType="UNAUTHORIZED", statusCode="503")
        self.assertEqual(exported("apigateway"), {"INVALID_API_KEY": 503})
        self.assertEqual(exported("integrations,authorizers"), {})

    def test_a_cache_namespace_is_exported_beside_a_key_only(self) -> None:
        self.put("NONE", [])
        self.apis.create_deployment(restApiId=self.api, stageName="prod")
        self.assertNotIn("cacheNamespace", self.exported()[0]["x-amazon-apigateway-integration"])
        self.put("NONE", ["method.request.querystring.q"])
        self.apis.create_deployment(restApiId=self.api, stageName="prod")
        integration = self.exported()[0]["x-amazon-apigateway-integration"]
        self.assertEqual(integration["cacheNamespace"], self.root)
        self.assertEqual(integration["cacheKeyParameters"], ["method.request.querystring.q"])


class Machines(Case):
    """Step Functions: API Reference, "StartExecution"; Developer Guide, "Learning to use AWS service SDK integrations"."""

    def setUp(self) -> None:
        self.states = self.aws("stepfunctions")
        self.gateway = self.aws("apigateway")

    def machine(self, states: Json, *statements: Json) -> str:
        """A machine whose role is allowed these."""
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
            ],
        }
        name = f"machine-{uuid.uuid4().hex[:8]}"
        iam = self.aws("iam")
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        iam.put_role_policy(RoleName=name, PolicyName="Allowed", PolicyDocument=policy(*statements))
        definition = json.dumps({"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states})
        made = self.states.create_state_machine(name=name, definition=definition, roleArn=role["Arn"])
        arn: str = made["stateMachineArn"]
        return arn

    def ended(self, machine: str, given: Json) -> Json:
        """An execution at its end."""
        started = self.states.start_execution(stateMachineArn=machine, input=json.dumps(given))
        deadline = time.monotonic() + SOON
        while time.monotonic() < deadline:
            execution: Json = self.states.describe_execution(executionArn=started["executionArn"])
            if execution["status"] != "RUNNING":
                return execution
            time.sleep(0.05)
        raise AssertionError("it does not end")

    def mapping(self) -> tuple[str, str]:
        """A custom domain, and the API that it is mapped to."""
        domain = f"{uuid.uuid4().hex[:8]}.localhost"
        api = self.gateway.create_rest_api(name=domain)["id"]
        self.gateway.create_domain_name(domainName=domain)
        self.gateway.create_base_path_mapping(domainName=domain, restApiId=api, stage="prod")
        return domain, api

    @staticmethod
    def task(operation: str, **more: Any) -> Json:
        resource = f"arn:aws:states:::aws-sdk:apigateway:{operation}"
        return {"Type": "Task", "Resource": resource, "End": True, **more}

    def test_a_task_reads_and_changes_a_mapping(self) -> None:
        domain, api = self.mapping()
        subject = {"DomainName": "{% $states.context.Execution.Input.domain %}", "BasePath": "(none)"}
        change = [{"Op": "replace", "Path": "/stage", "Value": "next"}]
        update = self.task("updateBasePathMapping", Arguments={**subject, "PatchOperations": change})
        read = self.task("getBasePathMapping", Arguments=subject)
        del update["End"]
        machine = self.machine({"Update": {**update, "Next": "Read"}, "Read": read}, {"Action": "apigateway:*"})
        execution = self.ended(machine, {"domain": domain})
        self.assertEqual(execution["status"], "SUCCEEDED")
        found = {"BasePath": "(none)", "RestApiId": api, "Stage": "next"}
        self.assertEqual(json.loads(execution["output"]), found)

    def test_an_error_is_named_after_the_service(self) -> None:
        read = self.task("getBasePathMapping", Arguments={"DomainName": "not-there", "BasePath": "(none)"})
        caught = {"ErrorEquals": ["ApiGateway.NotFoundException"], "Next": "Gone"}
        states = {"Read": {**read, "Catch": [caught]}, "Gone": {"Type": "Pass", "Output": "gone", "End": True}}
        execution = self.ended(self.machine(states, {"Action": "apigateway:*"}), {})
        self.assertEqual(json.loads(execution["output"]), "gone")

    def test_a_field_that_the_operation_lacks_is_refused(self) -> None:
        read = self.task("getBasePathMapping", Arguments={"Domain": "a", "BasePath": "(none)"})
        execution = self.ended(self.machine({"Read": read}, {"Action": "apigateway:*"}), {})
        self.assertEqual(execution["status"], "FAILED")

    def test_a_task_needs_the_permission_of_its_machines_role(self) -> None:
        domain, _ = self.mapping()
        read = self.task("getBasePathMapping", Arguments={"DomainName": domain, "BasePath": "(none)"})
        here = f"arn:aws:apigateway:{REGION}::/domainnames/{domain}/basepathmappings/*"
        for allowed, status in (
            ({"Action": "apigateway:GET", "Resource": here}, "SUCCEEDED"),
            ({"Action": "apigateway:PATCH", "Resource": here}, "FAILED"),
            ({"Action": "apigateway:GET", "Resource": here.replace(domain, "other")}, "FAILED"),
        ):
            execution = self.ended(self.machine({"Read": read}, allowed), {})
            self.assertEqual(execution["status"], status, allowed)

    def test_the_same_name_and_input_is_the_same_execution_while_it_is_open(self) -> None:
        wait = {"Type": "Wait", "Timestamp": "{% $states.input.until %}", "End": True}
        machine = self.machine({"Wait": wait}, {"Action": "none:None"})
        start = self.states.start_execution
        late = json.dumps({"until": "2100-01-01T00:00:00Z"})
        first = start(stateMachineArn=machine, name="once", input=late)
        again = start(stateMachineArn=machine, name="once", input=late)
        self.assertEqual(first["executionArn"], again["executionArn"])
        self.assertEqual(first["startDate"], again["startDate"])
        other = json.dumps({"until": "2100-01-02T00:00:00Z"})
        self.assertEqual(self.code(start, stateMachineArn=machine, name="once", input=other), "ExecutionAlreadyExists")
        self.states.stop_execution(executionArn=first["executionArn"])
        self.assertEqual(self.code(start, stateMachineArn=machine, name="once", input=late), "ExecutionAlreadyExists")


if __name__ == "__main__":
    unittest.main()
