"""AWS Step Functions for the emulator, closer to AWS in three places.

1. A task calls the AWS SDK integrations of API Gateway, which the emulator has none of; the names of parameters and
   results are as Step Functions has them (Step Functions Developer Guide, "Learning to use AWS service SDK
   integrations": in Pascal case, and an error's name after the service's).
2. Such a call is made as the machine's role, so that the role needs its permission.
3. The same name and input once more, while the execution is open, is the same execution (API Reference,
   "StartExecution").
"""

import contextvars
import json
import os
import re
import threading
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from ministack.core.lambda_runtime import execution_credentials
from ministack.core.responses import get_account_id, get_region, json_response
from ministack.services import stepfunctions

Json = dict[str, Any]

# The operations that are called in this way, by their service; the others are the emulator's own.
RESOURCE = re.compile(r"arn:[\w-]+:states:::aws-sdk:(?P<service>apigateway):(?P<operation>\w+)")
# What an error's name begins with.
ERRORS = {"apigateway": "ApiGateway"}

# The role that the task under way acts as.
_role: contextvars.ContextVar[str] = contextvars.ContextVar("role")
_clients: dict[tuple[str, str, str], Any] = {}
# boto3 makes one client at a time.
_making = threading.Lock()


def client(service: str, role: str) -> Any:
    """A client that is the role."""
    region = get_region()
    with _making:
        if (service, role, region) not in _clients:
            session = f"arn:aws:lambda:{region}:{get_account_id()}:function:states"
            keys = execution_credentials({"FunctionArn": session, "Role": role, "FunctionName": "states"})
            _clients[service, role, region] = boto3.client(
                service,
                endpoint_url=f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}",
                region_name=region,
                aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
                aws_session_token=keys["AWS_SESSION_TOKEN"],
                config=Config(retries={"max_attempts": 1}),
            )
        return _clients[service, role, region]


def to_service(value: Any, shape: Any) -> Any:
    """Arguments as Step Functions names them, as the service does."""
    if shape.type_name == "structure":
        members = {name.lower(): name for name in shape.members}
        unknown = [name for name in value if name.lower() not in members]
        if unknown:
            raise stepfunctions._ExecutionError("States.Runtime", f"The field '{unknown[0]}' is not supported")
        names = {name: members[name.lower()] for name in value}
        return {names[name]: to_service(part, shape.members[names[name]]) for name, part in value.items()}
    if shape.type_name == "list":
        return [to_service(part, shape.member) for part in value]
    return value


def from_service(value: Any, shape: Any) -> Any:
    """A result as the service names its parts, as Step Functions does."""
    if shape.type_name == "structure":
        parts = {name: part for name, part in value.items() if name in shape.members}
        return {name[0].upper() + name[1:]: from_service(part, shape.members[name]) for name, part in parts.items()}
    if shape.type_name == "list":
        return [from_service(part, shape.member) for part in value]
    return value.isoformat() if shape.type_name == "timestamp" else value


def call(service: str, operation: str, arguments: Json, role: str) -> Json:
    """Call an operation of a service as the role."""
    caller = client(service, role)
    names = {name[0].lower() + name[1:]: (method, name) for method, name in caller.meta.method_to_api_mapping.items()}
    method, name = names[operation]
    model = caller.meta.service_model.operation_model(name)
    try:
        answer = getattr(caller, method)(**to_service(arguments, model.input_shape))
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise stepfunctions._ExecutionError(f"{ERRORS[service]}.{code}", str(error)) from None
    result: Json = from_service(answer, model.output_shape)
    return result


def with_role(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Remember the role of the machine whose task is executed."""

    def execute_as(state: Json, given: Any, execution: Json, context: Json) -> Any:
        machine = stepfunctions._state_machines.get(execution["stateMachineArn"]) or {}
        _role.set(machine.get("roleArn", ""))
        return execute(state, given, execution, context)

    return execute_as


def with_integrations(invoke: Callable[..., Any]) -> Callable[..., Any]:
    """Call what the emulator has no integration for."""

    def invoke_any(resource: str, arguments: Any) -> Any:
        subject = RESOURCE.fullmatch(resource)
        if not subject:
            return invoke(resource, arguments)
        return call(subject["service"], subject["operation"], arguments or {}, _role.get())

    return invoke_any


def with_same_execution(start: Callable[[Json], Any]) -> Callable[[Json], Any]:
    """Answer with the open execution that has this name and input."""

    def start_once(data: Json) -> Any:
        machine = stepfunctions._state_machines.get(data.get("stateMachineArn", ""))
        if machine and data.get("name"):
            prefix = machine["stateMachineArn"].replace(":stateMachine:", ":execution:")
            known = stepfunctions._executions.get(f"{prefix}:{data['name']}")
            given = json.loads(data.get("input") or "{}")
            if known and known["status"] == "RUNNING" and json.loads(known["input"]) == given:
                return json_response({"executionArn": known["executionArn"], "startDate": known["startDate"]})
        return start(data)

    return start_once


def install() -> None:
    """Close the three gaps."""
    stepfunctions._execute_task = with_role(stepfunctions._execute_task)
    stepfunctions._invoke_resource = with_integrations(stepfunctions._invoke_resource)
    stepfunctions._start_execution = with_same_execution(stepfunctions._start_execution)
