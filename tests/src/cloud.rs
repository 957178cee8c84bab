//! AWS SDK clients for the local cloud that the tests share: the operator's own, and the same through a proxy.

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_sdk_sqs::config::Credentials;
pub use xtask::cloud::Cloud;
use xtask::cloud::key_value_stores_at;

/// The operator's credentials.
#[must_use]
pub fn credentials(cloud: &Cloud) -> Credentials {
    Credentials::new(
        &cloud.access_key_id,
        &cloud.secret_access_key,
        None,
        None,
        "local cloud",
    )
}

async fn config(cloud: &Cloud, endpoint: &str, retries: RetryConfig) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(cloud.region.clone()))
        .credentials_provider(credentials(cloud))
        .retry_config(retries)
        .load()
        .await
}

/// SDK clients, one for each service that the stack uses.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Simple Queue Service.
    pub sqs: aws_sdk_sqs::Client,
    /// The ledger's database.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Where policies are kept.
    pub ssm: aws_sdk_ssm::Client,
    /// `CodeDeploy`.
    pub codedeploy: aws_sdk_codedeploy::Client,
    /// Alarms and metrics.
    pub cloudwatch: aws_sdk_cloudwatch::Client,
    /// Distributions, their functions and key-value stores.
    pub cloudfront: aws_sdk_cloudfront::Client,
    /// What key-value stores hold.
    pub store: aws_sdk_cloudfrontkeyvaluestore::Client,
    /// REST APIs.
    pub apigateway: aws_sdk_apigateway::Client,
    /// Functions.
    pub lambda: aws_sdk_lambda::Client,
    /// Event buses and rules.
    pub events: aws_sdk_eventbridge::Client,
    /// Buckets and objects.
    pub s3: aws_sdk_s3::Client,
    /// State machines.
    pub states: aws_sdk_sfn::Client,
    /// Roles and their policies.
    pub iam: aws_sdk_iam::Client,
    /// The stack.
    pub cloudformation: aws_sdk_cloudformation::Client,
}

impl Clients {
    /// The operator's view of a cloud.
    pub async fn of(cloud: &Cloud) -> Self {
        Self::new(&config(cloud, &cloud.endpoint, RetryConfig::standard()).await)
    }

    /// The operator's view through another address, with each failure shown at once.
    pub async fn through(cloud: &Cloud, endpoint: &str) -> Self {
        Self::new(&config(cloud, endpoint, RetryConfig::disabled()).await)
    }

    fn new(config: &SdkConfig) -> Self {
        let stores = config.endpoint_url().map(key_value_stores_at);
        let mut store = aws_sdk_cloudfrontkeyvaluestore::config::Builder::from(config);
        store.set_endpoint_url(stores);
        // The name that the SDK makes of account and host is one that every C library resolves only in this client.
        if let Ok(client) = shared::https::client() {
            store = store.http_client(client);
        }
        Self {
            cloudfront: aws_sdk_cloudfront::Client::new(config),
            store: aws_sdk_cloudfrontkeyvaluestore::Client::from_conf(store.build()),
            sqs: aws_sdk_sqs::Client::new(config),
            dynamodb: aws_sdk_dynamodb::Client::new(config),
            ssm: aws_sdk_ssm::Client::new(config),
            codedeploy: aws_sdk_codedeploy::Client::new(config),
            cloudwatch: aws_sdk_cloudwatch::Client::new(config),
            apigateway: aws_sdk_apigateway::Client::new(config),
            lambda: aws_sdk_lambda::Client::new(config),
            events: aws_sdk_eventbridge::Client::new(config),
            s3: aws_sdk_s3::Client::new(config),
            states: aws_sdk_sfn::Client::new(config),
            iam: aws_sdk_iam::Client::new(config),
            cloudformation: aws_sdk_cloudformation::Client::new(config),
        }
    }
}
