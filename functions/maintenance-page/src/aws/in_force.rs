//! Reads what is in force before the page of a custom domain: the domain, the page's stage, and the methods that it
//! serves.

use std::collections::HashMap;

use aws_sdk_apigateway::operation::get_export::GetExportError;
use aws_sdk_apigateway::operation::get_stage::GetStageError;
use aws_sdk_apigateway::types::{
    DomainNameStatus, EndpointConfiguration, EndpointType, RoutingMode,
};
use shared::aws_error::AwsError;

use crate::aws::api_gateway::CustomDomain;
use crate::error::PageError;
use crate::in_force::{Access, Domain, Routing, Stage};

/// The status of a domain about which there is nothing to tell.
const AVAILABLE: &str = "AVAILABLE";

impl CustomDomain<'_> {
    /// What the page's stage serves, and its variables.
    pub(super) async fn served(&self) -> Result<(Stage, HashMap<String, String>), PageError> {
        let stage = match self.stage().await {
            Ok(stage) => stage,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetStageError::is_not_found_exception) =>
            {
                return Ok((Stage::Missing, HashMap::new()));
            }
            Err(error) => return Err(self.failed("apigateway:GET", &error)),
        };
        let deployment = stage.deployment_id().unwrap_or_default();
        let served = if deployment.is_empty() {
            Stage::WithoutDeployment
        } else {
            Stage::Deployed
        };
        Ok((served, stage.variables().cloned().unwrap_or_default()))
    }

    /// How the domain takes requests. A call that fails for a moment keeps no page down.
    pub(super) async fn domain(&self) -> Result<Domain, PageError> {
        let name = self.policy.domain_name();
        let id = self.policy.domain_name_id().map(str::to_owned);
        let domain = self.client.get_domain_name().domain_name(name);
        let domain = domain.set_domain_name_id(id);
        let failed = |error| AwsError::new("apigateway:GET", format!("the domain {name}"), &error);
        let domain = match domain.send().await.map_err(failed) {
            Ok(domain) => domain,
            Err(error) if error.is_transient() => return Ok(Domain::unknown(error.to_string())),
            Err(error) => return Err(PageError::Aws(error)),
        };
        let types = domain
            .endpoint_configuration()
            .map(EndpointConfiguration::types);
        let certificates = domain.mutual_tls_authentication();
        let truststore = certificates.and_then(|it| it.truststore_uri());
        let status = domain.domain_name_status().map(DomainNameStatus::as_str);
        let status = status.filter(|status| !status.is_empty() && *status != AVAILABLE);
        let message = domain.domain_name_status_message();
        Ok(Domain {
            routing: Routing::of(domain.routing_mode().map(RoutingMode::as_str)),
            private: types.is_some_and(|types| types.contains(&EndpointType::Private)),
            mutual_tls: truststore.is_some_and(|uri| !uri.is_empty()),
            status: status.map(|status| match message {
                Some(message) if !message.is_empty() => format!("{status} ({message})"),
                _ => status.to_owned(),
            }),
            unknown: None,
        })
    }

    /// Whom the methods answer that the page's stage serves. An API that cannot be exported, or not for a
    /// moment, keeps no page down.
    pub(super) async fn access(&self, url: &str) -> Result<Access, PageError> {
        let (api, stage) = (&self.policy.maintenance_api, &self.policy.maintenance_stage);
        let export = self
            .client
            .get_export()
            .rest_api_id(api)
            .stage_name(stage)
            .export_type("oas30")
            .accepts("application/json")
            .parameters("extensions", "apigateway")
            .send()
            .await;
        match export {
            Ok(export) => {
                let body = export.body().map(AsRef::as_ref).unwrap_or_default();
                Ok(Access::exported(body, url, self.policy.base_path()))
            }
            Err(error) if error.as_service_error().is_some_and(cannot_be_exported) => {
                let why = AwsError::new("apigateway:GET", "its export", &error);
                Ok(Access::unknown(why.to_string()))
            }
            Err(error) => {
                let export = format!("the export of stage {stage} of REST API {api}");
                let error = AwsError::new("apigateway:GET", export, &error);
                if error.is_transient() {
                    Ok(Access::unknown(error.to_string()))
                } else {
                    Err(PageError::Aws(error))
                }
            }
        }
    }
}

/// An API whose models are not JSON cannot be exported (API Gateway Developer Guide, "Export a REST API from API
/// Gateway"). Of a stage that is not there, `GetStage` tells.
fn cannot_be_exported(error: &GetExportError) -> bool {
    error.is_bad_request_exception() || error.is_not_found_exception()
}
