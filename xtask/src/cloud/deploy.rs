//! The deployment of `template.yaml`, by the same SAM command that deploys it to AWS.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Cloud;
use crate::command::run_logged;
use crate::template::Template;
use crate::tools::Tools;
use crate::workspace::architecture;
use crate::{Error, Result};

/// Deploys the template with the built functions and returns the stack's outputs. `parameters` are given besides the
/// defaults.
pub(super) async fn deploy(
    cloud: &Cloud,
    folder: &Path,
    tools: &Tools,
    artefacts: &Path,
    parameters: &[(&str, String)],
) -> Result<BTreeMap<String, String>> {
    let template = folder.join("template.yaml");
    fs::write(&template, Template::read()?.with_code_in(artefacts))
        .map_err(Error::file("write", &template))?;
    let mut sam = tools.program("sam");
    sam.current_dir(folder)
        .args([
            "deploy",
            "--resolve-s3",
            "--no-confirm-changeset",
            "--no-fail-on-empty-changeset",
            "--no-progressbar",
        ])
        .args(["--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"])
        .args(["--stack-name", &cloud.stack_name])
        .arg("--template-file")
        .arg(&template)
        .arg("--parameter-overrides")
        .arg(format!("Architecture={}", architecture()))
        // The local cloud has no certificates, and only names below localhost lead to it.
        .args([
            "ServiceScheme=http",
            "ApiDomainName=api.dataforge.localhost",
        ])
        // With all that a stack may have, so that every permission is there to be tried.
        .args([
            "ApiDeploymentApplication=dataforge-api",
            "ApiDeploymentGroup=live",
            "ApiSmokeTestPayload={}",
        ])
        .args(
            parameters
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        )
        // The user's own AWS configuration must have no say here.
        .env("HOME", folder.join("home"))
        .env("TMPDIR", folder.join("tmp"))
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_SESSION_TOKEN")
        .env_remove("AWS_CONFIG_FILE")
        .env_remove("AWS_SHARED_CREDENTIALS_FILE")
        .envs(cloud.environment());
    run_logged(&mut sam, &folder.join("deploy.log")).await?;
    outputs(cloud).await
}

async fn outputs(cloud: &Cloud) -> Result<BTreeMap<String, String>> {
    const DOING: &str = "read the stack's outputs";
    let client = aws_sdk_cloudformation::Client::new(&cloud.sdk_config().await);
    let answer = client
        .describe_stacks()
        .stack_name(&cloud.stack_name)
        .send()
        .await
        .map_err(Error::aws(DOING))?;
    let stack = answer
        .stacks()
        .first()
        .ok_or_else(|| Error::aws(DOING)("the answer holds no stack"))?;
    let pairs = stack.outputs().iter().filter_map(|output| {
        Some((
            output.output_key()?.to_owned(),
            output.output_value()?.to_owned(),
        ))
    });
    Ok(pairs.collect())
}
