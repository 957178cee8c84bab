//! What is in front of a service, behind one narrow trait: a distribution's key-value store, or a custom domain's
//! mapping.

mod api_gateway;
mod cloudfront;
mod in_force;

use aws_config::SdkConfig;
use shared::remediation::Work;

use crate::MaintenancePage;
use crate::aws::api_gateway::CustomDomain;
use crate::aws::cloudfront::Distribution;
use crate::error::PageError;
use crate::plan::{Notice, Observed, Plan, Snapshot};
use crate::policy::{Front, Page};

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It was.
    There,
    /// What was to be changed is not as it was observed; nothing was changed.
    Overtaken,
}

/// What is in front of a service.
pub trait InFront {
    /// Reads it.
    fn look(&self) -> impl Future<Output = Result<Observed, PageError>> + Send;

    /// Reads it, with what decides whether clients of `url` would see a page.
    fn survey(&self, url: &str) -> impl Future<Output = Result<Observed, PageError>> + Send;

    /// Puts the page up.
    fn raise(
        &self,
        plan: &Plan,
        work: &Work<'_, MaintenancePage>,
    ) -> impl Future<Output = Result<Moved, PageError>> + Send;

    /// Has the page that was `observed` say something else.
    fn reword(
        &self,
        observed: &Observed,
        notice: &Notice,
        work: &Work<'_, MaintenancePage>,
    ) -> impl Future<Output = Result<Moved, PageError>> + Send;

    /// Takes the page down that was `observed`.
    fn lower(
        &self,
        observed: &Observed,
        snapshot: &Snapshot,
        work: &Work<'_, MaintenancePage>,
    ) -> impl Future<Output = Result<Moved, PageError>> + Send;
}

/// The clients.
#[derive(Debug)]
pub struct Aws {
    store: aws_sdk_cloudfrontkeyvaluestore::Client,
    apigateway: aws_sdk_apigateway::Client,
    states: aws_sdk_sfn::Client,
}

impl Aws {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            store: aws_sdk_cloudfrontkeyvaluestore::Client::new(config),
            apigateway: aws_sdk_apigateway::Client::new(config),
            states: aws_sdk_sfn::Client::new(config),
        }
    }

    fn front<'a>(&'a self, policy: &'a Page) -> Either<'a> {
        match &policy.front {
            Front::Cloudfront(policy) => Either::Distribution(Distribution {
                client: &self.store,
                policy,
            }),
            Front::ApiGateway(policy) => Either::CustomDomain(CustomDomain {
                client: &self.apigateway,
                states: &self.states,
                policy,
            }),
        }
    }

    /// Reads what is in front of the service.
    pub async fn look(&self, policy: &Page) -> Result<Observed, PageError> {
        match self.front(policy) {
            Either::Distribution(front) => front.look().await,
            Either::CustomDomain(front) => front.look().await,
        }
    }

    /// Reads what is in front of the service, with what decides whether its clients would see a page.
    pub async fn survey(&self, policy: &Page) -> Result<Observed, PageError> {
        match self.front(policy) {
            Either::Distribution(front) => front.survey(&policy.url).await,
            Either::CustomDomain(front) => Box::pin(front.survey(&policy.url)).await,
        }
    }

    /// Puts the page up.
    pub async fn raise(
        &self,
        policy: &Page,
        plan: &Plan,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<Moved, PageError> {
        match self.front(policy) {
            Either::Distribution(front) => front.raise(plan, work).await,
            Either::CustomDomain(front) => front.raise(plan, work).await,
        }
    }

    /// Has the page that was `observed` say something else.
    pub async fn reword(
        &self,
        policy: &Page,
        observed: &Observed,
        notice: &Notice,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<Moved, PageError> {
        match self.front(policy) {
            Either::Distribution(front) => front.reword(observed, notice, work).await,
            Either::CustomDomain(front) => front.reword(observed, notice, work).await,
        }
    }

    /// Takes the page down that was `observed`.
    pub async fn lower(
        &self,
        policy: &Page,
        observed: &Observed,
        snapshot: &Snapshot,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<Moved, PageError> {
        match self.front(policy) {
            Either::Distribution(front) => front.lower(observed, snapshot, work).await,
            Either::CustomDomain(front) => front.lower(observed, snapshot, work).await,
        }
    }

    /// Takes our name off a page that is down already.
    pub async fn forget(
        &self,
        policy: &Page,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<(), PageError> {
        match self.front(policy) {
            Either::Distribution(_) => Ok(()),
            Either::CustomDomain(front) => front.forget(work).await,
        }
    }
}

enum Either<'a> {
    Distribution(Distribution<'a>),
    CustomDomain(CustomDomain<'a>),
}
