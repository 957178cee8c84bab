//! The SDK's configuration, from the environment that Lambda gives a function.
//!
//! Lambda tells a function its region and its role's credentials by environment variables (AWS Lambda Developer Guide,
//! "Working with Lambda environment variables"), as does `sam local invoke`. The SDK's default chain would look for them
//! in profile files, at STS and at instances' metadata as well: code that a function carries for nothing, and files that
//! each cold start would look for. The variables mean what they mean everywhere (AWS SDKs and Tools Reference Guide,
//! "Settings reference").

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

use crate::https;

const ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";
const IGNORE_ENDPOINT_URLS: &str = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS";

/// The SDK's configuration, with time limits that leave a run room to report.
#[must_use]
pub fn sdk_config() -> SdkConfig {
    #[allow(clippy::disallowed_methods)]
    // They belong to the SDK, not to the settings.
    let environment = Environment(std::env::vars().collect());
    let mut config = environment
        .config()
        .credentials_provider(SharedCredentialsProvider::new(
            EnvironmentVariableCredentialsProvider::new(),
        ));
    match https::client() {
        Ok(client) => config = config.http_client(client),
        Err(error) => tracing::warn!(%error, "each SDK client makes an HTTPS client of its own"),
    }
    config
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(8))
                .operation_timeout(Duration::from_secs(25))
                .build(),
        )
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(4)
                .with_initial_backoff(Duration::from_millis(100))
                .with_max_backoff(Duration::from_secs(2)),
        )
        .build()
}

/// The variables of the process.
#[derive(Debug, Clone)]
struct Environment(BTreeMap<String, String>);

impl Environment {
    fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(|value| value.trim());
        value.filter(|value| !value.is_empty())
    }

    fn is_on(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        let on = value.to_ascii_lowercase().parse();
        on.inspect_err(|_| {
            tracing::warn!(
                name,
                value,
                "neither true nor false: left as it is by default"
            );
        })
        .ok()
    }

    fn config(&self) -> aws_types::sdk_config::Builder {
        let region = self
            .get("AWS_REGION")
            .or_else(|| self.get("AWS_DEFAULT_REGION"));
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.map(|region| Region::new(region.to_owned())))
            .service_config(self.clone());
        config.set_use_fips(self.is_on("AWS_USE_FIPS_ENDPOINT"));
        config.set_use_dual_stack(self.is_on("AWS_USE_DUALSTACK_ENDPOINT"));
        config.set_endpoint_url(self.endpoint(ENDPOINT_URL));
        config
    }

    fn endpoint(&self, name: &str) -> Option<String> {
        if self.is_on(IGNORE_ENDPOINT_URLS) == Some(true) {
            return None;
        }
        self.get(name).map(str::to_owned)
    }
}

impl LoadServiceConfig for Environment {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let of_service = format!(
            "{}_{}",
            key.env(),
            key.service_id().replace(' ', "_").to_uppercase()
        );
        let found = |name: &str| {
            if key.env() == ENDPOINT_URL {
                self.endpoint(name)
            } else {
                self.get(name).map(str::to_owned)
            }
        };
        found(&of_service).or_else(|| found(key.env()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter();
        Environment(
            variables
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn the_region_is_lambdas_or_else_the_default_one() {
        for (variables, region) in [
            (
                &[
                    ("AWS_REGION", "eu-west-1"),
                    ("AWS_DEFAULT_REGION", "us-east-1"),
                ][..],
                Some("eu-west-1"),
            ),
            (
                &[("AWS_REGION", " "), ("AWS_DEFAULT_REGION", "us-east-1")],
                Some("us-east-1"),
            ),
            (&[], None),
        ] {
            let config = environment(variables).config().build();
            assert_eq!(config.region().map(AsRef::as_ref), region, "{variables:?}");
        }
    }

    #[test]
    fn a_services_own_endpoint_comes_before_the_one_for_all() {
        const ALL: (&str, &str) = ("AWS_ENDPOINT_URL", "http://all");
        const OWN: (&str, &str) = ("AWS_ENDPOINT_URL_API_GATEWAY", "http://own");
        let key = ServiceConfigKey::builder()
            .service_id("API Gateway")
            .env(ENDPOINT_URL)
            .profile("endpoint_url")
            .build()
            .unwrap();
        for (variables, all, own) in [
            (&[ALL, OWN][..], Some("http://all"), Some("http://own")),
            (&[ALL], Some("http://all"), Some("http://all")),
            (&[OWN], None, Some("http://own")),
            (&[ALL, OWN, (IGNORE_ENDPOINT_URLS, "TRUE")], None, None),
        ] {
            let environment = environment(variables);
            let config = environment.config().build();
            assert_eq!(config.endpoint_url(), all, "{variables:?}");
            let loaded = environment.load_config(key.clone());
            assert_eq!(loaded.as_deref(), own, "{variables:?}");
        }
    }

    #[test]
    fn only_true_and_false_switch_an_endpoints_kind() {
        for (value, fips) in [
            ("true", Some(true)),
            ("False", Some(false)),
            ("yes", None),
            ("", None),
        ] {
            let variables = [
                ("AWS_USE_FIPS_ENDPOINT", value),
                ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
            ];
            let config = environment(&variables).config().build();
            assert_eq!(
                (config.use_fips(), config.use_dual_stack()),
                (fips, Some(true)),
                "{value}"
            );
        }
    }
}
