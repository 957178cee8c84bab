//! A function's life: settings, clients and policy once, then one invocation after the other.

use aws_config::SdkConfig;
use lambda_runtime::LambdaEvent;
use serde_json::Value;

use crate::clock::Clock;
use crate::remediation::Remediation;
use crate::runtime::engine::Runtime;
use crate::runtime::error::StartError;
use crate::runtime::invocation::Invocation;
use crate::runtime::suite::Suite;
use crate::sdk::sdk_config;
use crate::settings::Settings;
use crate::telemetry;

/// Runs a function until Lambda ends it: settings, clients, policy, then one event after the other.
pub async fn run<R: Remediation>(build: impl FnOnce(&SdkConfig) -> R) -> Result<(), StartError> {
    let settings = Settings::from_environment();
    telemetry::start(
        settings
            .as_ref()
            .map_or(tracing::Level::INFO, |settings| settings.log),
    );
    let settings =
        settings.inspect_err(|error| tracing::error!(%error, "the function cannot start"))?;
    let config = sdk_config();
    let remediation = build(&config);
    let runtime = Runtime::new(Suite::new(settings, Clock::system(), &config), remediation);
    runtime.warm_up().await;
    let runtime = &runtime;
    lambda_runtime::run(lambda_runtime::service_fn(
        |event: LambdaEvent<Value>| async move {
            Box::pin(runtime.handle(Invocation::from(event))).await
        },
    ))
    .await
    .map_err(StartError::Runtime)
}
