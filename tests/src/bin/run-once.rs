//! Runs a remediation's handler once on the event from standard input, as Lambda would, and prints what it answers.
//!
//! `run-once <remediation> <request id> <milliseconds until the deadline>`; settings, endpoint and credentials come from the
//! environment, as in Lambda.

use std::io::Read as _;
use std::process::ExitCode;

use aws_config::SdkConfig;
use chrono::TimeDelta;
use end_to_end::failure::{During, Failure, Result};
use end_to_end::replay::{CLOCK_OFFSET_SECONDS, ERROR, FUNCTION_ARN, REPORT};
use lambda_runtime::Diagnostic;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::remediation::Remediation;
use shared::runtime::{Invocation, Runtime, Suite};
use shared::sdk::sdk_config;
use shared::settings::Settings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result {
    let mut arguments = std::env::args().skip(1);
    let remediation = arguments.next().during("the remediation")?;
    let request_id = arguments.next().during("the request id")?;
    let milliseconds = arguments
        .next()
        .during("the time until the deadline")?
        .parse()?;
    let mut event = String::new();
    std::io::stdin().read_to_string(&mut event)?;
    let clock = clock()?;
    let invocation = Invocation {
        payload: serde_json::from_str(&event)?,
        request_id,
        deadline: clock.now() + TimeDelta::milliseconds(milliseconds),
        function_arn: function_arn()?,
        trace_id: None,
    };
    let answer = match remediation.as_str() {
        alias_rollback::NAME => {
            handle(invocation, clock, alias_rollback::AliasRollback::new).await?
        }
        cache_fallback::NAME => {
            handle(invocation, clock, cache_fallback::CacheFallback::new).await?
        }
        dlq_replay::NAME => handle(invocation, clock, dlq_replay::DlqReplay::new).await?,
        maintenance_page::NAME => {
            handle(invocation, clock, maintenance_page::MaintenancePage::new).await?
        }
        other => return Err(Failure::new(format!("there is no remediation {other}"))),
    };
    match answer {
        Ok(answer) => println!("{REPORT}{answer}"),
        Err(error) => {
            let told = json!({"errorType": error.error_type, "errorMessage": error.error_message});
            println!("{ERROR}{told}");
        }
    }
    Ok(())
}

#[allow(clippy::disallowed_methods)] // The tests' own setting; functions have no such.
fn clock() -> Result<Clock> {
    match std::env::var(CLOCK_OFFSET_SECONDS) {
        Ok(seconds) => Ok(Clock::offset(TimeDelta::seconds(seconds.parse()?))),
        Err(_) => Ok(Clock::system()),
    }
}

#[allow(clippy::disallowed_methods)] // The tests' own setting; functions are told by Lambda.
fn function_arn() -> Result<String> {
    std::env::var(FUNCTION_ARN).during(FUNCTION_ARN)
}

/// The one place that knows how a function is put together; the same as `shared::runtime::run` but for the clock.
async fn handle<R: Remediation>(
    invocation: Invocation,
    clock: Clock,
    build: impl FnOnce(&SdkConfig) -> R,
) -> Result<std::result::Result<Value, Diagnostic>> {
    let settings = Settings::from_environment()?;
    shared::telemetry::start(settings.log);
    let config = sdk_config();
    let runtime = Runtime::new(Suite::new(settings, clock, &config), build(&config));
    match Box::pin(runtime.handle(invocation)).await {
        Ok(response) => serde_json::to_value(response)
            .map(Ok)
            .map_err(Failure::from),
        Err(error) => Ok(Err(error.into())),
    }
}
