"""Start the AWS emulator of the local cloud, closer to AWS in sixteen places.

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
7. A base-path mapping can be updated. Stage variables are put into gateway responses and into the URI of an
   HTTP integration.
8. A CloudFront function reads its key-value store, whose operations need their permission on the store.
9. A distribution answers below localhost, too, a name that leads to this machine.
10. API Gateway spreads its requests over the versions of an alias by their weights.
11. CodeDeploy deploys to a function's alias (codedeploy.py).
12. An alarm tells when its state last changed, to the millisecond and as the event of that change does. A new
    definition leaves its state as it was.
13. DescribeAlarms takes at most a hundred names.
14. BatchGetItem answers with at most 16 MB and leaves the other keys unprocessed.
15. PutEvents refuses the entries that lack something or whose detail is no JSON object, each in its place, and a
    request that is too large as a whole.
16. A stage's export tells the API as it was deployed, and not as it was edited since; of AWS_IAM, too, of a cache
    namespace only beside a cache key, and with all extensions of the gateway responses.
17. A task of Step Functions calls API Gateway, as its machine's role (stepfunctions.py).

The emulator is configured by its own environment variables; `xtask/src/cloud` sets them.
"""

import copy
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote

import cbor2
import codedeploy
import stepfunctions
from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import AccountRegionScopedDict, error_response_json, get_account_id, get_region
from ministack.services import (
    apigateway_v1,
    cloudfront,
    cloudfront_keyvaluestore,
    cloudwatch,
    dynamodb,
    eventbridge,
    lambda_svc,
)

Json = dict[str, Any]

log = logging.getLogger("forgeguard.launcher")

# What AWS reports as the state before the first evaluation.
INITIAL_REASON = "Unchecked: Initial alarm creation"
# How the emulator words a state that it computed from metric data, as opposed to one that was set.
EVALUATED = re.compile(r"Threshold Crossed: (?P<stat>\S+) (?P<value>\S+) \w+ (?P<threshold>\S+)$")

# CloudWatch API Reference, "DescribeAlarms": "Array Members: Maximum number of 100 items".
MOST_ALARM_NAMES = 100

# DynamoDB API Reference, "BatchGetItem": "A single operation can retrieve up to 16 MB of data".
BATCH_BYTES = 16 * 1024 * 1024

# EventBridge User Guide, "Calculating PutEvents event entry size": all entries of a request together, 1 MB since
# January 2026.
EVENTS_BYTES = 1024 * 1024
EVENT_TIME_BYTES = 14
MOST_ENTRIES = 10

# How Smithy's RPC protocol names an operation.
RPC_OPERATION = re.compile(r"/service/[^/]+/operation/(?P<name>\w+)")

# The paths of Lambda's operations on one alias, and on provisioned concurrency.
LAMBDA_SUBJECT = re.compile(r"/functions/[^/]+/(?:aliases/[^/]+|(?P<put>provisioned-concurrency))/?$")

# The path of one base-path mapping.
MAPPING = re.compile(r"/domainnames/(?P<domain>[^/]+)/basepathmappings/(?P<base>[^/]+)/?")

# How a template or URI of API Gateway names a stage variable.
STAGE_VARIABLE = re.compile(r"\$\{?stageVariables\.(?P<name>\w+)\}?")

# The path of an operation on a key-value store.
STORE = re.compile(r"/key-value-stores/(?P<arn>arn:[^/]+/[\w-]+)")

# How a CloudFront function asks for its key-value store, and what answers it here.
STORE_IMPORT = re.compile(r"^\s*import\s+cf\s+from\s+['\"]cloudfront['\"];?\s*$", re.MULTILINE)
STORE_MODULE = """
const cf = (items => {
  const held = key => {
    if (!(key in items)) throw new Error("KeyNotFound");
    return items[key];
  };
  const store = {
    get: async (key, options) => options && options.format === "json" ? JSON.parse(held(key)) : held(key),
    exists: async key => key in items,
  };
  return { kvs: () => store };
})(%s);
"""

# The names of a distribution: CloudFront's own, and below localhost, which needs no name server.
DISTRIBUTION = re.compile(r"^([a-z0-9]+)\.cloudfront\.(?:net|localhost)(?::\d+)?$")

# The state each alarm was last reported in, by ARN: the emulator overwrites it before it tells.
_reported: dict[str, Json] = {}


def milliseconds() -> float:
    """Now, as precisely as CloudWatch keeps it."""
    return int(time.time() * 1000) / 1000


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
    now = milliseconds()
    # CloudWatch API Reference, "MetricAlarm": StateTransitionedTimestamp is when StateValue most recently changed.
    # DescribeAlarms agrees with the event.
    alarm["StateUpdatedTimestamp"] = alarm["StateTransitionedTimestamp"] = now
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


class Alarms(AccountRegionScopedDict):
    """Alarms that were as they are since they were made, unless they have changed since.

    CloudWatch API Reference, "PutMetricAlarm": "When you update an existing alarm, its state is left unchanged".
    """

    def __setitem__(self, name: str, alarm: Json) -> None:
        since = self.get(name, alarm).get("StateTransitionedTimestamp", alarm["StateUpdatedTimestamp"])
        alarm.setdefault("StateTransitionedTimestamp", since)
        super().__setitem__(name, alarm)


def with_update_time(set_state: Callable[..., Any]) -> Callable[..., Any]:
    """Note when a state was set to what it was already.

    CloudWatch API Reference, "CompositeAlarm": StateUpdatedTimestamp "tracks the timestamp of any state update, even
    if StateValue doesn't change".
    """

    def set_and_note(params: Json, data: Json, *protocol: bool) -> Any:
        now = milliseconds()
        answer = set_state(params, data, *protocol)
        name = data.get("AlarmName") or cloudwatch._p(params, "AlarmName")
        alarm = cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)
        if alarm and alarm["StateTransitionedTimestamp"] <= now:
            alarm["StateUpdatedTimestamp"] = now
        return answer

    return set_and_note


def with_most_names(describe: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse more names of alarms than one call may have."""

    def describe_some(params: Json, data: Json, is_cbor: bool, is_json: bool = False) -> Any:
        names = data.get("AlarmNames") or [name for name in params if name.startswith("AlarmNames.member.")]
        if len(names) > MOST_ALARM_NAMES:
            message = (
                "1 validation error detected: Value at 'alarmNames' failed to satisfy constraint: "
                f"Member must have length less than or equal to {MOST_ALARM_NAMES}"
            )
            return cloudwatch._error("ValidationError", message, 400, use_json=is_json, use_cbor=is_cbor)
        return describe(params, data, is_cbor, is_json)

    return describe_some


def with_most_bytes(get: Callable[[Json], Any]) -> Callable[[Json], Any]:
    """Leave the keys unprocessed whose items one answer has no room for."""

    def size(table: str, item_key: Json) -> int:
        held = dynamodb._tables[dynamodb._normalize_table_name(table)]
        return int(dynamodb._item_size_bytes(dynamodb._get_item_by_key(held, item_key) or {}))

    def get_some(data: Json) -> Any:
        status, headers, body = get(data)
        if status != 200 or len(body) <= BATCH_BYTES:
            return status, headers, body
        taken: Json = {}
        left: Json = {}
        room = BATCH_BYTES
        for table, request in data["RequestItems"].items():
            for item_key in request["Keys"]:
                room -= size(table, item_key)
                part = taken if room >= 0 else left
                part.setdefault(table, {**request, "Keys": []})["Keys"].append(item_key)
        status, headers, body = get({**data, "RequestItems": taken})
        return status, headers, json.dumps({**json.loads(body), "UnprocessedKeys": left}).encode()

    return get_some


def entry_error(entry: Json) -> Json | None:
    """Why EventBridge does not take an entry, in the words of its API Reference, "PutEventsResultEntry"."""
    for name in ("Source", "DetailType", "Detail"):
        if not entry.get(name):
            reason = f"Parameter {name} is not valid. Reason: {name} is a required argument."
            return {"ErrorCode": "InvalidArgument", "ErrorMessage": reason}
    try:
        is_object = isinstance(json.loads(entry["Detail"]), dict)
    except ValueError:
        is_object = False
    return None if is_object else {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}


def entry_bytes(entry: Json) -> int:
    """The size of an entry, as EventBridge counts it."""
    texts = [entry.get("Source"), entry.get("DetailType"), entry.get("Detail"), *(entry.get("Resources") or [])]
    return sum(len((text or "").encode()) for text in texts) + (EVENT_TIME_BYTES if entry.get("Time") else 0)


def with_refusals(put: Callable[..., Any]) -> Callable[..., Any]:
    """Take only the events that EventBridge takes."""

    def put_usable(data: Json, allow_aws_source: bool = False) -> Any:
        entries = data.get("Entries") or []
        if not entries:
            message = (
                "1 validation error detected: Value '[]' at 'entries' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1"
            )
            return error_response_json("ValidationException", message, 400)
        if sum(map(entry_bytes, entries)) > EVENTS_BYTES:
            message = "Total size of the entries in the request is over the limit."
            return error_response_json("ValidationException", message, 400)
        errors = [entry_error(entry) for entry in entries]
        usable = [entry for entry, error in zip(entries, errors, strict=True) if not error]
        if len(usable) == len(entries) or len(entries) > MOST_ENTRIES:
            return put(data, allow_aws_source)
        status, headers, body = put({**data, "Entries": usable}, allow_aws_source)
        answer = json.loads(body)
        results = iter(answer["Entries"])
        answer["Entries"] = [error or next(results) for error in errors]
        answer["FailedEntryCount"] += len(entries) - len(usable)
        return status, headers, json.dumps(answer).encode()

    return put_usable


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
        if service == "cloudfront-keyvaluestore" and (subject := STORE.match(unquote(path))):
            return subject["arn"]
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


def with_deployments(deploy: Callable[..., Any], export: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Export what a stage serves: the API as it was when its deployment was made.

    Amazon API Gateway API Reference, "GetExport": "Exports a deployed version of a RestApi"; API Gateway Developer Guide,
    "Deploy REST APIs in API Gateway": a deployment is a snapshot of the API.
    """
    deployed: dict[tuple[str, str], tuple[Json, Json]] = {}

    def create_deployment(api_id: str, data: Json) -> Any:
        status, headers, body = deploy(api_id, data)
        if status == 201:
            held = apigateway_v1._resources.get(api_id, {}), apigateway_v1._authorizers_v1.get(api_id, {})
            deployed[api_id, json.loads(body)["id"]] = copy.deepcopy(held)
        return status, headers, body

    def get_export(api_id: str, stage_name: str, *rest: Any) -> Any:
        stage = apigateway_v1._stages_v1.get(api_id, {}).get(stage_name) or {}
        snapshot = deployed.get((api_id, stage.get("deploymentId", "")))
        if snapshot is None:
            return export(api_id, stage_name, *rest)
        stores = apigateway_v1._resources, apigateway_v1._authorizers_v1
        edited = [store.get(api_id, {}) for store in stores]
        # Nothing else runs meanwhile: the emulator answers one request at a time, and this awaits nothing.
        for store, held in zip(stores, snapshot, strict=True):
            store[api_id] = held
        try:
            return export(api_id, stage_name, *rest)
        finally:
            for store, held in zip(stores, edited, strict=True):
                store[api_id] = held

    return create_deployment, get_export


def with_signers(build: Callable[..., Json], operation: Callable[..., Json]) -> tuple[Callable[..., Any], ...]:
    """Tell in an export which methods are signed by their callers.

    API Gateway Developer Guide, "x-amazon-apigateway-authtype property": the security definition `sigv4` of AWS_IAM.
    """

    def export_operation(method: Json, *rest: Any) -> Json:
        exported = operation(method, *rest)
        if method.get("authorizationType") == "AWS_IAM":
            exported["security"] = [*exported.get("security", []), {"sigv4": []}]
        return exported

    def build_export(*arguments: Any) -> Json:
        document = build(*arguments)
        operations = [method for path in document["paths"].values() for method in path.values()]
        if any("sigv4" in scheme for method in operations for scheme in method.get("security", [])):
            holder = document.get("components", document)
            name = "securitySchemes" if "components" in document else "securityDefinitions"
            authtype = {"x-amazon-apigateway-authtype": "awsSigv4"}
            signed = {"type": "apiKey", "name": "Authorization", "in": "header", **authtype}
            holder.setdefault(name, {})["sigv4"] = signed
        return document

    return build_export, export_operation


def with_gateway_responses(export: Callable[..., Any]) -> Callable[..., Any]:
    """Tell in an export with all of API Gateway's extensions which gateway responses the stage's deployment has.

    API Gateway Developer Guide, "x-amazon-apigateway-gateway-responses object"; exports that are published write the
    status as a number.
    """

    def get_export(api_id: str, stage_name: str, export_type: str, headers: Json, query: Json) -> Any:
        status, answered, body = export(api_id, stage_name, export_type, headers, query)
        stage = apigateway_v1._stages_v1.get(api_id, {}).get(stage_name) or {}
        deployed = apigateway_v1._deployed_gateway_responses.get(api_id, {}).get(stage.get("deploymentId", ""))
        whole = "apigateway" in apigateway_v1._get_export_extensions(query)
        if status != 200 or not whole or not deployed or answered["Content-Type"] != "application/json":
            return status, answered, body
        document = json.loads(body)
        document["x-amazon-apigateway-gateway-responses"] = {
            kind: {
                **({"statusCode": int(response["statusCode"])} if response.get("statusCode") else {}),
                **{name: response[name] for name in ("responseParameters", "responseTemplates") if response.get(name)},
            }
            for kind, response in deployed.items()
        }
        return status, answered, json.dumps(document, ensure_ascii=False).encode()

    return get_export


def with_namespaces_beside_keys(export: Callable[[Json], Json]) -> Callable[[Json], Json]:
    """Leave the cache namespace out of an export where there is no cache key, as the exports do that are published.

    No page of the documentation says so.
    """

    def export_integration(integration: Json) -> Json:
        exported = export(integration)
        if not exported.get("cacheKeyParameters"):
            exported.pop("cacheNamespace", None)
            exported.pop("cacheKeyParameters", None)
        return exported

    return export_integration


def with_mapping_updates(handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Answer UpdateBasePathMapping, which the emulator has no route for."""

    async def handle_any(method: str, path: str, headers: Json, body: bytes, *rest: Any) -> Any:
        subject = MAPPING.fullmatch(unquote(path))
        if method != "PATCH" or not subject:
            return await handle(method, path, headers, body, *rest)
        mapping = apigateway_v1._base_path_mappings.get(subject["domain"], {}).get(subject["base"])
        if mapping:
            for operation in json.loads(body)["patchOperations"]:
                field = {"/restapiId": "restApiId", "/stage": "stage"}.get(operation["path"])
                if operation["op"] != "replace" or not field:
                    return apigateway_v1._v1_error("BadRequestException", "Invalid patch path", 400)
                mapping[field] = operation["value"]
        return apigateway_v1._get_base_path_mapping(subject["domain"], subject["base"])

    return handle_any


def with_variables(text: str, stage: Json) -> str:
    """A template or URI with the stage's variables in it."""
    variables = stage.get("variables") or {}
    return STAGE_VARIABLE.sub(lambda named: variables.get(named["name"], ""), text)


def with_variables_in_responses(render: Callable[..., Any]) -> Callable[..., Any]:
    """Put stage variables into the body of a gateway response."""

    def render_all(error: Any, request: Json) -> Any:
        status, headers, body = render(error, request)
        return status, headers, with_variables(body.decode(), request["stage"]).encode()

    return render_all


def with_variables_in_uris(invoke: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Put stage variables into the URI of an HTTP integration. Its API has one stage where that matters."""

    def stage_of(integration: Json) -> Json:
        for api_id, resources in apigateway_v1._resources.items():
            for resource in resources.values():
                for method in (resource.get("resourceMethods") or {}).values():
                    if (method.get("methodIntegration") or {}).get("uri") == integration["uri"]:
                        stages = apigateway_v1._stages_v1.get(api_id) or {}
                        return next(iter(stages.values()), {})
        return {}

    async def invoke_with(integration: Json, *rest: Any) -> Any:
        if "stageVariables" in integration.get("uri", ""):
            integration = {**integration, "uri": with_variables(integration["uri"], stage_of(integration))}
        return await invoke(integration, *rest)

    return invoke_with


def with_store(live_code: Callable[[str], Any]) -> Callable[[str], Any]:
    """Give a CloudFront function what its key-value store holds."""

    def live_code_with(function_arn: str) -> Any:
        code = live_code(function_arn)
        if code is None:
            return None
        text = code.decode() if isinstance(code, bytes) else code
        stores = cloudfront._functions[function_arn.rsplit("/", 1)[-1]].get("kvs_arns") or []
        held = [cloudfront_keyvaluestore._stores.get(arn) or {} for arn in stores]
        items = held[0].get("items", {}) if held else {}
        text = STORE_IMPORT.sub(lambda _: STORE_MODULE % json.dumps(items), text)
        return text.encode() if isinstance(code, bytes) else text

    return live_code_with


def with_weights(find: Callable[..., Any]) -> Callable[..., Any]:
    """Take the version of an alias whose turn it is: by weight, and evenly rather than by chance."""
    turns: dict[tuple[str, str], float] = {}

    def find_by_weight(function_ref: str, **scope: Any) -> Any:
        record, config, name = find(function_ref, **scope)
        base, _, qualifier = function_ref.rpartition(":")
        alias = (lambda_svc._functions.get(name) or {}).get("aliases", {}).get(qualifier) or {}
        weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
        for version, weight in weights.items():
            turn = turns.get((function_ref, version), 0.0) + weight
            turns[function_ref, version] = turn % 1
            if turn >= 1:
                return find(f"{base}:{version}", **scope)
        return record, config, name

    return find_by_weight


def main() -> None:
    """Close the sixteen gaps and run the emulator until it is told to stop."""
    # A session of its own: Ctrl-C in the terminal that started the cloud does not reach it.
    os.setsid()
    cloudwatch._dispatch_alarm_actions = with_events(cloudwatch._dispatch_alarm_actions)
    cloudwatch._alarms = Alarms()
    cloudwatch._set_alarm_state = with_update_time(cloudwatch._set_alarm_state)
    cloudwatch._describe_alarms = with_most_names(cloudwatch._describe_alarms)
    dynamodb._batch_get_item = with_most_bytes(dynamodb._batch_get_item)
    eventbridge._put_events = with_refusals(eventbridge._put_events)
    eventbridge._dispatch_to_lambda = invoke_from_rule
    lambda_svc._emit_lambda_logs = with_log_permission(lambda_svc._emit_lambda_logs)
    lambda_svc._route_async_failure = with_destination_permission(lambda_svc._route_async_failure)
    iam_actions.extract_iam_action = with_all_actions(iam_actions.extract_iam_action)
    iam_actions.extract_resource_arn = with_readable_body(iam_actions.extract_resource_arn)
    apigateway_v1._update_stage, apigateway_v1._get_stage = with_cluster_status(
        apigateway_v1._update_stage, apigateway_v1._get_stage
    )
    apigateway_v1._create_deployment, apigateway_v1._get_export = with_deployments(
        apigateway_v1._create_deployment, apigateway_v1._get_export
    )
    apigateway_v1._get_export = with_gateway_responses(apigateway_v1._get_export)
    apigateway_v1._build_api_export, apigateway_v1._export_operation = with_signers(
        apigateway_v1._build_api_export, apigateway_v1._export_operation
    )
    apigateway_v1._export_integration = with_namespaces_beside_keys(apigateway_v1._export_integration)
    apigateway_v1.handle_request = with_mapping_updates(apigateway_v1.handle_request)
    apigateway_v1._gateway_error_response = with_variables_in_responses(apigateway_v1._gateway_error_response)
    apigateway_v1._invoke_http_proxy_v1 = with_variables_in_uris(apigateway_v1._invoke_http_proxy_v1)
    cloudfront.live_function_code = with_store(cloudfront.live_function_code)
    app._CLOUDFRONT_HOST_RE = DISTRIBUTION
    lambda_svc._get_func_record_for_ref_in_scope = with_weights(lambda_svc._get_func_record_for_ref_in_scope)
    codedeploy.install()
    stepfunctions.install()
    app.pin_request_origin = with_secure_transport(app.pin_request_origin)
    app.main()


if __name__ == "__main__":
    main()
