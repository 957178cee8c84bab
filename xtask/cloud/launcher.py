"""Start the AWS emulator of the local cloud, closer to AWS in six places.

1. A CloudWatch alarm that changes state sends the documented event to EventBridge, whether or not
   the alarm's actions are enabled.
2. A rule that targets a function goes through Lambda's asynchronous queue, so that the function's
   retries and failure destination apply.
3. What Lambda itself does with a function's role (write its log, send to its failure destination)
   needs the role's permission.
4. Every request counts as one over TLS, which is what AWS takes and what bucket policies (SAM's own
   among them) insist on; here they arrive over the loopback interface.
5. The batch operations of SQS need the permission of the single ones (sqs:SendMessage and so on):
   IAM has no actions of their own for them. CloudWatch's operations need their permission in its
   newest protocol, too, which names them in the path. Lambda's operations on one alias and on provisioned
   concurrency need their own permission, and not the one to list aliases or none.
6. The cache cluster of an API's stage tells its status: it is being made until it was looked at once.

The emulator is configured by its own environment variables; `xtask/src/cloud` sets them.
"""

import json
import logging
import os
import re
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import cbor2
from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import apigateway_v1, cloudwatch, eventbridge, lambda_svc

Json = dict[str, Any]

log = logging.getLogger("forgeguard.launcher")

# What AWS reports as the state before the first evaluation.
INITIAL_REASON = "Unchecked: Initial alarm creation"
# How the emulator words a state that it computed from metric data, as opposed to one that was set.
EVALUATED = re.compile(r"Threshold Crossed: (?P<stat>\S+) (?P<value>\S+) \w+ (?P<threshold>\S+)$")

# How Smithy's RPC protocol names an operation.
RPC_OPERATION = re.compile(r"/service/[^/]+/operation/(?P<name>\w+)")

# The paths of Lambda's operations on one alias, and on provisioned concurrency.
LAMBDA_SUBJECT = re.compile(r"/functions/[^/]+/(?:aliases/[^/]+|(?P<put>provisioned-concurrency))/?$")

# The state each alarm was last reported in, by ARN: the emulator overwrites it before it tells.
_reported: dict[str, Json] = {}


def timestamp(epoch: float) -> str:
    """An instant as alarm events write it: milliseconds, and an offset without a colon."""
    at = datetime.fromtimestamp(epoch, tz=timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}+0000"


def reason_data(alarm: Json, reason: str, now: float) -> str | None:
    """The state's data, a JSON text: computed for an evaluation, the caller's own for a set state."""
    evaluated = EVALUATED.match(reason)
    if "AlarmRule" in alarm or not evaluated:
        return alarm.get("StateReasonData")
    span = alarm.get("Period", 60) * alarm.get("EvaluationPeriods", 1)
    data = {
        "version": "1.0",
        "queryDate": timestamp(now),
        "startDate": timestamp(now - span),
        "statistic": evaluated["stat"],
        "period": alarm.get("Period", 60),
        "recentDatapoints": [float(evaluated["value"])],
        "threshold": float(evaluated["threshold"]),
    }
    if alarm.get("Unit"):
        data["unit"] = alarm["Unit"]
    return json.dumps(data, separators=(",", ":"))


def configuration(alarm: Json) -> Json:
    """What the event says about the alarm's definition."""
    described: Json = {}
    if alarm.get("AlarmDescription"):
        described["description"] = alarm["AlarmDescription"]
    if "AlarmRule" in alarm:
        return {**described, "alarmRule": alarm["AlarmRule"]}
    metric_stat: Json = {
        "metric": {
            "namespace": alarm.get("Namespace"),
            "name": alarm.get("MetricName"),
            "dimensions": {d["Name"]: d["Value"] for d in alarm.get("Dimensions") or []},
        },
        "period": alarm.get("Period", 60),
        "stat": alarm.get("ExtendedStatistic") or alarm.get("Statistic", "Average"),
    }
    if alarm.get("Unit"):
        metric_stat["unit"] = alarm["Unit"]
    # AWS gives the metric an id of its own that does not change with the state.
    metric_id = str(uuid.uuid5(uuid.NAMESPACE_URL, alarm["AlarmArn"]))
    return {**described, "metrics": [{"id": metric_id, "metricStat": metric_stat, "returnData": True}]}


def alarm_state_change(alarm: Json, old_state: str, new_state: str, reason: str) -> Json:
    """The PutEvents entry for one transition."""
    now = time.time()
    # AWS keeps milliseconds, and DescribeAlarms agrees with the event.
    alarm["StateUpdatedTimestamp"] = now
    state = {"value": new_state, "reason": reason, "timestamp": timestamp(now)}
    data = reason_data(alarm, reason, now)
    if data:
        state["reasonData"] = data
    previous = _reported.get(alarm["AlarmArn"])
    if previous is None or previous["value"] != old_state:
        created = alarm.get("AlarmConfigurationUpdatedTimestamp", now)
        previous = {"value": old_state, "reason": INITIAL_REASON, "timestamp": timestamp(created)}
    _reported[alarm["AlarmArn"]] = state
    detail = {
        "alarmName": alarm["AlarmName"],
        "state": state,
        "previousState": previous,
        "configuration": configuration(alarm),
    }
    return {
        "Source": "aws.cloudwatch",
        "DetailType": "CloudWatch Alarm State Change",
        "Resources": [alarm["AlarmArn"]],
        "Detail": json.dumps(detail),
    }


def with_events(dispatch: Callable[..., None]) -> Callable[..., None]:
    """Also send each transition to EventBridge."""

    def dispatch_and_send(alarm: Json, old_state: str, new_state: str, reason: str) -> None:
        dispatch(alarm, old_state, new_state, reason)
        try:
            entry = alarm_state_change(alarm, old_state, new_state, reason)
            eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
        except Exception:
            # The emulator drops what an alarm raises; without this line nobody would see it.
            log.exception("no event for %s: %s to %s", alarm.get("AlarmName"), old_state, new_state)

    return dispatch_and_send


def invoke_from_rule(arn: str, payload: str) -> None:
    """Hand a rule's event to a function asynchronously, as EventBridge does."""
    function, config, name = lambda_svc._get_func_record_for_ref(arn)
    if not function or not config:
        log.warning("a rule names function %s, which does not exist", name)
        return
    record = lambda_svc._execution_record_for_config(function, config)
    lambda_svc.invoke_async_with_retry(record, json.loads(payload))


def role_allows(config: Json, action: str, resource: str) -> bool:
    """Whether a function's role lets Lambda do this in its name."""
    account = get_account_id()
    role = config.get("Role", "")
    request = iam_evaluator.EvalContext(
        principal_arn=role,
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=get_region(),
    )
    policies = iam_evaluator._gather_role_policies(role.rsplit("/", 1)[-1], account)
    if iam_evaluator.evaluate(request, policies).decision == "Allow":
        return True
    log.warning("%s may not %s on %s", role, action, resource)
    return False


def with_log_permission(emit: Callable[..., None]) -> Callable[..., None]:
    """Write a function's log only if its role may."""

    def emit_if_allowed(function: Json, *args: Any, **kwargs: Any) -> None:
        config = function.get("config") or function
        group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
        stream = f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{group}:log-stream:any"
        if all(role_allows(config, action, stream) for action in ("logs:CreateLogStream", "logs:PutLogEvents")):
            emit(function, *args, **kwargs)

    return emit_if_allowed


def with_destination_permission(route: Callable[..., None]) -> Callable[..., None]:
    """Send a failed event to its queue only if the function's role may."""

    def route_if_allowed(target_arn: str, name: str, event: Any, result: Json) -> None:
        config = lambda_svc._functions.get(name, {}).get("config", {})
        if ":sqs:" not in target_arn or role_allows(config, "sqs:SendMessage", target_arn):
            route(target_arn, name, event, result)

    return route_if_allowed


def with_secure_transport(pin: Callable[[str, bool], None]) -> Callable[[str, bool], None]:
    """Remember every request as one over TLS."""

    def pin_secure(source_ip: str, _secure_transport: bool) -> None:
        pin(source_ip, True)

    return pin_secure


def with_all_actions(extract: Callable[..., str | None]) -> Callable[..., str | None]:
    """Name the permission of every operation; the emulator lets one pass that it has no name for."""

    def extract_any(service: str, method: str, path: str, *rest: Any, **named: Any) -> str | None:
        action = extract(service, method, path, *rest, **named)
        if service == "lambda" and (subject := LAMBDA_SUBJECT.search(path)):
            verb = {"GET": "Get", "PUT": subject["put"] and "Put" or "Update", "DELETE": "Delete"}[method]
            return f"lambda:{verb}{'ProvisionedConcurrencyConfig' if subject['put'] else 'Alias'}"
        if action is None and (operation := RPC_OPERATION.fullmatch(path)):
            namespace = iam_actions.SERVICE_TO_IAM_NAMESPACE.get(service)
            return f"{namespace}:{operation['name']}" if namespace else None
        if action and action.startswith("sqs:"):
            return action.removesuffix("Batch")
        return action

    return extract_any


def with_readable_body(extract: Callable[..., str]) -> Callable[..., str]:
    """Find the resource of an operation in Smithy's RPC protocol, whose body is CBOR."""

    def extract_resource(service: str, method: str, path: str, headers: Json, body: bytes, *rest: Any) -> str:
        if body and RPC_OPERATION.fullmatch(path):
            body = json.dumps(cbor2.loads(body), default=str).encode()
        return extract(service, method, path, headers, body, *rest)

    return extract_resource


def with_cluster_status(update: Callable[..., Any], get: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Let a stage's cache cluster take its time, deterministically: the first look still finds it being made."""
    looked_at: set[tuple[str, str]] = set()

    def stage(api_id: str, name: str) -> Json:
        return apigateway_v1._stages_v1.get(api_id, {}).get(name) or {}

    def update_stage(api_id: str, name: str, data: Json) -> Any:
        was_on = stage(api_id, name).get("cacheClusterEnabled")
        answer = update(api_id, name, data)
        is_on = stage(api_id, name).get("cacheClusterEnabled")
        if bool(was_on) != bool(is_on):
            looked_at.discard((api_id, name))
            stage(api_id, name)["cacheClusterStatus"] = "CREATE_IN_PROGRESS" if is_on else "NOT_AVAILABLE"
            return get(api_id, name)
        return answer

    def get_stage(api_id: str, name: str) -> Any:
        if stage(api_id, name).get("cacheClusterStatus") == "CREATE_IN_PROGRESS":
            if (api_id, name) in looked_at:
                stage(api_id, name)["cacheClusterStatus"] = "AVAILABLE"
            looked_at.add((api_id, name))
        return get(api_id, name)

    return update_stage, get_stage


def main() -> None:
    """Close the six gaps and run the emulator until it is told to stop."""
    # A session of its own: Ctrl-C in the terminal that started the cloud does not reach it.
    os.setsid()
    cloudwatch._dispatch_alarm_actions = with_events(cloudwatch._dispatch_alarm_actions)
    eventbridge._dispatch_to_lambda = invoke_from_rule
    lambda_svc._emit_lambda_logs = with_log_permission(lambda_svc._emit_lambda_logs)
    lambda_svc._route_async_failure = with_destination_permission(lambda_svc._route_async_failure)
    iam_actions.extract_iam_action = with_all_actions(iam_actions.extract_iam_action)
    iam_actions.extract_resource_arn = with_readable_body(iam_actions.extract_resource_arn)
    apigateway_v1._update_stage, apigateway_v1._get_stage = with_cluster_status(
        apigateway_v1._update_stage, apigateway_v1._get_stage
    )
    app.pin_request_origin = with_secure_transport(app.pin_request_origin)
    app.main()


if __name__ == "__main__":
    main()
