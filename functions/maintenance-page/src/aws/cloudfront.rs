//! A page that a distribution's function shows while the key-value store says so.
//!
//! One write under the store's version reaches every edge location within seconds
//! (Amazon `CloudFront` Developer Guide, "Amazon `CloudFront` `KeyValueStore`"). The version (`ETag`) of the data plane
//! is another than that of the control plane.

use aws_sdk_cloudfrontkeyvaluestore::Client;
use aws_sdk_cloudfrontkeyvaluestore::config::http::HttpResponse;
use aws_sdk_cloudfrontkeyvaluestore::error::SdkError;
use aws_sdk_cloudfrontkeyvaluestore::operation::get_key::GetKeyError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use shared::aws_error::AwsError;
use shared::remediation::{Clearance, Work};

use crate::MaintenancePage;
use crate::aws::{InFront, Moved};
use crate::error::PageError;
use crate::plan::{Notice, Observed, Plan, Snapshot};
use crate::policy::KeyValueStore;

/// The key that the distribution's function reads.
const KEY: &str = "maintenance";

/// A distribution, by the key-value store of its function.
pub(super) struct Distribution<'a> {
    pub(super) client: &'a Client,
    pub(super) policy: &'a KeyValueStore,
}

impl Distribution<'_> {
    fn arn(&self) -> &str {
        self.policy.key_value_store.as_str()
    }

    fn failed<E>(&self, operation: &'static str, error: &SdkError<E, HttpResponse>) -> PageError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        PageError::Aws(AwsError::new(operation, self.arn(), error))
    }

    /// The key's value; `None` when it is not there.
    async fn held(&self) -> Result<Option<String>, PageError> {
        let held = self.client.get_key().kvs_arn(self.arn()).key(KEY);
        match held.send().await {
            Ok(held) => Ok(Some(held.value().to_owned())),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetKeyError::is_resource_not_found_exception) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.failed("cloudfront-keyvaluestore:GetKey", &error)),
        }
    }

    /// Writes the key under the store's version.
    async fn put(
        &self,
        notice: &str,
        version: Option<&str>,
        _clearance: Clearance<'_>,
    ) -> Result<Moved, PageError> {
        let put = self
            .client
            .put_key()
            .kvs_arn(self.arn())
            .key(KEY)
            .value(notice)
            .set_if_match(version.map(str::to_owned))
            .send()
            .await;
        match put {
            Ok(_) => Ok(Moved::There),
            Err(error) if is_conflict(&error) => self.in_conflict(Some(notice)).await,
            Err(error) => Err(self.failed("cloudfront-keyvaluestore:PutKey", &error)),
        }
    }

    /// Removes the key under the store's version.
    async fn delete(
        &self,
        version: Option<&str>,
        _clearance: Clearance<'_>,
    ) -> Result<Moved, PageError> {
        let deleted = self
            .client
            .delete_key()
            .kvs_arn(self.arn())
            .key(KEY)
            .set_if_match(version.map(str::to_owned))
            .send()
            .await;
        match deleted {
            Ok(_) => Ok(Moved::There),
            Err(error) if is_conflict(&error) => self.in_conflict(None).await,
            Err(error) => Err(self.failed("cloudfront-keyvaluestore:DeleteKey", &error)),
        }
    }

    /// What a conflict comes to. Where the answer was lost to a change that took effect, the SDK's next try is in
    /// conflict with it.
    async fn in_conflict(&self, wanted: Option<&str>) -> Result<Moved, PageError> {
        if self.held().await?.as_deref() == wanted {
            Ok(Moved::There)
        } else {
            Ok(Moved::Overtaken)
        }
    }
}

impl InFront for Distribution<'_> {
    /// The version is read first: a write after that makes it fail, and is never overwritten.
    async fn look(&self) -> Result<Observed, PageError> {
        let store = self.client.describe_key_value_store().kvs_arn(self.arn());
        let store = store.send().await.map_err(|error| {
            self.failed("cloudfront-keyvaluestore:DescribeKeyValueStore", &error)
        })?;
        let held = self.held().await?;
        // The function passes over what it cannot read, and over what is past its time.
        let notice = held.and_then(|held| serde_json::from_str::<Notice>(&held).ok());
        Ok(Observed {
            notice,
            route: None,
            version: Some(store.e_tag().to_owned()),
            in_force: None,
        })
    }

    /// The function at the edge has the last word, and its store is all that it goes by.
    async fn survey(&self, _url: &str) -> Result<Observed, PageError> {
        self.look().await
    }

    async fn raise(
        &self,
        plan: &Plan,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<Moved, PageError> {
        let clearance = work.clear("put the page up")?;
        let notice = serde_json::to_string(&plan.announced()).unwrap_or_default();
        self.put(&notice, plan.version.as_deref(), clearance).await
    }

    async fn reword(
        &self,
        observed: &Observed,
        notice: &Notice,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<Moved, PageError> {
        let clearance = work.clear("have the page say something else")?;
        let notice = serde_json::to_string(notice).unwrap_or_default();
        self.put(&notice, observed.version.as_deref(), clearance)
            .await
    }

    async fn lower(
        &self,
        observed: &Observed,
        _snapshot: &Snapshot,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<Moved, PageError> {
        let clearance = work.clear("take the page down")?;
        self.delete(observed.version.as_deref(), clearance).await
    }
}

/// Whether the store was written since its version was read. A key that is gone was removed since.
fn is_conflict<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(
        error.code(),
        Some("ConflictException" | "ResourceNotFoundException")
    )
}
