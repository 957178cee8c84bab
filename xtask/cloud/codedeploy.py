"""AWS CodeDeploy for the emulator, which has none: canaries of Lambda aliases, and their rollbacks.

A deployment gives its version a tenth of the alias's traffic and stays there until it is stopped. The rollback that a
stop begins is a deployment of its own, under way until GetDeployment told of it once. Applications and deployment
groups exist by being named.
"""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from ministack import app
from ministack.core import iam_actions, router
from ministack.core.responses import error_response_json, json_response
from ministack.services import lambda_svc

Json = dict[str, Any]

TARGET = "CodeDeploy_20141006"
CANARY_WEIGHT = 0.1

_deployments: dict[str, Json] = {}
# Rollbacks that GetDeployment told of.
_told: set[str] = set()


def subject(deployment: Json) -> Json:
    """The alias of a deployment and its two versions, from the AppSpec."""
    revision = deployment["revision"]
    content = (revision.get("appSpecContent") or revision.get("string"))["content"]
    resource = next(iter(json.loads(content)["Resources"][0].values()))
    return resource["Properties"]


def point(deployment: Json, weights: Json) -> None:
    """Gives the deployment's alias its current version, with these weights."""
    alias = subject(deployment)
    change = {"FunctionVersion": alias["CurrentVersion"], "RoutingConfig": {"AdditionalVersionWeights": weights}}
    lambda_svc._update_alias(alias["Name"], alias["Alias"], change)


def begin(data: Json, creator: str) -> Json:
    """Records a deployment under way."""
    deployment = {
        "applicationName": data["applicationName"],
        "deploymentGroupName": data["deploymentGroupName"],
        "revision": data["revision"],
        "deploymentId": f"d-{uuid.uuid4().hex[:9].upper()}",
        "status": "InProgress",
        "creator": creator,
        "createTime": time.time(),
    }
    _deployments[deployment["deploymentId"]] = deployment
    return deployment


def advance() -> None:
    """Concludes the rollbacks that were told of."""
    for name in _told:
        deployment = _deployments[name]
        if deployment["status"] == "InProgress":
            deployment["status"] = "Succeeded"
            point(deployment, {})


def create(data: Json) -> Any:
    deployment = begin(data, "user")
    point(deployment, {subject(deployment)["TargetVersion"]: CANARY_WEIGHT})
    return json_response({"deploymentId": deployment["deploymentId"]})


def listed(data: Json) -> Any:
    names = ("applicationName", "deploymentGroupName")
    statuses = data.get("includeOnlyStatuses")
    found = [
        name
        for name, deployment in reversed(_deployments.items())
        if all(deployment[key] == data.get(key) for key in names)
        and (not statuses or deployment["status"] in statuses)
    ]
    return json_response({"deployments": found})


def get(data: Json) -> Any:
    deployment = _deployments.get(data["deploymentId"])
    if not deployment:
        return error_response_json("DeploymentDoesNotExistException", "The deployment could not be found")
    if deployment["creator"] == "codeDeployRollback":
        _told.add(deployment["deploymentId"])
    return json_response({"deploymentInfo": deployment})


def stop(data: Json) -> Any:
    deployment = _deployments.get(data["deploymentId"])
    if not deployment:
        return error_response_json("DeploymentDoesNotExistException", "The deployment could not be found")
    if deployment["status"] != "InProgress":
        return error_response_json("DeploymentAlreadyCompletedException", "The deployment is already complete")
    deployment["status"] = "Stopped"
    if data.get("autoRollbackEnabled"):
        rollback = begin(deployment, "codeDeployRollback")
        rollback["rollbackInfo"] = {"rollbackTriggeringDeploymentId": deployment["deploymentId"]}
        deployment["rollbackInfo"] = {"rollbackDeploymentId": rollback["deploymentId"]}
    return json_response({"status": "Succeeded"})


OPERATIONS = {
    "CreateDeployment": create,
    "ListDeployments": listed,
    "GetDeployment": get,
    "StopDeployment": stop,
}


async def handle_request(_method: str, _path: str, headers: Json, body: bytes, _query: Json) -> Any:
    """Answers one request."""
    operation = headers.get("x-amz-target", "").removeprefix(f"{TARGET}.")
    if operation not in OPERATIONS:
        return error_response_json("UnknownOperationException", f"not emulated: {operation}")
    advance()
    return OPERATIONS[operation](json.loads(body))


def with_group(extract: Callable[..., str]) -> Callable[..., str]:
    """Finds the deployment group, which is the resource of every operation but the stop, which has none."""

    def extract_resource(service: str, method: str, path: str, headers: Json, body: bytes, *rest: Any) -> str:
        if service != "codedeploy":
            return extract(service, method, path, headers, body, *rest)
        if headers.get("x-amz-target") == f"{TARGET}.StopDeployment":
            return "*"
        _query, region, account = rest
        data = json.loads(body)
        data = _deployments.get(data.get("deploymentId"), data)
        group = f"{data.get('applicationName')}/{data.get('deploymentGroupName')}"
        return f"arn:aws:codedeploy:{region}:{account}:deploymentgroup:{group}"

    return extract_resource


def install() -> None:
    """Adds the service to the emulator."""
    router.SERVICE_PATTERNS["codedeploy"] = {"target_prefixes": [TARGET]}
    app.SERVICE_HANDLERS["codedeploy"] = handle_request
    iam_actions.SERVICE_TO_IAM_NAMESPACE["codedeploy"] = "codedeploy"
    iam_actions.extract_resource_arn = with_group(iam_actions.extract_resource_arn)
