//! A function's life: settings, clients and policy once, then one invocation after the other.

use std::time::Duration;

use aws_config::SdkConfig;
use lambda_runtime::LambdaEvent;
use serde_json::Value;

use crate::clock::Clock;
use crate::https;
use crate::remediation::Remediation;
use crate::runtime::engine::Runtime;
use crate::runtime::error::StartError;
use crate::runtime::invocation::Invocation;
use crate::runtime::suite::Suite;
use crate::settings::Settings;
use crate::telemetry;

/// The SDK's configuration, with time limits that leave a run room to report.
pub async fn sdk_config() -> SdkConfig {
    let mut loader = aws_config::defaults(aws_config::BehaviorVersion::latest());
    match https::client() {
        Ok(client) => loader = loader.http_client(client),
        Err(error) => tracing::warn!(%error, "each SDK client makes an HTTPS client of its own"),
    }
    loader
        .timeout_config(
            aws_config::timeout::TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(8))
                .operation_timeout(Duration::from_secs(25))
                .build(),
        )
        .retry_config(
            aws_config::retry::RetryConfig::standard()
                .with_max_attempts(4)
                .with_initial_backoff(Duration::from_millis(100))
                .with_max_backoff(Duration::from_secs(2)),
        )
        .load()
        .await
}

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
    let config = sdk_config().await;
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
